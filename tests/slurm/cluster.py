#!/usr/bin/env python3
"""A SLURM cluster of our own on one machine, for tests and to play with.

    python tests/slurm/cluster.py install             once, as root (Debian, Ubuntu)
    eval "$(python tests/slurm/cluster.py up)"        2 nodes of 2 slots; sets SLURM_CONF here
    sinfo; sbatch --wrap hostname; squeue
    python tests/slurm/cluster.py node-kill n2        a crash: slurmd and its jobs get SIGKILL
    python tests/slurm/cluster.py node-start n2
    python tests/slurm/cluster.py down

One munged, one slurmctld and N slurmd ("virtual nodes" n1..nN, all on 127.0.0.1) without systemd,
cgroups or a database. Everything is in one folder, so that several clusters run side by side.
Needs only the standard library: `install` runs before anything is installed.
"""

import argparse
import contextlib
import os
import pwd
import re
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

_PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
_PROGRAMS = ("munged", "slurmctld", "slurmd", "sinfo", "sbatch", "srun", "scancel", "scontrol")
_PATH = os.environ["PATH"] + ":/usr/sbin"  # where the daemons are, also for users who are not root
_PATIENCE = 20  # seconds until daemons and nodes must be up: 1 is usual


class ClusterError(Exception):
    """There is no cluster: why, and what helps."""


def missing_programs() -> list[str]:
    """SLURM's programs that this machine lacks."""
    return [name for name in _PROGRAMS if not shutil.which(name, path=_PATH)]


class Cluster:
    """The cluster of `folder`, an absolute path: all that is known of it is in there."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.conf = folder / "slurm.conf"

    def up(self, nodes: int = 2, cpus: int = 2, settings: Mapping[str, str] | None = None) -> None:
        """Start it; `settings` replace lines of slurm.conf, `cpus` may exceed the machine's.

        Raises ClusterError, with the reason and the end of the logs; nothing is left then.
        """
        if missing := missing_programs():
            raise ClusterError(f"no {', '.join(missing)}; as root: `python {__file__} install`")
        if self.folder.exists() and any(self.folder.iterdir()):
            raise ClusterError(f"{self.folder} is not empty; `down` ends a cluster that is in it")
        try:
            self._configure(nodes, cpus, settings or {})
            for name in ("munged", "slurmctld", *self.nodes()):
                self._start(name)
            self._wait(self.nodes())
        except BaseException:
            self.down()
            raise

    def down(self) -> None:
        """Kill its daemons and jobs, delete its folder. No cluster there is no error."""
        if self.conf.exists():
            for name in (*self.nodes(), "slurmctld", "munged"):
                self._kill(name)
            shutil.rmtree(self.folder)

    def nodes(self) -> list[str]:
        """Names of the virtual nodes: n1, n2, ..."""
        if not self.conf.exists():
            raise ClusterError(f"no cluster in {self.folder}: `up` starts one")
        return re.findall(r"^NodeName=(\w+)", self.conf.read_text(), re.MULTILINE)

    def kill(self, node: str) -> None:
        """SIGKILL to slurmd and to all processes of its jobs, as a power cut would."""
        self._check(node)
        self._kill(node)

    def start(self, node: str) -> None:
        """Start a node that was killed; returns when SLURM can use it."""
        self._check(node)
        if not self.is_alive(node):
            self._start(node)
        self._wait([node])

    def stop_controller(self) -> None:
        """An orderly end of slurmctld. Killed, it would forget the jobs of its last seconds."""
        self.run("scontrol", "shutdown", "slurmctld")
        while self.is_alive("slurmctld"):
            time.sleep(0.01)

    def start_controller(self) -> None:
        """Returns when it can use the nodes that live."""
        self._start("slurmctld")
        self._wait([node for node in self.nodes() if self.is_alive(node)])

    def is_alive(self, name: str) -> bool:
        """Whether a process is left of "munged", "slurmctld" or a node."""
        return any(self._processes(name))

    def node_states(self) -> dict[str, str]:
        """Node -> "idle", "mixed", "allocated", "down*", ...; empty when the controller is away."""
        out = self.run("sinfo", "-h", "-N", "-p", "main", "-o", "%N %T").stdout
        return dict(line.split() for line in out.splitlines())

    def run(self, *command: str) -> subprocess.CompletedProcess:
        """A command of SLURM on this cluster, to its end, output as text."""
        return subprocess.run(command, env=self.environment(), capture_output=True, text=True)

    def environment(self) -> dict[str, str]:
        """Ours, with this cluster; without an allocation that we run in, which would bend jobs."""
        prefixes = ("SLURM", "SBATCH_", "SRUN_", "SQUEUE_", "SINFO_", "SCONTROL_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
        return {**kept, "PATH": _PATH, "SLURM_CONF": str(self.conf)}

    def _check(self, node: str) -> None:
        if node not in self.nodes():
            raise ClusterError(f"no node {node!r}: one of {', '.join(self.nodes())}")

    def _configure(self, nodes: int, cpus: int, settings: Mapping[str, str]) -> None:
        socket_path = self.folder / "munge" / "socket"
        if len(str(socket_path)) > 100:
            raise ClusterError(f"path too long for a unix socket, choose another: {self.folder}")
        names = [f"n{i + 1}" for i in range(nodes)]
        for name in ("munge", "slurmctld", *names):
            (self.folder / name).mkdir(parents=True)
        key = self.folder / "munge" / "key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))
        host, user = socket.gethostname(), pwd.getpwuid(os.getuid()).pw_name
        ports = _free_ports(nodes + 1)
        lines = {
            "ClusterName": "test",
            "SlurmctldHost": f"{host}(127.0.0.1)",  # slurmctld compares the name with the host's
            "SlurmctldPort": ports.pop(),
            "SlurmUser": user,
            "SlurmdUser": user,
            "AuthInfo": f"socket={socket_path}",
            "StateSaveLocation": self.folder / "slurmctld",
            "SlurmctldPidFile": self.folder / "slurmctld.pid",
            "SlurmctldLogFile": self.folder / "slurmctld.log",
            "SlurmdSpoolDir": self.folder / "%n",
            "SlurmdPidFile": self.folder / "%n.pid",
            "SlurmdLogFile": self.folder / "%n.log",
            # Without cgroups: processes from /proc, their memory polled (a job over its --mem ends
            # as FAILED, not as OUT_OF_MEMORY), nothing bound.
            "ProctrackType": "proctrack/linuxproc",
            "TaskPlugin": "task/none",
            "JobAcctGatherType": "jobacct_gather/linux",
            "JobAcctGatherFrequency": "task=1",
            "JobAcctGatherParams": "OverMemoryKill",
            "PropagateResourceLimits": "NONE",
            # Nodes may claim more than the machine has.
            "SlurmdParameters": "config_overrides",
            "SelectType": "select/cons_tres",
            "SelectTypeParameters": "CR_CPU_Memory",
            "DefMemPerCPU": 1024,
            # React in seconds. Slow remain: a lost node is noticed after 15 to 30 s (its jobs after
            # 60 s if it is back by then), a time limit (whole minutes) up to 30 s late; a requeued
            # job waits for 120 s, or for `scontrol update jobid=ID StartTime=now`.
            "SchedulerParameters": "batch_sched_delay=0,sched_interval=1,bf_interval=1",
            "KillWait": 2,
            "SlurmdTimeout": 10,
            "ReturnToService": 2,  # a node that was down takes jobs again by itself
            # Jobs of partition `urgent` push those of `main` out, back into the queue.
            "PreemptType": "preempt/partition_prio",
            "PreemptMode": "REQUEUE",
        }
        text = [f"{name}={value}" for name, value in {**lines, **settings}.items()]
        node = f"NodeHostname={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={4096 * cpus}"
        text += [f"NodeName={n} Port={port} {node}" for n, port in zip(names, ports, strict=True)]
        text.append("PartitionName=main Nodes=ALL Default=YES PriorityTier=1")
        text.append("PartitionName=urgent Nodes=ALL PriorityTier=10 PreemptMode=OFF")
        # Never used, but slurmd loads the plugin of the cgroups that it finds: v2 fails without
        # systemd, as in a container, and none fails too. v1 starts anywhere.
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        self.conf.write_text("\n".join(text) + "\n")

    def _start(self, name: str) -> None:
        """A daemon, which goes to the background by itself once it has read its configuration."""
        munge = self.folder / "munge"
        if name == "munged":
            files = [f"--{kind}-file={munge / kind}" for kind in ("key", "pid", "log", "seed")]
            command = ["munged", "--force", *files, f"--socket={munge / 'socket'}"]
        elif name == "slurmctld":
            command = ["slurmctld"]
        else:
            command = ["slurmd", "-N", name]
        # SLURM sets SLURMD_NODENAME for the processes of jobs. With it in the daemons as well, one
        # rule finds all processes of a node, also slurmstepd, which outlives slurmd.
        environment = {**self.environment(), "SLURMD_NODENAME": name}
        null = subprocess.DEVNULL
        with (self.folder / "start.log").open("a") as log:
            done = subprocess.run(
                command, cwd=self.folder, env=environment, stdin=null, stdout=null, stderr=log
            )
        if done.returncode:
            raise ClusterError(f"{name} does not start\n{self._logs()}")

    def _wait(self, nodes: Sequence[str]) -> None:
        """Until the controller answers and can use `nodes`."""
        usable = {"idle", "mixed", "allocated", "completing"}  # "idle*": it does not answer
        deadline = time.monotonic() + _PATIENCE
        while not (states := self.node_states()) or not {states[node] for node in nodes} <= usable:
            if time.monotonic() > deadline:
                raise ClusterError(f"not up after {_PATIENCE} s\n{self._logs()}")
            time.sleep(0.05)

    def _logs(self) -> str:
        tails = {path: path.read_text().splitlines()[-8:] for path in self.folder.glob("*.log")}
        return "\n".join(f"--- {path.name}\n" + "\n".join(tails[path]) for path in sorted(tails))

    def _kill(self, name: str) -> None:
        """SIGKILL until there is no process left: one may fork while we look.

        All are stopped first: whoever is killed later would tell the controller of a failed job.
        """
        for pid in self._processes(name):
            _send(pid, signal.SIGSTOP)
        while pids := list(self._processes(name)):
            for pid in pids:
                _send(pid, signal.SIGKILL)
            time.sleep(0.01)

    def _processes(self, name: str) -> Iterator[int]:
        """Pids of a daemon, of a node with its jobs."""
        marks = {f"SLURM_CONF={self.conf}".encode(), f"SLURMD_NODENAME={name}".encode()}
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # ended meanwhile, or somebody else's
                if marks <= set((process / "environ").read_bytes().split(b"\0")):
                    yield int(process.name)


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _free_ports(n: int) -> list[int]:
    """Ports that were free a moment ago, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(n)]
        return [each.getsockname()[1] for each in sockets]


def install() -> None:
    """Install SLURM's Debian packages where they are missing. Starts no daemon."""
    if not (missing := missing_programs()):
        return
    command = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *_PACKAGES]
    if os.getuid() or not shutil.which("apt-get"):
        raise ClusterError(
            f"no {', '.join(missing)}; root of a Debian or Ubuntu machine gets them by "
            f"`{shlex.join(command)}`"
        )
    # Where systemd runs, the packages would start daemons of their own.
    policy = Path("/usr/sbin/policy-rc.d")
    if is_ours := not policy.exists():
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        if subprocess.run(command, env=environment).returncode:  # no package lists, or old ones
            subprocess.run(["apt-get", "update", "-q"], env=environment)
            subprocess.run(command, env=environment)
    finally:
        if is_ours:
            policy.unlink()
    if missing := missing_programs():
        raise ClusterError(f"apt-get did not bring {', '.join(missing)}")


def _setting(text: str) -> tuple[str, str]:
    if "=" not in text:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return tuple(text.split("=", 1))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Path(tempfile.gettempdir()) / f"slurm-{os.getuid()}"
    parser.add_argument("--state", type=Path, default=default, help=f"its folder ({default})")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("install", help="install SLURM's packages, as root")
    up = verbs.add_parser("up", help="start it, print the line that sets SLURM_CONF")
    up.add_argument("--nodes", type=int, default=2)
    up.add_argument("--cpus", type=int, default=2, help="slots of each node")
    up.add_argument("--set", action="append", default=[], type=_setting, metavar="KEY=VALUE")
    verbs.add_parser("status", help="which daemons live, what SLURM says of the nodes")
    verbs.add_parser("node-kill", help="SIGKILL to slurmd and its jobs").add_argument("node")
    verbs.add_parser("node-start", help="the node comes back").add_argument("node")
    verbs.add_parser("down", help="kill daemons and jobs, delete the folder")
    args = parser.parse_args()
    cluster = Cluster(args.state.absolute())
    try:
        if args.verb == "install":
            install()
        elif args.verb == "up":
            cluster.up(args.nodes, args.cpus, dict(args.set))
            print(f"export SLURM_CONF={shlex.quote(str(cluster.conf))}")
        elif args.verb == "status":
            names = ("munged", "slurmctld", *cluster.nodes())
            states = cluster.node_states()
            for name in names:
                life = "alive" if cluster.is_alive(name) else "dead"
                print(f"{name:10}{life:7}{states.get(name, '')}")
        elif args.verb == "node-kill":
            cluster.kill(args.node)
        elif args.verb == "node-start":
            cluster.start(args.node)
        else:
            cluster.down()
    except ClusterError as error:
        parser.exit(2, f"cluster: {error}\n")


if __name__ == "__main__":
    main()
