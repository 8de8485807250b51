"""Compare implementations of attention within mask units: the models' against six others.

    python benchmarks/window_attention.py            # base 16x224; five minutes on two idle cores
    python benchmarks/window_attention.py --device cuda --dtype bfloat16 --batch 16

Shapes come from the block table; query, key and value have the memory layout of the models' linear
layer. Every implementation is compared with the plain one (two products and a softmax) before
timing. One that lacks a backward pass, or does not run here, is listed with the reason. Writes
`results/window_attention.json`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from record import record
from speed_lower_bound import Attention, layers_of
from speed_measure import ratios, summarise, time_in_turns
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from hiera_video.models.registry import config_for

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Query [windows, queries, heads, dim], key and value [windows, keys, heads, dim] to the query's
shape."""
DTYPES = {"float32": (torch.float32, 1e-5), "bfloat16": (torch.bfloat16, 2e-2)}


def fused(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Call the fused kernel with four-dimensional views, as the models do."""
    return F.scaled_dot_product_attention(
        query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
    ).transpose(1, 2)


def copied(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Call the fused kernel with contiguous copies."""
    return F.scaled_dot_product_attention(
        *(part.transpose(1, 2).contiguous() for part in (query, key, value))
    ).transpose(1, 2)


def five_dimensions(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Call it with five dimensions, as the authors do, which no fused kernel supports."""
    mixed = F.scaled_dot_product_attention(
        *(part.permute(2, 0, 1, 3)[None] for part in (query, key, value))
    )
    return mixed[0].permute(1, 2, 0, 3)


def products(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Compute two batched products with a softmax in between: the plain implementation."""
    query, key, value = (part.transpose(1, 2) for part in (query, key, value))
    weights = (query * query.shape[-1] ** -0.5 @ key.transpose(-1, -2)).softmax(-1)
    return (weights @ value).transpose(1, 2)


def joined(query: Tensor, key: Tensor, value: Tensor, tokens: int = 64) -> Tensor:
    """Join neighbouring windows into one of 64 keys, masked to each query's own: fewer products."""
    several = max(1, tokens // key.shape[1])
    while query.shape[0] % several:
        several -= 1
    queries, keys = (
        torch.arange(several, device=key.device).repeat_interleave(part.shape[1])
        for part in (query, key)
    )
    shapes = [
        part.reshape(-1, several * part.shape[1], *part.shape[2:]).transpose(1, 2)
        for part in (query, key, value)
    ]
    mixed = F.scaled_dot_product_attention(*shapes, attn_mask=queries[:, None] == keys)
    return mixed.transpose(1, 2).reshape(query.shape)


def flexible(query: Tensor, key: Tensor, value: Tensor) -> Attend:
    """Compile flex attention over all windows, masked to each query's own."""
    windows, queries, heads, dim = query.shape
    keys = key.shape[1]
    mask = create_block_mask(
        lambda b, h, q, k: q // queries == k // keys,
        None,
        None,
        windows * queries,
        windows * keys,
        device=key.device.type,
    )
    compiled = torch.compile(flex_attention, dynamic=False)

    def run(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        flat = [part.reshape(1, -1, heads, dim).transpose(1, 2) for part in (query, key, value)]
        return compiled(*flat, block_mask=mask).transpose(1, 2).reshape(query.shape)

    return run


def implementations(query: Tensor, key: Tensor, value: Tensor) -> dict[str, Attend]:
    """Return every implementation by its name in the results."""
    return {
        "fused": fused,
        "fused, copies": copied,
        "five dimensions": five_dimensions,
        "products": products,
        "products, compiled": torch.compile(products, dynamic=False),
        "windows joined": joined,
        "flex attention": flexible(query, key, value),
    }


def operands(shape: Attention, batch: int, dtype: torch.dtype, device: str) -> list[Tensor]:
    """Return query, key and value as views of one linear layer; a pooled query is a copy."""
    generator = torch.Generator(device).manual_seed(0)
    rows = torch.randn(
        batch * shape.batch,
        shape.keys,
        3,
        shape.heads,
        shape.dim,
        generator=generator,
        device=device,
    )
    query, key, value = rows.to(dtype).unbind(2)
    if shape.queries < shape.keys:
        query = query.view(query.shape[0], -1, shape.queries, *query.shape[2:]).amax(1)
    return [query, key, value]


def measure(
    shape: Attention, batch: int, dtype: torch.dtype, limit: float, device: str, rounds: int
) -> dict[str, Any]:
    """Time all implementations at one shape, forward alone and with backward."""
    parts = operands(shape, batch, dtype, device)
    upstream = torch.randn_like(parts[0])

    def forward(attend: Attend) -> list[Tensor]:
        return [attend(*parts)]

    def both(attend: Attend) -> list[Tensor]:
        leaves = [part.detach().requires_grad_() for part in parts]
        out = attend(*leaves)
        return [out.detach(), *torch.autograd.grad(out, leaves, upstream)]

    row: dict[str, Any] = {
        "shape": {
            "windows": shape.batch,
            "heads": shape.heads,
            "queries": shape.queries,
            "keys": shape.keys,
            "dim": shape.dim,
            "blocks": shape.times,
        }
    }
    for passes, step in (("forward", forward), ("both passes", both)):
        plain = step(products)
        runs: dict[str, Callable[[], object]] = {}
        missing: dict[str, str] = {}
        for name, attend in implementations(*parts).items():
            try:
                found = step(attend)
            except Exception as error:  # compilers raise many types; the reason is recorded
                missing[name] = (
                    f"{type(error).__name__}: {str(error).strip().splitlines()[0][:160]}"
                )
                continue
            apart = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, plain))
            assert apart <= limit, f"{name}: {apart:.1e} from the plain implementation"
            runs[name] = partial(step, attend)
        seconds = time_in_turns(runs, rounds, "wall", device)
        row[passes] = {
            "seconds": {name: summarise(values) for name, values in seconds.items()},
            "times_fused": ratios(seconds, "fused"),
            "missing": missing,
        }
    return row


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--name", default="hiera_base_16x224")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, help="default: results/window_attention.json")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    dtype, limit = DTYPES[arguments.dtype]
    shapes = [
        layer
        for layer in layers_of(config_for(arguments.name))
        if isinstance(layer, Attention) and not layer.whole
    ]
    rows = []
    for shape in shapes:
        torch.compiler.reset()
        row = measure(shape, arguments.batch, dtype, limit, arguments.device, arguments.rounds)
        rows.append(row)
        print(f"\n{row['shape']}")
        for passes in ("forward", "both passes"):
            for name, seconds in row[passes]["seconds"].items():
                ratio = row[passes]["times_fused"].get(name, {"median": 1.0})["median"]
                print(f"  {passes:12}{name:20}{1e3 * seconds['median']:9.2f} ms{ratio:8.2f} ×")
            for name, reason in row[passes]["missing"].items():
                print(f"  {passes:12}{name:20}{reason}")
    facts = {"command": " ".join(["python", *sys.argv]), "load_average": os.getloadavg()[0]}
    settings = {
        key: getattr(arguments, key)
        for key in ("name", "batch", "dtype", "device", "threads", "rounds")
    }
    print(record("window_attention", {**facts, **settings, "rows": rows}, arguments.out))


if __name__ == "__main__":
    main()
