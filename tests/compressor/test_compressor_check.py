"""What a config and a known width tell ends before anything is written; the rest fails the run."""

import json
import re
import shutil

import pytest

from plugins import api
from plugins.load import load_sweep

SYNTHETIC = ["lm.source=synthetic", "eval.downstream=false"]


def sweep(store, *overrides):
    return api.sweep("compressor/compressor", list(overrides), output=store)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.d_compressed=0"], "model.d_compressed must be an integer >= 1, got 0"),
        (["model.d_compressed=65"], r"model\.d_compressed=65 must be in 1\.\.64"),
        (["model.d_compressed=4,65"], r"model\.d_compressed=65 must be in 1\.\.64"),
        (["model.d_compressed=none"], r"model\.ratio=None: one of them must be a number"),
        (["model.ratio=4"], r"model\.d_compressed=16, model\.ratio=4"),
        (["model.d_compressed=none", "model.ratio=5"], r"model\.ratio=5: 64 / 5 is not an integer"),
        (["model.d_compressed=none", "model.ratio=4,5"], r"model\.ratio=5: 64 / 5 is not"),
        (["model.d_compressed=none", "model.ratio=0.5"], r"model\.ratio must be a number >= 1"),
        (["lm.dim=32"], r"lm\.dim=32: the states of tiny have 64 dimensions"),
        (["model.nested=[4,2,16]"], r"model\.nested must be increasing integers >= 1"),
        (["model.nested=[4,8]"], r"model\.nested=\[4, 8\] must end in D' = 16"),
        (["model.nested=[4,16]", "train.objective=cosine"], "model.nested needs train.objective"),
        (["model.nested=[4,8]", "model.d_compressed=8,16"], r"must end in D' = 16"),
        (["model.init=orthogonl"], "orthogonl.*did you mean 'orthogonal'"),
        (["lm.site=block_4"], r"lm\.site=block_4: known are .* block_1 \.\. block_3"),
        (["lm.site=norm"], r"lm\.site=norm: known are post_norm"),
        (["lm.source=nobody"], "lm.source must be one of synthetic, tiny, smollm2, hf"),
        (["lm.source=hf"], "lm.source=hf needs lm.path"),
        (["lm.source=hf", "lm.path=/nowhere"], "lm.path=/nowhere: no such file or folder"),
        (["lm.path=gpt2"], "lm.path=gpt2: lm.source=tiny takes none"),
        (["lm.spectrum='power:2'"], "lm.spectrum needs lm.source=synthetic, got tiny"),
        (["lm.rows=100"], "lm.rows needs lm.source=synthetic, got tiny"),
        (["lm.mean=1"], "lm.mean needs lm.source=synthetic, got tiny"),
        (["stage=1b"], "stage=1b needs the run_id"),
        (["train.init_from=abc"], "stage=1a takes none"),
        (["stage=2"], "stage must be one of 1a, 1b"),
        (["data.corpus=nothing"], "data.corpus=nothing: "),
        (["data.corpus=file"], "data.path"),
        (["data.corpus=file", "data.path=/nowhere"], "data.path=/nowhere: no such file"),
        (["data.max_len=8", "data.skip_first=7"], "data.skip_first=7 leaves no state"),
        (["metrics=[msee]"], "no metric 'msee'; did you mean 'mse'"),
        (["metrics=[mse,mse]"], "metrics has mse twice"),
        (["callbacks=[wandbb]"], "no callback 'wandbb'; did you mean 'wandb'"),
        (["callbacks=[{wandb: {projekt: a}}]"], "projekt"),
        (["lm.source=synthetic"], "eval.downstream=true needs a language model"),
        ([*SYNTHETIC, "lm.path=gpt2"], "lm.path needs lm.source=hf, got synthetic"),
        ([*SYNTHETIC, "lm.spectrum='power'"], "lm.spectrum=power"),
        ([*SYNTHETIC, "lm.spectrum='flat:1'"], "lm.spectrum=flat:1: .*no spectrum"),
        ([*SYNTHETIC, "lm.dim=3", "lm.spectrum=[1,2]"], "2 eigenvalues for states of 3 dimensions"),
        ([*SYNTHETIC, "lm.dim=2", "lm.spectrum=[0,0]"], "eigenvalues are finite, >= 0 and not"),
        ([*SYNTHETIC, "lm.dim=8"], r"model\.d_compressed=16 must be in 1\.\.8"),
        ([*SYNTHETIC, "stage=1b", "train.init_from=abc"], "stage=1b needs reasoning traces"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_starts_nothing(tmp_path, overrides, message):
    with pytest.raises(ValueError, match=message):
        sweep(tmp_path, *overrides)
    assert list(tmp_path.iterdir()) == []


def test_command_line_ends_with_2_and_writes_nothing(sweep_cli, tmp_path):
    done = sweep_cli("-cn=compressor", "model.d_compressed=65")
    assert done.returncode == 2
    assert "model.d_compressed=65 must be in 1..64" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def folder(gpt2):
    """Of a small model: what a config of its own says."""
    return ["lm.source=hf", f"lm.path={gpt2}", "data.max_len=24", "data.n_seq=20"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.d_compressed=17", r"model\.d_compressed=17 must be in 1\.\.16"),
        ("lm.site=block_4", r"block_1 \.\. block_3"),
        ("lm.dim=32", r"lm\.dim=32: the states of hf have 16 dimensions"),
    ],
)
def test_a_local_model_is_known_before_it_is_loaded(folder, tmp_path, override, message):
    with pytest.raises(ValueError, match=message):
        sweep(tmp_path, *folder, override)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.max_len=33"], "the language model reads at most 32 tokens"),
        (["data.n_seq=1000000"], r"data\.n_seq=1000000: the corpus has \d+ sequences"),
        (["data.span=thinking"], "has no marker of thinking"),
        (["stage=1b", "train.init_from=abc"], "train.init_from=abc: neither a run of"),
    ],
    ids=str,
)
def test_what_only_states_or_files_tell_fails_the_run(folder, tmp_path, overrides, message):
    report = sweep(tmp_path, *folder, *overrides, "model.d_compressed=4")
    assert report.failed == 1
    row = load_sweep(tmp_path, status=("failed",)).row(0, named=True)
    assert re.search(message, row["error"])
    assert not list(tmp_path.glob("artifacts/*/best.pt"))


def test_width_that_no_file_tells_fails_the_run(gpt2, tmp_path):
    """A config.json of an architecture with other names of its sizes."""
    shutil.copytree(gpt2, tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    content = json.loads(file.read_text())
    content["hidden"] = content.pop("n_embd")
    file.write_text(json.dumps(content))
    store = tmp_path / "store"
    overrides = ["lm.source=hf", f"lm.path={tmp_path / 'model'}", "data.max_len=24"]
    assert sweep(store, *overrides, "data.n_seq=20").failed == 1
