"""Whole programs on a GPU: the tests, the trainer on MP4 files, and the demo."""

from __future__ import annotations

import importlib.util
import json
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch
from gpu_models import free_memory, measure
from gpu_programs import run_program
from gpu_timing import Setup
from speed_case import Case, Mode
from torch import Tensor, nn

from hiera_video.data.config import AugmentConfig
from hiera_video.data.loading.loader import ClipBatch
from hiera_video.data.transforms.clip_sample import PendingCrop
from hiera_video.data.transforms.on_device import PendingBatch
from hiera_video.models.factory import create_model
from hiera_video.models.mae import MaskedAutoencoderHiera
from hiera_video.runtime.cuda import use_fast_cuda
from hiera_video.runtime.distributed import World
from hiera_video.runtime.signals import StopSignal
from hiera_video.train.config import OptimConfig, TrainConfig
from hiera_video.train.context import StepContext
from hiera_video.train.state import make_state
from hiera_video.train.tasks import Classify, Pretrain, Task, TaskOutput
from hiera_video.train.trainer import RunInfo, Trainer

Decoder = Literal["pyav", "decord", "torchcodec"]
Place = Literal["worker", "model"]
RECIPES = {
    ("train", "base"): "k400_hiera_b",
    ("train", "large"): "k400_hiera_l",
    ("mae", "base"): "k400_hiera_b_mae",
    ("mae", "large"): "k400_hiera_l_mae",
    ("train", "micro"): "motion_hiera_micro",
    ("mae", "micro"): "motion_hiera_micro_mae",
}


def measure_engine(mode: Mode, size: str, batch: int, setup: Setup) -> dict[str, Any]:
    """Time the trainer on batches that are in memory, against the bare step.

    Returns:
        Clips per second of the `bare` step, of the trainer on finished clips in float32
        (`floats`), on crops in bytes as a loader gives them (`bytes`), and, in pre-training, on
        those with `train.cuda_graph` (`graph`); and their shares.
    """
    bare = measure(mode, size, batch, ["ours"], setup)["candidates"]["ours"]["clips_per_second"]
    case = Case(mode=mode, size=size, batch=batch, resolution=32 if size == "micro" else 224)
    found: dict[str, Any] = {"bare": bare}
    items = {"bytes": _crops(case), "floats": _clips(case)}
    if mode == "mae":
        items["graph"] = items["bytes"]
    for name, item in items.items():
        time_fit = partial(_time_fit, case, item, setup, graph=name == "graph")
        rounds = [time_fit() for _ in range(1 if setup.micro else 3)]
        found[name] = round(batch / median(rounds), 2)
        found[f"{name}_share"] = round(found[name] / bare, 4)
    free_memory(setup)
    return found


class Stopwatch:
    """Notes when step `first` begins, on an idle device."""

    def __init__(self, first: int, setup: Setup) -> None:
        self.first, self.setup, self.steps, self.began = first, setup, 0, 0.0

    def count_step(self) -> None:
        if self.steps == self.first:
            if self.setup.on_gpu:
                torch.cuda.synchronize()
            self.began = time.perf_counter()
        self.steps += 1


@dataclass(frozen=True, kw_only=True)
class TimedClassify(Classify):
    """Action recognition whose steps are counted."""

    watch: Stopwatch

    def __call__(self, model: nn.Module, batch: ClipBatch, context: StepContext) -> TaskOutput:
        self.watch.count_step()
        return super().__call__(model, batch, context)


@dataclass(frozen=True, kw_only=True)
class TimedPretrain(Pretrain):
    """Masked pre-training whose steps are counted."""

    watch: Stopwatch

    def inputs(self, batch: ClipBatch, context: StepContext) -> tuple[Tensor, ...]:
        self.watch.count_step()
        return super().inputs(batch, context)


def _time_fit(case: Case, item: ClipBatch, setup: Setup, *, graph: bool) -> float:
    """Return the seconds of a step of the trainer."""
    use_fast_cuda(setup.device, exact=False)
    world = World(0, 1, setup.device)
    warm_up, steps = (2, 4) if setup.micro else (5, 30)
    torch.manual_seed(0)
    model = create_model(case.name, drop_path_rate=0.0).to(setup.device)
    watch = Stopwatch(warm_up, setup)
    task: Task
    name: Literal["pretrain", "classify"]
    if isinstance(model, MaskedAutoencoderHiera):
        name, task = (
            "pretrain",
            TimedPretrain(
                draw_keep=model.draw_keep,
                tokens=model.unit_tokens.numel(),
                visible=model.num_visible_units(),
                watch=watch,
            ),
        )
    else:
        name, task = (
            "classify",
            TimedClassify(num_classes=400, multi_label=False, augment=AugmentConfig(), watch=watch),
        )
    train = TrainConfig(
        task=name, batch_size=case.batch, epochs=1, precision="bf16", cuda_graph=graph
    )
    trainer = Trainer(
        make_state(model, OptimConfig(lr=1e-6), train, world),
        task,
        optim=OptimConfig(lr=1e-6),
        train=train,
        run=RunInfo(world=world, steps_per_epoch=10**6, num_videos=1, seed=0),
        max_steps=warm_up + steps,
    )
    trainer.fit(([item] for _ in range(warm_up + steps + 2)), StopSignal())
    if setup.on_gpu:
        torch.cuda.synchronize()
    return (time.perf_counter() - watch.began) / steps


def _clips(case: Case) -> ClipBatch:
    """Return finished clips, in float32."""
    numbers = torch.arange(case.batch)
    return ClipBatch(
        clips=torch.randn(case.batch, 3, *case.input_size),
        labels=numbers % 400,
        row=numbers,
        view=numbers * 0,
        position=numbers,
        substituted=(),
    )


