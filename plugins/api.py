"""Runs and sweeps from Python: the command line's plan, worker and store, in this process."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.errors import HydraException
from omegaconf import OmegaConf

from plugins import driver
from plugins.catalog import experiment_headers, refused
from plugins.execution import execute_here
from plugins.experiment import CONF, import_family, load_function
from plugins.instances import instantiate
from plugins.outcome import SweepReport
from plugins.overrides import complete_name, translate_override
from plugins.result import RunResult
from plugins.runner import prepare, runner


def run(experiment: str, overrides: Sequence[str] = ()) -> RunResult:
    """The result of one run, computed here, stored nowhere; its artifacts are gone afterwards.

    `experiment` and `overrides` as on the command line. Raises ValueError for bad input, and
    whatever the run raises.
    """
    with _hydra(experiment) as name:
        config = compose(name, [translate_override(line) for line in overrides])
    resolved = OmegaConf.to_container(config, resolve=True, throw_on_missing=True, enum_to_str=True)
    found = prepare(resolved["experiment"])
    cfg = instantiate(resolved, found.schema)
    if found.check:
        load_function(found.check)(cfg, {})
    with TemporaryDirectory() as workdir:
        [outcome] = runner(found)(cfg, {}, [Path(workdir)], lambda fraction: None)
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


def sweep(
    experiment: str,
    overrides: Sequence[str] = (),
    *,
    output: Path | str,
    zip: Sequence[Sequence[str]] = (),
    rerun: Sequence[str] = (),
    fail_fast: bool = False,
    max_stack: int | None = None,
) -> SweepReport:
    """Compute what the store `output` lacks of a sweep, and report what it then holds.

    Raises ValueError for bad input; failing runs are rows and counted in the report.
    """
    with _hydra(experiment) as name:
        settings = compose(name, return_hydra_config=True).hydra.sweeper
        request = driver.Request(
            overrides=[translate_override(line) for line in overrides],
            store=Path(output),
            command=f"plugins.api.sweep({experiment!r}, {list(overrides)!r})",
            params=OmegaConf.to_container(settings.params),
            zip=zip,
            file_zip=OmegaConf.to_container(settings.zip),
            rerun=[translate_override(line) for line in rerun],
            units=1,
            max_stack=max_stack or settings.max_stack,
            fail_fast=fail_fast,
        )
        loader = GlobalHydra.instance().config_loader()
        planned = driver.plan_sweep(
            request,
            lambda lines: compose(name, lines),
            lambda key: bool(loader.get_group_options(key, results_filter=ObjectType.CONFIG)),
            loader,
        )
    for note in driver.notes(planned):
        print(note, file=sys.stderr)
    return execute_here(planned)


@contextmanager
def _hydra(experiment: str) -> Iterator[str]:
    name = complete_name(experiment, list(experiment_headers()))
    import_family(name.split("/")[0])
    running = GlobalHydra.instance().hydra  # of an application that calls us
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            yield name
    except HydraException as error:
        raise ValueError(f"{refused(name, error)} {error.__cause__ or ''}".strip()) from error
    finally:
        GlobalHydra.instance().hydra = running
