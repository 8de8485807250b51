"""From MViTv2 to Hiera: parameters, MACs, memory and relative speed of every rung.

    python benchmarks/ladder.py [large] [vit] [speed_video] [speed_images] [full] [vit_full]

Parts, all by default, and minutes of one thread:

- large (1): parameters, MACs and activations at 224 pixels, counted without computing;
- vit (1): the same of the plain ViT, and the speed of its small size beside Hiera's tiny;
- speed_video, speed_images (3 each): every rung at tiny size;
- full (2): one clip of 16×224×224 through tiny: Hiera, and MViTv2 as in the table and uncut; a step
  of masked pre-training of every rung;
- vit_full (5): the same of the plain ViT and Hiera, base and large;
- memory (2): peak of one process.

Speed is measured in CPU seconds of one thread, which other programs on the machine disturb less
than seconds of the clock: the models take turns, and each time is divided by Hiera's of the same
round.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import torch
from record import RESULTS, record

import hiera_video as hv
from hiera_video.models.build import build_model
from hiera_video.models.macs import count_macs, count_parameters
from hiera_video.models.registry import config_for
from hiera_video.models.step_memory import count_saved_bytes

ROUNDS, FULL_ROUNDS = 5, 3
FILE = RESULTS / "ladder.json"
RUNGS = ("mvitv2", *(f"ladder_{rung}" for rung in "abcdef"), "hiera", "ladder_window")
MASKED_RUNGS = RUNGS[:-1]
"""Windows have no masked pre-training."""
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
SIZES = {"video": ("16x224", (16, 64, 64)), "images": ("224", (96, 96))}
"""Kind → end of the names, and the input size at which tiny is timed."""
LIKE_SIZE = {"vit": "small"}
"""Size that is timed beside the tiny ones: 22 M parameters, Hiera's tiny has 28 M."""
MEMORY_SIZE, FULL_SIZE = (16, 128, 128), (16, 224, 224)
UNCUT_STRIDE = (1, 4, 4)
"""Stride of keys and values of images, in space: that of the paper's uncut video model."""


def count(rung: str, kind: str, size: str = "large") -> dict[str, float]:
    """Return what a model costs, without computing it."""
    name = f"{rung}_{size}_{SIZES[kind][0]}"
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


def inference(rung: str, kind: str, size: Sequence[int] | None = None) -> Callable[[], object]:
    """Return a call that classifies one clip or image, by default of the size in `SIZES`."""
    end, own = SIZES[kind]
    size = tuple(size or own)
    name = f"{rung}_{LIKE_SIZE.get(rung, 'tiny')}_{end}"
    return forward(hv.create_model(name, pretrained="none", input_size=size))


def forward(model: torch.nn.Module) -> Callable[[], object]:
    """Return a call that classifies one clip or image."""
    clips = torch.randn(1, 3, *model.eval().config.input_size)

    @torch.inference_mode()
    def call() -> object:
        return model(clips)

    return call


def masked_step(rung: str, kind: str, size: Sequence[int] | None = None) -> Callable[[], object]:
    """Return a call that makes one step of masked pre-training without the optimiser."""
    end, own = SIZES[kind]
    size = tuple(size or own)
    name = f"mae_{rung}_{LIKE_SIZE.get(rung, 'tiny')}_{end}"
    return forward_backward(hv.create_model(name, pretrained="none", input_size=size))


def forward_backward(model: torch.nn.Module) -> Callable[[], object]:
    """Return a call that computes the loss of one clip or image and its gradients."""
    clips = torch.randn(1, 3, *model.config.input_size)

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
    """Time one call of every rung in turn, `ROUNDS` times."""
    return take_turns({rung: make(rung, kind) for rung in rungs}, ROUNDS)


def measure_speed(kind: str) -> dict[str, Any]:
    """Time inference and a step of masked pre-training, which windows have none of."""
    return {
        "inference": measure(inference, RUNGS, kind),
        "masked_step": measure(masked_step, MASKED_RUNGS, kind),
    }


def take_turns(
    calls: dict[str, Callable[[], object]], rounds: int, *, warm_up: bool = True
) -> dict[str, dict[str, float]]:
    """Time every call in turn, after a round that is not timed."""
    for call in calls.values() if warm_up else ():
        call()
    seconds: dict[str, list[float]] = {rung: [] for rung in calls}
    for _ in range(rounds):
        for rung, call in calls.items():
            seconds[rung].append(cpu_seconds(call))
            print(rung, f"{seconds[rung][-1]:.3f} s", flush=True)
    return relative_speeds(seconds)


