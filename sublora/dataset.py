"""A data set folder: token ids of training and validation documents, and what is known of them."""

import hashlib
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from plugins.atomic import publish_file
from sublora.streams import stream

FORMAT_VERSION = 1
ID = np.dtype("<u2")
LARGEST_VOCAB = 2**16
PADDING = 128  # outputs of a model are at most rounded up to a multiple of it
_CHUNK = 2**22  # ids


@dataclass(frozen=True)
class Dataset:
    """Documents as they stand in train.bin, and the stream of val.bin."""

    folder: Path
    train: np.ndarray  # ids [tokens] on the disk, every document followed by EOT
    val: np.ndarray  # likewise
    eot_indices: np.ndarray  # int64: where train has EOT
    doc_lengths: np.ndarray  # int64: tokens of each document without its EOT, 0 for an empty one
    vocab_size: int
    eot: int
    sha256: str  # of train.bin

    @cached_property
    def _nonempty(self) -> np.ndarray:
        return np.flatnonzero(self.doc_lengths)

    @property
    def n_documents(self) -> int:
        """Training documents with a token: the m of a bound over documents."""
        return len(self._nonempty)

    def document(self, i: int) -> np.ndarray:
        """Ids of the i-th document that is not empty, without EOT."""
        at = self._nonempty[i]
        end = self.eot_indices[at]
        return self.train[end - self.doc_lengths[at] : end]


