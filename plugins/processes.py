"""The units of `--workers N`: a process each on this machine.

They are forked at the start of the command, once the family is imported, which may take seconds,
and before polars or a GPU is used, which would not survive a fork; then they wait for the plan.
"""

import atexit
import contextlib
import importlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

from plugins.experiment import experiments

STOPPING = (signal.SIGTERM, signal.SIGHUP)  # end a sweep as Ctrl-C does
_STOP = 10.0  # seconds that units get to stop after Ctrl-C
_CONTEXT = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")


class _Worker(NamedTuple):
    process: multiprocessing.Process
    orders: Connection  # takes (plan file, unit, log); nothing, and closed: there is no work


_waiting: list[_Worker] = []


def start(family: str, workers: int) -> None:
    """Import what the family's runs need, and start processes that wait for `run_units`."""
    for experiment in experiments(family):
        importlib.import_module((experiment.run_stack or experiment.run).partition(":")[0])
    atexit.register(_dismiss)  # before multiprocessing waits for them
    with _interrupts_held_back():
        for _ in range(workers):
            receiver, sender = _CONTEXT.Pipe(duplex=False)
            senders = [sender, *(worker.orders for worker in _waiting)]
            inherited = senders if _CONTEXT.get_start_method() == "fork" else []
            process = _CONTEXT.Process(target=_work, args=(receiver, inherited))
            process.start()
            receiver.close()
            _waiting.append(_Worker(process, sender))


def waiting() -> int:
    """How many processes wait for `run_units`."""
    return len(_waiting)


def run_units(plan_file: Path, n_units: int) -> None:
    """Run units 0 .. n_units - 1 side by side, to the end of all of them.

    What a unit prints stands in `logs/<plan>-<unit>.log` of the store, if it prints anything.
    """
    logs = plan_file.parent.parent / "logs"
    logs.mkdir(exist_ok=True)
    running = []
    try:
        for unit in range(n_units):
            worker = _waiting.pop()
            log = logs / f"{plan_file.stem}-{unit}.log"
            running.append((worker.process, log))
            with contextlib.suppress(BrokenPipeError):  # killed while it waited: told below
                worker.orders.send((plan_file, unit, log))
        _dismiss()
        for process, _ in running:
            # One long wait would hold back a Ctrl-C that met another thread.
            while process.is_alive():
                process.join(0.1)
    except KeyboardInterrupt:
        _stop([process for process, _ in running])
        raise
    for process, log in running:
        if process.exitcode:
            print(
                f"a unit stopped with exit status {process.exitcode}; its log: {log}",
                file=sys.stderr,
            )


@contextlib.contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """A Ctrl-C is raised at the end: in the middle of a fork Python would drop it, and between two
    lines a process would be started that nobody knows. So are the signals that are like it."""
    came = []
    usual = {
        number: signal.signal(number, lambda number, frame: came.append(number))
        for number in (signal.SIGINT, *STOPPING)
        if signal.getsignal(number) != signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
    for number in came[:1]:
        signal.raise_signal(number)


def _stop(processes: list[multiprocessing.Process]) -> None:
    """Pass Ctrl-C on, also to units that have not reported yet; give them time to publish."""
    for process in processes:
        if process.is_alive():
            os.kill(process.pid, signal.SIGINT)
    deadline = time.monotonic() + _STOP
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        process.kill()  # or we would wait for it at our exit; what it published stays
        process.join()


def _interrupt_once(number: int, frame: object) -> None:
    """The driver passes on what may have reached us too: a second must not meet the last flush."""
    for other in (signal.SIGINT, *STOPPING):
        signal.signal(other, signal.SIG_IGN)
    raise KeyboardInterrupt


def _dismiss() -> None:
    """Tell the processes that got no unit to end."""
    while _waiting:
        _waiting.pop().orders.close()


def _work(orders: Connection, inherited: list[Connection]) -> None:
    os.setsid()  # Ctrl-C in a terminal reaches the driver alone, which passes it on once
    for number in (signal.SIGINT, *STOPPING):  # there is nothing to lose yet
        signal.signal(number, signal.SIG_DFL)
    for sender in inherited:  # open here, they would never read as closed
        sender.close()
    from plugins.parts import CannotPublish
    from plugins.worker import run_unit  # while the driver plans

    try:
        plan_file, unit, log = orders.recv()
    except EOFError:
        return
    for number in (signal.SIGINT, *STOPPING):
        signal.signal(number, _interrupt_once)
    terminal = os.dup(2)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    for descriptor in (1, 2):
        os.dup2(file, descriptor)
    sys.stdout = sys.stderr = os.fdopen(file, "w", buffering=1)  # the command may have none
    try:
        run_unit(plan_file, unit)
    except CannotPublish as error:  # a full disk may not hold the log either
        os.write(terminal, f"error: {error}\n".encode())
        raise SystemExit(1) from None
    sys.stdout.flush()
    if not log.stat().st_size:
        log.unlink()
