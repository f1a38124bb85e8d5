"""Data sets of the hub, which keeps Parquet files of each."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any


def train_rows(
    name: str, folder: str, columns: Sequence[str], instead: str
) -> Iterator[dict[str, Any]]:
    """Rows of the train split, whose files lie in a folder of the data set.

    OSError saying what works `instead`, without a connection, when the hub is not reached.
    """
    import pyarrow.parquet as pq
    from huggingface_hub import snapshot_download

    try:
        found = snapshot_download(name, repo_type="dataset", allow_patterns=f"{folder}/train-*")
    except Exception as error:  # whatever the hub's client raises when it reaches nothing
        reason = str(error).strip().splitlines()[0]
        raise OSError(
            f"the hub's data set {name} cannot be read: {reason}; without a connection: {instead}"
        ) from error
    for file in sorted(Path(found, folder).glob("train-*")):
        yield from pq.read_table(file, columns=list(columns)).to_pylist()
