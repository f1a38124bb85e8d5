"""Whole runs: rows and files, resumption, ranks, bounds above the risk."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from sublora_cases import VARIANTS, config, count_windows, file, numbers, run

from plugins.lm.ranks import launch
from sublora import registry, train
from sublora.bounds import bound, delta_range, kl_nats
from sublora.certify import draw_sample, measure
from sublora.codec import layout_of
from sublora.dataset import write_dataset
from sublora.decode import fresh_risk
from sublora.files import IN_METRICS, load_best
from sublora.markov import EOT, VOCAB, best_score, documents, transition
from sublora.message import unpack
from sublora.model import make_module, set_coordinates
from sublora.streams import stream


def decode_into(module, cfg, result):
    """What the message says, and the coordinates in it."""
    layout = layout_of(module.allotment, cfg.quant)
    message = unpack(file(result, "message.bin").read_bytes(), layout)
    if message.gates is not None:
        module.harden(message.gates)
    w = message.values(layout)
    set_coordinates(module, w)
    return w


def w_of(result):
    return torch.load(file(result, "best.pt"), weights_only=True)["w"]


# rows and files


def test_row_is_complete(one):
    row, learned = one.result.scalars, one.cfg.allocation.name == "learned"
    assert one.result.status == "ok"
    assert (row["lora_dim"], row["subspace_dim"], row["m"], row["n"]) == (832, 60, 300, 100)
    assert row["mode"] == one.cfg.allocation.name.split("_")[0]
    assert row.get("ratio") == (0.3 if row["mode"] == "fixed" else None)
    parts = row["payload_bits"] + row["gate_bits"] + row["codebook_bits"]
    assert row["compressed_size_bits"] == parts
    assert row["codebook_bits"] == 16 * 5 * (2 if row["mode"] == "fixed" else 1)
    assert row["gate_bits"] == (14 if learned else 0)  # ceil(log2(20 * 19 * 24))
    assert row["search_bits"] == 3
    kl = kl_nats(row["compressed_size_bits"], 3)
    assert row["kl_divergence"] == pytest.approx(float(kl), rel=1e-12)
    assert row["bound_value"] > row["empirical_bpd"] > 0
    assert row["bound_valid"]
    assert "bound_invalid_reason" not in row
    assert 0 < row["best_step"] <= 20
    for name in ("bpd_fp", "bpd_raw", "val_bpd"):
        assert 2 < row[name] < 6.5
    assert {f"{what}_top{k}" for k in (1, 10, 50) for what in ("err", "bound")} <= row.keys()
    assert "err_top100" not in row
    assert {"seconds_train", "seconds_eval"} <= row.keys()
    if row["mode"] == "uniform":
        assert "d_a" not in row
    else:
        assert row["d_a"] + row["d_b"] == 60
    assert one.result.curves.keys() == {"step", "train_loss", "val_loss"}
    assert one.result.tables.keys() == ({"gates", "alphas"} if learned else {"alphas"})


def test_bounds_metrics_has_four_keys_that_equal_the_row(one):
    metrics = torch.load(file(one.result, "bounds_metrics.pt"), weights_only=True)
    assert metrics == {name: one.result.scalars[name] for name in IN_METRICS}
    assert set(metrics) == {
        "kl_divergence", "empirical_bpd", "bound_value", "compressed_size_bits"
    }  # fmt: skip


def test_best_pt_holds_coordinates_and_seeds_and_no_network(one):
    content = torch.load(file(one.result, "best.pt"), weights_only=True)
    assert {"w", "gates", "seed", "config"} <= content.keys()
    assert content["w"].shape == (60,)
    assert content["config"]["subspace"]["d"] == 60
    assert file(one.result, "best.pt").stat().st_size < 10_000
    config = yaml.safe_load(file(one.result, "config.yaml").read_text())["config"]
    assert config["allocation"]["name"] == one.cfg.allocation.name


def test_table_of_alphas_holds_the_bound(one):
    table, row = one.result.tables["alphas"], one.result.scalars
    assert table["alpha"] == one.cfg.bound.alphas
    assert min(table["bound"]) == row["bound_value"]
    at = table["bound"].index(row["bound_value"])
    assert table["alpha"][at] == row["alpha_best"]
    assert table["risk"][at] == row["empirical_bpd"]


def test_gates_of_the_row_are_those_of_the_message(ended):
    one = ended("learned")
    best = load_best(file(one.result, "best.pt"))
    assert one.result.scalars["d_b"] == sum(best.gates)
    assert one.result.tables["gates"]["k"][-3:] == best.gates


def test_what_was_evaluated_is_what_the_bits_decode_to(one, data):
    """A model of its own, with nothing but the message: its losses are the row's, bit for bit."""
    module = make_module(one.cfg, VOCAB)
    w = decode_into(module, one.cfg, one.result)
    found = measure(module, one.cfg.bound, draw_sample(one.cfg.bound, data, 16), VOCAB)
    assert one.result.tables["alphas"]["risk"] == found.smoothed.mean(1).tolist()
    assert one.result.scalars["bpd_raw"] == float(found.raw.mean())
    assert len(np.unique(w)) <= (10 if one.cfg.quant.codebooks == "ab" else 5)
    assert not np.array_equal(w, load_best(file(one.result, "best.pt")).w)


