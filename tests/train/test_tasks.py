"""Tasks: the arithmetic of the loss, and random numbers of seed, step and position."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hiera_video.data.config import AugmentConfig
from hiera_video.data.loading.loader import ClipBatch
from hiera_video.errors import ConfigError
from hiera_video.models.factory import create_model
from hiera_video.models.mae import MaskedAutoencoderHiera
from hiera_video.models.registry import MaeConfig
from hiera_video.train.context import StepContext
from hiera_video.train.tasks import (
    Classify,
    Pretrain,
    Task,
    TaskOutput,
    class_weights,
    collapse_monitors,
)


class Fixed(nn.Module):
    """Returns given logits and records its input."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, clips: Tensor, path_draws: Tensor) -> Tensor:
        self.clips = clips
        return self.logits


def batch(labels: Tensor, position: list[int] | None = None) -> ClipBatch:
    count = len(labels)
    places = torch.tensor(position or list(range(count)))
    clips = torch.stack(
        [torch.full((3, 16, 32, 32), float(place) / 10) for place in places.tolist()]
    )
    return ClipBatch(
        clips=clips,
        labels=labels,
        row=places,
        view=torch.zeros(count).long(),
        position=places,
        substituted=(),
    )


def classify(multi_label: bool = False, **augment: float) -> Classify:
    config = AugmentConfig(**augment)  # type: ignore[arg-type]
    return Classify(num_classes=2, multi_label=multi_label, augment=config)


def run(task: Task, model: nn.Module, clips: ClipBatch, step: int = 0) -> TaskOutput:
    cpu = torch.device("cpu")
    return task(model, clips, StepContext(0, step, clips.position, depth=4, device=cpu))


def test_cross_entropy_with_label_smoothing() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 0.0]])
    output = run(classify(label_smoothing=0.1), Fixed(logits), batch(torch.tensor([0, 1])))
    log_p = logits.log_softmax(dim=1)
    expected = (
        -(0.95 * log_p[0, 0] + 0.05 * log_p[0, 1] + 0.05 * log_p[1, 0] + 0.95 * log_p[1, 1]) / 2
    )
    assert output.loss.item() == pytest.approx(expected.item())
    value, count = output.logs["top1"]
    assert (int(value), count) == (1, 2)


def test_binary_cross_entropy_for_several_labels() -> None:
    logits = torch.tensor([[2.0, -1.0]])
    output = run(classify(multi_label=True), Fixed(logits), batch(torch.tensor([[1.0, 1.0]])))
    assert output.loss.item() == pytest.approx((-logits.sigmoid().log()).mean().item())


def test_class_weights_are_inverse_frequencies() -> None:
    # 4 and 2 of 6 videos; class 2 has none
    assert class_weights([0, 0, 0, 0, 1, 1], 3, multi_label=False) == (0.75, 1.5, 0.0)
    assert class_weights([(0,), (0, 1), (0,), ()], 2, multi_label=True) == (1 / 3, 3.0)


