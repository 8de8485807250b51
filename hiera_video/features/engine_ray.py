"""Run an extraction on a Ray cluster.

    shards ──▶ actor with the model ◀── parts of videos, in order ◀── tasks of one CPU each
                                        at most `max_pending` requests (back-pressure)

A task reads videos in a watched worker process, as the other engines do, so a video that hangs
costs only its own row. Ray restarts actors and tasks that die; a shard that is computed again has
the same bytes.
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
from hiera_video.features.engines import ExtractionProgress, ExtractionStats, compute_shards
from hiera_video.features.extract import ClipEncoder
from hiera_video.features.shard_reading import PART_BYTES, ReadWindows, VideoPart, WindowRequest
from hiera_video.features.shards import ExtractionPlan
from hiera_video.utils.resumable import ShardClaims

logger = logging.getLogger(__name__)
BLOCKS_PER_ACTOR = 16
"""Approximate number of blocks of shards per actor: few enough to read ahead from one shard to the
next, many enough to distribute evenly."""

COLUMNS = ("shard", "clips", "videos", "broken", "waited", "error")


def run_ray(
    plan: ExtractionPlan, build: Callable[[], ClipEncoder], *, actors: int | None = None
) -> ExtractionStats:
    """Compute all unfinished shards on the cluster of RAY_ADDRESS, or on one started here.

    Args:
        plan: The extraction.
        build: Creates the model in each actor.
        actors: Number of actors; None: one per GPU, or one without GPUs.

    Raises:
        FeatureError: An actor failed because of the user's input; the message is the actor's.
    """
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    gpus = int(_cluster_resources().get("GPU", 0))
    actors = actors or max(gpus, 1)
    finished = set(filter(plan.files.is_finished, plan.files.finished()))
    remaining = [{"shard": number} for number in range(len(plan.ranges)) if number not in finished]
    stats, started = ExtractionStats(), time.monotonic()
    bar = ExtractionProgress(plan, hidden=False)
    if remaining:
        shards = ray.data.from_items(
            remaining, override_num_blocks=min(len(remaining), BLOCKS_PER_ACTOR * actors)
        )
        computed = shards.map_batches(
            ShardActor,
            fn_constructor_args=(ray.put(plan), build, _max_pending(actors)),
            batch_size=None,
            concurrency=actors,
            num_cpus=0,  # the CPUs go to the tasks that read and, without a GPU, to the model
            num_gpus=1 if gpus else 0,
        )
        for row in computed.iter_rows():
            if row["error"]:
                raise FeatureError(row["error"])
            stats.add(row)
            stats.waited += row["waited"] / actors
            stats.seconds = time.monotonic() - started
            bar.refresh()
    bar.close()
    return stats


def _cluster_resources() -> dict[str, float]:
    cluster: Any = ray  # its functions have no types
    resources: dict[str, float] = cluster.cluster_resources()
    return resources


def _max_pending(actors: int) -> int:
    """Return how many parts an actor may have requested: two per CPU, as far as half of the object
    store holds them."""
    resources = _cluster_resources()
    room = int(resources.get("object_store_memory", 0) / 2 / actors / PART_BYTES)
    return max(min(int(2 * resources.get("CPU", 1) / actors), room), 2)


class ShardActor:
    """Ray actor that holds the model and computes the shards that Ray Data sends it."""

    def __init__(self, plan: Any, build: Callable[[], ClipEncoder], max_pending: int) -> None:
        self.plan: ExtractionPlan = ray.get(plan)
        torch.set_num_threads(self.plan.config.threads)
        self.build = build
        self.encoder: ClipEncoder | None = None
        self.max_pending = max_pending
        self.reader = ray.put(ReaderSpec(uuid.uuid4().hex, self.plan.read, self.plan.quarantine))

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Compute the shards `batch["shard"]` and return one row each.

        A user's mistake becomes a row, because Ray does not keep the type of an error.
        """
        rows: list[dict[str, Any]] = []
        stats = ExtractionStats()
        try:
            self.encoder = self.encoder or self.build()
            claims = ShardClaims(self.plan.files, batch["shard"].tolist())
            waited = 0.0
            for summary in compute_shards(self.plan, self.encoder, claims, self._read, stats):
                rows.append({**summary, "waited": stats.waited - waited, "error": ""})
                waited = stats.waited
        except HieraVideoError as error:
            rows.append({**dict.fromkeys(COLUMNS, 0), "error": str(error)})
        return {name: [row[name] for row in rows] for name in COLUMNS}

    def _read(self, requests: Iterable[WindowRequest]) -> Iterator[VideoPart | UnreadableVideo]:
        """Read `requests` in the cluster's tasks; yield the results in order."""
        coming, pending = iter(requests), deque[Any]()
        while True:
            while len(pending) < self.max_pending and (request := next(coming, None)) is not None:
                pending.append(_read_part.remote(self.reader, request))
            if not pending:
                return
            try:
                yield _to_torch(ray.get(pending.popleft()))
            except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError) as error:
                raise WorkerError(
                    f"a task that reads videos died repeatedly ({type(error).__name__}); if memory "
                    "is short, give the nodes fewer CPUs"
                ) from error


# -- in the tasks ------------------------------------------------------------------------------


@dataclass(frozen=True)
class ReaderSpec:
    """Reading options of the tasks of one run."""

    run: str
    """Unique name of the run."""
    read: ReadWindows
    quarantine: QuarantinePolicy


_POOLS: dict[str, WorkerPool[WindowRequest, VideoPart | UnreadableVideo]] = {}
"""The watched worker process of this Ray worker; it is kept for all tasks of a run."""


@ray.remote(num_cpus=1, max_retries=3)
def _read_part(spec: ReaderSpec, request: WindowRequest) -> VideoPart | UnreadableVideo:
    if spec.run not in _POOLS:
        while _POOLS:
            _POOLS.popitem()[1].close()
        _POOLS[spec.run] = WorkerPool(
            spec.read, workers=1, quarantine=spec.quarantine, context="fork"
        )
    (part,) = _POOLS[spec.run].results([request])
    if isinstance(part, UnreadableVideo):
        return part
    return replace(part, clips=part.clips.numpy())  # type: ignore[arg-type]  # Ray reads arrays without a copy


def _to_torch(part: Any) -> VideoPart | UnreadableVideo:
    if isinstance(part, UnreadableVideo):
        return part
    with warnings.catch_warnings():
        # torch warns that the array is read-only; nothing writes to it
        warnings.simplefilter("ignore")
        converted: VideoPart = replace(part, clips=torch.from_numpy(part.clips))
    return converted
