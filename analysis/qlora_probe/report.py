"""What a store answers, in sentences: each number with what it is a mean of, and its interval."""

import math
import textwrap
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
from scipy.special import stdtrit

from analysis.curves import LEVEL, key_values, value_text, varying_keys
from analysis.measured import NotMeasured, parts_of, require
from analysis.qlora_probe.runs import LR, leading_keys
from qlora_probe.theory import rank_correlation

_FINAL = "final_eval_loss"
_WIDTH = 88
_MEANING = (
    f"+-: half of a {100 * LEVEL:g} % t interval of the mean over the n runs of a line; SD: "
    "their standard deviation; a to b: the least and the largest of them. Losses in nats per "
    "target token."
)


def report(runs: pl.DataFrame) -> str:
    """The answers that a frame of `runs_of` allows, and in one line each those it does not."""
    sections, missing = [], []
    for question, answer in QUESTIONS.items():
        try:
            lines = answer(runs)
        except NotMeasured as error:
            why = str(error)
            missing.append(f"{question} {why[0].upper()}{why[1:]}.")
        else:
            sections.append([question, *(f"  * {line}" for line in lines)])
    if missing:
        sections.append(["Not told by these runs", *(f"  * {line}" for line in missing)])
    sections.append([_MEANING])
    wrapped = [
        "\n".join(
            textwrap.fill(line, _WIDTH, subsequent_indent="    ", break_on_hyphens=False)
            for line in section
        )
        for section in sections
    ]
    return "\n\n".join(wrapped) + "\n"


def _how_it_ended(runs: pl.DataFrame) -> list[str]:
    counts = [(status, runs.filter(status=status)) for status in ("ok", "diverged", "failed")]
    lines = [", ".join(f"{len(part)} {status}" for status, part in counts) + f" of {len(runs)}."]
    for row in counts[1][1].iter_rows(named=True):
        lines.append(f"diverged: run {row['run_id']}, {_name(row, runs)}.")
    last_lines = counts[2][1]["error"].str.strip_chars().str.split("\n").list.last()
    lines += [f"failed, {n} runs: {text}" for text, n in last_lines.value_counts(sort=True).rows()]
    return lines


def _how_far_it_fell(runs: pl.DataFrame) -> list[str]:
    require(runs, "reduction")
    lines = []
    for name, part in _groups(runs):
        if not part["reduction"].count():
            lines.append(f"{name}: no run came to its end.")
            continue
        classes = part["reduction_class"].drop_nulls().value_counts(sort=True).rows()
        lines.append(
            f"{name}: {_mean(part, 'initial_eval_loss')} before, {_mean(part, _FINAL)} after: a "
            f"fall of {_mean(part, 'reduction', percent=True)} "
            f"({', '.join(f'{word} in {n}' for word, n in classes)})."
        )
    for name, text in (
        ("overfit", "Overfit (held-out loss above 1.1 times the training loss of the last fifth)"),
        ("plateau", "Plateau (training loss of the last fifth flat within 1 %)"),
    ):
        if name in runs.columns and (known := runs[name].drop_nulls()).len():
            lines.append(f"{text}: {known.sum()} of {len(known)} runs.")
    return lines


def _which_lr(runs: pl.DataFrame) -> list[str]:
    require(runs, _FINAL)
    if LR not in runs.columns or runs[LR].n_unique() < 2:
        raise NotMeasured(f"the runs have one value of {LR}")
    lines = []
    for keys, part in parts_of(runs, leading_keys(runs, without=[LR])):
        found = {
            values[LR]: own.drop_nulls(_FINAL)
            for values, own in parts_of(part, [LR])
            if own[_FINAL].count()
        }
        ranking = sorted(found, key=lambda lr: found[lr][_FINAL].mean())
        of = f"{key_values(keys)}: " if keys else ""
        if len(ranking) < 2:
            lines.append(f"{of}one learning rate came to an end.")
            continue
        best, second = ranking[:2]
        lines.append(
            f"{of}{LR} = {value_text(best)} ends lowest, at {_mean(found[best], _FINAL)}; "
            f"the runner-up {value_text(second)} at {_mean(found[second], _FINAL)}. "
            f"{_difference(found[second], found[best], 'The runner-up minus the best')}"
        )
        if best in (min(found), max(found)):
            side = "largest" if best == max(found) else "smallest"
            lines.append(
                f"{of}{value_text(best)} is the {side} tried: a better one may lie beyond."
            )
    return lines