def test_unquantised_risk_is_that_of_the_trained_coordinates(one, data):
    best = load_best(file(one.result, "best.pt"))
    module = make_module(one.cfg, VOCAB)
    if best.gates is not None:
        module.harden(best.gates)
    set_coordinates(module, best.w)
    found = measure(module, one.cfg.bound, draw_sample(one.cfg.bound, data, 16), VOCAB)
    assert one.result.scalars["bpd_fp"] == float(found.raw.mean())


def test_two_codebooks_are_those_of_a_and_of_b(ended):
    """Each coordinate of A on a level of A's; best.pt's is nearest to it among these."""
    one = ended("fixed")
    layout = layout_of(make_module(one.cfg, VOCAB).allotment, one.cfg.quant)
    message = unpack(file(one.result, "message.bin").read_bytes(), layout)
    w, best = message.values(layout), load_best(file(one.result, "best.pt")).w
    for part, levels in ((slice(0, 42), 0), (slice(42, 60), 1)):
        codebook = message.codebooks[levels].astype(np.float32)
        distances = np.abs(best[part, None] - codebook)
        np.testing.assert_array_equal(np.abs(best[part] - w[part]), distances.min(1))


def test_same_config_same_bits(folder, one, tmp_path):
    again = run(one.cfg, tmp_path)
    assert numbers(again) == numbers(one.result)
    for name in ("message.bin", "bounds_metrics.pt"):
        assert file(again, name).read_bytes() == file(one.result, name).read_bytes()


@pytest.mark.parametrize("changes", [{"subspace": {"d": 0}}, {"model": {"lora_r": 0}}], ids=str)
def test_without_a_projector_or_adapters(folder, tmp_path, changes):
    result = run(config(folder, **changes), tmp_path)
    expected = {"subspace": (832, 832), "model": (7504, 60)}[next(iter(changes))]
    assert (result.scalars["lora_dim"], result.scalars["subspace_dim"]) == expected
    assert result.scalars["bound_value"] > result.scalars["empirical_bpd"]


@pytest.mark.parametrize("level", ["sequence", "token"])
def test_other_units(folder, tmp_path, level, data):
    result = run(config(folder, bound={"level": level}), tmp_path)
    row = result.scalars
    tokens = int(data.doc_lengths.sum())
    assert row["m"] == {"sequence": (len(data.train) - 1) // 16, "token": tokens}[level]
    assert ("independent" in row["bound_assumption"]) == (level == "sequence")


def test_invalid_bounds_say_why(folder, tmp_path):
    row = run(config(folder, bound={"price": "paper"}), tmp_path).scalars
    assert not row["bound_valid"]
    assert "bound.price=paper" in row["bound_invalid_reason"]


def test_huge_learning_rate_keeps_its_curves_and_has_no_bound(folder, tmp_path):
    result = run(config(folder, train={"lr": 1e30, "warmup": 0}), tmp_path)
    assert result.status == "diverged"
    assert result.curves["step"][0] == 0
    assert math.isfinite(result.curves["val_loss"][0])
    assert not {"bound_value", "kl_divergence", "empirical_bpd"} & result.scalars.keys()
    assert result.scalars["mode"] == "uniform"
    assert list(result.artifacts) == []


# interruptions


class Interrupted(Exception):
    pass


def interrupt(cfg, folder, step):
    """Right after the checkpoint of `step`; half of the progress is training."""

    def on_progress(fraction):
        if fraction * 2 * cfg.train.steps >= step:
            raise Interrupted

    with pytest.raises(Interrupted):
        run(cfg, folder, on_progress=on_progress)


@pytest.mark.parametrize("steps", [[5], [17], [20], [24], [3, 16]], ids=str)
@pytest.mark.parametrize("name", ["uniform", "learned"])
def test_interrupted_run_ends_bit_for_bit_as_undisturbed(
    folder, tmp_path, monkeypatch, capsys, name, steps
):
    """Before the gates are hard and after, after the training, and twice; with dropout."""
    monkeypatch.setattr(train, "SAVE_SECONDS", 0.0)
    changes = {"allocation": {"name": name}, "model": {"dropout": 0.1, "lora_dropout": 0.1}}
    cfg = config(folder, **changes)
    expected = run(cfg, tmp_path / "undisturbed")
    for step in steps:
        interrupt(cfg, tmp_path / "killed", step)
    capsys.readouterr()
    result = run(cfg, tmp_path / "killed")
    assert f"goes on after step {min(steps[-1], 20)}" in capsys.readouterr().err
    assert numbers(result) == numbers(expected)
    assert torch.equal(w_of(result), w_of(expected))
    message = file(result, "message.bin").read_bytes()
    assert message == file(expected, "message.bin").read_bytes()


def test_checkpoint_of_other_data_is_left_alone(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train, "SAVE_SECONDS", 0.0)
    mine = tmp_path / "data"
    mine.mkdir()

    def write(seed):
        drawn = documents(130, stream(seed, "test"))
        write_dataset(mine, drawn[:120], drawn[120:], {"vocab_size": 64, "eot": EOT})

    write(1)
    cfg = config(mine)
    interrupt(cfg, tmp_path / "killed", 5)
    write(2)
    capsys.readouterr()
    result = run(cfg, tmp_path / "killed")
    assert "goes on" not in capsys.readouterr().err
    assert numbers(result) == numbers(run(cfg, tmp_path / "undisturbed"))


# ranks


@pytest.fixture
def cases_are_found_by_ranks(monkeypatch):
    folders = [str(Path(__file__).parent), os.environ["PYTHONPATH"]]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(folders))


