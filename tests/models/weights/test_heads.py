"""Classifier heads by other names: MMAction2's is loaded, unknown ones never silently dropped."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hiera_video.errors import CheckpointError
from hiera_video.models.factory import create_model
from hiera_video.models.hiera import Hiera
from hiera_video.models.weights.load import Weights, load_pretrained, read_weights

NAME = "hiera_micro_16x32"
State = dict[str, Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    torch.manual_seed(2)
    return create_model(NAME, num_classes=5).state_dict()


def with_head(state: State, name: str) -> State:
    return {key.replace("head.projection.", name): value for key, value in state.items()}


def test_mmactions_recogniser(state: State, tmp_path: Path) -> None:
    wrapped = {
        key if key.startswith("cls_head.") else f"backbone.{key}": value
        for key, value in with_head(state, "cls_head.fc_cls.").items()
    }
    wrapped["data_preprocessor.mean"] = torch.zeros(3, 1, 1, 1)
    torch.save({"meta": {"epoch": 3}, "state_dict": wrapped}, tmp_path / "x.pth")
    model = create_model(NAME, pretrained=str(tmp_path / "x.pth"))
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    both = wrapped | {"backbone.head.projection.weight": torch.zeros(400, 256)}
    torch.save({"state_dict": both}, tmp_path / "x.pth")
    words = r"x\.pth: has two heads, head\.projection and cls_head\.fc_cls; remove the one that the"
    with pytest.raises(CheckpointError, match=words):
        read_weights(tmp_path / "x.pth")


def test_an_unknown_head_of_other_classes_is_replaced(
    state: State, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save(with_head(state, "classifier.fc."), tmp_path / "x.pth")
    model = create_model(NAME, num_classes=7)
    with caplog.at_level(logging.INFO, logger="hiera_video"):
        report = load_pretrained(model, tmp_path / "x.pth")
    note = "head newly initialised: the file's classifier.fc.weight has 5 classes, the model 7"
    assert report.notes == (note,) and note in caplog.text
    assert report.newly_initialised == ("head.projection.weight", "head.projection.bias")
    assert report.dropped == ("classifier.fc.weight", "classifier.fc.bias")
    assert torch.equal(model.state_dict()["norm.weight"], state["norm.weight"])


def test_an_unknown_head_of_the_models_classes_is_refused(state: State, tmp_path: Path) -> None:
    torch.save(with_head(state, "classifier.fc."), tmp_path / "x.pth")
    assert read_weights(tmp_path / "x.pth").num_classes == 5
    words = (
        r"x\.pth: lacks head\.projection\.weight, head\.projection\.bias, but has "
        r"classifier\.fc\.weight, which may be its norm and head; rename them"
    )
    for classes in (5, None):  # by default the file's own
        with pytest.raises(CheckpointError, match=words):
            create_model(NAME, num_classes=classes, pretrained=str(tmp_path / "x.pth"))
    features = create_model(NAME, num_classes=0, pretrained=str(tmp_path / "x.pth"))
    assert isinstance(features, Hiera) and features.num_classes == 0


def test_an_unknown_head_without_a_norm_is_refused(state: State) -> None:
    bare = {k: v for k, v in with_head(state, "fc.").items() if not k.startswith("norm.")}
    weights = Weights(source="x", state=bare)
    with pytest.raises(CheckpointError, match=r"but has fc\.weight, which may be its norm"):
        load_pretrained(create_model(NAME, num_classes=7), weights)


def test_a_file_without_a_head_gets_a_new_one(state: State) -> None:
    encoder = {name: value for name, value in state.items() if not name.startswith("head.")}
    weights = Weights(source="x", state=encoder)
    assert weights.num_classes is None
    report = load_pretrained(create_model(NAME, num_classes=7), weights)
    assert report.newly_initialised == ("head.projection.weight", "head.projection.bias")
