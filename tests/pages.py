"""Pages of the documentation: their code blocks and commands, and how tests run them.

Blocks run in the order of the page, in one folder. Lines of ```bash are commands, without a shell;
one that is to fail says so in its comment, `# exit status 2`; a ```text right below is what they
print, but for words with digits. ```python is a script. A block with a title, ```yaml title="PATH",
is that file. Other blocks are text: their commands are only looked up (`mentioned`).
"""

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import distributions
from pathlib import Path
from typing import NamedTuple

ELSEWHERE = ("make", "benchmarks/")  # run by CI; minutes on a quiet machine
_OURS = ("sweep.py", "docs/", "examples/", "tests/")  # of the checkout, in a page's commands
_FENCE = re.compile(r'^```(\w*)(?: title="(\S+)")?\n(.*?)^```$', re.M | re.S)
_INLINE = re.compile(r"`([^`]+)`")
_STATUS = re.compile(r"# .*exit status (\d+)")
_NEW_STORE = re.compile(r"done before 0, .*failed 0, missing 0\n.*store: (\S+)", re.DOTALL)
_BUILD = """
import importlib, sys, tomllib

system = tomllib.load(open("pyproject.toml", "rb")).get("build-system", {})
backend = importlib.import_module(system.get("build-backend", "setuptools.build_meta"))
backend.build_wheel(sys.argv[1])
"""
_CHILD = """
import contextlib, io, json, runpy, sys, traceback

for line in sys.stdin:
    kind, step = json.loads(line)
    status, printed = 0, io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            if kind == "code":
                sys.argv = ["block"]
                exec(compile(step, "<block>", "exec"), {"__name__": "__main__"})
            elif step[0] == "-m":
                sys.argv = step[1:]
                runpy.run_module(step[1], run_name="__main__", alter_sys=True)
            else:
                sys.argv = list(step)
                runpy.run_path(step[0], run_name="__main__")
        except SystemExit as end:
            status = end.code
        except BaseException:
            status = traceback.format_exc()
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
    print(json.dumps([status, printed.getvalue()]), flush=True)
"""


class Block(NamedTuple):
    language: str
    file: str
    text: str
    follows: bool  # nothing between it and the block before, which is of bash


class Command(NamedTuple):
    words: list[str]
    status: int


def fenced(root: Path, page: str) -> list[Block]:
    """The code blocks of a page."""
    text, found, end = (root / page).read_text(), [], 0  # a page begins with a heading
    for match in _FENCE.finditer(text):
        follows = (
            bool(found) and found[-1].language == "bash" and not text[end : match.start()].strip()
        )
        found.append(Block(match[1], match[2] or "", match[3], follows))
        end = match.end()
    return found


def blocks(root: Path, language: str, page: str = "README.md") -> list[str]:
    """The texts of a page's blocks of a language that are no files."""
    return [b.text for b in fenced(root, page) if b.language == language and not b.file]


def pages(root: Path) -> list[str]:
    """The README and all pages of docs/."""
    found = sorted(path.relative_to(root) for path in root.glob("docs/**/*.md"))
    return ["README.md", *map(str, found)]


def commands(root: Path, page: str = "README.md") -> list[list[str]]:
    """The commands of a page's bash blocks that tests run."""
    return [c.words for text in blocks(root, "bash", page) for c in commands_of(text)]


