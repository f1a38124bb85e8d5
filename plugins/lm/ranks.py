"""One run in several processes of this machine, which share the work of a training step."""

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import TYPE_CHECKING, Any

from plugins.lm.devices import resolve_device

if TYPE_CHECKING:
    import torch

_CALL, _RESULT, _PROGRESS = "call.pkl", "result.pkl", "progress"
_LOOK = 0.1  # seconds between looks at the ranks
# What gloo and nccl raise in the other ranks where one was killed; the log says which.
_OF_THOSE_WHO_WAIT = ("RuntimeError", "DistBackendError")


@dataclass(frozen=True)
class World:
    """This process among those of a run."""

    rank: int = 0
    size: int = 1
    progress: Path | None = None  # file for the fraction done, of rank 0

    def device(self, device: str) -> "torch.device":
        """Of a rank on a machine with several GPUs, its own."""
        import torch

        found = resolve_device(device)
        is_any_gpu = found.type == "cuda" and found.index is None
        return torch.device("cuda", self.rank) if self.size > 1 and is_any_gpu else found

    def sum(self, tensor: "torch.Tensor") -> "torch.Tensor":
        """Over all ranks, in place."""
        if self.size > 1:
            import torch

            torch.distributed.all_reduce(tensor)
        return tensor

    def report(self, fraction: float) -> None:
        """To the process that launched the ranks."""
        if self.progress:
            aside = self.progress.with_suffix(".tmp")
            aside.write_text(str(fraction))
            aside.rename(self.progress)


ALONE = World()


def launch(
    function: Callable[..., Any],
    arguments: Sequence[Any],
    processes: int,
    on_progress: Callable[[float], None] | None = None,
) -> Any:
    """function(world, *arguments) in every rank; what rank 0 returns, or what a rank raised.

    By torch's launcher, which is also accelerate's where there are GPUs; on CPUs accelerate starts
    one process only, or needs MPI.
    """
    with TemporaryDirectory(prefix="ranks-") as folder:
        call = Path(folder, _CALL)
        call.write_bytes(pickle.dumps((function, tuple(arguments))))
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc_per_node", str(processes), "-m", "plugins.lm.ranks", str(call)]
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        log = Path(folder, "log")
        with open(log, "w") as output:
            launcher = subprocess.Popen(
                command,
                env=os.environ | {"PYTHONPATH": path},
                stdin=subprocess.PIPE,  # read by the ranks: its end is that of this process
                stdout=output,
                stderr=output,
            )
            try:
                while launcher.poll() is None:
                    time.sleep(_LOOK)
                    _report(Path(folder, _PROGRESS), on_progress)
            finally:
                launcher.terminate()  # which ends the ranks, too
                launcher.wait()
        if launcher.returncode == 0:
            return pickle.loads(Path(folder, _RESULT).read_bytes())
        errors = Path(folder).glob("error-*.pkl")
        # The first: other ranks fail only because it is gone.
        for file in sorted(errors, key=lambda file: file.stat().st_mtime_ns)[:1]:
            error = pickle.loads(file.read_bytes())
            if type(error).__name__ not in _OF_THOSE_WHO_WAIT:
                raise error
        # The launcher writes 2,500 characters of its own after what the rank has said.
        raise RuntimeError(f"a rank of processes={processes} died:\n{log.read_text()[-6000:]}")


def _report(file: Path, on_progress: Callable[[float], None] | None) -> None:
    if on_progress and file.is_file():
        on_progress(float(file.read_text()))


def _end_with_launching_process() -> None:
    """However that ends: one killed for its memory can end nobody."""

    def watch() -> None:
        os.read(sys.stdin.fileno(), 1)
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def _main(call: Path) -> None:
    import torch

    _end_with_launching_process()
    rank = int(os.environ["RANK"])
    progress = call.with_name(_PROGRESS) if rank == 0 else None
    world = World(rank, int(os.environ["WORLD_SIZE"]), progress)
    function, arguments = pickle.loads(call.read_bytes())
    torch.distributed.init_process_group()  # gloo for tensors of a CPU, nccl of a GPU
    try:
        result = function(world, *arguments)
    except Exception as error:
        call.with_name(f"error-{world.rank}.pkl").write_bytes(pickle.dumps(error))
        raise
    if world.rank == 0:
        call.with_name(_RESULT).write_bytes(pickle.dumps(result))
    torch.distributed.destroy_process_group()
    # Without the interpreter's end, at which a thread of torch aborts one rank in ten.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