@pytest.mark.slow
def test_two_ranks_find_what_one_process_finds_and_tell_callbacks(folder, tmp_path, ended):
    """1e-5 relative, of what adds the same numbers in another order."""
    told = []

    @registry.register_callback("tell_of_ranks")
    class Tell:
        def record(self, run, step, values):
            told.append((step, values["val_loss"]))

    cfg = config(folder, processes=2, callbacks=["tell_of_ranks"], **VARIANTS["learned"])
    found, expected = run(cfg, tmp_path), ended("learned").result
    assert told == list(zip(found.curves["step"], found.curves["val_loss"], strict=True))
    assert found.curves["step"] == expected.curves["step"]
    np.testing.assert_allclose(found.curves["val_loss"], expected.curves["val_loss"], rtol=1e-5)
    np.testing.assert_allclose(w_of(found), w_of(expected), rtol=1e-3, atol=1e-5)
    for key in ("bpd_fp", "bpd_raw", "val_bpd", "empirical_bpd", "bound_value", "kl_divergence"):
        assert found.scalars[key] == pytest.approx(expected.scalars[key], rel=1e-5), key
    assert {p.name for p in found.artifacts} == {p.name for p in expected.artifacts}


@pytest.mark.slow
@pytest.mark.usefixtures("cases_are_found_by_ranks")
def test_both_ranks_train_and_evaluate(folder):
    """Two updates of 8 windows: 4 each; three records of 64 windows: 32 each."""
    read = launch(count_windows, (config(folder, train={"steps": 2}),), 2)
    assert read == [[8, 8], [96, 96]]


@pytest.mark.slow
def test_ranks_go_on_with_what_one_process_began(folder, tmp_path, monkeypatch, ended):
    monkeypatch.setattr(train, "SAVE_SECONDS", 0.0)
    cfg = config(folder, **VARIANTS["learned"])
    interrupt(cfg, tmp_path, 18)
    found = run(config(folder, processes=2, **VARIANTS["learned"]), tmp_path)
    expected = ended("learned").result
    np.testing.assert_allclose(found.curves["val_loss"], expected.curves["val_loss"], rtol=1e-5)
    assert found.scalars["d_b"] == expected.scalars["d_b"]


# the theorem


def risk_of(cfg, result, alpha):
    """The decoded model's on 20,000 documents that no run has seen, bits a token."""
    module = make_module(cfg, VOCAB)
    decode_into(module, cfg, result)
    return fresh_risk(module, cfg, 20_000, alpha)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes", [{}, {"allocation": {"name": "learned"}, "bound": {"n": 150}}], ids=str
)
@pytest.mark.parametrize("seed", range(3))
def test_bound_is_above_the_risk_on_fresh_documents(folder, tmp_path, changes, seed):
    cfg = config(folder, seed=seed, train={"steps": 60}, **changes)
    result = run(cfg, tmp_path)
    row = result.scalars
    risk = risk_of(cfg, result, row["alpha_best"])
    assert best_score(*transition(), "document").least < risk < row["bound_value"]
    assert risk == pytest.approx(row["empirical_bpd"], abs=0.4)  # 100 documents of the same law


@pytest.mark.slow
def test_price_of_the_message_keeps_the_bound_above_the_risk_of_what_was_learned_by_heart(tmp_path):
    """All parameters on 30 documents, the best step by these, too: on them the loss is so far below
    the risk that the bound of a model fixed beforehand, without KL, would be wrong."""
    m, alpha = 30, 0.01
    drawn = documents(m, stream(1, "law"))
    write_dataset(tmp_path, drawn, drawn, {"vocab_size": VOCAB, "eot": EOT})
    cfg = config(
        tmp_path,
        subspace={"d": 0},
        model={"n_embd": 48, "block": 64, "lora_r": 0},
        train={"steps": 400, "lr": 0.01, "warmup": 10, "batch": 16},
        quant={"levels": 33},
        bound={"n": m, "alphas": [alpha]},
    )
    result = run(cfg, tmp_path / "store")
    row = result.scalars
    risk = risk_of(cfg, result, alpha)
    without = bound(row["empirical_bpd"], 0.0, m, m, 0.05, 0.0, delta_range(alpha, VOCAB))
    assert without + 0.5 < risk < row["bound_value"]
