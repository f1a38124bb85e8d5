"""Synthetic rows of a run: what the analyses of memdyn read."""

import numpy as np

QUICK = (0, 1, 3, 5, 8, 10, 12, 15, 20)  # epochs


def long(values, accuracy=None, nll=None, epochs=QUICK, metric="nv_rel", n_trained=None):
    """Columns of values [L, E, N] and, where given, accuracy and nll [E, N].

    The first n_trained passages (by default half of them) are the trained ones.
    """
    L, _, N = values.shape
    layer, epoch, passage = np.meshgrid(np.arange(L), epochs, np.arange(N), indexing="ij")
    n_trained = N // 2 if n_trained is None else n_trained
    columns = {"layer": layer, "epoch": epoch, "passage_id": passage, metric: values}
    for name, column in (("accuracy", accuracy), ("nll", nll)):
        if column is not None:
            columns[name] = np.broadcast_to(column, values.shape)
    data = {name: column.ravel() for name, column in columns.items()}
    return data | {"group": np.where(passage < n_trained, "trained", "novel").ravel()}


def one_layer(values, epochs=QUICK, metric="nv_rel"):
    """Trained passages only, values [E, n], without the columns layer and group."""
    data = long(values[None], epochs=epochs, metric=metric)
    return {name: data[name] for name in ("epoch", "passage_id", metric)}


def run_of(n=30, n_layers=3, seed=0, epochs=QUICK):
    """n trained and n novel passages; trained ones spread in nv_rel and get memorized one by one.

    nv rises, since the scale shrinks. Passages with low nv_rel at the start memorize earlier.
    """
    rng = np.random.default_rng(seed)
    e = np.array(epochs, float)[:, None]
    is_trained = np.arange(2 * n) < n
    tightness = rng.normal(size=2 * n)
    half = 9 + 2 * tightness + rng.normal(size=2 * n)  # epoch of accuracy .5
    accuracy = np.where(is_trained, 1 / (1 + np.exp(half - e)), 0.02)
    nll = np.where(is_trained, 7 * np.exp(-e / 8), 7) + 0.3 * rng.normal(size=2 * n)
    shape = (n_layers, len(epochs), 2 * n)
    layer = np.arange(n_layers)[:, None, None]
    nv_rel = 0.3 * tightness + 0.1 * rng.normal(size=shape) - 0.02 * (1 + layer) * e * is_trained
    data = long(nv_rel, accuracy, nll, epochs)
    return data | {"nv": data["nv_rel"] + 0.1 * data["epoch"] - 3}
