"""Attention of one query: weights of the right window, at the right places."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from hiera_video.errors import ConfigError
from hiera_video.explanations.attention import blocks_of, query_attention
from hiera_video.models.hiera import Hiera


@pytest.mark.parametrize(
    ("block", "query", "grid", "nonzero"),
    [
        (0, (3, 1, 6), (8, 8, 8), 16),  # within a unit of 4x4 tokens
        (1, (3, 0, 3), (8, 8, 8), 16),  # the pooled query of a unit
        (2, (3, 0, 3), (8, 4, 4), 128),  # over the clip
        (-1, (7, 1, 1), (8, 4, 4), 128),
    ],
)
def test_weights_sum_to_one_over_the_keys_of_the_query(
    random_model: Callable[[], Hiera],
    block: int,
    query: tuple[int, ...],
    grid: tuple[int, ...],
    nonzero: int,
) -> None:
    model = random_model().eval()
    maps = query_attention(model, torch.randn(2, 3, 16, 32, 32), query, block)
    assert maps.shape == (2, *grid)
    assert torch.allclose(maps.flatten(1).sum(dim=1), torch.ones(2), atol=1e-5)
    assert (maps[0] > 0).sum() == nonzero
    if nonzero == 16:  # the unit of (3, 1, 6) and of (3, 0, 3): frame 3, upper right
        assert (maps[0, 3, :4, 4:] > 0).all()


def test_the_query_is_the_token_at_its_place(random_model: Callable[[], Hiera]) -> None:
    """Keys and queries are the token's brightness: the brightest query follows the brightest key.

    A query of opposite sign avoids it.
    """
    model = random_model().eval()
    attention = blocks_of(model)[0].attn
    with torch.no_grad():
        attention.qkv.weight.zero_()
        attention.qkv.bias.zero_()
        attention.qkv.weight[0, 0] = attention.qkv.weight[64, 0] = 20.0
    inputs: list[torch.Tensor] = []
    attention.register_forward_pre_hook(lambda module, arguments: inputs.append(arguments[0]))
    clips = torch.randn(1, 3, 16, 32, 32)
    with torch.no_grad():
        model.encode(clips)
    channel = model.order.reroll(inputs[0].view(1, 32, 16, -1), 0)[0, 3, :4, 4:, 0]
    for row, column in ((0, 0), (1, 2), (3, 3)):
        found = query_attention(model, clips, (3, row, column + 4), 0)[0, 3, :4, 4:]
        scores = channel[row, column] * channel * 400 / 8
        assert torch.allclose(found, scores.flatten().softmax(dim=0).view(4, 4), atol=1e-5)


@pytest.mark.parametrize(
    ("query", "block", "words"),
    [
        ((0, 0, 0), 4, "block=4: the model has 4 blocks, 0 to 3"),
        ((0, 4, 0), 1, "query=[0, 4, 0]: the block's map is 8×4×4; give a place of it, counted"),
        ((0, 0), 0, "query=[0, 0]: the block's map is 8×8×8"),
    ],
)
def test_mistakes(
    random_model: Callable[[], Hiera], query: tuple[int, ...], block: int, words: str
) -> None:
    with pytest.raises(ConfigError) as error:
        query_attention(random_model(), torch.zeros(1, 3, 16, 32, 32), query, block)
    assert str(error.value).startswith(words)
