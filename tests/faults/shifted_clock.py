"""`python shifted_clock.py HOURS sweep.py ARGS`: as on a host of another name whose clock is off.

A module's name in place of the file runs the module.
"""

import datetime
import runpy
import socket
import sys
import time
from pathlib import Path

import hydra  # noqa: F401 (these keep the true clock; what is ours is imported later)
import pandas  # noqa: F401 (pyarrow imports it where it is installed)
import polars  # noqa: F401
import pyarrow  # noqa: F401


def shift(off: datetime.timedelta) -> None:
    now, seconds = datetime.datetime.now, time.time

    class Shifted(datetime.datetime):
        @classmethod
        def now(cls, zone=None):
            return now(zone) + off

    time.time = lambda: seconds() + off.total_seconds()
    datetime.datetime = Shifted
    socket.gethostname = lambda: "elsewhere"


if __name__ == "__main__":
    shift(datetime.timedelta(hours=float(sys.argv[1])))
    sys.argv = sys.argv[2:]
    sys.path[0] = str(Path(sys.argv[0]).parent)
    run = runpy.run_path if sys.argv[0].endswith(".py") else runpy.run_module
    run(sys.argv[0], run_name="__main__")
