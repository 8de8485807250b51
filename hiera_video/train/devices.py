"""Device properties: peak memory and speed, and the out-of-memory error."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from hiera_video.errors import DeviceMemoryError
from hiera_video.train.config import TrainConfig

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
"""Dense half-precision tensor throughput from the vendor's data sheets, by a part of the name."""


def peak_flops(name: str) -> float | None:
    """Return the peak operations per second of the device `name`, or None if it is not listed.

    The longest matching entry counts: `A10G` is not `A100`, and `H100 PCIe` is not `H100`.

    >>> peak_flops("NVIDIA H100 80GB HBM3")
    989000000000000.0
    """
    words = f" {name.replace('-', ' ')} "
    matches = [part for part in PEAK_TFLOPS if f" {part} " in words]
    return PEAK_TFLOPS[max(matches, key=len)] * 1e12 if matches else None


def device_name(device: torch.device) -> str:
    """Return the vendor's name of a GPU; empty for a CPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else ""


def peak_memory_gb(device: torch.device) -> float:
    """Return the peak memory so far: of tensors on a GPU, of this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, others kilobytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


@contextmanager
def explain_out_of_memory(train: TrainConfig, *, step: int, checkpointing: bool) -> Iterator[None]:
    """Turn torch's out-of-memory error into one that names the settings to change.

    Args:
        train: The run's settings.
        step: Current optimizer step.
        checkpointing: Activation checkpointing is on already.

    Raises:
        DeviceMemoryError: The block ran out of memory.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        remedies = [
            f"raise train.accumulate (now {train.accumulate}) or set it to auto",
            *(["set train.cuda_graph=false"] if train.cuda_graph else []),
            *([] if checkpointing else ["set model.checkpointing=true (recomputes activations)"]),
            f"lower train.batch_size (now {train.batch_size})",
        ]
        raise DeviceMemoryError(
            f"step {step}: out of memory on the device; {'; '.join(remedies)}; existing "
            "checkpoints are intact"
        ) from error
