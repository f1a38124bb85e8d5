"""Answers of base and tuned model side by side, and the figure of what was forgotten."""

import html
import re

import polars as pl
import pytest
from artists import assert_inside, legend_texts
from qlora_rows import diverged, generations, result, write

from analysis.qlora_probe import (
    NotMeasured,
    load_run,
    paired_answers,
    plot_forgetting,
    write_generations,
)
from analysis.qlora_probe.answers import as_text, describe, forgetting_of, markdown
from qlora_probe.theory import measure_forgetting


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    store = tmp_path_factory.mktemp("answers")
    write(store, ({"seed": 0}, result(probes=False)))
    return load_run(store)


def cells(line):
    """What a Markdown table shows of a line: split at bars that no backslash protects, no tags."""
    inside = re.split(r"(?<!\\)(?:\\\\)*\|", line)[1:-1]
    shown = [re.sub(r"\\(\W|_)", r"\1", cell.strip()) for cell in inside]
    plain = [re.sub(r"<[^>]*>", "", cell.replace("<br>", "\n")) for cell in shown]
    return [html.unescape(cell) for cell in plain]


def test_answers_are_paired_in_the_order_asked(run):
    answers = paired_answers(run)
    assert answers["prompt_id"].to_list() == [
        *(f"math_{i}" for i in range(4)),
        *("code_0", "code_1", "explain"),
    ]
    assert answers["pass_base"].to_list() == [True] * 3 + [False] + [True] * 2 + [None]
    assert answers["pass_tuned"].to_list() == [True] + [False] * 3 + [True] * 2 + [None]
    assert answers["response_tuned"][1] == "trained says 1"


def test_forgetting_is_that_of_the_checked_prompts(run):
    """math 3 of 4 before, 1 after; code 2 of 2: score .875 to .625."""
    found = forgetting_of(paired_answers(run))
    expected = measure_forgetting(
        ["math"] * 4 + ["code"] * 2, [1, 1, 1, 0, 1, 1], [1, 0, 0, 0, 1, 1]
    )
    assert found == expected
    assert describe(found) == (
        "score 0.88 -> 0.62, change -0.250\n"
        f"(95 % interval over 6 prompts {expected.change_low:+.2f} to "
        f"{expected.change_high:+.2f}): significant\n"
        "2 lost, 0 gained, one-sided sign test p = 0.25"
    )


def test_categories_have_a_point_before_and_one_after_and_their_flips(run):
    [ax] = plot_forgetting(run)
    base, tuned = ax.lines
    assert list(base.get_xdata()) == [0.75, 1]
    assert list(tuned.get_xdata()) == [0.25, 1]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["math (n = 4)", "code (n = 2)"]
    assert list(base.get_ydata()) == list(ax.get_yticks())
    assert [t.get_text() for t in ax.texts] == ["2 lost, 0 gained", "0 lost, 0 gained"]
    assert ax.get_title() == describe(forgetting_of(paired_answers(run)))
    assert legend_texts(ax) == ["base", "tuned"]
    assert_inside(ax.figure)


def test_a_markdown_table_shows_any_answer_as_it_is(run):
    lines = markdown(paired_answers(run)).splitlines()
    assert len(lines) == 2 + 7
    assert [len(cells(line)) for line in lines] == [7] * 9
    assert cells(lines[0])[3:5] == ["base", "trained"]
    assert set(cells(lines[1])) == {"---"}
    assert cells(lines[2]) == [
        "math_0",
        "math",
        "Question math_0?",
        "base says 0",
        "trained says 0",
        "pass -> pass",
        "0.50 -> -0.25",
    ]
    hard = cells(lines[-1])
    assert hard[4:] == ["a | b\n*c* <d> \\ $e$\\x07", "-", "-"]


def test_a_table_is_written_with_a_csv_beside(run, tmp_path):
    write_generations(run, tmp_path / "generations.md")
    assert (tmp_path / "generations.md").read_text() == markdown(paired_answers(run))
    read = pl.read_csv(tmp_path / "generations.csv")
    assert read["response_tuned"][-1] == generations()["response"][-1]
    assert read["margin_tuned"].to_list() == [-0.25] * 6 + [None]


def test_the_terminal_shows_what_changed_and_what_no_check_judges(run):
    assert as_text(paired_answers(run)).splitlines() == [
        "base: base, tuned: trained",
        "math_1: Question math_1?",
        "  base   pass  base says 1",
        "  tuned  fail  trained says 1",
        "math_2: Question math_2?",
        "  base   pass  base says 2",
        "  tuned  fail  trained says 2",
        "explain: Question explain?",
        "  base   -     ",
        "  tuned  -     a | b\\n*c* <d> \\ $e$\\x07",
        "4 more prompts, whose marks are the same before and after",
    ]


def test_two_adapters_have_their_names_above_their_answers(tmp_path):
    own = result(probes=False)
    own.curves.clear()
    own.tables["generations"] = generations(tuned="0123456789abcdef")
    write(tmp_path, ({"seed": 0}, own))
    run = load_run(tmp_path)
    assert cells(markdown(paired_answers(run)).splitlines()[0])[3:5] == ["base", "0123456789abcdef"]
    assert plot_forgetting(run)[0].lines


def test_without_answers_of_both_there_is_no_table(tmp_path):
    own = diverged()
    table = pl.DataFrame(generations()).filter(phase="base")
    own.tables["generations"] = table.to_dict(as_series=False)
    write(tmp_path, ({"seed": 0}, own))
    with pytest.raises(NotMeasured, match="answers of one model only"):
        paired_answers(load_run(tmp_path))


def test_without_a_check_nothing_is_forgotten(run):
    unchecked = paired_answers(run).filter(pl.col("pass_base").is_null())
    assert len(unchecked) == 1
    with pytest.raises(NotMeasured, match="no prompt has a check"):
        forgetting_of(unchecked)
