"""What a config and meta.json tell ends before anything is written; the rest fails the run."""

import json
import re
import shutil

import numpy as np
import pytest
from sublora_cases import overrides

from plugins import api
from plugins.load import load_sweep


def sweep(store, *lines):
    return api.sweep("sublora/sublora", list(lines), output=store)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["seed=-1"], "seed must be an integer >= 0, got -1"),
        (["subspace.d=-1"], r"subspace\.d must be an integer >= 0, got -1"),
        (["subspace.d=833"], r"subspace\.d gives group of all parameters 833 .* it has 832"),
        (["subspace.d=60,833"], r"subspace\.d gives group of all parameters 833"),
        (["allocation.name=fixed_0.5", "subspace.d=700"], r"group A 350 coordinates, it has 320"),
        (["allocation.name=learned", "subspace.d=500"], r"group layer 0 A 15\d coord.* has 128"),
        (["allocation.name=learned", "subspace.d=2"], r"subspace\.d=2 is less than the 3 layers"),
        (["allocation.name=fixed_0.001"], r"allocation\.name=fixed_0\.001 .* leaves B no coord"),
        (["allocation.name=fixed_0"], r"allocation\.name=fixed_0: rho must lie in \(0, 1\)"),
        (["allocation.name=fixed_1.5"], r"allocation\.name=fixed_1\.5: rho must lie in \(0, 1\)"),
        (["allocation.name=lerned"], r"allocation\.name=lerned .*did you mean 'learned'.*uniform"),
        (["allocation.name=learned", "subspace.d=0"], r"subspace\.d=0 needs allocation\.name=unif"),
        (["allocation.name=fixed_0.5", "model.lora_r=0"], r"model\.lora_r=0 needs allocation"),
        (["allocation.hard_from=1"], r"allocation\.hard_from must be in \(0, 1\), got 1"),
        (
            ["allocation.layer_budget=same"],
            r"allocation\.layer_budget must be one of params, equal",
        ),
        (["subspace.projector=rdkron"], r"subspace\.projector=rdkron: .*'rdkronqr'.*onehot"),
        (["model.block=1"], r"model\.block must be an integer >= 2, got 1"),
        (["model.n_head=3"], r"model\.n_head=3 must divide model\.n_embd=16"),
        (["model.dropout=1"], r"model\.dropout must be in \[0, 1\), got 1"),
        (["model.lora_r=-1"], r"model\.lora_r must be an integer >= 0"),
        (["model.init_std=0"], r"model\.init_std must be"),
        (["model.path=/x"], r"model\.path=/x goes with model\.source=hf"),
        (["model.source=hf"], r"model\.source=hf needs model\.path"),
        (["model.source=hf", "model.path=/nowhere/model"], r"model\.path=/nowhere/model: no such"),
        (["train.lr=0"], r"train\.lr must be"),
        (["train.min_lr=0.03"], r"train\.min_lr must be at most lr=0\.02, got 0\.03"),
        (["allocation.gate_init=nan"], r"allocation\.gate_init must be finite, got nan"),
        (["train.steps=0"], r"train\.steps must be an integer >= 1"),
        (["train.tokens_per_step=8"], r"train\.tokens_per_step=8 .*model\.block=16"),
        (["quant.levels=1"], r"quant\.levels must be an integer >= 2, got 1"),
        (["quant.method=means"], r"quant\.method must be one of kmeans, uniform"),
        (["quant.coder=huffman"], r"quant\.coder must be one of adaptive, static"),
        (["quant.codebooks=ab"], r"quant\.codebooks=ab needs allocation\.name=fixed"),
        (["bound.delta=0"], r"bound\.delta must be in \(0, 1\), got 0"),
        (["bound.delta=1"], r"bound\.delta must be in \(0, 1\), got 1"),
        (["bound.alphas=[0.1,1.0]"], r"bound\.alphas must be numbers in \(0, 1\), got 1"),
        (["bound.alphas=[0.0]"], r"bound\.alphas must be numbers in \(0, 1\), got 0"),
        (["bound.alphas=[]"], r"bound\.alphas must be at least one number"),
        (["bound.alphas=[0.1,0.1]"], r"bound\.alphas must be at least one number, each once"),
        (["bound.n=0"], r"bound\.n must be an integer >= 1, got 0"),
        (["bound.n=301"], r"bound\.n=301 must be in 1\.\.300, the documents"),
        (["bound.level=sequence", "bound.n=9999"], r"bound\.n=9999 must be in 1\.\.\d+, the seq"),
        (["bound.level=token", "bound.n=99999"], r"bound\.n=99999 must be in 1\.\.\d+, the tok"),
        (["bound.level=sequence", "bound.n=1", "model.block=99999"], r"bound\.n=1 must be in"),
        (["bound.level=word"], r"bound\.level must be one of document, sequence, token"),
        (["bound.stride=0"], r"bound\.stride must be an integer >= 1"),
        (["bound.n_configs=0"], r"bound\.n_configs must be an integer >= 1"),
        (["bound.price=low"], r"bound\.price must be one of prefix_free, paper"),
        (
            ["bound.delta_i=predictable", "bound.n=300"],
            r"bound\.delta_i=predictable needs bound\.level=token",
        ),
        (
            ["bound.delta_i=predictable", "bound.level=token", "bound.n=100"],
            r"bound\.delta_i=predictable needs",
        ),
        (["callbacks=[wandbb]"], "no callback 'wandbb'; did you mean 'wandb'"),
        (["data.dir=/nowhere"], r"data\.dir=/nowhere is no folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_starts_nothing(folder, tmp_path, lines, message):
    given = {line.split("=")[0] for line in lines}
    usual = [line for line in overrides(folder) if line.split("=")[0] not in given]
    with pytest.raises(ValueError, match=message):
        sweep(tmp_path / "store", *usual, *lines)
    assert not (tmp_path / "store").exists()


def test_more_documents_than_the_default_data_has_start_nothing(tmp_path):
    with pytest.raises(ValueError, match=r"bound\.n=40001 must be in 1\.\.40000"):
        sweep(tmp_path / "store", "bound.n=40001")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    "lines", [["bound.n=301"], ["subspace.d=833"], ["quant.levels=1"]], ids=str
)
def test_command_line_ends_with_2_and_writes_nothing(sweep_cli, folder, tmp_path, lines):
    done = sweep_cli("-cn=sublora", *overrides(folder, *lines))
    assert done.returncode == 2
    assert lines[0].split("=")[0] in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def mine(folder, tmp_path):
    """A copy of the data set, to be broken."""
    shutil.copytree(folder, tmp_path / "data")
    return tmp_path / "data"


