"""The command line around Hydra: what comes before `hydra.main`, and its exit status."""

import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from plugins import processes
from plugins.catalog import axes_text, experiment_headers, refused, with_words
from plugins.completion import candidates, hydra_line
from plugins.exits import bad_input
from plugins.experiment import CONF, import_family
from plugins.overrides import (
    FLAGS_HELP,
    config_dirs_of,
    config_name_of,
    experiments_text,
    listed_words,
    translate_argv,
    workers_of,
)

_HELP = {"--help", "-h"}
_MULTIRUN = {"--multirun", "-m"}
_COMPLETION = {"--shell-completion", "-sc"}
_SHOWS_KEYS = re.compile(r"^(?!.*(-p|--package)[ =]).*(--cfg|-c)[ =]job")
_WITHOUT_EXPERIMENT = {"--hydra-help", "--version", *_COMPLETION}


def main(hydra_main: Callable[[], None]) -> None:
    """Rewrite sys.argv into Hydra's arguments, register the experiment's family, run Hydra.

    Ends with exit status 2 for bad input, where Hydra itself would give 1. SIGTERM and SIGHUP, of a
    scheduler, a container's stop or a closed terminal, end a sweep as Ctrl-C does.
    """
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # the reader of a listing, such as head, may end
    headers = experiment_headers([Path(folder) for folder in config_dirs_of(sys.argv)])
    if "COMP_LINE" in os.environ and _COMPLETION & set(sys.argv) and _complete(list(headers)):
        return
    words = listed_words(sys.argv)
    try:
        for folder in config_dirs_of(sys.argv):
            if not Path(folder).is_dir():
                raise ValueError(f"--config-dir={folder}: there is no such folder")
        if words is not None:
            print(experiments_text(with_words(headers, words), words))
            return
        arguments = translate_argv(sys.argv[1:], list(headers))
        config_name, workers = config_name_of(arguments), workers_of(arguments)
        if config_name is not None:
            import_family(config_name.split("/")[0])
    except (ValueError, ImportError) as error:
        bad_input(error)
    if _HELP & set(arguments):
        print(FLAGS_HELP)
        if config_name is None:
            return
    elif config_name is None and not _WITHOUT_EXPERIMENT & set(arguments):
        print(experiments_text(headers))
        raise SystemExit(2)
    if config_name is None:
        arguments.append("--config-name=base")
    # Jobs start elsewhere and find the packages through the environment.
    paths = [str(CONF.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    sys.argv[1:] = arguments
    stopped_by = []

    def stop(number: int, frame: object) -> None:
        stopped_by.append(number)
        raise KeyboardInterrupt

    computes = _MULTIRUN & set(arguments) and "hydra.sweeper.dry_run=true" not in arguments
    if computes:
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # as Python has it: no run ends with a reader
    try:
        for number in processes.STOPPING:
            if signal.getsignal(number) == signal.SIG_DFL:  # nohup has them ignore SIGHUP
                signal.signal(number, stop)
        if workers and computes:
            processes.start(config_name.split("/")[0], workers)
        os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises its errors instead of printing them
        hydra_main()
        if _SHOWS_KEYS.search(" ".join(arguments)) and not config_dirs_of(arguments):
            GlobalHydra.instance().clear()
            print(axes_text(config_name), end="")
    except KeyboardInterrupt:  # while planning: nothing was started
        raise SystemExit(128 + stopped_by[0] if stopped_by else 130) from None
    except (SystemExit, Exception) as error:
        if stopped_by:  # Python makes a RuntimeError of an interrupt that meets some imports
            raise SystemExit(128 + stopped_by[0]) from None
        if isinstance(error, HydraException | OmegaConfBaseException | YAMLError):
            bad_input(refused(config_name, error))
        raise


def _complete(experiments: list[str]) -> bool:
    """Whether we have told a shell what may end its line; else the line is made ready for Hydra."""
    line = os.environ["COMP_LINE"]
    if found := candidates(line, experiments):
        print(*found, sep="\n")
        return True
    name, os.environ["COMP_LINE"] = hydra_line(line, experiments)
    sys.argv += [f"-cn={name}"] if name else []
    return False
