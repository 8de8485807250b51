from __future__ import annotations

import pytest
import torch
from einops import rearrange, repeat

from hiera_video.errors import InputSizeError
from hiera_video.models import tokens
from hiera_video.models.registry import config_for
from hiera_video.models.tokens import (
    PatchEmbed,
    UnitOrder,
    count_visible,
    gather_rows,
    indices_of_true,
    pool_units,
)

MICRO = config_for("hiera_micro_16x32")


def test_order_inside_a_unit_matches_the_docstring():
    letters = "abefcdghijmnklop"  # row by row
    grid = torch.tensor([ord(letter) for letter in letters]).view(1, 1, 1, 4, 4)
    config = config_for("hiera_micro_16x32", input_size=(2, 16, 16))
    tokens = UnitOrder(config).unroll(grid)[0, 0, :, 0].tolist()
    assert "".join(map(chr, tokens)) == "aeimbfjncgkodhlp"


def test_unroll_equals_its_einops_form():
    grid = torch.arange(2 * 3 * 8 * 8 * 8).view(2, 3, 8, 8, 8)
    pattern = "b c (ut p) (uh h2 h1) (uw w2 w1) -> b (ut uh uw) (p h1 w1 h2 w2) c"
    expected = rearrange(grid, pattern, p=1, h1=2, h2=2, w1=2, w2=2)
    assert torch.equal(UnitOrder(MICRO).unroll(grid), expected)


@pytest.mark.parametrize(
    "name",
    ["hiera_micro_16x32", "hiera_base_16x224", "mae_hiera_base_16x224", "mae_hiera_base_224"],
)
def test_reroll_inverts_unroll_at_every_level(name):
    config = config_for(name)
    order = UnitOrder(config)
    for level in range(config.q_pool + 1):
        shape = [
            tokens // stride**level for tokens, stride in zip(config.token_grid, config.q_stride)
        ]
        grid = torch.arange(torch.Size(shape).numel()).view(1, 1, *shape)
        rolled = order.reroll(order.unroll(grid, level), level)
        assert torch.equal(rolled.movedim(-1, 1), grid)


def test_pool_units_equals_max_pooling_of_the_grid():
    grid = torch.randn(2, 5, 8, 8, 8)
    order = UnitOrder(MICRO)
    tokens = order.unroll(grid).flatten(1, 2)
    pooled = order.reroll(pool_units(tokens, 4, 4).view(2, 32, 4, 5), 1)
    assert torch.equal(pooled.movedim(-1, 1), torch.nn.functional.max_pool3d(grid, (1, 2, 2)))


def test_indices_of_true_and_gather_rows():
    flags = torch.tensor([[True, False, True, False], [False, False, True, True]])
    positions = indices_of_true(flags, 2)
    assert positions.tolist() == [[0, 2], [2, 3]]
    rows = torch.arange(8).view(2, 4, 1)
    assert gather_rows(rows, positions).squeeze(-1).tolist() == [[0, 2], [6, 7]]


@pytest.mark.parametrize(
    ("keep", "words"),
    [
        (
            torch.ones(2, 3, dtype=torch.bool),
            r"keep is torch.bool \[2, 3\]; expected torch.bool \[2, 4\]",
        ),
        (torch.ones(2, 4), r"keep is torch.float32 \[2, 4\]"),
        (
            torch.tensor([[True, True, False, False], [True, False, False, False]]),
            "between 1 and 2 units a clip",
        ),
        (torch.zeros(2, 4, dtype=torch.bool), "keep shows no unit; at least one must be visible"),
    ],
)
def test_wrong_masks_are_rejected(keep, words):
    with pytest.raises(InputSizeError, match=words):
        count_visible(keep, 2, 4, None)


SHAPES = [
    ("mae_hiera_base_16x224", (16, 64, 96)),
    ("mae_hiera_base_224", (96, 64)),
    ("mae_hiera_micro_16x32", (16, 32, 32)),
]


@pytest.mark.parametrize(("name", "size"), SHAPES)
def test_embed_units_equals_the_whole_grid_of_blanked_clips(name, size):
    """Also where hidden units are NaN, so that no pixel of theirs is read."""
    config = config_for(name, input_size=size)
    torch.manual_seed(0)
    patch_embed, order = PatchEmbed(config), UnitOrder(config)
    clips = torch.randn(2, config.in_chans, *size)
    chosen = torch.stack([torch.randperm(config.num_units)[:3].sort().values for _ in range(2)])
    keep = torch.zeros(2, config.num_units, dtype=torch.bool).scatter(1, chosen, True)
    axes = "thw"[-len(size) :]
    pixels = " ".join(f"({axis} {axis}p)" for axis in axes)
    sizes = dict(zip(axes, config.unit_grid))
    of_pixels = repeat(
        keep,
        f"b ({' '.join(axes)}) -> b 1 {pixels}",
        **sizes,
        **{f"{axis}p": whole // sizes[axis] for axis, whole in zip(axes, size)},
    )
    with torch.no_grad():
        whole = order.unroll(patch_embed(clips.masked_fill(~of_pixels, 0.0)))
        poisoned = clips.masked_fill(~of_pixels, torch.nan)
        units = order.unroll_units(patch_embed.embed_units(poisoned, keep, chosen))
    expected = torch.stack([tokens[places] for tokens, places in zip(whole, chosen)])
    units = units.unflatten(0, chosen.shape)
    assert (units - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize(("name", "size"), SHAPES)
def test_patches_by_a_matrix_product_equal_the_convolution(name, size):
    """This is what a GPU computes; its rows are a multiple of 8 numbers long."""
    config = config_for(name, input_size=size)
    torch.manual_seed(0)
    patch_embed = PatchEmbed(config)
    assert patch_embed.product_kernel == (*config.patch_kernel[:-1], 8)
    clips = torch.randn(2, config.in_chans, *size)
    found, expected = patch_embed.embed_patches(clips), patch_embed.proj(clips)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    weight = patch_embed.proj.weight
    upstream = torch.randn_like(expected)
    gradients = [torch.autograd.grad(out, weight, upstream)[0] for out in (found, expected)]
    assert (gradients[0] - gradients[1]).abs().max() <= 1e-5 * gradients[1].abs().max()


def test_chosen_units_by_a_matrix_product_equal_the_convolution(monkeypatch):
    torch.manual_seed(0)
    patch_embed, clips = PatchEmbed(MICRO), torch.randn(2, 3, 16, 32, 32)
    keep = torch.rand(2, 32).argsort(dim=1) < 5
    chosen = indices_of_true(keep, 5)
    expected = patch_embed.embed_units(clips, keep, chosen)
    monkeypatch.setattr(tokens, "uses_product", lambda clips: True)
    found = patch_embed.embed_units(clips, keep, chosen)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
