"""Merging stores into a new one; `python -m plugins.merge A B -o C`, `--compact DIR`."""

import argparse
import itertools
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl

from plugins.atomic import fsync
from plugins.config_files import read_configs
from plugins.differences import describe, differing, result_schemas
from plugins.fold import bins, compact, copy_rows, rows_by_part
from plugins.parts import (
    link_or_copy,
    list_parts,
    part_order,
    require_store,
    retry_vanished,
)
from plugins.winners import (
    DONE,
    is_doubled,
    losers,
    ranked,
    rows_of_parts,
    run_numbers,
    short_keys,
)

Keep = Literal["last", "first", "error"]
_EXAMPLES = 5


class MergeRefused(ValueError):
    """keep="error" met runs whose values differ between the inputs."""


@dataclass(frozen=True)
class MergeReport:
    """What a merge did; as text one line, and one for each of the examples."""

    output: Path
    runs: int  # in the output, failed ones included
    failed: int
    overlapping: int  # done in more than one input
    differing: tuple[str, ...]  # run ids among these whose results are not equal
    examples: tuple[str, ...]  # what differs in the first few of them, in words
    keep: Keep

    def __str__(self) -> str:
        text = f"merged {self.runs} runs ({self.failed} failed) into {self.output}"
        if self.overlapping:
            text += f"; {self.overlapping} done in several inputs, "
            text += "" if self.differing else "all with equal values"
        if self.differing:
            text += _describe(self.differing, self.examples, f"kept the {self.keep}")
        return text


def merge(inputs: Sequence[Path | str], output: Path | str, keep: Keep = "last") -> MergeReport:
    """Write the runs of all inputs into `output`, each once; the inputs stay as they are.

    Done rows come before failed ones; among a run's done rows the last (first) input's is kept,
    within one input the winner's. With keep="error" runs whose values differ raise MergeRefused;
    equal ones are kept once. Config files and the kept runs' artifacts come along; plans,
    progress, workdirs and logs do not. The output appears complete, by one rename.

    Raises FileExistsError for an output with something in it, FileNotFoundError for an input that
    is no store, CorruptPart naming an unreadable file, ValueError for a damaged config file or an
    unknown `keep`.
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
    keys = short_keys(parts)
    store_of_part = pl.Series("store", [owner[part] for part in parts], dtype=pl.Int32)
    keys = keys.with_columns(store_of_part.gather(keys["part"]))
    configs = [file for store in stores for file in read_configs(store).values()]
    varying = {key for file in configs for key in file.varying}
    overlapping = _overlapping(keys)
    differ, examples = _differences(overlapping, parts, stores, varying)
    if differ and keep == "error":
        raise MergeRefused(_describe(differ, examples, "nothing was written (keep last or first?)"))
    overlap = overlapping["run_id"].n_unique()
    del overlapping
    is_done = pl.col("status").is_in(DONE)
    sign = {"last": 1, "first": -1, "error": 0}[keep]
    lost = losers(keys, prefer=pl.when(is_done).then(sign * pl.col("store")))
    for store in stores:
        _bring(store, aside, "configs/*.yaml", shutil.copyfile)
    for index, store in enumerate(stores):
        if folders := sorted((store / "artifacts").glob("*")):
            rows = keys.filter(is_done & (pl.col("store") == index))
            kept = rows.join(lost, on=["part", "row"], how="anti")["run_id"]
            for folder in itertools.compress(folders, run_numbers(folders).is_in(kept.implode())):
                _bring(store, aside, f"artifacts/{folder.name}/**/*", link_or_copy)
    runs = len(keys) - len(lost)
    failed = len(keys.filter(~is_done)) - len(lost.filter(~is_done))
    beaten, counts = rows_by_part(lost, parts), rows_of_parts(keys)
    del keys, lost  # not held while the parts are copied
    whole = [part for i, part in enumerate(parts) if len(beaten.get(part, ())) < counts.get(i, 0)]
    for group in bins(whole):
        copy_rows(group, beaten, aside)
    return MergeReport(output, runs, failed, overlap, differ, examples, keep)


def _overlapping(keys: pl.DataFrame) -> pl.DataFrame:
    """Of every run that is done in several stores the row that counts in each of them."""
    is_done = pl.col("status").is_in(DONE)
    rows = ranked(keys.filter(is_done, is_doubled(keys)), prefer=pl.col("store"))
    run, store = pl.col("run_id"), pl.col("store")
    rows = rows.filter(run.ne_missing(run.shift(-1)) | (store != store.shift(-1)))
    return rows.filter((run == run.shift()).or_(run == run.shift(-1)))


def _differences(
    overlapping: pl.DataFrame, parts: Sequence[Path], stores: Sequence[Path], keys: set[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The run ids whose rows differ in their results, and what differs in the first few.

    `keys`: the columns of the parts that are config keys.
    """
    if overlapping.is_empty():
        return (), ()
    schemas = result_schemas(parts, keys)
    runs = differing(overlapping, parts, schemas)
    ids = tuple(f"{run:016x}" for run in runs)
    examples = tuple(
        f"run {name}: {describe(overlapping.filter(run_id=run), parts, stores, schemas)}"
        for name, run in zip(ids[:_EXAMPLES], runs[:_EXAMPLES], strict=True)
    )
    return ids, examples


def _bring(store: Path, aside: Path, pattern: str, copy: Callable[[Path, Path], object]) -> None:
    """Files that match, unless an earlier store brought one of that name."""
    for file in store.glob(pattern):
        target = aside / file.relative_to(store)
        if file.is_file() and not target.exists() and not file.name.startswith(".tmp-"):
            target.parent.mkdir(parents=True, exist_ok=True)
            copy(file, target)
            fsync(target)


def _describe(differing: Sequence[str], examples: Sequence[str], outcome: str) -> str:
    lines = [f"{len(differing)} with different values; {outcome}", *examples]
    return "\n  ".join(lines if len(differing) == len(examples) else [*lines, "..."])


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; 0, or 1 when inputs differ or the disk is full, 2 for bad input."""
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
        "input's; error: refuse when results of such runs differ (equal ones are fine)",
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
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1 if isinstance(error, MergeRefused | OSError) else 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
