"""Averaged weights: their arithmetic, which checkpoints hold them, and resuming with them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from hiera_video.errors import CheckpointError
from hiera_video.train.checkpoint import CheckpointStore
from hiera_video.train.state import AveragedWeights, TrainProgress, TrainState


def state(
    width: int = 2,
    ema: float | None = 0.75,
    optimizer: type[torch.optim.Optimizer] = torch.optim.AdamW,
) -> TrainState:
    model = nn.Linear(width, 1, bias=False)
    return TrainState(
        model=model,
        optimizer=optimizer(model.parameters(), lr=0.1),  # type: ignore[call-arg]
        scaler=torch.amp.GradScaler("cpu", enabled=False),
        ema=None if ema is None else AveragedWeights(model, ema),
    )


def set_weights(value: TrainState, number: float) -> None:
    with torch.no_grad():
        value.model.weight.fill_(number)  # type: ignore[operator, union-attr]
    assert value.ema
    value.ema.update(value.model)


def save(value: TrainState, folder: Path) -> CheckpointStore:
    store = CheckpointStore(folder, keep=2)
    store.save(
        value.progress.step, value.weights(), value.training_state(), value.meta(), best=False
    )
    return store


def test_the_average_is_exponential_and_starts_at_the_first_weights() -> None:
    first = state(ema=0.75)
    for number in (4.0, 8.0, 0.0):
        set_weights(first, number)
    # 4, then 0.75·4 + 0.25·8 = 5, then 0.75·5 + 0.25·0 = 3.75
    assert first.weights()["weight"].tolist() == [[3.75, 3.75]]
    assert first.eval_model is not first.model and first.model.weight.tolist() == [[0.0, 0.0]]


def test_a_checkpoint_holds_the_average_and_the_weights_to_resume_with(tmp_path: Path) -> None:
    first = state()
    set_weights(first, 4.0)
    set_weights(first, 8.0)
    first.progress = TrainProgress(step=2, best=0.5)
    found = save(first, tmp_path).latest()
    assert found is not None and found.weights["weight"].tolist() == [[5.0, 5.0]]
    second = state()
    second.load(found)
    assert second.progress == TrainProgress(step=2, best=0.5)
    assert second.model.weight.tolist() == [[8.0, 8.0]]
    for value in (first, second):
        set_weights(value, 0.0)
    assert torch.equal(second.weights()["weight"], first.weights()["weight"])


def test_without_an_average_the_weights_are_those_of_the_model(tmp_path: Path) -> None:
    first = state(ema=None)
    assert first.eval_model is first.model and "model" not in first.training_state()


@pytest.mark.parametrize("other", [{"width": 3}, {"optimizer": torch.optim.SGD}, {"ema": None}])
def test_a_checkpoint_of_another_model_or_optimizer_is_refused(
    tmp_path: Path, other: dict[str, object]
) -> None:
    found = save(state(**other), tmp_path).latest()  # type: ignore[arg-type]
    assert found is not None
    with pytest.raises(
        CheckpointError, match=r"is of another model or optimizer .* choose another out_dir"
    ):
        state().load(found)


def test_averages_equal_those_of_torch() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    ours = AveragedWeights(model, 0.9)
    torchs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))  # type: ignore[no-untyped-call]
    for _ in range(4):
        with torch.no_grad():
            for value in (*model.parameters(), model[1].running_mean):
                value.copy_(torch.randn_like(value))
        ours.update(model)
        torchs.update_parameters(model)
    expected = torchs.module.state_dict()
    assert ours.steps == 4 and len(expected) == 7
    assert all(
        torch.equal(value, expected[name]) for name, value in ours.module.state_dict().items()
    )


@pytest.mark.parametrize("fused", [True, None])
def test_a_checkpoint_of_another_device_keeps_the_kernels_of_this_one(
    tmp_path: Path, fused: bool | None
) -> None:
    """SGD is fused on a GPU only: each resumes the other's runs."""

    def sgd(parameters: Any, lr: float, *, fused: bool | None = fused) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=lr, momentum=0.9, fused=fused)

    other = None if fused else True
    first = state(optimizer=partial(sgd, fused=other))  # type: ignore[arg-type]
    first.model.weight.grad = torch.ones(1, 2)  # type: ignore[union-attr]
    first.optimizer.step()
    found = save(first, tmp_path).latest()
    second = state(optimizer=sgd)  # type: ignore[arg-type]
    assert found is not None
    second.load(found)
    (group,) = second.optimizer.param_groups
    (buffers,) = second.optimizer.state.values()
    assert (group["fused"], group["momentum"]) == (fused, 0.9)
    assert buffers["momentum_buffer"].tolist() == [[1.0, 1.0]]


def test_a_checkpoint_without_momentum_is_filled(tmp_path: Path) -> None:
    """A parameter that has had no gradient has no momentum in the checkpoint."""
    sgd = partial(torch.optim.SGD, momentum=0.9, fused=True)
    found = save(state(optimizer=sgd), tmp_path).latest()  # type: ignore[arg-type]
    second = state(optimizer=sgd)  # type: ignore[arg-type]
    assert found is not None and found.state["optimizer"]["state"] == {}
    second.load(found)
    (buffers,) = second.optimizer.state.values()
    assert buffers["momentum_buffer"].tolist() == [[0.0, 0.0]]


def test_the_scale_of_the_loss() -> None:
    first = state()
    assert first.loss_scale is None
    first.scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    assert first.loss_scale is not None and first.loss_scale.tolist() == 8.0
