"""From MViTv2 to Hiera: parameters, MACs, memory and relative speed of every rung.

    python benchmarks/ladder.py [large] [speed]      # five minutes on one thread

Parameters, MACs and activations are those of the large size at 224 pixels, counted without
computing. Speed is measured at tiny size, in CPU seconds of one thread, which other programs on the
machine disturb less than seconds of the clock: the models take turns, five times, and each time is
divided by Hiera's of the same round.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import torch
from record import RESULTS, record

import hiera_video as hv
from hiera_video.models.macs import count_macs, count_parameters
from hiera_video.models.step_memory import count_saved_bytes

ROUNDS = 5
FILE = RESULTS / "ladder.json"
RUNGS = ("mvitv2", *(f"ladder_{rung}" for rung in "abcdef"), "hiera", "ladder_window")
PAPER: dict[str, dict[str, float]] = {
    "mvitv2": {"top1_images": 85.3, "images": 219.8, "top1_video": 80.5, "clips": 20.5},
    "ladder_a": {"top1_images": 85.6, "images": 253.3, "top1_video": 85.3, "clips": 20.7},
    "ladder_b": {"top1_images": 84.4, "images": 99.9, "top1_video": 84.1, "clips": 10.4},
    "ladder_c": {"top1_images": 85.4, "images": 309.2, "top1_video": 84.3, "clips": 26.2},
    "ladder_d": {"top1_images": 85.7, "images": 369.8, "top1_video": 85.5, "clips": 29.4},
    "ladder_e": {"top1_images": 85.6, "images": 374.3, "top1_video": 85.5, "clips": 29.8},
    "ladder_f": {"top1_images": 85.6, "images": 531.4, "top1_video": 85.5, "clips": 40.8},
}
"""Table 1 of arXiv 2306.00989: large, A100 in half precision; images and clips a second."""
LABELS = {
    "mvitv2": "MViTv2",
    "ladder_a": "a. absolute positions",
    "ladder_b": "b. max-pools for convolutions",
    "ladder_c": "c. no pools of stride 1",
    "ladder_d": "d. kernel = stride",
    "ladder_e": "e. no residual on Q",
    "ladder_f": "f. mask-unit attention",
    "hiera": "Hiera, our own",
    "ladder_window": "f with windows of 8×8",
}
SIZES = {"video": ("16x224", (16, 64, 64)), "images": ("224", (224, 224))}
"""Kind → end of the names, and the input size at which tiny is timed."""


def count(rung: str, kind: str) -> dict[str, float]:
    """Return what large costs, without computing it."""
    name = f"{rung}_large_{SIZES[kind][0]}"
    with torch.device("meta"):
        model = hv.create_model(name, pretrained="none")
    shape = (3, *model.config.input_size)
    found = {
        "parameters_m": count_parameters(model) / 1e6,
        "macs_g": count_macs(model, shape) / 1e9,
        "activations_gb": count_saved_bytes(model.train(), shape) / 1e9,
    }
    return {key: round(value, 2) for key, value in found.items()}


def cpu_seconds(call: Callable[[], object]) -> float:
    """Return the CPU seconds of a call on one thread."""
    start = time.process_time()
    call()
    return time.process_time() - start


def inference(rung: str, kind: str) -> Callable[[], object]:
    """Return a call that classifies one clip or image."""
    end, size = SIZES[kind]
    model = hv.create_model(f"{rung}_tiny_{end}", input_size=size).eval()
    clips = torch.randn(1, 3, *size)

    @torch.inference_mode()
    def call() -> object:
        return model(clips)

    return call


def masked_step(rung: str, kind: str) -> Callable[[], object]:
    """Return a call that makes one step of masked pre-training without the optimiser."""
    end, size = SIZES[kind]
    model = hv.create_model(f"mae_{rung}_tiny_{end}", input_size=size)
    clips = torch.randn(1, 3, *size)

    def call() -> object:
        model.zero_grad()
        return model(clips).loss.backward()

    return call


def relative_speeds(seconds: dict[str, Sequence[float]]) -> dict[str, dict[str, float]]:
    """Return the median time and the speed relative to Hiera's, the median over rounds.

    >>> relative_speeds({"hiera": [1.0, 2.0, 3.0], "x": [2.0, 2.0, 12.0]})["x"]
    {'cpu_seconds': 2.0, 'speed': 0.5}
    """
    return {
        rung: {
            "cpu_seconds": round(median(times), 4),
            "speed": round(median(h / own for h, own in zip(seconds["hiera"], times)), 3),
        }
        for rung, times in seconds.items()
    }


def measure(
    make: Callable[[str, str], Callable[[], object]], rungs: Sequence[str], kind: str
) -> dict[str, dict[str, float]]:
    """Time every rung in turn, `ROUNDS` times."""
    calls = {rung: make(rung, kind) for rung in rungs}
    for call in calls.values():
        call()
    seconds: dict[str, list[float]] = {rung: [] for rung in rungs}
    for _ in range(ROUNDS):
        for rung, call in calls.items():
            seconds[rung].append(cpu_seconds(call))
    return relative_speeds(seconds)


def table(result: dict[str, Any], kind: str) -> str:
    """Return the rows of docs/ladder.md, beside the paper's columns."""
    unit, top1 = {"video": ("clips", "top1_video"), "images": ("images", "top1_images")}[kind]
    hiera = PAPER["ladder_f"][unit]
    rows = []
    for rung in RUNGS:
        paper = PAPER.get(rung if rung != "hiera" else "ladder_f")
        large, speeds = result["large"][kind][rung], result["speed"][kind]
        step = speeds["masked_step"].get(rung)
        cells = [
            LABELS[rung],
            f"{large['parameters_m']:.1f}",
            f"{large['macs_g']:.1f}",
            f"{large['activations_gb']:.2f}",
            f"{speeds['inference'][rung]['speed']:.2f}",
            f"{step['speed']:.2f}" if step else "–",
            f"{paper[unit] / hiera:.2f}" if paper else "–",
            f"{paper[top1]}" if paper else "–",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def main(parts: Sequence[str]) -> None:
    """Measure "speed", count "large", or both; update results/ladder.json."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    masked = [rung for rung in RUNGS if rung != "ladder_window"]
    for part in parts or ("large", "speed"):
        found: dict[str, Any] = {}
        for kind in SIZES:
            if part == "large":
                found[kind] = {rung: count(rung, kind) for rung in RUNGS}
            else:
                found[kind] = {"inference": measure(inference, RUNGS, kind)}
                print(kind, found[kind], flush=True)
                found[kind]["masked_step"] = measure(masked_step, masked, kind)
            print(part, kind, found[kind], flush=True)
        before = json.loads(FILE.read_text()) if FILE.is_file() else {}
        kept = {key: before[key] for key in ("large", "speed") if key in before}
        sizes = {"rounds": ROUNDS, "sizes": SIZES, "paper": PAPER}
        record("ladder", {**sizes, **kept, part: found})


if __name__ == "__main__":
    main(sys.argv[1:])
