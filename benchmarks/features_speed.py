"""Compare feature extraction with the model alone, in clips per second at the same batch size.

    python benchmarks/features_speed.py                          # about five minutes
    python benchmarks/features_speed.py --threads 8 --workers 8  # CPU with more cores
    python benchmarks/features_speed.py --model hiera_base_16x224 --precision bf16 --batch 32 \\
        --workers 16 --videos 200

Videos of 340x256 pixels, 10 s at 30 frames per second, H.264, are generated in a temporary folder.
Each round measures the model alone on a batch in its memory, decoding alone, and extraction; the
best of `--rounds` counts. If extraction is below 0.9 of the model alone, the verdict says whether
decoding is the bound. Writes `results/features_speed.json`.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
import logging
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import record

from hiera_video.config.schema import Config
from hiera_video.data.config import DataConfig
from hiera_video.data.loading.pool import WorkerPool
from hiera_video.features.config import FeaturesConfig
from hiera_video.features.engines import run_local
from hiera_video.features.extract import ClipEncoder
from hiera_video.features.shard_reading import VideoPart, read_in_order
from hiera_video.features.shards import ExtractionPlan
from hiera_video.models.factory import create_model
from hiera_video.models.registry import ModelConfig
from hiera_video.models.weights.save import save_pretrained
from hiera_video.video.encode import write_video
from hiera_video.workflows.extract import read_input
from hiera_video.workflows.extraction_plan import make_encoder, make_plan

FRAMES, FPS = 300, 30


def make_videos(folder: Path, count: int) -> None:
    """Write ten videos of a moving texture, which keeps the codec busy, and copies of them."""
    folder.mkdir()
    for number in range(min(count, 10)):
        still = np.random.default_rng(number).integers(0, 255, (32, 43, 3), dtype=np.uint8)
        wide = still.repeat(8, axis=0).repeat(8, axis=1)[:256, :340]
        frames = (np.roll(wide, (2 * t, 3 * t), axis=(0, 1)) for t in range(FRAMES))
        write_video(folder / f"{number:05d}.mp4", frames, fps=FPS)
    for number in range(10, count):
        shutil.copyfile(folder / f"{number % 10:05d}.mp4", folder / f"{number:05d}.mp4")


def model_alone(encoder: ClipEncoder, config: Config, seconds: float) -> float:
    """Return clips per second on a batch on the device, with features copied to the CPU."""
    torch.set_num_threads(config.features.threads)
    batch = torch.randn(config.features.batch_size, 3, *config.input_size).to(encoder.device)
    for _ in range(2):
        next(iter(encoder(batch).values())).cpu()
    started, count = time.monotonic(), 0
    while time.monotonic() - started < seconds:
        next(iter(encoder(batch).values())).cpu()
        count += len(batch)
    return count / (time.monotonic() - started)


def decoding_alone(plan: ExtractionPlan) -> float:
    """Return the clips per second that the workers deliver without a model."""
    pool = WorkerPool(plan.read, workers=plan.workers, quarantine=plan.quarantine)
    try:
        started, count = time.monotonic(), 0
        shards = ((number, plan.shard(number)) for number in range(len(plan.ranges)))
        for _, _, part in read_in_order(shards, pool.results, plan.read.windows_per_part):
            assert isinstance(part, VideoPart)
            count += len(part.windows)
        return count / (time.monotonic() - started)
    finally:
        pool.close()


def extraction(config: Config, folder: Path) -> tuple[float, float]:
    """Return clips per second of an extraction, and the share of time the model waited."""
    config = replace(config, features=replace(config.features, output=str(folder)))
    encoder = make_encoder(config)
    plan = make_plan(config, read_input(config), encoder)
    encoder(torch.zeros(config.features.batch_size, 3, *config.input_size, device=encoder.device))
    stats = run_local(plan, encoder, progress=False)
    return stats.clips / stats.seconds, stats.waited / stats.seconds


def parse() -> argparse.Namespace:
    """Parse the command line."""
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", default="hiera_base_16x224" if gpu else "hiera_tiny_16x224")
    add("--precision", default="bf16" if gpu else "fp32", choices=("fp32", "bf16", "fp16"))
    add("--batch", type=int, default=32 if gpu else 4)
    add("--threads", type=int, default=1, help="of the model, on a CPU")
    add("--workers", type=int, default=max((os.cpu_count() or 2) - 1, 1))
    add("--videos", type=int, default=200 if gpu else 20)
    add("--rounds", type=int, default=3)
    add("--seconds", type=float, default=10, help="of the model alone, per round")
    add("--out", type=Path, help="write to this file instead")
    return parser.parse_args()


def make_config(arguments: argparse.Namespace, folder: Path) -> Config:
    """Return the configuration of the extractions; videos and weights are in `folder`."""
    weights = save_pretrained(create_model(arguments.model, num_classes=400), folder / "model")
    return Config(
        model=ModelConfig(name=arguments.model, pretrained=str(weights)),
        data=DataConfig(workers=arguments.workers),
        features=FeaturesConfig(
            input=str(folder / "videos"),
            output=str(folder / "out"),
            precision=arguments.precision,
            batch_size=arguments.batch,
            threads=arguments.threads,
            shard_videos=max(arguments.videos // 2, 1),
        ),
    )


def measure(arguments: argparse.Namespace, folder: Path) -> tuple[dict[str, float], float]:
    """Return the best clips per second of each kind, and the model's waiting of the best round."""
    best, best_waited = {"model": 0.0, "reading": 0.0, "extraction": 0.0}, 0.0
    make_videos(folder / "videos", arguments.videos)
    config = make_config(arguments, folder)
    encoder = make_encoder(config)
    plan = make_plan(config, read_input(config), encoder)
    for number in range(arguments.rounds):
        rate, waited = extraction(config, folder / f"out_{number}")
        rates = {
            "model": model_alone(encoder, config, arguments.seconds),
            "reading": decoding_alone(plan),
            "extraction": rate,
        }
        print(f"round {number}: {rates}, waited {waited:.0%}", flush=True)
        if rate > best["extraction"]:
            best_waited = waited
        best = {kind: max(best[kind], rates[kind]) for kind in best}
    return best, best_waited


def main() -> int:
    """Measure and write the results."""
    arguments = parse()
    logging.getLogger("hiera_video").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory(prefix="features_speed_") as folder:
        best, waited = measure(arguments, Path(folder))
    share = best["extraction"] / best["model"]
    bound = "decode-bound" if best["reading"] < best["model"] else "overhead"
    keys = ("model", "precision", "batch", "threads", "workers", "videos")
    result: dict[str, Any] = {
        "command": " ".join(["python", *sys.argv]),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        **{key: getattr(arguments, key) for key in keys},
        "video": f"340x256, {FRAMES} frames at {FPS}/s, h264",
        "clips_per_second": {kind: round(rate, 2) for kind, rate in best.items()},
        "waited_for_frames": round(waited, 3),
        "share_of_model": round(share, 3),
        "verdict": "at least 0.9 of the model alone" if share >= 0.9 else bound,
    }
    print(result)
    print(record("features_speed", result, arguments.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
