"""Merging stores into a new one; `python -m plugins.merge A B -o C`, `--compact DIR`."""

import argparse
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl

from plugins.atomic import fsync
from plugins.columns import polars_schema, read_schemas, union
from plugins.config_files import read_configs
from plugins.fold import bins, compact, copy_rows, rows_by_part
from plugins.parts import (
    RESULTS,
    link_or_copy,
    list_parts,
    opening,
    part_order,
    require_store,
    retry_vanished,
)
from plugins.result import BOOKKEEPING
from plugins.scan import scan_without
from plugins.winners import DONE, judge, read_keys

Keep = Literal["last", "first", "error"]
_EXAMPLES = 5


class MergeRefused(ValueError):
    """keep="error" met runs whose values differ between the inputs."""


@dataclass(frozen=True)
class MergeReport:
    """What a merge did; as text one line."""

    output: Path
    runs: int  # in the output, failed ones included
    failed: int
    overlapping: int  # done in more than one input
    differing: tuple[str, ...]  # run ids among these whose curves or scalars are not equal
    keep: Keep

    def __str__(self) -> str:
        text = f"merged {self.runs} runs ({self.failed} failed) into {self.output}"
        if self.overlapping:
            text += f"; {self.overlapping} done in several inputs, "
            text += _describe(self.differing) if self.differing else "all with equal values"
        if self.differing:
            text += f"; kept the {self.keep}"
        return text


def merge(inputs: Sequence[Path | str], output: Path | str, keep: Keep = "last") -> MergeReport:
    """Write the runs of all inputs into `output`, each once; the inputs stay as they are.

    Done rows come before failed ones; among a run's done rows the last (first) input's is kept,
    within one input the winner's. With keep="error" runs whose values differ raise MergeRefused;
    equal ones are kept once. Config files and the kept runs' artifacts come along; plans,
    progress, workdirs and logs do not. The output appears complete, by one rename.

    Raises FileExistsError for an output with something in it, FileNotFoundError for an input that
    is no store, CorruptPart naming an unreadable file, ValueError for an unknown `keep`.
    """
    stores, output = [Path(store) for store in inputs], Path(output)
    if keep not in ("last", "first", "error"):
        raise ValueError(f"keep={keep!r} is none of 'last', 'first', 'error'")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise FileExistsError(f"the output {output} exists and is not an empty folder")
    for store in stores:
        require_store(store)
    aside = output.absolute().with_name(f".tmp-{output.name}")
    try:
        report = retry_vanished(lambda: _merge_into(aside, stores, output, keep))
        aside.rename(output)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    fsync(output.absolute().parent)
    return report


def _merge_into(aside: Path, stores: Sequence[Path], output: Path, keep: Keep) -> MergeReport:
    shutil.rmtree(aside, ignore_errors=True)
    (aside / "parts").mkdir(parents=True)
    owner = {part: i for i, store in enumerate(stores) for part in list_parts(store)}
    parts = sorted(owner, key=part_order)
    place = {index: owner[part] for index, part in enumerate(parts)}
    keys = read_keys(parts).with_columns(
        store=pl.col("part").replace_strict(place, return_dtype=pl.Int32)
    )
    is_done = pl.col("status").is_in(DONE)
    sign = {"last": 1, "first": -1, "error": 0}[keep]
    winners, losers = judge(keys, prefer=pl.when(is_done).then(sign * pl.col("store")))
    done = keys.filter(is_done)
    overlapping = done.filter(pl.col("store").n_unique().over("run_id") > 1)
    differing = _differing(stores, parts, keys, overlapping)
    if differing and keep == "error":
        raise MergeRefused(f"{_describe(differing)}; nothing was written (keep last or first?)")
    for store in stores:
        _bring(store, aside, "configs/*.yaml", shutil.copyfile)
    for index, store in enumerate(stores):
        kept = set(winners.filter(is_done & (pl.col("store") == index))["run_id"])
        for folder in (store / "artifacts").glob("*"):
            if folder.name in kept:
                _bring(store, aside, f"artifacts/{folder.name}/**/*", link_or_copy)
    beaten = rows_by_part(losers, parts)
    counts = dict(keys.group_by("part").len().iter_rows())
    whole = [part for i, part in enumerate(parts) if len(beaten.get(part, ())) < counts.get(i, 0)]
    for group in bins(whole):
        copy_rows(group, beaten, aside)
    failed = winners.filter(~is_done).height
    return MergeReport(
        output, winners.height, failed, overlapping["run_id"].n_unique(), differing, keep
    )


def _differing(
    stores: Sequence[Path], parts: Sequence[Path], keys: pl.DataFrame, overlapping: pl.DataFrame
) -> tuple[str, ...]:
    """Ids among the done rows of several stores whose results are not equal, nan equal to nan."""
    if overlapping.is_empty():
        return ()
    files = [part / RESULTS for part in parts]
    schema = union(read_schemas(files))
    varying: set[str] = set()
    for store in stores:
        varying.update(*(file.varying for file in read_configs(store).values()))
    results = [name for name in schema.names if name not in varying and name not in BOOKKEEPING]
    if not results:
        return ()
    kept = pl.concat(
        judge(rows)[0].select("part", "row") for rows in overlapping.partition_by("store")
    )
    lost = keys.join(kept, on=["part", "row"], how="anti")
    rows = scan_without(lost, keys, parts, polars_schema(schema))
    with opening(files):
        hashes = rows.select("run_id", hash=pl.struct(results).hash()).collect(engine="streaming")
    different = hashes.filter(pl.col("hash").n_unique().over("run_id") > 1)
    return tuple(different["run_id"].unique().sort())


def _bring(store: Path, aside: Path, pattern: str, copy: Callable[[Path, Path], object]) -> None:
    """Files that match, unless an earlier store brought one of that name."""
    for file in store.glob(pattern):
        target = aside / file.relative_to(store)
        if file.is_file() and not target.exists() and not file.name.startswith(".tmp-"):
            target.parent.mkdir(parents=True, exist_ok=True)
            copy(file, target)
            fsync(target)


def _describe(differing: Sequence[str]) -> str:
    examples = ", ".join(differing[:_EXAMPLES])
    more = ", ..." if len(differing) > _EXAMPLES else ""
    return f"{len(differing)} with different values ({examples}{more})"


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; 0, or 1 for unreadable or differing inputs, 2 for bad usage."""
    parser = argparse.ArgumentParser(
        prog="python -m plugins.merge",
        description="Merge stores of sweeps into a new one, each run once. Inputs stay unchanged.",
    )
    parser.add_argument("inputs", nargs="*", type=Path, metavar="STORE")
    parser.add_argument("-o", "--output", type=Path, help="new or empty folder")
    parser.add_argument(
        "--keep",
        choices=("last", "first", "error"),
        default="last",
        help="whose row of a run that is done in several inputs: the last (default) or the first "
        "input's; error: refuse when curves or scalars of such runs differ (equal ones are fine)",
    )
    parser.add_argument(
        "--compact", type=Path, metavar="STORE", help="instead: fold one store's small parts"
    )
    args = parser.parse_args(argv)
    if (args.compact is None) == (args.output is None) or bool(args.inputs) != bool(args.output):
        parser.error("give either input stores and -o OUTPUT, or --compact STORE")
    try:
        if args.compact is not None:
            require_store(args.compact)
            before = len(list_parts(args.compact))
            compact(args.compact)
            print(f"compacted {args.compact}: {before} parts -> {len(list_parts(args.compact))}")
        else:
            print(merge(args.inputs, args.output, args.keep))
    except (FileExistsError, FileNotFoundError) as error:
        parser.error(str(error))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
