"""The command line as users meet it: listing, help, exit statuses, launchers, stock sweepers."""

import re
import signal
import subprocess
import sys

import pytest
import yaml

from plugins.load import load_sweep

SUMMARY = re.compile(
    r"planned (\d+), done before (\d+), ok (\d+), diverged (\d+), failed (\d+), missing (\d+)"
)


def summary(done):
    """(planned, done before, ok, diverged, failed, missing) of a finished sweep."""
    match = SUMMARY.search(done.stdout)
    assert match, done.stdout + done.stderr
    return tuple(map(int, match.groups()))


def test_without_arguments_the_experiments_are_listed(sweep_cli):
    done = sweep_cli()
    assert done.returncode == 2
    assert re.search(r"dln/gph +What do gradient noise", done.stdout)
    assert re.search(r"toy/trivial +Does the machinery work", done.stdout)


def test_a_list_has_the_experiments_with_all_the_words(sweep_cli):
    done = sweep_cli("--list", "STAIRCASE", "gph")
    assert done.returncode == 0
    assert re.findall(r"^  (\S+)", done.stdout, re.MULTILINE) == ["dln/gph_demo"]
    assert re.search(
        r"^ {10,}Expect a smooth, fast decay .* a staircase, .* at 1.5.$", done.stdout, re.M
    )
    assert sweep_cli("--list", "--config-dir=.", "STAIRCASE", "gph").stdout == done.stdout
    done = sweep_cli("--list", "toy/")  # of an installed package
    assert re.findall(r"^  (\S+)", done.stdout, re.MULTILINE) == [
        f"toy/{name}" for name in ("grid", "grouped", "single", "trivial")
    ]
    assert "dln/gph " in sweep_cli("--list").stdout


def test_a_list_of_nothing_names_the_word_and_its_nearest_match(sweep_cli):
    done = sweep_cli("--list", "staircse")
    assert (done.returncode, done.stdout) == (2, "")
    assert "has 'staircse'; did you mean 'staircase'" in done.stderr
    assert "has all of 'gph_demo', 'memorize'" in sweep_cli("--list", "gph_demo", "memorize").stderr


def test_a_reader_that_ends_early_is_no_error(root):
    command = f"{sys.executable} {root / 'sweep.py'} -cn=gph --help"
    done = subprocess.run(
        ["bash", "-c", f"{command} | true; exit ${{PIPESTATUS[0]}}"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


def completed(sweep_cli, line):
    """What the shell is told that may end a command line."""
    done = sweep_cli("-sc", "query=bash", env={"COMP_LINE": line, "COMP_POINT": str(len(line))})
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_shell_completes_experiments_flags_keys_and_groups(sweep_cli):
    names = completed(sweep_cli, "python sweep.py -cn=gph_")
    assert "-cn=gph_demo" in names
    assert all(name.startswith("-cn=gph_") for name in names)
    assert completed(sweep_cli, "python sweep.py -cn toy/tr") == ["toy/trivial"]
    assert completed(sweep_cli, "python sweep.py --wo") == ["--workers="]
    assert completed(sweep_cli, "python sweep.py -cn=gph model.g") == ["model.gamma="]
    begun = "python sweep.py -cn=dln/gph training.batch_seed=0..4 --workers=2 --output out/a max_s"
    assert completed(sweep_cli, begun) == ["max_steps="]
    assert completed(sweep_cli, "python sweep.py -cn=memdyn_quick memdyn/mode=st") == [
        "memdyn/mode=standard"
    ]


def test_help_shows_our_flags_beside_hydras(sweep_cli):
    done = sweep_cli("--help")
    assert done.returncode == 0
    for flag in ("--workers", "--zip", "--output", "--rerun", "--dry-run", "--fail-fast"):
        assert flag in done.stdout
    assert "--config-dir" in done.stdout
    assert "0..100..10" in done.stdout


def test_help_of_an_experiment_shows_its_config(sweep_cli):
    done = sweep_cli("-cn=gph", "--help")
    assert done.returncode == 0
    assert "matrix: power_law" in done.stdout


def test_the_keys_of_an_experiment_end_with_the_axes_of_its_file(sweep_cli):
    keys = sweep_cli("-cn=gph_demo", "--cfg", "job").stdout
    axes = "# axis: model.gamma=0.75,1,1.5\n# axis: training.batch_seed=0..100\n"
    assert keys.endswith(axes)
    assert yaml.safe_load(keys)["max_steps"] == 12000
    assert "# axis" not in sweep_cli("-cn=gph_demo", "--cfg", "job", "-p", "model").stdout


def test_a_sweep_whose_runs_all_diverge_says_so(sweep_cli):
    done = sweep_cli("-cn=trivial", "seed=0,1", "diverging_seeds=[0,1]")
    assert (done.returncode, summary(done)) == (0, (2, 0, 0, 2, 0, 0))
    assert "every run diverged" in done.stdout


def test_a_sweep_resumes_and_says_what_to_do_next(sweep_cli, tmp_path):
    command = ["-cn=trivial", "seed=0..6", "model.width=1,2", "--output=out/a b"]
    done = sweep_cli(*command)
    assert (done.returncode, summary(done)) == (0, (12, 0, 12, 0, 0, 0))
    assert "next: python -m analysis 'out/a b' --y loss --by model.width" in done.stdout
    again = sweep_cli(*command)
    assert (again.returncode, summary(again)) == (0, (12, 12, 0, 0, 0, 0))
    assert len(load_sweep(tmp_path / "out" / "a b")) == 12


def test_the_next_command_names_no_key_that_another_tells(sweep_cli):
    done = sweep_cli("-cn=trivial", "model.width=1,2", "label=a,b", "--zip=model.width,label")
    assert "--by model.width -o" in done.stdout


def test_the_default_store_has_no_time_stamp(sweep_cli, tmp_path):
    sweep_cli("-cn=trivial", "seed=0..3")
    assert len(load_sweep(tmp_path / "outputs" / "toy" / "trivial")) == 3


def test_failed_runs_give_exit_status_1_and_the_first_error(sweep_cli):
    done = sweep_cli("-cn=trivial", "seed=0..6", "bad_seeds=[3]", "diverging_seeds=[4]")
    assert (done.returncode, summary(done)) == (1, (6, 0, 4, 1, 1, 0))
    assert "RuntimeError: seed 3 is bad" in done.stdout
    assert "the same command computes only what failed or is missing" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize("launcher", ["--workers=2", "hydra/launcher=joblib"])
def test_workers_give_the_same_rows(sweep_cli, tmp_path, launcher):
    sweep = ["-cn=trivial", "seed=0..9", "model.width=1,2,3"]
    sweep_cli(*sweep, "--output=here")
    done = sweep_cli(*sweep, "--output=there", launcher)
    assert (done.returncode, summary(done)) == (0, (27, 0, 27, 0, 0, 0))
    columns = ["run_id", "seed", "model.width", "step", "loss", "final_loss", "status"]
    here, there = (
        load_sweep(tmp_path / store).select(columns).sort("run_id") for store in ("here", "there")
    )
    assert here.equals(there)


def test_processes_without_a_unit_end_with_the_sweep(sweep_cli):
    """More workers than stacks, nothing to do, bad input. One left over would hold the output open
    and time the command out."""
    few = ["-cn=trivial", "seed=0..3", "hydra.sweeper.max_stack=2", "--workers=7"]
    assert summary(sweep_cli(*few)) == (3, 0, 3, 0, 0, 0)
    assert summary(sweep_cli(*few)) == (3, 3, 0, 0, 0, 0)
    done = sweep_cli("-cn=trivial", "sed=1", "--workers=7")
    assert (done.returncode, "did you mean 'seed'" in done.stderr) == (2, True)


def test_dry_run_counts_and_starts_nothing(sweep_cli, tmp_path):
    done = sweep_cli("-cn=trivial", "seed=0..100..10", "--dry-run")
    assert done.returncode == 0
    assert "10 runs planned, 0 already done, 0 failed before, 0 again, 10 new" in done.stdout
    assert "expected time: unknown" in done.stdout
    assert not (tmp_path / "outputs").exists()
    sweep_cli("-cn=trivial", "seed=0..4", "bad_seeds=[0]")
    done = sweep_cli("-cn=trivial", "seed=0..8", "bad_seeds=[0]", "--dry-run", "--workers=2")
    assert "8 runs planned, 3 already done, 1 failed before, 0 again, 4 new" in done.stdout
    assert "5 runs in 2 stacks, 2 units" in done.stdout
    assert re.search(r"expected time: \d", done.stdout)


def test_rerun_computes_the_named_runs_again(sweep_cli, tmp_path):
    sweep_cli("-cn=trivial", "seed=0..10")
    done = sweep_cli("-cn=trivial", "seed=0..10", "--rerun", "seed=3..5")
    assert summary(done) == (10, 8, 2, 0, 0, 0)
    assert len(load_sweep(tmp_path / "outputs/toy/trivial")) == 10


def test_a_changed_fixed_value_adds_rows_and_is_named(sweep_cli, tmp_path):
    sweep_cli("-cn=trivial", "seed=0..3")
    done = sweep_cli("-cn=trivial", "seed=0..3", "steps=5")
    assert "the store also holds runs with steps=3 (here steps=5)" in done.stdout
    frame = load_sweep(tmp_path / "outputs/toy/trivial")
    assert frame["steps"].to_list() == [3] * 3 + [5] * 3


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["model.widht=3"], "did you mean 'model.width'"),
        (["model.widht=3,4"], "did you mean 'model.width'"),
        (["model.width=3,4", "modle.scale=1"], "did you mean 'model.scale'"),
        (["model.width=a"], "could not be converted to Integer"),
        (["model.scale=1,-2"], "model.scale must be > 0, got -2.0"),
        (["model.scale=-2"], "model.scale must be > 0, got -2.0"),
        (["steps=200", "model.width=11"], "steps > 100 needs model.width <= 10"),
        (["seed=0.5..2"], "takes integers"),
        (["seed=2..2"], "empty"),
        (["seed=1", "seed=2"], "given twice"),
        (["seed=0..3", "steps=1,2", "--zip=seed,steps"], "seed has 3 values, steps has 2 values"),
        (["seed=0..3", "--zip=seed,steps"], "'steps' is not an axis of the sweep"),
        (["seed=0..3", "--rerun", "sede=1"], "did you mean 'seed'"),
        (["seed=0..3", "--rerun", "seed=7"], "no run of the sweep matches"),
        (["model.scale=inf"], "finite"),
        (["--workers=none"], "--workers takes a whole number"),
        (["hydra.sweeper.workers=abc"], "--workers takes a whole number"),
        (["++hydra.sweeper.workers=2"], "hydra.sweeper.workers=2 must come from --workers 2"),
        (["hydra/sweeper=basic", "sede=1"], "did you mean 'seed'"),
        (["hydra/launcher=slrum"], "slrum"),
        (["model.scale=fast"], "model.scale=fast: Value 'fast' of type 'str' could not be"),
        (["model.scale=[1,2]"], "an axis has none: model.scale=1,2"),
        (["--model.width=1"], "no flag --model.width (a key has no dashes: model.width=1)"),
        (["seed=1,", "2"], "'2' is no key=value; no spaces around ="),
        (["trivial"], "an experiment is named by -cn=trivial"),
    ],
)
def test_bad_input_is_exit_status_2_without_a_traceback(sweep_cli, tmp_path, args, text):
    done = sweep_cli("-cn=trivial", *args)
    assert done.returncode == 2, done.stdout + done.stderr
    assert text in done.stderr
    assert re.search("^error: ", done.stderr, re.MULTILINE)
    assert not re.search("Traceback|HYDRA_FULL_ERROR|full_key|object_type", done.stderr)
    assert not (tmp_path / "outputs").exists()


