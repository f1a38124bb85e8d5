"""Rows to kill are those of the store's tests; disks of a test's own."""

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "plugins"))


class Disks:
    """A mount namespace: what is mounted there, only commands that are run there see.

    Raises OSError where mounting is not allowed, to root or in a user namespace.
    """

    def __init__(self, *user: str):
        self._holder = subprocess.Popen(
            ["unshare", "--mount", *user, "sh", "-c", "echo ready; exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        if self._holder.stdout.readline() != "ready\n":
            self.close()
            raise PermissionError("nothing can be mounted: neither root nor user namespaces")
        user = ("--user", "--preserve-credentials") if user else ()
        self.enter = ["nsenter", f"--target={self._holder.pid}", "--mount", *user, "--"]

    def run(self, *command: str | Path) -> subprocess.CompletedProcess:
        return subprocess.run(
            [*self.enter, *map(str, command)], capture_output=True, text=True, check=False
        )

    def python(self, *arguments: str | Path) -> subprocess.CompletedProcess:
        return self.run(sys.executable, *arguments)

    def mount(self, *arguments: str | Path) -> None:
        done = self.run("mount", *arguments)
        assert done.returncode == 0, done.stderr

    def seen(self, path: Path) -> Path:
        """The same place, for processes outside."""
        return Path(f"/proc/{self._holder.pid}/root{path}")

    def close(self) -> None:
        self._holder.communicate()


@pytest.fixture
def disks():
    try:
        found = Disks()
    except OSError:
        try:
            found = Disks("--map-root-user")
        except OSError as error:
            pytest.skip(str(error))
    yield found
    found.close()
