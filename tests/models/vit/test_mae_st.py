"""MAE-ST's checkpoints load: their forward pass, written from the paper's formulas, gives the same.

The files have their format (arXiv 2205.09113, facebookresearch/mae_st) and random weights.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from hiera_video.errors import CheckpointError
from hiera_video.models.factory import create_model
from hiera_video.models.mae import MaskedAutoencoderHiera
from hiera_video.models.registry import default_mae
from hiera_video.models.vit.names import rename_from_mae_st
from hiera_video.models.weights.load import from_pretrained
from hiera_video.models.weights.save import save_pretrained

FRAMES, SIDE, CUBE = 16, 32, (2, 8, 8)
WIDTH, BLOCKS, HEADS = 64, 4, 2
DECODER_WIDTH, DECODER_BLOCKS, DECODER_HEADS = 32, 2, 1
TIMES, PLACES, CLASSES = 8, 16, 5


def block_shapes(prefix: str, width: int, depth: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of blocks as MAE-ST names them."""
    square, vector = (width, width), (width,)
    shapes: dict[str, tuple[int, ...]] = {}
    for index in range(depth):
        block = f"{prefix}{index}."
        for name in ("attn.q", "attn.k", "attn.v", "attn.proj"):
            shapes |= {f"{block}{name}.weight": square, f"{block}{name}.bias": vector}
        for name in ("norm1", "norm2"):
            shapes |= {f"{block}{name}.weight": vector, f"{block}{name}.bias": vector}
        shapes |= {
            f"{block}mlp.fc1.weight": (4 * width, width),
            f"{block}mlp.fc1.bias": (4 * width,),
            f"{block}mlp.fc2.weight": (width, 4 * width),
            f"{block}mlp.fc2.bias": vector,
        }
    return shapes


def position_shapes(prefix: str, width: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a class token and the three tables of positions."""
    return {
        f"{prefix}cls_token": (1, 1, width),
        f"{prefix}pos_embed_spatial": (1, PLACES, width),
        f"{prefix}pos_embed_temporal": (1, TIMES, width),
        f"{prefix}pos_embed_class": (1, 1, width),
    }


ENCODER = {
    "patch_embed.proj.weight": (WIDTH, 3, *CUBE),
    "patch_embed.proj.bias": (WIDTH,),
    **position_shapes("", WIDTH),
    **block_shapes("blocks.", WIDTH, BLOCKS),
    "norm.weight": (WIDTH,),
    "norm.bias": (WIDTH,),
}
CLASSIFIER = {**ENCODER, "head.weight": (CLASSES, WIDTH), "head.bias": (CLASSES,)}
PREDICTED = 8 * 8 * 3  # one frame of a cube
AUTOENCODER = {
    **ENCODER,
    **position_shapes("decoder_", DECODER_WIDTH),
    "mask_token": (1, 1, DECODER_WIDTH),
    "decoder_embed.weight": (DECODER_WIDTH, WIDTH),
    "decoder_embed.bias": (DECODER_WIDTH,),
    **block_shapes("decoder_blocks.", DECODER_WIDTH, DECODER_BLOCKS),
    "decoder_norm.weight": (DECODER_WIDTH,),
    "decoder_norm.bias": (DECODER_WIDTH,),
    "decoder_pred.weight": (PREDICTED, DECODER_WIDTH),
    "decoder_pred.bias": (PREDICTED,),
}


def draw(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {name: 0.1 * torch.randn(shape) for name, shape in shapes.items()}


def linear(state: dict[str, Tensor], name: str, inputs: Tensor) -> Tensor:
    return inputs @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def norm(state: dict[str, Tensor], name: str, inputs: Tensor) -> Tensor:
    """LayerNorm with an epsilon of 1e-6, as MAE-ST's."""
    centred = inputs - inputs.mean(-1, keepdim=True)
    scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]


