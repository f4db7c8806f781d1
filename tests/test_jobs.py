"""Seeds and files side by side: the same bits, and nobody takes another one down."""

import contextlib
import fcntl
import functools
import io
import json
import os
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from conftest import method_settings

import datasets
from bench.kill import left_by
from utils.config.schema import ClusterConfig, Config
from utils.queue import launch
from utils.queue.local_jobs import Job, run_side_by_side
from utils.run.signals import Stop
from utils.settings import BadInput
from utils.store import log
from utils.store.folder import RunFolder, check_free, finished_runs, locked

pytestmark = pytest.mark.long

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", ["prer", "si"])
def test_jobs_give_the_same_bits_as_one_after_the_other(small, run, tmp_path, capsys, name):
    small["method"] = method_settings(name)
    small["train"]["experiments"] = 3
    for folder, options in (("one", ["--jobs", "1"]), ("two", ["--jobs", "2"]), ("auto", ["--jobs", "auto"])):
        small["train"]["save_path"] = str(tmp_path / folder)
        assert run(small, *options) == 0
        assert "3 seeds (0, 1, 2)" in capsys.readouterr().out
    assert left_by(tmp_path / "one") == left_by(tmp_path / "two") == left_by(tmp_path / "auto")


def ends(how: str, folder: Path, stop: Stop) -> int:
    """What a job may do."""
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "raises":
        raise RuntimeError("not caught by anybody")
    if how == "waits":
        (folder / f"{os.getpid()}").touch()
        while not stop.requested:
            time.sleep(0.01)
        (folder / f"{os.getpid()}").rename(folder / f"{os.getpid()}-stopped")
    return 3 if how == "returns 3" else 0


def job(how: str, folder: Path) -> Job:
    return Job(how, functools.partial(ends, how, folder), ClusterConfig())


def test_a_job_that_dies_takes_no_other_with_it(tmp_path):
    jobs = [job(how, tmp_path) for how in ("killed", "fine", "raises", "returns 3", "fine")]
    assert dict(run_side_by_side(jobs, 2, Stop())) == {0: -9, 1: 0, 2: 1, 3: 3, 4: 0}


