"""Lower bound of a step: the model's matrix products and attention, and nothing else.

Shapes come from the block table, so the bound follows the model. Each product is one `torch.mm`
into preallocated memory or, if faster for its shape, one call of oneDNN; each attention is one
four-dimensional `scaled_dot_product_attention` of contiguous tensors. Operands of equal shape share
memory, so small ones stay in the cache. No bias, norm, GELU, residual or copy.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from hiera_video.models.layout import HieraConfig, block_table, stage_table
from hiera_video.models.linear import fused_linear
from hiera_video.models.masking import cell_size
from hiera_video.models.registry import MaeConfig, num_visible


@dataclass(frozen=True, kw_only=True)
class Product:
    """Product of [rows, inner] and [inner, columns], which occurs `times` times."""

    label: str
    rows: int
    inner: int
    columns: int
    times: int = 1
    input_grad: bool = True
    """True if the backward pass needs the gradient of the rows; pixels need none."""

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the forward product."""
        return self.times * self.rows * self.inner * self.columns

    @property
    def backward_macs(self) -> int:
        """Multiply-accumulates of the one or two products of the backward pass."""
        return self.macs * (2 if self.input_grad else 1)

    @property
    def values(self) -> int:
        """Numbers that must be read or written at least once."""
        return self.times * (
            self.rows * self.inner + self.inner * self.columns + self.rows * self.columns
        )


@dataclass(frozen=True, kw_only=True)
class Attention:
    """Softmax attention of [batch, heads, queries, dim], which occurs `times` times."""

    label: str
    batch: int
    heads: int
    queries: int
    keys: int
    dim: int
    times: int = 1

    @property
    def whole(self) -> bool:
        """True for attention over the whole clip, whose cost grows with the clip's square."""
        return self.batch == 1

    @property
    def macs(self) -> int:
        """Multiply-accumulates of both products of the forward pass."""
        return self.times * 2 * self.batch * self.heads * self.queries * self.keys * self.dim

    @property
    def backward_macs(self) -> int:
        """Multiply-accumulates of the backward pass: four products, none recomputed."""
        return 2 * self.macs

    @property
    def values(self) -> int:
        """Numbers that must be read or written; the attention matrix need not be stored."""
        return self.times * self.batch * self.heads * self.dim * 2 * (self.queries + self.keys)


Layer = Product | Attention


def layers_of(config: HieraConfig, mae: MaeConfig | None = None) -> list[Layer]:
    """Return the layers of one clip's forward pass, equal ones merged.

    With `mae`, those of a masked autoencoder, else those of a classifier.
    """
    units = config.num_units if mae is None else num_visible(config.num_units, mae.mask_ratio)
    first = math.prod(config.mask_unit_size)
    pixels = config.in_chans * math.prod(config.patch_kernel)
    layers: list[Layer] = [
        Product(
            label="patch",
            rows=units * first,
            inner=pixels,
            columns=config.embed_dim,
            input_grad=False,
        )
    ]
    stages = stage_table(config)
    for index, block in enumerate(block_table(config)):
        stage = next(number for number, stage in enumerate(stages, 1) if index <= stage.last_block)
        rows, rows_out = units * block.unit_tokens_in, units * block.unit_tokens_out
        window = block.unit_tokens_in if block.attention == "unit" else rows
        layers += _block(
            f"stage {stage}",
            rows,
            rows_out,
            block.dim_in,
            block.dim_out,
            block.heads,
            window,
            config,
        )
    width = stages[-1].dim
    if mae is None:
        layers.append(Product(label="head", rows=1, inner=width, columns=config.num_classes))
    else:
        layers += _decoder(config, mae, units)
    return _merged(layers)


def _block(
    label: str,
    rows: int,
    rows_out: int,
    dim_in: int,
    dim: int,
    heads: int,
    window: int,
    config: HieraConfig,
) -> list[Layer]:
    windows, hidden = rows // window, int(dim * config.mlp_ratio)
    shapes = [
        (rows, dim_in, 3 * dim),
        (rows_out, dim, dim),
        (rows_out, dim, hidden),
        (rows_out, hidden, dim),
    ]
    if dim_in != dim:
        shapes.append((rows, dim_in, dim))
    products = [Product(label=label, rows=r, inner=i, columns=c) for r, i, c in shapes]
    attention = Attention(
        label=label,
        batch=windows,
        heads=heads,
        queries=rows_out // windows,
        keys=window,
        dim=dim // heads,
    )
    return [*products, attention]


def _decoder(config: HieraConfig, mae: MaeConfig, units: int) -> list[Layer]:
    """Return the fusion of the stages and the decoder."""
    stages, rest = stage_table(config), math.prod(config.unit_rest)
    dim, width, hidden_units = stages[-1].dim, mae.decoder_embed_dim, config.num_units - units
    layers: list[Layer] = [
        Product(
            label="fusion",
            rows=units * rest,
            inner=math.prod(stage.unit_shape) // rest * stage.dim,
            columns=dim,
        )
        for stage in stages[: config.q_pool]
    ]
    predicted = {
        "all": hidden_units * rest,
        "running_cell": hidden_units * cell_size(rest, mae.decoder_share),
        "random": max(1, int(hidden_units * rest * mae.decoder_share)),
    }[mae.decoder_tokens]
    tokens = units * rest + predicted
    layers.append(Product(label="decoder", rows=units * rest, inner=dim, columns=width))
    for _ in range(mae.decoder_depth):
        layers += _block(
            "decoder", tokens, tokens, width, width, mae.decoder_num_heads, tokens, config
        )
    pixels = math.prod(
        size // tokens for size, tokens in zip(config.input_size[-2:], config.final_grid[-2:])
    )
    frames = config.input_size[0] // config.final_grid[0] if mae.target_frames == "all" else 1
    layers.append(
        Product(
            label="decoder", rows=predicted, inner=width, columns=pixels * frames * config.in_chans
        )
    )
    return layers


