"""Texts to train and test language models on: documents by the name of their corpus."""

import gzip
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from plugins.lm.hub import train_rows
from plugins.registry import Registry

_DEFAULT_TEXT = Path(__file__).with_name("state_of_the_union.jsonl.gz")


@dataclass(frozen=True)
class Document:
    doc_id: str
    text: str


corpora: Registry[Callable[..., list[Document]]] = Registry("language models", "corpus")
register_corpus = corpora.register  # (path, variant: those of the two that it takes) -> documents


def check_corpus(name: str, path: str | None, variant: str | None) -> None:
    """Raises ValueError for what can be known to fail without reading the corpus."""
    _resolve(name, path, variant)
    if path is not None and not Path(path).expanduser().exists():
        raise ValueError(f"data.path={path}: no such file or folder")


def load_corpus(name: str, path: str | None = None, variant: str | None = None) -> list[Document]:
    """Documents of `data.corpus`, in its order, none of them empty.

    Raises UnknownName for a corpus that is not registered, ValueError for a file that is no corpus,
    OSError for a file or a hub that cannot be read.
    """
    documents = _resolve(name, path, variant)()
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
    for row in _rows_of_hub("Salesforce/wikitext", variant):
        title = row.strip()  # "= Title =" starts an article, "= = Section = =" does not
        if not articles or (title.startswith("= ") and not title.startswith("= =")):
            articles.append([])
        articles[-1].append(row)
    return [Document(f"{variant}-{i}", "".join(rows)) for i, rows in enumerate(articles)]


def _resolve(name: str, path: str | None, variant: str | None) -> Callable[[], list[Document]]:
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


def _rows_of_hub(name: str, variant: str) -> list[str]:
    """The column `text` of a data set's train split."""
    instead = "data.corpus=state_of_the_union, or data.corpus=file data.path=<your texts>"
    return [row["text"] for row in train_rows(name, variant, ["text"], instead)]
