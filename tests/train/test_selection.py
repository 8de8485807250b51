"""The best checkpoint of a run, and early stopping."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from linear_run import SquaredOutput, linear_state, train
from torch import nn

from hiera_video.errors import ConfigError
from hiera_video.train.checkpoint import CheckpointStore
from hiera_video.train.config import TrainConfig
from hiera_video.train.selection import record_score, should_stop
from hiera_video.train.state import TrainProgress
from hiera_video.train.trainer import DONE


def chosen(scores: list[float], videos: int, **settings: float) -> tuple[int, TrainProgress]:
    """Return the number of the validation whose checkpoint is the best, and the progress."""
    progress, train = TrainProgress(), TrainConfig(**settings)  # type: ignore[arg-type]
    best = [
        number
        for number, score in enumerate(scores)
        if record_score(progress, train, score, {"evaluated": videos})
    ]
    return best[-1], progress


def test_the_first_highest_score_is_the_best() -> None:
    number, progress = chosen([60.0, 90.0, 88.0, 90.0, float("nan")], 96)
    assert (number, progress.best, progress.since_best) == (1, 90.0, 3)


def test_within_the_margin_the_latest_is_the_best() -> None:
    # of 96 videos, 90 % has a standard error of 3.1 points
    number, progress = chosen([60.0, 90.0, 86.9, 86.7, float("nan")], 96, best_margin=1)
    assert (number, progress.best, progress.since_best) == (2, 90.0, 2)
    assert chosen([90.0, 88.0, 86.9, 84.0], 96, best_margin=1)[0] == 2  # it does not slide down
    assert chosen([90.0, 83.8, 83.6], 96, best_margin=2)[0] == 1
    assert chosen([90.0, 88.0], 960, best_margin=1)[0] == 0  # of more videos, it is smaller
    assert chosen([100.0, 98.5], 50, best_margin=1)[0] == 1  # also at 100 %


def test_a_run_that_stays_within_the_margin_does_not_stop() -> None:
    scores = [90.0, 88.0, 89.0, 87.5]
    margin, none = TrainConfig(early_stop=3, best_margin=1), TrainConfig(early_stop=3)
    assert not should_stop(chosen(scores, 96, best_margin=1)[1], margin)
    assert should_stop(chosen(scores, 96)[1], none)


@pytest.mark.parametrize("values", [{"best_margin": -1.0}, {"task": "pretrain", "best_margin": 1}])
def test_invalid_margins(values: dict[str, object]) -> None:
    words = (
        f"train.best_margin={values['best_margin']}: must be 0 or more, and 0 for "
        "train.task=pretrain, whose score is a loss"
    )
    with pytest.raises(ConfigError, match=words):
        TrainConfig(**values)  # type: ignore[arg-type]


def test_the_best_checkpoint_has_the_highest_finite_score_of_the_averaged_weights(
    tmp_path: Path,
) -> None:
    class Scores:
        score, higher_is_better = "top1", True

        def __init__(self) -> None:
            self.values, self.models = iter([float("nan"), 0.5, 0.25]), list[nn.Module]()

        def __call__(self, model: nn.Module) -> dict[str, float]:
            self.models.append(model)
            return {"top1": next(self.values)}

    evaluator, state = Scores(), linear_state(ema=0.9)
    code, _, _ = train(tmp_path, SquaredOutput(), state=state, trainer={"evaluator": evaluator})
    assert code == DONE and state.progress.best == 0.5
    assert (tmp_path / "checkpoints" / "best").resolve().name == "step_00000004"
    assert state.ema and evaluator.models == [state.ema.module] * 3


def test_a_score_where_lower_is_better(tmp_path: Path) -> None:
    class Losses:
        score, higher_is_better = "loss", False

        def __init__(self) -> None:
            self.values = iter([0.5, 0.25, 0.75])

        def __call__(self, model: nn.Module) -> dict[str, float]:
            return {"loss": next(self.values)}

    train(tmp_path, SquaredOutput(), trainer={"evaluator": Losses()})
    assert (tmp_path / "checkpoints" / "best").resolve().name == "step_00000004"


class Top1:
    """An evaluator that returns the given scores in turn."""

    score, higher_is_better = "top1", True

    def __init__(self, *values: float) -> None:
        self.values = iter(values)

    def __call__(self, model: nn.Module) -> dict[str, float]:
        return {"top1": next(self.values), "evaluated": 96}


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (0.5, "Own: returned float; an evaluator must return a dict of numbers by name, such as"),
        ({"loss": 1.0}, "Own: returned no 'top1', its score; an evaluator must return a dict"),
        ({"top1": torch.ones(2)}, "Own: returned Tensor as 'top1'; an evaluator must return"),
        ({"top1": 1.0, "names": ["a"]}, "Own: returned list as 'names'; an evaluator must"),
    ],
)
def test_what_an_evaluator_returns_is_checked(returned: Any, words: str, tmp_path: Path) -> None:
    class Own(Top1):
        def __call__(self, model: nn.Module) -> Any:
            return returned

    with pytest.raises(ConfigError, match=words):
        train(tmp_path, SquaredOutput(), trainer={"evaluator": Own()})


def test_an_evaluator_may_return_tensors_of_one_number(tmp_path: Path) -> None:
    class Own(Top1):
        def __call__(self, model: nn.Module) -> Any:
            return {"top1": torch.tensor(next(self.values)), "of": 96}

    state = linear_state()
    train(
        tmp_path,
        SquaredOutput(),
        state=state,
        trainer={"evaluator": Own(0.5, 0.25, 0.125)},
        best_margin=1.0,
    )
    assert state.progress.best == 0.5


def test_an_evaluator_without_a_score_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="function: has no score; an evaluator needs `score`"):
        train(tmp_path, SquaredOutput(), trainer={"evaluator": lambda model: {"top1": 1.0}})
    assert not (tmp_path / "checkpoints").exists()


def test_a_later_checkpoint_within_the_margin_is_linked_as_the_best(tmp_path: Path) -> None:
    for margin, step in ((0.0, 2), (1.0, 4)):
        state = linear_state()
        train(
            tmp_path / f"{margin}",
            SquaredOutput(),
            state=state,
            trainer={"evaluator": Top1(90.0, 88.0, 80.0)},
            best_margin=margin,
        )
        best = (tmp_path / f"{margin}" / "checkpoints" / "best").resolve()
        assert best.name == f"step_{step:08}" and state.progress.best == 90.0


def test_a_run_stops_after_so_many_validations_without_a_better_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    evaluator, state = Top1(0.3, 0.5, 0.5, 0.4, 0.9), linear_state()
    code, _, history = train(
        tmp_path,
        SquaredOutput(),
        state=state,
        trainer={"evaluator": evaluator},
        epochs=9,
        early_stop=2,
    )
    assert code == DONE and len(history) == 8 and list(evaluator.values) == [0.9]
    assert state.progress == TrainProgress(step=8, best=0.5, since_best=2)
    checkpoints = tmp_path / "checkpoints"
    assert (checkpoints / "best").resolve().name == "step_00000004"
    assert (checkpoints / "last").resolve().name == "step_00000008"
    words = "stopped early after step 8: the last 2 validations were no better"
    assert words in caplog.text


def test_checkpoints_of_some_epochs_only(tmp_path: Path) -> None:
    def steps(folder: str, **settings: Any) -> list[str]:
        train(tmp_path / folder, SquaredOutput(), epochs=7, keep_every=5, **settings)
        return sorted(path.name for path in (tmp_path / folder / "checkpoints").glob("step_*"))

    # the last two that were written; epoch 5 is a milestone
    assert steps("all") == ["step_00000010", "step_00000012", "step_00000014"]
    assert steps("some", save_every=4) == ["step_00000010", "step_00000014"]
    trained = linear_state()
    evaluator = Top1(0.1, 0.2, 0.3)
    settings: dict[str, Any] = {"save_every": 9, "eval_every": 3, "epochs": 7}
    train(
        tmp_path / "val",
        SquaredOutput(),
        state=trained,
        trainer={"evaluator": evaluator},
        **settings,
    )
    found = sorted(path.name for path in (tmp_path / "val" / "checkpoints").glob("step_*"))
    assert found == ["step_00000012", "step_00000014"]  # validated, and the last


def test_a_resumed_run_continues_to_count_its_validations(tmp_path: Path) -> None:
    def run(*scores: float, **state: Any) -> tuple[int, list[torch.Tensor]]:
        code, _, history = train(
            tmp_path,
            SquaredOutput(),
            trainer={"evaluator": Top1(*scores), **state.pop("trainer", {})},
            epochs=9,
            early_stop=3,
            **state,
        )
        return code, history

    assert run(0.5, 0.4, 0.4, trainer={"max_steps": 6})[0] == DONE
    resumed = linear_state()
    found = CheckpointStore(tmp_path / "checkpoints", keep=2).latest()
    assert found is not None
    resumed.load(found)
    assert resumed.progress == TrainProgress(step=6, best=0.5, since_best=2)
    code, history = run(0.1, 0.9, state=resumed)
    assert code == DONE and len(history) == 2 and resumed.progress.since_best == 3
