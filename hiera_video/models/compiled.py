"""Compilation of a model by `torch.compile`, block by block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

MAX_COMPILED_VARIANTS = 64
"""Compiled variants of a block's code; Hiera-B's masked autoencoder has 17, with validation."""


def transformer_blocks(model: nn.Module) -> list[nn.Module]:
    """Return the transformer blocks of `model`, its decoder's included."""
    blocks: Any = [*getattr(model, "blocks", ()), *getattr(model, "decoder_blocks", ())]
    return list(blocks)


def compile_blocks(
    model: nn.Module,
    backend: str | Callable[..., Any] = "inductor",
    *,
    reproducible: bool = False,
) -> None:
    """Compile each transformer block, and the methods around them, in place; names stay.

    Equal blocks share their code, so that a network compiles in a fraction of the time that one
    graph of all blocks takes. Only `forward` is compiled, because the hooks of a sharded block
    cannot be. A graph break is an error, because it would cost speed silently. Each kind of block
    is compiled once for training and once for validation, which exceeds torch's limit of 8, beyond
    which blocks silently run uncompiled.

    Args:
        model: The model on its device; its `between_blocks` names the methods.
        backend: As in `torch.compile`.
        reproducible: Let no timing on the device choose a kernel whose result depends on the
            choice, so that every process computes the same bits.
    """
    limits: Any = torch._dynamo.config
    limits.recompile_limit = max(limits.recompile_limit, MAX_COMPILED_VARIANTS)
    # DDP's own splitting of graphs serves whole models; a block is smaller than its buckets
    limits.optimize_ddp = False
    parts = [(block, "forward") for block in transformer_blocks(model)]
    parts += [(model, name) for name in getattr(model, "between_blocks", ())]
    options: dict[str, Any] | None = {"deterministic": True} if reproducible else None
    for part, name in parts:
        compiled = torch.compile(
            getattr(part, name), backend=backend, options=options, dynamic=False, fullgraph=True
        )
        setattr(part, name, compiled)