FILE = "# @package _global_\n# q?\ndefaults: [/toy/schema/trivial, /base, _self_]\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (FILE.split("\n", 1)[1], "its first line is not `# @package _global_`"),
        (FILE.split("defaults")[0] + "seed: 1\n", "has no `defaults: [/"),
        (FILE + "hydra: {sweeper: {params: {model.scale: 1,2}}}\n", 'stands in quotes: "0.75,1"'),
        (FILE + "steps: 3\n  seed: 1\n", 'toy/mine.yaml", line 5'),
    ],
)
def test_a_slip_in_a_file_of_ones_own_is_told(sweep_cli, tmp_path, text, told):
    (tmp_path / "conf" / "toy").mkdir(parents=True)
    (tmp_path / "conf" / "toy" / "mine.yaml").write_text(text)
    done = sweep_cli("--config-dir=conf", "-cn=toy/mine")
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    done = sweep_cli("--config-dir=con", "-cn=toy/mine")
    assert (done.returncode, done.stderr) == (
        2,
        "error: --config-dir=con: there is no such folder\n",
    )


def test_an_unknown_experiment_names_the_nearest(sweep_cli):
    done = sweep_cli("-cn=gpg")
    assert done.returncode == 2
    assert "did you mean 'gph'" in done.stderr