def _did_rank_matter(runs: pl.DataFrame) -> list[str]:
    require(runs, _FINAL)
    rank, policy = "lora_rank", "lora.alpha_policy"
    if runs[rank].drop_nulls().n_unique() < 2:
        raise NotMeasured("the runs have one rank")
    lines = []
    for keys, part in parts_of(runs, leading_keys(runs, without=[rank, "lora.r"])):
        finished = part.drop_nulls([_FINAL, rank])
        found = {values[rank]: own for values, own in parts_of(finished, [rank])}
        if len(found) < 2:
            continue
        low, high = min(found), max(found)
        of = f"{key_values(keys)}: " if keys else ""
        line = (
            f"{of}final loss {_mean(found[low], _FINAL)} at r = {low}, "
            f"{_mean(found[high], _FINAL)} at r = {high}. "
            f"{_difference(found[low], found[high], f'r = {low} minus r = {high}')}"
        )
        known = "first_update_norm" in part.columns
        norms = [found[r]["first_update_norm"].mean() if known else None for r in (low, high)]
        if all(norms):
            times = norms[1] / norms[0]
            line += f" The first update is {times:.2g} times as large at r = {high}."
        lines.append(line)
    if policy in runs.columns:
        lines.append("Ranks under different rules for alpha differ in their scale, too.")
    return lines


def _what_was_forgotten(runs: pl.DataFrame) -> list[str]:
    require(runs, "forgetting_change")
    lines = []
    for name, part in _groups(runs):
        own = part.drop_nulls("forgetting_change")
        if own.is_empty():
            continue
        verdicts = own["forgetting_verdict"].value_counts(sort=True).rows()
        change = f"change {_mean(own, 'forgetting_change', sign=True)}"
        if len(own) == 1:
            row = own.row(0, named=True)
            low, high = row["forgetting_change_low"], row["forgetting_change_high"]
            change += f" ({100 * LEVEL:g} % interval over prompts {low:+.2f} to {high:+.2f})"
        n, lost, gained, p = (_span(own[f"forgetting_{c}"]) for c in ("n", "lost", "gained", "p"))
        lines.append(
            f"{name}: {change} of the score on {n} prompts, forgetting "
            f"{', '.join(f'{word} in {k}' if len(own) > 1 else word for word, k in verdicts)}; "
            f"{lost} lost, {gained} gained, one-sided sign test p = {p}."
        )
    return lines


def _how_sharp(runs: pl.DataFrame) -> list[str]:
    require(runs, "sharpness")
    lines = []
    for curve, limit, text in (
        ("sharpness", "limit_gd", "2 / lr, the limit of gradient descent (sgd)"),
        (
            "sharpness_preconditioned",
            "limit_adam",
            "38 / lr, the limit of Adam (preconditioned Hessian)",
        ),
    ):
        if curve not in runs.columns:
            continue
        for name, part in _groups(runs):
            pairs = part.select(curve, limit).drop_nulls().explode(curve, limit).to_numpy()
            pairs = pairs[np.isfinite(pairs).all(1)]
            if len(pairs):
                above = int((pairs[:, 0] > pairs[:, 1]).sum())
                ratio = (pairs[:, 0] / pairs[:, 1]).max()
                lines.append(
                    f"{name}: above {text}, in {above} of {len(pairs)} measurements; "
                    f"at most {ratio:.2g} times it."
                )
    return lines + _sharpness_and_gap(runs)


