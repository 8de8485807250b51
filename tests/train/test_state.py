"""Averaged weights: their arithmetic, where they are kept, and that a run goes on from both kinds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from hiera_video.errors import CheckpointError
from hiera_video.train.checkpoint import CheckpointStore
from hiera_video.train.state import TrainProgress, TrainState, averaged


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
        ema=averaged(model, ema),
    )


def put(value: TrainState, number: float) -> None:
    with torch.no_grad():
        value.model.weight.fill_(number)  # type: ignore[operator, union-attr]
    assert value.ema
    value.ema.update_parameters(value.model)


def saved(value: TrainState, folder: Path) -> CheckpointStore:
    store = CheckpointStore(folder, keep=2)
    store.save(value.progress.step, value.weights(), value.rest(), value.meta(), best=False)
    return store


def test_the_average_is_exponential_and_starts_at_the_first_weights() -> None:
    here = state(ema=0.75)
    for number in (4.0, 8.0, 0.0):
        put(here, number)
    # 4, then 0.75·4 + 0.25·8 = 5, then 0.75·5 + 0.25·0 = 3.75
    assert here.weights()["weight"].tolist() == [[3.75, 3.75]]
    assert here.validated is not here.model and here.model.weight.tolist() == [[0.0, 0.0]]


def test_a_checkpoint_holds_the_average_for_users_and_both_to_go_on(tmp_path: Path) -> None:
    here = state()
    put(here, 4.0)
    put(here, 8.0)
    here.progress = TrainProgress(step=2, best=0.5)
    found = saved(here, tmp_path).latest()
    assert found is not None and found.weights["weight"].tolist() == [[5.0, 5.0]]
    there = state()
    there.load(found)
    assert there.progress == TrainProgress(step=2, best=0.5) and there.model.weight.tolist() == [
        [8.0, 8.0]
    ]
    for value in (here, there):
        put(value, 0.0)
    assert torch.equal(there.weights()["weight"], here.weights()["weight"])


def test_without_an_average_the_weights_are_the_models(tmp_path: Path) -> None:
    here = state(ema=None)
    assert here.validated is here.model and "model" not in here.rest()


@pytest.mark.parametrize("other", [{"width": 3}, {"optimizer": torch.optim.SGD}, {"ema": None}])
def test_what_is_of_another_model_or_optimizer_is_refused(
    tmp_path: Path, other: dict[str, object]
) -> None:
    found = saved(state(**other), tmp_path).latest()  # type: ignore[arg-type]
    assert found is not None
    with pytest.raises(
        CheckpointError, match=r"is of another model or optimizer .* choose another out_dir"
    ):
        state().load(found)