def test_the_stock_sweeper_writes_the_same_rows(sweep_cli, tmp_path):
    stock = ["--multirun", "-cn=trivial", "seed=0,1,2", "hydra/sweeper=basic"]
    assert sweep_cli(*stock, "--output=stock").returncode == 0
    assert summary(sweep_cli("-cn=trivial", "seed=0..3", "--output=stock")) == (3, 3, 0, 0, 0, 0)
    sweep_cli("-cn=trivial", "seed=0..3", "--output=ours")
    columns = ["run_id", "step", "loss", "final_loss", "status"]
    ours, stock = (load_sweep(tmp_path / name).select(columns) for name in ("ours", "stock"))
    assert ours.equals(stock)


def test_under_a_stock_sweeper_a_failing_run_is_a_row_and_ends_the_sweep(sweep_cli, tmp_path):
    done = sweep_cli("-cn=trivial", "seed=0,1", "bad_seeds=[1]", "hydra/sweeper=basic")
    assert done.returncode == 1
    frame = load_sweep(tmp_path / "outputs/toy/trivial", status=("ok", "failed"))
    assert frame["status"].to_list() == ["ok", "failed"]


def test_a_single_run_by_hydras_run_mode_is_stored(sweep_cli, tmp_path):
    assert sweep_cli("-cn=trivial", "hydra.mode=RUN", "seed=4").returncode == 0
    assert summary(sweep_cli("-cn=trivial", "seed=4")) == (1, 1, 0, 0, 0, 0)


def test_a_plugin_package_that_does_not_import_is_named(sweep_cli, tmp_path):
    broken = tmp_path / "site" / "broken_plugin-1.0.dist-info"
    broken.mkdir(parents=True)
    (broken / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-plugin\nVersion: 1.0\n")
    (broken / "entry_points.txt").write_text("[dynascope.plugins]\ndln = broken_plugin\n")
    (tmp_path / "site" / "broken_plugin.py").write_text("import not_there\n")
    done = sweep_cli("-cn=smoke", env={"PYTHONPATH": str(tmp_path / "site")})
    assert done.returncode == 2
    assert "'broken-plugin' declares dynascope.plugins dln = broken_plugin" in done.stderr


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["hydra.mode=RUN", "--dry-run"], "--dry-run works with our sweeper only"),
        (["hydra/sweeper=basic", "--rerun", "seed=1"], "--rerun works with our sweeper only"),
        (["hydra/sweeper=basic", "steps=200", "model.width=11"], "needs model.width <= 10"),
        (["seed=range(0,0)"], "the axis has no values"),
        (["seed=glob(*)"], "the axis has no values"),
        (["--output=file/in/it"], "Not a directory"),
        (["+params.a=1,x"], "params.a"),
        (["params={a:1}"], "params"),
    ],
)
def test_more_bad_input(sweep_cli, tmp_path, args, text):
    (tmp_path / "file").touch()
    done = sweep_cli("-cn=trivial", *args)
    assert done.returncode == 2, done.stdout + done.stderr
    assert text in done.stderr
    assert re.search("^error: ", done.stderr, re.MULTILINE)
    assert not re.search("Traceback|HYDRA_FULL_ERROR|full_key|object_type", done.stderr)
    assert "no key 'params'" not in done.stderr


def test_overrides_may_stand_on_both_sides_of_flags(sweep_cli, tmp_path):
    done = sweep_cli("seed=0..2", "-cn=trivial", "model.width=1", "-m", "--output=out", "steps=2")
    assert (done.returncode, summary(done)) == (0, (2, 0, 2, 0, 0, 0))


def test_a_single_run_is_computed_again_by_its_fixed_key(sweep_cli, tmp_path):
    sweep_cli("-cn=trivial", "seed=3")
    done = sweep_cli("-cn=trivial", "seed=3", "--rerun", "seed=3")
    assert summary(done) == (1, 0, 1, 0, 0, 0)
    assert "1 again, 0 new" in done.stdout


@pytest.mark.parametrize("folder", ["a b/c=d,e{f}'g", "50%"])
def test_odd_folders(sweep_cli, tmp_path, folder):
    done = sweep_cli("-cn=trivial", "seed=0..2", f"--output={folder}", "--workers=2")
    assert (done.returncode, summary(done)) == (0, (2, 0, 2, 0, 0, 0))
    assert len(load_sweep(tmp_path / folder)) == 2


def test_a_machine_without_slurm_is_told_apart_from_bad_input(sweep_cli, tmp_path):
    args = ["-cn=trivial", "seed=0..4", "hydra/launcher=slurm", "--jobs=2"]
    done = sweep_cli(*args, env={"PATH": ""})
    assert done.returncode == 3, done.stderr
    assert "nothing could be submitted: this machine has no scontrol" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("outputs/toy/trivial/plans/*"))