def _sharpness_and_gap(runs: pl.DataFrame) -> list[str]:
    """Rank correlation of the last sharpness with held-out minus training loss at the end."""
    sharpness, gap = [], []
    for row in runs.drop_nulls(["sharpness", _FINAL]).iter_rows(named=True):
        values, losses = (np.asarray(row[c], float) for c in ("sharpness", "train_loss"))
        losses = losses[np.isfinite(losses)]
        sharpness.append(values[np.isfinite(values)][-1])
        gap.append(row[_FINAL] - losses[-max(1, len(losses) // 5) :].mean())
    found = rank_correlation(sharpness, gap)
    if found.rho is None:
        return []
    return [
        f"With the held-out minus training loss at the end, last sharpness has the rank "
        f"correlation {found.rho:.2f} (p = {found.p:.2g}, {found.n} runs)."
    ]


def _how_much_clipped(runs: pl.DataFrame) -> list[str]:
    require(runs, "clip_fraction")
    return [
        f"{name}: {_mean(part, 'clip_fraction', percent=True)} of the updates measured."
        for name, part in _groups(runs)
        if part["clip_fraction"].count()
    ]


def _is_the_batch_large(runs: pl.DataFrame) -> list[str]:
    require(runs, "noise_scale")
    lines = []
    for name, part in _groups(runs):
        if part["noise_scale"].count():
            scale, batch = part["noise_scale"].mean(), part["noise_batch"].mean()
            what = "noise" if scale > batch else "signal"
            lines.append(
                f"{name}: noise scale {_mean(part, 'noise_scale')}, batch "
                f"{_span(part['noise_batch'].drop_nulls())} sequences: mostly {what}."
            )
    return lines


QUESTIONS: dict[str, Callable[[pl.DataFrame], list[str]]] = {
    "How did the runs end?": _how_it_ended,
    "Did the held-out loss fall?": _how_far_it_fell,
    "Which learning rate was best?": _which_lr,
    "Did the rank matter?": _did_rank_matter,
    "What was forgotten?": _what_was_forgotten,
    "How sharp was the loss?": _how_sharp,
    "How many updates were clipped?": _how_much_clipped,
    "Was the batch large against the gradient's noise?": _is_the_batch_large,
}


def _groups(runs: pl.DataFrame) -> list[tuple[str, pl.DataFrame]]:
    """The runs that ended and agree in the leading keys: 'optim.lr = 0.001 (n = 3)'."""
    ended = runs.filter(pl.col("status") != "failed")
    found = parts_of(ended, leading_keys(runs))
    return [(f"{key_values(keys) or 'all runs'} (n = {len(part)})", part) for keys, part in found]


def _name(row: dict[str, Any], runs: pl.DataFrame) -> str:
    return key_values({key: row[key] for key in varying_keys(runs)}) or "the only one"


def _span(values: pl.Series) -> str:
    low, high = (
        f"{x:.2g}" if isinstance(x, float) else str(x) for x in (values.min(), values.max())
    )
    return low if low == high else f"{low} to {high}"


def _mean(runs: pl.DataFrame, column: str, *, percent: bool = False, sign: bool = False) -> str:
    """'4.94 +- 0.08 (SD 0.03)'; the value alone of one run or of equal ones.

    Over the runs that have it, at least one; ' of 2' where not all of them do.
    """
    values = runs[column].drop_nulls().cast(pl.Float64) * (100 if percent else 1)
    unit = (" %" if percent else "") + (f" of {len(values)}" if len(values) < len(runs) else "")
    text = f"{values.mean():{'+' if sign else ''}.3g}"
    if values.n_unique() == 1:
        return text + unit
    sd, n = values.std(), len(values)
    half = stdtrit(n - 1, (1 + LEVEL) / 2) * sd / math.sqrt(n)
    return f"{text} +- {half:.2g}{unit} (SD {sd:.2g})"


def _difference(a: pl.DataFrame, b: pl.DataFrame, name: str) -> str:
    """A sentence on the final losses of a minus b, seed by seed where both have the same."""
    d = a[_FINAL].mean() - b[_FINAL].mean()
    if "seed" not in a.columns or min(len(a), len(b)) < 2:
        return f"{name}: {d:.3g}; not two runs of each, so the spread of seeds is unknown."
    if any(side["seed"].n_unique() < len(side) for side in (a, b)):
        return f"{name}: {d:.3g}; runs of one seed differ in other keys, so no interval."
    pairs = a.select("seed", first=_FINAL).join(b.select("seed", second=_FINAL), on="seed")
    differences = (pairs["first"] - pairs["second"]).to_numpy()
    n = len(differences)
    if n < 2:
        return f"{name}: {d:.3g}; no two seeds in common."
    d = differences.mean()
    half = stdtrit(n - 1, (1 + LEVEL) / 2) * differences.std(ddof=1) / math.sqrt(n)
    low, high = d - half, d + half
    told = "told apart" if low > 0 or high < 0 else "not told apart"
    return (
        f"{name}: {d:.3g}, {100 * LEVEL:g} % t interval over {n} seeds {low:.3g} to "
        f"{high:.3g}: {told}."
    )
