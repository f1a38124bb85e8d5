"""Who may import whom, and what start-up must not load."""

import ast
import os
import subprocess
import sys

import pytest

STDLIB = sys.stdlib_module_names
HYDRA = {"hydra", "omegaconf", "yaml"}
PLUGINS = HYDRA | {"plugins", "numpy", "polars", "pyarrow", "rich", "submitit"}
FAMILY = {"numpy", "scipy", "torch", "omegaconf"}
FAMILY_MACHINERY = {f"plugins.{name}" for name in ("registry", "experiment", "fields", "result")}
LM = {"torch", "transformers", "tokenizers", "huggingface_hub", "datasets", "bitsandbytes", "wandb"}
LM_MACHINERY = {f"plugins.lm.{name}" for name in ("cache", "callbacks", "checkpoints", "corpora",
                                                  "devices", "hub", "models", "ranks", "schedules",
                                                  "splits", "tables", "windows")}  # fmt: skip
OWN = {
    "memdyn": {"rapidfuzz"},
    "qlora_probe": {"transformers", "peft", "bitsandbytes", "safetensors"},
    "sublora": {"peft", "tokenizers", "transformers", "yaml"},
}
ANALYSIS = {"analysis", "polars", "numpy", "scipy", "matplotlib", "rich", "jinja2"}
FAMILIES = {
    "dln": FAMILY_MACHINERY,
    "memdyn": FAMILY_MACHINERY | LM_MACHINERY,
    "qlora_probe": FAMILY_MACHINERY | LM_MACHINERY,
    "compressor": FAMILY_MACHINERY | LM_MACHINERY,
    "sublora": FAMILY_MACHINERY | LM_MACHINERY | {"plugins.atomic"},  # prepares data sets
}
REPORTING = {f"plugins.{name}" for name in ("config_files", "experiment", "leaves", "parts",
                                             "plan_files", "provenance", "result", "status",
                                             "winners")}  # fmt: skip
ANALYSIS_MACHINERY = {"plugins.load", "plugins.registry", *REPORTING,
                      *(f"{name}.theory" for name in FAMILIES)}  # fmt: skip
PURE = ("registry", "result", "fields", "leaves", "identity", "overrides", "axes", "interpolation",
        "instances", "composition", "plan")  # fmt: skip
EFFECTS = {"plugins.store", "plugins.merge", "plugins.load", "plugins.worker", "plugins.parts",
           "plugins.fold", "plugins.driver", "plugins.execution", "plugins.atomic", "os", "time",
           "subprocess", "datetime"}  # fmt: skip


def imports(path):
    """Modules that a file imports anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from imported(node)


def imported(node):
    """Modules of one import statement, which is not relative."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    assert node.level == 0
    return [node.module]


def violations(paths, allowed, machinery=frozenset()):
    return [
        f"{path.name}: {module}"
        for path in paths
        for module in imports(path)
        if module.split(".")[0] not in STDLIB | allowed and module not in machinery
    ]


def test_the_machinery_knows_no_family_and_no_torch(root):
    assert violations(root.glob("plugins/*.py"), PLUGINS) == []
    assert violations(root.glob("hydra_plugins/*.py"), PLUGINS) == []


def test_language_models_load_no_torch_before_they_are_used(root):
    paths = list(root.glob("plugins/lm/*.py"))
    assert violations(paths, PLUGINS | LM) == []
    at_the_top = [
        f"{path.name}: {name}"
        for path in paths
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in imported(node)
        if name.split(".")[0] in LM
    ]
    assert at_the_top == []


@pytest.mark.parametrize("family", FAMILIES)
def test_families_know_neither_each_other_nor_the_store(root, family):
    allowed = FAMILY | {family, *OWN.get(family, ())}
    assert violations(root.glob(f"{family}/**/*.py"), allowed, FAMILIES[family]) == []


def test_analysis_reads_stores_and_knows_no_torch(root):
    assert violations(root.glob("analysis/**/*.py"), ANALYSIS, ANALYSIS_MACHINERY) == []


@pytest.mark.parametrize("family", FAMILIES)
def test_theory_is_numbers_only(root, family):
    """What figures compare data with: no torch, no config."""
    names = ("bounds.py",) if family == "sublora" else ("*theory.py", "theory/*.py")
    paths = [path for name in names for path in root.glob(f"{family}/{name}")]
    theories = {".".join(path.relative_to(root).with_suffix("").parts) for path in paths}
    theories.add(f"{family}.theory")
    assert paths
    assert violations(paths, {"numpy", "scipy"}, theories) == []


def test_pure_modules_touch_no_file_clock_or_process(root):
    found = [
        f"{name}: {module}"
        for name in PURE
        for module in imports(root / "plugins" / f"{name}.py")
        if module in EFFECTS
    ]
    assert found == []


def test_hydra_plugins_is_a_namespace_shared_with_installed_plugins(root):
    assert not (root / "hydra_plugins" / "__init__.py").exists()


def loaded_by(root, tmp_path, *args):
    """Top-level modules loaded by `python sweep.py ARGS`."""
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['sweep.py', *{list(args)!r}]\n"
        "try:\n"
        f"    runpy.run_path({str(root / 'sweep.py')!r}, run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    print('exit', end.code)\n"
        "print('loaded', *sorted({name.split('.')[0] for name in sys.modules}))\n"
    )
    env = {**os.environ, "PYTHONPATH": str(root)}  # without the toy packages
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    return set(done.stdout.splitlines()[-1].split()[1:]), done.stdout


@pytest.mark.parametrize(
    "args",
    [
        ["--help"],
        [],
        ["-cn=dln/gph", "--cfg", "job"],
        ["-cn=memdyn_quick", "--cfg", "job"],
        ["-cn=qlora_minimum", "--cfg", "job"],
        ["-cn=compressor_sweep", "--cfg", "job"],
        ["-cn=sublora_grid", "--cfg", "job"],
    ],
)
def test_looking_around_loads_neither_torch_nor_polars(root, tmp_path, args):
    modules, out = loaded_by(root, tmp_path, *args)
    assert "hydra" in modules, out
    assert not modules & {"torch", "polars", "pyarrow", "transformers", "matplotlib"}, out


def test_a_dln_run_loads_no_language_model_library(root, tmp_path):
    modules, out = loaded_by(root, tmp_path, "-cn=dln/smoke")
    assert "torch" in modules, out
    assert not modules & {"transformers", "peft", "bitsandbytes", "matplotlib"}, out


def test_the_entry_point_stays_small(root):
    code = [line for line in (root / "sweep.py").read_text().splitlines() if line.strip()]
    assert len(code) <= 40
