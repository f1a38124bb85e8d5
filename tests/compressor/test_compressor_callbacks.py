"""Callbacks: what they are told, and Weights & Biases offline."""

import json
import sys

import pytest
from compressor_cases import config, run

from compressor import registry
from plugins import api


def test_callback_is_told_every_record_and_the_end_of_every_run(tmp_path):
    told = []

    @registry.register_callback("tell")
    class Tell:
        def __init__(self, mark):
            self.mark = mark

        def record(self, run, step, values):
            told.append((self.mark, run.run_id, run.config["train"]["seed"], step, dict(values)))

        def end(self, run, scalars, files):
            told.append((self.mark, run.run_id, scalars, [file.name for file in files]))

    cfg = config(callbacks=[{"tell": {"mark": "!"}}])
    results = run(cfg, tmp_path, {"train.seed": [5, 6]})
    for i, result in enumerate(results):
        of_run = [entry[2:] for entry in told if entry[1] == str(i)]
        *records, (scalars, files) = of_run
        assert [record[0] for record in records] == [5 + i] * 5
        assert [record[1] for record in records] == result.curves["step"]
        assert [record[2]["train_mse"] for record in records] == result.curves["train_mse"]
        assert (scalars, files) == (result.scalars, ["best.pt", "eigenvalues.npy"])


def test_callback_has_any_of_the_methods(tmp_path):
    registry.register_callback("idle")(type("Idle", (), {}))
    run(config(callbacks=["idle"]), tmp_path)


def test_metrics_and_checkpoints_of_a_stack_are_runs_of_wandb(tmp_path, wandb_logs):
    """Offline: files only, one of each run. Their records hold values as JSON."""
    spec = {"wandb": {"project": "some-project", "mode": "offline"}}
    results = run(config(callbacks=[spec]), tmp_path, {"train.seed": [0, 1]})
    files = wandb_logs()
    assert [file.stem for file in files] == ["run-0", "run-1"]
    contents = [file.read_bytes() for file in files]
    for content, result in zip(contents, results, strict=True):
        assert b"some-project" in content
        for name in ("train_mse", "heldout_gap", "lr"):
            assert name.encode() in content
            values = (value for value in result.curves[name] if value == value)
            assert all(json.dumps(value).encode() in content for value in values)
        assert json.dumps(result.scalars["cos_heldout"]).encode() in content
        assert b"best.pt" in content
    other = json.dumps(results[1].curves["train_mse"][-1]).encode()
    assert other not in contents[0]


def test_wandb_that_is_not_installed_is_named_before_a_job_starts(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not there
    overrides = ["lm.source=synthetic", "eval.downstream=false", "callbacks=[wandb]"]
    with pytest.raises(ValueError, match="callbacks: wandb needs the package: pip install wandb"):
        api.sweep("compressor/compressor", overrides, output=tmp_path)
    assert list(tmp_path.iterdir()) == []
