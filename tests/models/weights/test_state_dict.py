"""State dicts inside checkpoints of many writers (issue I, weights 4)."""

from __future__ import annotations

import logging
from contextlib import suppress

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from hiera_video.errors import CheckpointError
from hiera_video.models.factory import create_model
from hiera_video.models.hiera import Hiera
from hiera_video.models.weights.convert import adapt_state_dict
from hiera_video.models.weights.state_dict import extract_state_dict

NAME = "hiera_micro_16x32"
PATCHES = "patch_embed.proj.weight"


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return create_model(NAME, num_classes=5).state_dict()


def equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.parametrize(
    "key", ["model_state", "state_dict", "model_state_dict", "model", "module", "model_ema", "net"]
)
def test_nested_states_are_found(state, key):
    contents = {"epoch": 3, key: {**state, "step": 4}, "optimizer_state": {"state": {0: {}}}}
    found = extract_state_dict(contents, "x")
    assert found.keys() == state.keys() and equal(found, state)


@pytest.mark.parametrize(
    "prefix",
    [
        *("module._orig_mod.", "model.", "_orig_mod.", "model.module.", "backbone.", "encoder."),
        *("module.backbone.", "model.encoder.", "model_ema.module.", "student.net."),
    ],
)
def test_prefixes_are_removed(state, prefix):
    found = extract_state_dict({prefix + name: value for name, value in state.items()}, "x")
    assert found.keys() == state.keys() and equal(found, state)


def test_wrappers_of_single_blocks_and_of_the_whole_model(state):
    model = create_model(NAME, num_classes=5)
    model.load_state_dict(state)
    averaged = {
        name.replace("blocks.1.", "blocks.1._checkpoint_wrapped_module.").replace(
            "blocks.2.", "blocks.2._orig_mod."
        ): value
        for name, value in AveragedModel(nn.DataParallel(model)).state_dict().items()
    }
    assert "module.module.blocks.2._orig_mod.norm1.weight" in averaged
    found = extract_state_dict(averaged, "x")
    assert found.keys() == state.keys() | {"n_averaged"} and equal(found, state)


def test_a_stray_tensor_is_dropped_and_logged(state, tmp_path, caplog):
    wrapped = {f"module.{name}": value for name, value in state.items()}
    torch.save({**wrapped, "queue": torch.zeros(3)}, tmp_path / "x.pth")
    with caplog.at_level(logging.INFO, logger="hiera_video"):
        model = create_model(NAME, pretrained=str(tmp_path / "x.pth"))
    assert equal(model.state_dict(), state)
    assert "none newly initialised" not in caplog.text and "dropped: queue" in caplog.text


def test_a_head_beside_the_backbone_is_found(state):
    split = {
        name if name.startswith("head.") else f"backbone.{name}": value
        for name, value in state.items()
    }
    assert equal(extract_state_dict(split, "x"), state)
    deeper = {f"model.{name}": value for name, value in split.items()}
    assert equal(extract_state_dict(deeper, "x"), state)


def test_the_model_is_preferred_to_its_moving_average(state, caplog):
    other = {name: value + 1 for name, value in state.items()}
    with caplog.at_level(logging.INFO, logger="hiera_video"):
        assert equal(extract_state_dict({"model_ema": other, "model": state}, "x.pth"), state)
    assert "x.pth: model_ema is not used" in caplog.text
    flat = {f"model.{name}": value for name, value in state.items()}
    flat |= {f"model_ema.{name}": value for name, value in other.items()}
    assert equal(extract_state_dict(flat, "x"), state)


def test_two_models_are_an_error(state):
    words = (
        r"x\.pth: contains 2 models, student, teacher; save the one to load in a file of its own"
    )
    with pytest.raises(CheckpointError, match=words):
        extract_state_dict({"student": state, "teacher": state}, "x.pth")


@pytest.mark.parametrize(
    "contents",
    [
        *({}, {"epoch": 3}, [1, 2], torch.zeros(3), {"model_state": {}}, None, "text"),
        *({0: torch.zeros(1)}, {"model": {0: torch.zeros(1)}}, {"model": {"a": {"b": 1}}}),
    ],
)
def test_missing_weights_are_rejected(contents):
    with pytest.raises(
        CheckpointError, match=r"x.pth: contains no weights; expected tensors by name"
    ):
        extract_state_dict(contents, "x.pth")


def test_integer_keys_beside_names_are_ignored(state):
    assert equal(extract_state_dict({**state, 0: torch.zeros(1), None: 1}, "x"), state)


def test_tensors_without_plain_values_are_rejected(state):
    for value, words in (
        (state[PATCHES].to_sparse(), "is sparse or quantised; save plain tensors"),
        (state[PATCHES].to("meta"), "has no values; save plain tensors"),
    ):
        with pytest.raises(CheckpointError, match=rf"x: patch_embed\.proj\.weight {words}"):
            extract_state_dict({**state, PATCHES: value}, "x")


def test_integer_weights_are_rejected(state, tmp_path):
    name = "blocks.0.mlp.fc1.weight"
    torch.save({**state, name: state[name].to(torch.int8)}, tmp_path / "x.pth")
    words = r"blocks\.0\.mlp\.fc1\.weight is torch\.int8; quantised weights do not load"
    with pytest.raises(CheckpointError, match=words):
        create_model(NAME, pretrained=str(tmp_path / "x.pth"))


@pytest.mark.parametrize(
    "shape", [(), (0,), (3,), (2, 2), (2, 7, 8), (1, 2, 3, 4), (1,) * 6], ids=str
)
def test_tensors_of_any_shape_are_one_line_errors(shape):
    """Every tensor in turn, of a plain model and of timm's and transformers' names."""
    video, mae = create_model(NAME, num_classes=5), create_model(f"mae_{NAME}")
    flat = {"pos_embed": torch.zeros(1, 4, 3, 3), "pos_embed_win": torch.zeros(1, 4, 8, 8)}
    for model in (video, mae):
        state = model.state_dict()
        layer = {"blocks.0.ls1.gamma": torch.ones(64), "pos_embed_win": torch.zeros(1, 4, 8, 8)}
        for name in {**state, **flat, **layer}:
            damaged = {**state, **(flat if name in flat else {}), name: torch.zeros(shape)}
            for target in (video, mae):
                if state.get(name, flat["pos_embed"]).shape != shape:
                    with suppress(CheckpointError):
                        adapt_state_dict(extract_state_dict(damaged, "x"), target, "x")
    words = r"x: pos_embed_spatial is \[.*\], which is no shape of Hiera's; the file is damaged"
    damaged = {**video.state_dict(), "pos_embed_spatial": torch.zeros(shape)}
    with pytest.raises(CheckpointError, match=words):
        extract_state_dict(damaged, "x")


def test_a_classifier_in_wrapped_names_gives_equal_logits(state, tmp_path):
    model = create_model(NAME, num_classes=5).eval()
    assert isinstance(model, Hiera)
    torch.save({f"encoder.{n}": v for n, v in model.state_dict().items()}, tmp_path / "x.pth")
    again = create_model(NAME, pretrained=str(tmp_path / "x.pth")).eval()
    clips = torch.randn(1, 3, 16, 32, 32)
    with torch.no_grad():
        assert torch.equal(again(clips), model(clips))
