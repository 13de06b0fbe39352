"""One writer to an output: who comes second ends at once, and is told who is there."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading

import pytest

from yt8m_gat import disk, locks
from yt8m_gat.disk import WriteError, remove_unfinished, replacing
from yt8m_gat.locks import InUseError, only_writer, only_writer_in, renew, temporary_folder

HOLD = """
import sys
sys.argv[0] = "somewhere/train.py"
from yt8m_gat.locks import only_writer, only_writer_in
with {"file": only_writer, "folder": only_writer_in}[sys.argv[1]](sys.argv[2]):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def another_writer(kind, path):
    """A process that holds a lock until the end of the block, or until it is killed."""
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, kind, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        assert child.stdout.readline() == "held\n"
        yield child
        child.stdin.close()


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_the_second_process_is_told_path_and_holder(tmp_path, kind):
    path = tmp_path / "out"
    (tmp_path / "link").symlink_to(path)
    take = only_writer if kind == "file" else only_writer_in
    with another_writer(kind, path) as child:
        # Other spellings of the path meet in the same lock.
        for spelling in (path, tmp_path / "x" / ".." / "out", tmp_path / "link"):
            with pytest.raises(InUseError) as caught, take(spelling):
                pass
            assert re.fullmatch(
                rf"{re.escape(str(spelling))} is being written by process {child.pid} on "
                rf"{re.escape(socket.gethostname())} since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d\S* "
                r"\(train\.py\): two writers would mix their results\. Remedy: wait for it, end "
                r"it, or name another place",
                str(caught.value),
            )
        with only_writer(tmp_path / "other"):  # Another output is not in the way.
            pass
    with take(path):
        pass
    assert os.listdir(tmp_path) == ["link"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_killed_holder_is_in_nobodys_way(tmp_path, kind):
    path = tmp_path / "out"
    with another_writer(kind, path) as child:
        child.send_signal(signal.SIGKILL)
        child.wait()
        left = tmp_path / ".out.lock" if kind == "file" else path / ".lock"
        assert f'"process": {child.pid}' in left.read_text()
        with (only_writer if kind == "file" else only_writer_in)(path):
            assert f'"process": {os.getpid()}' in left.read_text()
        assert not left.exists()


def test_a_thread_may_enter_again_and_another_may_not(tmp_path):
    def refused():
        with pytest.raises(InUseError, match=rf"by process {os.getpid()} "), only_writer_in(run):
            pass
        results.append("refused")

    run, results = tmp_path / "run", []
    with only_writer_in(run), only_writer_in(run):
        with only_writer_in(f"{run}/"):
            pass
        thread = threading.Thread(target=refused)
        thread.start()
        thread.join()
        assert os.listdir(run) == [".lock"]
    assert results == ["refused"]
    assert not run.exists()  # It was made for the lock, and nothing was written.


def test_a_folder_that_holds_something_stays(tmp_path):
    with only_writer_in(tmp_path / "a" / "run"):
        (tmp_path / "a" / "run" / "file").write_text("")
    assert os.listdir(tmp_path / "a" / "run") == ["file"]


def test_a_forked_child_has_none_of_the_locks(tmp_path):
    reading, writing = os.pipe()
    with only_writer(tmp_path / "out"):
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                try:
                    with only_writer(tmp_path / "out"):
                        os.write(writing, b"entered")
                except InUseError:
                    os.write(writing, b"refused")
            os._exit(0)
        os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        assert answer.read() == b"refused"


def test_a_lock_whose_file_was_deleted_is_taken_anew_or_lost(tmp_path):
    with only_writer_in(tmp_path):
        renew(tmp_path)
        (tmp_path / ".lock").unlink()
        renew(tmp_path)
        with pytest.raises(InUseError), only_writer_in_thread(tmp_path):
            pass
        (tmp_path / ".lock").unlink()
        with another_writer("folder", tmp_path) as child, pytest.raises(InUseError) as caught:
            renew(tmp_path)
        assert f"process {child.pid} " in str(caught.value)
    renew(tmp_path)  # Nothing is held: nothing is taken.
    assert not os.listdir(tmp_path)


@contextlib.contextmanager
def only_writer_in_thread(folder):
    """`only_writer_in` as another thread, and so another holder, has it."""
    errors = []

    def enter():
        try:
            with only_writer_in(folder):
                pass
        except InUseError as error:
            errors.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    yield


def test_a_temporary_folder_goes_with_its_process_or_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with another_writer("file", tmp_path / "yt8m_gat-living"):
        for name in ("yt8m_gat-living", "yt8m_gat-left", "others"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "model").write_text("")
        (tmp_path / "yt8m_gat-link").symlink_to(tmp_path / "others")
        with temporary_folder() as folder:
            assert folder.parent == tmp_path and folder.stat().st_mode & 0o777 == 0o700
            (folder / "model").write_text("")
        kept = [".yt8m_gat-living.lock", "others", "yt8m_gat-link", "yt8m_gat-living"]
        assert sorted(os.listdir(tmp_path)) == kept
        assert os.listdir(tmp_path / "others") == os.listdir(tmp_path / "yt8m_gat-living")


def test_a_disk_without_locks_is_written_with_a_warning(tmp_path, monkeypatch, capsys):
    def no_locks(descriptor, blocking):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(locks.filelock, "lock_descriptor", no_locks)
    with only_writer(tmp_path / "out"), only_writer(tmp_path / "out"):
        pass
    assert capsys.readouterr().err == (
        f"{tmp_path}/out: the disk has no locks (Function not implemented): see to it that no "
        "second process writes there\n"
    )
    assert not os.listdir(tmp_path)


def test_a_place_that_is_not_there_is_an_error_of_the_disk(tmp_path):
    with (
        pytest.raises(WriteError, match=r"a/out cannot be written: No such file.*make its folder"),
        only_writer(tmp_path / "a" / "out"),
    ):
        pass
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(WriteError, match=r"file/run cannot be written: Not a directory"),
        only_writer_in(tmp_path / "file" / "run"),
    ):
        pass
    (tmp_path / ".file.lock").symlink_to(tmp_path / "file")  # Planted: what it names is kept.
    with pytest.raises(WriteError, match="cannot be written"), only_writer(tmp_path / "file"):
        pass
    assert sorted(os.listdir(tmp_path)) == [".file.lock", "file"]


