"""Parts of videos come in the order of the manifest, whatever their length and however far workers read ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
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
from hiera_video.features import shard_reading
from hiera_video.features.config import FeaturesConfig
from hiera_video.features.shard_reading import (
    WindowRequest,
    ReadWindows,
    VideoPart,
    WindowCounter,
    read_in_order,
)
from hiera_video.features.windows import Window
from hiera_video.video import open_video
from hiera_video.video.encode import write_video
from hiera_video.video.reader import unreadable
from hiera_video.workflows.extract import make_encoder, make_plan, read_input

PART = 2
TOTALS = {0: 5, 1: 1, 2: 0, 3: 4, 4: 2, 5: 3}


def answer(ask: WindowRequest) -> VideoPart | UnreadableVideo:
    if (ask.record.row, ask.first) in BAD:
        return UnreadableVideo(row=ask.record.row, path="", reason="corrupt", message="")
    total = TOTALS[ask.record.row]
    found = tuple(
        Window(number=n, start_seconds=n, end_seconds=n + 1, tail=False, frames=())
        for n in range(ask.first, min(ask.first + PART, total))
    )
    return VideoPart(
        row=ask.record.row, path="", clips=torch.empty(len(found)), sliding_windows=found, total=total
    )


BAD: set[tuple[int, int]] = set()


def reading_ahead(count: int) -> Callable[[Iterable[WindowRequest]], Iterator[Any]]:
    def results(requests: Iterable[WindowRequest]) -> Iterator[Any]:
        requests, given = iter(requests), list[WindowRequest]()
        while True:
            given += islice(requests, count - len(given))
            if not given:
                return
            yield answer(given.pop(0))

    return results


def order(ahead: int) -> list[tuple[int, int, int, list[int] | str]]:
    shards = [(7, [0, 1, 2]), (9, [3, 4, 5])]
    asked = (
        (number, [Record(path="", label=None, row=row) for row in rows]) for number, rows in shards
    )
    return [
        (
            turn,
            number,
            part.row,
            part.reason
            if isinstance(part, UnreadableVideo)
            else [s.number for s in part.sliding_windows],
        )
        for turn, number, part in read_in_order(asked, reading_ahead(ahead), PART)
    ]


@pytest.mark.parametrize("ahead", [1, 2, 3, 20])
def test_parts_come_in_order(ahead: int) -> None:
    assert order(ahead) == [
        *((0, 7, 0, [0, 1]), (0, 7, 0, [2, 3]), (0, 7, 0, [4])),
        *((0, 7, 1, [0]), (0, 7, 2, [])),
        *(
            (1, 9, 3, [0, 1]),
            (1, 9, 3, [2, 3]),
            (1, 9, 4, [0, 1]),
            (1, 9, 5, [0, 1]),
            (1, 9, 5, [2]),
        ),
    ]


@pytest.mark.parametrize("ahead", [1, 2, 3, 20])
def test_a_video_ends_with_its_first_broken_part(
    ahead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "BAD", {(0, 2), (0, 4), (3, 0)})
    assert order(ahead) == [
        *((0, 7, 0, [0, 1]), (0, 7, 0, "corrupt"), (0, 7, 1, [0]), (0, 7, 2, [])),
        *((1, 9, 3, "corrupt"), (1, 9, 4, [0, 1]), (1, 9, 5, [0, 1]), (1, 9, 5, [2])),
    ]


def test_shards_are_taken_when_reading_comes_to_them() -> None:
    taken: list[int] = []

    def shards() -> Iterator[tuple[int, list[Record]]]:
        for number in range(3):
            taken.append(number)
            yield number, [Record(path="", label=None, row=1)]

    stream = read_in_order(shards(), reading_ahead(1), PART)
    assert next(stream)[1] == 0 and taken == [0]
    assert next(stream)[1] == 1 and taken == [0, 1]


# -- one worker --------------------------------------------------------------------------------------------------------


class Brightness:
    """A frame is its mean brightness."""

    def views_of(self, frames: Any, clips: Sequence[Sequence[int]]) -> Crops:
        means = torch.from_numpy(frames).float().mean(dim=(1, 2))  # [N, 3]
        shown = torch.stack([means[list(places)].T for places in clips])
        return Crops(clips=shown[..., None, None], boxes=((0, 0, 1, 1),))


@pytest.fixture
def reader() -> ReadWindows:
    """Four frames a clip, side by side, two windows a part."""
    read = ReadWindows(
        ClipConfig(num_frames=4, frame_stride=1, target_fps=None),
        FeaturesConfig(),
        Brightness(),
        clip_bytes=1,
    )
    read.part = 2
    return read


@pytest.fixture(scope="module")
def ramp(tmp_path_factory: pytest.TempPathFactory) -> Record:
    """Frame i has brightness 10 i."""
    path = tmp_path_factory.mktemp("ramp") / "ramp.mp4"
    write_video(path, (np.full((32, 32, 3), 10 * i, np.uint8) for i in range(18)), fps=10)
    return Record(path=str(path), label=None, row=3)


def ask(record: Record, first: int = 0) -> WindowRequest:
    return WindowRequest(turn=0, number=0, record=record, first=first)


def test_a_long_video_is_opened_once_for_its_parts(
    reader: ReadWindows, ramp: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Any] = []
    monkeypatch.setattr(
        shard_reading, "open_video", lambda *given: opened.append(given) or open_video(*given)
    )
    told: list[str] = []
    parts = [reader(ask(ramp, first), told.append) for first in (0, 2, 4)]
    assert all(isinstance(part, VideoPart) and part.total == 5 for part in parts)
    seen = torch.cat([part.clips for part in parts if isinstance(part, VideoPart)])[:, 0, :, 0, 0]
    expected = 10 * torch.tensor(
        [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15], [16, 17, 17, 17]]
    )
    assert (seen - expected).abs().max() < 3
    assert len(opened) == 1 and told == [ramp.path] * 3  # each part has a deadline of its own
    assert WindowCounter(reader)(ramp, told.append) == 5


def test_what_is_too_large_for_one_pass_is_read_in_several(
    reader: ReadWindows, ramp: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Small:
        def __init__(self, path: str, backend: Any) -> None:
            self.video = open_video(path, backend)
            self.times, self.fps = self.video.times, self.video.fps

        def frames(self, indices: list[int]) -> Any:
            if len(indices) > 4:
                raise unreadable("", "too_large", "needs too much")
            return self.video.frames(indices)

        def close(self) -> None:
            self.video.close()

    whole = reader(ask(ramp), print)
    reader._close()
    monkeypatch.setattr(shard_reading, "open_video", Small)
    halves = reader(ask(ramp), print)
    assert (
        isinstance(whole, VideoPart)
        and isinstance(halves, VideoPart)
        and torch.equal(whole.clips, halves.clips)
    )


def test_a_worker_answers_with_a_reason(reader: ReadWindows, ramp: Record, tmp_path: Path) -> None:
    gone = reader(
        ask(Record(path=str(tmp_path / "gone.mp4"), label=None, row=9)), lambda path: None
    )
    assert isinstance(gone, UnreadableVideo) and (gone.row, gone.reason) == (9, "missing")
    late = Record(path=ramp.path, label=None, row=1, start_seconds=50.0)
    found = reader(ask(late), lambda path: None)
    assert isinstance(found, UnreadableVideo) and found.reason == "empty_window"
    assert "has no frame from 50.0 to None s; its frames are at 0.00 to " in found.message
    short = Record(path=ramp.path, label=None, row=1, num_frames=20)
    found = reader(ask(short), lambda path: None)
    assert (
        isinstance(found, UnreadableVideo)
        and "has 18 frames, but its list says 20; make it again" in found.message
    )
    assert WindowCounter(reader)(short, lambda path: None) is None
    threads = torch.get_num_threads()
    reader(ask(ramp), lambda path: None)
    assert torch.get_num_threads() == threads


def test_the_part_is_what_fits_into_memory(
    make_config: Callable[..., Config], tmp_path: Path
) -> None:
    config = make_config(tmp_path)
    plan = make_plan(config, read_input(config), make_encoder(config))
    assert plan.read.windows_per_part == (256 << 20) // (4 * 3 * 16 * 32 * 32)
