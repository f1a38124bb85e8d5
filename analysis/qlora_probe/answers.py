"""What one run answered before and after: passes by category, and both answers side by side."""

import html
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from matplotlib.axes import Axes

from analysis.curves import LEVEL
from analysis.measured import NotMeasured
from analysis.plots import legend_beside
from analysis.qlora_probe.of_training import FIRST, SECOND, make_axes
from analysis.qlora_probe.runs import Run
from qlora_probe.theory import Forgetting, measure_forgetting

_SHORT = 60  # characters of a text on the terminal
_MARKS = {True: "pass", False: "fail", None: "-"}
_MARKDOWN = re.compile(r"([\\`*_{}\[\]|~#$])")
_PAIRED = ("response", "pass", "matched", "margin", "answer_logprob", "n_tokens", "ended")


def paired_answers(run: Run) -> pl.DataFrame:
    """prompt_id, category, prompt; response, pass, matched, margin, ... of base and of tuned.

    A row per prompt in the order asked, columns <name>_base and <name>_tuned. Raises NotMeasured
    where not both have answered.
    """
    rows = run.table("generations")
    base, tuned = (rows.filter(phase=phase) for phase in ("base", "tuned"))
    if base.is_empty() or tuned.is_empty():
        raise NotMeasured(f"run {run.row['run_id']} has answers of one model only")
    names = ("adapter", *_PAIRED)
    sides = [
        side.select("prompt_id", *(pl.col(name).alias(f"{name}_{phase}") for name in names))
        for side, phase in ((base, "base"), (tuned, "tuned"))
    ]
    asked = base.select("prompt_id", "category", "prompt")
    for side in sides:
        asked = asked.join(side, on="prompt_id", maintain_order="left", validate="1:1")
    return asked


def forgetting_of(answers: pl.DataFrame) -> Forgetting:
    """Over the prompts with a check. Raises NotMeasured where there are none."""
    checked = answers.drop_nulls(["pass_base", "pass_tuned"])
    if checked.is_empty():
        raise NotMeasured("no prompt has a check")
    return measure_forgetting(*(checked[c] for c in ("category", "pass_base", "pass_tuned")))


def plot_forgetting(run: Run) -> list[Axes]:
    """Share of prompts passed before and after, by category, with the flips each way."""
    answers = paired_answers(run)
    whole = forgetting_of(answers)
    was, now = pl.col("pass_base"), pl.col("pass_tuned")
    shares = (
        answers.drop_nulls(["pass_base", "pass_tuned"])
        .group_by("category", maintain_order=True)
        .agg(
            n=pl.len(),
            before=was.mean(),
            after=now.mean(),
            lost=(was & ~now).sum(),
            gained=(~was & now).sum(),
        )
    )
    [ax] = axes = make_axes(run, 1)
    ax.figure.set_size_inches(8, 1.9 + 0.5 * len(shares))
    places = np.arange(len(shares))[::-1]
    ax.hlines(places, shares["before"], shares["after"], color="0.6", lw=2, zorder=1)
    ax.plot(shares["before"], places, "o", ms=10, color=FIRST, label="base")
    ax.plot(shares["after"], places, "o", ms=6, color=SECOND, label="tuned")
    for place, row in zip(places, shares.iter_rows(named=True), strict=True):
        flips = f"{row['lost']} lost, {row['gained']} gained"
        ax.text(1.06, place, flips, va="center", size="small")
    ax.set_yticks(places, [f"{c} (n = {n})" for c, n in shares.select("category", "n").rows()])
    ax.set(
        xlim=(-0.04, 1.34),
        ylim=(-0.6, len(shares) - 0.4),
        xlabel="share of prompts passed",
        ylabel="category (prompts)",
    )
    ax.set_xticks(np.linspace(0, 1, 6))
    ax.set_title(describe(whole), size="medium")
    legend_beside(ax, [])
    return axes


def describe(found: Forgetting) -> str:
    """'score 0.98 -> 0.73, change -0.25 (95 % interval over 80 prompts -0.32 to -0.18): ...'"""
    return (
        f"score {found.base_score:.2f} -> {found.tuned_score:.2f}, change {found.change:+.3f}\n"
        f"({100 * LEVEL:g} % interval over {found.n} prompts {found.change_low:+.2f} to "
        f"{found.change_high:+.2f}): {found.verdict}\n{found.lost} lost, {found.gained} gained, "
        f"one-sided sign test p = {found.p:.2g}"
    )


def write_generations(run: Run, path: Path) -> None:
    """The answers as a Markdown table in `path`, its folder made, and as .csv beside it."""
    answers = paired_answers(run)
    path.parent.mkdir(exist_ok=True)
    path.write_text(markdown(answers))
    answers.write_csv(path.with_suffix(".csv"))


def markdown(answers: pl.DataFrame) -> str:
    """A Markdown table: prompt, both answers, whether they pass, margin of the right answer."""
    base, tuned = answers["adapter_base"][0], answers["adapter_tuned"][0]
    header = ["prompt_id", "category", "prompt", base, tuned, "pass", "margin (nats per token)"]
    lines = [_line(map(_cell, header)), _line(["---"] * len(header))]
    for row in answers.iter_rows(named=True):
        marks = _change(_MARKS[row["pass_base"]], _MARKS[row["pass_tuned"]])
        margins = _change(*(_number(row[f"margin_{phase}"]) for phase in ("base", "tuned")))
        texts = ("prompt_id", "category", "prompt", "response_base", "response_tuned")
        lines.append(_line([*(_cell(row[name]) for name in texts), marks, margins]))
    return "\n".join(lines) + "\n"


def as_text(answers: pl.DataFrame) -> str:
    """For a terminal: the answers that no check judges or that changed their mark, shortened."""
    shown = answers.filter(
        pl.col("pass_base").is_null() | pl.col("pass_base").ne_missing(pl.col("pass_tuned"))
    )
    lines = [f"base: {answers['adapter_base'][0]}, tuned: {answers['adapter_tuned'][0]}"]
    for row in shown.iter_rows(named=True):
        lines.append(f"{row['prompt_id']}: {_shortened(row['prompt'])}")
        for phase in ("base", "tuned"):
            mark, response = _MARKS[row[f"pass_{phase}"]], _shortened(row[f"response_{phase}"])
            lines.append(f"  {phase:5}  {mark:4}  {response}")
    if same := len(answers) - len(shown):
        lines.append(f"{same} more prompts, whose marks are the same before and after")
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    """Text that a Markdown table shows as it is: signs escaped, line breaks <br>."""
    lines = [
        _MARKDOWN.sub(r"\\\1", html.escape(_visible(line), quote=False))
        for line in text.replace("\r\n", "\n").split("\n")
    ]
    return "<br>".join(lines)


def _visible(text: str) -> str:
    """Control characters as \\x07."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _shortened(text: str) -> str:
    text = _visible(text)
    return text if len(text) <= _SHORT else f"{text[: _SHORT - 3]}..."


def _change(before: str, after: str) -> str:
    return before if before == after == "-" else f"{before} -> {after}"


def _number(x: float | None) -> str:
    return "-" if x is None else f"{x:.2f}"