def measure_full() -> dict[str, Any]:
    """Time one clip of 16×224×224 through tiny: Hiera, its MViTv2, and MViTv2 uncut."""
    configs = {name: config_for(f"{name}_tiny_16x224") for name in ("hiera", "mvitv2")}
    configs["uncut"] = replace(configs["mvitv2"], kv_stride=UNCUT_STRIDE)
    calls = {name: forward(build_model(config, None)) for name, config in configs.items()}
    # calls of seconds: what only the first one does is lost in the noise
    found = {"rounds": FULL_ROUNDS, **take_turns(calls, FULL_ROUNDS, warm_up=False)}
    steps = {rung: masked_step(rung, "video", FULL_SIZE) for rung in MASKED_RUNGS}
    return {**found, "masked_step": take_turns(steps, FULL_ROUNDS, warm_up=False)}


def measure_vit_full() -> dict[str, Any]:
    """Time one clip of 16×224×224 through the plain ViT and Hiera, base and large."""
    found: dict[str, Any] = {"rounds": FULL_ROUNDS}
    for size in ("base", "large"):
        for part, prefix, make in (
            ("inference", "", forward),
            ("masked_step", "mae_", forward_backward),
        ):
            calls = {
                name: make(hv.create_model(f"{prefix}{name}_{size}_16x224", pretrained="none"))
                for name in ("hiera", "vit")
            }
            found[f"{size}_{part}"] = take_turns(calls, FULL_ROUNDS, warm_up=False)
    return found


def measure_vit() -> dict[str, Any]:
    """Count base and large beside Hiera's, and time small beside Hiera's tiny."""
    found: dict[str, Any] = {
        f"{name}_{size}": count(name, "video", size)
        for size in ("base", "large")
        for name in ("vit", "hiera")
    }
    names = ("hiera", "vit")
    found["inference"] = measure(inference, names, "video")
    found["masked_step"] = measure(masked_step, names, "video")
    return found


def measure_memory(rungs: Sequence[str]) -> dict[str, Any]:
    """Return the peak memory in GB, over that of the imports, of one inference and one MAE step."""
    found: dict[str, Any] = {"size": MEMORY_SIZE}
    for rung in rungs:
        found[rung] = {
            make.__name__: peak_memory(make, rung)
            for make in (inference, masked_step)
            if (make, rung) != (masked_step, "ladder_window")
        }
        print("memory", rung, found[rung], flush=True)
    return found


def peak_memory(make: Callable[..., Callable[[], object]], rung: str) -> float:
    """Run one call in a process of its own, which begins with the imports alone."""
    receiver, sender = multiprocessing.Pipe(duplex=False)

    def run() -> None:
        torch.set_num_threads(1)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        make(rung, "video", MEMORY_SIZE)()
        sender.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join()
    assert process.exitcode == 0
    return round(receiver.recv() * 1024 / 1e9, 2)


def table(result: dict[str, Any], kind: str) -> str:
    """Return the rows of docs/ladder.md, beside the paper's columns."""
    unit, top1 = {"video": ("clips", "top1_video"), "images": ("images", "top1_images")}[kind]
    hiera = PAPER["ladder_f"][unit]
    rows = []
    for rung in RUNGS:
        paper = PAPER.get(rung if rung != "hiera" else "ladder_f")
        large, speeds = result["large"][kind][rung], result[f"speed_{kind}"]
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


def main(chosen: Sequence[str]) -> None:
    """Measure the chosen parts; update results/ladder.json."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    parts: dict[str, Callable[[], Any]] = {
        "memory": lambda: measure_memory((*RUNGS, "vit")),  # first, while this process is small
        "large": lambda: {kind: {rung: count(rung, kind) for rung in RUNGS} for kind in SIZES},
        "vit": measure_vit,
        "speed_video": lambda: measure_speed("video"),
        "speed_images": lambda: measure_speed("images"),
        "full": measure_full,
        "vit_full": measure_vit_full,
    }
    for part, find in parts.items():
        if chosen and part not in chosen:
            continue
        found = find()
        print(part, found, flush=True)
        before = json.loads(FILE.read_text()) if FILE.is_file() else {}
        kept = {key: before[key] for key in parts if key in before}
        sizes = {"rounds": ROUNDS, "sizes": SIZES, "paper": PAPER}
        record("ladder", {**sizes, **kept, part: found})


if __name__ == "__main__":
    main(sys.argv[1:])
