"""`python -m sublora.prepare`: make a data set folder of a Markov chain, of texts or of the hub."""

import argparse
import hashlib
import shutil
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from glob import glob
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from plugins.atomic import fsync, stamp
from plugins.lm.cache import cached
from plugins.lm.hub import train_rows
from sublora import markov
from sublora.dataset import LARGEST_VOCAB, write_dataset, write_split_dataset
from sublora.streams import stream

CORPORA = ("markov", "text", "hub")
N_MARKOV = 40_000  # training documents
ENDS = ("<|endoftext|>", "</s>", "<|end_of_text|>", "<eos>")  # in a bare tokenizer.json
_OPTIONS = {  # that a corpus takes, with their defaults; every corpus takes seed and val_fraction
    "markov": {},
    "text": {"files": None, "split": "file", "tokenizer": "bytes"},
    "hub": {"dataset": "Skylion007/openwebtext", "tokenizer": "bytes"},
}
_BATCH = 2**20  # characters that are encoded at a time, by all cores
_EXAMPLES = """\
examples:
  python -m sublora.prepare -o data/markov --corpus markov
  python -m sublora.prepare -o data/notes --corpus text --files 'notes/**/*.txt' --split paragraph
  python -m sublora.prepare -o data/openwebtext --corpus hub --tokenizer ~/models/gpt2
"""


@dataclass(frozen=True)
class Tokenizer:
    encode: Callable[[list[str]], list[np.ndarray]]  # texts to ids, without EOT
    vocab_size: int
    eot: int
    description: str  # "bytes", or sha256 of what decides the ids


def default_dataset() -> Path:
    """The folder of `--corpus markov` in the cache, made at its first use."""
    key = {"version": 1, "documents": N_MARKOV, "val_fraction": 0.05, "seed": 0}
    return cached("markov", key, partial(_write_markov, val_fraction=0.05, seed=0))


def prepare(args: argparse.Namespace) -> dict[str, Any]:
    """Make the data set and give it its name when it is complete; its meta.json.

    Raises ValueError and OSError naming an option.
    """
    _check_options(args)
    output = args.output.expanduser().resolve()
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        what = "has something in it" if output.is_dir() else "is a file"
        raise ValueError(f"-o {args.output} {what}: name a folder that is new or empty")
    if args.corpus == "markov":
        return _publish(output, partial(_write_markov, **_common(args)))
    if args.corpus == "text":
        texts, source = _text_documents(_files(args.files), args.split), {"split": args.split}
    else:
        texts, source = _hub_documents(args.dataset, args.seed), {"dataset": args.dataset}
    tokenizer = bytes_tokenizer() if args.tokenizer == "bytes" else load_tokenizer(args.tokenizer)
    documents = (ids for batch in _batches(texts) for ids in tokenizer.encode(batch))
    meta = {"vocab_size": tokenizer.vocab_size, "eot": tokenizer.eot}
    meta |= {"tokenizer": tokenizer.description, "corpus": args.corpus, **source}
    split = {"documents": documents, "meta": meta, **_common(args)}
    return _publish(output, partial(write_split_dataset, **split))


def bytes_tokenizer() -> Tokenizer:
    """UTF-8's bytes, and EOT 256."""

    def encode(texts: list[str]) -> list[np.ndarray]:
        return [np.frombuffer(text.encode(), np.uint8).astype(np.uint16) for text in texts]

    return Tokenizer(encode, 257, 256, "bytes")


def load_tokenizer(path: str) -> Tokenizer:
    """Of a tokenizer.json, or a local folder of the transformers library.

    A special token that stands in a text is encoded as the characters that it is. EOT is the
    folder's eos_token; of a bare tokenizer.json the first of ENDS that it has. Raises ValueError
    naming --tokenizer.
    """
    key, place = f"--tokenizer={path}", Path(path).expanduser()
    if not place.exists():
        raise ValueError(f"{key}: no such file or folder; bytes is the other tokenizer")
    _needs("transformers" if place.is_dir() else "tokenizers", key)
    try:
        tokenizer, end = _read_folder(place) if place.is_dir() else _read_file(place)
    except Exception as error:  # whatever the libraries raise
        raise ValueError(f"{key} cannot be read: {error}") from error
    eot = None if end is None else tokenizer.token_to_id(end)
    if eot is None:
        raise ValueError(
            f"{key} has no end of text: neither an eos_token in its folder nor one of "
            f"{', '.join(ENDS)}"
        )
    vocab_size = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1
    if vocab_size > LARGEST_VOCAB:
        raise ValueError(f"{key} has {vocab_size:,} tokens; at most {LARGEST_VOCAB:,} are possible")
    digest = hashlib.sha256(tokenizer.to_str().encode()).hexdigest()
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True

    def encode(texts: list[str]) -> list[np.ndarray]:
        encoded = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array(each.ids, np.uint32) for each in encoded]

    return Tokenizer(encode, vocab_size, eot, digest)


def _read_file(path: Path) -> tuple[Any, str | None]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    return tokenizer, next((end for end in ENDS if tokenizer.token_to_id(end) is not None), None)


def _read_folder(path: Path) -> tuple[Any, str | None]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    return tokenizer.backend_tokenizer, tokenizer.eos_token


