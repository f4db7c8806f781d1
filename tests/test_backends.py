"""Clusters: the same bits as on one machine, whatever machine dies, and nobody else can reach them."""

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import merged

from bench.kill import left_by
from utils.store.folder import finished_runs

pytestmark = pytest.mark.long

ROOT = Path(__file__).parent.parent
PATIENCE = 240
"""Seconds until something that should happen counts as not happening."""
RAY = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
RAY |= {"RAY_worker_niceness": "0"}
"""Environment of all that belongs to Ray: on loopback, with a token of its own, and not the last to be served."""
SLURM = ("sbatch", "srun", "squeue", "scancel", "scontrol")
"""Commands that tests/slurm_commands.py stands in for."""


def needs(package: str) -> pytest.MarkDecorator:
    there = importlib.util.find_spec(package) is not None
    return pytest.mark.skipif(not there, reason=f"{package} is not installed (requirements-cluster.txt)")


def options(folder: Path, *more: str) -> list[str]:
    """A run of two seeds that takes a few seconds, and can be resumed after each epoch."""
    keys = ["train.checkpoint_minutes=0", "train.epochs=6", "method.plot=no", "train.device=cpu"]
    return ["files/si_digits.yaml", "--seeds", "0-1", *more, "--set", f"train.save_path={folder}", *keys]


started: list[subprocess.Popen] = []


@pytest.fixture(autouse=True)
def nothing_is_left():
    """A test that failed leaves no process and no open pipe to the next one."""
    yield
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=PATIENCE)
    started.clear()


def begin(arguments: list[str], environment: dict[str, str] | None = None) -> subprocess.Popen:
    """Python in a session of its own."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    started.append(process)
    return process


def wait_until(happened: Callable[[], bool], process: subprocess.Popen) -> None:
    end = time.monotonic() + PATIENCE
    while not happened():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def trains(folder: Path) -> Callable[[], bool]:
    """Whether both seeds have begun, and can be resumed."""
    logs = [folder / f"exp_{seed}" / "experiment.log" for seed in (0, 1)]
    return lambda: all(log.exists() and "task 0 epoch 2" in log.read_text() for log in logs)


def resumed(folder: Path) -> int:
    """How often a seed went on from a checkpoint."""
    return sum(log.read_text().count("resuming in task") for log in folder.glob("exp_*/experiment.log"))


def finish(process: subprocess.Popen, traceback: bool = False) -> tuple[int, str, str]:
    out, error = process.communicate(timeout=PATIENCE)
    assert traceback or "Traceback" not in out + error
    return process.returncode, out, error


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """What the run leaves on one machine, without an interruption."""
    folder = tmp_path_factory.mktemp("one_machine") / "results"
    assert finish(begin(["main.py", *options(folder)]))[0] == 0
    return left_by(folder)


@pytest.mark.parametrize("backend", ["ray", "slurm"])
def test_a_missing_package_is_one_line(small, run, capsys, monkeypatch, tmp_path, backend):
    for name in ("RAY_ADDRESS", "RAY_DEDUP_LOGS", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"):
        monkeypatch.setenv(name, "")  # restored afterwards
    monkeypatch.setitem(sys.modules, {"ray": "ray", "slurm": "submitit"}[backend], None)
    assert run(small, "--backend", backend) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"--backend {backend}: ") and error.endswith("pip install -r requirements-cluster.txt\n")
    assert error.count("\n") == 1 and not (tmp_path / "results").exists()


def test_a_gpu_is_reserved_before_it_is_used(small, run, capsys):
    small["train"]["device"] = "cuda"
    assert run(small, "--backend", "ray") == 2
    assert "train.device: cuda on a cluster needs cluster.gpus" in capsys.readouterr().err
    small["cluster"] = {"gpus": 0.25}
    assert run(small, "--backend", "ray", "--check") == 0
    assert "device: cuda" in capsys.readouterr().out


@needs("ray")
def test_a_ray_cluster_that_is_not_there(tmp_path):
    command = ["main.py", *options(tmp_path, "--backend", "ray")]
    code, _, error = finish(begin(command, {"RAY_ADDRESS": "127.0.0.1:1"}))
    assert code == 2 and error.count("\n") == 1
    assert error.startswith("--backend ray: no cluster at RAY_ADDRESS=127.0.0.1:1 (")


@needs("ray")
def test_ray_on_this_machine_stops_goes_on_survives_a_kill_and_gives_the_same_bits(tmp_path, expected):
    folder = tmp_path / "results"
    command = ["main.py", *options(folder, "--backend", "ray")]
    process = begin(command, RAY)
    wait_until(trains(folder), process)
    assert listening_beyond_loopback(process.pid) == []
    os.killpg(process.pid, signal.SIGINT)
    code, _, error = finish(process)
    assert code == 130 and "interrupted by SIGINT; to resume:" in error and not finished_runs(folder)
    process = begin(command, RAY)
    wait_until(lambda: resumed(folder) == 2, process)
    os.kill(int(processes(process.pid, b"ray::_task")[0].name), signal.SIGKILL)
    code, _, error = finish(process)
    assert code == 0 and resumed(folder) == 3 and error.count("resumes from its last checkpoint") == 1, error
    assert left_by(folder) == expected


def processes(session: int, name: bytes = b"") -> list[Path]:
    """Of a session, with this in their command line, as their folders in /proc."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            own = int((process / "stat").read_text().rpartition(")")[2].split()[3]) == session
            if own and name in (process / "cmdline").read_bytes():
                found.append(process)
    return found


