"""The commands and code of the README and of all pages of docs/, run in their order."""

import re
from pathlib import Path

import pytest
from pages import blocks, fenced, pages, run, run_page
from test_extending import PAGES as EXTENDING

ROOT = Path(__file__).resolve().parent.parent
FOLLOWED = {"docs/cluster.md": "tests/slurm/test_page.py"}  # by tests of their own
FOLLOWED |= {f"docs/extending/{page}.md": "tests/test_extending.py" for page in EXTENDING}


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Stores of sweeps that stand on several pages."""
    return tmp_path_factory.mktemp("kept")


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [
        page
        for page in pages(ROOT)
        if page not in FOLLOWED and {b.language for b in fenced(ROOT, page)} & {"bash", "python"}
    ],
)
def test_commands_and_code_of_a_page_work(root, tmp_path, page, kept):
    run_page(root, tmp_path, page, kept)
    if page == "README.md":
        assert (tmp_path / "gamma.png").stat().st_size > 10_000


def test_links_and_figures_of_the_pages_are_there(root):
    for page in map(root.joinpath, pages(root)):
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            is_generated = target.startswith(("reference/", "../reference/"))  # tests/test_docs.py
            there = "://" in target or is_generated or (page.parent / target).is_file()
            assert there, f"{page}: {target}"


def test_plugins_and_experiment_of_the_readme_work(root, tmp_path):
    """As a package of one's own, installed by entry point, and a folder of configs."""
    [plugins] = [block for block in blocks(root, "python") if "register_metric" in block]
    [experiment] = blocks(root, "yaml")
    info = tmp_path / "site" / "mine-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[dynascope.plugins]\ndln = mine\n")
    (tmp_path / "site" / "mine.py").write_text(plugins)
    conf = tmp_path / "conf" / "dln"
    conf.mkdir(parents=True)
    (conf / "mean_growth.yaml").write_text(experiment)
    out = run(
        root,
        tmp_path,
        ["python", "sweep.py", "--config-dir=conf", "-cn=mean_growth", "max_steps=9",
         "callbacks=[{freeze_lr: {at_step: 3}}]", "num_evaluations=9"],
        site=tmp_path / "site",
    )  # fmt: skip
    assert "ok 1" in out
    run(
        root,
        tmp_path,
        ["python", "sweep.py", "-cn=smoke", "data.params.matrix=two_modes"],
        site=tmp_path / "site",
    )
    from analysis import load_sweep

    [curve] = load_sweep(tmp_path / "outputs/dln/mean_growth")["mean_singular_value"].to_list()
    assert curve[1] != curve[0]
    assert curve[3:] == [curve[3]] * 7  # the learning rate is 0 from step 3 on


def test_metrics_and_callbacks_of_the_readme_are_those_there(root):
    import dln.callbacks
    import dln.comparative_metrics
    import dln.metrics  # noqa: F401
    from dln.registry import callbacks, comparative_metrics, metrics

    text = (root / "README.md").read_text()
    listed = re.search(
        r"Metrics: `([^`]+)`. Callbacks: `([^`]+)`. Comparative metrics: `([^`]+)`", text
    )
    twin = {"end_to_end_weight_norm"}  # another name of effective_weight_norm
    own = {n for n in metrics.names() if not n.startswith("fragile")}
    assert set(listed[1].split()) == own - twin
    assert set(listed[2].split()) == set(callbacks.names())
    assert set(listed[3].split()) == set(comparative_metrics.names())
