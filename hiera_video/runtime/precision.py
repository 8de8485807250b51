"""Mixed precision: the autocast context of a run."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

AUTOCAST_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Return the context in which a model's forward pass runs.

    Args:
        precision: `fp32`, `bf16`, `fp16`, or `auto`: bf16 on a GPU that supports it natively,
            else fp32.
        device: Device of the model.

    Returns:
        A `torch.autocast` context, or a null context for fp32.
    """
    if precision == "auto":
        has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        precision = "bf16" if has_bf16 else "fp32"
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=AUTOCAST_DTYPES[precision])
