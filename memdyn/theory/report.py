"""The report of a run: what a person reads first, in a terminal."""

from collections.abc import Iterable
from textwrap import wrap
from typing import Any

import numpy as np

from memdyn.theory import sections
from memdyn.theory.columns import Grid, grid, middle_layer
from memdyn.theory.layers import LayerPattern, analyze_layer_temporal_patterns
from memdyn.theory.onset import Onset, analyze_memorization_onset
from memdyn.theory.prediction import Prediction, predict_memorization
from memdyn.theory.shapes import Trajectory, analyze_u_shape_trajectory

WIDTH = 100
FEW_MEMORIZED = 0.05
MASSIVE = 0.1  # share of one token in tr Cov Y

SHAPES = {  # of a compression metric, higher = tighter
    "u_shaped": "the trained passages' states first spread, then tighten again",
    "inverted_u": "the trained passages' states first tighten, then spread again",
    "flat": "no fall or rise that is large enough to count",
    "monotone_decreasing": "the trained passages' states spread, without a turn",
    "monotone_increasing": "the trained passages' states tighten, without a turn",
    "unclear": "it changes, but neither one way only nor in a turn that is proven",
    "too_few": "not enough measured epochs to name a shape",
}
TRY = (
    "Fewer than 5 % are memorized, so the rest says little about memorization. Try fewer passages "
    "(data.n_passages), more epochs (schedule.epochs), or twice the learning rate (lr)."
)
DIVERGED = (
    "* The training diverged: its loss or its likelihood is not finite any more. What follows are "
    "the measured epochs, up to epoch {}. Try a smaller learning rate (lr)."
)
UNITS = (
    "All passages of a run share one model. The tests here say what differs between passages of "
    "this model; a claim about training needs at least 3 seeds, with the runs as units."
)


def generate_summary_report(
    data: Any,
    *,
    threshold: float = 0.6,
    alpha: float = 0.05,
    min_effect: float = 0.1,
    diverged: bool = False,
) -> str:
    """The answer, then a section per analysis, warnings last. Lines to 100 characters.

    Needs epoch, passage_id and accuracy; what else is missing, null or measured at too few epochs
    is said in its place. The layer shown is the middle one, the analyses of layers and prediction
    take nv_rel (nv where that was not measured). `diverged`: whether the training ended by that.
    ValueError as `columns.grid`.
    """
    table = grid(data)
    middle = middle_layer(table.layers)
    metrics = [name for name in ("nv", "nv_rel") if name in data]
    metric = metrics[-1] if metrics else None
    memorized = table.of_passage("accuracy") >= threshold
    shapes = {
        name: analyze_u_shape_trajectory(data, middle, name, alpha=alpha, min_effect=min_effect)
        for name in metrics
    }
    # Without a metric the onsets still stand; accuracy only takes the place of the scores.
    onset = analyze_memorization_onset(
        data,
        middle,
        metric or "accuracy",
        threshold=threshold,
        baseline_epoch=int(table.epochs[0]),
    )
    pattern = predictions = None
    if metric:
        pattern = analyze_layer_temporal_patterns(data, metric, alpha=alpha)
        predictions = [
            predict_memorization(data, int(epoch), metric, threshold=threshold)
            for epoch in table.epochs[:2]
        ]
    answer = list(_answer(table, memorized, shapes, onset, pattern, predictions))
    if diverged:  # of the rest nothing is worth a headline
        answer = [DIVERGED.format(table.epochs[-1]), answer[0]]
    contents = [
        ("MEMORIZATION AND COMPRESSION", [_what(table, threshold)]),
        ("ANSWER", answer),
        ("PROGRESS", sections.progress(table, memorized)),
        (f"COMPRESSION IN THE MIDDLE (layer {middle})", sections.trajectory(table, middle, shapes)),
        ("ONSET OF MEMORIZATION", sections.onset(onset, metric, middle, alpha)),
        (
            "LAYERS: TRAINED AGAINST NOVEL, CHANGE SINCE THE FIRST EPOCH",
            sections.layers(pattern, metric),
        ),
        ("LAYER THAT GOES BEST WITH ACCURACY", sections.best_layers(data, table, metric)),
        ("PREDICTION: WHO WILL BE MEMORIZED?", sections.prediction(predictions, metric)),
        ("WARNINGS", _warnings(data, table, memorized, shapes, onset)),
    ]
    lines = []
    for title, content in contents:
        lines += [title, *_indented(content), ""]
    return "\n".join(lines)


def _what(table: Grid, threshold: float) -> str:
    n, epochs = int(table.is_trained.sum()), table.epochs
    return (
        f"{len(epochs)} epochs measured ({epochs[0]} to {epochs[-1]}), {n} trained and "
        f"{len(table.passages) - n} novel passages, {len(table.layers)} layers. "
        f"Memorized: accuracy at least {threshold:g}."
    )


