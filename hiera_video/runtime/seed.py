"""Deterministic kernels. Random numbers need no global seed: each is drawn from what it belongs to."""

from __future__ import annotations

import os

import torch


def use_deterministic_kernels() -> None:
    """From now on only algorithms that give the same bits each time; one that has none raises an error. Slower on GPUs;
    on CPUs results do not vary between runs with the same number of threads anyway."""
    os.environ.setdefault(
        "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
    )  # cuBLAS is deterministic only with a fixed workspace
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False


def seed_modules(seed: int, device: torch.device) -> None:
    """Seed the generators that modules such as dropout draw from. `torch.manual_seed` does that too, but turns to every
    kind of device that torch knows, each step."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