def run_blocks(
    state: dict[str, Tensor], prefix: str, depth: int, heads: int, tokens: Tensor
) -> Tensor:
    """Attention softmax(q kᵀ / √d) v over all tokens, then an MLP, both on normalised inputs."""
    for index in range(depth):
        block = f"{prefix}{index}."
        normed = norm(state, f"{block}norm1", tokens)
        query, key, value = (
            linear(state, f"{block}attn.{part}", normed).unflatten(-1, (heads, -1)).transpose(1, 2)
            for part in "qkv"
        )
        weights = (query @ key.mT / query.shape[-1] ** 0.5).softmax(-1)
        attended = (weights @ value).transpose(1, 2).flatten(2)
        tokens = tokens + linear(state, f"{block}attn.proj", attended)
        hidden = linear(state, f"{block}mlp.fc1", norm(state, f"{block}norm2", tokens))
        tokens = tokens + linear(state, f"{block}mlp.fc2", nn.functional.gelu(hidden))
    return tokens


def add_positions(state: dict[str, Tensor], prefix: str, tokens: Tensor) -> Tensor:
    """Add tables of space and time to tokens [B, times * places, C]."""
    tables = [state[f"{prefix}pos_embed_{axis}"][0] for axis in ("temporal", "spatial")]
    positions = torch.stack([tables[0][t] + tables[1][p] for t in range(8) for p in range(16)])
    return tokens + positions


def with_class_token(state: dict[str, Tensor], prefix: str, tokens: Tensor) -> Tensor:
    """Prepend the class token and its position."""
    token = state[f"{prefix}cls_token"] + state[f"{prefix}pos_embed_class"]
    return torch.cat([token.expand(len(tokens), -1, -1), tokens], dim=1)


def embed(state: dict[str, Tensor], clips: Tensor) -> Tensor:
    cubes = clips.unfold(2, 2, 2).unfold(3, 8, 8).unfold(4, 8, 8)  # b c t h w 2 8 8
    cubes = cubes.permute(0, 2, 3, 4, 1, 5, 6, 7).flatten(4).flatten(1, 3)
    kernel = state["patch_embed.proj.weight"].flatten(1)
    return add_positions(state, "", cubes @ kernel.T + state["patch_embed.proj.bias"])


@pytest.fixture
def clips() -> Tensor:
    torch.manual_seed(1)
    return torch.randn(2, 3, FRAMES, SIDE, SIDE)


def test_names():
    ones = torch.ones(1, 1, 2)
    state = {
        "cls_token": ones,
        "pos_embed_class": 2 * ones,
        "decoder_cls_token": ones,
        "decoder_pos_embed_class": 3 * ones,
        "decoder_pos_embed_spatial": torch.tensor([[[1.0], [2.0], [3.0]]]),
        "decoder_pos_embed_temporal": torch.tensor([[[10.0], [20.0]]]),
        "blocks.0.attn.q.bias": torch.tensor([1.0]),
        "blocks.0.attn.k.bias": torch.tensor([2.0]),
        "blocks.0.attn.v.bias": torch.tensor([3.0]),
        "mask_token": ones,
        "norm.bias": torch.zeros(2),
    }
    found = rename_from_mae_st(state)
    assert {name: value.flatten().tolist() for name, value in found.items()} == {
        "cls_token": [3.0, 3.0],
        "decoder_cls_token": [4.0, 4.0],
        "decoder_pos_embed": [11.0, 12.0, 13.0, 21.0, 22.0, 23.0],
        "blocks.0.attn.qkv.bias": [1.0, 2.0, 3.0],
        "mask_token": [1.0, 1.0],
        "encoder_norm.bias": [0.0, 0.0],
    }
    del state["cls_token"]
    assert rename_from_mae_st(state) == state


