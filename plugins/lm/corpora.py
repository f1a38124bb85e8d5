"""Texts to train and test language models on: documents by the name of their corpus."""

import gzip
import inspect
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from plugins.lm.hub import FILES, train_rows
from plugins.registry import Registry, UnknownName

STREAMED = 10_000  # documents that load_corpus takes of a stream
_DEFAULT_TEXT = Path(__file__).with_name("state_of_the_union.jsonl.gz")
_OFFLINE = "data.corpus=state_of_the_union, or data.corpus=file data.path=<your texts>"


@dataclass(frozen=True)
class Document:
    doc_id: str
    text: str


corpora: Registry[Callable[..., Iterable[Document]]] = Registry("language models", "corpus")
# (path, variant, seed: those of the three that it takes) -> a list of documents, or a stream
register_corpus = corpora.register


def check_corpus(name: str, path: str | None, variant: str | None) -> None:
    """Raises ValueError for what can be known to fail without reading the corpus."""
    _resolve(name, path, variant)
    if path is None or Path(path).expanduser().exists():
        return
    if name != "traces" or path.startswith(("/", ".", "~")) or Path(path).suffix in FILES:
        raise ValueError(f"data.path={path}: no such file or folder")


def iter_corpus(
    name: str, path: str | None = None, variant: str | None = None, seed: int = 0
) -> Iterator[Document]:
    """Documents of `data.corpus`, none of them empty; of a stream those that are asked for.

    seed: what is generated, or the order in which a stream is read; the other corpora have one
    order. Raises UnknownName for a corpus that is not registered or a field that it has not,
    ValueError for a file that is no corpus, OSError for a file or a hub that cannot be read; of a
    stream, when the first document is asked for.
    """
    return (document for document in _read(name, path, variant, seed) if document.text.strip())


def load_corpus(
    name: str, path: str | None = None, variant: str | None = None, seed: int = 0
) -> list[Document]:
    """Documents of `data.corpus`, in its order, none of them empty; of a stream the first STREAMED.

    Arguments and errors are iter_corpus's.
    """
    documents = _read(name, path, variant, seed)
    if not isinstance(documents, list):
        documents = islice(documents, STREAMED)
    return [document for document in documents if document.text.strip()]


@register_corpus("state_of_the_union")
def state_of_the_union() -> list[Document]:
    """The openings of 233 messages of US presidents to the Congress, 1790-2021; public domain."""
    lines = gzip.decompress(_DEFAULT_TEXT.read_bytes()).decode().splitlines()
    return [Document(entry["id"], entry["text"]) for entry in map(json.loads, lines)]


@register_corpus("file")
def file(path: str) -> list[Document]:
    """.txt (a blank line starts a new document), .jsonl (key `text`, perhaps `id`), or a folder of
    them."""
    root = Path(path).expanduser()
    files = sorted(root.rglob("*")) if root.is_dir() else [root]
    readable = [file for file in files if file.suffix in (".txt", ".jsonl")]
    if not readable:
        raise ValueError(f"data.path={path}: no .txt or .jsonl file there")
    return [document for file in readable for document in _documents(file, root)]


WIKITEXTS = ("wikitext-2-raw-v1", "wikitext-103-raw-v1")


@register_corpus("wikitext")
def wikitext(variant: str = "wikitext-2-raw-v1") -> list[Document]:
    """Articles of WikiText (Merity et al. 2016), train split, from the hub."""
    if variant not in WIKITEXTS:
        raise ValueError(f"data.variant must be one of {', '.join(WIKITEXTS)}, got {variant!r}")
    articles: list[list[str]] = []
    for row in train_rows("Salesforce/wikitext", variant, ["text"], _OFFLINE):
        title = row["text"].strip()  # "= Title =" starts an article, "= = Section = =" does not
        if not articles or (title.startswith("= ") and not title.startswith("= =")):
            articles.append([])
        articles[-1].append(row["text"])
    return [Document(f"{variant}-{i}", "".join(rows)) for i, rows in enumerate(articles)]


@register_corpus("fineweb_edu")
def fineweb_edu(variant: str = "sample-10BT", seed: int = 0) -> Iterator[Document]:
    """Educational web pages (Penedo et al. 2024), streamed from the hub through a shuffled buffer.

    variant: a configuration of the data set.
    """
    columns = ("id", "text")
    name = "HuggingFaceFW/fineweb-edu"
    for row in train_rows(name, variant, columns, _OFFLINE, shuffle_seed=seed):
        yield Document(row["id"], row["text"])


@register_corpus("traces")
def traces(path: str, variant: str, seed: int = 0) -> Iterator[Document]:
    """Reasoning traces with the data set's own markers of thinking, streamed in a shuffled order.

    path: hub id, folder, .jsonl or .parquet file. variant: the field of a row that holds the trace;
    rows without a trace are passed over.
    """
    instead = "data.path=<.jsonl or .parquet file>"
    try:
        for i, row in enumerate(train_rows(path, None, [variant], instead, shuffle_seed=seed)):
            text = row[variant] or ""
            if not isinstance(text, str):
                raise ValueError(f"{path} has no text in its field {variant!r}: {text!r:.80}")
            yield Document(f"{path}:{i}", text)
    except UnknownName as error:
        raise UnknownName(f"data.variant={variant}: {error}") from None


def _read(name: str, path: str | None, variant: str | None, seed: int) -> Iterable[Document]:
    corpus = _resolve(name, path, variant)
    takes_seed = "seed" in inspect.signature(corpus).parameters
    return corpus(seed=seed) if takes_seed else corpus()


def _resolve(name: str, path: str | None, variant: str | None) -> Callable[..., Iterable[Document]]:
    given = {"path": path, "variant": variant}
    try:
        return corpora.resolve({name: {k: v for k, v in given.items() if v is not None}})
    except ValueError as error:
        raise type(error)(f"data.corpus={name}: {error} (data.path, data.variant)") from None


def _documents(file: Path, root: Path) -> Iterator[Document]:
    name = file.relative_to(root) if file != root else file.name
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8: {error}") from None
    if file.suffix == ".txt":
        for i, part in enumerate(re.split(r"\n\s*\n", text)):
            yield Document(f"{name}:{i}", part)
        return
    for number, line in enumerate(text.split("\n"), start=1):  # U+2028 ends no line
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            if not isinstance(entry["text"], str):
                raise TypeError
            yield Document(f"{name}:{entry.get('id', number)}", entry["text"])
        except (json.JSONDecodeError, KeyError, AttributeError, TypeError) as error:
            raise ValueError(f"{file}, line {number}: no JSON object with a key text") from error
