import errno
import os
import stat
from pathlib import Path

import pytest

from timfuse.runtime.errors import UserError
from timfuse.runtime.files import remove_leftovers, write_atomically


@pytest.mark.parametrize("content", ["ä\n", "ä\n".encode(), lambda file: file.write("ä\n".encode())])
def test_all_kinds_of_content_make_missing_folders_and_leave_nothing_else(tmp_path, content):
    path = tmp_path / "a" / "b" / "file.txt"
    write_atomically(path, content)
    assert path.read_bytes() == "ä\n".encode()
    assert list(path.parent.iterdir()) == [path]


def test_gives_the_rights_of_an_ordinary_file(tmp_path):
    ordinary = tmp_path / "ordinary"
    ordinary.touch()
    write_atomically(tmp_path / "atomic", "")
    assert stat.S_IMODE((tmp_path / "atomic").stat().st_mode) == stat.S_IMODE(ordinary.stat().st_mode)


def test_a_failing_writer_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, "old")

    def fail(file):
        file.write(b"half")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "read-only"),
        (errno.EIO, "another"),
    ],
)
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_what_the_system_refuses_is_one_line_with_the_file_and_the_remedy(tmp_path, monkeypatch, code, words, call):
    path = tmp_path / "file"
    write_atomically(path, "old")

    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(UserError, match=words) as caught:
        write_atomically(path, "new")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_while_writing(tmp_path):
    path = tmp_path / "file"

    def fill(file):
        with open("/dev/full", "wb") as full:
            full.write(bytes(100_000))

    with pytest.raises(UserError, match="disk is full"):
        write_atomically(path, fill)
    assert list(tmp_path.iterdir()) == []


def test_a_file_where_a_folder_should_be(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file, not a folder"):
        write_atomically(tmp_path / "file" / "inner" / "x", "")


def test_a_folder_where_the_file_should_be(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="folder of this name"):
        write_atomically(tmp_path / "folder", "")
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="permission denied"):
        write_atomically(tmp_path / "x", "")


def test_the_data_is_synced_before_the_rename_and_the_folder_after(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(
        os,
        "fsync",
        lambda fd: (calls.append("folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file"), fsync(fd))[1],
    )
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("rename"), replace(a, b))[1])
    write_atomically(tmp_path / "x", "x")
    assert calls == ["file", "rename", "folder"]


def test_a_name_that_fits_can_be_written(tmp_path):
    path = tmp_path / ("x" * 255)
    write_atomically(path, "x")
    assert path.read_text() == "x"
    with pytest.raises(UserError, match="the name is too long; choose a shorter one"):
        write_atomically(tmp_path / ("x" * 256), "x")
    assert list(tmp_path.iterdir()) == [path]


def test_names_that_are_no_text_are_escaped(tmp_path):
    write_atomically(tmp_path / "x", f"ü {os.fsdecode(b'na' + bytes([0xEF]) + b've')}")
    assert (tmp_path / "x").read_text(encoding="utf-8") == "ü na\\udcefve"


def test_leftovers_of_dead_writers_are_removed_and_the_file_of_a_living_one_is_not(tmp_path):
    for name in (".0badcafe0badcafe.tmp", "mine.tmp", ".mine.tmp", ".0badcafe.tmp"):
        (tmp_path / name).write_text("half")

    def write(file):
        file.write(b"half")
        remove_leftovers(tmp_path)  # as another process would
        file.write(b" and half")

    write_atomically(tmp_path / "whole", write)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".0badcafe.tmp", ".mine.tmp", "mine.tmp", "whole"]
    assert (tmp_path / "whole").read_text() == "half and half"