def _answer(
    table: Grid,
    memorized: np.ndarray,
    shapes: dict[str, Trajectory],
    onset: Onset,
    pattern: LayerPattern | None,
    predictions: list[Prediction] | None,
) -> Iterable[str]:
    trained = memorized[-1, table.is_trained]
    novel = memorized[-1, ~table.is_trained]
    yield (
        f"* Memorized at epoch {table.epochs[-1]}: {sections.share(trained)} trained passages, "
        f"{sections.share(novel)} novel ones. {sections.median_onset(onset)}"
    )
    if len(trained) and trained.mean() < FEW_MEMORIZED:
        yield f"* {TRY}"
    if not shapes:
        yield "* Compression was not measured (neither nv_rel nor nv)."
    for name, shape in reversed(shapes.items()):
        what = "relative to all states" if name == "nv_rel" else "absolute, scale included"
        yield f"* Compression in the middle, {name} ({what}): {_verdict(shape)}"
    if "nv_rel" in shapes:
        yield from _against_novel(shapes["nv_rel"])
    if len({shape.shape for shape in shapes.values()}) > 1:
        yield "* nv and nv_rel differ: the states' scale changes. Compression is what nv_rel says."
    if pattern:
        meaning = pattern.reason if pattern.pattern is None else sections.PATTERNS[pattern.pattern]
        yield f"* Layers: {pattern.pattern or 'undefined'}: {meaning}."
    if predictions:
        known = [one for one in predictions if one.gain is not None]
        yield f"* Prediction: {_gain(known[0]) if known else predictions[0].reason}."


def _verdict(shape: Trajectory) -> str:
    p = {"u_shaped": shape.p, "inverted_u": shape.p_inverted}.get(shape.shape)
    turn = "" if shape.turning_epoch is None else f", turns at epoch {shape.turning_epoch}"
    chance = "" if p is None else f" ({sections.p_equals(p)})"
    reason = f" [{shape.reason}]" if shape.reason else ""
    return f"{shape.shape}{chance}{turn}: {SHAPES[shape.shape]}.{reason}"


def _against_novel(shape: Trajectory) -> Iterable[str]:
    """What a shape is worth: novel passages that go the same way were not memorized."""
    if not len(shape.epochs) or np.isnan(shape.difference_low[-1]):
        return
    gap, low, high = (
        x[-1] for x in (shape.difference, shape.difference_low, shape.difference_high)
    )
    verdict = "they differ" if low > 0 or high < 0 else "no difference is shown"
    yield (
        f"* Trained minus novel passages, nv_rel in the middle at epoch {shape.epochs[-1]}: "
        f"{gap:+.3f} ({low:+.3f} to {high:+.3f}), {verdict}. A course that both share comes with "
        "training, not with memorization."
    )


def _gain(one: Prediction) -> str:
    verdict = "geometry adds to it" if one.gain_low > 0 else "no gain is shown"
    return (
        f"at epoch {one.epoch} the nll tells who is memorized at epoch {one.label_epoch} with "
        f"AUROC {one.auroc_nll:.2f}, with geometry {one.auroc_both:.2f}: gain {one.gain:+.2f} "
        f"({one.gain_low:+.2f} to {one.gain_high:+.2f}), {verdict}"
    )


def _warnings(
    data: Any, table: Grid, memorized: np.ndarray, shapes: dict[str, Trajectory], onset: Onset
) -> Iterable[str]:
    yield f"* {UNITS}"
    if "max_share" in data:
        largest = np.nan_to_num(table.by_layer("max_share")).max((1, 2))  # [L]
        massive = table.layers[largest > MASSIVE]
        if len(massive):
            yield (
                f"* In {len(massive)} of {len(largest)} layers (the first: {massive[0]}) a single "
                f"token holds up to {100 * largest.max():.0f} % of tr Cov Y (massive activations). "
                "There nv_rel, its scale part and pr follow such tokens; nv_contract and trained "
                "minus novel do not."
            )
    if table.epochs[0] != 0:
        yield f"* Epoch 0 was not measured: changes are those since epoch {table.epochs[0]}."
    for name in ("nv", "nv_rel", "nll"):
        if name not in data:
            continue
        x = table.of_passage(name) if name == "nll" else table.by_layer(name)
        if missing := int((~np.isfinite(x)).sum()):
            yield f"* {name}: {missing} of {x.size} values are missing or not finite."
    novel = memorized[-1, ~table.is_trained]
    if len(novel) and novel.mean() > FEW_MEMORIZED:
        yield f"* {sections.share(novel)} novel passages pass for memorized: threshold too low."
    if onset.n_already:
        yield f"* {onset.n_already} trained passages were memorized before the training."
    for name, shape in shapes.items():
        if len(shape.epochs) and (shape.difference_low[0] > 0 or shape.difference_high[0] < 0):
            yield (
                f"* {name} of trained and novel passages differs at epoch {shape.epochs[0]} "
                "already: look at changes, not at levels."
            )


def _indented(content: Iterable[str]) -> Iterable[str]:
    for line in content:
        if line.startswith(" ") or not line:
            yield line
        else:
            hang = "    " if line.startswith("* ") else "  "
            yield from wrap(line, WIDTH, initial_indent="  ", subsequent_indent=hang)
