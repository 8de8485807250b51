"""Atomic writes: complete files only, also after an error, and without leftovers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from hiera_video.utils.atomic_files import (
    atomic_file,
    atomic_path,
    publish,
    write_atomic,
    write_output,
)


def test_content_appears_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    with atomic_file(path) as file:
        file.write(b"12")
        assert not path.exists()
    assert path.read_bytes() == b"12"
    write_atomic(path, "größer")
    assert path.read_text(encoding="utf-8") == "größer"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_keeps_the_old_file_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="the writer failed"), atomic_file(path) as file:
        file.write(b"new")
        raise RuntimeError("the writer failed")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_keeps_the_old_file_and_is_named(tmp_path: Path, full_disk: Any) -> None:
    path = tmp_path / "a.json"
    write_atomic(path, "old")
    with full_disk(1000), pytest.raises(OSError, match="File too large") as error:
        write_atomic(path, "x" * 2000)
    assert error.value.filename == str(path)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_replace_false_keeps_an_existing_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    for content in ("first", "second"):
        write_atomic(path, content, replace=False)
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_temporary_names_are_hidden_and_may_be_per_process(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a.mp4") as partial:
        assert partial.name == ".a.mp4.partial"
        partial.touch()
    with atomic_path(tmp_path / "a.mp4", shared=True, suffix=".partial.mp4") as partial:
        assert partial.name == f".a.mp4.{os.getpid()}.partial.mp4"
        partial.touch()


def test_a_folder_can_be_published(tmp_path: Path) -> None:
    (tmp_path / ".step.partial").mkdir()
    (tmp_path / ".step.partial" / "a").touch()
    publish(tmp_path / ".step.partial", tmp_path / "step")
    assert (tmp_path / "step" / "a").is_file()


def test_a_folder_that_cannot_be_synced_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some network file systems refuse to open a folder for `fsync`."""
    real_open = os.open

    def open_files_only(path: Path, flags: int) -> int:
        if Path(path).is_dir():
            raise OSError(22, "Invalid argument")
        return real_open(path, flags)

    monkeypatch.setattr(os, "open", open_files_only)
    write_atomic(tmp_path / "a.txt", b"1")
    assert (tmp_path / "a.txt").read_bytes() == b"1"


def test_results_appear_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    write_output(path, b"one")
    old = path.stat().st_ino
    with (
        mock.patch.object(Path, "replace", side_effect=OSError("stopped")),
        pytest.raises(OSError, match="stopped"),
    ):
        write_output(path, b"two")
    assert path.read_bytes() == b"one"
    write_output(path, b"two")
    assert (path.read_bytes(), path.stat().st_ino != old) == (b"two", True)
    assert [file.name for file in tmp_path.iterdir()] == ["a.csv"]


def test_links_and_pipes_of_results_stay(tmp_path: Path) -> None:
    link, target = tmp_path / "link", tmp_path / "target"
    link.symlink_to(target)
    write_output(link, b"one")
    assert (link.is_symlink(), target.read_bytes()) == (True, b"one")
    reader, writer = os.pipe()
    write_output(Path(f"/dev/fd/{writer}"), b"two")
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        assert file.read() == b"two"
    with pytest.raises(OSError, match="No space left"):
        write_output(Path("/dev/full"), b"three")
