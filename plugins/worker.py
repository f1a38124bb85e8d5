"""One job of a sweep: the stacks of a unit, run by run into the store."""

import math
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig, OmegaConf

from plugins.config_files import ConfigFile, read_config, write_config
from plugins.experiment import Experiment, load_function
from plugins.identity import run_id
from plugins.instances import Instances, instantiate
from plugins.parts import list_parts, retry_vanished
from plugins.plan import replicas
from plugins.plan_files import read_settings, read_unit
from plugins.provenance import provenance
from plugins.reports import Reporter, reporting, unit_reports
from plugins.runner import is_uncompleted, prepare, runner, set_threads
from plugins.slurm import own_job
from plugins.store import SweepWriter
from plugins.winners import (
    DONE,
    judge,
    number_of_attempt,
    number_of_run,
    short_keys,
    stored_runs,
)

_EARLY = 90  # seconds: SLURM sends its signal up to 60 early, and counts from before our start
_STARTED = time.monotonic()
_TOO_LONG = (
    "time limit: {} run(s) of one stack had the job's whole time, and have left nothing to go on "
    "from; raise hydra.launcher.timeout_min, or lower hydra.sweeper.max_stack"
)


def run_job(cfg: DictConfig) -> Any:
    """The task of every Hydra job: a unit of a plan, or, under a stock sweeper, the run `cfg`."""
    hydra = HydraConfig.get()
    unit = OmegaConf.select(hydra, "sweeper.unit")
    if unit is not None:
        plan_file, number = unit.rsplit(":", 1)
        return run_unit(Path(plan_file), int(number), _seconds_to_signal(hydra.launcher))
    return run_single(cfg, Path(hydra.sweep.dir))


def run_unit(plan_file: Path, unit: int, seconds_to_signal: float = math.inf) -> None:
    """Compute the unit's runs that the store does not hold yet. Each ends as a row.

    A failing run is a row with its traceback and the next one starts; a stack that fails is run
    again as stacks of one. With fail_fast no stack starts after a failure anywhere in the plan.
    A scheduler that stops the unit `seconds_to_signal` after its start, or later, has met its
    time limit: then a stack that had the whole time is a failure too.
    """
    store, plan = plan_file.parent.parent, plan_file.stem
    rows = read_unit(plan_file, unit)
    settings = read_settings(plan_file)
    if settings.local:
        _restore_gpus(settings.cuda_visible_devices)
    todo, n_failed = _to_compute(rows, store, plan)
    experiment = prepare(settings.experiment)
    with (
        reporting(store, plan, unit, len(rows)) as reporter,
        SweepWriter(store, plan, provenance(experiment.name)) as writer,
    ):
        if own_job():  # SIGKILL follows, after KillWait
            signal.signal(signal.SIGTERM, lambda *_: writer.hurry())
        reporter.report.done = reporter.report.skipped = len(rows) - len(todo)
        reporter.report.failed = n_failed
        reporter.write(force=True)
        local_units = settings.units if settings.local else 1
        job = _Unit(store, experiment, local_units, writer, reporter, seconds_to_signal)
        for stack in _stacks(todo):
            if settings.fail_fast and any(u.failed for u in unit_reports(store, plan).values()):
                break
            job.run(stack)


class _Unit:
    """What the stacks of a unit share: the store's writer, the report, configs by config_id."""

    def __init__(
        self,
        store: Path,
        experiment: Experiment,
        local_units: int,
        writer: SweepWriter,
        reporter: Reporter,
        seconds_to_signal: float,
    ):
        self.store, self.experiment, self.local_units = store, experiment, local_units
        self.writer, self.reporter = writer, reporter
        self.seconds_to_signal = seconds_to_signal
        self.is_first_stack = True
        self.compute = runner(experiment)
        self.files: dict[str, tuple[ConfigFile, Instances]] = {}

    def run(self, stack: pl.DataFrame) -> None:
        """Compute a stack; should it fail, its runs one by one."""
        rows = stack.rows(named=True)
        report = self.reporter.report

        def on_progress(fraction: float) -> None:
            report.fraction = fraction * len(rows)
            self.reporter.write()
            self.writer.flush_if_due()

        file, instances = self._file(rows[0]["config_id"])
        cfg = instances.of(rows[0])
        set_threads(cfg.threads, self.local_units)
        work = self.store / "work"  # a workdir is the family's to make, when it needs one
        workdirs = [work / row["run_id"] for row in rows]
        started, clock = datetime.now(UTC), time.perf_counter()
        stopped: BaseException | None = None
        try:
            results = self.compute(cfg, replicas(stack, self.experiment), workdirs, on_progress)
        except BaseException as error:
            if not self._is_too_long(error, workdirs):
                raise
            stopped, results = error, [TimeoutError(_TOO_LONG.format(len(rows)))] * len(rows)
        self.is_first_stack = False
        if len(rows) > 1 and isinstance(results[0], BaseException) and not stopped:
            for i in range(len(rows)):
                self.run(stack[i : i + 1])
            return
        finished = datetime.now(UTC)
        seconds = (time.perf_counter() - clock) / len(rows)  # a run's share of its stack
        for row, result in zip(rows, results, strict=True):
            values = {key: row[key] for key in file.varying}
            name, config_id = row["run_id"], row["config_id"]
            # The stored row may come from a clock ahead of ours: a repetition finishes after it.
            last = row["last_finished"]
            ended = max(finished, last + timedelta(microseconds=1)) if last else finished
            self.writer.append(
                row["index"], name, config_id, values, result, started, ended, seconds
            )
            report.done += 1
            report.failed += isinstance(result, BaseException)
            report.diverged += getattr(result, "status", "") == "diverged"
        report.fraction = 0.0
        self.reporter.write(force=any(isinstance(result, BaseException) for result in results))
        if stopped:
            raise stopped

    def _is_too_long(self, error: BaseException, workdirs: Sequence[Path]) -> bool:
        """Whether the time limit ended a stack that had the job's whole time, and that would start
        anew in the next job, to be ended again."""
        if not self.is_first_stack or time.monotonic() - _STARTED < self.seconds_to_signal:
            return False
        requeued = isinstance(error, SystemExit) and not any(path.exists() for path in workdirs)
        return requeued or is_uncompleted(error)

    def _file(self, config_id: str) -> tuple[ConfigFile, Instances]:
        if config_id not in self.files:
            file = read_config(self.store, config_id)
            self.files[config_id] = file, Instances(file, self.experiment.schema)
        return self.files[config_id]


