"""Parts of videos arrive in manifest order, however far reading is ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hiera_video.config.schema import Config
from hiera_video.data.dataset import UnreadableVideo
from hiera_video.data.manifest.record import Record
from hiera_video.data.sampling import ClipConfig
from hiera_video.data.transforms.multicrop import Crops
from hiera_video.errors import ConfigError
from hiera_video.features import shard_reading
from hiera_video.features.config import FeaturesConfig
from hiera_video.features.shard_reading import (
    ReadWindows,
    VideoPart,
    WindowRequest,
    read_in_order,
)
from hiera_video.features.windows import Window, sliding_windows, view_windows
from hiera_video.video import open_video
from hiera_video.video.encode import write_video
from hiera_video.workflows.extract import read_input
from hiera_video.workflows.extraction_plan import make_encoder, make_plan

PART = 2
WINDOWS = {0: 5, 1: 1, 2: 0, 3: 4, 4: 2, 5: 3}
"""Number of windows of each video."""

Bad = frozenset[tuple[int, int]]
"""(row, first window) of unreadable parts."""


def read_part(request: WindowRequest, bad: Bad) -> VideoPart | UnreadableVideo:
    row, total = request.record.row, WINDOWS[request.record.row]
    if (row, request.first) in bad:
        return UnreadableVideo(row=row, path="", reason="corrupt", message="")
    windows = tuple(
        Window(number=n, start_seconds=n, end_seconds=n + 1, tail=False, frames=())
        for n in range(request.first, min(request.first + PART, total))
    )
    clips = torch.empty(len(windows))
    return VideoPart(row=row, path="", clips=clips, windows=windows, total=total)


def read_ahead(count: int, bad: Bad = frozenset()) -> shard_reading.ReadRequests:
    """Take `count` requests before the first result."""

    def read(requests: Iterable[WindowRequest]) -> Iterator[Any]:
        requests, pending = iter(requests), list[WindowRequest]()
        while True:
            pending += islice(requests, count - len(pending))
            if not pending:
                return
            yield read_part(pending.pop(0), bad)

    return read


def order(ahead: int, bad: Bad = frozenset()) -> list[tuple[int, int, int, list[int] | str]]:
    shards = [
        (number, [Record(path="", label=None, row=row) for row in rows])
        for number, rows in ((7, [0, 1, 2]), (9, [3, 4, 5]))
    ]
    return [
        (
            turn,
            number,
            part.row,
            part.reason
            if isinstance(part, UnreadableVideo)
            else [window.number for window in part.windows],
        )
        for turn, number, part in read_in_order(shards, read_ahead(ahead, bad), PART)
    ]


@pytest.mark.parametrize("ahead", [1, 2, 3, 20])
def test_parts_arrive_in_order(ahead: int) -> None:
    assert order(ahead) == [
        (0, 7, 0, [0, 1]),
        (0, 7, 0, [2, 3]),
        (0, 7, 0, [4]),
        (0, 7, 1, [0]),
        (0, 7, 2, []),
        (1, 9, 3, [0, 1]),
        (1, 9, 3, [2, 3]),
        (1, 9, 4, [0, 1]),
        (1, 9, 5, [0, 1]),
        (1, 9, 5, [2]),
    ]


@pytest.mark.parametrize("ahead", [1, 2, 3, 20])
def test_a_video_ends_with_its_first_unreadable_part(ahead: int) -> None:
    assert order(ahead, frozenset({(0, 2), (0, 4), (3, 0)})) == [
        (0, 7, 0, [0, 1]),
        (0, 7, 0, "corrupt"),
        (0, 7, 1, [0]),
        (0, 7, 2, []),
        (1, 9, 3, "corrupt"),
        (1, 9, 4, [0, 1]),
        (1, 9, 5, [0, 1]),
        (1, 9, 5, [2]),
    ]


def test_shards_are_taken_when_reading_reaches_them() -> None:
    taken: list[int] = []

    def shards() -> Iterator[tuple[int, list[Record]]]:
        for number in range(3):
            taken.append(number)
            yield number, [Record(path="", label=None, row=1)]

    stream = read_in_order(shards(), read_ahead(1), PART)
    assert next(stream)[1] == 0 and taken == [0]
    assert next(stream)[1] == 1 and taken == [0, 1]


# -- one worker --------------------------------------------------------------------------------


class Brightness:
    """Replaces a frame by its mean brightness, with as many crops as asked for."""

    def __init__(self, crops: int = 1) -> None:
        self.boxes = tuple((0, crop, 1, 1) for crop in range(crops))

    def views_of(self, frames: Any, clips: Sequence[Sequence[int]]) -> Crops:
        means = torch.from_numpy(frames).float().mean(dim=(1, 2))  # [N, 3]
        values = torch.stack([means[list(places)].T for places in clips])
        return Crops(clips=values[..., None, None].repeat_interleave(len(self.boxes), -1),
                     boxes=self.boxes)  # fmt: skip


CLIP = ClipConfig(num_frames=4, frame_stride=1, target_fps=None)


@pytest.fixture
def reader() -> ReadWindows:
    """Clips of four frames, without gaps or overlap, two windows per part."""
    rule = partial(sliding_windows, clip=CLIP, config=FeaturesConfig())
    read = ReadWindows(rule, Brightness(), clip_bytes=1)
    read.windows_per_part = 2
    return read


@pytest.fixture(scope="module")
def ramp(tmp_path_factory: pytest.TempPathFactory) -> Record:
    """Frame i has brightness 10 i."""
    path = tmp_path_factory.mktemp("ramp") / "ramp.mp4"
    write_video(path, (np.full((32, 32, 3), 10 * i, np.uint8) for i in range(18)), fps=10)
    return Record(path=str(path), label=None, row=3)


def request(record: Record, first: int = 0) -> WindowRequest:
    return WindowRequest(turn=0, shard=0, record=record, first=first)


def test_a_long_video_is_opened_once_for_its_parts(
    reader: ReadWindows, ramp: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Any] = []

    def open_and_count(*arguments: Any) -> Any:
        opened.append(arguments)
        return open_video(*arguments)

    monkeypatch.setattr(shard_reading, "open_video", open_and_count)
    announced: list[str] = []
    parts = [reader(request(ramp, first), announced.append) for first in (0, 2, 4)]
    assert all(isinstance(part, VideoPart) and part.total == 5 for part in parts)
    clips = torch.cat([part.clips for part in parts if isinstance(part, VideoPart)])
    expected = 10 * torch.tensor(
        [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15], [16, 17, 17, 17]]
    )
    assert (clips[:, 0, :, 0, 0] - expected).abs().max() < 3
    assert len(opened) == 1 and announced == [ramp.path] * 3  # each part has its own deadline
    assert reader.count(ramp, announced.append) == 5


def test_each_crop_of_a_view_is_a_window(ramp: Record) -> None:
    rule = partial(view_windows, clip=CLIP, num_clips=2)
    part = ReadWindows(rule, Brightness(crops=3), clip_bytes=1)(request(ramp), print)
    assert isinstance(part, VideoPart) and part.clips.shape == (6, 3, 4, 1, 1)
    assert [window.number for window in part.windows] == list(range(6)) and part.total == 2
    assert [window.frames[0] for window in part.windows] == [0, 0, 0, 14, 14, 14]


def test_a_video_without_a_sampling_rule_is_named(ramp: Record) -> None:
    clip = ClipConfig(num_frames=32, frame_stride=1, target_fps=None, short_videos="error")
    read = ReadWindows(partial(view_windows, clip=clip, num_clips=1), Brightness(), clip_bytes=1)
    with pytest.raises(ConfigError, match=r"ramp.mp4: clip spans 32 frames but the video has 18"):
        read(request(ramp), print)


def test_windows_too_large_for_memory_are_decoded_in_parts(
    reader: ReadWindows, ramp: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Counting:
        def __init__(self, path: str, backend: Any) -> None:
            self.video = open_video(path, backend)
            self.times, self.fps, self.info = self.video.times, self.video.fps, self.video.info

        def frames(self, indices: list[int]) -> Any:
            counts.append(len(indices))
            return self.video.frames(indices)

        def close(self) -> None:
            self.video.close()

    counts: list[int] = []
    whole = reader(request(ramp), print)
    reader._close()
    monkeypatch.setattr(shard_reading, "open_video", Counting)
    with open_video(ramp.path) as video:
        room = 4 * video.info.width * video.info.height * 3
    monkeypatch.setattr("hiera_video.data.clip_frames.AT_ONCE_BYTES", room)
    parts = reader(request(ramp), print)
    assert isinstance(whole, VideoPart) and isinstance(parts, VideoPart)
    assert torch.equal(whole.clips, parts.clips) and max(counts) == 4 and len(counts) > 1


def test_an_unreadable_video_is_returned_with_its_reason(
    reader: ReadWindows, ramp: Record, tmp_path: Path
) -> None:
    def read(record: Record) -> UnreadableVideo:
        found = reader(request(record), lambda path: None)
        assert isinstance(found, UnreadableVideo)
        return found

    gone = read(Record(path=str(tmp_path / "gone.mp4"), label=None, row=9))
    assert (gone.row, gone.reason) == (9, "missing")
    late = read(Record(path=ramp.path, label=None, row=1, start_seconds=50.0))
    assert late.reason == "empty_window"
    assert "has no frame from 50.0 to None s; its frames are at 0.00 to " in late.message
    short = Record(path=ramp.path, label=None, row=1, num_frames=20)
    assert "has 18 frames, but its list says 20" in read(short).message
    assert reader.count(short, lambda path: None) is None


def test_the_number_of_threads_is_restored(reader: ReadWindows, ramp: Record) -> None:
    threads = torch.get_num_threads()
    reader(request(ramp), lambda path: None)
    assert torch.get_num_threads() == threads


def test_a_part_is_as_many_windows_as_fit_into_memory(
    make_config: Callable[..., Config], tmp_path: Path
) -> None:
    config = make_config(tmp_path)
    plan = make_plan(config, read_input(config), make_encoder(config))
    assert plan.read.windows_per_part == (128 << 20) // (4 * 3 * 16 * 32 * 32)
