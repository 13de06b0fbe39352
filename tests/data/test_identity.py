"""Files are identified by names, sizes and first bytes, independent of their folder."""

import dataclasses
import shutil

import pytest

from yt8m_gat.data.identity import FileIdentity, file_changes, identify_files


@pytest.fixture
def files(tmp_path):
    contents = {"a": b"1" * 5000, "b": b"2" * 10, "c": b"3" * 10}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return [str(tmp_path / name) for name in contents]


def test_moved_and_touched_files_are_the_same(files, tmp_path):
    known = identify_files(files)
    assert [(file.name, file.size) for file in known] == [("a", 5000), ("b", 10), ("c", 10)]
    (tmp_path / "elsewhere").mkdir()
    moved = [shutil.copy(path, tmp_path / "elsewhere") for path in files]
    assert file_changes(known, identify_files(moved)) is None


def test_each_difference_is_named(files, tmp_path):
    known = identify_files(files)
    for name in "defg":
        (tmp_path / name).write_bytes(b"")
        files.append(str(tmp_path / name))
    assert file_changes(known, identify_files(files)) == "new: 'd', 'e', 'f' and 1 more"
    assert file_changes(known, identify_files(files[1:4])) == "new: 'd'; missing: 'a'"
    assert file_changes(known, known[::-1]) == "the same files in another order"
    (tmp_path / "b").write_bytes(b"4" * 10)
    (tmp_path / "c").write_bytes(b"3" * 11)
    found = file_changes(known, identify_files(files[:3]))
    assert found == "changed: 'b' (same size, other content), 'c' (10 bytes, now 11)"


def test_of_remote_files_names_and_sizes_count(files):
    known = identify_files(files)
    remote = [dataclasses.replace(file, checksum=None) for file in known]
    assert file_changes(known, remote) is file_changes(remote, known) is None
    remote[2] = FileIdentity("c", 12, None)
    assert file_changes(known, remote) == "changed: 'c' (10 bytes, now 12)"


def test_names_that_stand_in_several_folders_are_counted(tmp_path):
    same = [FileIdentity("part", 10, 1), FileIdentity("part", 10, 1), FileIdentity("part", 11, 2)]
    assert file_changes(same, same[1:]) == "missing: 'part'"
    assert file_changes(same[1:], same) == "new: 'part'"
