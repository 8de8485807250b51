"""The list of quarantined files is kept, read again and obeyed."""

from __future__ import annotations

from pathlib import Path

import pytest

from hiera_video.data.dataset import TestViews, UnreadableVideo
from hiera_video.data.loading.loader import test_loader
from hiera_video.data.loading.quarantine import (
    Quarantine,
    QuarantinePolicy,
    raise_if_quarantined,
)
from hiera_video.data.manifest.record import Manifest, Record
from hiera_video.data.sampling import ClipConfig
from hiera_video.data.transforms.train_eval import EvalTransform
from hiera_video.errors import DecodeError


def test_a_line_that_a_kill_left_incomplete_is_skipped(tmp_path: Path) -> None:
    file = tmp_path / "quarantine.jsonl"
    Quarantine(str(file)).add("/a b.mp4", "crashed", "x")
    with file.open("a") as more:
        more.write('{"path": "/c')
    known = Quarantine(str(file))
    assert known.reasons == {"/a b.mp4": "crashed"}
    raise_if_quarantined("/c.mp4", known.reasons)
    with pytest.raises(
        DecodeError,
        match=r"/a b.mp4: crashed a decoder twice; repair the file, and remove its line from "
        r"quarantine.jsonl",
    ):
        raise_if_quarantined("/a b.mp4", known.reasons)


def test_a_quarantined_video_is_never_opened(tmp_path: Path) -> None:
    missing = Record(path=str(tmp_path / "x.mp4"), label=0, row=0)
    file = str(tmp_path / "quarantine.jsonl")
    Quarantine(file).add(missing.path, "hung", "x")
    views = TestViews(
        Manifest(records=(missing,), class_names=None, multi_label=False, source="x"),
        ClipConfig(num_frames=4, frame_stride=2),
        EvalTransform(16, 1, (0.45,) * 3, (0.225,) * 3),
        num_clips=1,
        quarantine=QuarantinePolicy(file=file),
    )
    (item,) = test_loader(views, workers=0, rows=[0])
    assert isinstance(item, UnreadableVideo) and item.reason == "hung"


def test_a_damaged_list_is_read_and_continued(tmp_path: Path) -> None:
    """Issue I, 4.11."""
    file = tmp_path / "quarantine.jsonl"
    entry = '{"path": "/v/a.mp4", "reason": "hung"}'
    file.write_bytes(b"[]\n3\n\xff\n" + entry.encode() + b'\n{"path": "/v')  # a kill
    Quarantine(str(file)).add("/v/b.mp4", "crashed", "ended a worker twice")
    assert Quarantine(str(file)).reasons == {"/v/a.mp4": "hung", "/v/b.mp4": "crashed"}


def test_a_list_that_cannot_be_written_does_not_end_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    quarantine = Quarantine(str(tmp_path))  # a folder
    quarantine.add("/v/b.mp4", "crashed", "ended a worker twice")
    assert quarantine.reasons == {"/v/b.mp4": "crashed"}
    assert f"{tmp_path}: cannot be written (Is a directory)" in caplog.text
