"""`config.json` of several libraries and damaged ones (issue I, weights 2)."""

from __future__ import annotations

import json
import logging
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from hiera_video.errors import CheckpointError
from hiera_video.models.factory import create_model
from hiera_video.models.layout import HieraConfig
from hiera_video.models.mae import MaskedAutoencoderHiera
from hiera_video.models.registry import config_for, name_of
from hiera_video.models.weights.architecture import constructor_arguments, rebuild_configs
from hiera_video.models.weights.load import from_pretrained, load_pretrained
from hiera_video.models.weights.save import save_pretrained

MICRO = "hiera_micro_16x32"
STAGES = {"stages": (1, 1, 1, 1)}
VIDEO: dict[str, Any] = {
    **{"input_size": (4, 64, 64), "q_stride": (1, 2, 2), "mask_unit_size": (1, 8, 8)},
    **{"patch_kernel": (3, 7, 7), "patch_stride": (2, 4, 4), "patch_padding": (1, 3, 3)},
    "sep_pos_embed": True,
}


@pytest.fixture
def authors() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its import warns about timm
        import hiera
        import hiera.hiera_mae

        yield hiera


@pytest.mark.parametrize("options", [{"input_size": (64, 64)}, VIDEO], ids=["image", "video"])
def test_the_authors_folder_has_only_what_was_passed(
    authors: Any, options: dict[str, Any], tmp_path: Path
) -> None:
    theirs = authors.Hiera(**options, **STAGES).eval()
    theirs.save_pretrained(tmp_path)
    assert "num_classes" not in json.loads((tmp_path / "config.json").read_text())
    ours = from_pretrained(tmp_path)
    assert ours.config.num_classes == 1000
    clips = torch.randn(1, 3, *options["input_size"])
    with torch.no_grad():
        assert torch.allclose(ours(clips).softmax(-1), theirs(clips), atol=1e-7)


def test_an_authors_autoencoder_has_16_heads_unless_its_folder_has_another(
    authors: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sizes = {"q_pool": 2, "decoder_embed_dim": 32, "decoder_depth": 1, "input_size": (64, 64)}
    theirs = authors.hiera_mae.MaskedAutoencoderHiera(**sizes, **STAGES).eval()
    theirs.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config.pop("decoder_num_heads")  # as in folders of earlier versions of huggingface_hub
    (tmp_path / "config.json").write_text(json.dumps(config))
    with caplog.at_level(logging.INFO, logger="hiera_video"):
        ours = from_pretrained(tmp_path)
    assert (
        "autoencoder of 1 heads in stage 1 and 16 in the decoder (its config.json," in caplog.text
    )
    assert isinstance(ours, MaskedAutoencoderHiera)
    assert (ours.mae.decoder_num_heads, ours.mae.mask_ratio) == (16, 0.6)
    images, keep = torch.randn(1, 3, 64, 64), torch.tensor([[True, False, True, False]])
    with torch.no_grad():
        assert torch.allclose(ours(images, keep=keep).loss, theirs(images, mask=keep)[0], atol=1e-6)
    wanted = replace(ours.mae, decoder_num_heads=8)
    other = MaskedAutoencoderHiera(ours.config, wanted)
    with pytest.raises(CheckpointError, match="made with decoder_num_heads=16, the model has 8"):
        load_pretrained(other, tmp_path)


def test_a_file_does_not_record_the_heads(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.save(create_model(f"mae_{MICRO}").state_dict(), tmp_path / "x.pth")
    with caplog.at_level(logging.INFO, logger="hiera_video"):
        create_model(f"mae_{MICRO}", pretrained=str(tmp_path / "x.pth"))
    assert "4 in the decoder (the model's; the file does not record them)" in caplog.text


def test_dimensions_are_inferred_from_the_patch_embedding() -> None:
    flat = {"patch_embed.proj.weight": torch.empty(24, 1, 5, 5, device="meta")}
    deep = {"patch_embed.proj.weight": torch.empty(24, 4, 2, 7, 7, device="meta")}
    image = constructor_arguments({"num_classes": 3}, flat, "x")
    assert (image["input_size"], image["patch_kernel"], image["embed_dim"], image["in_chans"]) == (
        *((224, 224), (5, 5), 24, 1),
    )
    assert (image["sep_pos_embed"], image["decoder_num_heads"], image["num_classes"]) == (
        *(False, 16, 3),
    )
    video, _ = rebuild_configs(
        constructor_arguments({"stages": [1]}, deep, "x") | {"q_pool": 0, "num_classes": 3},
        {},
        {"head.projection.weight": torch.empty(3)},
        "x",
    )
    assert (video.input_size, video.patch_kernel, video.embed_dim, video.in_chans) == (
        *((16, 224, 224), (2, 7, 7), 24, 4),
    )
    head = {**flat, "head.projection.weight": torch.empty(400, 24, device="meta")}
    assert constructor_arguments({"stages": [1]}, head, "x")["num_classes"] == 400
    assert constructor_arguments({}, deep, "x") == {}


def test_names_are_found_by_configuration() -> None:
    assert name_of(config_for("hiera_base_plus_16x224", input_size=(8, 32, 64), num_classes=9)) == (
        "hiera_base_plus_16x224"
    )
    assert name_of(config_for("hiera_tiny_224", head_dropout=0.5)) == "hiera_tiny_224"
    assert name_of(HieraConfig(stages=(1, 1, 1, 1))) is None


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("input_size", 5, r"input_size=5: must be of the type of \(16, 224, 224\)"),
        ("input_size", "abc", "input_size='abc': must be of the type"),
        ("mlp_ratio", {}, r"mlp_ratio=\{\}: must be of the type of 4\.0"),
        ("q_pool", True, "q_pool=True: must be of the type of 3"),
        ("patch_stride", [0, 0, 0], "integer modulo by zero"),
        ("num_classes", 10**9, r"is \[3, 256\] in the file and \[1000000000, 256\] by config.json"),
        ("embed_dim", 10**7, "the two do not belong together"),
        ("architecture", "resnet50", "has architecture='resnet50', which is not timm's Hiera"),
    ],
)
def test_damaged_configurations_are_one_line(
    key: str, value: object, words: str, tmp_path: Path
) -> None:
    save_pretrained(create_model(MICRO, num_classes=3), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, key: value}))
    with pytest.raises(CheckpointError, match=words):
        from_pretrained(tmp_path)


def test_a_missing_head_is_an_error_where_the_configuration_has_classes(tmp_path: Path) -> None:
    model = create_model(MICRO, num_classes=3)
    save_pretrained(model, tmp_path)
    state = {name: v for name, v in model.state_dict().items() if name != "head.projection.bias"}
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"head\.projection\.bias is missing in the file"):
        from_pretrained(tmp_path)


def test_class_names_of_another_type_are_rejected(tmp_path: Path) -> None:
    save_pretrained(create_model(MICRO, num_classes=3), tmp_path)
    for names in (5, [1, 2, 3], {"a": 1}):
        (tmp_path / "hiera_video.json").write_text(json.dumps({"class_names": names}))
        with pytest.raises(CheckpointError, match="its class_names are not a list of texts"):
            from_pretrained(tmp_path)
