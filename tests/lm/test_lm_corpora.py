"""Corpora: the default text, files, and what cannot be read."""

import gzip
import hashlib
import json

import pytest

from plugins.lm import corpora
from plugins.lm.corpora import Document, check_corpus, load_corpus
from plugins.registry import UnknownName


def test_default_text_is_the_committed_one():
    documents = load_corpus("state_of_the_union")
    assert len(documents) == 233
    assert len({document.doc_id for document in documents}) == 233
    assert max(len(document.text) for document in documents) <= 6000
    assert 1.3e6 < sum(len(document.text) for document in documents) < 1.4e6
    lines = gzip.decompress(corpora._DEFAULT_TEXT.read_bytes())
    digest = hashlib.sha256(lines).hexdigest()
    assert digest.startswith("d58fa2d4")
    assert digest.endswith("d023b74")


def test_blank_lines_part_the_documents_of_a_text_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one\nstill one\n\n\ntwo\n \t\nthree", encoding="utf-8")
    documents = load_corpus("file", str(path))
    assert [document.text for document in documents] == ["one\nstill one", "two", "three"]
    assert len({document.doc_id for document in documents}) == 3


def test_folder_of_files_in_the_order_of_their_names(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x.txt").write_text("last")
    rows = [{"id": "p", "text": "first"}, {"text": "sécond"}, {"text": "  "}]
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (tmp_path / "a.jsonl").write_text(text, encoding="utf-8")
    (tmp_path / "c.md").write_text("not read")
    assert load_corpus("file", str(tmp_path)) == [
        Document("a.jsonl:p", "first"),
        Document("a.jsonl:2", "sécond"),
        Document("b/x.txt:0", "last"),
    ]


@pytest.mark.parametrize("line", ["{", '{"id": 1}', "[1]", "3", '{"text": null}'])
def test_line_that_is_no_document_is_named(tmp_path, line):
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"text": "fine"}}\n{line}\n')
    with pytest.raises(ValueError, match=r"a\.jsonl, line 2: no JSON object with a key text"):
        load_corpus("file", str(path))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("state_of_the_onion", None, None), UnknownName, "did you mean 'state_of_the_union'"),
        (("state_of_the_union", "x", None), UnknownName, "no parameter 'path'"),
        (("file", None, None), ValueError, "needs the parameter 'path'"),
        (("file", "/nowhere", None), ValueError, "data.path=/nowhere: no such file or folder"),
        (("wikitext", None, None), None, ""),
    ],
)
def test_bad_corpora_are_found_before_anything_is_read(arguments, error, message):
    if error is None:
        check_corpus(*arguments)
        return
    with pytest.raises(error, match=message):
        check_corpus(*arguments)


def test_lines_end_at_line_feeds_alone_and_may_be_empty(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one\u2028still one"}\n\n{"text": "two"}\n', encoding="utf-8")
    assert [d.text for d in load_corpus("file", str(path))] == ["one\u2028still one", "two"]


def test_file_of_another_encoding_is_named(tmp_path):
    (tmp_path / "a.txt").write_bytes("café".encode("latin-1"))
    with pytest.raises(ValueError, match=r"a\.txt is not UTF-8"):
        load_corpus("file", str(tmp_path))


def test_unknown_variant_asks_no_hub():
    with pytest.raises(ValueError, match=r"data\.variant must be one of wikitext-2-raw-v1, wiki"):
        load_corpus("wikitext", variant="foo")


def test_folder_without_texts(tmp_path):
    with pytest.raises(ValueError, match=r"no \.txt or \.jsonl file there"):
        load_corpus("file", str(tmp_path))


def test_hub_that_cannot_be_reached_names_what_works_without():
    with pytest.raises(OSError, match=r"data\.corpus=state_of_the_union"):
        load_corpus("wikitext", variant="wikitext-2-raw-v1")


def test_articles_of_wikitext(tmp_path, monkeypatch):
    """The rows of its files are lines; sections stay in their article."""
    rows = [
        "",
        " = One = \n",
        " text one \n",
        " = = Part = = \n",
        " more \n",
        " = Two = \n",
        " t \n",
    ]
    monkeypatch.setattr(corpora, "_rows_of_hub", lambda name, variant: rows)
    documents = load_corpus("wikitext")
    assert [document.text for document in documents] == ["".join(rows[1:5]), "".join(rows[5:])]
