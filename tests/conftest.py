"""What all tests share: the toy third-party packages on the path, and the command line."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ROOT / "tests" / "packages"
# Installed as far as importlib.metadata can tell: here and in every child process.
sys.path.insert(0, str(PACKAGES))
os.environ["PYTHONPATH"] = str(PACKAGES)
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with long tests first, above all those of whole commands in tests/ itself: no worker is
    left with one when the others have ended."""
    long = {i.path for i in items if i.get_closest_marker("slow") or i.get_closest_marker("slurm")}
    items.sort(key=lambda item: (item.path not in long, len(item.path.parts)))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Runs inside a test's process set torch's threads: tests after them would share the cores."""
    yield
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory) -> Path:
    """Of tokenizers and models, here, in every child process and every worker; not the user's."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cache"
    os.environ["DYNASCOPE_CACHE"] = str(folder)
    return folder


@pytest.fixture
def wandb_logs(tmp_path, monkeypatch) -> Iterator[Callable[[], list[Path]]]:
    """Weights & Biases without a connection, from here on in a folder of the test; the function
    waits until its process has written, and returns the logs of its runs."""
    import wandb

    wandb.teardown()  # it keeps the folder of an earlier test
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # where nobody listens

    def logs() -> list[Path]:
        wandb.teardown()
        return sorted(tmp_path.glob("wandb/offline-run-*/*.wandb"))

    yield logs
    wandb.teardown()


@pytest.fixture
def sweep_cli(tmp_path):
    """Run `python sweep.py ARGS` in an empty directory; the finished process, output as text."""

    def run(*args: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, str(ROOT / "sweep.py"), *args],
            cwd=tmp_path,
            env={**os.environ, **(env or {})},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run


@pytest.fixture
def cached_data_set(tmp_path, monkeypatch):
    """(name, config, rows): puts a data set of the hub into a cache of this test's own."""
    import datasets
    from datasets.arrow_writer import ArrowWriter

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub")

    def put(name, config, rows):
        features = datasets.Dataset.from_list(rows).features
        short = name.split("/")[-1]
        folder = tmp_path / "hub" / name.replace("/", "___") / config / "0.0.0" / ("0" * 40)
        folder.mkdir(parents=True)
        with ArrowWriter(path=str(folder / f"{short}-train.arrow"), features=features) as writer:
            for row in rows:
                writer.write(row)
            writer.finalize()
        split = {"name": "train", "num_examples": len(rows), "dataset_name": short}
        datasets.DatasetInfo(
            features=features,
            splits={"train": split},
            config_name=config,
            dataset_name=short,
            version="0.0.0",
            builder_name="parquet",
        ).write_to_directory(folder)

    return put
