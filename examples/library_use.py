"""Experiments from a script: one run, then a sweep into a store, and a figure of what it holds.

    python examples/library_use.py

Four seconds on one core; executed again it computes the single run alone. The store and the figure
are in outputs/library_use of the folder it is started in.
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # a file, no window

from analysis import load_sweep, over_seeds, plot_curves
from plugins import api

STORE = Path("outputs/library_use")


def main() -> int:
    # One run: computed here and stored nowhere. Names and overrides are those of the command line.
    one = api.run("diagonal_teacher", ["model.hidden_dim=10", "max_steps=500"])
    print(f"one run: {one.status}, final test loss {one.scalars['final_test_loss']:.4g}")

    # A sweep: two sizes of the initial weights, ten orders of the batches. Runs that fail are rows
    # of the store and counted; the others go on, and the same call tries them again.
    report = api.sweep(
        "gph",
        ["model.gamma=0.75,1.5", "training.batch_seed=0..10", "training.batch_size=5",
         "model.hidden_dim=20", "max_steps=6000"],
        output=STORE,
    )  # fmt: skip
    print(report.counts())
    if not report.complete:
        print(f"first error: {report.first_error}", file=sys.stderr)
        print(load_sweep(STORE, status=("failed",)).select("run_id", "error"), file=sys.stderr)
        return 1

    runs = load_sweep(STORE)  # polars: a row per run, curves as lists
    print(over_seeds(runs, "test_loss", by="model.gamma").curves.filter(step=6000))
    path = STORE / "test_loss.png"
    plot_curves(runs, y="test_loss", by="model.gamma").figure.savefig(path, dpi=150)
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
