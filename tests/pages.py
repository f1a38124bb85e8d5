"""Commands and code of the README and of docs/, and how tests run them."""

import os
import re
import shlex
import subprocess
import sys

ELSEWHERE = ("make", "benchmarks/")  # run by CI; minutes on a quiet machine


def blocks(root, language, page="README.md"):
    return re.findall(rf"```{language}\n(.*?)```", (root / page).read_text(), re.DOTALL)


def commands(root, page="README.md"):
    lines = "\n".join(blocks(root, "bash", page)).splitlines()
    found = [shlex.split(line, comments=True) for line in lines]
    return [c for c in found if c and not any(word.startswith(ELSEWHERE) for word in c)]


def run(root, folder, command, site=""):
    where = {"python": [sys.executable]}
    command = [*where.get(command[0], [command[0]]), *command[1:]]
    ours = ("sweep.py", "docs/")
    command = [str(root / word) if word.startswith(ours) else word for word in command]
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(site), "MPLBACKEND": "Agg"},
        capture_output=True,
        text=True,
    )
    listing = command[1:] == [str(root / "sweep.py")]
    assert done.returncode == (2 if listing else 0), f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout
