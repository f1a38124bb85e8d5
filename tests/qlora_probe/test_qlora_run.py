"""Runs of the experiment as people start them."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time

import polars as pl
import pytest
import torch
from qlora_cases import SIZES

from plugins import api
from plugins.lm.tokenizers import raw_bytes
from plugins.load import load_sweep, load_table
from qlora_probe import registry
from qlora_probe.theory.curves import curve_summary

PROBES = ["grad_norm", "adam_moments", "update_ratio", "noise_scale", "kl_to_base", "delta_rank"]


@pytest.fixture(scope="module")
def small(llama):
    """Twelve updates of a very small model, prompts before and after."""
    return [
        "model.source=hf",
        f"model.path={llama}",
        "data.n_examples=24",
        "train.batch=2",
        "train.accum=1",
        "optim.lr=5e-3",
        "optim.min_8bit_size=1",
        "lora.r=4",
        "lora.alpha=4",
        "eval.n=2",
        "eval.suite=tiny",
        "eval.max_new=4",
        f"callbacks=[{','.join(PROBES)}]",
    ]


def sweep(store, *overrides):
    return api.sweep("qlora_probe/qlora_probe", list(overrides), output=store)


@pytest.fixture(scope="module")
def undisturbed(small, tmp_path_factory):
    store = tmp_path_factory.mktemp("undisturbed")
    assert sweep(store, *small).ok == 1
    return store


def contents(store):
    """Rows and tables, but for what names the run's attempt, place and time."""
    runs = load_sweep(store)
    names = runs.columns[runs.columns.index("step") : runs.columns.index("run_id")]
    runs = runs.select(name for name in names if not name.startswith("seconds_"))
    tables = sorted({path.stem for path in store.glob("parts/*/*.parquet")} - {"results"})
    return [runs, *(load_table(store, name=name).drop("run_id") for name in tables)]


def test_row_says_what_was_planned_and_what_came_of_it(undisturbed):
    run = load_sweep(undisturbed).row(0, named=True)
    assert (run["n_sequences"], run["n_held_out"]) == (24, 3)
    assert run["planned_steps"] == run["done_steps"] == 12
    assert run["n_evals"] == 4
    assert run["step"] == list(range(13))
    measured = [step for step, x in zip(run["step"], run["eval_loss"], strict=True) if x == x]
    assert measured == [0, 4, 8, 12]
    assert run["n_trainable"] == 4 * 2 * sum((64, 48, 48, 64, 80, 80, 80))
    n_base = 256 * 32 + 2 * 32 * (32 + 16 + 16 + 32 + 3 * 48) + 5 * 32  # in 4 bits
    assert run["trainable_fraction"] == run["n_trainable"] / (run["n_trainable"] + n_base)
    assert (run["lora_rank"], run["lora_scale"], run["frac_state_8bit"]) == (4, 1.0, 1.0)
    summary = curve_summary(run["train_loss"][:-1], run["eval_loss"][0], run["eval_loss"][-1])
    assert {name: run.get(name) for name in summary} == summary
    assert run["final_eval_loss"] < run["initial_eval_loss"]
    spent = [run[f"seconds_metric_{name}"] for name in PROBES]
    assert all(seconds > 0 for seconds in spent)
    assert sum(spent) < run["seconds_train"]
    assert len(run["model_sha256"]) == len(run["data_sha256"]) == 64


def test_prompts_are_answered_before_and_after(undisturbed):
    table = load_table(undisturbed, name="generations")
    assert table.group_by("phase", "adapter", "step").len().sort("phase").rows() == [
        ("base", "base", 0, 80),
        ("tuned", "trained", 12, 80),
    ]
    base, tuned = table.sort("prompt_id").partition_by("phase", maintain_order=True)
    assert base["prompt_id"].equals(tuned["prompt_id"])
    assert base["n_tokens"].max() <= 4
    ended = pl.col("n_tokens") < 4
    assert table.filter(ended & ~pl.col("ended")).is_empty()
    assert (table["answer_logprob"] < 0).all()


