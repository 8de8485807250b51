"""The folder of uploads: what may be read, and what is deleted when."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hiera_video.app.uploads import AppLimits, Uploads
from hiera_video.errors import ConfigError


def add(uploads: Uploads, name: str, size: int = 10) -> Path:
    path = uploads.folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"x" * size)
    return path


@pytest.mark.parametrize(
    "values, words",
    [
        ({"max_mb": 0.0}, "--max-mb 0: must be above 0 and finite"),
        ({"max_mb": float("nan")}, "--max-mb nan: must be above 0 and finite"),
        ({"max_seconds": float("inf")}, "--max-seconds inf: must be above 0 and finite"),
    ],
)
def test_limits_out_of_range(values: dict[str, float], words: str) -> None:
    with pytest.raises(ConfigError) as error:
        AppLimits(**values)
    assert str(error.value) == words


def test_files_of_the_folder_alone_are_uploads(uploads: Uploads, tmp_path: Path) -> None:
    upload = add(uploads, "hash/clip.mp4")
    assert uploads.check(str(upload)) == upload
    secret = tmp_path / "secret.mp4"
    secret.write_text("secret")
    link = uploads.folder / "hash" / "link.mp4"
    link.symlink_to(secret)
    os.mkfifo(uploads.folder / "hash" / "pipe.mp4")
    top = add(uploads, "top.mp4")
    words = "not an upload; upload the video itself"
    outside = (secret, link, uploads.folder / "hash/../../secret.mp4", "/etc/passwd", "/dev/zero")
    for path in (
        *outside,
        uploads.folder,
        uploads.folder / "hash",
        link.with_name("pipe.mp4"),
        top,
    ):
        with pytest.raises(ConfigError) as error:
            uploads.check(str(path))
        assert str(error.value) == words, path
    for path in (uploads.folder / "hash/none.mp4", "a\0b", "http://127.0.0.1/a.mp4", "x" * 5000):
        with pytest.raises(ConfigError) as error:
            uploads.check(str(path))
        assert str(error.value) == "no such upload; it was deleted: upload the video again"


def test_an_upload_is_deleted_and_an_example_stays(uploads: Uploads, tmp_path: Path) -> None:
    video = tmp_path / "a.MP4"
    video.write_bytes(b"video")
    example = uploads.add_example(video, "example_1")
    assert example == uploads.folder / "examples" / "example_1.mp4"
    upload = add(uploads, "hash/clip.mp4")
    for path in (example, upload, video, uploads.folder / "other"):
        uploads.remove(path)
    assert video.is_file()
    assert [path.name for path in uploads.folder.rglob("*")] == ["examples", "example_1.mp4"]


def test_uploads_of_the_same_bytes_are_deleted_with_the_last_answer(uploads: Uploads) -> None:
    upload = add(uploads, "hash/clip.mp4")
    for _ in range(2):
        with uploads.arriving() as expect:
            expect([str(upload)])
    uploads.remove(upload)
    assert uploads.check(str(upload)) == upload
    uploads.remove(upload)
    assert not upload.parent.exists()
    again = add(uploads, "hash/clip.mp4")
    with uploads.arriving() as expect:
        expect([str(again)])
    uploads.remove(again)
    assert not again.parent.exists()
    uploads.remove(again)  # a second question about it


def test_an_upload_that_arrives_during_an_answer_is_kept(uploads: Uploads) -> None:
    upload, other = add(uploads, "hash/clip.mp4"), add(uploads, "other/clip.mp4")
    with uploads.arriving() as expect:
        uploads.remove(upload)
        uploads.remove(other)
        assert upload.exists()
        expect([str(upload)])
    assert upload.exists() and not other.parent.exists()
    uploads.remove(upload)
    assert not upload.parent.exists()


def test_uploads_without_a_question_are_deleted_after_ten_minutes(
    uploads: Uploads, tmp_path: Path
) -> None:
    now = [1000.0]
    uploads = Uploads(uploads.folder, uploads.limits, clock=lambda: now[0])
    for name in ("old/a.mp4", "new/b.mp4", "examples/c.mp4"):
        add(uploads, name)
    broken_off = add(uploads, "part")
    for path, time in (("old", 0), ("new", 500), ("examples", 0)):
        os.utime(uploads.folder / path, (time, time))
    os.utime(broken_off, (0, 0))
    uploads.sweep()
    assert sorted(path.name for path in uploads.folder.iterdir()) == ["examples", "new"]
    now[0] = 1101.0
    uploads.sweep()
    assert [path.name for path in uploads.folder.iterdir()] == ["examples"]


def test_waiting_uploads_are_limited(uploads: Uploads) -> None:
    add(uploads, "examples/a.mp4", 20_000_000)
    for number in range(10):
        add(uploads, f"{number}/a.mp4", 1_000_000)
    assert not uploads.are_full()
    add(uploads, "more/a.mp4", 1)
    assert uploads.are_full()
