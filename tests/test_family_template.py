"""The family to copy, examples/family_template: installed, listed, swept, drawn, renamed."""

import importlib.util
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from plugins.load import load_sweep

TEMPLATE = "examples/family_template"
H = 1 / np.arange(1, 11)  # eigenvalues of the default experiment


def call(command, cwd, site):
    return subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def site(root, tmp_path_factory):
    """The distribution as pip builds and installs it, in a folder of its own."""
    folder = tmp_path_factory.mktemp("site")
    offline = ["--no-build-isolation"] if importlib.util.find_spec("hatchling") else []
    pip = ["-m", "pip", "install", "--quiet", "--no-deps", *offline, "--target", folder]
    done = call([*pip, root / TEMPLATE], folder, folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def store(root, site, tmp_path_factory):
    """Of the default experiment: three rates of the file, four seeds, noise."""
    folder = tmp_path_factory.mktemp("run")
    sweep = ["-cn=noisy_quadratic", "seed=0..4", "steps=20", "every=5", "--output=out"]
    done = call([root / "sweep.py", *sweep], folder, site)
    assert "planned 12, done before 0, ok 12," in done.stdout, done.stderr
    return folder / "out"


def test_the_listing_shows_the_experiments_that_were_installed_with_it(root, site, tmp_path):
    done = call([root / "sweep.py"], tmp_path, site)
    assert done.returncode == 2
    assert re.search(r"noisy_quadratic/noisy_quadratic +How fast does descent", done.stdout)
    assert re.search(r"noisy_quadratic/noisy_quadratic_stability +Where does", done.stdout)
    ours = {path.name for path in (root / TEMPLATE).rglob("*.yaml")}
    assert {path.name for path in site.rglob("*.yaml")} == ours != set()


def test_rows_without_noise_are_those_of_the_closed_form(root, site, tmp_path):
    """w_i(t) = (1 - lr h_i)^t w_i(0); above lr = 2 / h_1 the loss grows without end."""
    sweep = ["-cn=noisy_quadratic", "batch_size=null", "seed=0..2", "lr=0.1,1,5", "steps=300"]
    done = call([root / "sweep.py", *sweep, "--output=out"], tmp_path, site)
    assert "ok 4, diverged 2," in done.stdout, done.stderr
    for row in load_sweep(tmp_path / "out").iter_rows(named=True):
        start = np.random.default_rng(row["seed"]).standard_normal(10)
        weights = (1 - row["lr"] * H) ** np.array(row["step"])[:, None] * start
        modes = H / 2 * weights**2
        assert row["loss"] == pytest.approx(modes.sum(1), rel=1e-9)
        assert row["leading_share"] == pytest.approx(modes[:, 0] / modes.sum(1), rel=1e-9)
        assert row["final_loss"] == row["loss"][-1]
        assert row["status"] == ("diverged" if row["lr"] == 5 else "ok")
        assert len(row["step"]) == 301 or row["status"] == "diverged"


def test_an_unknown_metric_is_named_with_the_nearest(root, site, tmp_path):
    done = call([root / "sweep.py", "-cn=noisy_quadratic", "metrics=[leading]"], tmp_path, site)
    assert done.returncode == 2
    assert "has no metric 'leading'; did you mean 'leading_share'?" in done.stderr
    assert not (tmp_path / "outputs").exists()


def test_its_figure_has_the_expected_loss_beside_the_runs(site, store, monkeypatch):
    """Dashed: v <- (1 - lr h)^2 v + lr^2 h / B, from v = 1, step by step."""
    monkeypatch.syspath_prepend(site)
    from noisy_quadratic.figures import store_figures

    [figure] = store_figures(store)
    assert figure.name == "loss"
    ax = figure.draw()
    dashed = [line for line in ax.lines if line.get_linestyle() == "--"]
    for line, lr in zip(dashed, (0.05, 0.2, 0.8), strict=True):
        v, losses = np.ones(10), []
        for _ in range(21):
            losses.append((H * v).sum() / 2)
            v = (1 - lr * H) ** 2 * v + lr**2 * H / 4
        assert line.get_ydata() == pytest.approx(losses, rel=1e-12)


def test_a_copy_is_renamed_by_the_lines_of_its_page_and_passes_its_tests(root, tmp_path):
    [rename] = re.findall(r"```bash\n(.*?)```", (root / TEMPLATE / "README.md").read_text(), re.S)
    (tmp_path / "examples").symlink_to(root / "examples")
    subprocess.run(["bash", "-euc", rename], cwd=tmp_path, check=True)
    mine = tmp_path / "my_family"
    left = subprocess.run(["grep", "-rl", "--exclude-dir=__pycache__", "noisy_quadratic", mine])
    assert left.returncode == 1  # no file has the old name in it
    assert (mine / "my_family/conf/my_family/my_family.yaml").is_file()
    done = call(["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"], mine, mine)
    assert "2 passed" in done.stdout, done.stdout
