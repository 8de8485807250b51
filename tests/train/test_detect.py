"""The loss of action detection, by numbers worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hiera_video.data.detection.dataset import BoxBatch, add_whole_boxes
from hiera_video.data.loading.loader import ClipBatch
from hiera_video.train.context import StepContext
from hiera_video.train.detect import DetectActions


class Logits(nn.Module):
    """A model whose logits are its parameter."""

    def __init__(self, logits: list[list[float]]) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits, dtype=torch.float32).reshape(-1, 2))

    def forward(self, clips: Tensor, **kwargs: Any) -> Tensor:
        return self.logits[: len(kwargs["boxes"])]


def batch(clips: int, of_clip: list[int], labels: list[list[float]]) -> BoxBatch:
    numbers = torch.arange(clips)
    return BoxBatch(
        clips=torch.zeros(clips, 1),
        labels=torch.tensor(labels, dtype=torch.float32).reshape(-1, 2),
        row=numbers,
        view=numbers,
        position=numbers,
        substituted=(),
        boxes=torch.tensor([[index, 0, 0, 1, 1] for index in of_clip]).reshape(-1, 5).float(),
        outside=1,
    )


def run(task: DetectActions, logits: list[list[float]], given: BoxBatch) -> Any:
    model = Logits(logits)
    context = StepContext(
        seed=0, step=0, position=given.position, depth=1, device=torch.device("cpu")
    )
    output = task(model, given, context)
    output.loss.backward()  # type: ignore[no-untyped-call]
    return output, model.logits.grad


def test_the_loss_is_the_mean_over_clips_of_the_mean_over_boxes() -> None:
    given = batch(2, [0, 0, 1], [[1, 0], [1, 1], [0, 0]])
    output, gradient = run(DetectActions(), [[0, 0], [50, 50], [0, -50]], given)
    # boxes: ln 2, 0, ln 2 / 2; clips: ln 2 / 2 each
    assert output.loss.item() == pytest.approx(math.log(2) / 2, rel=1e-6)
    # of the first box: (1/2 - 1) / 2 classes / 2 boxes / 2 clips
    assert gradient[0].tolist() == pytest.approx([-0.0625, 0.0625])
    assert {name: (float(total), count) for name, (total, count) in output.logs.items()} == {
        "boxes": (3.0, 2),
        "boxes_outside": (1.0, 2),
    }


def test_the_loss_is_not_rounded_by_autocast() -> None:
    logits = [[0.3, -1.1], [0.7, 2.3], [-0.9, 0.1]]
    given = batch(2, [0, 0, 1], [[1, 0], [1, 1], [0, 0]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded, gradient = run(DetectActions(), logits, given)
    exact, expected = run(DetectActions(), logits, given)
    assert rounded.loss.dtype == torch.float32 and rounded.loss == exact.loss
    assert torch.equal(gradient, expected)


def test_clips_without_boxes_add_nothing() -> None:
    output, gradient = run(DetectActions(), [[0, 0]], batch(2, [], []))
    assert output.loss.item() == 0 and gradient.tolist() == [[0, 0]]
    half, _ = run(DetectActions(), [[0, 0]], batch(2, [1], [[0, 1]]))
    assert half.loss.item() == pytest.approx(math.log(2) / 2)


def test_positives_may_be_weighted() -> None:
    output, _ = run(DetectActions(class_weights=(3.0, 1.0)), [[0, 0]], batch(1, [0], [[1, 1]]))
    assert output.loss.item() == pytest.approx(2 * math.log(2))


def test_boxes_of_a_trial() -> None:
    numbers = torch.arange(2)
    plain = ClipBatch(
        clips=torch.zeros(2, 3, 4, 32, 48),
        labels=torch.tensor([[1.0, 0.0], [0.0, 1.0]]),
        row=numbers,
        view=numbers,
        position=numbers,
        substituted=(),
    )
    found = add_whole_boxes(plain, 2)
    assert found.boxes.tolist() == [[index, 0, 0, 48, 32] for index in (0, 0, 1, 1)]
    assert found.labels.tolist() == [[1, 0], [1, 0], [0, 1], [0, 1]] and found.outside == 0