def test_adapter_is_kept_and_answers_again_as_it_did(undisturbed, small):
    run_id = load_sweep(undisturbed)["run_id"].item()
    folder = undisturbed / "artifacts" / run_id / "adapter"
    assert json.loads((folder / "adapter_config.json").read_text())["r"] == 4
    assert sweep(undisturbed, *small, f"eval.adapters=[base,{run_id}]", "callbacks=[]").ok == 1
    table = load_table(undisturbed, name="generations")
    own, compared = (
        table.filter((pl.col("run_id") == run_id) == mine).sort("phase", "prompt_id")
        for mine in (True, False)
    )
    assert set(compared["adapter"]) == {"base", run_id}
    columns = ["phase", "prompt_id", "response", "answer_logprob"]
    assert own.select(columns).equals(compared.select(columns))


def test_adapter_that_is_nowhere_fails_the_run(small, tmp_path):
    report = sweep(tmp_path, *small, "eval.adapters=[base,nosuchrun]", "callbacks=[]")
    assert report.failed == 1
    [error] = load_sweep(tmp_path, status=("failed",))["error"]
    assert "'nosuchrun' is neither base, nor a run of" in error


def test_same_config_gives_the_same_numbers_after_others_on_the_same_base(
    undisturbed, small, tmp_path
):
    assert sweep(tmp_path / "a", *small, "seed=1").ok == 1
    assert sweep(tmp_path / "b", *small).ok == 1
    first, *tables = contents(tmp_path / "b")
    expected, *others = contents(undisturbed)
    assert first.equals(expected.head(1).select(first.columns))
    assert tables[0].equals(others[0])
    assert not contents(tmp_path / "a")[0].equals(first)