def test_what_a_lock_says_reaches_the_terminal_as_one_plain_line(tmp_path):
    with another_writer("file", tmp_path / "out"):
        (tmp_path / ".out.lock").write_text(
            '{"process": 1, "host": "h\\n\\u001b[31m", "since": "s", "command": "c"}'
        )
        with (
            pytest.raises(InUseError, match=r"by process 1 on h\[31m since s \(c\): two"),
            only_writer(tmp_path / "out"),
        ):
            pass
        (tmp_path / ".out.lock").write_text("[" * 5000)
        with pytest.raises(InUseError, match="by another process:"), only_writer(tmp_path / "out"):
            pass


def test_replacing_gives_the_name_when_all_is_written(tmp_path):
    path, left = tmp_path / "out.txt", tmp_path / ".out.txt.unfinished"
    path.write_text("old")
    left.mkdir()  # What a killed process left.
    (left / "file").write_text("")
    with replacing(path) as temporary:
        assert temporary == left
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    with pytest.raises(RuntimeError, match="midway"), replacing(path) as temporary:
        temporary.write_text("newer")
        raise RuntimeError("midway")
    assert path.read_text() == "new"
    with replacing(tmp_path / "folder") as temporary:
        (temporary / "a").mkdir(parents=True)
        (temporary / "a" / "b").write_text("c")
    assert (tmp_path / "folder" / "a" / "b").read_text() == "c"
    (tmp_path / "link").symlink_to(path)
    with replacing(tmp_path / "link") as temporary:
        temporary.write_text("newest")
    assert (tmp_path / "link").is_symlink()
    assert path.read_text() == "newest"
    assert sorted(os.listdir(tmp_path)) == ["folder", "link", "out.txt"]


def test_replacing_on_a_full_disk_keeps_what_was_there(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    path = tmp_path / "out.txt"
    path.write_text("old")
    monkeypatch.setattr(disk.os, "fsync", full)
    with (
        pytest.raises(WriteError, match=r"out\.txt cannot be written: No space left"),
        replacing(path) as temporary,
    ):
        temporary.write_text("new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["out.txt"]


def test_unfinished_files_of_killed_processes_alone_are_removed(tmp_path):
    (tmp_path / ".7.unfinished").mkdir()
    (tmp_path / ".7.unfinished" / "model").write_text("")
    (tmp_path / ".best.h5.unfinished.h5").write_text("")
    others = [".evaluation.json.unfinished", ".profile", ".s.csv.partial", "7.unfinished"]
    for name in others:
        (tmp_path / name).write_text("another's")
    remove_unfinished(tmp_path, "best.h5", "[0-9]*")
    assert sorted(os.listdir(tmp_path)) == others
