"""Which runs have different results in several stores, and what differs."""

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from plugins.columns import read_schemas, union
from plugins.fold import read_batches
from plugins.parts import RESULTS, files_of, opening
from plugins.result import BOOKKEEPING, TIMES
from plugins.scan import scan_files
from plugins.winners import number_of_attempt

_CHARACTERS = 80  # of a value in a text


def result_schemas(parts: Sequence[Path], keys: set[str]) -> dict[str, pa.Schema]:
    """File name -> `attempt` and the results among the columns of all parts' files of that name.

    Neither the config's `keys` nor the bookkeeping are results.
    """
    files: dict[str, list[Path]] = {}
    for part in parts:
        for file in files_of(part):
            files.setdefault(file.name, []).append(file)
    schemas = {}
    for name in sorted(files):
        others = keys.union(BOOKKEEPING) if name == RESULTS else {"run_id", "attempt"}
        results = [
            field
            for field in union(read_schemas(files[name]))
            if field.name not in others and not field.name.startswith(TIMES)
        ]
        schemas[name] = pa.schema([("attempt", pa.string()), *results])
    return schemas


def differing(
    rows: pl.DataFrame, parts: Sequence[Path], schemas: Mapping[str, pa.Schema]
) -> pl.Series:
    """run_ids, sorted, of those `rows` of `winners.short_keys` whose results are not all equal.

    nan equals nan, 1 equals 1.0, and the rows of a table may have any order. Reads the results
    once, batch by batch, and holds 16 bytes a row.
    """
    groups = rows.select("run_id", "attempt", "part").partition_by("part", as_dict=True).items()
    hashes = [_hashes(parts[part], group, schemas) for (part,), group in groups]
    if not hashes:
        return pl.Series(dtype=pl.UInt64)
    pairs = pl.concat(hashes).sort("run_id", "hash")
    is_same_run = pl.col("run_id") == pl.col("run_id").shift()
    return pairs.filter(is_same_run & (pl.col("hash") != pl.col("hash").shift()))["run_id"].unique()


def _hashes(part: Path, rows: pl.DataFrame, schemas: Mapping[str, pa.Schema]) -> pl.DataFrame:
    """run_id, hash: of all results of some rows of a part."""
    found = [pl.DataFrame(schema={"attempt": pl.UInt64, "hash": pl.UInt64})]
    for file in files_of(part):
        schema = schemas[file.name]
        if len(schema) == 1:
            continue
        results = pl.struct(schema.names[1:]).hash(seed=list(schemas).index(file.name))
        for batch in read_batches(file, schema, schema.names):
            frame = pl.from_arrow(batch)
            hashes = frame.select(number_of_attempt(pl.col("attempt")), hash=results)
            found.append(hashes.group_by("attempt").agg(pl.col("hash").sum()))  # modulo 2^64
    sums = pl.concat(found).group_by("attempt").agg(pl.col("hash").sum())
    joined = rows.join(sums, on="attempt", how="left")
    return joined.select("run_id", pl.col("hash").fill_null(0))


def describe(
    rows: pl.DataFrame,
    parts: Sequence[Path],
    stores: Sequence[Path],
    schemas: Mapping[str, pa.Schema],
) -> str:
    """The first result in which the `rows` of one run differ, its values and their stores.

    "final_loss 0.25 in a, 0.26 in b"; "loss at step 30 0.5 in a, absent in b (and 2 more results)".
    """
    runs = [_results(parts[part], row, schemas) for part, row in rows.select("part", "row").rows()]
    names = dict.fromkeys(name for run in runs for name in run)
    unequal = [name for name in names if not _all_equal([run.get(name) for run in runs])]
    lists = {name for run in runs for name, value in run.items() if isinstance(value, list)}
    # One number says more than a record of a curve, and a curve more than that it ended earlier.
    name = min(unequal, key=lambda name: (name in lists, name == "step"))
    where, values = name, [run.get(name) for run in runs]
    if name in lists:
        records = list(zip_longest(*(value or () for value in values)))
        number = next((i for i, record in enumerate(records) if not _all_equal(record)), None)
        if number is not None:  # else it is no curve here, one without records there
            where, values = f"{name}{_place(name, number, runs)}", records[number]
    texts = ["absent" if value is None else f"{value!s:.{_CHARACTERS}}" for value in values]
    places = [stores[index] for index in rows["store"]]
    text = ", ".join(f"{value} in {place}" for value, place in zip(texts, places, strict=True))
    others = len(unequal) - 1
    more = f" (and {others} more result{'s' * (others > 1)})" if others else ""
    return f"{where} {text}{more}"


def _results(part: Path, row: int, schemas: Mapping[str, pa.Schema]) -> dict[str, Any]:
    """Scalars, curves and, as "table/column", the lists of a table's cells of one row."""
    files = files_of(part)
    with opening(files):
        scans = {file.name: scan_files([file], pl.Schema(schemas[file.name])) for file in files}
        [cells] = scans.pop(RESULTS).slice(row, 1).collect().to_dicts()
        attempt = cells.pop("attempt")
        for name, scan in scans.items():
            table = scan.filter(pl.col("attempt") == attempt).drop("attempt").collect()
            if len(table):
                cells |= {f"{Path(name).stem}/{column.name}": column.to_list() for column in table}
    return cells


def _place(name: str, number: int, runs: Sequence[Mapping[str, Any]]) -> str:
    """Of a record: its step, where the runs agree in it, else its number."""
    steps = {run["step"][number] for run in runs if number < len(run.get("step") or ())}
    is_curve = name != "step" and "/" not in name
    return f" at step {steps.pop()}" if is_curve and len(steps) == 1 else f"[{number}]"


def _all_equal(values: Sequence) -> bool:
    return all(_equal(values[0], value) for value in values[1:])


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_equal, a, b))
    return a == b or (a != a and b != b)  # nan
