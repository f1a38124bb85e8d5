"""A SLURM cluster for each file of these tests, and their marks."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cluster import Cluster, ClusterError, missing_programs


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.slurm)
            item.add_marker(pytest.mark.slow)


@contextmanager
def _ended_cluster() -> Iterator[Cluster]:
    """Not up yet; at the end nothing is left of it. Not in tmp_path: sockets need short paths."""
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder:
        cluster = Cluster(Path(folder) / "cluster")
        try:
            yield cluster
        finally:
            cluster.down()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """2 nodes of 2 slots, in the environment of whatever the tests start."""
    with _ended_cluster() as cluster, pytest.MonkeyPatch.context() as patch:
        try:
            cluster.up()
        except ClusterError as error:
            if missing_programs() and os.environ.get("DYNASCOPE_REQUIRE_SLURM") != "1":
                pytest.skip(str(error))
            raise
        environment = cluster.environment()
        for name in os.environ.keys() - environment.keys():
            patch.delenv(name)
        for name, value in environment.items():
            patch.setenv(name, value)
        yield cluster


@pytest.fixture
def second_cluster(cluster) -> Iterator[Cluster]:
    """Beside the first one, not up yet."""
    with _ended_cluster() as second:
        yield second
