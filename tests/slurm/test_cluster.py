"""The cluster of these tests: it runs jobs, loses nodes, and leaves nothing behind."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cluster import ClusterError

HERE = Path(__file__).parent


def slurm(*command: str) -> str:
    """Output of a command of SLURM on the cluster that the environment names."""
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def read_when_written(path: Path) -> str:
    """The first line of a file that a job writes."""
    deadline = time.monotonic() + 30
    while not (path.exists() and path.read_text().endswith("\n")):
        assert time.monotonic() < deadline, f"no {path}: {slurm('squeue')}"
        time.sleep(0.05)
    return path.read_text().strip()


def is_alive(pid: str) -> bool:
    """Zombies are dead: in a container nobody may collect them."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def processes_of(folder: Path) -> list[str]:
    """Command lines of processes that have to do with a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command, variables = ((process / name).read_bytes() for name in ("cmdline", "environ"))
        except OSError:
            continue
        if str(folder).encode() in command + variables:
            found.append(command.replace(b"\0", b" ").decode())
    return found


def test_a_job_runs(cluster, tmp_path):
    wrap = "srun sh -c 'echo $SLURMD_NODENAME $SLURM_CPUS_PER_TASK'"
    slurm("sbatch", "--wait", "-w", "n2", "-c", "2", "-o", f"{tmp_path}/out", "--wrap", wrap)
    assert (tmp_path / "out").read_text() == "n2 2\n"


def test_a_killed_node_takes_its_jobs_along_and_comes_back(cluster, tmp_path):
    """Also a process that has left the job's session and has no parent in the job any more."""
    pids = {}
    for node in ("n1", "n2"):
        wrap = f"(setsid sleep 600 & echo $! > {tmp_path}/{node}); sleep 600"
        slurm("sbatch", "-w", node, "-o", "/dev/null", "--wrap", wrap)
        pids[node] = read_when_written(tmp_path / node)
    cluster.kill("n2")
    assert not cluster.is_alive("n2")
    assert not is_alive(pids["n2"])
    assert is_alive(pids["n1"])
    while cluster.node_states()["n2"] != "down*":
        time.sleep(0.1)
    cluster.start("n2")
    out = slurm("srun", "-w", "n2", "-c", "2", "--immediate=10", "printenv", "SLURMD_NODENAME")
    assert out == "n2"
    assert is_alive(pids["n1"])
    slurm("scancel", "--user", str(os.getuid()))


def test_the_controller_comes_back_with_its_jobs(cluster, tmp_path):
    job = slurm("sbatch", "--parsable", "-o", "/dev/null", "--wrap", "sleep 600")
    cluster.stop_controller()
    assert not cluster.is_alive("slurmctld")
    assert cluster.is_alive("n1")
    cluster.start_controller()
    assert slurm("squeue", "-h", "-j", job, "-o", "%T") in ("PENDING", "RUNNING")
    slurm("scancel", job)


def test_down_leaves_no_process_and_no_folder(cluster, second_cluster, tmp_path):
    """And the cluster beside it as it is."""
    second_cluster.up(nodes=1, cpus=3, settings={"MaxArraySize": "4"})
    assert second_cluster.node_states() == {"n1": "idle"}
    for last, status in ((3, 0), (4, 1)):
        wrap = f"echo $$ > {tmp_path}/$SLURM_ARRAY_TASK_ID; sleep 600"
        done = second_cluster.run("sbatch", f"--array=0-{last}", "-o", "/dev/null", "--wrap", wrap)
        assert done.returncode == status, done.stderr
    pids = [read_when_written(tmp_path / str(task)) for task in range(3)]
    assert all(map(is_alive, pids))
    second_cluster.down()
    assert not any(map(is_alive, pids))
    assert processes_of(second_cluster.folder) == []
    assert not second_cluster.folder.exists()
    assert cluster.node_states().keys() == {"n1", "n2"}
    slurm("srun", "true")


def test_a_cluster_that_does_not_start_says_why_and_leaves_nothing(second_cluster):
    with pytest.raises(ClusterError, match="unrecognized key: NoSuchKey"):
        second_cluster.up(settings={"NoSuchKey": "1"})
    assert processes_of(second_cluster.folder) == []
    assert not second_cluster.folder.exists()


def test_it_is_a_command_as_well(second_cluster):
    program = f"{sys.executable} {HERE / 'cluster.py'} --state {second_cluster.folder}"

    def shell(commands: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            ["bash", "-c", commands.replace("CLUSTER", program)], capture_output=True, text=True
        )

    done = shell('eval "$(CLUSTER up --nodes 3)" && srun -N 3 -l printenv SLURMD_NODENAME | sort')
    assert done.stdout == "0: n1\n1: n2\n2: n3\n", done.stderr
    shell("CLUSTER node-kill n3")
    lines = shell("CLUSTER status").stdout.splitlines()
    assert [line.split()[:2] for line in lines if "dead" in line] == [["n3", "dead"]]
    assert shell("CLUSTER node-start n3").returncode == 0
    for wrong in ("node-kill n4", "up", "up --set nonsense"):
        done = shell(f"CLUSTER {wrong}")
        assert done.returncode == 2, done
        assert "Traceback" not in done.stderr
    assert shell("CLUSTER down").returncode == 0
    assert processes_of(second_cluster.folder) == []
    assert "no cluster in" in shell("CLUSTER status").stderr


@pytest.mark.parametrize(("required", "outcome"), [("", "1 skipped"), ("1", "1 error")])
def test_without_slurm_the_tests_are_skipped_unless_it_is_required(tmp_path, required, outcome):
    test = f"{HERE / 'test_cluster.py'}::test_a_job_runs"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "0", "-rs", "-p", "no:cacheprovider", test],
        env={**os.environ, "PATH": str(tmp_path), "DYNASCOPE_REQUIRE_SLURM": required},
        capture_output=True,
        text=True,
    )
    assert outcome in done.stdout
    assert "no sinfo, sbatch, srun, scancel, scontrol; as root: `python" in done.stdout
