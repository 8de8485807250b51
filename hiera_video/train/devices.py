"""What depends on the device: memory and how to say that it ran out, peak speed, compilation."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from hiera_video.errors import DeviceMemoryError
from hiera_video.train.config import TrainConfig
from hiera_video.train.parallel import blocks_of

PEAK_TFLOPS = {
    "V100": 125,
    "T4": 65,
    "A10": 125,
    "A10G": 70,
    "L4": 121,
    "L40S": 362,
    "A100": 312,
    "RTX 4090": 165,
    "H100 PCIe": 756,
    "H100": 989,
    "H200": 989,
    "B200": 2250,
}
"""Dense half-precision tensor throughput from the vendor's data sheets, by a part of the device's name."""


COMPILED_KINDS = 64
"""How many kinds of block may be compiled: base's autoencoder has 17, with validation."""


def peak_flops(name: str) -> float | None:
    """Operations a second of a device named `NVIDIA H100 80GB HBM3`; None where it is not known (a CPU, say).

    The longest part that fits counts: `A10G` is not `A100`, `H100 PCIe` not `H100`.
    """
    words = f" {name.replace('-', ' ')} "
    fitting = [part for part in PEAK_TFLOPS if f" {part} " in words]
    return PEAK_TFLOPS[max(fitting, key=len)] * 1e12 if fitting else None


def device_name(device: torch.device) -> str:
    """As the vendor calls it; empty for a CPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else ""


def peak_memory_gb(device: torch.device) -> float:
    """The most that was held so far: on a GPU by tensors, else by this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, others kilobytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


@contextmanager
def explain_out_of_memory(train: TrainConfig, *, step: int, checkpointing: bool) -> Iterator[None]:
    """Turns the device's out-of-memory error into one line with the knobs that help."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        knobs = [
            f"raise train.accumulate (now {train.accumulate}: the parts that a device's share is computed in; auto chooses)",
            *([] if checkpointing else ["set model.checkpointing=true (recomputes activations)"]),
            f"lower train.batch_size (now {train.batch_size})",
        ]
        raise DeviceMemoryError(
            f"step {step}: the device's memory is full; {'; '.join(knobs)}; checkpoints are as before that step"
        ) from error


def compile_blocks(model: nn.Module, backend: str = "inductor") -> None:
    """Compile each transformer block on its own, in place: equal blocks share their code, and names of parameters stay.

    Its `forward` alone, so that what a sharded block does before and after, which cannot be compiled, stays outside. Each
    kind of block needs code of its own for its shapes, in training and in validation: more than torch's limit of 8, beyond
    which blocks run uncompiled without a word.
    """
    limits = torch._dynamo.config
    limits.recompile_limit = max(limits.recompile_limit, COMPILED_KINDS)
    for block in blocks_of(model):
        block.forward = torch.compile(block.forward, backend=backend, dynamic=False)
