"""What a store answers: tables of the final numbers, and sentences on what they say."""

import math
import textwrap
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import polars as pl
from scipy.special import stdtrit

from analysis.compressor.methods import METHODS
from analysis.compressor.over_runs import prefixes_and_separate
from analysis.compressor.runs import TRM, Store, keys_of, keys_of_predictors
from analysis.curves import LEVEL, key_values, value_text
from analysis.measured import NotMeasured, is_measured, parts_of, require
from analysis.text_tables import text_table
from compressor.theory import EXPECTED_COSINE

TARGET = 0.95  # cosine
_WIDTH = 88
_MEANING = (
    f"Means over the n runs of a line; +-: half of a {100 * LEVEL:g} % t interval of the mean. "
    "Numbers of the held-out split where no other is named; losses and divergences in nats per "
    "token. published: estimates by D/D' that were never measured."
)
Columns = Mapping[str, tuple[str, str]]  # header -> column of the rows, format
_RECONSTRUCTION: Columns = {
    "cos": ("cos_heldout", ".4f"),
    "of PCA": ("cos_pca_heldout", ".4f"),
    "centred": ("cos_centered_heldout", ".4f"),
    "mean only": ("cos_mean_only_heldout", ".4f"),
    "rel error": ("rel_error_heldout", ".4f"),
    "of PCA ": ("rel_pca_heldout", ".4f"),
}
_ERROR: Columns = {
    "var ratio": ("variance_ratio_heldout", ".3f"),
    "total": ("variance_ratio_total_heldout", ".3f"),
    "mse": ("mse_heldout", ".4g"),
    "heldout/train": ("_mse_ratio", ".3f"),
    "gap train": ("gap_pca_train", ".2%"),
    "gap heldout": ("gap_pca_heldout", ".2%"),
}
_COST: Columns = {
    "nll": ("nll_rec", ".3f"),
    "of PCA": ("nll_pca", ".3f"),
    "random": ("nll_random", ".3f"),
    "KL": ("kl", ".3g"),
    "of PCA ": ("kl_pca", ".3g"),
    "random ": ("kl_random", ".3g"),
    "top-1": ("top1_agree", ".1%"),
    " of PCA": ("top1_agree_pca", ".1%"),
    " random": ("top1_agree_random", ".1%"),
}


def report(store: Store) -> str:
    """The answers that the runs of a store allow, and in one line each those they do not."""
    sections, missing = [], []
    for question, answer in QUESTIONS.items():
        try:
            lines = answer(store)
        except NotMeasured as error:
            why = str(error)
            missing.append(f"{question} {why[0].upper()}{why[1:]}.")
        else:
            sections.append([question, *lines])
    if missing:
        sections.append(["Not told by these runs", *missing])
    sections.append([_MEANING])
    return "\n\n".join("\n".join(_wrapped(section)).rstrip() for section in sections) + "\n"


def _wrapped(section: list[str]) -> Iterator[str]:
    """The question, its sentences as bullets in the width; tables as they are."""
    first, *lines = section
    yield textwrap.fill(first, _WIDTH)
    for line in lines:
        whole = {"initial_indent": "  * ", "subsequent_indent": "    ", "break_on_hyphens": False}
        yield line if "\n" in line else textwrap.fill(line, _WIDTH, **whole)


def _how_it_ended(store: Store) -> list[str]:
    lines = []
    for values, rows in parts_of(store.rows, ["experiment"]):
        counts = [f"{len(rows.filter(status=s))} {s}" for s in ("ok", "diverged", "failed")]
        lines.append(f"{values['experiment']}: {', '.join(counts)} of {len(rows)}.")
    errors = store.rows.filter(status="failed")["error"].str.strip_chars()
    for text, n in errors.str.split("\n").list.last().value_counts(sort=True).rows():
        lines.append(f"failed, {n} runs: {text}")
    return lines


def _how_well_reconstructed(store: Store) -> list[str]:
    runs = store.finals()
    require(runs, "cos_heldout", "mse_train")
    runs = runs.with_columns(_mse_ratio=pl.col("mse_heldout") / pl.col("mse_train"))
    lines = []
    for name, part in _lines_of(runs):
        lines += [_table(name, part, _RECONSTRUCTION, published=True), _table("", part, _ERROR)]
    return lines


