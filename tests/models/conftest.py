"""The reference, PyPI's `hiera-transformer`, with our configuration and the same weights."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from hiera_video.models.hiera import Hiera
from hiera_video.models.layout import HieraConfig
from hiera_video.models.mae import MaskedAutoencoderHiera
from hiera_video.models.registry import MaeConfig

SHARED = (
    *("input_size", "in_chans", "num_classes", "embed_dim", "num_heads", "stages", "mlp_ratio"),
    *("q_pool", "q_stride", "mask_unit_size", "mask_unit_attn", "sep_pos_embed"),
    *("patch_kernel", "patch_stride", "patch_padding"),
)


@contextmanager
def no_init() -> Iterator[None]:
    """Skip initialisation, which takes half a minute for a huge model; weights are redrawn."""
    with mock.patch.multiple(
        nn.init,
        trunc_normal_=lambda tensor, **_: tensor,
        kaiming_uniform_=lambda tensor, **_: tensor,
        xavier_uniform_=lambda tensor, **_: tensor,
    ):
        yield


@torch.no_grad()
def redraw(model: nn.Module, seed: int = 0) -> None:
    """Redraw every parameter; with initial heads, scaled by 0.001, any two networks agree."""
    generator = torch.Generator().manual_seed(seed)
    # a prime length, so that rows of a matrix never line up
    pool = torch.randn(1_000_003, generator=generator) * 0.05
    for parameter in model.parameters():
        if parameter.ndim > 1:
            tiled = pool.roll(int(torch.randint(len(pool), (), generator=generator)))
            for start in range(0, parameter.numel(), len(pool)):
                part = parameter.view(-1)[start : start + len(pool)]
                part.copy_(tiled[: len(part)])
        else:
            parameter.uniform_(-0.1, 0.1, generator=generator).add_(
                1.0 if parameter.mean() > 0.5 else 0.0
            )


@pytest.fixture
def twins() -> Callable[[HieraConfig], tuple[nn.Module, Hiera]]:
    """Build the reference and our model with the same weights, loaded strictly both ways."""

    def build(config: HieraConfig, mae: MaeConfig | None = None) -> tuple[nn.Module, Any]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its import warns about timm
            import hiera
            from hiera.hiera_mae import MaskedAutoencoderHiera as ReferenceMae
        arguments: dict[str, Any] = {name: getattr(config, name) for name in SHARED}
        ours: nn.Module
        with no_init():
            if mae is None:
                reference, ours = hiera.Hiera(**arguments), Hiera(config)
            else:
                arguments["decoder_embed_dim"] = mae.decoder_embed_dim
                arguments["decoder_depth"] = mae.decoder_depth
                arguments["decoder_num_heads"] = mae.decoder_num_heads
                reference, ours = ReferenceMae(**arguments), MaskedAutoencoderHiera(config, mae)
        redraw(reference)
        # assigned rather than copied: a huge model is 2.7 GB
        ours.load_state_dict(reference.state_dict(), strict=True, assign=True)
        reference.load_state_dict(ours.state_dict(), strict=True, assign=True)
        return reference.eval(), ours.eval()

    return build


@pytest.fixture
def draw_clips() -> Callable[..., Tensor]:
    def draw(config: HieraConfig, batch: int = 1, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(batch, config.in_chans, *config.input_size, generator=generator)

    return draw


def relative_difference(ours: Tensor, theirs: Tensor) -> float:
    """Return the largest difference, relative to the largest value."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


@pytest.fixture(name="relative_difference")
def relative_difference_fixture() -> Callable[[Tensor, Tensor], float]:
    return relative_difference
