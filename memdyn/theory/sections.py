"""The sections of the report below its answer: lines of text, and tables (lines with an indent)."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from memdyn.theory.columns import Grid, number
from memdyn.theory.layers import LayerPattern, layer_correlations
from memdyn.theory.onset import Onset
from memdyn.theory.prediction import Prediction
from memdyn.theory.shapes import Trajectory

PATTERNS = {
    "early_first": "trained and novel passages part in the lower layers first",
    "late_first": "trained and novel passages part in the upper layers first",
    "simultaneous": "lower and upper layers part at the same measured epoch",
    "early_only": "trained and novel passages part in the lower layers only",
    "late_only": "trained and novel passages part in the upper layers only",
    "no_differences": "in no layer do trained passages change lastingly unlike novel ones",
}


def progress(table: Grid, memorized: np.ndarray) -> Iterable[str]:
    """Memorized passages, accuracy and perplexity by epoch. memorized [E, N] bool."""
    accuracy = table.of_passage("accuracy")
    nll = table.of_passage("nll") if "nll" in table.data else np.full_like(accuracy, np.nan)
    header = [
        "epoch",
        "memorized",
        "rate",
        "novel rate",
        "accuracy",
        "novel",
        "perplexity",
        "novel",
    ]
    trained, novel = table.is_trained, ~table.is_trained
    rows = [
        [
            str(epoch),
            str(hit[trained].sum()),
            _number(_mean(hit[trained]), 2),
            _number(_mean(hit[novel]), 2),
            *(_number(_mean(right[group]), 3) for group in (trained, novel)),
            *(_number(_perplexity(loss[group]), 1) for group in (trained, novel)),
        ]
        for epoch, hit, right, loss in zip(table.epochs, memorized, accuracy, nll, strict=True)
    ]
    yield from _aligned(header, rows)
    yield "Perplexity: geometric mean over passages, that is exp(mean nll)."


def trajectory(table: Grid, middle: int, shapes: dict[str, Trajectory]) -> Iterable[str]:
    """Means of nv and nv_rel by epoch, what of them is scale, and the numbers behind the shapes."""
    if not shapes:
        yield "Not measured."
        return
    header, columns = ["epoch"], [[str(epoch) for epoch in table.epochs]]
    means = {
        name: [
            np.array([_mean(row[group]) for row in table.of_layer(name, middle)])
            for group in (table.is_trained, ~table.is_trained)
        ]
        for name in shapes
    }
    if len(means) == 2:
        scale = [absolute - relative for absolute, relative in zip(*means.values(), strict=True)]
        means["scale"] = [part - part[0] for part in scale]
    for name, (trained, novel) in means.items():
        header += [name, "novel"]
        columns += [[_number(x, 3) for x in part] for part in (trained, novel)]
    yield from _aligned(header, list(zip(*columns, strict=True)))
    if "scale" in means:
        yield (
            "Higher = tighter. scale = -Delta ln tr Cov Y since the first epoch: what nv gains and "
            "nv_rel does not; negative where the states grow."
        )
    yield ""
    header = ["", "shape", "p (U)", "p (inv.)", "fall", "rise", "counts from", "R2", "L-M p"]
    rows = [
        [
            name,
            shape.shape,
            *(p_value(p) for p in (shape.p, shape.p_inverted)),
            *(_number(x, 3) for x in (shape.fall, shape.rise, shape.min_change)),
            _number(shape.r_squared, 2),
            p_value(shape.lind_mehlum_p),
        ]
        for name, shape in shapes.items()
    ]
    yield from _aligned(header, rows)
    yield (
        "The shape is judged by the passages' own falls and rises. R2 and L-M p (Lind & Mehlum) "
        "are those of a fitted quadratic: small for a fall that levels off, too; they decide "
        "nothing."
    )


def onset(onset: Onset, metric: str | None, middle: int, alpha: float) -> Iterable[str]:
    """When passages become memorized, and whether the metric before training orders them."""
    unconfirmed = sum(not confirmed for _, _, confirmed in onset.onsets.values())
    yield (
        f"{onset.n_events} passages become memorized, {onset.n_censored} do not; "
        f"{onset.n_already} were at the first epoch already (left out here). {median_onset(onset)}"
    )
    if len(onset.times):
        shares = zip(onset.times, onset.survival, strict=True)
        yield "Not yet memorized after epoch: " + ", ".join(f"{t}: {s:.2f}" for t, s in shares)
    yield (
        "Kaplan-Meier, an onset taken at the first measured epoch that shows it; the true one lies "
        "after the epoch measured before."
    )
    if unconfirmed:
        yield f"{unconfirmed} onsets are unconfirmed: the run ends before the next measured epoch."
    if not metric:
        return
    if onset.concordance is None:
        yield f"Concordance with {metric}: undefined, {onset.reason}."
    else:
        side = "lower" if onset.concordance < 0.5 else "higher"
        verdict = f"{side} compression goes with earlier memorization"
        if onset.p >= alpha:
            verdict = "no relation is shown"
        yield (
            f"Concordance of {metric} (layer {middle}, first epoch) with early onset: "
            f"{onset.concordance:.2f} ({p_equals(onset.p)}; .5 = unrelated): {verdict}."
        )


def layers(pattern: LayerPattern | None, metric: str | None) -> Iterable[str]:
    """Where trained and novel passages part."""
    if not pattern:
        yield "Not measured."
        return
    if pattern.pattern:
        yield f"{pattern.pattern}: {PATTERNS[pattern.pattern]}."
    if pattern.reason:
        yield f"{pattern.reason}."
    if len(pattern.epochs):
        header = ["layer", "parts at epoch", "change", "g", "q"]
        last = zip(
            pattern.layers,
            pattern.emergence,
            *(x[:, -1] for x in (pattern.difference, pattern.g, pattern.q)),
            strict=True,
        )
        yield from _aligned(
            header,
            [
                [str(layer), str(start or "-"), _number(change, 3), _number(g, 2), p_value(q)]
                for layer, start, change, g, q in last
            ],
        )
        yield (
            f"change, g, q at epoch {pattern.epochs[-1]}: of {metric}, trained minus novel; g in "
            "SDs (Hedges); q false discovery rate over all layers and epochs."
        )


def best_layers(data: Any, table: Grid, metric: str | None) -> Iterable[str]:
    """The layer with the smallest p by epoch."""
    if not metric:
        yield "Not measured."
        return
    rows = []
    for epoch in table.epochs:
        found = layer_correlations(data, int(epoch), metric)
        if found.best_layer is None:
            rows.append([str(epoch), "-", "-", "-", "-"])
            continue
        i = list(found.layers).index(found.best_layer)
        rho, p, q = found.rho[i], found.p[i], found.q[i]
        rows.append([str(epoch), str(found.best_layer), _number(rho, 2), p_value(p), p_value(q)])
    yield from _aligned(["epoch", "layer", "rho", "p", "q"], rows)
    yield f"Spearman, {metric} and accuracy over trained passages; q: false discovery over layers."


def prediction(predictions: list[Prediction] | None, metric: str | None) -> Iterable[str]:
    """AUROC by epoch of the features."""
    if not predictions:
        yield "Not measured."
        return
    header = ["epoch", "memorized at", "n", "scores", "p", "nll", "p", "both", "gain", "95 %"]
    rows = []
    for one in predictions:
        if one.auroc_scores is None:
            yield f"From epoch {one.epoch}: undefined, {one.reason}."
            continue
        rows.append(
            [
                str(one.epoch),
                str(one.label_epoch),
                f"{one.n_memorized}/{one.n}",
                *(_number(one.auroc_scores, 2), p_value(one.p_scores)),
                *(_number(one.auroc_nll, 2), p_value(one.p_nll)),
                *(_number(x, 2) for x in (one.auroc_both, one.gain)),
                f"{_number(one.gain_low, 2)} to {_number(one.gain_high, 2)}",
            ]
        )
    if rows:
        yield from _aligned(header, rows)
        yield (
            f"AUROC, cross-validated: .5 = guessing. scores: {metric} of all layers; gain: what "
            "they add to the nll, the result to look at."
        )


def median_onset(onset: Onset) -> str:
    """In a sentence."""
    if onset.median is None:
        return "Median onset: none, fewer than half of the passages have one."
    return f"Median onset: epoch {onset.median}."


def share(hits: np.ndarray) -> str:
    """47 of 50 (94 %)"""
    return f"{hits.sum()} of {len(hits)} ({100 * hits.mean():.0f} %)" if len(hits) else "no"


def _mean(x: np.ndarray) -> float:
    x = x[np.isfinite(x)]
    return float(x.mean()) if len(x) else np.nan


def _perplexity(nll: np.ndarray) -> float:
    with np.errstate(over="ignore"):
        return float(np.exp(_mean(nll)))


def _number(x: float | None, digits: int) -> str:
    x = None if x is None else number(x)
    return "-" if x is None else f"{x:.{digits}f}" if abs(x) < 1e6 else f"{x:.2g}"


def p_value(p: float | None) -> str:
    """.0160, 0.22, <.0001; - where undefined."""
    if p is None or np.isnan(p):
        return "-"
    return "<.0001" if p < 1e-4 else f"{p:.4f}".removeprefix("0") if p < 0.1 else f"{p:.2f}"


def p_equals(p: float) -> str:
    """p = .0160, p < .0001"""
    return "p < .0001" if p < 1e-4 else f"p = {p_value(p)}"


def _aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table; its indent says that it is not to be wrapped."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    return [
        "  " + "  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True))
        for row in (header, *rows)
    ]
