"""Averaged weights: their arithmetic, which checkpoints hold them, and resuming with them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

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
