"""`train.batch_size=auto`: choose gradient accumulation by the memory of the GPU.

The batch of a step, and with it the meaning of the learning rate, stays the recipe's. Training
steps of a throw-away model are measured: with more and more videos until the GPU's memory is full
or, where the model is sharded and one rank that runs out of memory would leave the others waiting,
with few videos, from which the rest is extrapolated.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from hiera_video.data.detection.dataset import add_whole_boxes
from hiera_video.data.loading.loader import ClipBatch
from hiera_video.errors import ConfigError, DeviceMemoryError
from hiera_video.runtime.distributed import World
from hiera_video.runtime.signals import StopSignal
from hiera_video.train.devices import device_name
from hiera_video.train.trainer import Trainer
from hiera_video.utils.atomic_files import write_atomic
from hiera_video.utils.text_files import DAMAGED_JSON, count_of

logger = logging.getLogger(__name__)
USABLE_SHARE = 0.8
"""Share of the free memory that a sharded model may use; fragmentation needs some."""
MIN_GROWTH = 64 << 20
"""Bytes from which on the growth of a step is extrapolated; below it allocator effects dominate."""
STEP_SHARE, GRAPH_SHARE = 0.9, 0.75
"""Shares of the GPU's memory that a step may use, freed after it or kept by a CUDA graph."""
OUT_OF_MEMORY = (torch.OutOfMemoryError, DeviceMemoryError)
"""Errors of a step that does not fit: torch's, and what `Trainer.train_step` makes of it."""
TRIAL_BOXES = 8
"""Boxes of a clip in a trial of action detection; AVA's key frames have two on average."""
RECORD = "memory.json"
"""File in the run folder with the choice, reused by restarts on the same kind of machine."""


def micro_batch_sizes(batch_size: int, num_processes: int, *, pairs: bool = True) -> dict[int, int]:
    """Return the possible micro-batch sizes, ascending, with the accumulation that each needs.

    With `pairs` (as in `BatchPlan`), odd sizes load their clips twice, so of these there is only 1.

    >>> micro_batch_sizes(16, 2)
    {1: 8, 2: 4, 4: 2, 8: 1}
    """
    sizes = {}
    for accumulate in range(batch_size // num_processes, 0, -1):
        size, rest = divmod(batch_size, num_processes * accumulate)
        if rest == 0 and not (pairs and 1 < size < batch_size and size % 2):
            sizes[size] = accumulate
    return sizes


def read_choice(folder: Path, batch_size: int, world: World) -> int | None:
    """Return the accumulation that an earlier start chose on as many devices of this kind."""
    path = folder / RECORD
    try:
        record = json.loads(path.read_text())
        same = record.items() >= _conditions(batch_size, world).items()
        return int(record["accumulate"]) if same else None
    except DAMAGED_JSON:
        return None


def write_choice(folder: Path, batch_size: int, world: World, accumulate: int) -> None:
    """Record the choice for `read_choice`."""
    record = {**_conditions(batch_size, world), "accumulate": accumulate}
    write_atomic(folder / RECORD, json.dumps(record))


def _conditions(batch_size: int, world: World) -> dict[str, object]:
    return {
        "batch_size": batch_size,
        "processes": world.size,
        "device": device_name(world.device) or "cpu",
    }


def require_gpu(device: torch.device) -> None:
    """Raise `ConfigError` unless `device` is a GPU."""
    if device.type != "cuda":
        raise ConfigError(
            "train.batch_size=auto: measures GPU memory, and this run is on a CPU; set "
            "train.accumulate instead"
        )


def choose_accumulation(
    step: Callable[[int], None],
    batch_size: int,
    world: World,
    *,
    sharded: bool,
    pairs: bool = True,
    graph: bool = False,
) -> int:
    """Return the smallest `train.accumulate` whose micro-batches fit the memory of every GPU.

    Args:
        step: Runs a training step with the given number of videos on this rank.
        batch_size: Videos of an optimizer step over all ranks.
        world: The ranks.
        sharded: The model is sharded over the ranks.
        pairs: As in `BatchPlan`.
        graph: The run's steps will be a CUDA graph, which keeps its memory during validations.

    Raises:
        DeviceMemoryError: Not even the smallest micro-batch fits.
    """
    sizes = micro_batch_sizes(batch_size, world.size, pairs=pairs)
    if not sizes:
        return 1  # `BatchPlan` reports the problem
    try:
        if sharded:
            found = _extrapolate_largest(step, list(sizes), world)
        else:
            found = _try_largest(step, list(sizes), world, GRAPH_SHARE if graph else STEP_SHARE)
        size = min(world.all_gather(found))
    except OUT_OF_MEMORY:  # smallest micro-batch of a sharded model
        size = 0
    torch.cuda.reset_peak_memory_stats(world.device)  # the log shows the peak of training alone
    if not size:
        raise DeviceMemoryError(
            "train.batch_size=auto: the free memory is too small for "
            f"{count_of(min(sizes), 'video')} at once; set model.checkpointing=true, "
            "lower clip.repeats or choose a smaller model"
        )
    logger.info(
        "train.batch_size=auto: train.accumulate=%d, micro-batches of %s, %s",
        sizes[size],
        count_of(size, "video"),
        count_of(world.size, "process"),
    )
    return sizes[size]


def _try_largest(
    step: Callable[[int], None], sizes: Sequence[int], world: World, share: float
) -> int:
    """Return the largest size that fits into a share of the GPU's memory; 0 if none does."""
    largest = 0
    torch.cuda.set_per_process_memory_fraction(share, world.device)
    try:
        for size in sizes:
            step(size)
            largest = size
    except OUT_OF_MEMORY:
        pass
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, world.device)
        torch.cuda.empty_cache()
    return largest