def check_meta(folder: str | Path, vocab_size: int | None = None) -> dict[str, Any]:
    """meta.json of a data set, without reading its ids.

    vocab_size: outputs of the model; up to the next multiple of 128 they may be padding. Raises
    ValueError naming data.dir for a folder or meta.json that is missing or not of this format, and
    for a model of another vocabulary.
    """
    path, key = Path(folder).expanduser(), f"data.dir={folder}"
    if not (path / "meta.json").is_file():
        what = "has no meta.json" if path.is_dir() else "is no folder"
        raise ValueError(
            f"{key} {what}; python -m sublora.prepare makes a data set, data.dir=null is the "
            "default one"
        )
    try:
        meta = json.loads((path / "meta.json").read_text(encoding="utf-8"))
        version, vocab, eot = (meta[name] for name in ("format_version", "vocab_size", "eot"))
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{key}: meta.json must be an object with format_version, vocab_size and eot: "
            f"{type(error).__name__} {error}"
        ) from None
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{key}: meta.json has format_version={version!r}, this program reads {FORMAT_VERSION}"
        )
    if not isinstance(vocab, int) or not 2 <= vocab <= LARGEST_VOCAB:
        raise ValueError(f"{key}: meta.json has vocab_size={vocab!r}, not 2 to {LARGEST_VOCAB:,}")
    if not isinstance(eot, int) or not 0 <= eot < vocab:
        raise ValueError(f"{key}: meta.json has eot={eot!r}, not 0 to vocab_size - 1 = {vocab - 1}")
    padded = -(-vocab // PADDING) * PADDING
    if vocab_size is not None and not vocab <= vocab_size <= padded:
        raise ValueError(
            f"{key}: meta.json has vocab_size={vocab}, the model {vocab_size} outputs; it needs "
            f"{vocab}, or up to {padded} with padding"
        )
    return meta


def load_dataset(folder: str | Path) -> Dataset:
    """The data set of a folder, after one reading of all its ids.

    A missing eot_indices.npy or doc_lengths.npy is written anew. Raises ValueError as check_meta,
    and for ids that are missing, empty, cut inside an id, not below vocab_size, or do not end in
    EOT, for arrays that do not fit train.bin, and for training documents that are all empty. Ids
    that are not those that meta.json tells of are legal, and warned about.
    """
    meta = check_meta(folder)
    path, key = Path(folder).expanduser(), f"data.dir={folder}"
    vocab, eot = meta["vocab_size"], meta["eot"]
    try:
        train, eot_indices, sha256 = scan(path / "train.bin", vocab, eot)
        val, val_ends, val_sha256 = scan(path / "val.bin", vocab, eot)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None
    if not len(eot_indices) or eot_indices[-1] != len(train) - 1:
        where = "does not end in" if len(eot_indices) else "has no"
        raise ValueError(f"{key}: train.bin {where} EOT, which is {eot} in meta.json")
    doc_lengths = lengths_between(eot_indices)
    if not doc_lengths.any():
        raise ValueError(f"{key}: train.bin has no document that is not empty")
    if len(val_ends) == len(val):
        raise ValueError(f"{key}: val.bin has no document that is not empty")
    for name, array in (("eot_indices", eot_indices), ("doc_lengths", doc_lengths)):
        _check_array(path / f"{name}.npy", array, key)
    for name, found in (("train.bin", sha256), ("val.bin", val_sha256)):
        if meta.get("sha256", {}).get(name, found) != found:
            warnings.warn(f"{key}: {name} is not the file that meta.json tells of", stacklevel=2)
    return Dataset(path, train, val, eot_indices, doc_lengths, vocab, eot, sha256)


def write_dataset(
    folder: Path,
    documents: Iterable[Sequence[int]],
    val_documents: Iterable[Sequence[int]],
    meta: Mapping[str, Any],
) -> dict[str, Any]:
    """Write a data set into a folder that is there; the meta.json written.

    documents: ids without EOT, written as they come. meta: vocab_size, eot and whatever else is
    known of the corpus; counts and digests are added. Raises ValueError as write_ids, and for a
    side without a token.
    """
    vocab, eot = meta["vocab_size"], meta["eot"]
    meta, arrays = dict(meta, format_version=FORMAT_VERSION, counts={}, sha256={}), {}
    for side, ids in (("train", documents), ("val", val_documents)):
        path = folder / f"{side}.bin"
        write_ids(path, ids, vocab, eot)
        _, eot_indices, meta["sha256"][path.name] = scan(path, vocab, eot)
        lengths = lengths_between(eot_indices)
        if not lengths.any():
            raise ValueError(f"{path.name}: no document that is not empty")
        n = int(np.count_nonzero(lengths))
        meta["counts"][side] = {
            "documents": n,
            "empty_documents": len(lengths) - n,
            "tokens": int(lengths.sum()),  # without EOT
        }
        if side == "train":
            arrays = {"eot_indices.npy": eot_indices, "doc_lengths.npy": lengths}
    for name, array in arrays.items():
        np.save(folder / name, array)
        with open(folder / name, "rb") as file:
            meta["sha256"][name] = hashlib.file_digest(file, "sha256").hexdigest()
    (folder / "meta.json").write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")
    return meta


def write_split_dataset(
    folder: Path,
    documents: Iterable[Sequence[int]],
    meta: Mapping[str, Any],
    val_fraction: float,
    seed: int,
) -> dict[str, Any]:
    """As write_dataset; the fraction of the documents, at least one and not all, is for validation.

    Which ones is drawn by the seed when their number is known: until then all ids are in a file of
    their own, and the folder takes twice its size. Empty documents are on the training side.
    Raises ValueError as write_ids, and for fewer than two documents that are not empty.
    """
    vocab, eot = meta["vocab_size"], meta["eot"]
    everything = folder / "all.bin"
    write_ids(everything, documents, vocab, eot)
    ids, ends, lengths = np.empty(0, ID), np.empty(0, np.int64), np.empty(0, np.int64)
    if everything.stat().st_size:
        ids, ends, _ = scan(everything, vocab, eot)
        lengths = lengths_between(ends)
    nonempty = np.flatnonzero(lengths)
    if len(nonempty) < 2:
        raise ValueError(
            f"documents that are not empty: {len(nonempty)}; training and validation need one each"
        )
    n_val = min(max(1, round(val_fraction * len(nonempty))), len(nonempty) - 1)
    is_val = np.zeros(len(ends), bool)
    is_val[stream(seed, "prepare", "val").permutation(nonempty)[:n_val]] = True
    train, val = (
        (ids[ends[i] - lengths[i] : ends[i]] for i in np.flatnonzero(is_val == side))
        for side in (False, True)
    )
    meta = write_dataset(folder, train, val, {**meta, "val_fraction": val_fraction, "seed": seed})
    everything.unlink()
    return meta


def write_ids(path: Path, documents: Iterable[Sequence[int]], vocab: int, eot: int) -> None:
    """Each document and an EOT after it, as little-endian uint16.

    Raises ValueError for a document with EOT inside it or with an id outside [0, vocab).
    """
    with open(path, "wb") as file:
        for number, document in enumerate(documents):
            ids = np.asarray(document)
            if len(ids):
                if ids.min() < 0 or ids.max() >= vocab:
                    bad = ids[(ids < 0) | (ids >= vocab)][0]
                    raise ValueError(f"document {number} has the id {bad}, not 0 to {vocab - 1}")
                if (ids == eot).any():
                    raise ValueError(f"document {number} has the id {eot} inside it, which is EOT")
            file.write(ids.astype(ID).tobytes())
            file.write(np.array(eot, ID).tobytes())


def scan(path: Path, vocab: int, eot: int) -> tuple[np.ndarray, np.ndarray, str]:
    """(ids [tokens] on the disk, int64 positions of EOT, sha256) of a file, read chunk by chunk.

    Raises ValueError, naming the file, when it is missing, empty, has an odd number of bytes or an
    id that is not below vocab.
    """
    if not path.is_file():
        raise ValueError(f"{path.name} is missing")
    n_bytes = path.stat().st_size
    if n_bytes == 0 or n_bytes % ID.itemsize:
        what = f"{n_bytes:,} bytes, an odd number" if n_bytes else "no token"
        raise ValueError(f"{path.name} has {what}; ids of two bytes each are expected")
    ids = np.memmap(path, ID, mode="r")
    digest, found = hashlib.sha256(), []
    for start in range(0, len(ids), _CHUNK):
        chunk = np.array(ids[start : start + _CHUNK])
        if chunk.max() >= vocab:
            at = np.argmax(chunk >= vocab)
            raise ValueError(
                f"{path.name} has the id {chunk[at]} at token {start + at}, vocab_size in "
                f"meta.json is {vocab}"
            )
        digest.update(chunk)
        found.append(start + np.flatnonzero(chunk == eot))
    return ids, np.concatenate(found).astype(np.int64), digest.hexdigest()


def lengths_between(eot_indices: np.ndarray) -> np.ndarray:
    """int64 [documents]: tokens before each EOT since the one before."""
    return np.diff(eot_indices, prepend=-1) - 1


def _check_array(path: Path, array: np.ndarray, key: str) -> None:
    """Write an array that is missing; ValueError for one that is another."""
    if not path.exists():
        # A folder that cannot be written to serves as well: the array is in memory.
        with suppress(OSError):
            publish_file(path, lambda aside: _save(aside, array))
        return
    try:
        stored = np.load(path)
    except (ValueError, EOFError, OSError):
        stored = None
    if stored is None or not np.array_equal(stored, array):
        raise ValueError(
            f"{key}: {path.name} does not fit train.bin; remove it, then it is made anew"
        )


def _save(path: Path, array: np.ndarray) -> None:
    with open(path, "wb") as file:  # np.save would add a suffix to a path
        np.save(file, array)
