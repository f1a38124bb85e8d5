"""Whole runs: what they store, how they resume, how they end when something is wrong."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from memdyn_cases import SMALL, results, same, small, tables

from analysis import over_seeds
from analysis.memdyn import generate_summary_report
from memdyn.config import METRICS, ModelConfig, tiny
from memdyn.data import make_passages
from memdyn.measure import Evaluation, Seconds
from memdyn.model import make_model, make_tokenizer
from memdyn.records import Records
from memdyn.registry import metrics
from memdyn.summary import COLUMNS
from memdyn.train import _explaining_out_of_memory, run
from plugins import api
from plugins.lm.corpora import load_corpus
from plugins.lm.models import load_lm
from plugins.lm.tokenizers import byte_bpe
from plugins.load import load_sweep, load_table
from plugins.merge import merge

EPOCHS = [0, 1, 2, 4]


def sweep(store, *overrides):
    return api.sweep("memdyn/memdyn", [*SMALL, *overrides], output=store)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    store = tmp_path_factory.mktemp("undisturbed")
    assert sweep(store).ok == 1
    return store


def test_every_passage_has_a_row_at_every_epoch(undisturbed):
    passages, of_layers, layers = tables(undisturbed)
    assert passages.height == 4 * 12
    assert passages.select("epoch", "passage_id").is_unique().all()
    assert sorted(passages["epoch"].unique()) == EPOCHS
    groups = passages.group_by("group").agg(pl.col("passage_id").unique().sort())
    assert dict(groups.rows()) == {"trained": [*range(6)], "novel": [*range(6, 12)]}
    assert of_layers.height == 4 * 12 * 2
    assert sorted(of_layers["layer"].unique()) == [0, 1]
    assert layers.height == 4 * 2 * 2 * len(METRICS)
    for table in (passages, of_layers):
        assert not table.select(pl.selectors.float().is_nan().any()).row(0).count(True)


def test_row_says_how_it_ended_and_curves_how_it_went(undisturbed):
    found = results(undisturbed).row(0, named=True)
    assert found["step"] == EPOCHS
    assert found["final_memorization_rate"] == found["memorization_rate"][-1]
    assert found["n_params"] == sum(
        p.numel() for p in make_model(small(), "cpu").model.parameters()
    )
    assert found["nan_states"] == 0
    assert len(found["data_sha256"]) == 64
    assert len(found["nv_rel_trained"]) == 4
    passages = tables(undisturbed)[0].filter(group="trained")
    means = passages.group_by("epoch", maintain_order=True).agg(pl.col("accuracy").mean())
    assert found["mean_accuracy"] == pytest.approx(means["accuracy"].to_list())


def test_summary_has_a_line_per_epoch(undisturbed):
    [path] = undisturbed.glob("artifacts/*/training_summary.csv")
    with open(path, newline="") as file:
        lines = list(csv.DictReader(file))
    assert tuple(lines[0]) == COLUMNS
    assert [int(line["epoch"]) for line in lines] == EPOCHS
    found = results(undisturbed).row(0, named=True)
    assert [float(line["mean_accuracy"]) for line in lines] == found["mean_accuracy"]
    gap = [float(x["mean_novel_perplexity"]) - float(x["mean_training_perplexity"]) for x in lines]
    assert gap == pytest.approx([float(line["perplexity_gap"]) for line in lines])
    assert path.with_name("summary_report.txt").read_text().strip()


def test_sweep_over_seeds_and_rates_is_completed_and_averaged(tmp_path):
    axes = ["lr=0.001,0.003", "schedule.epochs=[1]"]
    assert sweep(tmp_path, "seed=0", *axes).ok == 2
    report = sweep(tmp_path, "seed=0..3", *axes)
    assert (report.planned, report.done_before, report.ok) == (6, 2, 4)
    runs = load_sweep(tmp_path)
    assert load_table(tmp_path, name="passages").height == 6 * 2 * 12
    curves = over_seeds(runs, "geo_training_perplexity", by="lr").curves
    assert curves["lr"].to_list() == [0.001, 0.001, 0.003, 0.003]
    assert set(curves["n"]) == {3}
    own = runs.filter(lr=0.003)["geo_training_perplexity"].list.get(1)
    assert curves["mean"][3] == pytest.approx(own.mean())


def test_same_config_gives_the_same_numbers(undisturbed, tmp_path):
    sweep(tmp_path)
    assert same(tmp_path, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("damaged", [False, True])
def test_killed_run_goes_on_to_the_same_numbers(undisturbed, tmp_path, root, damaged):
    command = [sys.executable, str(root / "sweep.py"), "-cn=memdyn/memdyn", *SMALL]
    process = subprocess.Popen(
        [*command, f"--output={tmp_path}"], stderr=subprocess.PIPE, text=True
    )
    while not (found := sorted(tmp_path.glob("work/*/checkpoints/*/epoch-00002.pt"))):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    if damaged:
        found[0].write_bytes(found[0].read_bytes()[:1000])
    [summary] = tmp_path.glob("work/*/training_summary.csv")
    assert len(summary.read_text().splitlines()) in (4, 5)
    again = subprocess.run([*command, f"--output={tmp_path}"], capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert ("is damaged and left out" in again.stderr) == damaged
    assert "goes on after epoch" in again.stderr
    assert same(tmp_path, undisturbed)
    assert list((tmp_path / "work").iterdir()) == []


def test_longer_schedule_has_equal_rows_up_to_the_end_of_the_shorter(undisturbed, tmp_path):
    sweep(tmp_path, "schedule.epochs=[0,1,2,4,6]")
    longer, shorter = tables(tmp_path, up_to=4), tables(undisturbed)
    assert all(map(pl.DataFrame.equals, longer, shorter))


def test_restarts_of_a_constant_rate_are_the_continuous_training(undisturbed, tmp_path):
    """The order of an epoch comes from (seed, epoch), so each restart takes the same way."""
    sweep(tmp_path, "schedule.mode=restart")
    assert all(map(pl.DataFrame.equals, tables(tmp_path), tables(undisturbed)))
    linear = tmp_path / "linear"
    rate = ["lr_schedule=linear", "batch_size=1"]
    sweep(linear, "schedule.mode=restart", *rate)
    sweep(linear, "schedule.mode=continuous", *rate)
    one, other = load_table(linear, name="passages").partition_by("run_id")
    at = pl.col("epoch") == 4
    assert one.filter(at)["nll"].equals(other.filter(at)["nll"])
    assert not one.filter(~at)["nll"].equals(other.filter(~at)["nll"])


def stopped_after(cfg, workdir, epoch):
    """The run up to a measured epoch."""

    def stop(fraction):
        if fraction * max(cfg.schedule.epochs) > epoch:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(cfg, workdir, stop)


@pytest.mark.parametrize("changed", ["text", "weights"])
def test_checkpoints_of_another_text_or_model_do_not_count(tmp_path, changed):
    """Whose path stayed the same between two attempts of one run."""
    text = load_corpus("state_of_the_union")
    path, folder = tmp_path / "a.jsonl", tmp_path / "model"

    def write(documents, seed):
        path.write_text("\n".join(json.dumps({"text": d.text}) for d in documents))
        lm = load_lm("tiny", tiny=tiny(small().model, 24, 0.0), seed=seed)
        lm.model.save_pretrained(folder)
        byte_bpe(text[:9], 300).save_pretrained(folder)

    cfg = small(model=ModelConfig(source="hf", path=str(folder)))
    cfg = replace(cfg, data=replace(cfg.data, corpus="file", path=str(path)))
    write(text[:20], seed=0)
    stopped_after(cfg, tmp_path / "first", 2)
    write(*((text[20:40], 0) if changed == "text" else (text[:20], 1)))
    again, fresh = run(cfg, tmp_path / "first"), run(cfg, tmp_path / "fresh")
    assert again.tables["layers"] == fresh.tables["layers"]
    assert again.tables["passages"]["nll"] == fresh.tables["passages"]["nll"]
    digests = ("data_sha256", "model_sha256")
    assert [again.scalars[n] for n in digests] == [fresh.scalars[n] for n in digests]


def test_resumed_run_counts_by_its_own_threshold(tmp_path):
    cfg = small()
    stopped_after(cfg, tmp_path, 2)
    result = run(replace(cfg, threshold=0.01), tmp_path)
    accuracy = np.array(result.tables["passages"]["accuracy"])
    assert np.array_equal(result.tables["passages"]["memorized"], accuracy >= 0.01)
    words = (tmp_path / "summary_report.txt").read_text().split()
    assert "at least 0.01." in " ".join(words)
    with open(tmp_path / "training_summary.csv", newline="") as file:
        rates = [float(line["memorization_rate"]) for line in csv.DictReader(file)]
    assert rates == result.curves["memorization_rate"]


def test_checkpoint_that_cannot_be_read_now_is_not_thrown_away(tmp_path):
    cfg = small()
    stopped_after(cfg, tmp_path, 2)
    [*_, last] = sorted(tmp_path.glob("checkpoints/*/*.pt"))
    last.rename(last.with_suffix(".aside"))
    last.mkdir()  # IsADirectoryError, as any other OSError
    with pytest.raises(OSError, match="directory"):
        run(cfg, tmp_path)
    assert last.exists()


def test_checkpoints_are_kept_on_demand(undisturbed, tmp_path):
    sweep(tmp_path, "checkpoint.keep=all")
    names = sorted(path.name for path in tmp_path.glob("artifacts/*/checkpoints/*/*.pt"))
    assert names == [f"epoch-{epoch:05d}.pt" for epoch in EPOCHS]
    assert not list(undisturbed.glob("artifacts/**/*.pt"))
    [run_id] = load_sweep(tmp_path)["run_id"]
    assert run_id == load_sweep(undisturbed)["run_id"][0]


def test_diverged_run_keeps_its_epochs(tmp_path):
    report = sweep(tmp_path, "lr=1e30")
    assert (report.ok, report.diverged) == (0, 1)
    found = load_sweep(tmp_path, status=("diverged",)).row(0, named=True)
    assert found["step"] == [0]
    assert (found["diverged_epoch"], found["diverged_step"]) == (1, 1)
    assert load_table(tmp_path, name="passages")["epoch"].unique().to_list() == [0]


def test_model_that_the_last_update_broke_has_diverged(tmp_path):
    report = sweep(tmp_path, "schedule.epochs=[1]", "lr=1e30", "batch_size=6")
    assert (report.ok, report.diverged) == (0, 1)
    assert load_sweep(tmp_path)["nan_states"].item() > 0
    [path] = tmp_path.glob("artifacts/*/summary_report.txt")
    for text in (path.read_text(), generate_summary_report(tmp_path)):
        assert "The training diverged" in text
        assert "smaller learning rate" in " ".join(text.split())


def test_metric_that_returns_something_else_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(metrics._functions, "mean_of_states", lambda states: states.Y.mean())
    assert sweep(tmp_path, "metrics=[mean_of_states]").failed == 1
    [error] = load_sweep(tmp_path, status=("failed",))["error"]
    assert "metric 'mean_of_states' returned a Tensor, not memdyn.states.Values" in error


def test_merge_of_equal_runs_finds_them_equal(undisturbed, tmp_path):
    """Although they took other times; other passages under one path it names."""
    sweep(tmp_path / "b")
    report = merge([undisturbed, tmp_path / "b"], tmp_path / "c", keep="error")
    assert (report.runs, report.overlapping, report.differing) == (1, 1, ())


def test_passages_longer_than_the_model_takes(tmp_path):
    lm = load_lm("tiny", tiny=tiny(small().model, 20, 0.0))
    lm.model.save_pretrained(tmp_path)
    byte_bpe(load_corpus("state_of_the_union")[:9], 300).save_pretrained(tmp_path)
    cfg = small(model=ModelConfig(source="hf", path=str(tmp_path)))
    with pytest.raises(ValueError, match=r"data\.length=24: .* takes at most 20"):
        run(cfg, tmp_path / "work")


def test_too_few_passages_fail_the_run_before_the_model_loads(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("the people of the United States and their government " * 40)
    report = sweep(tmp_path / "store", "data.corpus=file", f"data.path={path}")
    assert report.failed == 1
    assert "data.n_passages=6 needs 12 different passages" in report.first_error


def test_hub_that_cannot_be_reached_fails_the_run(tmp_path):
    report = sweep(
        tmp_path, "model.source=hf", "model.path=nobody/nothing",
        "model.layers=4", "model.width=128", "model.vocab=1024",
    )  # fmt: skip
    assert report.failed == 1
    for way in ("model.source=tiny", "smollm2", "model.path="):
        assert way in report.first_error


def test_states_that_are_not_finite_are_nulls_and_the_run_goes_on():
    cfg = small()
    documents = load_corpus("state_of_the_union")
    tokenizer = make_tokenizer(cfg, documents)
    lm, records = make_model(cfg, torch.device("cpu")), Records()
    passages = make_passages(documents, tokenizer, cfg.data)
    evaluation = Evaluation(cfg, lm, passages, tokenizer.eos_token_id)

    spoilt = []

    def spoil(module, inputs, output):
        hidden = output[0] if isinstance(output, tuple) else output
        if hidden.shape[:2] == (12, 24) and not spoilt:  # the first pass over whole passages
            hidden[7, 21] = float("nan")
            spoilt.append(True)

    lm.blocks[2].register_forward_hook(spoil)  # runs before those that record
    evaluation.measure(lm, 1, records, Seconds())
    assert evaluation.nan_states == 1
    assert [i for i, s in enumerate(records.tables["passages"]["geometry"]) if s != "ok"] == [7]
    by_layer = list(zip(*(records.tables["layers"][n] for n in ("layer", "value")), strict=True))
    assert all((value is None) == (layer == 1) for layer, value in by_layer)
    table = records.tables["passage_layers"]
    assert all((table["nv"][i] is None) == (at == 1) for i, at in enumerate(table["layer"]))


@pytest.mark.parametrize("error", ["torch", "python"])
def test_out_of_memory_says_what_to_lower(error):
    lower = r"micro_batch, eval_batch or data\.length.*model\.dtype"
    with pytest.raises(MemoryError, match=lower), _explaining_out_of_memory():
        torch.empty(1 << 60) if error == "torch" else bytearray(1 << 62)
    with pytest.raises(RuntimeError, match="size"), _explaining_out_of_memory():
        torch.ones(2) + torch.ones(3)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.n_passages=0", "data.n_passages must be an integer >= 1, got 0"),
        ("data.length=19", "data.length must be an integer >= 20, got 19"),
        ("k_neighbors=144", "k_neighbors=144 must be below the 144 token states of 2 x data.n_pa"),
        ("threshold=0", r"threshold must be in \(0, 1\], got 0.0"),
        ("threshold=1.5", r"threshold must be in \(0, 1\], got 1.5"),
        ("schedule.epochs=[-1,3]", r"schedule.epochs must be a list of integers >= 0, got \[-1, 3"),
        ("schedule.mode=once", "schedule.mode must be one of continuous, restart, got 'once'"),
        ("metrics=[nv,nv_rell]", "memdyn has no metric 'nv_rell'; did you mean 'nv_rel'"),
        ("metrics=[]", "metrics must name at least one"),
        ("callbacks=[{lr_decay:{every:5,factor:x}}]", "factor must be finite and > 0, got x"),
        ("callbacks=[lr_decay]", "callback 'lr_decay' needs the parameter 'every'"),
        ("memdyn/mode=quik", "quik"),
        ("model.source=gpt2", "model.source must be one of tiny, smollm2, hf, got 'gpt2'"),
        ("model.source=hf", "model.source=hf needs model.path"),
        ("data.corpus=wikitex", "did you mean 'wikitext'"),
        ("model.width=30", "model.width must be a multiple of 4, got 30"),
        ("prompt_fraction=0.01", "leaves 0 for the prompt"),
        ("checkpoint.keep=some", "checkpoint.keep must be one of last, all, null, got 'some'"),
        ("betas=[0.9]", r"betas must be two numbers in \[0, 1\)"),
    ],
)
def test_bad_input_starts_nothing(tmp_path, override, message):
    with pytest.raises(ValueError, match=message):
        sweep(tmp_path, override)
    assert list(tmp_path.iterdir()) == []
