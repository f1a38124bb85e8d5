"""What bounds the memory of folds and readers: row groups, and the keys of all rows."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from store_rows import write_runs

from plugins.columns import ROW_GROUP_BYTES
from plugins.fold import compact
from plugins.parts import list_parts
from plugins.result import RunResult
from plugins.winners import short_keys


def row_groups(store):
    """Of the store's parts: [(rows, uncompressed bytes), ...]."""
    files = [pq.read_metadata(part / "results.parquet") for part in list_parts(store)]
    groups = [[file.row_group(i) for i in range(file.num_row_groups)] for file in files]
    return [[(group.num_rows, group.total_byte_size) for group in file] for file in groups]


@pytest.mark.parametrize(("points", "runs"), [(1_000, 500), (100_000, 6)])
def test_row_groups_weigh_a_mebibyte_when_flushed_and_when_folded(tmp_path, points, runs):
    loss = np.random.default_rng(0).random(points)
    outcome = RunResult(curves={"step": range(points), "loss": loss})
    for part in (range(0, runs, 2), range(1, runs, 2)):
        write_runs(tmp_path, part, outcome=outcome)
    for parts in (2, 1):
        found = row_groups(tmp_path)
        assert len(found) == parts
        for groups in found:
            assert all(rows == 1 or size <= ROW_GROUP_BYTES for rows, size in groups)
            # 16 bytes a point before they are encoded; a run of 100,000 has a group of its own.
            weight = sum(rows for rows, _ in groups) * 17 * points
            assert len(groups) <= 1 + weight / ROW_GROUP_BYTES
        compact(tmp_path)
    assert sum(rows for rows, _ in found[0]) == runs


def test_keys_of_a_row_take_few_bytes(tmp_path):
    """Two numbers of 8, the status, the time, part and row; 4 for a text that repeats."""
    write_runs(tmp_path, range(2_000), outcome=RunResult())
    parts = list_parts(tmp_path)
    assert short_keys(parts).estimated_size() / 2_000 < 8 + 8 + 1 + 8 + 4 + 4 + 0.1
    keys = short_keys(parts, ["config_id", "plan"])
    assert keys.estimated_size() / 2_000 < 33 + 4 + 4 + 0.1
