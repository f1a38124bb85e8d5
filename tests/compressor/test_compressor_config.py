"""Schema: what one field's own check refuses, and D' of its two keys."""

import math

import pytest
from compressor_cases import config, on_model

from compressor.config import TrainConfig, rank_of, shape
from compressor.stacking import stack_width


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        ("lm", {"source": "gguf"}, "source must be one of synthetic, tiny, smollm2, hf"),
        ("lm", {"dtype": "float16"}, "dtype must be one of float32, bfloat16"),
        ("lm", {"dim": 0}, "dim must be an integer >= 1"),
        ("lm", {"rows": 1}, "rows must be an integer >= 2"),
        ("lm", {"mean": -1.0}, "mean must be finite"),
        ("data", {"n_seq": 1}, "n_seq must be an integer >= 2"),
        ("data", {"max_len": 1}, "max_len must be an integer >= 2"),
        ("data", {"skip_first": -1}, "skip_first must be an integer >= 0"),
        ("data", {"heldout": 0.0}, r"heldout must be in \(0, 1\), got 0"),
        ("data", {"heldout": 1.0}, r"heldout must be in \(0, 1\), got 1"),
        ("data", {"heldout": math.nan}, "heldout must be in"),
        ("data", {"span": "thoughts"}, "span must be one of all, thinking"),
        ("model", {"d_compressed": 0}, "d_compressed must be an integer >= 1"),
        ("model", {"ratio": 0.5}, "ratio must be a number >= 1, got 0.5"),
        ("model", {"ratio": math.nan}, "ratio must be a number >= 1"),
        ("model", {"center": "median"}, "center must be one of mean"),
        ("model", {"init_scale": 0.0}, "init_scale must be finite and > 0"),
        ("model", {"nested": [2, 1]}, "nested must be increasing integers >= 1"),
        ("model", {"nested": [1, 1]}, "nested must be increasing integers >= 1"),
        ("model", {"nested": [0, 1]}, "nested must be increasing integers >= 1"),
        ("model", {"nested_weights": "none"}, "nested_weights must be one of equal, inverse_pca"),
        ("train", {"lr": 0.0}, "lr must be finite and > 0"),
        ("train", {"lr": math.inf}, "lr must be finite and > 0"),
        ("train", {"batch": 0}, "batch must be an integer >= 1"),
        ("train", {"max_epochs": 0}, "max_epochs must be an integer >= 1"),
        ("train", {"patience": 0}, "patience must be an integer >= 1"),
        ("train", {"optimizer": "adam"}, "optimizer must be one of adamw, sgd"),
        ("train", {"schedule": "linear"}, "schedule must be one of cosine, constant"),
        ("train", {"clip": 0.0}, "clip must be finite and > 0"),
        ("train", {"objective": "mae"}, "objective must be one of mse, relative, cosine"),
        ("train", {"objective": "cosin"}, "got 'cosin'; did you mean 'cosine'?"),
        ("train", {"min_delta": -1e-6}, "min_delta must be finite"),
        ("train", {"compile": "true"}, "compile must be one of auto, on, off"),
        ("train", {"amp": "fp16"}, "amp must be one of bf16, off"),
        ("train", {"seed": -1}, "seed must be an integer >= 0"),
        ("eval", {"log_modes": 0}, "log_modes must be an integer >= 1"),
        ("eval", {"every": 0}, "every must be an integer >= 1"),
    ],
)
def test_values_out_of_range_name_the_key_and_the_range(section, changes, message):
    with pytest.raises(ValueError, match=message):
        config(**{section: changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stage": "2"}, "stage must be one of 1a, 1b, got '2'"),
        ({"processes": 0}, "processes must be an integer >= 1"),
    ],
)
def test_top_level_keys_likewise(changes, message):
    with pytest.raises(ValueError, match=message):
        config(**changes)


@pytest.mark.parametrize(
    ("k", "ratio", "dim", "expected"),
    [
        (16, None, 64, 16),
        (64, None, 64, 64),
        (16, None, None, 16),
        (None, 48, 576, 12),
        (None, 3.0, 576, 192),
        (None, 1.5, 576, 384),
        (None, 1, 64, 64),
        (None, 64, 64, 1),
        (None, 4, None, None),
    ],
)
def test_size_of_the_code(k, ratio, dim, expected):
    assert rank_of(k, ratio, dim) == expected


@pytest.mark.parametrize(
    ("k", "ratio", "dim", "message"),
    [
        (None, None, 64, "one of them must be a number, the other none"),
        (16, 4, 64, "model.d_compressed=16, model.ratio=4: one of them"),
        (65, None, 64, r"model\.d_compressed=65 must be in 1\.\.64"),
        (None, 5, 64, r"model\.ratio=5: 64 / 5 is not an integer"),
        (None, 128, 64, r"model\.ratio=128: 64 / 128 is not an integer"),
        (None, math.inf, 64, "is not an integer"),
    ],
)
def test_sizes_that_do_not_fit(k, ratio, dim, message):
    with pytest.raises(ValueError, match=message):
        rank_of(k, ratio, dim)


def test_dimensions_are_known_without_a_model_where_a_config_tells(gpt2, llama, tmp_path):
    assert shape(config(lm={"dim": None})) == (64, None)
    assert shape(config()) == (12, None)
    assert shape(TrainConfig()) == (64, 3)
    assert shape(on_model(gpt2)) == (16, 3)
    assert shape(on_model(llama)) == (16, 2)
    assert shape(on_model("some/model")) is None
    assert shape(config(lm={"source": "smollm2", "dim": None})) == (576, 30)


def test_stacks_are_as_wide_as_stays_in_a_cache():
    widths = [stack_width(config(model={"d_compressed": k}, lm={"dim": 64})) for k in (4, 16, 64)]
    assert widths == sorted(widths, reverse=True)
    assert 8 <= min(widths) <= max(widths) <= 256
    big = {"lm": {"dim": 2048}, "model": {"d_compressed": None, "ratio": 8}}
    assert stack_width(config(**big)) == 8