def edit_meta(path, **changes):
    meta = json.loads((path / "meta.json").read_text()) | changes
    (path / "meta.json").write_text(json.dumps(meta))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 70000}, "vocab_size=70000, not 2 to 65,536"),
        ({"vocab_size": 1}, "vocab_size=1, not 2"),
        ({"eot": 64}, "eot=64, not 0 to"),
        ({"format_version": 9}, "format_version=9, this program reads 1"),
        ({"counts": {}}, "counts no documents, empty_documents, tokens of train"),
        ({"counts": {"train": {"documents": 300}}}, "counts no empty_documents, tokens of train"),
    ],
    ids=str,
)
def test_bad_meta_starts_nothing(mine, tmp_path, changes, message):
    edit_meta(mine, **changes)
    with pytest.raises(ValueError, match=rf"data\.dir=.*{message}"):
        sweep(tmp_path / "store", *overrides(mine))
    assert not (tmp_path / "store").exists()


def odd(path):
    with open(path / "train.bin", "ab") as file:
        file.write(b"\0")


def write(path, name, ids):
    (path / name).write_bytes(np.array(ids, "<u2").tobytes())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (odd, r"train\.bin has .* an odd number"),
        (
            lambda path: write(path, "train.bin", [1, 64, 63]),
            r"train\.bin has the id 64 at token 1",
        ),
        (lambda path: write(path, "train.bin", [1, 2]), r"train\.bin has no EOT"),
        (lambda path: write(path, "train.bin", [1, 63, 2]), r"train\.bin does not end in EOT"),
        (lambda path: write(path, "val.bin", []), r"val\.bin has no token"),
        (lambda path: write(path, "val.bin", [63]), r"val\.bin"),
        (lambda path: (path / "val.bin").unlink(), r"val\.bin is missing"),
        (lambda path: np.save(path / "eot_indices.npy", [1, 2]), r"eot_indices\.npy does not fit"),
        (lambda path: np.save(path / "doc_lengths.npy", [1]), r"doc_lengths\.npy does not fit"),
    ],
    ids=["odd", "id", "no eot", "end", "empty val", "only eot", "no val", "stale ends", "stale"],
)
def test_what_only_files_tell_fails_the_run_before_its_training(mine, tmp_path, damage, message):
    damage(mine)
    report = sweep(tmp_path / "store", *overrides(mine))
    assert report.failed == 1
    row = load_sweep(tmp_path / "store", status=("failed",)).row(0, named=True)
    assert re.search(rf"data\.dir=.*{message}", row["error"])
    assert not list((tmp_path / "store").glob("artifacts/*/*"))


