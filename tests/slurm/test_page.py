"""The page about clusters, followed literally."""

import pytest
from pages import blocks, commands, run
from sweeps import SLURM, slurm, sweep

from plugins.load import load_sweep


@pytest.mark.usefixtures("cluster")
def test_the_commands_of_the_page_work(root, tmp_path):
    for command in commands(root, "docs/cluster.md"):
        out = run(root, tmp_path, command)
    assert "failed 0, missing 0" in out
    assert len(load_sweep(tmp_path / "runs/gph")) == 300


@pytest.mark.usefixtures("cluster")
def test_a_sites_preset_of_the_page_is_used(root, tmp_path):
    [preset] = blocks(root, "yaml", "docs/cluster.md")
    folder = tmp_path / "mysite" / "hydra" / "launcher"
    folder.mkdir(parents=True)
    (folder / "big.yaml").write_text(preset)
    args = [f"--config-dir={tmp_path / 'mysite'}", "-cn=toy/trivial", "hydra/launcher=big"]
    code, out = sweep(tmp_path / "store", *args, "--jobs=1")
    assert (code, "invalid partition specified: gpu" in out) == (3, True), out
    code, out = sweep(
        tmp_path / "store",
        *args,
        "--jobs=1",
        "hydra.launcher.partition=main",
        "hydra.launcher.mem_gb=1",
        "hydra.launcher.setup=['export LOADED=1']",
    )
    assert code == 0, out


@pytest.mark.usefixtures("cluster")
def test_gpu_preset_asks_for_a_gpu(tmp_path):
    """The cluster has none."""
    code, out = sweep(tmp_path, "-cn=toy/trivial", f"{SLURM}_gpu", "--jobs=1")
    assert (code, "generic resource" in out) == (3, True), out
    assert slurm("squeue", "-h") == ""