@pytest.mark.slow
def test_killed_run_goes_on_to_the_same_numbers(small, tmp_path, root):
    changes = [*small, "train.save_every=3"]
    assert sweep(tmp_path / "undisturbed", *changes).ok == 1
    store = tmp_path / "killed"
    command = [sys.executable, str(root / "sweep.py"), "-cn=qlora_probe", *changes]
    process = subprocess.Popen([*command, f"--output={store}"], stderr=subprocess.PIPE, text=True)
    while not list(store.glob("work/*/checkpoints/*/step-00006.pt")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert list((store / "work").iterdir())
    again = subprocess.run([*command, f"--output={store}"], capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert "goes on after update" in again.stderr
    pairs = zip(contents(store), contents(tmp_path / "undisturbed"), strict=True)
    assert all(one.equals(two) for one, two in pairs)


def test_diverged_run_keeps_curves_and_the_answers_of_the_base(small, tmp_path):
    class Break:
        every = 1

        def stepped(self, trainer):
            if trainer.step == 4:
                trainer.parameters[0].data.fill_(math.nan)

    registry.register_callback("break_it")(Break)
    assert sweep(tmp_path, *small, "callbacks=[break_it]").diverged == 1
    run = load_sweep(tmp_path).row(0, named=True)
    assert run["status"] == "diverged"
    assert run["diverged"]
    assert (run["planned_steps"], run["done_steps"]) == (12, 5)
    assert [x == x for x in run["train_loss"]] == [True] * 5 + [False]
    assert run.get("final_eval_loss") is None
    assert set(load_table(tmp_path, name="generations")["phase"]) == {"base"}


def test_a_last_update_that_breaks_the_model_is_no_success(small, tmp_path):
    class BreakLast:
        every = 1

        def stepped(self, trainer):
            if trainer.step == trainer.n_steps - 1:
                trainer.parameters[0].data.fill_(math.nan)

    registry.register_callback("break_last")(BreakLast)
    assert sweep(tmp_path, *small, "callbacks=[break_last]").diverged == 1
    run = load_sweep(tmp_path).row(0, named=True)
    assert (run["status"], run["diverged"], run["done_steps"]) == ("diverged", True, 12)
    assert set(load_table(tmp_path, name="generations")["phase"]) == {"base"}


def test_memory_that_runs_out_fails_one_run_of_a_sweep(small, tmp_path):
    class Hungry:
        every = 1

        def grad(self, trainer):
            if trainer.cfg.seed == 0:
                raise torch.OutOfMemoryError("CUDA out of memory")

    registry.register_callback("hungry")(Hungry)
    report = sweep(tmp_path, *small, "callbacks=[hungry]", "seed=0,1")
    assert (report.failed, report.ok) == (1, 1)


def test_an_adapter_that_does_not_fit_spoils_no_later_run(small, undisturbed, tmp_path):
    run_id = load_sweep(undisturbed).row(0, named=True)["run_id"]
    folder = tmp_path / "adapter"
    shutil.copytree(undisturbed / "artifacts" / run_id / "adapter", folder)
    settings = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(settings | {"r": 2}))
    changes = [*small, "callbacks=[]"]
    assert sweep(tmp_path / "a", *changes, f"eval.adapters=[base,{folder}]").failed == 1
    [error] = load_sweep(tmp_path / "a", status=("failed",))["error"]
    assert f"eval.adapters: {folder} does not fit" in error
    assert sweep(tmp_path / "b", *changes).ok == 1
    found, expected = (
        load_sweep(store).row(0, named=True) for store in (tmp_path / "b", undisturbed)
    )
    assert found["train_loss"] == pytest.approx(expected["train_loss"], nan_ok=True)
    assert found["model_sha256"] == expected["model_sha256"]


def test_few_updates_are_warned_of(small, tmp_path, capfd):
    assert sweep(tmp_path, *small, "train.batch=16", "callbacks=[]").ok == 1
    assert "2 updates are few" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("lora.r=0", "lora.r must be an integer >= 1, got 0"),
        ("lora.r=33", r"lora\.r=33 is above 32, the smaller side of k_proj"),
        ("lora.targets=[q_prj]", "lora.targets: no linear module 'q_prj'; did you mean 'q_proj'"),
        ("lora.targets=[]", "lora.targets must name at least one"),
        ("lora.alpha=0", "lora.alpha must be finite and > 0"),
        ("optim.lr=0", "optim.lr must be finite and > 0"),
        ("optim.clip=-1", "optim.clip must be finite and > 0"),
        ("train.batch=0", "train.batch must be an integer >= 1"),
        ("train.accum=0", "train.accum must be an integer >= 1"),
        ("quant=int8", "quant must be one of nf4, fp4, null, got 'int8'"),
        ("optim.name=adam", "optim.name must be one of adamw8bit, adamw, paged_adamw8bit, sgd"),
        ("model.source=smollm", "model.source must be one of tiny, smollm2, hf"),
        ("data.source=jsonl", "data.source=jsonl needs data.path"),
        ("data.path=x.jsonl", "data.source=synthetic takes none"),
        ("eval.suite=exam", "exam"),
        ("eval.adapters=[base]", "eval.adapters must be two or none"),
        ("callbacks=[grad_nrm]", "no callback 'grad_nrm'; did you mean 'grad_norm'"),
        ("callbacks=[grad_norm,grad_norm]", "callbacks has grad_norm twice"),
        ("train.warmup_ratio=1", r"train.warmup_ratio must be in \[0, 1\)"),
    ],
)
def test_bad_input_starts_nothing(tmp_path, override, message):
    with pytest.raises(ValueError, match=message):
        sweep(tmp_path, override)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["lora.alpha=8", "lora.alpha_policy=proportional"],
            "alpha_policy=proportional takes none",
        ),
        (
            ["model.attention=sdpa", "callbacks=[sharpness]"],
            "sharpness needs model.attention=eager",
        ),
        (
            ["model.source=hf", "model.path=gpt2", "model.norm=none"],
            "model.norm=null needs model.source=tiny",
        ),
    ],
)
def test_keys_that_do_not_go_together(tmp_path, overrides, message):
    with pytest.raises(ValueError, match=message):
        sweep(tmp_path, *overrides)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("lora.r=20", "lora.r=20 is above the smaller side of model.layers.0.self_attn.k_proj"),
        ("lora.targets=[c_attn]", "lora.targets: no linear module 'c_attn'"),
        ("data.max_len=3", "data.max_len=3 leaves no example an answer to learn"),
        ("eval.max_new=999", "eval.max_new=999 after a prompt of"),
    ],
)
def test_what_does_not_fit_the_model_fails_the_run(small, tmp_path, override, message):
    assert sweep(tmp_path, *small, "callbacks=[]", override).failed == 1
    assert message in load_sweep(tmp_path, status=("failed",))["error"].item()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['{"instruction": "q", "output": "a"}', "{"], "data.path=.*, line 2: no JSON"),
        (['{"instruction": "q", "output": "a"}'], "data.n_examples: 1 example in the source"),
    ],
)
def test_bad_data_start_nothing(tmp_path, lines, message):
    file, store = tmp_path / "a.jsonl", tmp_path / "store"
    file.write_text("\n".join(lines))
    with pytest.raises(ValueError, match=message):
        sweep(store, "data.source=jsonl", f"data.path={file}")
    assert not store.exists()