def _merged(layers: Iterable[Layer]) -> list[Layer]:
    counts: dict[Layer, int] = {}
    for layer in layers:
        counts[layer] = counts.get(layer, 0) + 1
    return [replace(layer, times=times) for layer, times in counts.items()]


def total_macs(layers: Iterable[Layer], backward: bool = False) -> int:
    """Return the multiply-accumulates of one clip."""
    return sum(layer.macs + (layer.backward_macs if backward else 0) for layer in layers)


def total_values(layers: Iterable[Layer], backward: bool = False) -> int:
    """Return the fewest numbers read or written if no two layers share operands."""
    return sum(layer.values * (3 if backward else 1) for layer in layers)


Operands = tuple[Tensor, Tensor, Tensor]
"""left [n, k], right [m, k], and memory for left @ right.t()."""
Kernel = Callable[[Tensor, Tensor, Tensor], object]


def mm_kernel(left: Tensor, right: Tensor, out: Tensor) -> None:
    """Multiply with `torch.mm` into `out`."""
    torch.mm(left, right.t(), out=out)


def onednn_kernel(left: Tensor, right: Tensor, out: Tensor) -> Tensor:
    """Multiply with oneDNN into new memory; its kernel takes no output."""
    return fused_linear(left, right)


def _seconds(kernel: Kernel, operands: Operands) -> float:
    """Return the least time of a few calls."""
    seconds = []
    for _ in range(4):
        began = time.perf_counter()
        kernel(*operands)
        seconds.append(time.perf_counter() - began)
    return min(seconds)


class LowerBound:
    """Layers prepared to run for a batch."""

    def __init__(
        self,
        layers: Sequence[Layer],
        batch: int,
        dtype: torch.dtype,
        device: torch.device,
        backward: bool,
    ) -> None:
        self.layers, self.batch, self.backward = layers, batch, backward
        size = max(max(self._sizes(layer)) for layer in layers)
        self.left = torch.randn(size, device=device).to(dtype)
        self.right, self.out, self.grad = (self.left.clone() for _ in range(3))
        has_onednn = device.type == "cpu" and dtype == torch.float32
        kernels = (mm_kernel, onednn_kernel) if has_onednn else (mm_kernel,)
        self.fastest: dict[tuple[Layer, int], Kernel] = {}
        for layer in layers:
            if isinstance(layer, Product):
                for number, operands in enumerate(self._products(layer)):
                    self.fastest[layer, number] = min(
                        kernels, key=lambda kernel: _seconds(kernel, operands)
                    )

    def _sizes(self, layer: Layer) -> tuple[int, ...]:
        if isinstance(layer, Product):
            rows = self.batch * layer.rows
            return rows * layer.inner, layer.inner * layer.columns, rows * layer.columns
        return (
            self.batch * layer.batch * layer.heads * max(layer.queries, layer.keys) * layer.dim,
        )

    def run(self) -> None:
        """Run each layer as often as it occurs."""
        for layer in self.layers:
            for _ in range(layer.times):
                if isinstance(layer, Attention):
                    self._attend(layer)
                else:
                    self._multiply(layer)

    def _multiply(self, layer: Product) -> None:
        for number, operands in enumerate(self._products(layer)):
            self.fastest[layer, number](*operands)

    def _products(self, layer: Product) -> list[Operands]:
        """Return the forward product and, with a backward pass, those of the gradients."""
        rows = self.batch * layer.rows
        left, right = (
            _shaped(self.left, rows, layer.inner),
            _shaped(self.right, layer.columns, layer.inner),
        )
        out = _shaped(self.out, rows, layer.columns)
        products = [(left, right, out)]
        if self.backward:
            products.append((out.t(), left.t(), _shaped(self.grad, layer.columns, layer.inner)))
            if layer.input_grad:
                products.append((out, right.t(), _shaped(self.grad, rows, layer.inner)))
        return products

    def _attend(self, layer: Attention) -> None:
        lead = (self.batch * layer.batch, layer.heads)
        query = _shaped(self.left, *lead, layer.queries, layer.dim)
        key, value = (
            _shaped(memory, *lead, layer.keys, layer.dim) for memory in (self.right, self.out)
        )
        if not self.backward:
            F.scaled_dot_product_attention(query, key, value)
            return
        operands = [tensor.detach().requires_grad_() for tensor in (query, key, value)]
        out = F.scaled_dot_product_attention(*operands)
        torch.autograd.grad(out, operands, _shaped(self.grad, *lead, layer.queries, layer.dim))


def _shaped(memory: Tensor, *shape: int) -> Tensor:
    return memory[: math.prod(shape)].view(shape)
