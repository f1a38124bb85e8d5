"""`python -m analysis.diff STORE_A STORE_B`: configuration, code and results of two stores."""

import argparse
import json
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy import stats

from analysis.curves import LEVEL, key_values, value_text
from analysis.measured import parts_of
from analysis.text_tables import text_table
from plugins.load import scan_sweep
from plugins.registry import UnknownName, did_you_mean
from plugins.result import BOOKKEEPING, TIMES

_SHOWN = 6  # values of a key that are written out
_EXAMPLES = """\
examples:
  python -m analysis.diff outputs/dln/gph out/smaller_lr
  python -m analysis.diff outputs/dln/gph out/smaller_lr --by model.gamma --y final_test_loss
"""


@dataclass(frozen=True)
class Side:
    """One of the two stores: a row per run without curves, its config keys, its scalars."""

    rows: pl.DataFrame  # failed runs too
    keys: list[str]
    scalars: list[str]

    def values(self, key: str) -> list[Any]:
        """Distinct values of a config key, sorted; none where no config has it."""
        if key not in self.keys:
            return []
        return self.rows[key].unique().sort(nulls_last=True).to_list()


def load_side(store: Path | str) -> Side:
    """All runs of a store. Raises what `scan_sweep` raises, ValueError for a store without runs."""
    frame = scan_sweep(store, params="all", status=("ok", "diverged", "failed"))
    schema = frame.collect_schema()
    results = scan_sweep(store, params=[]).collect_schema().names()
    rows = frame.select(name for name in schema if not schema[name].is_nested()).collect()
    if rows.is_empty():
        raise ValueError(f"{store} holds no runs")
    scalars = [
        name
        for name in results
        if name not in BOOKKEEPING and schema[name].is_numeric() and not name.startswith(TIMES)
    ]
    return Side(rows, [name for name in schema if name not in results], scalars)


def differing_keys(a: Side, b: Side) -> dict[str, tuple[list[Any], list[Any]]]:
    """Config keys whose values are not the same set in both: the values in each."""
    keys = dict.fromkeys([*a.keys, *b.keys])
    values = {key: (a.values(key), b.values(key)) for key in keys}
    return {key: pair for key, pair in values.items() if pair[0] != pair[1]}


def shared_keys(a: Side, b: Side) -> list[str]:
    """Keys by which runs of the two are paired: those that vary in one and have common values."""
    keys = [key for key in a.keys if key in b.keys]
    return [
        key
        for key in keys
        if max(len(a.values(key)), len(b.values(key))) > 1
        and set(a.values(key)) & set(b.values(key))
    ]