def test_weighted_losses() -> None:
    logits, labels = torch.tensor([[2.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 1])
    log_p = logits.log_softmax(dim=1)
    task = replace(classify(), class_weights=(0.5, 3.0))
    output = run(task, Fixed(logits), batch(labels))
    assert output.loss.item() == pytest.approx(-(0.5 * log_p[0, 0] + 3 * log_p[1, 1]).item() / 2)
    logits = torch.tensor([[2.0, -1.0]])
    several = replace(classify(multi_label=True), class_weights=(0.5, 3.0))
    output = run(several, Fixed(logits), batch(torch.tensor([[1.0, 0.0]])))
    expected = -(0.5 * logits[0, 0].sigmoid().log() + (-logits[0, 1]).sigmoid().log()) / 2
    assert output.loss.item() == pytest.approx(expected.item())


@pytest.mark.parametrize("multi_label", [False, True])
def test_losses_are_not_rounded_by_autocast(multi_label: bool) -> None:
    torch.manual_seed(0)
    task = replace(classify(multi_label, label_smoothing=0.1), class_weights=(0.7, 3.1))
    labels = torch.rand(4, 2).round() if multi_label else torch.tensor([0, 1, 0, 1])
    model = Fixed(torch.randn(4, 2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = run(task, model, batch(labels)).loss
    assert loss.dtype == torch.float32 and loss == run(task, model, batch(labels)).loss


@pytest.mark.parametrize(
    ("loss", "logs", "words"),
    [
        (torch.ones(3), {}, "the loss is a Tensor of shape (3,); must be a tensor of one number"),
        (0.5, {}, "the loss is a float; must be a tensor of one number, as loss.mean()"),
        (torch.ones(()), {"top1": 1.0}, "'top1' is a float; must be (sum, count), a tensor and"),
        (torch.ones(()), {"top1": (1.0, 2)}, "'top1' is a tuple; must be (sum, count)"),
    ],
)
def test_outputs_of_a_task_are_checked(loss: Any, logs: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        TaskOutput(loss, logs)


def test_mixed_batches_log_no_accuracy_and_depend_on_the_step() -> None:
    task, model = classify(mixup=0.8), Fixed(torch.zeros(4, 2))
    outputs = [run(task, model, batch(torch.tensor([0, 1, 0, 1])), step) for step in (3, 3)]
    first = model.clips
    run(task, model, batch(torch.tensor([0, 1, 0, 1])), 4)
    assert outputs[0].logs == {} and not torch.equal(model.clips, first)
    # mirrored partners: clips 0 and 3 are mixed with the same share
    means = first.mean(dim=(1, 2, 3, 4))
    assert (means[0] + means[3]).item() == pytest.approx(0.3)
    assert (means[1] + means[2]).item() == pytest.approx(0.3)


def test_pretraining_hides_the_same_units_however_the_batch_is_split() -> None:
    torch.manual_seed(0)
    model = create_model(
        "mae_hiera_micro_16x32",
        mae=MaeConfig(mask_ratio=0.75, decoder_embed_dim=32, decoder_depth=1, decoder_num_heads=2),
    )
    assert isinstance(model, MaskedAutoencoderHiera)
    task = Pretrain(draw_keep=model.draw_keep, tokens=model.unit_tokens.numel())
    labels = torch.zeros(4, dtype=torch.int64)
    keeps: list[Tensor] = []
    model.register_forward_hook(lambda module, inputs, output: keeps.append(output.keep))
    full = run(task, model, batch(labels), 5)
    parts = [run(task, model, batch(labels[:2], position), 5) for position in ([0, 3], [1, 2])]
    assert torch.equal(keeps[1], keeps[0][[0, 3]]) and torch.equal(keeps[2], keeps[0][[1, 2]])
    assert sum(part.loss.item() for part in parts) / 2 == pytest.approx(full.loss.item(), rel=1e-5)
    assert set(full.logs) == {"feature_std", "effective_rank"}


def test_collapse_monitors() -> None:
    torch.manual_seed(0)
    std, rank = collapse_monitors(torch.randn(16, 512, 8))
    assert std.item() == pytest.approx(1, abs=0.05) and rank.item() == pytest.approx(8, abs=0.1)
    direction = torch.randn(8)
    assert collapse_monitors(torch.randn(16, 512, 1) * direction)[1].item() == pytest.approx(
        1, abs=1e-3
    )
    assert collapse_monitors(torch.ones(2, 3, 4))[0].item() == 0
    # sums over a hundred thousand tokens overflow fp16
    with torch.autocast("cpu", dtype=torch.float16):
        std, rank = collapse_monitors(torch.randn(64, 1568, 8))
    assert std.item() == pytest.approx(1, abs=0.01) and rank.item() == pytest.approx(8, abs=0.1)
