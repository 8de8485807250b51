"""Time the kernels that our models choose between on a GPU: attention and the patch embedding.

    python benchmarks/gpu_kernels.py                          # a minute on an H100
    python benchmarks/gpu_kernels.py --device cpu --micro     # tries the script out

Attention runs at the shapes of the block tables, on views of the linear layer's output, by each of
torch's backends; the patch embedding by cuDNN's convolution, by ours, and by a convolution over
blocks of pixels. Each is timed forward and with its backward pass. Writes
`results/gpu_kernels.json` after every case.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from gpu_timing import Run, Setup, time_candidates
from record import record
from speed_lower_bound import Attention, layers_of
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from hiera_video.models.registry import config_for, default_mae
from hiera_video.models.tokens import PatchEmbed

MODELS = ("hiera_base_16x224", "hiera_large_16x224", "mae_hiera_base_16x224")
MICRO = ("hiera_micro_16x32",)
BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
MAX_MATH_BYTES = 4e9
"""Largest attention matrix that the plain implementation is timed with."""


def attention_shapes(names: tuple[str, ...]) -> list[Attention]:
    """Return each attention shape of the models once, those of one clip."""
    found: dict[tuple[int, ...], Attention] = {}
    for name in names:
        mae = default_mae(name) if name.startswith("mae_") else None
        for layer in layers_of(config_for(name), mae):
            if isinstance(layer, Attention):
                key = (layer.batch, layer.heads, layer.queries, layer.keys, layer.dim)
                found.setdefault(key, layer)
    return list(found.values())


def attention_runs(shape: Attention, batch: int, setup: Setup) -> dict[str, Run]:
    """Return forward and training runs of every backend that accepts the shape."""
    rows = torch.randn(
        *(batch * shape.batch, shape.keys, 3, shape.heads, shape.dim), device=setup.device
    )
    query, key, value = (part.transpose(1, 2) for part in rows.bfloat16().unbind(2))
    if shape.queries < shape.keys:
        query = query[:, :, : shape.queries].contiguous()
    upstream = torch.randn_like(query)

    def forward(backend: SDPBackend) -> Tensor:
        with sdpa_kernel(backend):
            return F.scaled_dot_product_attention(query, key, value)

    def both(backend: SDPBackend) -> object:
        one, two, three = (part.detach().requires_grad_() for part in (query, key, value))
        with sdpa_kernel(backend):
            out = F.scaled_dot_product_attention(one, two, three)
        return torch.autograd.grad(out, (one, two, three), upstream)

    matrix = 4 * batch * shape.batch * shape.heads * shape.queries * shape.keys
    return {
        f"{name}, {label}": partial(step, backend)
        for name, backend in BACKENDS.items()
        for label, step in (("forward", forward), ("both", both))
        if name != "math" or matrix < MAX_MATH_BYTES
    }


def patch_runs(name: str, batch: int, setup: Setup) -> dict[str, Run]:
    """Return forward and training runs of each way to embed patches."""
    config = config_for(name)
    embed = PatchEmbed(config).to(setup.device, torch.bfloat16)
    clips = torch.randn(batch, 3, *config.input_size, device=setup.device)
    product = torch.compile(embed.embed_patches, dynamic=False)
    ways: dict[str, Callable[[Tensor], Tensor]] = {
        "convolution": embed.proj,
        "convolution, channels last": lambda x: embed.proj(
            x.contiguous(memory_format=torch.channels_last_3d)
        ),
        "product": embed.embed_patches,
        "product, compiled": product,
        "blocks of pixels": partial(embed_blocks, embed),
    }
    with torch.no_grad():
        upstream = torch.randn_like(embed.proj(clips.bfloat16()))

    def forward(way: Callable[[Tensor], Tensor]) -> Tensor:
        with torch.no_grad():
            return way(clips.bfloat16())

    def both(way: Callable[[Tensor], Tensor]) -> object:
        return torch.autograd.grad(way(clips.bfloat16()), embed.proj.weight, upstream)

    return {
        f"{name}, {label}": partial(step, way)
        for name, way in ways.items()
        for label, step in (("forward", forward), ("both", both))
    }


def embed_blocks(embed: PatchEmbed, clips: Tensor) -> Tensor:
    """Convolve blocks of one stride as channels, with a kernel of two blocks along each axis."""
    axes = range(len(embed.kernel))
    sides = [2 * stride for stride in embed.stride]
    after = [
        side - stride - before for side, stride, before in zip(sides, embed.stride, embed.padding)
    ]
    margins = [side for axis in axes for side in (after[axis], embed.padding[axis])][::-1]
    padded = F.pad(clips, margins)
    kernel = [side for size, whole in zip(embed.kernel, sides) for side in (whole - size, 0)][::-1]
    weight = F.pad(embed.proj.weight, kernel)
    for axis in axes:  # b c (t p) (h q) (w r) -> b c t p h q w r
        padded = torch.unflatten(padded, 2 + 2 * axis, (-1, embed.stride[axis]))
        weight = torch.unflatten(weight, 2 + 2 * axis, (-1, embed.stride[axis]))
    inner, outer = [3 + 2 * axis for axis in axes], [2 + 2 * axis for axis in axes]
    # channels last in memory: b t h w (c p q r)
    blocks = padded.permute(0, *outer, 1, *inner).flatten(1 + len(outer)).movedim(-1, 1)
    weight = weight.permute(0, *outer, 1, *inner).flatten(1 + len(outer)).movedim(-1, 1)
    return F.conv3d(blocks, weight, embed.proj.bias)


def measure(runs: dict[str, Run], setup: Setup) -> dict[str, Any]:
    """Return microseconds of each run, and the reason for each one that does not work here."""
    failed: dict[str, str] = {}
    for name in list(runs):
        try:
            for _ in range(2):
                runs[name]()
        except Exception as error:  # backends raise many types; the reason is recorded
            failed[name] = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:60]}"
            del runs[name]
    times = time_candidates(runs, setup) if runs else {}
    micro = {name: round(1e6 * seconds["median"], 1) for name, seconds in times.items()}
    return {"microseconds": micro, "failed": failed}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--micro", action="store_true", help="a micro model")
    parser.add_argument("--minutes", type=float, default=2, help="start no case later")
    parser.add_argument("--out", type=Path, help="default: results/gpu_kernels.json")
    arguments = parser.parse_args()
    setup = Setup(
        device=torch.device(arguments.device),
        micro=arguments.micro,
        rounds=5,
        round_seconds=0.01,
    )
    names = MICRO if arguments.micro else MODELS
    batch = 1 if arguments.micro else arguments.batch
    cases: dict[str, Callable[[], dict[str, Run]]] = {
        f"patches of {names[0]}": partial(patch_runs, names[0], batch, setup)
    }
    for shape in attention_shapes(names):
        sizes = f"{shape.batch} windows, {shape.heads} heads of {shape.dim}"
        label = f"attention, {shape.queries} queries, {shape.keys} keys, {sizes}"
        cases[label] = partial(attention_runs, shape, batch, setup)
    name = torch.cuda.get_device_name(setup.device) if setup.on_gpu else "cpu"
    result: dict[str, Any] = {"device": name, "batch": batch, "cases": {}}
    began = time.monotonic()
    for label, build in cases.items():
        if time.monotonic() - began > 60 * arguments.minutes:
            break
        result["cases"][label] = found = measure(build(), setup)
        print(f"{label}: {found['microseconds']} {found['failed'] or ''}", flush=True)
        record("gpu_kernels", result, arguments.out)


if __name__ == "__main__":
    main()
