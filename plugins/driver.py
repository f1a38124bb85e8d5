"""Planning a sweep against its store: what to compute, what it will cost, what is noteworthy."""

import math
import shlex
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Transformer
from omegaconf import DictConfig

from plugins import plan as planning
from plugins.axes import Grid, expand
from plugins.columns import ColumnConflict, config_value, read_schemas, scalar, union
from plugins.composition import compose
from plugins.config_files import ConfigFile, read_configs
from plugins.experiment import Experiment, load_function
from plugins.identity import matches
from plugins.jobs import JobUnit, active_units
from plugins.leaves import flatten
from plugins.load import scan_sweep
from plugins.overrides import quoted, translate_override
from plugins.parts import RESULTS, list_parts, retry_vanished
from plugins.plan import Plan
from plugins.plan_files import read_units
from plugins.progress import duration
from plugins.provenance import code_version
from plugins.reports import running_units
from plugins.runner import prepare
from plugins.winners import DONE, short_keys, stored_runs

_ARROW = {
    pl.Int64: pa.int64(),
    pl.Float64: pa.float64(),
    pl.Boolean: pa.bool_(),
    pl.String: pa.string(),
    pl.Null: pa.null(),
}
_AWAITED = {"run_id": pl.String, "unit": pl.Int64, "plan": pl.String}


@dataclass(frozen=True)
class Request:
    """What a sweep was asked to do."""

    overrides: Sequence[str]  # of the command line, in Hydra's grammar
    store: Path
    command: str
    params: Mapping[str, Any] = field(default_factory=dict)  # axes of the experiment's file
    zip: Sequence[Sequence[str]] = ()
    file_zip: Sequence[Sequence[str]] = ()  # of the experiment's file; `zip` replaces it
    rerun: Sequence[str] = ()
    units: int | None = None
    unit_seconds: float | None = None  # without `units`: what a unit should take, if that is known
    most_units: int | None = None
    max_stack: int | None = None
    fail_fast: bool = False


@dataclass(frozen=True)
class Sweep:
    """A planned sweep."""

    request: Request
    grid: Grid
    plan: Plan
    experiment: Experiment
    stored: pl.DataFrame  # winners.stored_runs of the store, when it was planned
    failed_before: int
    again: int  # done, and repeated by --rerun
    awaited: Mapping[JobUnit, int]  # of earlier commands, with SLURM, and the runs of each
    awaited_runs: pl.DataFrame  # run_id, plan, unit: asked for here too, and left to them
    take_over: Callable[[pl.DataFrame], Plan]  # of those with these run_ids, should they be lost
    surprises: tuple[str, ...]  # what the experiment's check warned of

    def first_lines(self, plan: Plan, unit: int) -> list[str]:
        """Hydra overrides of the unit's first run: what a launcher composes and shows."""
        index = plan.frame.filter(pl.col("unit") == unit)["index"][0]
        lines = list(self.grid.fixed)
        for axis, codes in zip(self.grid.axes, self.grid.codes, strict=True):
            lines += axis.lines(int(codes[index]))
        return lines


def plan_sweep(
    request: Request,
    hydra_compose: Callable[[list[str]], DictConfig],
    is_group: Callable[[str], bool],
    config_loader: Any = None,
) -> Sweep:
    """Plan a sweep against its store; computes and writes nothing.

    Raises ValueError (UnknownName for names) for any bad input.
    """
    for name in ("units", "max_stack"):
        if (value := getattr(request, name)) is not None and value < 1:
            raise ValueError(f"hydra.sweeper.{name} must be >= 1, got {value}")
    if request.most_units and (request.units or 1) > request.most_units:
        raise ValueError(
            f"--jobs={request.units}: SLURM takes at most {request.most_units} jobs of one sweep "
            "(its MaxArraySize); a job works through many runs"
        )
    parser = OverridesParser.create(config_loader=config_loader)
    overrides = parser.parse_overrides(_with_params(request.params, request.overrides))
    swept = {override.get_key_element() for override in overrides if override.is_sweep_override()}
    # The command line may have replaced an axis of the file's groups by one value.
    of_file = [[key for key in group if key in swept] for group in request.file_zip]
    grid = expand(overrides, request.zip or [group for group in of_file if len(group) > 1])
    experiments = {}

    def schema_of(config: DictConfig) -> type:
        name = config.experiment
        experiments[name] = prepare(name)
        return experiments[name].schema

    bases = compose(grid, hydra_compose, is_group, schema_of)
    if len(experiments) > 1:
        raise ValueError(f"one sweep runs one experiment, not {', '.join(sorted(experiments))}")
    [experiment] = experiments.values()
    frame, configs = planning.identify(bases, experiment)
    asked = len(frame)
    frame = planning.distinct(frame)
    given = [override.key_or_group for override in overrides]
    asked_again = parser.parse_overrides(list(request.rerun))
    rerun = planning.rerun_mask(frame, configs, asked_again, given)
    _require_fit(request.store, frame, configs)
    stored = stored_runs(request.store)
    done = stored.filter(pl.col("status").is_in(DONE))
    failed = stored.filter(pl.col("status") == "failed")
    todo = planning.drop_done(frame, done, rerun if request.rerun else None)
    surprises: dict[str, None] = {}
    if experiment.check and len(todo):  # stored runs passed it, and it may have to load torch
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            planning.check(todo, bases, experiment, load_function(experiment.check))
        surprises = dict.fromkeys(f"warning: {warning.message}" for warning in caught)
    width = load_function(experiment.stack_width) if experiment.stack_width else None
    widths = planning.widths(todo, bases, experiment, width, request.max_stack)

    def plan_of(runs: pl.DataFrame) -> Plan:
        units = request.units or _units(request, done, configs, len(runs))
        packed = planning.pack(runs, widths, units)
        if request.most_units and packed["unit"].n_unique() > request.most_units:
            packed = planning.pack(runs, widths, request.most_units)
        return Plan(packed, configs, len(frame), len(frame) - len(todo), asked - len(frame))

    awaited, awaited_runs = _with_slurm(request.store, todo)
    ours = todo.join(awaited_runs, on="run_id", how="anti", maintain_order="left")
    return Sweep(
        request,
        grid,
        plan_of(ours),
        experiment,
        stored,
        failed_before=ours["run_id"].is_in(failed["run_id"].implode()).sum(),
        again=len(ours) - ours["replaces"].null_count(),
        awaited=awaited,
        awaited_runs=awaited_runs,
        take_over=lambda runs: plan_of(
            todo.join(runs, on="run_id", how="semi", maintain_order="left")
        ),
        surprises=tuple(surprises),
    )


