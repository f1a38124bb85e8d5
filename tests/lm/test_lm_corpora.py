"""Corpora: the default text, files, and what cannot be read."""

import gzip
import hashlib
import json
from itertools import count, islice

import pytest

from plugins.lm import corpora
from plugins.lm.corpora import Document, check_corpus, iter_corpus, load_corpus, register_corpus
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
        (
            ("traces", "owner/set", None),
            ValueError,
            "data.corpus=traces: .*needs the parameter 'var",
        ),
        (("traces", None, "trace"), ValueError, "needs the parameter 'path'"),
        (("traces", "nowhere.jsonl", "trace"), ValueError, "data.path=nowhere.jsonl: no such file"),
        (("traces", "./nowhere/set", "trace"), ValueError, "data.path=./nowhere/set: no such file"),
        (("traces", "owner/set", "trace"), None, ""),
        (("fineweb_edu", "x", None), UnknownName, "no parameter 'path'"),
        (("fineweb_edu", None, "sample-100BT"), None, ""),
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("wikitext",), r"Salesforce/wikitext.*data\.corpus=state_of_the_union"),
        (("fineweb_edu",), r"HuggingFaceFW/fineweb-edu.*data\.corpus=state_of_the_union"),
        (("traces", "owner/set", "trace"), r"owner/set.*data\.path=<\.jsonl or \.parquet file>"),
    ],
)
def test_hub_that_cannot_be_reached_names_what_works_without(cached_data_set, arguments, message):
    for read in (load_corpus, lambda *arguments: next(iter_corpus(*arguments))):
        with pytest.raises(OSError, match=message):
            read(*arguments)


def test_articles_of_wikitext(cached_data_set):
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
    cached_data_set("Salesforce/wikitext", "wikitext-2-raw-v1", [{"text": row} for row in rows])
    documents = load_corpus("wikitext")
    assert [document.text for document in documents] == ["".join(rows[1:5]), "".join(rows[5:])]


def test_fineweb_edu_in_an_order_by_seed(cached_data_set):
    rows = [{"id": f"<{i}>", "text": f"page {i}", "score": 3.5} for i in range(40)]
    rows.append({"id": "<blank>", "text": " \n", "score": 3.5})
    cached_data_set("HuggingFaceFW/fineweb-edu", "sample-10BT", rows)
    cached_data_set("HuggingFaceFW/fineweb-edu", "sample-100BT", rows[:1])
    first, again, other = (load_corpus("fineweb_edu", seed=seed) for seed in (0, 0, 1))
    assert first == again != other
    assert {(d.doc_id, d.text) for d in first} == {(r["id"], r["text"]) for r in rows[:40]}
    assert len(first) == 40
    assert len(load_corpus("fineweb_edu", variant="sample-100BT")) == 1


def trace_file(tmp_path, *traces):
    path = tmp_path / "traces.jsonl"
    path.write_text("".join(json.dumps({"question": "q", "trace": t}) + "\n" for t in traces))
    return str(path)


def test_traces_of_a_file_with_their_markers(tmp_path, cached_data_set):
    traces = [f"<think>\n{i}\n</think> a" for i in range(30)]
    path = trace_file(tmp_path, *traces, None, "")
    first, again, other = (load_corpus("traces", path, "trace", seed) for seed in (0, 0, 1))
    assert first == again
    assert [d.text for d in first] != [d.text for d in other]
    assert {d.text for d in first} == {d.text for d in other} == set(traces)
    assert len({d.doc_id for d in first}) == len(first) == 30


def test_traces_of_the_hub(cached_data_set):
    cached_data_set("owner/set", "default", [{"trace": "<think>a</think>", "n": 1}])
    assert [d.text for d in iter_corpus("traces", "owner/set", "trace")] == ["<think>a</think>"]


def test_field_that_the_traces_have_not(tmp_path, cached_data_set):
    path = trace_file(tmp_path, "t")
    message = (
        r"^data\.variant=trcae: .*no field 'trcae'; did you mean 'trace'\? .*question, trace\)"
    )
    with pytest.raises(UnknownName, match=message):
        load_corpus("traces", path, "trcae")


def test_traces_that_are_no_texts(tmp_path, cached_data_set):
    path = trace_file(tmp_path, [{"role": "user"}])
    with pytest.raises(ValueError, match=r"no text in its field 'trace': \[\{'role': 'user'\}\]"):
        load_corpus("traces", path, "trace")


def test_stream_is_read_as_far_as_it_is_asked_for(monkeypatch):
    monkeypatch.setattr(corpora.corpora, "_functions", dict(corpora.corpora._functions))
    made = []

    @register_corpus("endless")
    def endless(variant="x", seed=0):
        for i in count():
            made.append(i)
            yield Document(f"{i}", f"{variant}{seed + i}" if i % 2 else " ")

    stream = iter_corpus("endless", variant="y", seed=5)
    assert made == []
    assert [document.text for document in islice(stream, 3)] == ["y6", "y8", "y10"]
    assert made == list(range(6))
    monkeypatch.setattr(corpora, "STREAMED", 7)
    assert [document.text for document in load_corpus("endless")] == ["x1", "x3", "x5"]


def test_corpora_of_one_order_take_any_seed(tmp_path):
    (tmp_path / "a.txt").write_text("one\n\ntwo")
    assert load_corpus("file", str(tmp_path), seed=1) == load_corpus("file", str(tmp_path))
    documents = load_corpus("state_of_the_union")
    assert list(iter_corpus("state_of_the_union", seed=1)) == documents
