"""Process-wide CUDA settings, chosen in one place; the reasons and gains: benchmarks/NOTES.md.

Choices that belong to one computation are beside it: attention backends in `models/blocks.py`, the
patch embedding in `models/tokens.py`, compilation in `models/compiled.py`, graphs in
`runtime/cuda_graphs.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def use_fast_cuda(device: torch.device, *, exact: bool) -> None:
    """Let products in float32 use TF32, and cuDNN choose convolutions by trial; CPUs: no effect.

    In a half-precision run, few products stay in float32: those of the collapse monitors. They need
    no more than TF32's 10 bits of mantissa.

    Args:
        device: Device of the run.
        exact: Full float32 and cuDNN's fixed choice instead, for runs in fp32 and deterministic
            ones.
    """
    if device.type == "cuda":
        _allow_tf32(not exact)
        torch.backends.cudnn.benchmark = not exact


@contextmanager
def exact_fp32() -> Iterator[None]:
    """Compute in full float32 in the block; torch would use TF32 in convolutions by default."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    _allow_tf32(False)
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def _allow_tf32(allowed: bool) -> None:
    # torch's newer `fp32_precision` must not be mixed with these, which torch.compile reads
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed
