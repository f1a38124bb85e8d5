"""The script of examples/, as a researcher starts it."""

import os
import subprocess
import sys

from analysis import load_sweep


def test_library_use(root, tmp_path):
    done = subprocess.run(
        [sys.executable, str(root / "examples" / "library_use.py")],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "planned 20, done before 0, ok 20, diverged 0, failed 0, missing 0" in done.stdout
    store = tmp_path / "outputs" / "library_use"
    counts = load_sweep(store).group_by("model.gamma").len().sort("model.gamma")
    assert counts.rows() == [(0.75, 10), (1.5, 10)]
    assert (store / "test_loss.png").read_bytes().startswith(b"\x89PNG")