@torch.no_grad()
def test_logits_of_a_fine_tuned_checkpoint(clips, tmp_path: Path):
    state, file = draw(CLASSIFIER), tmp_path / "checkpoint.pth"
    torch.save({"model_state": state, "epoch": 99}, file)
    model = create_model("vit_st_micro_16x32", pretrained=str(file)).eval()
    tokens = with_class_token(state, "", embed(state, clips))
    features = run_blocks(state, "blocks.", BLOCKS, HEADS, tokens)[:, 1:]
    expected = linear(state, "head", norm(state, "norm", features.mean(1)))
    assert expected.std() > 0.05
    torch.testing.assert_close(model(clips), expected, atol=1e-5, rtol=0)
    grid = model.forward_features(clips)
    torch.testing.assert_close(grid.flatten(1, 3), features, atol=1e-5, rtol=1e-5)
    without = run_blocks(state, "blocks.", BLOCKS, HEADS, embed(state, clips))
    assert not torch.allclose(without, features, atol=1e-3)  # the class token matters
    again = from_pretrained(save_pretrained(model, tmp_path / "saved"))
    assert again.config == model.config and torch.equal(again(clips), model(clips))


@torch.no_grad()
def test_predictions_of_a_pretrained_checkpoint(clips, tmp_path: Path):
    state, file = draw(AUTOENCODER), tmp_path / "checkpoint-00099.pth"
    torch.save({"model": state, "epoch": 99}, file)
    mae = create_model("mae_vit_st_micro_16x32", pretrained=str(file)).eval()
    assert isinstance(mae, MaskedAutoencoderHiera)
    keep = mae.draw_keep(2)
    visible = embed(state, clips)[keep].view(2, -1, WIDTH)
    assert visible.shape[1] == 32  # of 128 tokens
    tokens = with_class_token(state, "", visible)
    latent = norm(state, "norm", run_blocks(state, "blocks.", BLOCKS, HEADS, tokens))[:, 1:]
    filled = state["mask_token"].expand(2, TIMES * PLACES, -1).clone()
    filled[keep] = linear(state, "decoder_embed", latent).flatten(0, 1)
    filled = with_class_token(state, "decoder_", add_positions(state, "decoder_", filled))
    decoded = run_blocks(state, "decoder_blocks.", DECODER_BLOCKS, DECODER_HEADS, filled)[:, 1:]
    expected = linear(state, "decoder_pred", norm(state, "decoder_norm", decoded))
    expected = expected[~keep].view(2, 96, PREDICTED)
    torch.testing.assert_close(mae(clips, keep=keep).pred, expected, atol=1e-5, rtol=1e-5)
    classifier = create_model("vit_st_micro_16x32", num_classes=CLASSES, pretrained=str(file))
    for name in ("cls_token", "pos_embed_spatial", "blocks.3.attn.qkv.weight"):
        assert torch.equal(classifier.state_dict()[name], mae.state_dict()[name])


def test_training_reaches_every_parameter(clips):
    mae = create_model("mae_vit_st_micro_16x32")
    mae(clips).loss.backward()
    assert not [name for name, value in mae.named_parameters() if value.grad is None]
    assert mae.no_weight_decay() == {
        *("cls_token", "pos_embed_spatial", "pos_embed_temporal"),
        *("decoder_cls_token", "decoder_pos_embed", "mask_token"),
    }
    assert (mae.layer_id("cls_token"), mae.layer_id("decoder_cls_token")) == (0, 5)


def test_the_papers_settings():
    mae = default_mae("mae_vit_st_large_16x224")
    assert (mae.decoder_embed_dim, mae.decoder_depth, mae.decoder_num_heads) == (512, 4, 16)
    assert (mae.mask_ratio, mae.masking, mae.target_frames) == (0.9, "random", "first")


def test_videomaes_model_refuses_them(tmp_path: Path):
    torch.save(draw(CLASSIFIER), tmp_path / "checkpoint.pth")
    with pytest.raises(CheckpointError, match=r"also has pos_embed_spatial, pos_embed_temporal"):
        create_model("vit_micro_16x32", pretrained=str(tmp_path / "checkpoint.pth"))