def test_training_set_shorter_than_a_window_fails_the_run(mine, tmp_path):
    """Known from the files alone where meta.json tells of other ids."""
    write(mine, "train.bin", [*range(10), 63])
    for name in ("eot_indices", "doc_lengths"):
        (mine / f"{name}.npy").unlink()
    edit_meta(mine, sha256={})
    lines = [line for line in overrides(mine) if "bound.n=" not in line]
    assert sweep(tmp_path / "store", *lines, "bound.n=1").failed == 1
    row = load_sweep(tmp_path / "store", status=("failed",)).row(0, named=True)
    assert re.search(r"model\.block=16", row["error"])


def test_a_run_that_fails_leaves_the_rest_of_its_sweep(folder, tmp_path):
    """By the command line: status 1, a failed row, an ok row."""
    store = tmp_path / "store"
    report = sweep(store, *overrides(folder, "eval_from=null,abc", "train.steps=2"))
    assert (report.ok, report.failed) == (1, 1)
    row = load_sweep(store, status=("failed",)).row(0, named=True)
    assert "eval_from=abc: neither a run of" in row["error"]


def test_run_is_evaluated_again_by_the_id_of_its_row(folder, tmp_path):
    usual = overrides(folder, "train.steps=2", "allocation.name=learned")
    assert sweep(tmp_path, *usual).ok == 1
    first = load_sweep(tmp_path).row(0, named=True)
    folder_of = tmp_path / "artifacts" / first["run_id"]
    assert {path.name for path in folder_of.iterdir()} >= {
        "best.pt", "message.bin", "config.yaml", "bounds_metrics.pt"
    }  # fmt: skip
    again = [*usual, f"eval_from={first['run_id']}", "bound.alphas=[0.25]"]
    assert sweep(tmp_path, *again).ok == 1
    rows = load_sweep(tmp_path)
    second = rows.filter(rows["run_id"] != first["run_id"]).row(0, named=True)
    assert second["compressed_size_bits"] == first["compressed_size_bits"]
    assert second["alpha_best"] == 0.25
    assert second["search_bits"] == 0
    with_seed = [*usual, f"eval_from={first['run_id']}", "seed=1"]
    assert sweep(tmp_path, *with_seed).failed == 1


def test_execution_keys_leave_the_run_what_it_is(folder, tmp_path):
    usual = overrides(folder, "train.steps=1")
    assert sweep(tmp_path, *usual).ok == 1
    report = sweep(tmp_path, *usual, "processes=2", "subspace.cache_mb=0", "threads=2")
    assert (report.planned, report.done_before) == (1, 1)
    assert load_sweep(tmp_path).height == 1


def test_runs_are_not_started_by_a_launcher(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"processes=N, without torchrun or accelerate launch"):
        sweep(tmp_path / "store")
    assert not (tmp_path / "store").exists()