def commands_of(text: str) -> Iterator[Command]:
    """The commands of a bash block that tests run."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words and not any(word.startswith(ELSEWHERE) for word in words):
            status = _STATUS.search(line)
            listing = words == ["python", "sweep.py"]
            yield Command(words, int(status[1]) if status else 2 if listing else 0)


def mentioned(root: Path, page: str) -> list[str]:
    """Commands of ours that stand in a page's text, tables and plain blocks; a line each.

    In plain blocks an indented line goes on with the command before it. Inline, `-cn=...` with a
    key is short for a sweep.
    """
    text = (root / page).read_text()
    found = []
    for block in fenced(root, page):
        if not block.file and block.language in ("", "text", "console"):
            joined = re.sub(r"\\?\n[ \t]+(?=\S)", " ", block.text)
            lines = [line.removeprefix("$ ") for line in joined.splitlines()]
            found += [line for line in lines if _is_ours(line)]
    text = _FENCE.sub("", text)
    if "/from_scripts/" in page:  # others' commands stand in the first column
        text = re.sub(r"^\|[^|]*\|", "|", text, flags=re.MULTILINE)
    for code in _INLINE.findall(text):
        code = " ".join(code.replace("\\|", "|").split())
        if re.fullmatch(r"-cn=\S+ .+", code):
            found.append(f"python sweep.py {code}")
        found += [part for part in code.split("; ") if _is_ours(part)]
    return found


def _is_ours(line: str) -> bool:
    return bool(re.match(r"python (sweep\.py|-m |benchmarks/)", line))


def run(root, folder, command, site="", status=None):
    """Run a command in a folder, and return what it printed; it must end with the status."""
    if status is None:
        status = 2 if command == ["python", "sweep.py"] else 0
    where = {"python": sys.executable}
    done = subprocess.run(
        [where.get(command[0], command[0]), *_placed(root, command[1:])],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(site), "MPLBACKEND": "Agg"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == status, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def run_page(root: Path, folder: Path, page: str, kept: Path) -> None:
    """Run a page's blocks in their order, and compare with what it shows.

    All in one process: torch loads once. On a page with files of its own every command has its
    process, as it may import what has changed. A sweep that an earlier page has computed into a
    store of its own is linked from `kept`.
    """
    found, printed = fenced(root, page), ""  # by the last block of commands
    site = folder / ".site"  # what the page has installed
    site.mkdir()
    with Interpreter(root, folder) as interpreter:
        for block in found:
            if block.file:
                path = folder / block.file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block.text)
            elif block.language == "python":
                interpreter.ends_well("code", block.text)
            elif block.language == "bash":
                printed = ""
                for words, status in commands_of(block.text):
                    if words[:3] == ["pip", "install", "-e"]:
                        install(folder / words[3], site)
                    elif any(of_block.file for of_block in found):
                        path = os.pathsep.join([str(folder), *paths(site)])  # as in the checkout
                        printed += run(root, folder, words, path, status)
                    elif words[0] != "python" or any(w.startswith("--workers") for w in words):
                        printed += _sweep(folder, words, kept, partial(run, root, folder))
                    elif status:
                        printed += run(root, folder, words, status=status)
                    else:
                        printed += _sweep(
                            folder, words, kept, partial(interpreter.ends_well, "command")
                        )
            elif block.language == "text" and block.follows:
                for line in filter(None, block.text.splitlines()):
                    assert re.search(_pattern(line), printed, re.MULTILINE), f"{line}\n{printed}"


class Interpreter:
    """A Python process that runs scripts and commands one after the other in a folder."""

    def __init__(self, root: Path, folder: Path):
        self._root = root
        self._process = subprocess.Popen(
            [sys.executable, "-c", _CHILD],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": "", "MPLBACKEND": "Agg"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "Interpreter":
        return self

    def __exit__(self, *_) -> None:
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def ends_well(self, kind: str, step: str | list[str]) -> str:
        """Run "code", or the words of a "command"; what it printed."""
        if kind == "command":
            step = _placed(self._root, step[1:])
        print(json.dumps([kind, step]), file=self._process.stdin, flush=True)
        status, printed = json.loads(self._process.stdout.readline())
        assert not status, f"{step}\n{printed}{status}"
        return printed


def _sweep(folder: Path, words: list[str], kept: Path, run: Callable[[list[str]], str]) -> str:
    """`run` a command, but for a sweep whose store an earlier page has made: that is linked."""
    place = kept / hashlib.blake2b(repr(words).encode(), digest_size=8).hexdigest()
    if place.is_dir():
        printed = (place / "printed").read_text()
        store = _NEW_STORE.search(printed)[1]
        if not (folder / store).exists():
            shutil.copytree(place / "store", folder / store, copy_function=os.link)
            return printed
    printed = run(words)
    if (made := _NEW_STORE.search(printed)) and not place.exists():
        shutil.copytree(folder / made[1], place / "store", copy_function=os.link)
        (place / "printed").write_text(printed)
    return printed


def _pattern(line: str) -> str:
    """A line as a page shows it: words with digits differ, `...` is anything."""
    words = [r"\S+" if re.search(r"\d", word) else re.escape(word) for word in line.split()]
    return r"^\s*" + r"\s+".join(words).replace(re.escape("..."), ".*") + r"\s*$"


def _placed(root: Path, words: list[str]) -> list[str]:
    """Words of a command, with the paths of the checkout's files."""
    return [str(root / word) if word.startswith(_OURS) else word for word in words]


def install(project: Path, site: Path) -> None:
    """Make a project's modules and entry points known, as `pip install -e` does, but faster.

    The project's build backend makes a wheel, called as pip calls it (PEP 517). It must have the
    modules of all entry points; `site` gets its metadata and the path of the project.
    """
    with tempfile.TemporaryDirectory() as built:
        run(project, project, ["python", "-c", _BUILD, built])
        [wheel] = Path(built).glob("*.whl")
        [about] = distributions(path=[str(wheel)])
        files = set(map(str, about.files))
        for entry in about.entry_points:
            module = entry.module.replace(".", "/")
            assert {f"{module}.py", f"{module}/__init__.py"} & files, f"{entry}: {files}"
        metadata = [name for name in files if ".dist-info/" in name]
        zipfile.ZipFile(wheel).extractall(site, metadata)
    (site / f"{about.name}.pth").write_text(str(project))


def paths(site: Path) -> list[str]:
    """What Python's path has of the projects that are installed in `site`."""
    return [str(site), *(path.read_text() for path in sorted(site.glob("*.pth")))]
