"""The experiment `compressor/trm`: a recursion on codes beside what it has to beat."""

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from compressor.downstream import Change, downstream
from compressor.states import load_model
from compressor.trm_baselines import EQUAL_BLOCKS, equal_width, ridge, score
from compressor.trm_config import TrmConfig, states_config
from compressor.trm_data import Task, make_task
from compressor.trm_fit import Fit
from compressor.trm_net import BLOCKS, OnePass, Recursion, flops_of, n_params
from plugins.lm.checkpoints import Checkpoints
from plugins.lm.devices import resolve_device
from plugins.result import Curves, RunResult

SAVE_SECONDS = 20.0  # between checkpoints
WEIGHTS = "trm.pt"


@dataclass(frozen=True)
class Cost:
    """Parameters, and floating point operations for one token."""

    n_params: int
    flops: int  # of the prediction
    flops_train: int = 0  # of one update; of a pass with its gradient 3 x forward


def run(
    cfg: TrmConfig, workdir: Path, on_progress: Callable[[float], None] | None = None
) -> RunResult:
    """One run, resumed from the workdir's last checkpoint; on the CPU, with the same number of
    threads, it then ends with the numbers of an uninterrupted one, bit for bit.

    Columns of each method m (trm, mean, copy, ridge, one_pass, equal_flops): held-out r2_m, cos_m,
    n_params_m, flops_m, and flops_train_m of those that are trained by steps. one_pass is the
    recursion's own net and head, passed once; equal_flops is wider and deeper, of as many
    operations as the recursion: of an update, or of a prediction. All take as many updates, on as
    many sequences each. Tables: methods, and answers (of the recursion after each supervised step);
    file: trm.pt. Raises ValueError for states, a checkpoint or a file that do not fit, OSError for
    a model or a corpus that cannot be read.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    task = make_task(cfg, workdir.parent.parent)
    seconds_states = time.perf_counter() - start
    costs = make_costs(cfg, task)
    fits = make_fits(cfg, task)
    sha256 = task.sha256()
    _train(fits, Checkpoints(workdir, "update", "last", [sha256]), costs, on_progress)
    methods, answers, heldout = _scores(task, fits, costs)
    scalars: dict[str, Any] = {
        f"{what}_{row['method']}": row[what]
        for row in methods
        if row["split"] == "heldout"
        for what in ("r2", "cos", "n_params", "flops")
    }
    scalars |= {f"flops_train_{name}": costs[name].flops_train for name in fits}
    scalars |= {f"seconds_{name}": fit.seconds for name, fit in fits.items()}
    scalars |= {
        "k": task.k,
        "dim": task.compressor.dim,
        "n_updates": fits["trm"].step,
        "effective_layers": BLOCKS * (cfg.trm.n + 1) * cfg.trm.rounds * cfg.trm.n_sup,
        "n_sequences_train": task.n_train,
        "n_sequences_heldout": len(task.inputs) - task.n_train,
        "n_tokens_train": int(task.mask[: task.n_train].sum()),
        "n_tokens_heldout": int(task.mask[task.n_train :].sum()),
        "data_sha256": sha256,
        "seconds_states": seconds_states,
    }
    if task.states:
        scalars |= {"lm_sha256": task.states.lm_sha256, "corpus_sha256": task.states.corpus_sha256}
    if task.from_site:
        scalars["from_site"] = task.from_site
    if cfg.eval.downstream:
        scalars |= downstream_costs(cfg, task, heldout)
    weights = {
        "weights": fits["trm"].average.state_dict(),
        "config": asdict(cfg),
        "mean": task.mean,
        "scale": task.scale,
    }
    torch.save(weights, workdir / WEIGHTS)
    _report(methods)
    return RunResult(
        scalars=scalars,
        curves=_curves(fits),
        tables={"methods": _columns(methods), "answers": _columns(answers)},
        artifacts=[workdir / WEIGHTS],
        status="diverged" if any(fit.is_diverged for fit in fits.values()) else "ok",
    )


def make_costs(cfg: TrmConfig, task: Task) -> dict[str, Cost]:
    k, L, trm = task.k, task.length, cfg.trm
    net, head = flops_of(k, k, BLOCKS, L), 2 * k * k
    passes = (trm.n + 1) * trm.rounds  # of the net, in a supervised step
    with_gradient = trm.n + 1
    own = _size(k, k, BLOCKS)
    costs = {
        "trm": Cost(
            n_params=own,
            flops=trm.n_sup * (passes * net + head),
            flops_train=(passes + 2 * with_gradient) * net + 3 * head,
        ),
        "mean": Cost(k, 0),
        "copy": Cost(0, 0),
        "ridge": Cost(k * k + k, 2 * k * k),
        "one_pass": Cost(own, net + head, 3 * (net + head)),
    }
    width = _equal_width(cfg, costs["trm"], task)
    flops = flops_of(k, width, EQUAL_BLOCKS, L) + head
    return costs | {"equal_flops": Cost(_size(k, width, EQUAL_BLOCKS), flops, 3 * flops)}


def make_fits(cfg: TrmConfig, task: Task) -> dict[str, Fit]:
    """The nets at their initial weights, of train.seed each; the recursion's and one_pass's are
    equal."""
    k, trm, device = task.k, cfg.trm, resolve_device(cfg.device)
    width = _equal_width(cfg, make_costs(cfg, task)["trm"], task)
    batches = -(-task.n_train // cfg.train.batch) * cfg.train.max_epochs

    def fit(make: Callable[..., torch.nn.Module], *shape: int, n_sup: int = 1) -> Fit:
        net = make(k, *shape, torch.Generator().manual_seed(cfg.train.seed)).to(device)
        # Wider nets take smaller steps (Yang et al. 2022).
        lr = cfg.train.lr * (k / width if shape == (width, EQUAL_BLOCKS) else 1)
        n_updates = batches * trm.n_sup
        return Fit(net, task, cfg.train, lr=lr, n_sup=n_sup, n_updates=n_updates, ema=trm.ema)

    return {
        "trm": fit(Recursion, trm.n, trm.rounds, n_sup=trm.n_sup),
        "one_pass": fit(OnePass, k, BLOCKS),
        "equal_flops": fit(OnePass, width, EQUAL_BLOCKS),
    }


def downstream_costs(cfg: TrmConfig, task: Task, heldout: Mapping[str, Tensor]) -> dict[str, float]:
    """nll_m, kl_m, top1_agree_m of the language model whose states at lm.site are those of the
    codes that method m predicts, for held-out text; rec: of their own codes; nll_base: as it is."""
    lm, compressor, states = load_model(states_config(cfg)), task.compressor, task.states
    n, mask = task.n_train, task.mask[task.n_train :]
    changes = {
        name: _in_order(compressor.decompress(task.codes(predicted[mask])))
        for name, predicted in heldout.items()
    }
    changes["rec"] = _in_order(compressor(states.heldout))
    sequences = states.sequences
    found = downstream(lm, cfg.lm.site, sequences.ids[n:], sequences.keep[n:], changes)
    row = {"nll_base": found["base"]["nll"]}
    for name in changes:
        row |= {f"{what}_{name}": value for what, value in found[name].items()}
    return row


def _in_order(rows: Tensor) -> Change:
    """Puts the next of the rows [N, D] in the place of states, which come in order."""
    at = 0

    def change(states: Tensor) -> Tensor:
        nonlocal at
        at += len(states)
        return rows[at - len(states) : at].to(states)

    return change


def _train(
    fits: Mapping[str, Fit],
    checkpoints: Checkpoints,
    costs: Mapping[str, Cost],
    on_progress: Callable[[float], None] | None,
) -> None:
    if saved := checkpoints.load():
        for name, fit in fits.items():
            fit.load_state(saved[name])
        print(f"goes on after updates {[fit.step for fit in fits.values()]}", file=sys.stderr)
    work = sum(costs[name].flops_train for name in fits)
    last = time.perf_counter()

    def save() -> None:
        nonlocal last
        if time.perf_counter() - last >= SAVE_SECONDS:
            n = sum(fit.step for fit in fits.values())
            checkpoints.save(n, {name: fit.state() for name, fit in fits.items()})
            last = time.perf_counter()

    def progress(_of_this_net: float) -> None:
        if on_progress:
            done = (costs[name].flops_train * fit.step for name, fit in fits.items())
            on_progress(sum(done) / (work * fits["trm"].n_updates))

    for fit in fits.values():
        fit.run(save, progress)


Rows = list[dict[str, Any]]


def _scores(
    task: Task, fits: Mapping[str, Fit], costs: Mapping[str, Cost]
) -> tuple[Rows, Rows, dict[str, Tensor]]:
    """Rows of methods and of answers, and the held-out predictions of each method.

    `train` is as many of the train sequences as are held out.
    """
    n_heldout = len(task.inputs) - task.n_train
    splits = {"train": slice(0, min(n_heldout, task.n_train)), "heldout": slice(task.n_train, None)}
    closed = {
        "mean": torch.zeros_like(task.targets),
        "copy": task.copies,
        "ridge": ridge(task)[0],
    }
    methods, answers, predicted = [], [], {}
    for split, sequences in splits.items():
        predicted = {name: predictions[sequences] for name, predictions in closed.items()}
        for name, fit in fits.items():
            if fit.is_diverged:
                continue
            steps = fit.predictions(sequences)
            predicted[name] = steps[-1]
            if name == "trm" and split == "heldout":
                answers = [
                    {"after": i, **asdict(score(task, step, sequences))}
                    for i, step in enumerate(steps, start=1)
                ]
        for name, cost in costs.items():
            if name in predicted:
                found = score(task, predicted[name], sequences)
                row = {"method": name, "split": split, **asdict(found)}
                methods.append(row | {"n_params": cost.n_params, "flops": cost.flops})
    return methods, answers, predicted


def _report(methods: Rows) -> None:
    """R^2 beside the cosine, which is near 1 wherever codes are near their mean."""
    for row in methods:
        if row["split"] == "heldout":
            print(
                f"{row['method']:12} held-out R^2 {row['r2']:7.4f}  cos {row['cos']:.4f}  "
                f"{row['n_params']} parameters, {row['flops']} operations a token",
                file=sys.stderr,
            )


def _curves(fits: Mapping[str, Fit]) -> dict[str, list]:
    curves = Curves()
    for name, fit in fits.items():
        for step, point in fit.points.items():
            curves.log(step, {f"{what}_{name}": value for what, value in point.items()})
    return curves.as_dict()


def _columns(rows: Rows) -> dict[str, list]:
    return {name: [row[name] for row in rows] for name in rows[0]} if rows else {}


def _equal_width(cfg: TrmConfig, trm: Cost, task: Task) -> int:
    flops = trm.flops if cfg.train.equal_flops == "evaluation" else trm.flops_train / 3
    return equal_width(task.k, task.length, flops)


def _size(k: int, width: int, n_blocks: int) -> int:
    return n_params(OnePass(k, width, n_blocks, torch.Generator()))