def test_sequences_longer_than_the_model_reads_fail_the_run(small, tmp_path):
    rows = [{"instruction": f"q{i}", "output": 200 * "a"} for i in range(4)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = ["data.source=jsonl", f"data.path={tmp_path / 'a.jsonl'}"]
    assert sweep(tmp_path / "s", *small, *data).failed == 1
    [error] = load_sweep(tmp_path / "s", status=("failed",))["error"]
    assert "data.max_len=1024: a sequence has 204 tokens, 128 are what the model reads" in error


def test_model_without_linear_layers_has_nothing_to_quantize(small, tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM

    empty = LlamaConfig(vocab_size=256, **{**SIZES, "num_hidden_layers": 0})
    LlamaForCausalLM(empty).save_pretrained(tmp_path / "model")
    raw_bytes().save_pretrained(tmp_path / "model")
    assert sweep(tmp_path / "s", *small, f"model.path={tmp_path / 'model'}").failed == 1
    [error] = load_sweep(tmp_path / "s", status=("failed",))["error"]
    assert "quant=nf4: LlamaForCausalLM has no layer to quantize" in error


def test_without_bitsandbytes_the_optimizer_is_named_too(monkeypatch, tmp_path):
    monkeypatch.setattr("qlora_probe.check.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="adamw8bit needs bitsandbytes"):
        sweep(tmp_path, "quant=none")
    assert list(tmp_path.iterdir()) == []
    plain = ["quant=none", "optim.name=adamw", "eval.suite=null", "data.n_examples=2"]
    assert sweep(tmp_path, *plain).ok == 1


def test_loss_between_two_adapters_ends_at_their_own(small, tmp_path):
    assert sweep(tmp_path, *small[:-1], "callbacks=[]", "seed=0,1").ok == 2
    runs = load_sweep(tmp_path).sort("seed")
    a, b = runs["run_id"]
    assert sweep(tmp_path, *small[:-1], "callbacks=[]", f"eval.adapters=[{a},{b}]").ok == 1
    line = load_table(tmp_path, name="line").sort("at")
    assert line["at"].to_list() == pytest.approx([i / 20 for i in range(21)])
    assert [line["loss"][0], line["loss"][-1]] == runs["final_eval_loss"].to_list()
    row = load_sweep(tmp_path).filter(pl.col("loss_barrier").is_not_null()).row(0, named=True)
    straight = line["loss"][0] + line["at"] * (line["loss"][-1] - line["loss"][0])
    assert row["loss_barrier"] == pytest.approx(max(0, (line["loss"] - straight).max()))
    other = [x for x in small[:-1] if not x.startswith(("lora.r", "lora.alpha"))]
    other += ["lora.r=2", "lora.alpha=2", "callbacks=[]", f"eval.adapters=[{a},{b}]"]
    assert sweep(tmp_path, *other).failed == 1
    [error] = load_sweep(tmp_path, status=("failed",))["error"]
    assert "has not the lora.r and lora.targets of this run" in error


def test_workers_share_a_sweep(small, undisturbed, sweep_cli, tmp_path):
    changes = [x for x in small if not x.startswith("optim.lr")]
    done = sweep_cli("-cn=qlora_probe", *changes, "optim.lr=1e-3,5e-3", "--workers=2", "--output=s")
    assert done.returncode == 0, done.stderr
    runs = load_sweep(tmp_path / "s").sort("optim.lr")
    expected = load_sweep(undisturbed).row(0, named=True)
    assert runs["train_loss"][1].to_list() == pytest.approx(expected["train_loss"], nan_ok=True)
    assert runs["final_eval_loss"][0] > runs["final_eval_loss"][1]
