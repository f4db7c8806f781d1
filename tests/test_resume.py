"""A run that was interrupted anywhere is the run that was not; damaged files are noticed; nothing is mixed or lost."""

import errno
import multiprocessing
import os
import pickle
import random
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import CPU, After, few_images, method_settings

from bench import kill
from bench.kill import left_by, survive
from datasets.data import Data
from methods import find, known
from utils.config import load as loading
from utils.config.schema import Config
from utils.run import runner
from utils.run.runner import Run
from utils.run.signals import Interrupted, Stop
from utils.run.streams import Streams
from utils.settings import BadInput
from utils.store import files
from utils.store.files import (
    Damaged,
    previous,
    read_checkpoint,
    read_pickle,
    write_bytes,
    write_checkpoint,
    write_pickle,
)
from utils.store.folder import finished_runs

pytestmark = pytest.mark.usefixtures("quick_health")
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def data() -> Data:
    return few_images()


def experiment(small: dict, folder: Path, method: dict, **train) -> Config:
    tree = {**small, "train": {**small["train"], "save_path": str(folder), "checkpoint_minutes": 0, **train}}
    tree["method"] = find(method["name"])[1].model_validate(method)
    return Config.model_validate(tree)


def begun(config: Config, data, stop: Stop | None = None) -> Run:
    run = Run(config, data, 0, CPU, stop)
    run.folder.path.mkdir(parents=True, exist_ok=True)
    return run


SETTINGS = [method_settings(name) for name in known()] + [
    method_settings("prer", flow={"early_stopping": True, "reset": True, "epochs": 3}, autoencoder={"reset": True}),
    method_settings(
        "prer_features", flow={"conditioning": {"type": "separate"}}, predict="flow", weights={"replay": 0}
    ),
]


@pytest.mark.parametrize("method", SETTINGS, ids=lambda method: method["name"])
def test_asked_to_stop_anywhere_a_run_goes_on_to_the_same_bits(small, data, tmp_path, method):
    options = {"selection": "dev", "schedule": "cosine", "reset_optimizer": method["name"] != "si"}
    small["scenario"] |= {"dev_split": 0.25, "type": "class" if method["name"] != "packnet" else "task"}
    begun(experiment(small, tmp_path / "whole", method, **options), data)()
    chance, interruptions = random.Random(str(method)), 0
    while True:
        torch.manual_seed(interruptions)  # what the process drew before must not matter
        run = begun(experiment(small, tmp_path / "resumed", method, **options), data, After(chance.randrange(8)))
        try:
            run()
            break
        except Interrupted:
            interruptions += 1
    assert interruptions >= (3 if find(method["name"])[0].trains else 1)
    assert left_by(tmp_path / "whole") == left_by(tmp_path / "resumed")
    times = [finished_runs(tmp_path / name)[0]["time"] for name in ("whole", "resumed")]
    assert set(times[0]) == set(times[1]) and all(value > 0 for value in times[1].values())


KILLED = ("naive", "replay", "ewc", "prer", "prer_features", "gfr")  # one per kind of state