def _check_options(args: argparse.Namespace) -> None:
    """Fill in defaults; ValueError for what the corpus does not take, needs, or cannot be."""
    takes = _OPTIONS[args.corpus]
    for name in ("files", "dataset", "tokenizer", "split"):
        value = getattr(args, name)
        if name in takes:
            setattr(args, name, takes[name] if value is None else value)
        elif value is not None:
            raise ValueError(
                f"--{name}={value if isinstance(value, str) else ' '.join(value)}: --corpus "
                f"{args.corpus} takes none; it goes with --corpus "
                f"{' or '.join(corpus for corpus in CORPORA if name in _OPTIONS[corpus])}"
            )
    if args.corpus == "text" and not args.files:
        raise ValueError("--corpus text needs --files GLOB: UTF-8 text files")
    if args.corpus == "hub":
        _needs("datasets", "--corpus hub")
    if not 0 < args.val_fraction < 1:
        raise ValueError(f"--val-fraction={args.val_fraction} must lie between 0 and 1")
    if args.seed < 0:
        raise ValueError(f"--seed={args.seed} must be 0 or more")


def _needs(package: str, what: str) -> None:
    if find_spec(package) is None:
        raise ValueError(f"{what} needs {package}: pip install {package}")


def _common(args: argparse.Namespace) -> dict[str, Any]:
    return {"val_fraction": args.val_fraction, "seed": args.seed}


def _files(patterns: Sequence[str]) -> list[Path]:
    """Files of all patterns in the order of their paths, each once."""
    found = set()
    for pattern in patterns:
        paths = glob(str(Path(pattern).expanduser()), recursive=True)
        files = {Path(path) for path in paths if Path(path).is_file()}
        if not files:
            raise ValueError(f"--files={pattern}: no file there")
        found |= files
    return sorted(found)


def _text_documents(files: Iterable[Path], split: str) -> Iterator[str]:
    """Texts of files, or of their parts between blank lines, read one after the other."""
    for path in files:
        with open(path, encoding="utf-8", newline="") as file:  # line ends stay as they are
            try:
                if split == "file":
                    yield file.read()
                    continue
                for is_blank, lines in groupby(file, key=lambda line: not line.strip()):
                    if not is_blank:
                        yield "".join(lines).rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise ValueError(f"--files: {path} is not UTF-8: {error}") from None


def _hub_documents(name: str, seed: int) -> Iterator[str]:
    """The field `text` of a streamed data set, through a shuffled buffer."""
    instead = "--corpus markov, or --corpus text --files <your texts>"
    try:
        for row in train_rows(name, None, ["text"], instead, shuffle_seed=seed):
            if not isinstance(row["text"], str):
                raise ValueError(f"its field text holds {row['text']!r:.80}, no text")
            yield row["text"]
    except ValueError as error:
        raise ValueError(f"--dataset={name}: {error}") from None


def _publish(output: Path, write: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """Have `write` fill a hidden folder beside the output, then rename it."""
    aside = output.with_name(f".tmp-{stamp()}")
    aside.mkdir(parents=True)
    try:
        meta = write(aside)
        for path in aside.iterdir():
            fsync(path)
        aside.rename(output)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    fsync(output.parent)
    return meta


def _write_markov(folder: Path, val_fraction: float, seed: int) -> dict[str, Any]:
    """N_MARKOV documents for training, the fraction as many more for validation."""
    sizes = {"train": N_MARKOV, "val": max(1, round(val_fraction * N_MARKOV))}
    train, val = (markov.documents(n, stream(seed, "markov", side)) for side, n in sizes.items())
    meta = {"vocab_size": markov.VOCAB, "eot": markov.EOT, "tokenizer": None}
    meta |= {"corpus": "markov", "val_fraction": val_fraction, "seed": seed}
    return write_dataset(folder, train, val, meta)


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch, n_characters = [], 0
    for text in texts:
        batch.append(text)
        n_characters += len(text)
        if n_characters >= _BATCH:
            yield batch
            batch, n_characters = [], 0
    yield batch


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:
        self.exit(2, f"error: {message}\n")  # one line, without the usage


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m sublora.prepare",
        description=__doc__.split(": ", 1)[1],
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("-o", "--output", type=Path, required=True, metavar="DIR", help="new or empty folder")
    add("--corpus", choices=CORPORA, required=True)
    add("--files", nargs="+", metavar="GLOB", help="text: files in UTF-8")
    add("--split", choices=("file", "paragraph"), help="text: what a document is (file)")
    add("--dataset", metavar="NAME", help="hub: with a field text (Skylion007/openwebtext)")
    add("--tokenizer", metavar="bytes|PATH", help="tokenizer.json or a local folder (bytes)")
    add("--val-fraction", type=float, default=0.05, help="of the documents (%(default)s)")
    add("--seed", type=int, default=0, help="of what is drawn (%(default)s)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; 0, or 2 with one line on what is wrong, and nothing written."""
    args = _parser().parse_args(argv)
    try:
        meta = prepare(args)
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print(f"{args.output}: V={meta['vocab_size']}, EOT {meta['eot']}")
    for side, counts in meta["counts"].items():
        empty = counts["empty_documents"]
        print(
            f"{side}.bin: {counts['documents']:,} documents, {counts['tokens']:,} tokens"
            + (f", {empty:,} empty documents" if empty else "")
            + f", sha256 {meta['sha256'][f'{side}.bin']}"
        )
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # removes the hidden folder
    sys.exit(main())