def _with_slurm(store: Path, todo: pl.DataFrame) -> tuple[dict[JobUnit, int], pl.DataFrame]:
    """(unit -> number of its runs; run_id, plan, unit): what SLURM jobs of earlier commands are
    computing, or will, of the runs `todo`."""
    units = {(unit.plan, unit.number): unit for unit in active_units(store)}
    frames = [
        read_units(store / "plans" / f"{plan}.parquet")
        .select("run_id", "unit", plan=pl.lit(plan))
        .filter(pl.col("unit").is_in([number for of, number in units if of == plan]))
        for plan in dict.fromkeys(plan for plan, _ in units)
    ]
    rows = pl.concat([*frames, pl.DataFrame(schema=_AWAITED)], how="diagonal")
    ours = rows.join(todo, on="run_id", how="semi").unique("run_id")
    sizes = rows.group_by("plan", "unit").len()
    wanted = sizes.join(ours, on=["plan", "unit"], how="semi").sort("plan", "unit")
    return {units[plan, unit]: n for plan, unit, n in wanted.iter_rows()}, ours


def _units(
    request: Request, done: pl.DataFrame, configs: Mapping[str, ConfigFile], n_runs: int
) -> int | None:
    """Units of about the time that was asked for, if stored runs tell how long one takes."""
    if request.unit_seconds is None or done.is_empty():
        return None
    seconds, _ = _seconds_a_run(done, configs)
    return math.ceil(min(seconds * n_runs / request.unit_seconds, request.most_units or math.inf))


def describe(sweep: Sweep, parallel: int) -> str:
    """What a sweep would compute, and the time it takes by the seconds of stored runs."""
    plan, todo = sweep.plan, len(sweep.plan.frame)
    lines = [
        f"{sweep.experiment.name}: {_n(plan.planned, 'run')} planned, {plan.done} already done, "
        f"{sweep.failed_before} failed before, {sweep.again} again, "
        f"{todo - sweep.failed_before - sweep.again} new",
        f"to compute: {_n(todo, 'run')} in {_n(plan.n_stacks, 'stack')}, "
        f"{_n(plan.n_units, 'unit')}",
    ]
    if plan.duplicates:
        lines.append(f"{plan.duplicates} runs were asked for more than once and count once")
    done = sweep.stored.filter(pl.col("status").is_in(DONE))
    if todo and len(done):
        seconds, which = _seconds_a_run(done, plan.configs)
        expected = duration(seconds * todo / max(1, min(parallel, plan.n_units)))
        lines.append(f"expected time: {expected} ({seconds:.3g} s a run, mean of {which})")
    elif todo:
        lines.append("expected time: unknown (the store holds no run to go by)")
    return "\n".join(lines)


def _seconds_a_run(done: pl.DataFrame, configs: Mapping[str, ConfigFile]) -> tuple[float, str]:
    """(mean, of which runs): of those that differ from ours in varying keys only, else of all."""
    like = done.filter(pl.col("config_id").is_in(list(configs)))
    rows, which = (like, "stored runs of this sweep") if len(like) else (done, "all stored runs")
    return rows["seconds"].mean(), which


