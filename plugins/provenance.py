"""Where a row comes from: host, commit, package versions, cluster job."""

import hashlib
import json
import os
import platform
import socket
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
_PACKAGES = ("torch", "numpy", "transformers", "peft", "bitsandbytes")
_SLURM = (
    "SLURM_JOB_ID",
    "SLURM_ARRAY_JOB_ID",
    "SLURM_ARRAY_TASK_ID",
    "SLURM_RESTART_COUNT",
    "SLURMD_NODENAME",
)


def provenance(experiment: str) -> dict[str, str | None]:
    """The constant columns of a worker's rows."""
    return {
        "experiment": experiment,
        "host": socket.gethostname(),
        "job": _slurm_job(),
        "code": code_version(),
        "versions": json.dumps(_versions()),
    }


@cache
def code_version() -> str | None:
    """Commit of the checkout, "+" and a hash of what differs from it in the packages that compute
    runs; None outside of git."""
    families = [folder.name for folder in (_ROOT / "conf").iterdir()]
    packages = [name for name in families if (_ROOT / name / "__init__.py").is_file()]
    packages = sorted([*packages, "plugins", "hydra_plugins"])
    modules = [f":(glob){name}/**/*.py" for name in packages]
    try:
        commit = _git("rev-parse", "HEAD").decode().strip()
        changes = _git("diff", "HEAD", "--", "sweep.py", *packages)
        new = _git("ls-files", "--others", "--exclude-standard", "--", *modules).decode()
        changes += b"".join((_ROOT / name).read_bytes() for name in new.splitlines())
    except (OSError, subprocess.CalledProcessError):
        return None
    dirty = f"+{hashlib.blake2b(changes, digest_size=4).hexdigest()}" if changes else ""
    return commit + dirty


def _git(*arguments: str) -> bytes:
    command = ["git", "-C", str(_ROOT), *arguments]
    return subprocess.run(command, capture_output=True, check=True).stdout


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _slurm_job() -> str | None:
    if "SLURM_JOB_ID" not in os.environ:
        return None
    names = (*_SLURM, "CUDA_VISIBLE_DEVICES")
    return json.dumps({name: os.environ[name] for name in names if name in os.environ})