def listening_beyond_loopback(session: int) -> list[str]:
    """Addresses, as the kernel writes them, on which a process of the session listens for the network."""
    sockets = set()
    for process in processes(session):
        with contextlib.suppress(OSError):
            sockets |= {os.readlink(descriptor) for descriptor in (process / "fd").iterdir()}
    tables = [Path("/proc/net", name).read_text().splitlines()[1:] for name in ("tcp", "tcp6")]
    lines = [line.split() for table in tables for line in table]
    addresses = [f[1].partition(":")[0] for f in lines if f[3] == "0A" and f"socket:[{f[9]}]" in sockets]  # 0A: listens
    assert addresses, "nothing of Ray listens: these are the wrong processes"
    loopback = ("0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000")
    return [address for address in addresses if address not in loopback]


@needs("ray")
def test_a_ray_node_that_is_killed_loses_nothing(tmp_path, expected):
    folder = tmp_path / "results"
    cluster = begin(["tests/ray_nodes.py"], RAY)
    try:
        environment = {**RAY, "RAY_ADDRESS": cluster.stdout.readline().strip()}
        process = begin(["main.py", *options(folder, "--backend", "ray")], environment)
        wait_until(trains(folder), process)
        assert listening_beyond_loopback(cluster.pid) == []
        cluster.stdin.write("kill\n")
        cluster.stdin.flush()
        code, out, error = finish(process)
    finally:
        cluster.communicate(timeout=PATIENCE)  # its input ends, and so does it
    assert code == 0 and error.count("resumes from its last checkpoint") == 1, error
    assert resumed(folder) == 1 and "2 seeds (0, 1)" in out
    assert left_by(folder) == expected


@pytest.fixture
def slurm(tmp_path):
    """Slurm's commands on PATH; the jobs are processes of this machine."""
    for name in SLURM:
        command = tmp_path / "bin" / name
        command.parent.mkdir(exist_ok=True)
        command.write_text(f'#!/bin/sh\nexec {sys.executable} {ROOT}/tests/slurm_commands.py {name} "$@"\n')
        command.chmod(0o755)
    (tmp_path / "queue").mkdir()
    return {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "SLURM_COMMANDS_QUEUE": str(tmp_path / "queue")}


@needs("submitit")
def test_slurm_s_queue_stops_goes_on_is_requeued_and_gives_the_same_bits(tmp_path, expected, slurm):
    folder = tmp_path / "results"
    command = ["main.py", *options(folder, "--backend", "slurm")]
    process = begin(command, slurm)
    wait_until(trains(folder), process)
    os.kill(process.pid, signal.SIGTERM)
    code, _, error = finish(process)
    assert code == 130 and "interrupted by SIGTERM; to resume:" in error and not finished_runs(folder)
    process = begin(command, slurm)
    wait_until(lambda: resumed(folder) == 2, process)
    jobs = processes(process.pid, b"submitit.core._submit")
    os.kill(int(jobs[0].name), signal.SIGUSR2)  # as Slurm does, before it takes the machine away
    code, out, error = finish(process)
    assert code == 0 and resumed(folder) == 3 and "2 seeds (0, 1)" in out, error
    assert left_by(folder) == expected


@needs("submitit")
def test_without_slurm_nothing_is_submitted(small, run, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run(small, "--backend", "slurm") == 2
    assert capsys.readouterr().err.startswith("--backend slurm: there is no sbatch here")


@needs("submitit")
def test_jobs_that_an_earlier_command_left_are_not_submitted_again(small, run, capsys, monkeypatch, tmp_path, slurm):
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "bin" / "squeue").write_text("#!/bin/sh\necho 7_0; echo 7_1\n")
    assert run(small, "--backend", "slurm") == 2
    assert "jobs of an earlier command have not ended; wait, or end them: scancel 7\n" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


@needs("submitit")
@pytest.mark.parametrize(
    "what, said",
    [
        ("silent", "--backend slurm: squeue does not answer; try again when it does"),
        ("refuses", "--backend slurm: sbatch refused 2 jobs: sbatch: error: invalid account"),
    ],
)
def test_slurm_that_refuses_is_told_in_one_line(small, run, capfd, monkeypatch, tmp_path, slurm, what, said):
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "queue" / what).touch()
    assert run(small, "--backend", "slurm", "--seeds", "0-1") == 2
    error = capfd.readouterr().err
    assert said in error and "Traceback" not in error


@needs("submitit")
def test_what_was_submitted_is_cancelled_when_slurm_refuses_the_rest(small, run, capfd, monkeypatch, tmp_path, slurm):
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "queue" / "full").touch()
    other = merged(small, {"cluster": {"cpus": 2}, "train": {"save_path": str(tmp_path / "other")}})
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(other))
    assert run(small, str(tmp_path / "other.yaml"), "--backend", "slurm", "--seeds", "0-1") == 2
    assert "sbatch refused 2 jobs" in capfd.readouterr().err
    assert (tmp_path / "queue" / "1_0.cancelled").exists()
