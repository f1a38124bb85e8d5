"""Frames as load_sweep returns them: varying keys, step, curves, scalars, bookkeeping."""

import math

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import polars as pl
import pytest

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def _no_open_figures():
    yield
    plt.close("all")


@pytest.fixture
def sweep() -> pl.DataFrame:
    """gamma 0.75, 1, 1.5 x five seeds on steps 0, 10, ..., 100; in gamma = 1.5

    seed 1 diverged after step 40, seed 2 failed, seed 3 has the grid 0, 20, ..., 80 (ended early),
    and seed 4 has nan at step 50. gamma = 2 has the one run seed 0.
    """
    generator = np.random.default_rng(0)
    rows = []
    for gamma, seed in [*((g, s) for g in (1.0, 0.75, 1.5) for s in range(5)), (2.0, 0)]:
        step = list(range(0, 101, 10))
        status = "ok"
        if (gamma, seed) == (1.5, 1):
            step, status = step[:5], "diverged"
        if (gamma, seed) == (1.5, 2):
            step, status = None, "failed"
        if (gamma, seed) == (1.5, 3):
            step = step[:9:2]
        loss = norm = spectrum = None
        if step:
            loss = [math.exp(-s / 20 + 0.1 * generator.normal()) for s in step]
            norm = [1 + s / 100 for s in step]
            spectrum = [[float(s), 1.0] for s in step]
        if (gamma, seed) == (1.5, 4):
            loss[5] = math.nan
        rows.append(
            {
                "model.gamma": gamma,
                "training.batch_seed": seed,
                "step": step,
                "test_loss": loss,
                "weight_norm": norm,
                "singular_values": spectrum,
                "final_test_loss": loss[-1] if loss else None,
                "run_id": f"{len(rows):016x}",
                "experiment": "test/train",
                "status": status,
                "error": "Traceback ...\nRuntimeError: no memory\n" if status == "failed" else None,
            }
        )
    lists = {"step": pl.List(pl.Int64), "test_loss": pl.List(pl.Float32)}
    return pl.DataFrame(rows).cast(lists)
