"""VideoMAE's checkpoints load by a key map: files of their form with random weights."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from hiera_video.errors import CheckpointError
from hiera_video.models.factory import create_model
from hiera_video.models.vit.names import rename_from_videomae
from hiera_video.models.weights.state_dict import extract_state_dict

DECODER = {
    "encoder_norm.": "encoder.norm.",
    "decoder_embed.": "encoder_to_decoder.",
    "decoder_blocks.": "decoder.blocks.",
    "decoder_norm.": "decoder.norm.",
    "decoder_pred.": "decoder.head.",
}


def write_as_videomae(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return our `state` with VideoMAE's names, its keys' biases and the embedding's removed."""
    is_mae, written = "mask_token" in state, {}
    for name, value in state.items():
        if name == "decoder_embed.bias":
            continue
        for ours, theirs in DECODER.items():
            name = theirs + name.removeprefix(ours) if name.startswith(ours) else name
        if is_mae and name.startswith(("blocks.", "patch_embed.")):
            name = f"encoder.{name}"
        if not is_mae:
            name = name.replace("head.projection.", "head.")
            name = f"fc_{name}" if name.startswith("norm.") else name
        if name.endswith(".qkv.bias"):
            query, _, values = value.chunk(3)
            written[name.replace("qkv.bias", "q_bias")] = query
            written[name.replace("qkv.bias", "v_bias")] = values
        else:
            written[name] = value
    return written


def redrawn(name: str) -> nn.Module:
    """Return a model whose biases are not zero, except those that VideoMAE does not have."""
    torch.manual_seed(0)
    model = create_model(name, num_classes=5)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            parameter.normal_(std=0.1)
            if key.endswith(".qkv.bias"):
                parameter.chunk(3)[1].zero_()
            if key == "decoder_embed.bias":
                parameter.zero_()
    return model


def test_names_of_a_classifier():
    state = {
        "patch_embed.proj.weight": torch.zeros(2, 3, 2, 8, 8),
        "blocks.0.attn.q_bias": torch.tensor([1.0, 2.0]),
        "blocks.0.attn.v_bias": torch.tensor([3.0, 4.0]),
        "blocks.0.attn.qkv.weight": torch.zeros(6, 2),
        "fc_norm.weight": torch.zeros(2),
        "head.weight": torch.zeros(5, 2),
        "head.bias": torch.zeros(5),
    }
    renamed = rename_from_videomae(state)
    assert list(renamed) == [
        *("patch_embed.proj.weight", "blocks.0.attn.qkv.bias", "blocks.0.attn.qkv.weight"),
        *("norm.weight", "head.projection.weight", "head.projection.bias"),
    ]
    assert renamed["blocks.0.attn.qkv.bias"].tolist() == [1.0, 2.0, 0.0, 0.0, 3.0, 4.0]


def test_names_of_an_autoencoder():
    state = {
        "mask_token": torch.zeros(1, 1, 4),
        "encoder.patch_embed.proj.weight": torch.zeros(2, 3, 2, 8, 8),
        "encoder.blocks.0.attn.q_bias": torch.zeros(2),
        "encoder.blocks.0.attn.v_bias": torch.zeros(2),
        "encoder.norm.weight": torch.zeros(2),
        "decoder.blocks.1.attn.proj.weight": torch.zeros(4, 4),
        "decoder.blocks.1.attn.q_bias": torch.zeros(4),
        "decoder.blocks.1.attn.v_bias": torch.zeros(4),
        "decoder.norm.bias": torch.zeros(4),
        "decoder.head.weight": torch.zeros(384, 4),
        "encoder_to_decoder.weight": torch.ones(4, 2),
    }
    found = extract_state_dict({"model": state, "epoch": 1599}, "checkpoint-1599.pth")
    assert sorted(found) == [
        *("blocks.0.attn.qkv.bias", "decoder_blocks.1.attn.proj.weight"),
        *("decoder_blocks.1.attn.qkv.bias", "decoder_embed.bias", "decoder_embed.weight"),
        *("decoder_norm.bias", "decoder_pred.weight", "encoder_norm.weight", "mask_token"),
        "patch_embed.proj.weight",
    ]
    assert found["decoder_embed.bias"].tolist() == [0.0] * 4


@pytest.mark.parametrize("key", ["model", "module"])  # DeepSpeed's fine-tuning writes module
@torch.no_grad()
def test_a_fine_tuned_checkpoint_loads(key, tmp_path: Path):
    model, file = redrawn("vit_micro_16x32").eval(), tmp_path / "checkpoint.pth"
    state = write_as_videomae(model.state_dict())
    assert "blocks.3.attn.v_bias" in state and "fc_norm.bias" in state and "head.bias" in state
    torch.save({key: state, "epoch": 74, "args": Namespace(lr=5e-4)}, file)
    loaded = create_model("vit_micro_16x32", pretrained=str(file)).eval()
    clips = torch.randn(1, 3, 16, 32, 32)
    assert torch.equal(loaded(clips), model(clips))


