"""The `average` command: the mean of checkpoints, as a folder that loads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import hiera_video as hv
from hiera_video.cli.average import main
from hiera_video.config.load import load_config, save_config
from hiera_video.errors import CheckpointError, ConfigError
from hiera_video.models.hiera import Hiera
from hiera_video.models.weights.save import save_pretrained
from hiera_video.train.checkpoint import CheckpointStore
from hiera_video.workflows.build import make_model

MOTION = Path(__file__).parents[2] / "configs/motion_hiera_micro.yaml"
NAMES = ["to the right", "to the left", "up"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, random_model: Callable[[], Hiera]) -> Path:
    """A run with three checkpoints, whose weights are 1, 2 and 4 times those of one model."""
    folder = tmp_path_factory.mktemp("run")
    save_config(load_config(MOTION, [f"out_dir={folder}"]), folder / "config.yaml")
    store = CheckpointStore(folder / "checkpoints", keep=3)
    meta = {"model": {"num_classes": 3}, "class_names": NAMES}
    for step, factor in enumerate((1, 2, 4), start=1):
        weights = {name: factor * value for name, value in random_model().state_dict().items()}
        store.save(step, weights, {}, meta, best=step == 1)
    return folder


@pytest.mark.parametrize(("last", "mean"), [([], 3.0), (["--last", "3"], 7 / 3)])
def test_the_newest_checkpoints_of_a_run(
    run: Path, random_model: Callable[[], Hiera], tmp_path: Path, last: list[str], mean: float
) -> None:
    output = tmp_path / "mean"
    assert main(["--run", str(run), *last, f"output={output}"]) == 0
    loaded = hv.load(output)
    assert loaded.class_names == tuple(NAMES)
    for name, value in random_model().state_dict().items():
        torch.testing.assert_close(loaded.model.state_dict()[name], mean * value, msg=name)


def test_checkpoints_by_name_and_folders_of_weights(
    run: Path, random_model: Callable[[], Hiera], tmp_path: Path
) -> None:
    other = save_pretrained(random_model(), tmp_path / "other", class_names=NAMES)
    inputs = [f"input={run / 'checkpoints/last'}", f"input={run}", f"input={other}"]
    assert main([*inputs, f"output={tmp_path / 'a'}"]) == 0
    assert main([*reversed(inputs), f"output={tmp_path / 'b'}"]) == 0
    for folder in (tmp_path / "a", tmp_path / "b"):
        weight = hv.from_pretrained(folder).state_dict()["norm.weight"]
        assert weight.tolist() == [2.0] * 256  # of 4, 1 and 1


def test_autoencoders_whose_list_names_classes(tmp_path: Path) -> None:
    """Each of two pre-trainings on lists with other classes: their models have none."""
    inputs = []
    for number, names in enumerate((NAMES, ["up"]), start=1):
        folder = tmp_path / f"run{number}"
        folder.mkdir()
        config = load_config("motion_hiera_micro_mae", [f"out_dir={folder}"])
        save_config(config, folder / "config.yaml")
        model = make_model(config, None, pretrained=None)
        weights = {name: torch.full_like(v, number) for name, v in model.state_dict().items()}
        meta = {"model": {"num_classes": None}, "class_names": names}
        CheckpointStore(folder / "checkpoints", keep=1).save(1, weights, {}, meta, best=True)
        inputs.append(f"input={folder}")
    assert main([*inputs, f"output={tmp_path / 'mean'}"]) == 0
    state = hv.from_pretrained(tmp_path / "mean").state_dict()
    assert {float(value.mean()) for value in state.values()} == {1.5}


def test_files_need_the_name_of_their_model(
    random_model: Callable[[], Hiera], tmp_path: Path
) -> None:
    file = tmp_path / "a.pth"
    torch.save(random_model().state_dict(), file)
    command = [f"input={file}", f"input={file}", f"output={tmp_path / 'mean'}"]
    with pytest.raises(CheckpointError, match="does not describe its model; name it with --model"):
        main(command)
    assert main([*command, "--model", "hiera_micro_16x32"]) == 0
    assert hv.load(tmp_path / "mean").class_names is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--run", "{run}"], "output= is not set; name a folder for the averaged model"),
        (["output=x"], "give either --run DIR or input=WEIGHTS, two or more"),
        (["input=a", "output=x"], "input=a: an average needs two checkpoints or more"),
        (["--run", "{run}", "--last", "1", "output=x"], "--last 1: an average needs two"),
        (["input=a", "input=b", "--last", "2", "output=x"], "--last 2: goes with --run; name the"),
        (["--run", "{run}", "--last", "9", "output=x"], "has 3 checkpoints, --last 9 needs 9; low"),
        (["--run", "{run}", "output={run}"], "is the folder of a run; choose another folder"),
        (["--run", "nowhere", "output=x"], "--run nowhere: contains no config.yaml"),
        (["a", "output=x"], "a: unknown argument; give input=WEIGHTS or --run DIR, and output="),
    ],
)
def test_invalid_arguments(run: Path, arguments: list[str], words: str) -> None:
    with pytest.raises((ConfigError, CheckpointError), match=words):
        main([argument.format(run=run) for argument in arguments])


def test_checkpoints_of_other_classes_or_models_are_refused(
    run: Path, random_model: Callable[[], Hiera], tmp_path: Path
) -> None:
    other = save_pretrained(random_model(), tmp_path / "other", class_names=NAMES)
    command = [f"input={run}", f"input={other}", f"output={tmp_path / 'mean'}"]
    facts = other / "hiera_video.json"
    facts.write_text(json.dumps({**json.loads(facts.read_text()), "class_names": NAMES[::-1]}))
    with pytest.raises(CheckpointError, match=r"has other class names than .*; average ch"):
        main(command)
    model = random_model()
    model.reset_classifier(2)
    save_pretrained(model, other)
    words = r"head.projection.bias is \[2\], in .* \[3\]; average checkpoints of one model"
    with pytest.raises(CheckpointError, match=words):
        main(command)
