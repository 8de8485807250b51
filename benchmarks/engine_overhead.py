"""Measure the overhead of the training engine: a step of `Trainer` against a bare training step.

    python benchmarks/engine_overhead.py               # 8 rounds of 40 steps on an idle machine
    python benchmarks/engine_overhead.py --rounds 1 --steps 3 --out overhead.json

Both train the micro model at batch 16 on one thread, on the same clips in memory, in turns. The
bare step is forward, backward and optimizer step. The trainer adds the schedule, drop-path draws,
the gradient norm, the reduction over ranks, the finite check and the log row (at each step here, by
default at every tenth). Mixup is off, because it is arithmetic on clips like the model's. The
result is the median ratio of CPU times. Writes `results/engine_overhead.json`; the exit code is 1
above 3 %. `--profile` prints the trainer's functions by time instead.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
import cProfile
import logging
import pstats
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from statistics import median

import torch
from record import record
from torch.nn import functional as F

from hiera_video.config.load import load_config
from hiera_video.config.schema import Config
from hiera_video.data.config import AugmentConfig
from hiera_video.data.loading.loader import ClipBatch
from hiera_video.models.factory import create_model
from hiera_video.runtime.distributed import SINGLE_PROCESS
from hiera_video.runtime.log import MetricLog
from hiera_video.runtime.signals import StopSignal
from hiera_video.train.checkpoint import CheckpointStore
from hiera_video.train.config import TrainConfig
from hiera_video.train.state import TrainState, make_state
from hiera_video.train.tasks import Classify
from hiera_video.train.trainer import RunInfo, Trainer

BATCH, CLASSES, LIMIT = 16, 2, 0.03


def main() -> int:
    """Measure both in turns and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument(
        "--profile", action="store_true", help="print the trainer's functions by time"
    )
    parser.add_argument("--out", type=Path, help="file for the results")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.INFO)
    config = load_config(Path(__file__).parents[1] / "configs/motion_hiera_micro.yaml")
    batch = make_batch(config)
    if arguments.profile:
        profiler = cProfile.Profile(time.process_time)
        profiler.runcall(trainer_seconds, config, batch, arguments.steps)
        pstats.Stats(profiler).sort_stats("cumtime").print_stats(
            "hiera_video/(train|runtime|data)|clip_grad|manual_seed"
        )
        return 0
    engine, model = [], []
    for number in range(arguments.rounds + 1):
        pair = (
            trainer_seconds(config, batch, arguments.steps),
            bare_seconds(config, batch, arguments.steps),
        )
        if number:  # the first round warms up
            engine.append(pair[0])
            model.append(pair[1])
    overhead = median(full / bare for full, bare in zip(engine, model)) - 1
    print(
        f"trainer {1e3 * median(engine):.2f} ms per step, bare step {1e3 * median(model):.2f} ms: "
        f"overhead {overhead:.2%}"
    )
    result = {
        "command": " ".join(["python", *sys.argv]),
        "batch": BATCH,
        "steps": arguments.steps,
        "fit_seconds_a_step": engine,
        "model_seconds_a_step": model,
        "overhead": overhead,
        "limit": LIMIT,
    }
    print(record("engine_overhead", result, arguments.out))
    return int(overhead > LIMIT)


def make_batch(config: Config) -> ClipBatch:
    """Return a batch of noise."""
    torch.manual_seed(0)
    numbers = torch.arange(BATCH)
    clips = torch.randn(BATCH, 3, *config.input_size)
    return ClipBatch(
        clips=clips,
        labels=numbers % CLASSES,
        row=numbers,
        view=numbers * 0,
        position=numbers,
        substituted=(),
    )


def make(config: Config) -> TrainState:
    """Return the same model and optimizer each time."""
    torch.manual_seed(0)
    model = create_model(config.model.name, num_classes=CLASSES, drop_path_rate=0.1)
    return make_state(model.train(), config.optim, TrainConfig(batch_size=BATCH), SINGLE_PROCESS)


def trainer_seconds(config: Config, batch: ClipBatch, steps: int) -> float:
    """Return the CPU time of a trainer's step, without start-up and the last checkpoint."""
    task = Classify(num_classes=CLASSES, multi_label=False, augment=AugmentConfig())
    times: list[float] = []

    def batches() -> Iterator[list[ClipBatch]]:
        for _ in range(steps + 2):
            times.append(time.process_time())
            yield [batch]

    with tempfile.TemporaryDirectory() as folder:
        log = MetricLog(Path(folder), first_step=0)
        store = CheckpointStore(Path(folder) / "checkpoints", keep=1)
        run = RunInfo(
            world=SINGLE_PROCESS,
            steps_per_epoch=steps + 2,
            num_videos=1,
            seed=0,
            flops_per_clip=1.0,
        )
        train = TrainConfig(epochs=1, batch_size=BATCH, log_every=1)
        trainer = Trainer(
            make(config), task, optim=config.optim, train=train, run=run, store=store, log=log
        )
        trainer.fit(batches(), StopSignal())
        log.close()
    return (times[-1] - times[1]) / steps  # from the second batch to the last


def bare_seconds(config: Config, batch: ClipBatch, steps: int) -> float:
    """Return the CPU time of a bare step."""
    state = make(config)
    model, optimizer = state.model, state.optimizer
    depth = len(model.blocks)  # type: ignore[arg-type]
    targets = F.one_hot(batch.labels, CLASSES).float()
    draws = torch.rand(BATCH, depth, 2)
    started = 0.0
    for number, clips in enumerate(repeat(batch.clips, steps + 1)):
        if number == 1:  # the first step allocates the optimizer's state
            started = time.process_time()
        F.cross_entropy(model(clips, path_draws=draws).float(), targets).backward()
        optimizer.step()
        optimizer.zero_grad()
    return (time.process_time() - started) / steps


if __name__ == "__main__":
    sys.exit(main())