def _extrapolate_largest(step: Callable[[int], None], sizes: Sequence[int], world: World) -> int:
    """Return the largest size predicted to fit on every rank; 0 if none is."""
    step(sizes[0])  # allocates gradients and optimizer state, which do not grow with the batch
    free, size, growth = min(world.all_gather(_free_memory(world.device))), sizes[0], 0
    for size in sizes:
        growth = max(world.all_gather(_step_growth(step, size, world.device)))
        if growth > min(MIN_GROWTH, USABLE_SHARE * free / 2):
            break
    per_video = growth / size
    logger.info(
        "a video takes %.1f MB in a step, measured with %d; %.2f GB are free",
        per_video / 1e6,
        size,
        free / 1e9,
    )
    return max((size for size in sizes if size * per_video <= USABLE_SHARE * free), default=0)


def _step_growth(step: Callable[[int], None], size: int, device: torch.device) -> int:
    """Return the bytes by which a step's peak exceeds the memory allocated before it."""
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    step(size)
    return torch.cuda.max_memory_allocated(device) - before


def _free_memory(device: torch.device) -> int:
    """Return the bytes that this process can still allocate."""
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def trial_step(
    trainer: Trainer,
    *,
    clip: tuple[int, ...],
    repeats: int,
    num_labels: int | None,
    boxes: bool = False,
) -> Callable[[int], None]:
    """Return a function that runs a training step on a given number of videos of noise.

    Args:
        trainer: Trainer of a throw-away model.
        clip: Shape of a clip, (3, T, H, W).
        repeats: Clips of each video.
        num_labels: Number of classes of a multi-label task, else None.
        boxes: The task scores boxes, of which each clip then has `TRIAL_BOXES`.
    """

    def step(videos: int) -> None:
        count = videos * repeats
        numbers = torch.arange(count)
        labels = numbers * 0 if num_labels is None else torch.zeros(count, num_labels)
        batch = ClipBatch(
            clips=torch.randn(count, *clip),
            labels=labels,
            row=numbers,
            view=numbers,
            position=numbers,
            substituted=(),
        )
        if boxes:
            batch = add_whole_boxes(batch, TRIAL_BOXES)
        trainer.train_step([batch], StopSignal())

    return step
