"""`train.batch_size=auto`: into how many parts a step is cut, for the memory at hand.

The batch of a step, and with it what the learning rate means, stays the recipe's. Real steps of a throw-away model are
taken: on a GPU with more and more clips until its memory is full; on a CPU, and where a model is sharded (one rank that
runs out would leave the others waiting), the growth a clip is measured and the rest follows.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import resource
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from hiera_video.data.loading.loader import ClipBatch
from hiera_video.errors import ConfigError, DeviceMemoryError
from hiera_video.runtime.distributed import World
from hiera_video.train.devices import device_name
from hiera_video.train.loop import forward_backward
from hiera_video.train.state import TrainState
from hiera_video.train.tasks import Task
from hiera_video.utils.atomic_files import write_atomic

logger = logging.getLogger(__name__)
SHARE = 0.8
"""Of the memory that is free; loading, other processes and fragmentation need some."""
NOISE = 64 << 20
"""Growth in bytes below which an allocator's own habits are measured rather than a model."""
RECORD = "memory.json"
"""In the run's folder: what was chosen. A restart on the same kind of machine takes it, to go on bit for bit."""


def part_sizes(batch_size: int, processes: int) -> dict[int, int]:
    """Videos that a process may take at once → parts of its share, from few videos to many, as `BatchPlan` allows.

    >>> part_sizes(16, 2)
    {2: 4, 4: 2, 8: 1}
    """
    found = {}
    for parts in range(batch_size // processes, 0, -1):
        chunks = processes * parts
        if batch_size % chunks == 0 and (chunks == 1 or batch_size // chunks % 2 == 0):
            found[batch_size // chunks] = parts
    return found


def remembered(folder: Path, batch_size: int, world: World) -> int | None:
    """Parts that this run was cut into before, on as many devices of the same kind."""
    path = folder / RECORD
    found = json.loads(path.read_text()) if path.is_file() else {}
    return (
        found.get("accumulate") if found.items() >= _situation(batch_size, world).items() else None
    )


def remember(folder: Path, batch_size: int, world: World, accumulate: int) -> None:
    """For `remembered`."""
    write_atomic(
        folder / RECORD, json.dumps({**_situation(batch_size, world), "accumulate": accumulate})
    )


def _situation(batch_size: int, world: World) -> dict[str, object]:
    return {
        "batch_size": batch_size,
        "processes": world.size,
        "device": device_name(world.device) or "cpu",
    }


def choose_parts(
    step: Callable[[int], None], batch_size: int, world: World, *, sharded: bool
) -> int:
    """`train.accumulate` for a batch of `batch_size` videos, so that the largest part that fits is computed at once.

    step: one real step with so many videos. Raises `DeviceMemoryError` where not even the smallest part fits.
    """
    sizes = part_sizes(batch_size, world.size)
    if not sizes:
        return 1  # the plan of the batches says what is wrong with it
    fits = _grown if world.device.type == "cuda" and not sharded else _predicted
    try:
        size = min(world.all_gather(fits(step, list(sizes), world)))
    except torch.OutOfMemoryError:  # of a sharded model's smallest part
        size = 0
    if world.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(world.device)  # the log's peak is that of the training
    if not size:
        raise DeviceMemoryError(
            f"train.batch_size=auto: not even {min(sizes)} videos at once fit the memory that is free; set "
            "model.checkpointing=true, lower clip.repeats or choose a smaller model"
        )
    logger.info(
        "train.batch_size=auto: the %d videos of a step as %d parts of %d on each of %d processes",
        batch_size, sizes[size], size, world.size,
    )  # fmt: skip
    return sizes[size]


def _grown(step: Callable[[int], None], sizes: Sequence[int], world: World) -> int:
    """The largest size that a GPU took, with a tenth of its memory left alone; 0 where it took none."""
    taken = 0
    torch.cuda.set_per_process_memory_fraction(0.9, world.device)
    try:
        for size in sizes:
            step(size)
            taken = size
    except torch.OutOfMemoryError:
        pass
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, world.device)
        torch.cuda.empty_cache()
    return taken


def _predicted(step: Callable[[int], None], sizes: Sequence[int], world: World) -> int:
    """The largest size whose growth, by that of a small one, stays within what is free; 0 where none does."""
    step(sizes[0])  # gradients and the optimizer's state are there from now on, for whatever size
    free, measured, growth = min(world.all_gather(free_memory(world))), sizes[0], 0
    for measured in sizes:
        growth = max(world.all_gather(growth_of(lambda: step(measured), world)))  # noqa: B023
        if growth > min(NOISE, SHARE * free / 2):
            break
    a_video = growth / measured
    logger.info(
        "a video takes %.1f MB in a step, measured with %d; %.2f GB are free",
        a_video / 1e6,
        measured,
        free / 1e9,
    )
    return max((size for size in sizes if size * a_video <= SHARE * free), default=0)


def trial_step(
    state: TrainState,
    task: Task,
    world: World,
    *,
    precision: str,
    clip: tuple[int, ...],
    repeats: int,
    num_labels: int | None,
) -> Callable[[int], None]:
    """A real step of `state` on so many videos of noise, each with `repeats` clips [3, T, H, W].

    num_labels: classes of a task with several labels a video, else None.
    """

    def step(videos: int) -> None:
        count = videos * repeats
        numbers = torch.arange(count)
        labels = (
            torch.zeros(count, dtype=torch.long)
            if num_labels is None
            else torch.zeros(count, num_labels)
        )
        clips = torch.randn(count, *clip)
        batch = ClipBatch(
            clips=clips, labels=labels, row=numbers, view=numbers, position=numbers, substituted=()
        )
        forward_backward(state.model, task, [batch], 0, precision, state.scaler, world)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.optimizer.zero_grad()
        if state.ema:
            state.ema.update_parameters(state.model)

    return step


def growth_of(work: Callable[[], None], world: World) -> int:
    """Bytes by which memory grew at the most while `work` ran."""
    if world.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(world.device)
        before = torch.cuda.memory_allocated(world.device)
        work()
        return torch.cuda.max_memory_allocated(world.device) - before
    trim = getattr(
        ctypes.CDLL(None), "malloc_trim", None
    )  # glibc keeps what was freed, which would hide growth
    if trim is not None:
        trim(0)
    reset = Path("/proc/self/clear_refs")
    if os.access(reset, os.W_OK):
        reset.write_text(
            "5"
        )  # the peak starts anew; elsewhere it is that of the whole process, which is on the safe side
    before = _status("VmRSS")
    work()
    return (_status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024) - before


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:")), 0)


def free_memory(world: World) -> int:
    """Bytes that this process may still take."""
    if world.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(world.device)
        return (
            free
            + torch.cuda.memory_reserved(world.device)
            - torch.cuda.memory_allocated(world.device)
        )
    return free_host_memory() // int(os.environ.get("LOCAL_WORLD_SIZE", world.size))


def free_host_memory(root: Path = Path("/")) -> int:
    """Bytes that are free on this machine and in the control groups (v1 or v2) that this process is in.

    Raises `ConfigError` where the system does not say (only Linux does).
    """
    meminfo = root / "proc/meminfo"
    lines = meminfo.read_text().splitlines() if meminfo.is_file() else []
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    if not found:
        raise ConfigError(
            "train.batch_size=auto: this system does not say how much memory is free; set train.accumulate"
        )
    groups = (root / "proc/self/cgroup").read_text().splitlines()
    for _, controllers, path in (line.split(":", 2) for line in groups):
        if controllers in ("", "memory"):
            mount = root / "sys/fs/cgroup" / controllers
            names = ("memory.max", "memory.current") if not controllers else _V1
            place = mount / path.strip("/")
            for folder in (place, *place.parents):
                if folder.is_relative_to(mount):
                    found += _left(folder, *names)
    return min(found)


_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes")


def _left(group: Path, limit: str, usage: str) -> list[int]:
    """What a control group leaves, pages of files that can be dropped not counted as used; empty where it has no limit."""
    if not (group / limit).is_file() or not (text := (group / limit).read_text().strip()).isdigit():
        return []
    stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    droppable = int(stat.get("total_inactive_file", stat.get("inactive_file", 0)))
    return [max(int(text) - int((group / usage).read_text()) + droppable, 0)]
