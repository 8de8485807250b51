"""transformers' image Hiera, to and from it (issue I, weights 3)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hiera_video.errors import CheckpointError
from hiera_video.models.factory import create_model
from hiera_video.models.hiera import Hiera
from hiera_video.models.layout import HieraConfig
from hiera_video.models.mae import MaskedAutoencoderHiera
from hiera_video.models.registry import MaeConfig, config_for
from hiera_video.models.weights.load import from_pretrained, load_pretrained, read_weights
from hiera_video.models.weights.save import save_pretrained
from hiera_video.models.weights.transformers_names import (
    arguments_from_transformers,
    rename_from_transformers,
    rename_to_transformers,
)

SMALL: dict[str, Any] = {"input_size": (64, 64), "embed_dim": 16, "stages": (1, 2, 1, 1)}
DECODER = MaeConfig(mask_ratio=0.5, decoder_embed_dim=32, decoder_depth=2, decoder_num_heads=4)

# parameters of transformers 5.23 → the authors', for the first two stages of one and two blocks
LAYER = {
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "attn.qkv": "attn.qkv",
    "attn.proj": "attn.proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
    "proj": "proj",
}
NAMES = {
    "hiera.embeddings.position_embeddings": "pos_embed",
    "hiera.embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
    "hiera.embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
    **{f"hiera.encoder.stages.0.layers.0.{a}.bias": f"blocks.0.{b}.bias" for a, b in LAYER.items()},
    **{f"hiera.encoder.stages.1.layers.0.{a}.bias": f"blocks.1.{b}.bias" for a, b in LAYER.items()},
    **{f"hiera.encoder.stages.1.layers.1.{a}.bias": f"blocks.2.{b}.bias" for a, b in LAYER.items()},
    "hiera.pooler.layernorm.weight": "norm.weight",
    "classifier.weight": "head.projection.weight",
    "encoder_norm.bias": "encoder_norm.bias",
    "multiscale_fusion.multi_scale_fusion_heads.1.weight": "multi_scale_fusion_heads.1.weight",
    "decoder.decoder_embeddings.weight": "decoder_embed.weight",
    "decoder.mask_token": "mask_token",
    "decoder.decoder_position_embeddings": "decoder_pos_embed",
    "decoder.decoder_block.layers.7.layernorm_after.bias": "decoder_blocks.7.norm2.bias",
    "decoder.decoder_block.layers.7.mlp.fc1.weight": "decoder_blocks.7.mlp.fc1.weight",
    "decoder.decoder_norm.weight": "decoder_norm.weight",
    "decoder.decoder_pred.bias": "decoder_pred.bias",
}


def image_config(**changes: Any) -> HieraConfig:
    return replace(config_for("hiera_tiny_224", num_classes=3), **{**SMALL, **changes})


def numbered(names: Any) -> dict[str, Tensor]:
    return {name: torch.tensor(float(index)) for index, name in enumerate(names)}


def test_every_name_is_mapped_both_ways() -> None:
    theirs, ours = numbered(NAMES), numbered(NAMES.values())
    assert rename_from_transformers(theirs) == ours
    assert rename_to_transformers(ours, image_config()) == theirs


def test_a_model_without_head_has_no_prefix() -> None:
    bare = {name.removeprefix("hiera."): v for name, v in numbered(NAMES).items()}
    bare["hidden_states_norms.stage4.weight"] = torch.zeros(1)  # of HieraBackbone
    assert rename_from_transformers(bare) == numbered(NAMES.values())
    assert rename_from_transformers(numbered(NAMES.values())) == numbered(NAMES.values())


@pytest.mark.parametrize("prefix", ["", "model.", "module._orig_mod."])
def test_a_file_of_theirs_loads(prefix: str, tmp_path: Path) -> None:
    model, again = Hiera(image_config()), Hiera(image_config())
    state = rename_to_transformers(model.state_dict(), model.config)
    torch.save({prefix + name: value for name, value in state.items()}, tmp_path / "x.bin")
    report = load_pretrained(again, tmp_path / "x.bin")
    assert not report.newly_initialised and not report.dropped
    assert all(
        torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items()
    )


@pytest.mark.parametrize("is_mae", [False, True], ids=["classifier", "autoencoder"])
def test_a_folder_of_theirs_is_rebuilt(is_mae: bool, tmp_path: Path) -> None:
    model: Hiera | MaskedAutoencoderHiera = Hiera(image_config())
    if is_mae:
        model = MaskedAutoencoderHiera(image_config(q_pool=2, init="xavier"), DECODER)
    names = None if is_mae else ("cat", "dog", "Vögel")
    folder = save_pretrained(model, tmp_path, class_names=names, library="transformers")
    (folder / "hiera_video.json").unlink()  # as transformers writes it
    config = json.loads((folder / "config.json").read_text())
    assert (config["model_type"], config["depths"], config["num_heads"]) == (
        *("hiera", [1, 2, 1, 1], [1, 2, 4, 8]),
    )
    assert config["architectures"] == [
        "HieraForPreTraining" if is_mae else "HieraForImageClassification"
    ]
    again = from_pretrained(folder)
    if is_mae:
        assert isinstance(again, MaskedAutoencoderHiera)
        assert (again.mae, again.config.q_pool) == (DECODER, 2)
        assert config["decoder_num_heads"] == 4
    else:
        assert again.config == model.config
        assert read_weights(folder).class_names == ("cat", "dog", "Vögel")
    assert all(
        torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items()
    )


def test_a_loss_on_pixels_as_they_are_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    """Issue I, 2.3."""
    arguments_from_transformers({"normalize_pixel_loss": True}, "x")
    assert not caplog.messages
    arguments_from_transformers({"normalize_pixel_loss": False}, "x")
    assert caplog.messages == [
        "warning: x: was pre-trained with normalize_pixel_loss=False; this package's loss "
        "normalises the pixels of each patch, so losses and predicted pixels differ in scale"
    ]


def test_absent_keys_have_their_defaults(tmp_path: Path) -> None:
    """transformers writes some keys only if they differ from its defaults; Hiera-B is one."""
    with torch.device("meta"):
        state = Hiera(config_for("hiera_base_224", num_classes=2)).state_dict()
    renamed = rename_to_transformers(state, config_for("hiera_base_224"))
    save_file(
        {name: torch.zeros(v.shape) for name, v in renamed.items()}, tmp_path / "model.safetensors"
    )
    (tmp_path / "config.json").write_text('{"model_type": "hiera"}')
    assert from_pretrained(tmp_path).config == config_for("hiera_base_224", num_classes=2)
    assert read_weights(tmp_path).class_names is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_act": "relu"}, "has hidden_act=relu; Hiera needs gelu"),
        ({"layer_norm_eps": 1e-5}, "has layer_norm_eps=1e-05; Hiera needs 1e-06"),
        ({"num_heads": [1, 2, 4, 4]}, r"has num_heads=\[1, 2, 4, 4\]; Hiera doubles its heads"),
        ({"num_heads": []}, r"has num_heads=\[\]; Hiera doubles its heads"),
        ({"num_heads": ["a"]}, r"has num_heads=\['a'\]; Hiera doubles its heads"),
        (
            {"masked_unit_attention": [False, True, False, False]},
            "has masked_unit_attention=.*; global stages must come last",
        ),
    ],
)
def test_models_that_differ_are_rejected(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    folder = save_pretrained(Hiera(image_config()), tmp_path, library="transformers")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(CheckpointError, match=words):
        from_pretrained(folder)


def test_models_that_transformers_lacks_are_rejected(tmp_path: Path) -> None:
    words = r"input_size=\[16, 32, 32\]: transformers has Hiera for images only"
    with pytest.raises(CheckpointError, match=words):
        save_pretrained(create_model("hiera_micro_16x32"), tmp_path, library="transformers")
    mae = MaskedAutoencoderHiera(image_config(q_pool=2), replace(DECODER, target="hog"))
    with pytest.raises(CheckpointError, match="transformers has target=pixels and decoder_tokens"):
        save_pretrained(mae, tmp_path, library="transformers")
    mae = MaskedAutoencoderHiera(image_config(q_pool=2), replace(DECODER, multi_scale=False))
    with pytest.raises(CheckpointError, match=r"mae\.multi_scale=false: transformers has autoenc"):
        save_pretrained(mae, tmp_path, library="transformers")
    with pytest.raises(CheckpointError, match="library='timm': choose hiera-transformer or tran"):
        save_pretrained(mae, tmp_path, library="timm")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


@torch.no_grad()
def redraw(model: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def theirs(**options: Any) -> Any:
    """Build transformers' configuration of `SMALL`."""
    import transformers

    return transformers.HieraConfig(
        **{"image_size": [64, 64], "embed_dim": 16, "depths": [1, 2, 1, 1], "num_labels": 3},
        **options,
    )