def _what_it_costs(store: Store) -> list[str]:
    runs = store.finals()
    require(runs, "kl", "nll_rec")
    lines = []
    for name, part in _lines_of(runs.filter(pl.col("kl").is_not_null())):
        base = _mean(part, "nll_base", ".3f")
        head = f"nll of the language model itself: {base}"
        lines.append(_table(f"{name}; {head}" if name else head, part, _COST))
    return lines


def _which_size(store: Store) -> list[str]:
    runs = store.finals()
    require(runs, "cos_heldout")
    lines = []
    for name, part in _lines_of(runs):
        of = f"{name}: " if name else ""
        good = [
            (values["k"], own)
            for values, own in parts_of(part, ["k"])
            if own["cos_heldout"].mean() > TARGET
        ]
        if not good:
            best = part.group_by("k").agg(pl.col("cos_heldout").mean()).sort("cos_heldout")
            k, cos = best.select("k", "cos_heldout").row(-1)
            lines.append(f"{of}No D' has a cosine above {TARGET:g}; D' = {k} comes to {cos:.3f}.")
            continue
        k, own = good[0]
        line = f"{of}The smallest D' with a cosine above {TARGET:g} is {k} ({_ratio(own)}), at "
        line += _mean(own, "cos_heldout", ".4f")
        if is_measured(own, "cos_mean_only_heldout"):
            alone = _mean(own, "cos_mean_only_heldout", ".4f")
            line += f"; the mean state alone, which tells nothing of a token, has {alone}"
        if is_measured(own, "kl"):
            line += (
                f". It still costs {_mean(own, 'delta_nll', '.3f')} nats per token, a KL "
                f"divergence of {_mean(own, 'kl', '.3g')} nats, and changes the first choice of "
                f"{1 - own['top1_agree'].mean():.1%} of the tokens"
            )
        lines.append(f"{line}.")
    return lines


def _does_training_beat_pca(store: Store) -> list[str]:
    runs = store.finals()
    require(runs, "gap_pca_train", "gap_pca_heldout")
    train, heldout = (runs[f"gap_pca_{s}"].drop_nulls() for s in ("train", "heldout"))
    n_below = (heldout < 0).sum()
    n_missing = len(runs) - len(train)
    left_out = f" (of {n_missing} more PCA has no error)" if n_missing else ""
    return [
        "On the states that it is trained on it cannot: PCA is the optimum (Eckart & Young 1936).",
        f"Mean squared error there: {train.min():.3%} to {train.max():.3%} above PCA's (n = "
        f"{len(train)}){left_out}.",
        f"Held-out: {heldout.min():+.3%} to {heldout.max():+.3%}; below that of the train split's "
        f"PCA in {n_below} of {len(heldout)} runs.",
    ]


def _do_the_estimates_hold(store: Store) -> list[str]:
    runs = store.finals()
    require(runs, "cos_pca_heldout")
    lines = []
    for name, part in _lines_of(runs):
        for values, own in parts_of(part, ["k"]):
            cos = EXPECTED_COSINE.get(own["dim"][0] / values["k"])
            if cos is not None:
                trained, pca = (_mean(own, f"{c}_heldout", ".4f") for c in ("cos", "cos_pca"))
                of = f"{name}: " if name else ""
                lines.append(f"{of}{_ratio(own)}: {trained} ({pca} by PCA), published {cos:.2f}.")
    if not lines:
        known = ", ".join(f"{ratio}x" for ratio in EXPECTED_COSINE)
        raise NotMeasured(f"no run has one of their ratios, {known}")
    return lines


def _does_nested_lag(store: Store) -> list[str]:
    runs = prefixes_and_separate(store)
    lines = []
    for values, part in parts_of(runs, ["W", *keys_of(runs, "W", "model.nested"), "k"]):
        if is_measured(part, "gap_pca_train"):
            gaps = [_mean(part, f"gap_pca_{split}", ".2%") for split in ("train", "heldout")]
            name = f"{_with_rank(values)} (n = {len(part)})"
            lines.append(f"{name}: gap {gaps[0]} on train, {gaps[1]} held-out.")
    return lines


def _what_was_forgotten(store: Store) -> list[str]:
    runs = store.finals()
    require(runs, "forget_1a")
    return [
        f"{_with_rank(values)} (n = {len(part)}): error on the held-out states of stage 1a "
        f"{_mean(part, 'mse_1a_before', '.4g')} before, {_mean(part, 'mse_1a_after', '.4g')} "
        f"after ({part['forget_1a'].mean():+.1%}); gap on the states of 1b "
        f"{_mean(part, 'gap_pca_heldout', '.2%')}."
        for values, part in parts_of(
            runs.filter(pl.col("forget_1a").is_not_null()), [*keys_of(runs), "k"]
        )
    ]


