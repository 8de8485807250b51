"""The engine of a Ray cluster: Ray Data hands shards to actors that hold the model; CPU tasks anywhere read the videos.

    Ray Data: shards ──▶ actor (GPU) ◀── parts of videos, in order ◀── tasks of one CPU each
                          run_shard        at most `in_flight` asked for: back-pressure

A task reads with the watched worker of every other engine, so that a video that hangs costs the same row here. Actors
and tasks that die are started again by Ray; a shard begun anew gives the same bytes.
"""

from __future__ import annotations

import logging
import time
import uuid
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import ray
import torch

from hiera_video.data.dataset import UnreadableVideo
from hiera_video.data.loading.pool import WorkerPool
from hiera_video.data.loading.quarantine import QuarantinePolicy
from hiera_video.errors import FeatureError, HieraVideoError, WorkerError
from hiera_video.features.engines import ExtractionProgress, Tally, make
from hiera_video.features.extract import ClipEncoder
from hiera_video.features.shard_claims import Claims
from hiera_video.features.shard_reading import PART_BYTES, Ask, ReadWindows, VideoPart
from hiera_video.features.shards import Work

logger = logging.getLogger(__name__)
BLOCKS_EACH = 16
"""Blocks of shards an actor gets, about: few enough to read ahead from one shard to the next, enough to share out."""

COLUMNS = ("shard", "clips", "videos", "broken", "waited", "error")


def run_ray(work: Work, build: Callable[[], ClipEncoder], *, actors: int | None = None) -> Tally:
    """Make every unfinished shard on the cluster of RAY_ADDRESS, else on one started here.

    build: makes the model, in each actor. actors: one a GPU where not given, or one.
    """
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    gpus = int(_resources().get("GPU", 0))
    actors = actors or max(gpus, 1)
    done = set(work.files.finished())
    to_do = [{"shard": number} for number in range(work.num_shards) if number not in done]
    tally, started = Tally(), time.monotonic()
    bar = ExtractionProgress(work, hidden=False)
    if to_do:
        shards = ray.data.from_items(
            to_do, override_num_blocks=min(len(to_do), BLOCKS_EACH * actors)
        )
        made = shards.map_batches(
            ShardActor,
            fn_constructor_args=(ray.put(work), build, _in_flight(actors)),
            batch_size=None,
            concurrency=actors,
            num_cpus=0,  # its CPU time goes into reading and, without a GPU, into the model beside it
            num_gpus=1 if gpus else 0,
        )
        for seal in made.iter_rows():
            if seal["error"]:
                raise FeatureError(seal["error"])
            tally.add(seal)
            tally.waited += seal["waited"] / actors
            tally.seconds = time.monotonic() - started
            bar.finished(tally)
    bar.close()
    return tally


def _resources() -> dict[str, float]:
    cluster: Any = ray  # whose functions have no types
    found: dict[str, float] = cluster.cluster_resources()
    return found


def _in_flight(actors: int) -> int:
    """Parts that an actor has asked for and not yet used: two a CPU, as long as half of the object store holds them."""
    resources = _resources()
    room = int(resources.get("object_store_memory", 0) / 2 / actors / PART_BYTES)
    return max(min(int(2 * resources.get("CPU", 1) / actors), room), 2)


class ShardActor:
    """Holds the model; makes the shards that Ray Data hands it."""

    def __init__(self, work: Any, build: Callable[[], ClipEncoder], in_flight: int) -> None:
        self.work: Work = ray.get(work)
        torch.set_num_threads(self.work.config.threads)
        self.build = build
        self.encoder: ClipEncoder | None = None
        self.in_flight = in_flight
        self.reading = ray.put(Reading(uuid.uuid4().hex, self.work.read, self.work.quarantine))

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """{"shard": numbers} → what became of each. A user's mistake is a row, for Ray keeps no error's type."""
        seals: dict[str, list[Any]] = {name: [] for name in COLUMNS}
        try:
            self.encoder = self.encoder or self.build()
            claims = Claims(self.work, only=batch["shard"].tolist())
            make(self.work, self.encoder, claims, self._results, _Noted(seals))
        except HieraVideoError as error:
            _Noted(seals).add(
                {"shard": -1, "clips": 0, "videos": 0, "broken": 0, "error": str(error)}
            )
        return seals

    def _results(self, asks: Iterable[Ask]) -> Iterator[VideoPart | UnreadableVideo]:
        """`WorkerPool.results`, by the cluster's tasks."""
        coming, waiting = iter(asks), deque[Any]()
        while True:
            while len(waiting) < self.in_flight and (ask := next(coming, None)) is not None:
                waiting.append(_read.remote(self.reading, ask))
            if not waiting:
                return
            try:
                yield _unpacked(ray.get(waiting.popleft()))
            except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError) as error:
                raise WorkerError(
                    f"a task that reads videos died again and again ({type(error).__name__}); if memory is short, give "
                    "the nodes fewer CPUs"
                ) from error


class _Noted(Tally):
    """Notes each shard by itself."""

    def __init__(self, seals: dict[str, list[Any]]) -> None:
        super().__init__()
        self._seals = seals

    def add(self, seal: dict[str, Any]) -> None:
        for name, value in {"error": "", **seal, "waited": self.waited}.items():
            if name in COLUMNS:
                self._seals[name].append(value)
        self.waited = 0.0


# -- in the tasks ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reading:
    """How videos are read, the same for every task."""

    run: str
    read: ReadWindows
    quarantine: QuarantinePolicy


_POOLS: dict[str, WorkerPool[Ask, VideoPart | UnreadableVideo]] = {}
"""This Ray worker's own watched worker, kept from task to task of a run."""


@ray.remote(num_cpus=1, max_retries=3)
def _read(reading: Reading, ask: Ask) -> VideoPart | UnreadableVideo:
    if reading.run not in _POOLS:
        while _POOLS:
            _POOLS.popitem()[1].close()
        _POOLS[reading.run] = WorkerPool(
            reading.read, workers=1, quarantine=reading.quarantine, context="fork"
        )
    (part,) = _POOLS[reading.run].results([ask])
    if isinstance(part, UnreadableVideo):
        return part
    return replace(part, clips=part.clips.numpy())  # type: ignore[arg-type]  # Ray copies no array that it only reads


def _unpacked(part: Any) -> VideoPart | UnreadableVideo:
    if isinstance(part, UnreadableVideo):
        return part
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # the object store's memory is not to be written to, and is not
        unpacked: VideoPart = replace(part, clips=torch.from_numpy(part.clips))
    return unpacked