def _crops(case: Case) -> ClipBatch:
    """Return crops that the device finishes, in bytes."""
    frames, side = case.input_size[:2]
    shape = (frames, side, side * 5 // 4)
    crop = PendingCrop(
        shape=shape, size=side, flip=False, erasure=None, mean=(0.45,) * 3, std=(0.225,) * 3
    )
    count = case.batch * 3 * shape[0] * shape[1] * shape[2]
    pixels = torch.randint(0, 255, (count,), dtype=torch.uint8)
    return replace(_clips(case), clips=pixels, pending=PendingBatch.of([crop] * case.batch))


def run_script(name: str, *options: str, setup: Setup, timeout: float) -> dict[str, Any]:
    """Run another benchmark of this folder and return its result."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.json"
        run_program([f"benchmarks/{name}", *options, "--out", str(out)], setup, timeout)
        return {"lines": json.loads(out.read_text())}


def make_videos(setup: Setup, work: Path) -> Path:
    """Write the videos once and return their folder."""
    folder = work / "videos"
    if not (folder / "half.csv").exists():
        small = ["--distinct", "2", "--links", "8", "--frames", "40", "--size", "128", "96"]
        program = ["benchmarks/gpu_videos.py", str(folder)]
        run_program([*program, *(small if setup.micro else [])], setup, timeout=120)
    return folder


def measure_trainer(
    mode: Mode,
    size: str,
    *,
    decoder: Decoder,
    device: Place,
    setup: Setup,
    work: Path,
    timeout: float,
    overrides: Sequence[str] = (),
) -> dict[str, Any]:
    """Train one epoch on MP4 files by the command line and read the run's own numbers.

    Args:
        mode: `train` for fine-tuning with the recipe's augmentation, `mae` for pre-training with
            four clips of each video.
        size: Size of the model.
        decoder: As `data.decoder`.
        device: As `augment.device`.
        setup: Device.
        work: Folder for videos and runs.
        timeout: Seconds after which the run is stopped.
        overrides: More `key=value` arguments.

    Returns:
        Medians over the rows of metrics.jsonl without the first two: `clips_per_second`,
        `data_wait_share` and `mfu`; the peak `memory_gb`, and all `rows`.
    """
    if importlib.util.find_spec("av" if decoder == "pyav" else decoder) is None:
        return {"skipped": f"{decoder} is not installed"}
    videos = make_videos(setup, work)
    run = work / f"run_{mode}_{size}_{decoder}_{device}_{len(overrides)}"
    workers = 1 if setup.micro else max(1, (os.cpu_count() or 2) - 2)
    listing = "train.csv" if mode == "train" else "half.csv"
    batch = 2 if setup.micro else 16 if mode == "train" else 8
    took = run_program(
        [
            *("tools/train_net.py", "--cfg", f"configs/{RECIPES[mode, size]}.yaml"),
            *(f"data.train={videos / listing}", "data.val=null", f"data.decoder={decoder}"),
            *(f"augment.device={device}", f"data.workers={workers}", "model.pretrained=none"),
            *("train.epochs=1", f"train.batch_size={batch}", "optim.warmup_epochs=0"),
            *("train.log_every=4" if not setup.micro else "train.log_every=1",),
            *("train.save_minutes=1000", f"out_dir={run}"),
            *(["clip.repeats=1"] if mode == "train" else []),
            *overrides,
        ],
        setup,
        timeout,
    )
    lines = (run / "metrics.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if row["split"] == "train"]
    keys = ("clips_per_second", "data_wait_share", "mfu", "memory_gb")
    shown = [{key: row[key] for key in keys if key in row} for row in rows]
    found: dict[str, Any] = {"workers": workers, "program_seconds": took, "rows": shown}
    for key in keys:
        values = [row[key] for row in shown[min(2, len(shown) - 1) :] if key in row]
        found[key] = float(f"{median(values):.5g}") if values else None
    return found


def run_demo(setup: Setup, work: Path, timeout: float) -> dict[str, Any]:
    """Run the demo: make the motion set, pre-train, fine-tune, test.

    Returns:
        Seconds of each part and in all, and the test's `top1` and `evaluated` videos.
    """
    data, workers = work / "motion", 1 if setup.micro else max(1, (os.cpu_count() or 2) - 2)
    pretrained, tuned = work / "demo_mae", work / "demo"
    common = [
        *(f"data.train={data / 'train.csv'}", f"data.val={data / 'val.csv'}"),
        f"data.workers={min(workers, 8)}",
    ]
    short = ["train.epochs=1", "train.batch_size=4", "optim.warmup_epochs=0"] if setup.micro else []
    made = ["--clips-per-class", "1"] if setup.micro else []
    tune = [*common, f"model.pretrained={pretrained}", f"out_dir={tuned}"]
    programs = {
        "data": [
            *("datasets/motion/prepare.py", "--out", str(data), "--workers", str(workers)),
            *made,
        ],
        "pretrain": [
            *("tools/train_net.py", "--cfg", "configs/motion_hiera_micro_mae.yaml"),
            *(*common, *short, f"out_dir={pretrained}"),
        ],
        "fine_tune": [
            *("tools/train_net.py", "--cfg", "configs/motion_hiera_micro.yaml", *tune, *short),
        ],
        "test": ["tools/test_net.py", "--cfg", "configs/motion_hiera_micro.yaml", *tune],
    }
    seconds: dict[str, float] = {}
    for name, program in programs.items():
        seconds[name] = run_program(program, setup, timeout - sum(seconds.values()))
    results = json.loads((tuned / "results.json").read_text())
    return {
        "part_seconds": seconds,
        "total_seconds": round(sum(seconds.values()), 1),
        "top1": results["top1"],
        "evaluated": results["evaluated"],
    }