@pytest.fixture(scope="module")
def forkserver():
    """The server that `survive` starts runs from, started: moments of a kill are drawn from the length of a run."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(kill.PRELOADED)
    process = context.Process(target=int)
    process.start()
    process.join()


@pytest.mark.parametrize("name", known())
def test_every_run_of_the_kill_program_is_a_valid_one(name, tmp_path):
    for scenario in find(name)[0].scenarios:
        file, _, _, _, *settings = kill.command(name, scenario, tmp_path)
        assert loading.load(Path(file), settings).method.name == name


@pytest.mark.long
@pytest.mark.parametrize("name", KILLED)
def test_killed_at_random_moments_a_run_goes_on_to_the_same_bits(forkserver, tmp_path, monkeypatch, name):
    """The short form of bench/kill.py: three tasks of two epochs, and fewer steps, each of which waits for the disk."""
    shorter = kill.COMMON.replace("train.epochs=3", "train.epochs=2")
    monkeypatch.setattr(kill, "COMMON", f"{shorter} scenario.labels_per_task=4 train.batch_size=96")
    monkeypatch.setitem(kill.SMALL, "gfr", "method.gan.epochs=2")
    features = "method.flow.steps=20 method.flow.blocks=1 method.regularization.fixed_replay=200"
    monkeypatch.setitem(kill.SMALL, "prer_features", features)
    outcome = survive(name, random.Random(name).choice(["task", "class", "domain"]), 5, random.Random(name), tmp_path)
    assert outcome == (5, True)


@pytest.mark.parametrize("load", ["yes", "no"])
def test_a_signal_saves_ends_with_130_and_says_how_to_go_on(tmp_path, load):
    settings = [f"train.save_path={tmp_path / 'results'}", "method.plot=no", "train.epochs=200", "train.device=cpu"]
    settings.append(f"train.load={load}")
    command = [sys.executable, "main.py", "files/naive_digits.yaml", "--seeds", "0", "--set", *settings]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if "epoch 1" in line:
                process.send_signal(15)
                break
        _, error = process.communicate()
    assert process.returncode == 130
    hint = "" if load == "yes" else r" \(train.load is no, and starts anew: add --set train.load=yes\)"
    assert re.match(
        rf"interrupted by SIGTERM{hint}; to resume: \S+ main.py files/naive", error.strip().splitlines()[-1]
    )
    state = read_checkpoint(tmp_path / "results" / "exp_0" / "state.pt", CPU)
    assert state["phase"] == "training" and state["tasks_done"] == 0 and state["position"]["epoch"] >= 1


def test_a_seed_gives_the_same_bits_alone_and_with_others(small, run, tmp_path):
    """Alone, in a batch, in another order, resumed."""
    small["train"] |= {"experiments": 3}
    small["method"] = method_settings("er")
    folders = {}
    for name, options in {"alone": ["2"], "batch": ["0-2"], "reverse": ["2,1"], "later": ["0", "2"]}.items():
        small["train"]["save_path"] = str(tmp_path / name)
        for seeds in options:
            assert run(small, "--seeds", seeds) == 0
        folders[name] = {key: value for key, value in left_by(tmp_path / name).items() if key.startswith("exp_2")}
    assert len(folders["alone"]) > 3
    assert all(folder == folders["alone"] for folder in folders.values())


def test_a_checkpoint_with_any_byte_changed_or_missing_is_noticed(tmp_path):
    path = tmp_path / "state.pt"
    write_checkpoint(path, {"a": torch.arange(50), "b": [1.5, None]})
    whole, chance = path.read_bytes(), random.Random(0)
    assert read_checkpoint(path, CPU)["b"] == [1.5, None]
    for _ in range(300):
        at, damaged = chance.randrange(len(whole)), bytearray(whole)
        damaged[at] ^= 1 << chance.randrange(8)
        for content in (bytes(damaged), whole[:at], whole + b"x", whole[at:]):
            path.write_bytes(content)
            if content != whole:
                with pytest.raises(Damaged, match="damaged"):
                    read_checkpoint(path, CPU)


def test_results_with_any_bit_changed_are_noticed_and_other_unpicklers_read_them(tmp_path):
    path = tmp_path / "results.pkl"
    write_pickle(path, {"a": [1.0, "text"], "b": None})
    whole = path.read_bytes()
    assert read_pickle(path) == pickle.loads(whole) == {"a": [1.0, "text"], "b": None}
    for at in range(len(whole)):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[at] ^= 1 << bit
            path.write_bytes(damaged)
            with pytest.raises(Damaged):
                read_pickle(path)


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"\0" * len(b)])
def test_a_damaged_checkpoint_is_reported_and_the_one_before_it_used(small, data, run, tmp_path, damage, capsys):
    assert run(small) == 0
    whole, state = left_by(tmp_path / "results"), tmp_path / "results" / "exp_0" / "state.pt"
    (tmp_path / "results" / "exp_0" / "final_results.pkl").unlink()
    state.write_bytes(damage(state.read_bytes()))
    capsys.readouterr()
    assert run(small) == 0
    said = capsys.readouterr()
    assert f"{state} is damaged" in said.out and "Traceback" not in said.out + said.err
    assert left_by(tmp_path / "results") == whole
    for path in (state, previous(state)):
        path.write_bytes(b"garbage")
    (tmp_path / "results" / "exp_0" / "final_results.pkl").write_bytes(b"garbage too")
    assert run(small) == 0  # from the beginning
    assert left_by(tmp_path / "results") == whole


@pytest.mark.parametrize(("name", "most"), [("prer", 30), ("si", 15)])
def test_a_write_that_fails_at_any_call_loses_nothing(small, run, tmp_path, monkeypatch, capsys, name, most):
    """A random fsync among the next `most` fails, the disk being full and broken by turns; the same command again
    comes to the same results."""
    small["method"], small["train"]["checkpoint_minutes"] = method_settings(name), 0
    small["train"]["save_path"] = str(tmp_path / "whole")
    assert run(small) == 0
    small["train"]["save_path"] = str(tmp_path / "results")
    fsync, chance = os.fsync, random.Random(name)
    faults = 0
    while True:
        left, code = chance.randrange(1, most), (errno.ENOSPC, errno.EIO)[faults % 2]

        def failing(descriptor, code=code):
            nonlocal left
            left -= 1
            if left == 0:
                raise OSError(code, os.strerror(code))
            fsync(descriptor)

        monkeypatch.setattr(files.os, "fsync", failing)
        exit_code = run(small)
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        if exit_code == 0:
            break
        faults += 1
        assert exit_code in (1, 2) and os.strerror(code) in said.err and "again" in said.err
        assert not list((tmp_path / "results").rglob("*.tmp"))
    assert faults >= 2
    assert left_by(tmp_path / "whole") == left_by(tmp_path / "results")


def test_a_folder_that_vanishes_is_said_in_one_line_and_is_not_made_again_by_half(
    small, run, tmp_path, monkeypatch, capsys
):

    learn = Run._learn

    def vanishing(self, task):
        learn(self, task)
        if task.index == 1:
            shutil.rmtree(tmp_path / "results")

    monkeypatch.setattr(Run, "_learn", vanishing)
    small["train"]["experiments"] = 2
    assert run(small) == 1
    error = capsys.readouterr().err
    assert "seed 0 failed: FileNotFoundError" in error and "run the same command again" in error
    assert not (tmp_path / "results").exists()
    monkeypatch.undo()
    assert run(small) == 0


def test_two_processes_do_not_run_one_seed_and_a_dead_one_blocks_nobody(small, run, tmp_path, capsys):
    root = tmp_path / "results"
    hold = (
        f"import sys, time; sys.path.insert(0, {str(ROOT)!r}); from pathlib import Path\n"
        f"from utils.store.folder import RunFolder\n"
        f"root = Path({str(root)!r}); root.mkdir()\n"
        f"with RunFolder(root, 0).held(): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        assert run(small) == 2
        error = capsys.readouterr().err
        assert f"train.save_path: another process runs seed 0 of {root}; wait for it, or choose another" in error
        assert not (root / "config.yml").exists()
        other.kill()
    assert run(small) == 0


def test_another_configuration_is_refused_with_the_keys_and_a_restart_keeps_the_old_run(small, run, tmp_path, capsys):
    assert run(small) == 0
    before = left_by(tmp_path / "results")
    small["train"]["lr"] = 0.5
    assert run(small) == 2
    assert "train.lr: 0.001 -> 0.5" in capsys.readouterr().err
    assert run(small, "--restart") == 0
    assert left_by(tmp_path / "results.old-1") == before and left_by(tmp_path / "results") != before


def test_a_loss_that_is_not_finite_names_task_epoch_step_parts_and_tensor_and_leaves_the_other_seeds(
    small, run, tmp_path, capsys, monkeypatch
):
    init = runner.Run.__init__

    def poisoned(self, *arguments):
        init(self, *arguments)
        if self.seed == 1:
            after = self.method.after_backward

            def poison():
                after()
                if self.checkpoint.tasks_done == 1 and self.training.step == 1:
                    next(self.learner.parameters()).grad.fill_(float("nan"))

            self.method.after_backward = poison

    monkeypatch.setattr(runner.Run, "__init__", poisoned)
    small["method"] = method_settings("ewc", importance=1e4)
    small["train"] |= {"experiments": 3, "checkpoint_minutes": 0}
    assert run(small) == 1
    error = capsys.readouterr().err
    assert "seed 1 failed: TrainingFailed: task 1, epoch 0, step 2" in error
    assert "(last step: loss 0." in error and "loss/cross_entropy 0." in error and "loss/penalty 0." in error
    assert "encoder.features.0.weight" in error
    assert "2 seeds (0, 2)" in (tmp_path / "results" / "final_score.log").read_text()
    state = read_checkpoint(tmp_path / "results" / "exp_1" / "state.pt", CPU)
    assert all(value.isfinite().all() for value in state["before"]["learner"].values())


def test_a_seed_that_fails_while_it_stops_is_no_success(small, run, tmp_path, monkeypatch, capsys):
    def cannot_stop(self, task):
        os.kill(os.getpid(), signal.SIGTERM)
        raise OSError("the folder is gone")

    monkeypatch.setattr(Run, "_learn", cannot_stop)
    assert run(small, "--seeds", "0") == 1
    assert "seed 0 failed: OSError: the folder is gone" in capsys.readouterr().err


def test_a_checkpoint_of_another_kind_of_device_is_refused():
    streams = Streams(0, CPU)
    with pytest.raises(BadInput, match=r"of a run on cuda, and the device is cpu; resume it with --device cuda"):
        streams.load_state_dict(streams.state_dict() | {"global/cuda": torch.zeros(16, dtype=torch.uint8)})


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate"), torch.OutOfMemoryError("CUDA")]
)
def test_out_of_memory_says_what_to_lower(small, run, monkeypatch, capsys, error):
    def full(self, task):
        raise error

    monkeypatch.setattr(Run, "_learn", full)
    assert run(small) == 1
    assert (
        "out of memory" in (said := capsys.readouterr().err) and "train.batch_size" in said and "fixed_replay" in said
    )


def test_a_write_that_dies_halfway_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_bytes(path, b"old")
    monkeypatch.setattr(files.os, "fsync", lambda descriptor: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(FileNotFoundError):
        write_bytes(tmp_path / "gone" / "exp_0" / "file", b"new")
    assert not (tmp_path / "gone").exists()


def test_checkpoints_are_written_no_more_often_than_asked_for(small, data, tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(files, "write_checkpoint", lambda path, state: written.append(state["phase"]))
    begun(experiment(small, tmp_path / "a", {"name": "naive", "plot": False}, checkpoint_minutes=60.0), data)()
    assert written == ["between"] * 4  # the beginning, and after each task
    written.clear()
    begun(experiment(small, tmp_path / "b", {"name": "naive", "plot": False}), data)()
    assert written == ["between", *["training", "training", "between"] * 3]  # and after both epochs of the three tasks
    written.clear()
    begun(experiment(small, tmp_path / "c", {"name": "naive", "plot": False}, save=False), data)()
    assert not written
    begun(experiment(small, tmp_path / "d", method_settings("prer")), data)()
    assert "consolidation" in written and written[-1] == "between"


def test_a_checkpoint_of_another_version_is_refused(small, run, tmp_path, capsys):
    assert run(small) == 0
    folder = tmp_path / "results" / "exp_0"
    (folder / "final_results.pkl").unlink()
    state = read_checkpoint(folder / "state.pt", CPU)
    write_checkpoint(folder / "state.pt", {key: value for key, value in state.items() if key != "phase"})
    assert run(small) == 1
    assert "written by another version of the program; start again with --restart" in capsys.readouterr().err
