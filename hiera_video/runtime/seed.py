"""Determinism: deterministic kernels and the seed of torch's default generators.

Data, masks and mixup need no global seed: each sample has a generator of its own.
"""

from __future__ import annotations

import os

import torch


def use_deterministic_kernels() -> None:
    """Enable torch's deterministic algorithms for this process.

    Operations without a deterministic implementation raise `RuntimeError`. This is slower on GPUs;
    on CPUs results do not vary between runs with the same number of threads anyway.
    """
    # cuBLAS is deterministic only with a fixed workspace
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False


def seed_modules(seed: int, device: torch.device) -> None:
    """Seed the default generators, from which modules such as dropout draw.

    Same effect as `torch.manual_seed` on `device`; that function also visits every other device
    type, which is too slow to do at each step.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
