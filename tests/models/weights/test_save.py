"""Saved folders load in `hiera-transformer`."""

from __future__ import annotations

import json
from unittest import mock

import pytest
import torch
from safetensors import SafetensorError

from hiera_video.errors import CheckpointError
from hiera_video.models.factory import create_model
from hiera_video.models.lora import add_adapters
from hiera_video.models.registry import MaeConfig
from hiera_video.models.weights.load import from_pretrained, read_weights
from hiera_video.models.weights.save import save_pretrained


@torch.no_grad()
def spread(model):
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.normal_(std=0.05)
    return model.eval()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "size"), [("hiera_micro_16x32", (16, 32, 32)), ("hiera_tiny_224", (64, 64))]
)
def test_classifier_loads_in_hiera_transformer(name, size, tmp_path):
    import hiera

    model = spread(create_model(name, input_size=size, num_classes=7))
    theirs = hiera.Hiera.from_pretrained(str(save_pretrained(model, tmp_path))).eval()
    clips = torch.randn(1, 3, *size)
    with torch.no_grad():
        assert torch.allclose(theirs(clips), model(clips).softmax(-1), atol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_autoencoder_loads_in_hiera_transformer(tmp_path):
    from hiera.hiera_mae import MaskedAutoencoderHiera

    mae = MaeConfig(decoder_embed_dim=64, decoder_depth=2, decoder_num_heads=8)
    model = spread(create_model("mae_hiera_micro_16x32", mae=mae))
    theirs = MaskedAutoencoderHiera.from_pretrained(str(save_pretrained(model, tmp_path))).eval()
    clips, keep = torch.randn(1, 3, 16, 32, 32), model.draw_keep(1)
    with torch.no_grad():
        assert abs(theirs(clips, mask=keep)[0] - model(clips, keep=keep).loss) <= 1e-6
    assert theirs.decoder_blocks[0].attn.heads == 8


def test_files_of_a_saved_model(tmp_path):
    model = create_model("hiera_micro_16x32", num_classes=2)
    folder = save_pretrained(model, tmp_path / "a" / "b", class_names=("wave", "Grüße"))
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "config.json",
        "hiera_video.json",
        "model.safetensors",
    ]
    config = json.loads((folder / "config.json").read_text())
    assert (config["input_size"], config["norm_layer"], "init" in config) == (
        [16, 32, 32],
        "LayerNorm",
        False,
    )
    assert read_weights(folder).class_names == ("wave", "Grüße")
    card = (folder / "README.md").read_text()
    assert "CC BY-NC 4.0" in card
    assert (
        "Classifier of 2 classes, input 16 x 32 x 32 (frames, height, width), 1.2 M parameters"
        in card
    )


def test_wrong_names_and_folders_are_rejected(tmp_path):
    model = create_model("hiera_micro_16x32", num_classes=2)
    with pytest.raises(CheckpointError, match="1 class name for 2 classes"):
        save_pretrained(model, tmp_path, class_names=["wave"])
    with pytest.raises(CheckpointError, match="1 class name for no head"):
        save_pretrained(create_model("mae_hiera_micro_16x32"), tmp_path, class_names=["wave"])
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="file: cannot be written"):
        save_pretrained(model, tmp_path / "file")


@pytest.mark.parametrize("part", ["head", "projection", "wider", "block"])
def test_replaced_parts_are_refused(part, tmp_path):
    model = create_model("hiera_micro_16x32", num_classes=5)
    if part == "head":
        model.head = torch.nn.Linear(256, 7)
    elif part == "block":
        model.blocks[0].mlp = torch.nn.Identity()
    else:
        wide = torch.nn.Linear(256, 7)
        model.head.projection = wide if part == "wider" else torch.nn.Sequential(wide)
    words = r"in the model and .* by its configuration, so the folder could not be loaded; change"
    with pytest.raises(CheckpointError, match=words):
        save_pretrained(model, tmp_path / "a")
    assert not (tmp_path / "a").exists()
    model = create_model("hiera_micro_16x32", num_classes=5)
    model.reset_classifier(7)
    loaded = from_pretrained(save_pretrained(model, tmp_path / "a"))
    assert loaded(torch.zeros(1, 3, 16, 32, 32)).shape == (1, 7)


def test_adapters_are_added_to_the_weights(tmp_path):
    torch.manual_seed(0)
    model = create_model("hiera_micro_16x32", num_classes=5).eval()
    add_adapters(model, rank=2)
    for name, weight in model.named_parameters():
        torch.nn.init.normal_(weight, std=0.1) if "lora" in name else None
    clips = torch.randn(1, 3, 16, 32, 32)
    loaded = from_pretrained(save_pretrained(model, tmp_path / "a"))
    torch.testing.assert_close(loaded(clips), model(clips))


def test_wrapped_models(tmp_path):
    model = create_model("hiera_micro_16x32", num_classes=5)
    with pytest.raises(CheckpointError, match="DataParallel: is no model of hiera-video; pass the"):
        save_pretrained(torch.nn.DataParallel(model), tmp_path / "a")
    with pytest.raises(CheckpointError, match="OrderedDict: is no model of hiera-video"):
        save_pretrained(model.state_dict(), tmp_path / "a")
    assert from_pretrained(save_pretrained(torch.compile(model), tmp_path / "a"))


def test_full_disk_raises_a_checkpoint_error(tmp_path):
    model = create_model("hiera_micro_16x32", num_classes=2)
    full = SafetensorError(
        "Error while serializing: I/O error: No space left on device (os error 28)"
    )
    with (
        mock.patch("hiera_video.models.weights.save.save_file", side_effect=full),
        pytest.raises(CheckpointError, match=r"a: cannot be written \(.*No space left on device"),
    ):
        save_pretrained(model, tmp_path / "a")


def test_class_names_that_are_not_utf_8(tmp_path):
    """I 4.3"""
    model = create_model("hiera_micro_16x32", num_classes=2)
    folder = save_pretrained(model, tmp_path, class_names=["caf\udce9", "é"])
    assert read_weights(str(folder), "hiera_micro_16x32").class_names == ("caf\udce9", "é")
