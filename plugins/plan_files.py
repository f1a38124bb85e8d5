"""Plan files of a store: `plans/<plan>.parquet`, what jobs read instead of the conf files."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from plugins.atomic import publish_file
from plugins.config_files import write_config
from plugins.plan import Plan

_KEY = b"plan"


@dataclass(frozen=True)
class PlanSettings:
    """What a plan's jobs need to know beside its rows."""

    experiment: str
    command: str
    units: int
    local: bool  # the units share this machine
    fail_fast: bool
    cuda_visible_devices: str | None  # the driver's
    host: str  # the driver's
    pid: int


def write_plan(store: Path, name: str, plan: Plan, settings: PlanSettings) -> Path:
    """Write the plan's config files and its frame, a row group per unit; returns the file.

    A unit's rows are then read without the rest: 0.05 s out of 3.6 million.
    """
    for file in plan.configs.values():
        write_config(store, file)
    path = store / "plans" / f"{name}.parquet"
    table = plan.frame.to_arrow()
    metadata = {**(table.schema.metadata or {}), _KEY: json.dumps(asdict(settings)).encode()}
    schema = table.schema.with_metadata(metadata)
    sizes = plan.frame.group_by("unit", maintain_order=True).len()["len"].to_list()

    def write(aside: Path) -> None:
        with pq.ParquetWriter(aside, schema, compression="zstd", compression_level=3) as writer:
            start = 0
            for size in sizes:
                unit = table.slice(start, size).replace_schema_metadata(metadata)
                writer.write_table(unit, row_group_size=100_000)
                start += size

    publish_file(path, write)
    return path


def read_settings(plan_file: Path) -> PlanSettings:
    try:
        return PlanSettings(**json.loads(pq.read_metadata(plan_file).metadata[_KEY]))
    except (ValueError, TypeError, KeyError) as error:
        raise _damaged(plan_file) from error


def read_units(plan_file: Path) -> pl.DataFrame:
    """run_id, unit and replaces of all runs. Raises ValueError for a damaged file."""
    try:
        return pl.read_parquet(plan_file, columns=["run_id", "unit", "replaces"], glob=False)
    except pl.exceptions.PolarsError as error:
        raise _damaged(plan_file) from error


def read_unit(plan_file: Path, unit: int) -> pl.DataFrame:
    """Rows of one unit, in stack order."""
    return pl.scan_parquet(plan_file, glob=False).filter(pl.col("unit") == unit).collect()


def _damaged(plan_file: Path) -> ValueError:
    return ValueError(
        f"{plan_file} is damaged. Delete it: rows do not need it, only jobs that still run"
    )
