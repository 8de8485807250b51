"""The action detector: boxes of the last map, as in torchvision's RoIAlign."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from hiera_video.errors import InputSizeError
from hiera_video.models.detection import HieraDetector
from hiera_video.models.factory import create_model
from hiera_video.models.registry import config_for
from hiera_video.models.weights.load import load_pretrained


def detector(num_classes: int = 5, size: int = 64) -> HieraDetector:
    """A model of random weights whose outputs differ visibly."""
    torch.manual_seed(0)
    model = HieraDetector(
        config_for("hiera_micro_16x32", input_size=(4, size, size), num_classes=num_classes)
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.1)
    return model.eval()


@pytest.fixture(scope="module")
def model() -> HieraDetector:
    return detector()


@pytest.fixture(scope="module")
def clips() -> Tensor:
    return torch.randn(2, 3, 4, 64, 64, generator=torch.Generator().manual_seed(0))


def test_any_number_of_boxes(model: HieraDetector, clips: Tensor) -> None:
    boxes = torch.tensor([[1, 0, 0, 32, 32], [0, 16, 16, 64, 64], [1, 8, 0, 40, 64]]).float()
    together = model(clips, boxes=boxes)
    assert together.shape == (3, 5)
    for box, logits in zip(boxes, together):
        alone = model(clips[int(box[0])][None], boxes=torch.cat([box[:1] * 0, box[1:]])[None])
        torch.testing.assert_close(alone[0], logits, rtol=1e-5, atol=1e-5)
    assert model(clips, boxes=torch.zeros(0, 5)).shape == (0, 5)
    whole = torch.tensor([[0, 0, 0, 64, 64], [1, 0, 0, 64, 64]]).float()
    torch.testing.assert_close(model(clips), model(clips, boxes=whole))


def test_the_head_takes_the_maximum_of_interpolated_places(
    model: HieraDetector, clips: Tensor
) -> None:
    """A box of 2 places on whose centres all samples fall, worked out without RoIAlign."""
    pixels = model.pixels_per_place
    features = model.norm(model.forward_features(clips)).mean(dim=1)
    # 7 samples from -0.5 + 1/14 to 0.5 - 1/14 around the centre of place 1, clamped neighbours
    edge = torch.tensor([[0, pixels, pixels, 2 * pixels, 2 * pixels]]).float()
    offsets = (torch.arange(7) + 0.5) / 7 - 0.5
    near = features[0, 0:3, 0:3]
    places = []
    for down in offsets.tolist():
        for across in offsets.tolist():
            row, column = 1 + down, 1 + across
            top, left = int(row), int(column)
            y, x = row - top, column - left
            places.append(
                near[top, left] * (1 - y) * (1 - x)
                + near[top, left + 1] * (1 - y) * x
                + near[top + 1, left] * y * (1 - x)
                + near[top + 1, left + 1] * y * x
            )
    expected = model.head(torch.stack(places).amax(dim=0))
    torch.testing.assert_close(model(clips, boxes=edge)[0], expected, rtol=1e-4, atol=1e-5)


def test_gradients_reach_the_backbone(clips: Tensor) -> None:
    model = detector().train()
    boxes = torch.tensor([[0, 0, 0, 32, 32]]).float()
    model(clips, boxes=boxes).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        if not name.endswith("qkv.bias"):
            assert parameter.grad.abs().sum() > 0, name
    model.zero_grad()
    (model(clips, boxes=torch.zeros(0, 5)).sum() * 0).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_moved_box_changes_the_answer(model: HieraDetector, clips: Tensor) -> None:
    boxes = torch.tensor([[0, 0, 0, 24, 24], [0, 40, 40, 64, 64]]).float()
    first, second = model(clips, boxes=boxes)
    assert (first - second).abs().max() > 1e-2


def test_a_mirrored_clip_gives_mirrored_answers(clips: Tensor) -> None:
    """For a model whose kernels and positions are symmetric, as only then mirrors are equal."""
    model = detector()
    side = model.config.token_grid[-1]
    with torch.no_grad():
        kernel = model.patch_embed.proj.weight
        # stride 4, kernel 7, padding 3: the taps of a mirrored place are those of -3 … 3 at 4·i,
        # mirrored at 4·i + 3; only the taps that both have, 0 … 3, may differ from zero
        kernel[..., :3] = 0
        kernel.copy_((kernel + mirror_taps(kernel)) / 2)
        places = model.pos_embed_spatial.view(1, side, side, -1)
        model.pos_embed_spatial.copy_(((places + places.flip(2)) / 2).flatten(1, 2))
    boxes = torch.tensor([[0, 4, 8, 30, 50], [1, 20, 0, 64, 64]]).float()
    mirrored = boxes.clone()
    mirrored[:, 1], mirrored[:, 3] = 64 - boxes[:, 3], 64 - boxes[:, 1]
    before, after = model(clips, boxes=boxes), model(clips.flip(-1), boxes=mirrored)
    assert (before.sigmoid() - after.sigmoid()).abs().max() <= 1e-5
    assert (model(clips.flip(-1), boxes=boxes) - before).abs().max() > 1e-2


def mirror_taps(kernel: Tensor) -> Tensor:
    """Mirror the last four taps of a kernel's width."""
    return torch.cat([kernel[..., :3], kernel[..., 3:].flip(-1)], dim=-1)


def test_a_classifiers_weights_load(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    classifier = create_model("hiera_micro_16x32", num_classes=7, input_size=(4, 64, 64))
    torch.save(classifier.state_dict(), tmp_path / "classifier.pth")
    model = detector(num_classes=5)
    report = load_pretrained(model, tmp_path / "classifier.pth")
    assert report.newly_initialised == ("head.projection.weight", "head.projection.bias")
    assert torch.equal(model.norm.weight, classifier.state_dict()["norm.weight"])
    same = detector(num_classes=7)
    assert load_pretrained(same, tmp_path / "classifier.pth").newly_initialised == ()


def test_layer_decay_covers_every_parameter(model: HieraDetector) -> None:
    levels = {model.layer_id(name) for name, _ in model.named_parameters()}
    assert levels == set(range(model.num_layers + 1))
    assert model.layer_id("head.projection.weight") == model.num_layers


def test_half_precision_keeps_the_edges(model: HieraDetector, clips: Tensor) -> None:
    boxes = torch.tensor([[0, 3.3, 7.7, 41.1, 60.2]])
    with torch.autocast("cpu", torch.bfloat16):
        half = model(clips, boxes=boxes)
    torch.testing.assert_close(half.float(), model(clips, boxes=boxes), rtol=0.1, atol=0.1)


def test_messages(model: HieraDetector, clips: Tensor) -> None:
    with pytest.raises(InputSizeError, match=r"boxes are \[2, 4\]; expected \[N, 5\]: clip, left"):
        model(clips, boxes=torch.zeros(2, 4))
    with pytest.raises(InputSizeError, match=r"=\[224, 224\]: actions are detected in video; cho"):
        HieraDetector(config_for("hiera_tiny_224"))
