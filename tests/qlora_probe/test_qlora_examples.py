"""Examples by source: what is read, what is refused and where, and the split."""

import json
import math

import pytest

from qlora_probe.examples import Example, check_source, load_examples, n_with_held_out, split


def write(path, *lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def rows(n):
    return [json.dumps({"instruction": f"q{i}", "output": f"a{i}"}) for i in range(n)]


def test_synthetic_examples_are_the_upper_casing_task_without_repeats():
    examples = load_examples("synthetic", None, 500, seed=0)
    assert len(set(examples)) == len(examples) == 500
    for example in examples:
        assert example.answer == example.instruction.removeprefix("upper ").upper()
    assert examples == load_examples("synthetic", None, 500, seed=0)
    assert not set(examples) & set(load_examples("synthetic", None, 500, seed=1)[:50])


def test_jsonl_in_its_order(tmp_path):
    path = write(
        tmp_path / "a.jsonl",
        '{"instruction": "Add.", "input": "1 and 2", "output": "3"}',
        "",
        '{"instruction": "Say sécond\u2028 now", "input": "", "output": "sécond", "more": 1}',
        '{"instruction": "Third", "input": null, "output": " x "}',
        '{"instruction": "Add.", "input": "1 and 2", "output": "3"}',
    )
    assert load_examples("jsonl", path, 10, seed=0) == [
        Example("Add.\n\n1 and 2", "3"),
        Example("Say sécond\u2028 now", "sécond"),
        Example("Third", " x "),
    ]


def test_some_of_a_longer_file_by_seed(tmp_path):
    path = write(tmp_path / "a.jsonl", *rows(40))
    every = load_examples("jsonl", path, 40, seed=0)
    assert [example.answer for example in every] == [f"a{i}" for i in range(40)]
    first, again, other = (load_examples("jsonl", path, 10, seed) for seed in (0, 0, 1))
    assert first == again != other
    assert len(set(first)) == 10
    assert set(first) < set(every)
    assert load_examples("jsonl", path, 15, seed=0)[:10] == first
    chosen = {e for seed in range(40) for e in load_examples("jsonl", path, 10, seed)}
    assert chosen == set(every)  # a miss of one: 40 x .75^40 = 4e-4


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "no JSON: Expecting property name"),
        ("x", "no JSON"),
        ('["instruction", "output"]', "not an object"),
        ("3", "not an object"),
        ("null", "not an object"),
        ('{"instruction": "q"}', "the key output is missing"),
        ('{"output": "a"}', "the key instruction is missing"),
        ('{"instruction": "q", "output": null}', "the key output is missing"),
        ('{"instruction": "q", "output": 5}', "output is no text: 5"),
        ('{"instruction": ["q"], "output": "a"}', r'instruction is no text: \["q"\]'),
        ('{"instruction": "q", "input": 1, "output": "a"}', "input is no text: 1"),
        ('{"instruction": "q", "output": ""}', "output is empty"),
        ('{"instruction": "q", "output": " \\n"}', "output is empty"),
        ('{"instruction": "", "input": "i", "output": "a"}', "instruction is empty"),
    ],
)
def test_bad_line_is_named_by_file_and_number(tmp_path, line, message):
    """The blank line counts, as in an editor."""
    path = write(tmp_path / "a.jsonl", *rows(5), "", line, *rows(1))
    with pytest.raises(ValueError, match=rf"^data\.path={path}, line 7: {message}"):
        load_examples("jsonl", path, 3, seed=0)


def test_file_without_examples(tmp_path):
    path = write(tmp_path / "a.jsonl", "", "  ")
    with pytest.raises(ValueError, match=rf"data\.path={path}: no example"):
        load_examples("jsonl", path, 3, seed=0)


def test_file_of_another_encoding(tmp_path):
    (tmp_path / "a.jsonl").write_bytes('{"instruction": "café", "output": "x"}'.encode("latin-1"))
    with pytest.raises(ValueError, match=r"data\.path=.*a\.jsonl is not UTF-8"):
        load_examples("jsonl", str(tmp_path / "a.jsonl"), 3, seed=0)


@pytest.mark.parametrize(
    ("source", "path", "message"),
    [
        ("alpacca", None, r"data\.source must be one of synthetic, jsonl, alpaca, got 'alpacca'"),
        ("jsonl", None, r"data\.source=jsonl needs data\.path"),
        ("jsonl", "/nowhere.jsonl", r"data\.path=/nowhere\.jsonl: no such file"),
        ("jsonl", "/", r"data\.path=/: no such file"),
        ("synthetic", "a.jsonl", r"data\.path=a\.jsonl: data\.source=synthetic takes none"),
        ("alpaca", "a.jsonl", r"data\.path=a\.jsonl: data\.source=alpaca takes none"),
    ],
)
def test_bad_sources_are_found_before_anything_is_read(source, path, message):
    for function in (check_source, lambda source, path: load_examples(source, path, 3, seed=0)):
        with pytest.raises(ValueError, match=message):
            function(source, path)


def test_check_reads_no_file_and_asks_no_hub(tmp_path):
    check_source("jsonl", write(tmp_path / "a.jsonl", "{"))
    check_source("alpaca", None)
    check_source("synthetic", None)


@pytest.mark.parametrize("n", [1, 2, 8, 9, 10, 50, 449, 450, 451])
def test_split_gives_the_training_examples_asked_for_and_a_ninth_as_many(n):
    examples = load_examples("synthetic", None, n_with_held_out(n), seed=0)
    train, held_out = split(examples)
    assert (len(train), len(held_out)) == (n, math.ceil(n / 9))
    assert sorted(train + held_out, key=str) == sorted(examples, key=str)
    assert not set(train) & set(held_out)


def test_split_is_by_seed_and_not_by_order():
    examples = [Example(str(i), str(i)) for i in range(500)]
    first, again, other = split(examples), split(examples, 42), split(examples, 43)
    assert first == again
    assert first[1] != other[1]
    assert first[1] != examples[450:]


@pytest.mark.parametrize(("n", "sizes"), [(2, (1, 1)), (10, (9, 1)), (11, (9, 2)), (40, (36, 4))])
def test_short_source_keeps_the_proportion(tmp_path, n, sizes):
    path = write(tmp_path / "a.jsonl", *rows(n))
    sides = split(load_examples("jsonl", path, n_with_held_out(450), seed=0))
    assert tuple(map(len, sides)) == sizes


def test_split_with_an_empty_side():
    with pytest.raises(ValueError, match=r"data\.n_examples: 1 example in the source cannot be"):
        split([Example("q", "a")])
    with pytest.raises(ValueError, match=r"data\.n_examples: 0 examples"):
        split([])


def test_alpaca_of_the_library_s_cache(cached_data_set):
    entries = [
        {"instruction": "Name it.", "input": "", "output": "Bo", "text": "Below is"},
        {"instruction": "Draw it.", "input": "", "output": "", "text": "Below is"},
        {"instruction": "Sort.", "input": "2, 1", "output": "1, 2", "text": "Below is"},
    ]
    cached_data_set("tatsu-lab/alpaca", "default", entries)
    examples = load_examples("alpaca", None, 10, seed=0)
    assert examples == [Example("Name it.", "Bo"), Example("Sort.\n\n2, 1", "1, 2")]


def test_alpaca_without_a_connection_names_what_works(cached_data_set):
    with pytest.raises(OSError, match=r"tatsu-lab/alpaca cannot be read: .*data\.source=synthetic"):
        load_examples("alpaca", None, 10, seed=0)