class Once(Stop):
    """Asked to stop as soon as two jobs wait."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def requested(self) -> str | None:
        return "SIGUSR1" if len(list(self.folder.iterdir())) >= 2 else None


def test_a_request_to_stop_reaches_the_jobs_and_no_other_begins(tmp_path):
    ended = list(run_side_by_side([job("waits", tmp_path)] * 5, 2, Once(tmp_path)))
    assert sorted(ended) == [(0, 0), (1, 0)]
    assert len(list(tmp_path.glob("*-stopped"))) == 2


def test_jobs_stop_save_and_go_on(tmp_path):
    """Ctrl-C at a terminal reaches every process there; the program passes it on once."""
    settings = [f"train.save_path={tmp_path / 'results'}", "method.plot=no", "train.epochs=30", "train.device=cpu"]
    options = ["files/naive_digits.yaml", "--seeds", "0-2", "--jobs", "2", "--set", *settings]
    command = {"args": [sys.executable, "main.py", *options], "cwd": ROOT, "text": True}
    command |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(**command, start_new_session=True) as process:
        for line in process.stdout:
            if "epoch 1" in line:
                os.killpg(process.pid, signal.SIGINT)
                break
        out, error = process.communicate()
    assert process.returncode == 130 and "interrupted by SIGINT; to resume:" in error and "Traceback" not in out + error
    assert not finished_runs(tmp_path / "results")
    done = subprocess.run(**command, check=False)
    assert done.returncode == 0 and "resuming in task" in done.stdout and "3 seeds (0, 1, 2)" in done.stdout


@pytest.mark.parametrize("jobs", ["1", "2"])
@pytest.mark.parametrize("opened", [os.pipe, os.openpty], ids=["pipe", "terminal"])
def test_seeds_outlive_whoever_read_what_they_say(tmp_path, opened, jobs):
    """`| head` ends, a terminal is closed: the results are there, and so is the comparison of them."""
    read, write = opened()
    os.close(read)
    settings = [f"train.save_path={tmp_path / 'results'}", "method.plot=no", "train.epochs=1", "train.device=cpu"]
    run = ["files/naive_digits.yaml", "--seeds", "0-1", "--jobs", jobs, "--set", *settings]
    compare = ["--compare", str(tmp_path / "results"), "--out", str(tmp_path / "compared")]
    for options in (run, compare):
        command = [sys.executable, "main.py", *options]
        assert subprocess.run(command, cwd=ROOT, stdout=write, stderr=write, check=False).returncode == 0
    os.close(write)
    assert set(finished_runs(tmp_path / "results")) == {0, 1} and (tmp_path / "compared" / "report.html").exists()


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_seeds_need_no_standard_streams(tmp_path, jobs):
    settings = f"'train.save_path={tmp_path / 'results'}' method.plot=no train.epochs=1 train.device=cpu"
    run = f"'{sys.executable}' main.py files/naive_digits.yaml --seeds 0-1 --jobs {jobs} --set {settings}"
    assert subprocess.run(f"{run} <&- >&- 2>&-", shell=True, cwd=ROOT, check=False).returncode == 0
    assert set(finished_runs(tmp_path / "results")) == {0, 1}


ASCII = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}


@pytest.mark.parametrize(
    ("temporary", "locale", "flags"),
    [(b"a" * 100, ASCII, ["-P"] if sys.version_info >= (3, 11) else []), (b"b\xff\xfe", {"LC_ALL": "C"}, [])],
    ids=["long", "not UTF-8"],
)
def test_odd_surroundings_change_nothing(tmp_path, temporary, locale, flags):
    """A TMPDIR too long for a socket, `python -P`, which does not look beside main.py, ASCII, another directory."""
    folder = os.path.join(os.fsencode(tmp_path), temporary)
    os.mkdir(folder)
    settings = [f"train.save_path={tmp_path / 'results'}", "method.plot=no", "train.epochs=1", "train.device=cpu"]
    program, file = [sys.executable, *flags, str(ROOT / "main.py")], str(ROOT / "files" / "naive_digits.yaml")
    how = {"cwd": tmp_path, "env": {**os.environ, **locale, "TMPDIR": os.fsdecode(folder)}}
    for command in ([file, "--seeds", "0-1", "--jobs", "2", "--set", *settings], ["--compare", "results"]):
        done = subprocess.run([*program, *command], capture_output=True, check=False, **how)
        assert (done.returncode, done.stderr) == (0, b"")
    assert set(finished_runs(tmp_path / "results")) == {0, 1} and (tmp_path / "comparison" / "report.html").exists()


def test_on_a_terminal_each_job_has_a_line_that_fits_and_ticks(tmp_path):
    here, there = os.openpty()
    fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 60, 0, 0))
    settings = [f"train.save_path={tmp_path / 'r'}", "method.plot=no", "train.epochs=12", "train.device=cpu"]
    options = ["files/naive_digits.yaml", "--seeds", "0-1", "--jobs", "2", "--set", *settings]
    said = b""
    with subprocess.Popen(
        [sys.executable, "main.py", *options], cwd=ROOT, stdout=subprocess.PIPE, stderr=there
    ) as program:
        os.close(there)
        with contextlib.suppress(OSError):  # a terminal that nobody has open any more
            while more := os.read(here, 10_000):
                said += more
        assert program.wait() == 0
    os.close(here)
    lines = [line for line in re.split(r"[\r\n]|\x1b\[A", said.decode()) if line.strip()]
    assert max(map(len, lines)) < 60
    assert len({line for line in lines if re.search(r"r seed 0 \[00:\d\d\], ", line)}) > 3, lines


def test_a_line_of_status_has_the_parts_of_all_levels(monkeypatch):
    said = io.StringIO()
    monkeypatch.setattr(log, "status", said)
    monkeypatch.setattr(log.multiprocessing, "parent_process", lambda: 1)
    with log.bar(5, "seed 0", 1, "task", done=2), log.bar(20, "task 2", 2, "epoch") as inner:
        inner.set_postfix_str("loss 0.5")
        assert said.getvalue().endswith("2/5 tasks, task 2: 0/20 epochs, loss 0.5")
    assert log._Part.texts == {1: "", 2: ""}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2, signal.SIGINT])
def test_a_signal_while_the_program_starts_says_how_to_resume(tmp_path, number):
    """At any moment after the first imports, which take a tenth of a second."""
    settings = [f"train.save_path={tmp_path / 'results'}", "train.epochs=500", "train.device=cpu"]
    command = [sys.executable, "main.py", "files/naive_digits.yaml", "--restart", "--jobs", "2", "--set", *settings]
    for seconds in (0, 0.3, 1, 2):
        with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True) as program:
            while signal.SIGTERM not in caught_by(program.pid):
                time.sleep(0.005)
            time.sleep(seconds)
            os.killpg(program.pid, number)
            said = program.communicate()[1]
        assert program.returncode == 130 and f"interrupted by {number.name}; to resume: " in said
        assert "Traceback" not in said and "--restart" not in said


def test_a_signal_during_an_import_ends_the_program_without_an_exception(tmp_path):
    """Which C++ code that imports a module turns into an abort; `except` stands for it."""
    (tmp_path / "slow.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\nfor _ in range(9): pass"
    )
    program = """
from utils.run.signals import interruptible
with interruptible(lambda interruption: print(f"interrupted{interruption}", flush=True) or 130):
    try:
        import slow
    except BaseException:
        raise SystemExit(6)
