"""Mixed precision: the autocast context of a run."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from hiera_video.runtime.cuda import exact_fp32

AUTOCAST_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_precision(precision: str, device: torch.device) -> str:
    """Return `precision`, with `auto` replaced by bf16 or fp32.

    `auto` is bf16 on a GPU that supports it natively, else fp32.
    """
    if precision != "auto":
        return precision
    has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if has_bf16 else "fp32"


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Return the context in which a model's forward pass runs.

    Args:
        precision: `fp32`, `bf16`, `fp16`, or `auto`; see `resolve_precision`.
        device: Device of the model.

    Returns:
        A `torch.autocast` context. For fp32, one without TF32 on a GPU, and a null context on a
        CPU.
    """
    precision = resolve_precision(precision, device)
    if precision == "fp32":
        return exact_fp32() if device.type == "cuda" else nullcontext()
    return torch.autocast(device.type, dtype=AUTOCAST_DTYPES[precision])
