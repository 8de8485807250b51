"""Trial of other decoders: wrong frames are found by a few seeks, once for each kind of file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hiera_video.errors import DecodeError
from hiera_video.video import open_video, third_party, trial
from hiera_video.video.pyav import PyAVReader
from hiera_video.video.reader import Frames
from hiera_video.video.trial import kind_of, trial_frames, try_seeks


class Wrong:
    """Decoder with a mistake: `change` gets the frames, the indices and the requests before."""

    def __init__(self, frames: Frames, change: Callable[[Frames, Sequence[int], int], Frames]):
        self.frames, self.change, self.requests = frames, change, 0

    def get(self, indices: Sequence[int]) -> Frames:
        found = self.change(self.frames[list(indices)], indices, self.requests)
        self.requests += 1
        return found


def shifted(frames: Frames, indices: Sequence[int], requests: int) -> Frames:
    return np.roll(frames, 1, axis=0) if len(indices) == trial.CHUNK else frames


@pytest.mark.parametrize(
    ("change", "failure"),
    [
        (lambda frames, indices, requests: frames, None),
        (shifted, "returns other frames"),
        (lambda frames, indices, requests: frames[:, :, ::-1], "returns other frames"),
        (lambda frames, indices, requests: frames[:, ::2, ::2], "returns frames of 32x24"),
        (
            # wrong until the first frame was read
            lambda frames, indices, requests: frames if requests or 0 in indices else frames // 2,
            "returns wrong frames after a seek",
        ),
        (
            # wrong for lists with gaps
            lambda frames, indices, requests: (
                frames // 2 if 1 < len(indices) < indices[-1] - indices[0] else frames
            ),
            "returns wrong frames after a seek",
        ),
    ],
    ids=["right", "shifted", "mirrored", "small", "first_seek", "lists"],
)
def test_mistakes_that_a_trial_finds(videos: Any, change: Any, failure: str | None) -> None:
    with PyAVReader(str(videos.write("a.mp4", 60, gop=20))) as video:
        frames = video.frames(range(60))
        assert try_seeks(video, lambda: Wrong(frames, change)) == failure


def test_places_of_a_trial() -> None:
    assert trial_frames(100, [0, 24, 48]) == [
        0, 1, 12, 22, 23, 24, 25, 36, 46, 47, 48, 49, 74, 99,
    ]  # fmt: skip
    assert trial_frames(1, [0]) == trial_frames(1, []) == [0]
    assert max(trial_frames(100_000, [0, 300, 600])) == trial.LAST_FRAME
    assert trial_frames(100_000, [])[1:3] == [57, 114]


def test_files_of_one_kind_share_a_trial(videos: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_failures", {})
    tried = []
    monkeypatch.setattr(trial, "try_seeks", lambda video, opened: tried.append(video._path))
    for name in ("a.mp4", "b.mp4", "c.mkv"):
        path = videos.write(name, 50, gop=20)
        with open_video(path, "decord"):
            pass
    assert [Path(path).name for path in tried] == ["a.mp4", "c.mkv"]


def test_a_kind_that_failed_its_trial_is_refused(
    videos: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    failure = "returns wrong frames after a seek"
    monkeypatch.setattr(third_party, "failure_of_kind", lambda *_: failure)
    words = "decord returns wrong frames after a seek in videos of this kind, as a trial shows; set"
    with pytest.raises(DecodeError, match=words) as caught:
        open_video(videos.write("a.mp4", 5), "decord")
    assert caught.value.reason == "backend"


def test_kinds(corpus: dict[str, Path]) -> None:
    def kind(name: str) -> trial.VideoKind:
        with PyAVReader(str(corpus[name])) as video:
            return kind_of("decord", video)

    plain = kind("h264_bframes.mp4")
    assert plain.encoder.startswith(b"x264 - core ") and plain.has_several_groups
    assert (plain.codec, plain.pixel_format, plain.is_reordered) == ("h264", "yuv420p", True)
    assert kind("fragments.mp4").is_fragmented and not plain.is_fragmented
    assert kind("trimmed_12.mp4").has_edit_list and not plain.has_edit_list
    assert kind("all_sync_mpeg4.mp4").has_false_keys and not kind("mpeg4.mp4").has_false_keys
    assert kind("h264_open_gop.mp4").has_open_gops and not plain.has_open_gops
    assert kind("rotated_90.mp4").rotation == 90
    assert kind("hevc.mp4").encoder.startswith(b"x265 (build ")
