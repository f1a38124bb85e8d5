"""Configs of the recursive predictor that cannot be."""

import pytest

from compressor.trm_check import check
from compressor.trm_config import (
    CodesConfig,
    FitConfig,
    RecursionConfig,
    TrmConfig,
)


def changed(**sections):
    cfg = TrmConfig(task=sections.pop("task", "depth"))
    for section, values in sections.items():
        for name, value in values.items():
            setattr(getattr(cfg, section), name, value)
    return cfg


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        (changed(trm={"from_site": "block_4"}), "trm.from_site=block_4: known are .* block_3"),
        (
            changed(trm={"from_site": "block_2"}, lm={"site": "block_2"}),
            "trm.from_site=block_2 must come before lm.site=block_2",
        ),
        (
            changed(trm={"from_site": "block_3"}, lm={"site": "pre_norm"}),
            "trm.from_site=block_3 must come before lm.site=pre_norm",
        ),
        (changed(lm={"site": "block_1"}), "trm.from_site=block_1 must come before lm.site=block_1"),
        (changed(lm={"site": "block_9"}), "lm.site=block_9: known are"),
        (changed(lm={"source": "synthetic"}), "task=depth needs sequences of a text"),
        (changed(model={"d_compressed": 65}), r"model.d_compressed=65 must be in 1\.\.64"),
        (changed(model={"ratio": 2.0}), "model.d_compressed=16, model.ratio=2.0: one of them"),
        (
            changed(task="next", trm={"from_site": "block_1"}),
            "trm.from_site=block_1 needs task=dep",
        ),
        (changed(task="next", eval={"downstream": True}), "eval.downstream=true needs task=depth"),
        (changed(task="pairs"), "task=pairs needs data.path, .* data.path=None is no file"),
        (
            changed(task="pairs", data={"path": __file__}, train={"init_from": "x"}),
            "train.init_from=x needs task=depth or next",
        ),
    ],
)
def test_what_does_not_go_together_is_refused_before_any_run(cfg, message):
    with pytest.raises(ValueError, match=message):
        check(cfg, {})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TrmConfig(task="width"), "task must be one of depth, next, pairs, got 'width'"),
        (lambda: RecursionConfig(n=0), "n must be an integer >= 1, got 0"),
        (lambda: RecursionConfig(ema=1.0), r"ema must be in \[0, 1\), got 1.0"),
        (lambda: FitConfig(equal_flops="wall"), "equal_flops must be one of training, evaluation"),
        (lambda: FitConfig(lr=-1.0), "lr must be finite and > 0"),
        (lambda: CodesConfig(d_compressed=0), "d_compressed must be an integer >= 1"),
    ],
)
def test_a_value_out_of_range_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
