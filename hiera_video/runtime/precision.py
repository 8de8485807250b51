"""In which precision a model computes: the one place that asks torch for halves."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """The context of a section's `precision`, for the model's call alone: in it, whatever torch knows how to is computed
    in halves. `auto` is bf16 on a GPU that has it, else fp32."""
    if precision == "auto":
        has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        precision = "bf16" if has_bf16 else "fp32"
    return (
        nullcontext()
        if precision == "fp32"
        else torch.autocast(device.type, dtype=HALVES[precision])
    )
