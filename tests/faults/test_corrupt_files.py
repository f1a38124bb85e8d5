"""Files that a power cut or a disk spoiled: the error names them and a way out, which works."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from store_rows import assert_holds, write_runs
from sweep_process import ROOT, results

from plugins import api
from plugins.fold import compact
from plugins.load import load_sweep, load_table
from plugins.merge import main as merge
from plugins.merge import merge as merge_stores
from plugins.parts import CorruptPart
from plugins.status import main as status

SEEDS = ["seed=0..6"]
PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "cwd": ROOT}


def cut(path: Path) -> None:
    """The last bytes are missing."""
    content = path.read_bytes()
    path.write_bytes(content[:-10])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def garble(path: Path) -> None:
    """Something else in its place, not even text."""
    path.write_bytes(bytes(range(256)) * 4)


def lose_a_line(path: Path) -> None:
    """The last one; what is left of a YAML file is one too."""
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


def spoil(path: Path) -> None:
    """Some bytes in the middle are zero."""
    content = bytearray(path.read_bytes())
    content[100:400] = bytes(300)
    path.write_bytes(content)


DAMAGES = [
    *(("parts/*/results.parquet", how) for how in (cut, empty, garble, spoil)),
    *(("configs/*.yaml", how) for how in (cut, lose_a_line, empty, garble)),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Six runs in two parts."""
    folder = tmp_path_factory.mktemp("whole")
    api.sweep("toy/trivial", ["seed=0..4"], output=folder / "a")
    api.sweep("toy/trivial", ["seed=4..6"], output=folder / "b")
    shutil.copytree(folder / "b" / "parts", folder / "a" / "parts", dirs_exist_ok=True)
    return folder / "a"


def reading(store: Path, other: Path) -> list[list[str]]:
    """Commands that read a store; they write into the other folder, if at all."""
    commands = (
        [ROOT / "sweep.py", "-cn=toy/trivial", *SEEDS, f"--output={store}"],
        ["-m", "plugins.merge", store, "-o", other / "merged"],
        ["-m", "analysis", store, "--y", "loss", "-o", other / "loss.png"],
    )
    return [[sys.executable, *map(str, command)] for command in commands]


def follow(advice: str) -> Path:
    """Do literally what the message says; the path that was deleted."""
    folder = re.search(r"Delete the folder (/\S+): ", advice)
    path = Path(folder[1]) if folder else damaged_name(advice)
    assert folder or "Delete it: " in advice
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    return path


def damaged_name(advice: str) -> Path:
    return Path(re.search(r"(/\S+) (is damaged|cannot be read)", advice)[1])


@pytest.fixture(scope="module", autouse=True)
def readers_of_half_a_part(whole, tmp_path_factory):
    """(a store with a folder that lacks its results, commands that read it): a network file system
    may yet bring them, so the commands wait 40 s, which here pass beside the other tests."""
    store = shutil.copytree(whole, tmp_path_factory.mktemp("half") / "store")
    min(store.glob("parts/*/results.parquet")).unlink()
    commands = [subprocess.Popen(command, **PIPES) for command in reading(store, store.parent)]
    yield store, commands
    for command in commands:
        command.kill()
        command.communicate()


@pytest.mark.parametrize(("pattern", "damage"), DAMAGES)
def test_damage_is_named_and_mended_as_the_message_says(tmp_path, capsys, whole, pattern, damage):
    store = shutil.copytree(whole, tmp_path / "store")
    file = min(store.glob(pattern))
    damage(file)

    def sweep():
        return api.sweep("toy/trivial", SEEDS, output=store)

    advices = []
    for read in (sweep, lambda: load_sweep(store)):
        with pytest.raises(ValueError, match="elete") as caught:
            read()
        advices.append(str(caught.value))
    assert merge([str(store), "-o", str(tmp_path / "merged")]) == 2
    advices.append(capsys.readouterr().err)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store"]
    for advice in advices:
        assert damaged_name(advice) == file
    follow(advices[0])
    assert sweep().complete
    assert results(store).equals(results(whole))
    assert merge([str(store), "-o", str(tmp_path / "merged")]) == 0
    assert results(tmp_path / "merged").equals(results(whole))


@pytest.mark.parametrize("pattern", ["parts/*/results.parquet", "configs/*.yaml"])
def test_commands_end_with_status_two_and_no_traceback(tmp_path, whole, pattern):
    store = shutil.copytree(whole, tmp_path / "store")
    file = min(store.glob(pattern))
    garble(file)
    for command in reading(store, tmp_path):
        done = subprocess.run(command, **PIPES, check=False)
        assert done.returncode == 2, done.stdout
        assert str(file) in done.stdout
        assert "Traceback" not in done.stdout
        assert sorted(path.name for path in tmp_path.iterdir()) == ["store"]


def test_damaged_table_is_named_and_mended_as_the_message_says(tmp_path):
    """A sweep reads no tables: whoever does finds out."""
    store = tmp_path / "store"
    write_runs(store, [0, 1])
    write_runs(store, [2])
    file = min(store.glob("parts/*/notes.parquet"))
    spoil(file)
    for read in (
        lambda: load_table(store, name="notes"),
        lambda: compact(store),
        lambda: merge_stores([store], tmp_path / "merged"),
    ):
        with pytest.raises(CorruptPart) as caught:
            read()
        assert damaged_name(str(caught.value)) == file
    assert follow(str(caught.value)) == file.parent
    write_runs(store, [0, 1])
    assert_holds(store, range(3))


@pytest.mark.parametrize("damage", [cut, empty, garble])
@pytest.mark.parametrize("pattern", ["plans/*.parquet", "progress/*.json"])
def test_no_row_needs_a_plan_or_a_report(tmp_path, whole, pattern, damage):
    store = shutil.copytree(whole, tmp_path / "store")
    damage(min(store.glob(pattern)))
    report = api.sweep("toy/trivial", ["seed=0..8"], output=store)
    assert (report.done_before, report.ok, report.missing) == (6, 2, 0)
    assert len(load_sweep(store)) == 8


def test_reports_of_other_code_are_no_reports(tmp_path, whole):
    store = shutil.copytree(whole, tmp_path / "store")
    for text in ("[1]", '{"total": 3, "colour": "red"}'):
        min(store.glob("progress/*.json")).write_text(text)
        assert api.sweep("toy/trivial", SEEDS, output=store).complete


@pytest.mark.parametrize("suffix", [".parquet", ".jobs.json"])
@pytest.mark.parametrize("damage", [empty, garble])
def test_status_names_a_damaged_plan(tmp_path, capsys, whole, suffix, damage):
    store = shutil.copytree(whole, tmp_path / "store")
    [plan] = store.glob("plans/*.parquet")
    file = plan.with_suffix(suffix)
    damage(file)
    assert status([str(store)]) == 2
    advice = capsys.readouterr().err
    assert damaged_name(advice) == file
    assert follow(advice) == file
    assert status([str(store)]) == 0


@pytest.mark.slow
def test_part_without_results_is_named_and_mended_as_the_message_says(readers_of_half_a_part):
    store, commands = readers_of_half_a_part
    for command in commands:
        out, _ = command.communicate(timeout=120)
        assert command.returncode == 2, out
        assert "Traceback" not in out
        assert "if its folder is still there, delete the folder: " in out
        part = Path(re.search(r"(/\S+)/results.parquet is listed", out)[1])
    shutil.rmtree(part)
    assert api.sweep("toy/trivial", SEEDS, output=store).complete
    assert len(load_sweep(store)) == 6