"""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (130, "interrupted by SIGTERM\n")


def caught_by(pid: int) -> list[int]:
    """The signals that a process handles."""
    mask = int(next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "SigCgt" in line)[7:], 16)
    return [number for number in signal.Signals if mask >> (number - 1) & 1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
@pytest.mark.parametrize("seconds", [0.5, 2, 4, 6, None], ids=lambda seconds: str(seconds or "running"))
def test_a_signal_to_the_whole_group_ends_the_jobs_before_the_program(tmp_path, number, seconds):
    """As a scheduler sends it; also while the program and its jobs are starting."""
    root = tmp_path / "results"
    settings = [f"train.save_path={root}", "method.plot=no", "train.epochs=500", "train.device=cpu"]
    options = ["--seeds", "0-1", "--jobs", "2", "--set", *settings]
    command = [sys.executable, "main.py", "files/naive_digits.yaml", *options]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True) as program:
        if seconds is None:
            while not all((root / f"exp_{seed}" / "state.pt").exists() for seed in (0, 1)):
                time.sleep(0.05)
        time.sleep(seconds or 0.5)
        os.killpg(program.pid, number)
        said = program.communicate()[1]
    if (number == signal.SIGINT and seconds != 0.5) or root.exists():  # earlier, the signal's own action ends it
        assert program.returncode == 130, said
        assert "Traceback" not in said or "resource_tracker.py" in said  # of a library, about semaphores
    left = subprocess.run(["pgrep", "-g", str(program.pid), "-f", "main.py|forkserver"], capture_output=True, text=True)
    assert all(Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z" for pid in left.stdout.split()), "one works on"
    if root.exists():
        with locked(root):
            check_free(root)


def test_two_commands_run_seeds_of_one_folder_at_once(small, run, tmp_path, capsys):
    root, small["train"]["epochs"] = tmp_path / "results", 60
    assert run(small, "--check") == 0  # writes the file
    command = [sys.executable, "main.py", str(tmp_path / "experiment.yaml"), "--seeds", "1"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as other:
        next(line for line in other.stdout if "epoch 0" in line)
        other.send_signal(signal.SIGSTOP)
        capsys.readouterr()
        assert run(small, "--seeds", "0-1") == 2
        assert run(small, "--seeds", "0", "--restart") == 2
        assert run(small, "--seeds", "0", "--set", "train.load=no") == 2
        assert capsys.readouterr().err.count(f"another process runs seed 1 of {root}") == 3
        assert run(small, "--seeds", "0") == 0
        assert seeds_of(root) == [0]
        with locked(root):  # a third command that ends with the second: neither loses the other's seed
            other.send_signal(signal.SIGCONT)
            while not (root / "exp_1" / "final_results.pkl").exists():
                time.sleep(0.01)
            RunFolder(root, 2).save_final(finished_runs(root)[0] | {"seed": 2})
            assert seeds_of(root) == [0]
        other.communicate()
    assert other.returncode == 0 and seeds_of(root) == [0, 1, 2]
    assert run(small, "--seeds", "0", "--restart") == 0 and seeds_of(root) == [0]


def seeds_of(root: Path) -> list[int]:
    return json.loads((root / "final_score.json").read_text())["seeds"]


def test_a_seed_that_another_command_takes_first_fails_alone(small, run, tmp_path, capsys, monkeypatch):
    taken = RunFolder(tmp_path / "results", 1)
    with contextlib.ExitStack() as other:
        unfinished = launch._unfinished
        monkeypatch.setattr(launch, "_unfinished", lambda e: other.enter_context(taken.held()) or unfinished(e))
        assert run(small, "--seeds", "0-2") == 1
    error = capsys.readouterr().err
    assert "seed 1 failed: train.save_path: another process runs seed 1 of" in error and error.count("failed") == 2
    assert seeds_of(tmp_path / "results") == [0, 2]


def test_a_seed_that_another_command_finished_first_is_not_run_again(small, run, tmp_path, capsys, monkeypatch):
    assert run(small, "--seeds", "1") == 0
    final = tmp_path / "results" / "exp_1" / "final_results.pkl"
    before = final.stat().st_mtime_ns
    monkeypatch.setattr(launch.results, "finished_runs", lambda root: {})  # as it was when the queue was made
    assert run(small, "--seeds", "1") == 0
    assert "finished by another command" in capsys.readouterr().out and final.stat().st_mtime_ns == before


def test_data_that_a_job_cannot_read_is_one_line(small, capsys, tmp_path, monkeypatch):
    def gone(*_):
        raise BadInput("scenario.dataset: digits is gone")

    monkeypatch.setattr(datasets, "load", gone)
    settings = Config.model_validate(small).dump()
    assert launch._job(settings, tmp_path, 3, "cpu", 1, Stop()) == 1
    assert capsys.readouterr().err == "results seed 3 failed: scenario.dataset: digits is gone\n"


def test_a_folder_that_another_command_began_anew_is_not_written(small, run, tmp_path, capsys, monkeypatch):
    config, unfinished = tmp_path / "results" / "config.yml", launch._unfinished

    def replaced(experiments):
        config.write_text(config.read_text().replace("lr: 0.001", "lr: 0.5"))
        return unfinished(experiments)

    monkeypatch.setattr(launch, "_unfinished", replaced)
    assert run(small) == 1
    assert "holds results of another configuration (train.lr: 0.5 -> 0.001)" in capsys.readouterr().err
    assert not finished_runs(tmp_path / "results")


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5"])
def test_an_invalid_number_of_jobs_is_refused(small, run, capsys, text):
    assert run(small, f"--jobs={text}") == 2
    assert "is not a number of jobs, or auto" in capsys.readouterr().err