def test_logits_equal_transformers_both_ways(tmp_path: Path) -> None:
    import transformers

    model = redraw(transformers.HieraForImageClassification(theirs()))
    model.save_pretrained(tmp_path / "theirs")
    ours = from_pretrained(tmp_path / "theirs")
    save_pretrained(ours, tmp_path / "ours", library="transformers")
    again = transformers.HieraForImageClassification.from_pretrained(tmp_path / "ours").eval()
    assert load_file(tmp_path / "ours/model.safetensors").keys() == model.state_dict().keys()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = model(images).logits
        assert (ours(images) - expected).abs().max() <= 1e-5 < 0.1 < expected.std()
        assert torch.equal(again(images).logits, expected)


def test_losses_equal_transformers_both_ways(tmp_path: Path) -> None:
    import transformers

    decoder = {"decoder_hidden_size": 32, "decoder_depth": 2, "decoder_num_heads": 4}
    model = redraw(transformers.HieraForPreTraining(theirs(num_query_pool=2, **decoder)))
    model.save_pretrained(tmp_path / "theirs")
    ours = from_pretrained(tmp_path / "theirs")
    assert isinstance(ours, MaskedAutoencoderHiera)
    save_pretrained(ours, tmp_path / "ours", library="transformers")
    again = transformers.HieraForPreTraining.from_pretrained(tmp_path / "ours").eval()
    images, noise = torch.randn(2, 3, 64, 64), torch.rand(2, 4)
    keep = noise.argsort(1).argsort(1) < 1
    with torch.no_grad():
        expected = model(images, noise=noise)
        output = ours(images, keep=keep)
        hidden = expected.logits[~expected.bool_masked_pos.bool()].view_as(output.pred)
        assert (output.pred - hidden).abs().max() <= 1e-5 < 0.1 < hidden.std()
        assert abs(output.loss - expected.loss) <= 1e-6
        assert torch.equal(again(images, noise=noise).logits, expected.logits)