def _n(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"


def notes(sweep: Sweep) -> list[str]:
    """What is legal and surprising about a sweep and its store."""
    store, found = sweep.request.store, list(sweep.surprises)
    own = sweep.plan.configs
    here: dict[str, list[Any]] = {}
    for file in own.values():
        for key, value in flatten(file.config).items():
            here.setdefault(key, []).append(value)
    there: dict[str, list[Any]] = {}
    for name, file in read_configs(store).items():
        if name not in own and file.config.get("experiment") == sweep.experiment.name:
            for key, value in flatten(file.config).items():
                if key in here and value not in [*here[key], *there.get(key, [])]:
                    there.setdefault(key, []).append(value)
    for key, values in there.items():
        if not matches(key, sweep.experiment.execution_keys):
            others, ours = _few(values), _few(here[key])
            found.append(f"note: the store also holds runs with {key}={others} (here {key}={ours})")
    if sweep.plan.done and (code := code_version()):
        keys = retry_vanished(lambda: short_keys(list_parts(store), ["code"]))
        codes = keys.filter(pl.col("status").is_in(DONE))["code"].unique()
        if commits := sorted(_short(commit) for commit in codes if commit != code):
            found.append(
                f"warning: stored runs come from other code ({_few(commits)}; here {_short(code)}) "
                "and are not computed again; --rerun or another --output does"
            )
    if sweep.awaited:
        jobs = _few([unit.job for unit in sweep.awaited])
        found.append(
            f"warning: SLURM jobs of an earlier command have {len(sweep.awaited_runs)} of these "
            f"runs ({jobs}); they are waited for, not computed again"
        )
    if busy := running_units(store):
        found.append(
            f"warning: {busy} units of another sweep are running on this store; "
            "runs may be computed twice, each still counts once"
        )
    return found


def _short(code: str | None) -> str:
    """ "622267c", "622267c+1a2b3c4d" """
    commit, plus, changes = (code or "unknown").partition("+")
    return commit[:7] + plus + changes


def _few(values: Sequence[Any]) -> str:
    """Up to three different values."""
    different = list(dict.fromkeys(map(str, values)))
    return ", ".join([*different[:3], *(["..."] if len(different) > 3 else [])])


def next_command(store: Path) -> str:
    """The command that draws a store's first curve by its keys that are no seeds."""
    runs = scan_sweep(store)
    schema = runs.collect_schema()
    names = list(schema)
    curves = [n for n in names if isinstance(schema[n], pl.List) and n != "step"]
    if not curves:
        return f'python -c "from analysis import load_sweep; print(load_sweep({str(store)!r}))"'
    # Every key but seeds: a mean over anything else is rarely what is asked.
    keys = [name for name in names[: names.index("step")] if "seed" not in name]
    groups = runs.select(keys).unique().collect()
    for key in reversed(keys):  # one that others tell, as model_a.gamma where it is model.gamma
        rest = [name for name in groups.columns if name != key]
        if rest and groups.select(rest).n_unique() == len(groups):
            groups = groups.select(rest)
    keys = groups.columns
    arguments = [str(store), "--y", curves[0], *(["--by", *keys] if keys else [])]
    return f"python -m analysis {shlex.join([*arguments, '-o', str(store / f'{curves[0]}.png')])}"


def _require_fit(store: Path, frame: pl.DataFrame, configs: Mapping[str, ConfigFile]) -> None:
    """ValueError for a key that would hold text here and numbers in the store, or within the
    sweep: no reader could load both."""
    keys = [key for key in frame.columns if any(key in file.varying for file in configs.values())]
    here = pa.schema([(key, _ARROW[frame.schema[key]]) for key in keys])
    schemas: dict[Any, pa.Schema] = {"this sweep": here}
    for name, file in {**read_configs(store), **configs}.items():
        schemas[f"config {name}"] = _fixed_schema(file)
    schemas |= retry_vanished(lambda: read_schemas(part / RESULTS for part in list_parts(store)))
    try:
        union(schemas)
    except ColumnConflict as conflict:
        raise ValueError(f"{conflict}; another --output keeps them apart") from None


def _fixed_schema(file: ConfigFile) -> pa.Schema:
    leaves = {key: config_value(value) for key, value in flatten(file.config).items()}
    return pa.schema([(k, scalar(value)[1]) for k, value in leaves.items() if value is not None])


def _with_params(params: Mapping[str, Any], overrides: Sequence[str]) -> list[str]:
    """The experiment file's axes before the command line's overrides, which replace them by key.

    A text is in the grammar of the command line; the elements of a list are values.
    """
    given = {line.partition("=")[0].lstrip("+~") for line in overrides}
    lines = []
    for key, value in params.items():
        if key.lstrip("+~") in given:
            continue
        if isinstance(value, list):
            if not value:
                raise ValueError(f"hydra.sweeper.params: {key} has no values")
            value = ",".join(quoted(v) if isinstance(v, str) else Transformer.str(v) for v in value)
        lines.append(translate_override(f"{key}={'null' if value is None else value}"))
    return [*lines, *overrides]