def differences(
    a: Side, b: Side, scalars: Sequence[str], by: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Mean of each scalar in both stores, b minus a and its 95 % interval, per group `by`.

    Runs are paired by `shared_keys` where these name at most one run on each side: the interval is
    that of the mean of n differences (t, n - 1). Otherwise it is Welch's (1947) of two independent
    samples. Failed runs and nan count nowhere; low and high are None where a side has one run.
    Raises ValueError where no two runs are paired.
    """
    keys = shared_keys(a, b)
    left, right = (side.rows.filter(pl.col("status") != "failed") for side in (a, b))
    is_paired = bool(keys) and not any(
        rows.select(keys).is_duplicated().any() for rows in (left, right)
    )
    if is_paired:
        left = left.join(right.select(keys), on=keys, how="semi", nulls_equal=True).sort(keys)
        right = right.join(left.select(keys), on=keys, how="semi", nulls_equal=True).sort(keys)
        if left.is_empty():
            raise ValueError(f"no two runs of the stores agree in {', '.join(keys)}")
    of_b = {tuple(values.values()): part for values, part in parts_of(right, by)}
    return [
        {"group": values, "y": y, "is_paired": is_paired, **statistics}
        for values, part in parts_of(left, by)
        if tuple(values.values()) in of_b
        for y in scalars
        if (statistics := _difference(part, of_b[tuple(values.values())], y, is_paired))
    ]


def _difference(a: pl.DataFrame, b: pl.DataFrame, y: str, is_paired: bool) -> dict[str, Any]:
    """Numbers of runs, means, difference and interval; empty where a side has no value."""
    x, z = (rows[y].cast(pl.Float64).fill_null(np.nan).to_numpy() for rows in (a, b))
    if is_paired:
        x, z = x[is_both := ~(np.isnan(x) | np.isnan(z))], z[is_both]
    else:
        x, z = x[~np.isnan(x)], z[~np.isnan(z)]
    if not len(x) or not len(z):
        return {}
    low = high = None
    if min(len(x), len(z)) > 1:
        with warnings.catch_warnings():
            # Of values that are all equal, whose interval is a point.
            warnings.filterwarnings("ignore", "Precision loss", RuntimeWarning)
            test = stats.ttest_rel(z, x) if is_paired else stats.ttest_ind(z, x, equal_var=False)
        low, high = map(float, test.confidence_interval(LEVEL))
    return {
        "n_a": len(x),
        "n_b": len(z),
        "mean_a": x.mean(),
        "mean_b": z.mean(),
        "difference": z.mean() - x.mean(),
        "low": low,
        "high": high,
    }


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    stores = arguments.stores
    try:
        a, b = map(load_side, stores)
        scalars = [name for name in a.scalars if name in b.scalars]
        _require(arguments.y, scalars, "scalar")
        _require(arguments.by, [key for key in a.keys if key in b.keys], "config key")
        sections = [
            _runs(a, b, stores),
            "configuration" + _keys(a, b),
            "code and versions" + _code(a, b),
            _results(a, b, arguments.y or scalars, arguments.by),
        ]
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n\n".join(section.rstrip() for section in sections))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m analysis.diff",
        description="Tell what two stores differ in: runs, configuration, code, final values.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("stores", nargs=2, type=Path, metavar="STORE", help="folder of a sweep")
    parser.add_argument(
        "--y", nargs="+", default=[], metavar="SCALAR", help="compare these only (default: all)"
    )
    parser.add_argument(
        "--by", nargs="+", default=[], metavar="KEY", help="compare per value of these keys"
    )
    return parser


def _require(names: Sequence[str], known: Sequence[str], what: str) -> None:
    for name in names:
        if name not in known:
            raise UnknownName(f"no {what} {name!r} in both stores{did_you_mean(name, known)}")


def _runs(a: Side, b: Side, stores: Sequence[Path]) -> str:
    """Runs by status in each, and how many are in both, with other results or not."""
    lines = []
    for name, side, store in zip("AB", (a, b), stores, strict=True):
        counts = side.rows["status"].value_counts(sort=True).rows()
        texts = ", ".join(f"{n} {status}" for status, n in counts)
        lines.append(f"{name}: {store}, {len(side.rows)} runs ({texts})")
    scalars = [name for name in a.scalars if name in b.scalars]
    both = a.rows.select("run_id", *scalars).join(
        b.rows.select("run_id", *scalars), on="run_id", suffix="_b"
    )
    n, others = len(both), []
    for name in scalars:
        if changed := both[name].ne_missing(both[f"{name}_b"]).sum():
            worst = (both[name] - both[f"{name}_b"]).abs().max()
            others.append(f"{name} of {changed} (by {value_text(float(worst), 3)} at most)")
    same = f"; their results differ: {', '.join(others)}" if others else ", with equal results"
    lines.append(
        f"runs in both: {n}{same if n else ''}; only in A: {len(a.rows) - n}; "
        f"only in B: {len(b.rows) - n}"
    )
    return "\n".join(lines)


def _keys(a: Side, b: Side) -> str:
    rows = [
        {"key": key, "A": _values(values), "B": _values(others)}
        for key, (values, others) in differing_keys(a, b).items()
    ]
    return _table(rows)


def _values(values: Sequence[Any]) -> str:
    """'1', '0, 1, 2', '0 ... 99 (100 values)'; a dash where no config has the key."""
    if not values:
        return "-"
    if len(values) <= _SHOWN:
        return ", ".join(map(value_text, values))
    return f"{value_text(values[0])} ... {value_text(values[-1])} ({len(values)} values)"


def _code(a: Side, b: Side) -> str:
    """Commits and versions that are not the same set in both."""
    rows = []
    found = [_provenance(side) for side in (a, b)]
    for name in dict.fromkeys([*found[0], *found[1]]):
        values = [side.get(name, []) for side in found]
        if values[0] != values[1]:
            rows.append({"": name, "A": _values(values[0]), "B": _values(values[1])})
    return _table(rows)


def _provenance(side: Side) -> dict[str, list[str]]:
    """'code', 'host' and each package -> its values, sorted."""
    values: dict[str, set[str]] = {}
    for code, host, versions in side.rows.select("code", "host", "versions").unique().iter_rows():
        for name, value in {"code": code, "host": host, **json.loads(versions or "{}")}.items():
            if value is not None:
                values.setdefault(name, set()).add(value)
    return {name: sorted(found) for name, found in values.items()}


def _results(a: Side, b: Side, scalars: Sequence[str], by: Sequence[str]) -> str:
    found = differences(a, b, scalars, by)
    if not found:
        return "no final value is in both"
    how = "runs of equal " + ", ".join(shared_keys(a, b)) if found[0]["is_paired"] else "all runs"
    head = f"final values, means over {how}; B - A with its 95 % interval"
    rows = [
        {
            **({"runs": key_values(row["group"])} if by else {}),
            "value": row["y"],
            "n": f"{row['n_a']}" if row["is_paired"] else f"{row['n_a']}, {row['n_b']}",
            "A": value_text(float(row["mean_a"]), 4),
            "B": value_text(float(row["mean_b"]), 4),
            "B - A": value_text(float(row["difference"]), 3),
            "interval": ""
            if row["low"] is None
            else f"[{value_text(float(row['low']), 3)}, {value_text(float(row['high']), 3)}]",
        }
        for row in found
    ]
    return head + _table(rows)


def _table(rows: Sequence[dict[str, str]]) -> str:
    return f"\n{text_table(rows, '  ')}" if rows else ": equal"


if __name__ == "__main__":
    sys.exit(main())