@torch.no_grad()
def test_a_pretrained_checkpoint_loads(tmp_path: Path):
    model, file = redrawn("mae_vit_micro_16x32").eval(), tmp_path / "checkpoint-1599.pth"
    state = write_as_videomae(model.state_dict())
    assert "encoder.blocks.0.attn.q_bias" in state and "decoder.blocks.1.attn.q_bias" in state
    torch.save({"model": state, "optimizer": {}, "epoch": 1599, "args": Namespace()}, file)
    loaded = create_model("mae_vit_micro_16x32", pretrained=str(file)).eval()
    clips, keep = torch.randn(1, 3, 16, 32, 32), model.draw_keep(1)
    assert torch.equal(loaded(clips, keep=keep).pred, model(clips, keep=keep).pred)
    classifier = create_model("vit_micro_16x32", num_classes=5, pretrained=str(file))
    for name in ("patch_embed.proj.weight", "blocks.0.attn.qkv.bias", "blocks.3.mlp.fc2.weight"):
        assert torch.equal(classifier.state_dict()[name], model.state_dict()[name])


def test_other_weights_are_refused(tmp_path: Path):
    file = tmp_path / "checkpoint.pth"
    torch.save(write_as_videomae(redrawn("vit_micro_16x32").state_dict()), file)
    with pytest.raises(
        CheckpointError, match=r"\[64, 3, 2, 8, 8\] in the file and \[64, 3, 3, 7, 7\]"
    ):
        create_model("hiera_micro_16x32", pretrained=str(file))
    with pytest.raises(CheckpointError, match=r"4 blocks, the model 192 and 12; the checkpoint"):
        create_model("vit_tiny_16x224", pretrained=str(file))


@pytest.mark.slow
@torch.no_grad()
def test_logits_and_predictions_equal_transformers():
    """VideoMAE as transformers implements it, with the same weights."""
    import transformers

    sizes = {"image_size": 32, "patch_size": 8, "num_frames": 16, "tubelet_size": 2}
    config = transformers.VideoMAEConfig(
        **sizes,
        hidden_size=64,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=256,
        decoder_num_attention_heads=1,
        decoder_hidden_size=32,
        decoder_num_hidden_layers=2,
        decoder_intermediate_size=128,
        layer_norm_eps=1e-6,
        use_mean_pooling=True,
        num_labels=5,
    )
    clips = torch.randn(2, 3, 16, 32, 32)
    ours = redrawn("vit_micro_16x32").eval()
    theirs = transformers.VideoMAEForVideoClassification(config).eval()
    load_into_transformers(theirs, ours)
    expected = theirs(clips.transpose(1, 2)).logits
    torch.testing.assert_close(ours(clips), expected, atol=1e-5, rtol=1e-5)
    mae = redrawn("mae_vit_micro_16x32").eval()
    config.use_mean_pooling = False  # else there is no norm after the encoder
    pretraining = transformers.VideoMAEForPreTraining(config).eval()
    load_into_transformers(pretraining, mae)
    keep = mae.draw_keep(2)
    expected = pretraining(clips.transpose(1, 2), bool_masked_pos=~keep).logits
    torch.testing.assert_close(mae(clips, keep=keep).pred, expected, atol=1e-5, rtol=1e-5)


def load_into_transformers(theirs: nn.Module, ours: nn.Module) -> None:
    """Load the weights of our model into transformers' VideoMAE."""
    names = {
        "encoder.norm.": "videomae.layernorm.",
        "encoder.": "",
        "fc_norm.": "fc_norm.",
        "decoder.blocks.": "decoder.decoder_layers.",
        "blocks.": "videomae.encoder.layer.",
        "patch_embed.proj.": "videomae.embeddings.patch_embeddings.projection.",
        "decoder.head.": "decoder.head.",
        "head.": "classifier.",
    }
    parts = {
        ".norm1.": ".layernorm_before.",
        ".norm2.": ".layernorm_after.",
        ".mlp.fc1.": ".intermediate.dense.",
        ".mlp.fc2.": ".output.dense.",
        ".attn.proj.": ".attention.output.dense.",
        ".attn.q_bias": ".attention.attention.query.bias",
        ".attn.v_bias": ".attention.attention.value.bias",
        ".attn.qkv.": ".attention.attention.qkv.",
    }
    state = {}
    for name, value in write_as_videomae(ours.state_dict()).items():
        for start, other in names.items():
            if name.startswith(start):
                name = other + name.removeprefix(start)
                if start != "encoder.":
                    break
        for part, other in parts.items():
            name = name.replace(part, other)
        if ".qkv." in name:
            rows = zip(("query", "key", "value"), value.chunk(3))
            state |= {name.replace("qkv", part): weight for part, weight in rows}
        else:
            state[name] = value
    found = theirs.load_state_dict(state, strict=False)
    assert not found.unexpected_keys and not found.missing_keys
