"""Which changes of a checkout make other code of it."""

import subprocess

import pytest

from plugins import provenance


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A commit of a family, the machinery and a page."""
    for file in ("plugins/worker.py", "dln/__init__.py", "docs/page.md", "conf/dln/a.yaml"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("1\n")
    author = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init", "-q"], ["add", "-A"], [*author, "commit", "-qm", "First"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    monkeypatch.setattr(provenance, "_ROOT", tmp_path)
    return tmp_path


def code():
    return provenance.code_version.__wrapped__()  # not the one that is kept


def test_other_code_is_what_computes_runs(checkout):
    clean = code()
    assert len(clean) == 40
    for name in ("docs/page.md", "conf/dln/a.yaml", "mine.py", "mine/metric.py"):
        (checkout / name).parent.mkdir(exist_ok=True)
        (checkout / name).write_text("2\n")
        assert code() == clean
    (checkout / "dln" / "metric.py").write_text("1\n")
    new = code()
    assert new.startswith(f"{clean}+")
    (checkout / "plugins" / "worker.py").write_text("2\n")
    assert code().startswith(f"{clean}+")
    assert code() != new


def test_without_git_there_is_none(tmp_path, monkeypatch):
    (tmp_path / "conf").mkdir()
    monkeypatch.setattr(provenance, "_ROOT", tmp_path)
    assert code() is None
