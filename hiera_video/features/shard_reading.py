"""Read the videos of shards ahead and deliver them in order, long videos in several parts.

    requests ──▶ workers (processes here, or a Ray cluster's tasks) ──▶ parts in manifest order

Each video is opened once and each of its frames decoded once.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from hiera_video.data.clip_frames import ViewTransform, crops_of_clips, record_frame_range
from hiera_video.data.dataset import UnreadableVideo
from hiera_video.data.loading.quarantine import OnOpen
from hiera_video.data.loading.storage import StorageGuard
from hiera_video.data.manifest.record import Record
from hiera_video.errors import ConfigError, DecodeError
from hiera_video.features.windows import Window, WindowRule
from hiera_video.video import open_video
from hiera_video.video.options import Backend
from hiera_video.video.reader import VideoReader

PART_BYTES = 128 << 20
"""Size of the clips in one part: bounds the memory of what is read ahead."""

Position = tuple[int, int, int]
"""Position of a part in the output: (turn of its shard, row of its video, first window)."""


@dataclass(frozen=True, kw_only=True)
class WindowRequest:
    """A request to a worker for some windows of one video."""

    turn: int
    """Position of the shard in the order in which this process computes shards."""
    shard: int
    """Number of the shard."""
    record: Record
    first: int
    """Index of the first requested window; the request is for as many as fit into a part."""

    @property
    def position(self) -> Position:
        """Return the position of the requested part in the output."""
        return self.turn, self.record.row, self.first


@dataclass(frozen=True, kw_only=True)
class VideoPart:
    """Consecutive windows of one video: all of them, or as many as fit into a part."""

    row: int
    """Row of the manifest."""
    path: str
    clips: Tensor
    """float32 [n, 3, T, S, S]."""
    windows: tuple[Window, ...]
    """The window of each clip; with several crops, one per crop, numbered consecutively."""
    total: int
    """Windows of the whole video; 0 if it is shorter than a window and tails are dropped."""


class ReadWindows:
    """Reads requested windows of videos; workers call it.

    Args:
        rule: Returns the windows of a video.
        transform: Makes the model's input from frames.
        clip_bytes: Size of the clips of one window, all crops together.
        decoder: Backend that decodes the videos.
        records: All videos of the extraction.
    """

    def __init__(
        self,
        rule: WindowRule,
        transform: ViewTransform,
        *,
        clip_bytes: int,
        decoder: Backend = "pyav",
        records: Sequence[Record] = (),
    ) -> None:
        self.rule = rule
        self.transform = transform
        self.decoder = decoder
        self.windows_per_part = max(PART_BYTES // clip_bytes, 1)
        self._storage = StorageGuard(records)
        self._kept: tuple[str, VideoReader] | None = None

    def __call__(self, request: WindowRequest, on_open: OnOpen) -> VideoPart | UnreadableVideo:
        """Read one part of a video; an unreadable video raises no error.

        Args:
            request: The windows to read.
            on_open: Called with the path before the file is opened.
        """
        record, threads = request.record, torch.get_num_threads()
        # resizing rounds differently with another number of threads, and workers have one
        torch.set_num_threads(1)
        try:
            return self._storage.read(record, partial(self._read_part, request), on_open)
        except DecodeError as error:
            return UnreadableVideo(
                row=record.row, path=record.path, reason=error.reason, message=str(error)
            )
        finally:
            torch.set_num_threads(threads)

    def count(self, record: Record, on_open: OnOpen) -> int | None:
        """Return the number of windows of a video, or None if it is unreadable."""
        try:
            return self._storage.read(record, partial(self._count, record), on_open)
        except DecodeError:
            return None

    def _count(self, record: Record) -> int:
        with open_video(record.source, self.decoder) as video:
            return len(self._windows(video, record))

    def _read_part(self, request: WindowRequest) -> VideoPart:
        try:
            return self._read(self._open(request.record), request.record, request.first)
        except DecodeError:
            self._close()
            raise

    def _read(self, video: VideoReader, record: Record, first: int) -> VideoPart:
        windows = self._windows(video, record)
        wanted = windows[first : first + self.windows_per_part]
        if not wanted:
            return VideoPart(
                row=record.row, path=record.path, clips=torch.empty(0), windows=(), total=0
            )
        crops = crops_of_clips(video, [window.frames for window in wanted], self.transform)
        count = len(crops.boxes)
        return VideoPart(
            row=record.row,
            path=record.path,
            clips=crops.clips if count == 1 else crops.stack(),
            windows=tuple(
                replace(window, number=count * window.number + crop)
                for window in wanted
                for crop in range(count)
            ),
            total=len(windows),
        )

    def _windows(self, video: VideoReader, record: Record) -> list[Window]:
        frames = record_frame_range(video, record)
        try:
            return self.rule(video.times, video.fps, frames)
        except ConfigError as error:
            raise ConfigError(f"{record.path}: {error}") from error

    def _open(self, record: Record) -> VideoReader:
        """Return the open video: the one of the last call if the file is the same."""
        if self._kept is None or self._kept[0] != record.path:
            self._close()
            self._kept = record.path, open_video(record.source, self.decoder)
        return self._kept[1]

    def _close(self) -> None:
        if self._kept is not None:
            self._kept[1].close()
            self._kept = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": None}  # an open file cannot be pickled


# -- in order ----------------------------------------------------------------------------------

ReadRequests = Callable[[Iterable[WindowRequest]], Iterator[VideoPart | UnreadableVideo]]
"""Reads requests and yields the results in their order. It takes requests lazily, and new ones may
appear after a result was taken."""


def read_in_order(
    shards: Iterable[tuple[int, Iterable[Record]]],
    read_requests: ReadRequests,
    windows_per_part: int,
) -> Iterator[tuple[int, int, VideoPart | UnreadableVideo]]:
    """Read all videos of `shards` and yield their parts in order.

    The first part of a long video tells how many parts there are; the others are requested next,
    before any other video. A video ends with its first unreadable part.

    Args:
        shards: (number, records) of each shard; taken when reading ahead reaches it.
        read_requests: Reads the requested parts, for instance in worker processes.
        windows_per_part: Windows in a part.

    Yields:
        (turn, number of the shard, part), where `turn` counts the shards.
    """
    requests = _Requests(shards, windows_per_part)
    for result in read_requests(requests):
        requests.receive(result)
        while (output := requests.next_output()) is not None:
            yield output


class _Requests(Iterator[WindowRequest]):
    def __init__(
        self, shards: Iterable[tuple[int, Iterable[Record]]], windows_per_part: int
    ) -> None:
        self._records = (
            (turn, number, record)
            for turn, (number, records) in enumerate(shards)
            for record in records
        )
        self._windows_per_part = windows_per_part
        self._further: list[tuple[Position, WindowRequest]] = []
        """Heap of the parts of long videos that are not requested yet."""
        self._pending: deque[WindowRequest] = deque()
        """Requests without a result."""
        self._outputs: list[Position] = []
        """Heap of the parts that are still to be yielded."""
        self._results: dict[Position, tuple[int, int, VideoPart | UnreadableVideo]] = {}

    def __next__(self) -> WindowRequest:
        if self._further:
            request = heapq.heappop(self._further)[1]
        else:
            turn, number, record = next(self._records)
            request = WindowRequest(turn=turn, shard=number, record=record, first=0)
            heapq.heappush(self._outputs, request.position)
        self._pending.append(request)
        return request

    def receive(self, result: VideoPart | UnreadableVideo) -> None:
        """Store the result of the oldest pending request."""
        request = self._pending.popleft()
        if isinstance(result, UnreadableVideo):
            self._drop_parts_after(request.position)
        elif request.first == 0:
            step = self._windows_per_part
            for first in range(step, result.total, step):
                further = replace(request, first=first)
                heapq.heappush(self._further, (further.position, further))
                heapq.heappush(self._outputs, further.position)
        if request.position in self._outputs:  # unless an earlier part was unreadable
            self._results[request.position] = request.turn, request.shard, result

    def next_output(self) -> tuple[int, int, VideoPart | UnreadableVideo] | None:
        """Return what comes next in the output, or None if it has not been read yet."""
        if not self._outputs or self._outputs[0] not in self._results:
            return None
        return self._results.pop(heapq.heappop(self._outputs))

    def _drop_parts_after(self, last: Position) -> None:
        def keep(position: Position) -> bool:
            return position[:2] != last[:2] or position <= last

        self._outputs = [position for position in self._outputs if keep(position)]
        self._further = [item for item in self._further if keep(item[0])]
        heapq.heapify(self._outputs)
        heapq.heapify(self._further)
