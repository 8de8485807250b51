"""Profile a step by kind of work and by part of the model.

    python benchmarks/profile_model.py model --size base
    python benchmarks/profile_model.py train --size base --by part
    python benchmarks/profile_model.py mae --size tiny --resolution 96 --trace trace.json

Kinds come from torch's operators (self time), parts from the modules in whose forward pass they
run; in a backward pass only kinds are known. Prints shares of the time; --trace writes a timeline
for chrome://tracing or ui.perfetto.dev.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speed import SIZES

if TYPE_CHECKING:
    from torch import nn

KINDS = {  # kind → substrings of operator names; the first match counts
    "attention": ("attention",),
    "matrix products": ("addmm", "aten::mm", "bmm", "baddbmm", "mkldnn_linear", "_linear"),
    "patch convolution": ("conv",),
    "GELU": ("gelu",),
    "norms": ("layer_norm", "native_batch_norm"),
    "pooling": ("max", "topk"),
    "copies": ("copy_", "clone", "contiguous", "cat", "_reshape_copy"),
    "gather and scatter": ("index", "gather", "scatter", "sort"),
    "adds and products": ("add", "mul", "sub", "div", "sum", "mean", "pow", "neg", "sqrt", "rsqrt"),
    "softmax and loss": ("softmax", "mse_loss", "nll_loss", "cross_entropy"),
    "filling": ("fill_", "zero", "empty", "ones", "arange"),
}


def main(argv: list[str]) -> int:
    """Profile one case."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("mode", choices=("model", "train", "mae"))
    parser.add_argument("--size", choices=SIZES, default="base")
    parser.add_argument("--images", action="store_true")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--resolution", type=int, default=224)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--who", choices=("ours", "ours_half", "reference", "optim"), default="ours"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--by", choices=("kind", "part", "both"), default="both")
    parser.add_argument("--trace", type=Path, help="file for the timeline")
    arguments = parser.parse_args(argv)
    import torch
    from speed_case import Case
    from speed_implementations import build
    from torch.profiler import ProfilerActivity, profile

    torch.set_num_threads(arguments.threads)
    names = ("mode", "size", "images", "frames", "resolution", "batch", "dtype", "device")
    implementation = build(
        arguments.who, Case(**{name: getattr(arguments, name) for name in names})
    )
    implementation.step()
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (arguments.device == "cuda")
    with labelled(implementation.model), profile(activities=activities) as profiled:
        for _ in range(arguments.steps):
            implementation.step()
    # a CUDA kernel's time counts for the operator that launched it, not for its own event
    cpu = torch.autograd.DeviceType.CPU
    events = [
        event
        for event in profiled.events()
        if event.device_type == cpu and not event.name.startswith(PART)
    ]
    times = {id(event): own_time(event, arguments.device) for event in events}
    print(f"{sum(times.values()) / arguments.steps / 1e6:.3f} s a step, of which")
    if arguments.by in ("kind", "both"):
        print_shares((kind_of(event.name), times[id(event)]) for event in events)
    if arguments.by in ("part", "both"):
        pairs = ((f"{part_of(event)}, {kind_of(event.name)}", times[id(event)]) for event in events)
        print_shares(pairs)
    if arguments.trace:
        profiled.export_chrome_trace(str(arguments.trace))
    return 0


PART = "part: "


@contextmanager
def labelled(model: nn.Module) -> Iterator[None]:
    """Label the forward pass of every leaf and attention module with `part_name`."""
    import torch

    active: list[Any] = []
    hooks = []

    def enter(label: str) -> Any:
        def hook(*_: Any) -> None:
            record = torch.profiler.record_function(PART + label)
            record.__enter__()
            active.append(record)

        return hook

    def leave(*_: Any) -> None:
        active.pop().__exit__(None, None, None)

    ends = (
        [stage.last_block for stage in model.stages]
        if hasattr(model, "stages")
        else model.stage_ends
    )
    for name, module in model.named_modules():
        if name and (not list(module.children()) or name.endswith("attn")):
            hooks.append(module.register_forward_pre_hook(enter(part_name(name, list(ends)))))
            hooks.append(module.register_forward_hook(leave))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def part_name(module: str, stage_ends: list[int]) -> str:
    """Name a module by its stage: `blocks.7.attn.qkv` becomes `stage 3 attn.qkv`."""
    head, *rest = module.split(".")
    if head == "blocks":
        stage = 1 + sum(int(rest[0]) > end for end in stage_ends)
        return f"stage {stage} {'.'.join(rest[1:])}"
    return f"decoder {'.'.join(rest[1:])}" if head == "decoder_blocks" else module


def part_of(event: Any) -> str:
    """Return the innermost part in whose forward pass an operator ran."""
    parent = event.cpu_parent
    while parent is not None and not parent.name.startswith(PART):
        parent = parent.cpu_parent
    return parent.name.removeprefix(PART) if parent is not None else "outside, or backward"


def kind_of(operator: str) -> str:
    """Return the kind of work of an operator."""
    return next(
        (kind for kind, words in KINDS.items() if any(word in operator for word in words)),
        f"other: {operator}",
    )


def own_time(event: Any, device: str) -> float:
    """Return the self time of an operator in microseconds."""
    return float(event.self_device_time_total if device == "cuda" else event.self_cpu_time_total)


def print_shares(pairs: Iterable[tuple[str, float]]) -> None:
    """Print shares, largest first; those below half a percent are summed."""
    sums: Counter[str] = Counter()
    for name, time in pairs:
        sums[name] += time
    total = sum(sums.values())
    small = 0.0
    for name, time in sums.most_common():
        if time < 0.005 * total:
            small += time
        else:
            print(f"  {100 * time / total:5.1f} %  {name}")
    print(f"  {100 * small / total:5.1f} %  each under half a percent\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
