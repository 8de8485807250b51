"""Videos of shards, read ahead by workers and handed out in order: each opened and decoded once, long ones in parts.

asks ──▶ workers (data.pool, or a Ray cluster's tasks) ──▶ parts, back in the order of the manifest
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hiera_video.data.dataset import UnreadableVideo, ViewTransform, record_frame_range
from hiera_video.data.loading.quarantine import OnOpen
from hiera_video.data.manifest.record import Record
from hiera_video.data.sampling import ClipConfig
from hiera_video.errors import DecodeError
from hiera_video.features.config import FeaturesConfig
from hiera_video.features.windows import Stretch, stretches
from hiera_video.video import open_video
from hiera_video.video.options import Backend
from hiera_video.video.reader import Frames, VideoReader

PART_BYTES = 256 << 20
"""Of the clips that one task reads: bounds the memory of what is read ahead. A film comes in several parts."""

"""To be called with each file's path before it is opened; `DecodeError` if it is to be passed over."""


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What a worker is asked for: some windows of one video."""

    turn: int
    """Of the shard, in the order in which this process takes them."""
    number: int
    """Of the shard."""
    record: Record
    first: int
    """Place of the first window wanted; as many as make a part are."""

    @property
    def place(self) -> tuple[int, int, int]:
        """In the order in which parts are handed out."""
        return self.turn, self.record.row, self.first


@dataclass(frozen=True, kw_only=True)
class VideoPart:
    """Windows of one video, in order of time: all that it has, or a part."""

    row: int
    path: str
    clips: Tensor
    """float32 [n, 3, T, S, S]."""
    stretches: tuple[Stretch, ...]
    """[n]"""
    total: int
    """Windows of the video; 0 where it is shorter than one and tails are dropped."""


class ReadWindows:
    """`Ask` → its windows as the model sees them: what a worker does."""

    def __init__(
        self,
        clip: ClipConfig,
        windows: FeaturesConfig,
        transform: ViewTransform,
        *,
        clip_bytes: int,
        decoder: Backend = "pyav",
    ) -> None:
        self.clip = clip
        self.windows = windows
        self.transform = transform
        self.decoder = decoder
        self.part = max(PART_BYTES // clip_bytes, 1)
        self._kept: tuple[str, VideoReader] | None = None

    def __call__(self, ask: Ask, opening: OnOpen) -> VideoPart | UnreadableVideo:
        """The windows of `ask.record` from `ask.first` on. Never raises `DecodeError`: a video costs only itself."""
        record, threads = ask.record, torch.get_num_threads()
        torch.set_num_threads(
            1
        )  # resizing rounds by the number of threads; workers have one, so everyone has
        try:
            opening(record.path)
            video = self._open(record)
            try:
                return self._read(video, record, ask.first)
            except DecodeError:
                self._close()
                raise
        except DecodeError as error:
            return UnreadableVideo(
                row=record.row, path=record.path, reason=error.reason, message=str(error)
            )
        finally:
            torch.set_num_threads(threads)

    def count(self, record: Record, opening: OnOpen) -> int | None:
        """How many windows a video has; None where it cannot be read."""
        try:
            opening(record.path)
            with open_video(record.source, self.decoder) as video:
                return len(self._stretches(video, record))
        except DecodeError:
            return None

    def _read(self, video: VideoReader, record: Record, first: int) -> VideoPart:
        found = self._stretches(video, record)
        wanted = found[first : first + self.part]
        if not wanted:
            return VideoPart(
                row=record.row, path=record.path, clips=torch.empty(0), stretches=(), total=0
            )
        # each frame is scaled once, whichever windows it is in
        crops = [
            self.transform.views_of(frames, places) for frames, places in _decoded(video, wanted)
        ]
        assert all(len(part.boxes) == 1 for part in crops), "a feature is of one crop"
        return VideoPart(
            row=record.row,
            path=record.path,
            clips=torch.cat([part.clips for part in crops]) if len(crops) != 1 else crops[0].clips,
            stretches=tuple(wanted),
            total=len(found),
        )

    def _stretches(self, video: VideoReader, record: Record) -> list[Stretch]:
        return stretches(
            video.times, video.fps, record_frame_range(video, record), self.clip, self.windows
        )

    def _open(self, record: Record) -> VideoReader:
        """The video, still open from its last part or from another record of the same file."""
        if self._kept is None or self._kept[0] != record.path:
            self._close()
            self._kept = record.path, open_video(record.source, self.decoder)
        return self._kept[1]

    def _close(self) -> None:
        if self._kept is not None:
            self._kept[1].close()
            self._kept = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": None}  # an open file stays where it is


class WindowCounter:
    """`ReadWindows.count`, as a worker takes it."""

    def __init__(self, read: ReadWindows) -> None:
        self.read = read

    def __call__(self, record: Record, opening: OnOpen) -> int | None:
        return self.read.count(record, opening)


def _decoded(video: VideoReader, wanted: list[Stretch]) -> list[tuple[Frames, list[list[int]]]]:
    """The frames of all stretches, decoded in one pass, each once, and the places of each stretch's among them; in two
    halves where they are too large for one."""
    distinct = sorted({frame for stretch in wanted for frame in stretch.frames})
    try:
        frames = video.frames(distinct)
    except DecodeError as error:
        if error.reason != "too_large" or len(wanted) == 1:
            raise
        middle = len(wanted) // 2
        return [*_decoded(video, wanted[:middle]), *_decoded(video, wanted[middle:])]
    place = {frame: position for position, frame in enumerate(distinct)}
    return [(frames, [[place[frame] for frame in stretch.frames] for stretch in wanted])]


# -- in order ----------------------------------------------------------------------------------------------------------

Results = Callable[[Iterable[Ask]], Iterator[VideoPart | UnreadableVideo]]
"""What `WorkerPool.results` is: answers in the order of the asks. An ask may come after the last was taken."""


def read_in_order(
    shards: Iterable[tuple[int, Iterable[Record]]], results: Results, part: int
) -> Iterator[tuple[int, int, VideoPart | UnreadableVideo]]:
    """(turn, number of the shard, part) of every video, in order; a shard is taken when reading ahead comes to it.

    `part`: windows of a part. The first part of a long video tells how many there are; the others are asked for before
    anything else then. After a broken part, a video has no further ones.
    """
    asks = _Asks(shards, part)
    for result in results(asks):
        asks.answered(result)
        while (first := asks.first_answer()) is not None:
            yield first


class _Asks(Iterator[Ask]):
    def __init__(self, shards: Iterable[tuple[int, Iterable[Record]]], part: int) -> None:
        self._records = (
            (turn, number, record)
            for turn, (number, records) in enumerate(shards)
            for record in records
        )
        self._part = part
        self._further: list[
            tuple[tuple[int, int, int], Ask]
        ] = []  # heap: parts of long videos, not yet asked for
        self._given: deque[Ask] = deque()
        self._due: list[tuple[int, int, int]] = []  # heap of the places to be handed out
        self._answers: dict[tuple[int, int, int], tuple[int, int, VideoPart | UnreadableVideo]] = {}

    def __next__(self) -> Ask:
        if self._further:
            ask = heapq.heappop(self._further)[1]
        else:
            turn, number, record = next(self._records)
            ask = Ask(turn=turn, number=number, record=record, first=0)
            heapq.heappush(self._due, ask.place)
        self._given.append(ask)
        return ask

    def answered(self, result: VideoPart | UnreadableVideo) -> None:
        """Take the answer to the oldest unanswered ask."""
        ask = self._given.popleft()
        turn, row, first = ask.place
        if isinstance(result, UnreadableVideo):
            last = (turn, row, first)
            self._due = [place for place in self._due if place[:2] != last[:2] or place <= last]
            self._further = [
                item for item in self._further if item[0][:2] != last[:2] or item[0] <= last
            ]
            heapq.heapify(self._due)
            heapq.heapify(self._further)
        elif first == 0:
            for start in range(self._part, result.total, self._part):
                more = Ask(turn=turn, number=ask.number, record=ask.record, first=start)
                heapq.heappush(self._further, (more.place, more))
                heapq.heappush(self._due, more.place)
        if ask.place in self._due:  # a part behind a broken one is not
            self._answers[ask.place] = turn, ask.number, result

    def first_answer(self) -> tuple[int, int, VideoPart | UnreadableVideo] | None:
        """What is to be handed out next, if it is there."""
        if not self._due or self._due[0] not in self._answers:
            return None
        return self._answers.pop(heapq.heappop(self._due))
