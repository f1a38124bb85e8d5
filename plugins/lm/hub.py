"""Data sets of the hub, and files laid out as it does, read through the library `datasets`."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from plugins.registry import UnknownName, did_you_mean

BUFFER = 10_000  # rows
FILES = {".jsonl": "json", ".json": "json", ".parquet": "parquet"}  # the library's readers


def train_rows(
    name: str,
    config: str | None,
    columns: Sequence[str],
    instead: str,
    *,
    shuffle_seed: int | None = None,
) -> Iterator[dict[str, Any]]:
    """Rows of the train split, with these columns: of a hub id, a local folder or one of FILES.

    config: of a data set of the hub that has several. With a shuffle_seed rows are streamed:
    files in a random order, then through a buffer of BUFFER rows. Without one they come in their
    order, and a data set of the hub is downloaded once into the library's cache, which offline
    mode (HF_HUB_OFFLINE=1) reads. Raises OSError saying what works `instead`, without a connection,
    when the hub is not reached; UnknownName for a column; ValueError for a file that is no table.
    """
    is_local = Path(name).expanduser().exists()
    try:
        dataset = _open(name, config, streaming=is_local or shuffle_seed is not None)
        known = dataset.column_names or list(next(iter(dataset)))
    except Exception as error:  # whatever the library and the hub's client raise
        reason = " ".join(str(error).split()) or type(error).__name__
        if is_local:
            raise ValueError(f"{name} cannot be read: {reason}") from error
        raise OSError(
            f"the hub's data set {name} cannot be read: {reason}; without a connection: {instead}; "
            "or HF_HUB_OFFLINE=1, where an earlier run has downloaded it"
        ) from error
    for column in columns:
        if column not in known:
            raise UnknownName(f"{name} has no field {column!r}{did_you_mean(column, known)}")
    dataset = dataset.select_columns(list(columns))
    if shuffle_seed is not None:
        # The library's 10 files at a time need 10 connections and 5 s to end their threads.
        dataset = dataset.shuffle(shuffle_seed, buffer_size=BUFFER, max_buffer_input_shards=1)
    yield from dataset


def _open(name: str, config: str | None, *, streaming: bool) -> Any:
    import datasets
    from huggingface_hub import HfApi
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    datasets.disable_progress_bars()
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False
    options = {"split": "train", "streaming": streaming}
    path = Path(name).expanduser()
    if path.is_file():
        if path.suffix not in FILES:
            raise ValueError(f"its name must end in {', '.join(FILES)}")
        if path.stat().st_size == 0:
            raise ValueError("it is empty")
        return datasets.load_dataset(FILES[path.suffix], data_files=str(path), **options)
    if path.exists():
        return datasets.load_dataset(str(path), config, **options)
    if not datasets.config.HF_HUB_OFFLINE:
        # Fails at once, where load_dataset tries six times: 23 s or, without answers, minutes.
        HfApi().dataset_info(name, expand=["sha"], timeout=10)
    return datasets.load_dataset(name, config, **options)