def _does_recursion_help(store: Store) -> list[str]:
    runs = store.finals(TRM)
    require(runs, "r2_trm", "r2_ridge")
    sizes = store.table("methods")
    lines = []
    for values, part in parts_of(runs, keys_of_predictors(runs)):
        table = []
        for method, label in METHODS.items():
            if not is_measured(part, f"r2_{method}"):
                continue
            ids = part["run_id"].implode()
            size = sizes.filter(pl.col("run_id").is_in(ids), method=method)
            row = {"method": label.replace("\n", " "), "n": str(len(part))}
            row |= {c: _mean(part, f"{c}_{method}", ".4f") for c in ("r2", "cos")}
            row |= {"parameters": f"{size['n_params'].mean():.4g}"}
            row |= {"FLOPs": f"{size['flops'].mean():.4g}"}
            trained = f"flops_train_{method}"
            row |= {"in training": _mean(part, trained, ".4g") if trained in part.columns else "-"}
            table.append(row)
        lines.append(("\n" if lines else "") + _text(key_values(values), table))
        best = max(table[:-1], key=lambda row: float(row["r2"].split(" ")[0]))
        trm = part["r2_trm"].mean()
        lines.append(
            f"R^2 of the recursive predictor {trm:.3f}; the best baseline, {best['method']}, has "
            f"{best['r2']}. A cosine alone tells little: that of the mean stands beside it."
        )
    return lines


QUESTIONS: dict[str, Callable[[Store], list[str]]] = {
    "How did the runs end?": _how_it_ended,
    "How well are the states reconstructed?": _how_well_reconstructed,
    "What does that cost the language model?": _what_it_costs,
    "Which D' is enough?": _which_size,
    "Does training beat PCA?": _does_training_beat_pca,
    "Do the published estimates of the cosine hold?": _do_the_estimates_hold,
    "Do nested prefixes lag behind?": _does_nested_lag,
    "What did stage 1b forget?": _what_was_forgotten,
    "Does recursion predict better than its baselines?": _does_recursion_help,
}


def _lines_of(runs: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    """What a line of a figure is drawn of, by its name; '' where there is one."""
    for values, part in parts_of(runs, keys_of(runs)):
        yield key_values(values), part


def _with_rank(values: Mapping[str, Any]) -> str:
    """'D' = 16, train.lr = 0.01' of keys with k."""
    return key_values({"D'": values["k"]} | {key: v for key, v in values.items() if key != "k"})


def _table(title: str, runs: pl.DataFrame, columns: Columns, published: bool = False) -> str:
    rows = []
    for values, part in parts_of(runs, ["k"]):
        row = {"D' (D/D')": f"{values['k']} ({_ratio(part)})", "n": str(len(part))}
        for header, (column, form) in columns.items():
            row[header] = _mean(part, column, form) if is_measured(part, column) else "-"
        if published:
            cos = EXPECTED_COSINE.get(part["dim"][0] / values["k"])
            row["published"] = "-" if cos is None else f"{cos:.2f}"
        rows.append(row)
    return _text(title, rows)


def _text(title: str, rows: list[dict[str, str]]) -> str:
    """A table whose lines are wrapped by nobody."""
    return (f"    {title}\n" if title else "") + text_table(rows, indent="    ")


def _ratio(runs: pl.DataFrame) -> str:
    """'12x', of the first of runs of one D'."""
    return f"{value_text(runs['dim'][0] / runs['k'][0], 3)}x"


def _mean(runs: pl.DataFrame, column: str, form: str) -> str:
    """'0.958 +- 0.002'; the value alone of one run or of equal ones."""
    values = runs[column].drop_nulls().cast(pl.Float64)
    if values.n_unique() <= 1:
        return f"{values[0]:{form}}" if len(values) else "-"
    n = len(values)
    half = stdtrit(n - 1, (1 + LEVEL) / 2) * values.std() / math.sqrt(n)
    around = f"{100 * half:.3g}%" if form.endswith("%") else f"{half:.2g}"
    return f"{values.mean():{form}} +- {around}"
