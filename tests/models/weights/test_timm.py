"""timm's image Hiera loads with equal logits (issue I, weights 1)."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from hiera_video.errors import CheckpointError
from hiera_video.models.factory import create_model
from hiera_video.models.hiera import Hiera
from hiera_video.models.registry import config_for
from hiera_video.models.weights.load import from_pretrained, load_pretrained

SMALL: dict[str, Any] = {"embed_dim": 32, "stages": (1, 2, 1, 1)}


@pytest.fixture(autouse=True)
def _no_warnings() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # timm's import beside hiera-transformer
        yield


@torch.no_grad()
def redraw(model: nn.Module) -> nn.Module:
    """Redraw every parameter: timm's initial logits are almost zero."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def build(**options: Any) -> nn.Module:
    from timm.models.hiera import Hiera as TimmHiera

    return redraw(TimmHiera(**SMALL, num_classes=7, **options).double())


def ours_for(size: int, num_classes: int = 7) -> Hiera:
    config = config_for("hiera_tiny_224", input_size=(size, size), num_classes=num_classes)
    return Hiera(replace(config, **SMALL)).double().eval()


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="plain"),
        pytest.param({"abs_win_pos_embed": True, "global_pos_size": (3, 3)}, id="abswin"),
        pytest.param({"init_values": 0.5}, id="layer-scale"),
    ],
)
@pytest.mark.parametrize("size", [64, 96])
def test_logits_equal_timms(options: dict[str, Any], size: int, tmp_path: Path) -> None:
    theirs = build(img_size=(size, size), **options)
    torch.save({"state_dict": theirs.state_dict()}, tmp_path / "x.pth")
    ours = ours_for(size)
    report = load_pretrained(ours, tmp_path / "x.pth")
    assert not report.newly_initialised and not report.dropped
    images = torch.randn(2, 3, size, size, dtype=torch.float64)
    with torch.no_grad():
        expected = theirs(images)
        assert (ours(images) - expected).abs().max() <= 1e-6 < 0.1 < expected.std()


@pytest.mark.parametrize("num_classes", [5, 0])
def test_a_folder_of_timms_loads_by_name_and_without(num_classes: int, tmp_path: Path) -> None:
    import timm
    from timm.models import save_for_hf

    theirs = redraw(timm.create_model("hiera_tiny_224", num_classes=num_classes))
    save_for_hf(theirs, str(tmp_path), safe_serialization=True)
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        expected = theirs(images)
        for model in (
            from_pretrained(tmp_path),
            create_model("hiera_tiny_224", num_classes=num_classes, pretrained=str(tmp_path)),
        ):
            assert (model.eval()(images) - expected).abs().max() <= 1e-6 * expected.abs().max()


def test_window_positions_are_exact_at_another_size(tmp_path: Path) -> None:
    """A table of 64 pixels is composed, not interpolated, for a model of 96."""
    options = {"abs_win_pos_embed": True, "global_pos_size": (3, 3)}
    smaller = build(img_size=(64, 64), **options).state_dict()
    torch.save(smaller, tmp_path / "x.pth")
    theirs = build(img_size=(96, 96), **options)
    theirs.load_state_dict(smaller)
    ours = ours_for(96)
    report = load_pretrained(ours, tmp_path / "x.pth")
    assert report.notes == ("window and global position embeddings added",)
    images = torch.randn(1, 3, 96, 96, dtype=torch.float64)
    with torch.no_grad():
        assert (ours(images) - theirs(images)).abs().max() <= 1e-6


def test_an_image_classifier_gives_a_video_model_its_norm_and_head(tmp_path: Path) -> None:
    theirs = build(img_size=(64, 64), abs_win_pos_embed=True, global_pos_size=(3, 3))
    torch.save(theirs.state_dict(), tmp_path / "x.pth")
    config = config_for("hiera_tiny_16x224", input_size=(4, 64, 64), num_classes=7)
    video = Hiera(replace(config, **SMALL)).double().eval()
    report = load_pretrained(video, tmp_path / "x.pth")
    assert not report.newly_initialised and not report.dropped
    image = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        still = video(image.unsqueeze(2).expand(-1, -1, 4, -1, -1))
        assert (still - theirs(image)).abs().max() <= 1e-6


def test_a_model_that_expands_without_a_projection_is_rejected(tmp_path: Path) -> None:
    torch.save(build(img_size=(64, 64), use_expand_proj=False).state_dict(), tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"x\.pth: lacks blocks\.1\.proj\.weight"):
        load_pretrained(ours_for(64), tmp_path / "x.pth")


def test_a_classifier_without_its_norm_or_head_is_an_error(tmp_path: Path) -> None:
    """A norm and a head by names of another kind are not dropped in silence."""
    state = ours_for(64).state_dict()
    renamed = {name.replace("head.projection.", "cls_head.fc."): v for name, v in state.items()}
    torch.save(renamed, tmp_path / "head.pth")
    words = (
        r"head\.pth: lacks head\.projection\.weight, head\.projection\.bias, but has "
        r"cls_head\.fc\.weight, which may be its norm and head; rename them"
    )
    with pytest.raises(CheckpointError, match=words):
        load_pretrained(ours_for(64), tmp_path / "head.pth")
    norm = {("fc_" + n if n.startswith("norm.") else n): value for n, value in state.items()}
    torch.save(norm, tmp_path / "norm.pth")
    words = r"norm\.pth: lacks norm\.weight, norm\.bias; the checkpoint is incomplete"
    with pytest.raises(CheckpointError, match=words):
        load_pretrained(ours_for(64), tmp_path / "norm.pth")
    encoder = {n: v for n, v in state.items() if not n.startswith(("norm.", "head."))}
    torch.save(encoder, tmp_path / "encoder.pth")  # an encoder alone is no classifier
    report = load_pretrained(ours_for(64), tmp_path / "encoder.pth")
    assert len(report.newly_initialised) == 4
    torch.save({**encoder, "fc_norm.weight": state["norm.weight"]}, tmp_path / "both.pth")
    with pytest.raises(CheckpointError, match=r"lacks norm.weight, .* and 1 more, but has fc_norm"):
        load_pretrained(ours_for(64), tmp_path / "both.pth")


def test_windows_of_another_size_are_rejected(tmp_path: Path) -> None:
    state = build(img_size=(64, 64), abs_win_pos_embed=True, global_pos_size=(3, 3)).state_dict()
    torch.save({**state, "pos_embed_win": torch.zeros(1, 32, 7, 7)}, tmp_path / "x.pth")
    words = r"pos_embed_win is \[1, 32, 7, 7\]; the model's mask units have \[8, 8\] tokens of 32"
    with pytest.raises(CheckpointError, match=words):
        load_pretrained(ours_for(64), tmp_path / "x.pth")
