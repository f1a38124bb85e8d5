"""Ways to keep results and to load them into a frame: the contenders of benchmarks/framework.py."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import h5py  # noqa: F401  signac would import it at the first use, inside a measurement
import numpy as np
import orjson
import polars as pl
import signac

from plugins.config_files import ConfigFile, write_config
from plugins.fold import compact
from plugins.load import scan_sweep
from plugins.result import RunResult
from plugins.store import SweepWriter

POINTS = 250  # of a curve
KEYS = ("seed", "lr", "gamma")
SCALARS = ("final_loss", "best_loss", "mean_loss")
CURVE = "loss"


class Results:
    """n runs: three keys, three scalars, a noisy decay of POINTS float32 and its steps."""

    def __init__(self, n: int):
        rng = np.random.default_rng(0)
        rate = rng.uniform(0.005, 0.05, (n, 1))
        noise = rng.random((n, POINTS), dtype=np.float32)
        self.steps = np.arange(POINTS)
        self.loss = (np.exp(-rate * self.steps) * (1 + 0.1 * noise)).astype(np.float32)
        columns = self.loss[:, -1], self.loss.min(1), self.loss.mean(1, dtype=np.float64)
        self.scalars = dict(zip(SCALARS, (c.astype(np.float64) for c in columns), strict=True))
        self.keys = {
            "seed": np.arange(n),
            "lr": 0.1 / (1 + np.arange(n) % 10),
            "gamma": 0.75 + 0.25 * (np.arange(n) % 4),
        }

    def __iter__(self) -> Iterator[tuple[dict, dict, np.ndarray]]:
        """(keys, scalars, loss) of each run."""
        for *values, loss in zip(
            *(column.tolist() for column in (*self.keys.values(), *self.scalars.values())),
            self.loss,
            strict=True,
        ):
            yield (
                dict(zip(KEYS, values[: len(KEYS)], strict=True)),
                dict(zip(SCALARS, values[len(KEYS) :], strict=True)),
                loss,
            )

    def check(self, frame: pl.DataFrame) -> None:
        frame = frame.sort("seed")
        for name in frame.columns:
            if name == CURVE:
                found = frame[name].explode().to_numpy().reshape(-1, POINTS)
                np.testing.assert_array_equal(found, self.loss)
            else:
                found = frame[name].to_numpy()
                np.testing.assert_array_equal(found, (self.keys | self.scalars)[name])


@dataclass(frozen=True)
class Keeper:
    """A way to keep results."""

    name: str
    write: Callable[[Path, Results], None]
    load: Callable[[Path, Sequence[str]], pl.DataFrame]  # these columns of all runs
    most: int | None = None  # runs within the time of this benchmark


def write_store(folder: Path, results: Results) -> None:
    """Ours, as a unit of a sweep writes it and the sweep compacts it; alone in its fsyncs."""
    file = ConfigFile({"experiment": "toy/trivial"}, KEYS, 1)
    write_config(folder, file)
    constants = {"experiment": "toy/trivial", "host": "h", "job": None, "code": None}
    with SweepWriter(folder, "plan", {**constants, "versions": "{}"}) as writer:
        for i, (keys, scalars, loss) in enumerate(results):
            now = datetime.now(UTC)
            result = RunResult(scalars, {"step": results.steps, CURVE: loss})
            writer.append(i, f"{i:016x}", file.config_id, keys, result, now, now, 0.1)
    compact(folder)


def load_store(folder: Path, columns: Sequence[str]) -> pl.DataFrame:
    return scan_sweep(folder).select(columns).collect()


def write_signac(folder: Path, results: Results) -> None:
    """As its documentation says: keys in the state point, small values in the document, arrays in
    the HDF5 store, which is opened once; then the cache that makes reading a large project faster.
    """
    project = signac.init_project(str(folder))
    for keys, scalars, loss in results:
        job = project.open_job(keys).init()
        job.doc.update(scalars)
        with job.data:
            job.data["step"] = results.steps
            job.data[CURVE] = loss
    project.update_cache()


def load_signac(folder: Path, columns: Sequence[str]) -> pl.DataFrame:
    found = []
    for job in signac.get_project(str(folder)):
        if CURVE in columns:
            with job.data.open(mode="r"):
                found.append({**job.cached_statepoint, CURVE: job.data[CURVE][:]})
        else:
            found.append({**job.cached_statepoint, **job.doc()})
    return pl.DataFrame(found)


def write_json(folder: Path, results: Results) -> None:
    """A file per run, by the standard library."""
    for i, (keys, scalars, loss) in enumerate(results):
        with open(folder / f"{i}.json", "w") as file:
            curves = {"step": results.steps.tolist(), CURVE: loss.tolist()}
            json.dump({**keys, **scalars, **curves}, file)


def write_orjson(folder: Path, results: Results) -> None:
    """A file per run, by the fastest JSON library."""
    for i, (keys, scalars, loss) in enumerate(results):
        row = {**keys, **scalars, "step": results.steps, CURVE: loss}
        (folder / f"{i}.json").write_bytes(orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY))


def load_json(parse: Callable[[bytes], dict], folder: Path, columns: Sequence[str]) -> pl.DataFrame:
    found = []
    for file in folder.glob("*.json"):
        row = parse(file.read_bytes())
        found.append([row[column] for column in columns])
    # By columns, and with the curve's type: by rows polars takes three times as long.
    types = {CURVE: pl.List(pl.Float32)} if CURVE in columns else None
    data = dict(zip(columns, map(list, zip(*found, strict=True)), strict=True))
    return pl.DataFrame(data, schema_overrides=types)


KEEPERS = (
    Keeper("ours", write_store, load_store),
    Keeper("signac", write_signac, load_signac, most=20_000),
    Keeper("JSON files, json", write_json, partial(load_json, json.loads)),
    Keeper("JSON files, orjson", write_orjson, partial(load_json, orjson.loads)),
)
