"""The results folder where files are odd: links, file systems without locks, what kills leave behind."""

import errno
import os
from pathlib import Path

import pytest

from bench.kill import left_by
from utils import locks
from utils.settings import BadInput
from utils.store import files, folder
from utils.store.files import checkpoints, write_bytes
from utils.store.folder import locked


def test_a_link_to_a_folder_is_the_folder(small, run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(folder, "MAX_WAIT_SECONDS", 0)
    (disk := tmp_path / "disk").mkdir()
    link, real = tmp_path / "link", disk / "run"
    link.symlink_to(real)
    small["train"]["save_path"] = str(link)
    assert run(small) == 0 and (real / "exp_0").exists()
    for first, second in ((real, link), (link, real)):
        with locked(first), pytest.raises(BadInput, match="was locked by another process"), locked(second):
            pass
    assert run(small, "--restart") == 0
    assert link.is_symlink() and (real / "exp_0").exists() and (disk / "run.old-1" / "exp_0").exists()
    assert f"{real}: what was there is now {disk / 'run.old-1'}" in capsys.readouterr().out


@pytest.mark.parametrize("code", locks.NO_LOCKS, ids=errno.errorcode.get)
def test_a_file_system_without_locks_is_told_once_and_used(small, run, monkeypatch, capsys, code):
    def refused(file, operation):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(locks.fcntl, "flock", refused)
    locks._warn.cache_clear()
    for options in ([], ["--restart"]):
        assert run(small, *options) == 0
    assert capsys.readouterr().err.count("has no locks") == 1


def test_an_error_of_the_disk_is_no_lock_of_another_process(small, run, monkeypatch, capsys):
    def broken(file, operation):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(locks.fcntl, "flock", broken)
    assert run(small) == 2
    assert os.strerror(errno.EIO) in (error := capsys.readouterr().err) and "another process" not in error


@pytest.mark.parametrize("older", ["damaged", "missing"])
def test_a_checkpoint_whose_writer_was_killed_before_it_had_its_name_is_used(small, run, tmp_path, capsys, older):
    assert run(small) == 0
    whole = left_by(tmp_path / "results")
    new, state, before = checkpoints(tmp_path / "results" / "exp_0" / "state.pt")
    (tmp_path / "results" / "exp_0" / "final_results.pkl").unlink()
    state.rename(new)
    before.write_bytes(b"garbage") if older == "damaged" else before.unlink()
    capsys.readouterr()
    assert run(small) == 0
    assert "resuming in task 3" in capsys.readouterr().out
    assert {name: content for name, content in left_by(tmp_path / "results").items() if name in whole} == whole


def test_what_a_kill_leaves_of_a_write_goes_with_the_next_write(tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "fsync", killed)
    monkeypatch.setattr(Path, "unlink", lambda path, missing_ok: None)  # as if the process were gone
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            write_bytes(tmp_path / "file", b"new")
    assert len(list(tmp_path.iterdir())) == 1
    monkeypatch.undo()
    write_bytes(tmp_path / "file", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