def run_single(cfg: DictConfig, store: Path) -> Any:
    """One run under a stock sweeper or `hydra.mode=RUN`: the same row, store and skip rule.

    Returns the scalars named by `objective` (a list gives a tuple); raises what the run raised.
    """
    config = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True, enum_to_str=True)
    if "experiment" not in config:
        raise ConfigCompositionException(
            "the experiment's file has no `defaults: [/FAMILY/schema/..., /base, _self_]`"
        )
    experiment = prepare(config["experiment"])
    try:
        instance = instantiate(config, experiment.schema)
        if experiment.check:
            load_function(experiment.check)(instance, {})
    except ValueError as error:  # which Hydra prints without a stack trace
        raise ConfigCompositionException(str(error)) from None
    name = run_id(config, experiment)
    file = ConfigFile(config, (), experiment.version)
    stored = stored_runs(store).filter((pl.col("run_id") == name) & pl.col("status").is_in(DONE))
    if stored.is_empty():
        write_config(store, file)
        plan = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ") + "-single"
        set_threads(instance.threads, units=1)
        started = datetime.now(UTC)
        [outcome] = runner(experiment)(instance, {}, [store / "work" / name], lambda f: None)
        finished = datetime.now(UTC)
        seconds = (finished - started).total_seconds()
        with SweepWriter(store, plan, provenance(experiment.name)) as writer:
            index = HydraConfig.get().job.get("num", 0)
            writer.append(index, name, file.config_id, {}, outcome, started, finished, seconds)
        if isinstance(outcome, BaseException):
            raise outcome
        scalars: Mapping[str, Any] = outcome.scalars
    else:
        from plugins.load import load_sweep

        scalars = load_sweep(store).row(by_predicate=pl.col("run_id") == name, named=True)
    names = instance.objective
    if names is None:
        return None
    return scalars[names] if isinstance(names, str) else tuple(scalars[n] for n in names)


def _restore_gpus(driver_value: str | None) -> None:
    """submitit_local hides the GPUs (CUDA_VISIBLE_DEVICES=""), and `device: auto` would quietly
    become the CPU; called before torch loads."""
    if driver_value is None:
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    else:
        os.environ["CUDA_VISIBLE_DEVICES"] = driver_value


def _to_compute(rows: pl.DataFrame, store: Path, plan: str) -> tuple[pl.DataFrame, int]:
    """(rows of runs that are to compute, number of those that failed in this unit before).

    To compute is what has no done attempt, or only the one that the plan replaces, and, should the
    unit have been started again, did not fail in it before. The column last_finished tells when
    the stored attempt that the new one has to beat has finished.
    """

    def read() -> pl.DataFrame:  # by every worker, of all runs: short
        return judge(short_keys(list_parts(store), ["plan"]))[0]

    winners = retry_vanished(read).select(
        "attempt", "status", number="run_id", last_finished="finished", stored_in="plan"
    )
    numbered = rows.with_columns(number=number_of_run(pl.col("run_id")))
    joined = numbered.join(winners, on="number", how="left", maintain_order="left")
    replaced = pl.col("attempt").eq_missing(number_of_attempt(pl.col("replaces")))
    done = pl.col("status").is_in(DONE) & ~replaced
    failed = (pl.col("status") == "failed") & (pl.col("stored_in") == plan)
    todo = joined.filter(~(done | failed).fill_null(False)).select(*rows.columns, "last_finished")
    return todo, joined.filter(failed).height


def _stacks(todo: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """The rows of each stack; a unit's plan is sorted by stack."""
    lengths = todo["stack"].rle().struct.field("len").to_list()
    start = 0
    for length in lengths:
        yield todo.slice(start, length)
        start += length


def _seconds_to_signal(launcher: DictConfig) -> float:
    """How long a job of a SLURM launcher runs at least before it hears of its time limit."""
    if "signal_delay_s" not in launcher:
        return math.inf
    return 60 * launcher.timeout_min - launcher.signal_delay_s - _EARLY
