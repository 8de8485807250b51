"""Training and testing from the command line: files that a run leaves, exit codes, errors."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hiera_video.runtime.log import read_metrics

CONFIG = "configs/motion_hiera_micro.yaml"
SCRIPTS = [path.name for path in (Path(__file__).parents[2] / "tools").glob("*.py")]


@pytest.fixture(scope="module")
def trained(videos: Path, tmp_path_factory: pytest.TempPathFactory, tool: Any) -> Path:
    """A run of one epoch of three steps, with two loader workers."""
    run = tmp_path_factory.mktemp("trained") / "run"
    lists = (f"data.train={videos / 'train.csv'}", f"data.val={videos / 'val.csv'}")
    options = (f"out_dir={run}", "train.epochs=1", "train.batch_size=4", "data.workers=2")
    done = tool("train_net.py", "--cfg", CONFIG, *lists, *options)
    assert done.returncode == 0, done.stderr
    assert "epoch 1/1 step 3/3" in done.stderr and "epoch 1 validation: top1 " in done.stderr
    return run


def test_files_of_a_run(trained: Path) -> None:
    expected = {"config.yaml", "env.json", "metrics.jsonl", "tensorboard", "checkpoints"}
    assert expected <= {path.name for path in trained.iterdir()}
    (row,) = (row for row in read_metrics(trained / "metrics.jsonl") if row["split"] == "val")
    assert 0 < row["loss"] < 10 and row["of"] == 6
    meta = json.loads((trained / "checkpoints" / "best" / "meta.json").read_text())
    assert meta["class_names"] == ["to the right", "to the left"] and meta["step"] == 3


def test_multi_view_test_with_an_unreadable_video(
    trained: Path, videos: Path, tool: Any, tmp_path: Path
) -> None:
    lines = (videos / "val.csv").read_text().splitlines()
    for line in lines:
        shutil.copy(videos / line.split()[0], tmp_path)
    (tmp_path / lines[2].split()[0]).write_bytes(b"no video at all")
    listing = tmp_path / "val.csv"
    listing.write_text("\n".join(lines))
    (trained / "results.json").unlink(missing_ok=True)  # of another list
    results = []
    for _ in range(2):
        options = (f"data.test={listing}", f"out_dir={trained}", "test.batch_size=4")
        views = ("test.clips=2", "test.crops=3", "data.workers=0")
        done = tool("test_net.py", "--cfg", CONFIG, *options, *views)
        assert done.returncode == 3, done.stderr  # one of six is over the limit of 5 %
        assert "(evaluated 5 of 6)" in done.stderr
        assert "1 unreadable video: more than test.max_broken=0.05" in done.stderr
        results.append((trained / "results.json").read_bytes())
    assert results[0] == results[1]
    found = json.loads(results[0])
    assert found["evaluated"] == 5 and found["of"] == 6 and found["views"] == "2×3"
    assert [item["row"] for item in found["broken"]] == [2] and found["chosen_here"] is False
    arrays = np.load(trained / "predictions.npz")
    assert arrays["rows"].tolist() == [0, 1, 3, 4, 5] and arrays["logits"].shape == (5, 6, 2)
    with (trained / "predictions.csv").open() as file:
        answers = list(csv.DictReader(file))
    correct = sum(row["label"] == row["answer"] for row in answers)
    assert found["top1"] == pytest.approx(100 * correct / 5)
    page = (trained / "report.html").read_text()
    assert "5</b>of 6 videos evaluated" in page
    assert page.count("<figure") == 5 and "http" not in page


@pytest.mark.parametrize(
    ("checkpoint", "chosen"),
    [(None, True), ("{run}", True), ("{run}/checkpoints/last", False)],
    ids=["best", "run", "last"],
)
def test_selection_on_the_tested_list_is_reported(
    trained: Path, videos: Path, tool: Any, checkpoint: str | None, chosen: bool
) -> None:
    (trained / "results.json").unlink(missing_ok=True)  # of another list
    given = [f"test.checkpoint={checkpoint.format(run=trained)}"] if checkpoint else []
    options = (f"data.val={videos / 'val.csv'}", f"out_dir={trained}", *given)
    done = tool("test_net.py", "--cfg", CONFIG, *options, "test.clips=1", "test.crops=1")
    assert done.returncode == 0
    assert json.loads((trained / "results.json").read_text())["chosen_here"] is chosen


@pytest.mark.parametrize(
    ("edit", "chosen"),
    [(sorted, True), (lambda lines: lines[1:], False)],
    ids=["another order", "fewer videos"],
)
def test_selection_is_decided_by_the_videos_of_the_validation_list(
    trained: Path, videos: Path, tool: Any, edit: Any, chosen: bool
) -> None:
    """Issue I, 3.2: the test's configuration decided, wrong both ways."""
    lines = (videos / "val.csv").read_text().splitlines(keepends=True)
    (trained / "results.json").unlink(missing_ok=True)  # of another list
    listing = trained / "other.csv"
    listing.write_text("".join(reversed(edit(lines))))
    names = (f"data.test={listing}", f"data.val={videos / 'train.csv' if chosen else listing}")
    options = (*names, f"data.root={videos}", f"out_dir={trained}", "test.clips=1", "test.crops=1")
    done = tool("test_net.py", "--cfg", CONFIG, *options)
    assert done.returncode == 0, done.stderr
    assert ("was selected by its accuracy on the same list" in done.stderr) is chosen
    assert json.loads((trained / "results.json").read_text())["chosen_here"] is chosen


def test_a_run_is_tested_by_its_folder_and_a_second_list_gets_its_own(
    trained: Path, videos: Path, tool: Any, tmp_path: Path
) -> None:
    """Issue I, section 5."""
    run = tmp_path / "moved"
    shutil.copytree(trained, run, symlinks=True)
    (run / "results.json").unlink(missing_ok=True)
    views = ("test.clips=1", "test.crops=1", "data.workers=0")
    done = tool("test_net.py", "--run", str(run), *views)
    assert done.returncode == 0, done.stderr
    assert f"report: {run}/report.html" in done.stderr
    first = (run / "results.json").read_bytes()
    assert json.loads(first)["checkpoint"] == f"{run}/checkpoints/best"
    other = (f"data.test={videos / 'train.csv'}", "--checkpoint", "last")
    done = tool("test_net.py", "--run", str(run), *views, *other)
    assert done.returncode == 0, done.stderr
    assert f"report: {run}/test_train/report.html" in done.stderr
    assert (run / "results.json").read_bytes() == first
    second = json.loads((run / "test_train" / "results.json").read_text())
    assert second["of"] == 12 and second["checkpoint"] == f"{run}/checkpoints/last"
    namesake = tmp_path / "train.csv"
    shutil.copy(videos / "train.csv", namesake)
    done = tool(
        "test_net.py", "--run", str(run), *views, f"data.test={namesake}", f"data.root={videos}"
    )
    assert f"report: {run}/test_train_2/report.html" in done.stderr, done.stderr
    done = tool("test_net.py", "--run", str(videos))
    assert done.returncode == 2
    assert f"--run {videos}: contains no config.yaml; give the out_dir of a run" in done.stderr


def test_dry_run_of_a_recipe_writes_nothing(videos: Path, tool: Any, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for number in range(2):  # unlabelled, and fewer videos than the recipe's batch
        shutil.copy(videos / f"train_{number}.mp4", folder)
    options = (f"data.train={folder}", "clip.repeats=1", f"out_dir={tmp_path / 'run'}")
    done = tool("train_net.py", "--cfg", "configs/k400_hiera_t.yaml", "--dry-run", *options)
    assert done.returncode == 0, done.stderr
    assert "warning: model.pretrained is not set" in done.stderr
    assert "input [3, 16, 224, 224], 27.48 M parameters, 50.9" in done.stderr
    assert "400 classes" in done.stderr
    assert done.stderr.count("clips [1, 3, 16, 224, 224], loss ") == 2
    assert "full recipe: 75 × 2 videos, " in done.stderr
    assert not (tmp_path / "run").exists()


def test_dry_run_checks_the_classes_of_the_validation_list(
    videos: Path, tool: Any, tmp_path: Path
) -> None:
    (tmp_path / "val.csv").write_text((videos / "val.csv").read_text())
    (tmp_path / "labels.txt").write_text("to the right\nupwards\n")
    lists = (f"data.train={videos / 'train.csv'}", f"data.val={tmp_path / 'val.csv'}")
    done = tool("train_net.py", "--cfg", CONFIG, "--dry-run", *lists, f"data.root={videos}")
    assert done.returncode == 2, done.stderr
    assert "names classes that" in done.stderr and "does not: 'upwards'" in done.stderr


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.batch_size=13", "the manifest has 12 videos, not enough for one step"),
        ("model.num_classes=1", "labels up to 1, the model has 1 class"),
    ],
)
def test_dry_run_fails_where_the_run_fails(
    videos: Path, tool: Any, tmp_path: Path, override: str, words: str
) -> None:
    """Issue I, 3.4."""
    listing = tmp_path / "train.csv"
    shutil.copy(videos / "train.csv", listing)  # without class names beside it
    options = (f"data.train={listing}", f"data.root={videos}", "data.val=null", override)
    command = ("train_net.py", "--cfg", CONFIG, *options, f"out_dir={tmp_path / 'run'}")
    errors = [tool(*command, *dry) for dry in ((), ("--dry-run",))]
    assert [done.returncode for done in errors] == [2, 2]
    assert all(words in done.stderr.splitlines()[-1] for done in errors)


def test_dry_run_losses_depend_on_the_seed_alone(overrides: list[str], tool: Any) -> None:
    losses = []
    for _ in range(2):
        done = tool("train_net.py", "--cfg", CONFIG, "--dry-run", *overrides)
        losses.append(re.findall(r"step \d: .* loss (\S+),", done.stderr))
    assert losses[0] == losses[1] and len(losses[0]) == 2


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("data.train=nowhere/train.csv", "nowhere/train.csv"),
        ("optim.lrr=1", "unknown key 'optim.lrr'; did you mean 'optim.lr'?"),
        ("model.input_size=[16,225,225]", "the nearest that fit are"),
        ("data.train=null", "data.train is not set; "),
        ("model.pretrained=null", f"model.pretrained is not set: {CONFIG} starts from pre-trained"),
        ("model.num_classes=1", "names 2 classes, but model.num_classes=1; set model.num_classes"),
        ("train.batch_size=100", "train.batch_size=100"),
    ],
)
def test_a_wrong_value_is_one_line_and_exit_code_2(
    argument: str, words: str, overrides: list[str], tool: Any, tmp_path: Path
) -> None:
    done = tool("train_net.py", "--cfg", CONFIG, *overrides, argument)
    assert done.returncode == 2, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and words in errors[0]
    assert not list((tmp_path / "run").glob("checkpoints/*"))


def test_bad_lines_and_unreadable_videos_are_named(
    overrides: list[str], videos: Path, tool: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for number in range(4):
        shutil.copy(videos / f"train_{number}.mp4", folder)
    manifest = folder / "train.csv"
    common = ("train_net.py", "--cfg", CONFIG, *overrides, f"data.train={manifest}")
    manifest.write_text("train_0.mp4 0\ntrain_1.mp4 minus-one\n")
    done = tool(*common)
    assert done.returncode == 2 and f"{manifest}:2" in done.stderr and "minus-one" in done.stderr
    manifest.write_text("".join(f"train_{number}.mp4 {number % 2}\n" for number in range(4)))
    (folder / "train_2.mp4").write_bytes(b"no video")
    done = tool(*common, "data.on_broken=error")
    assert done.returncode == 2 and "train_2.mp4" in done.stderr
    done = tool(*common, "train.epochs=1")
    assert done.returncode == 3
    assert re.search(r"train_2.mp4: .*\(container\)", done.stderr)
    assert "data.max_broken=0.05" in done.stderr and "hiera-video check-data" in done.stderr
    done = tool(*common, "train.epochs=1", "data.max_broken=0.5")
    assert done.returncode == 0, done.stderr  # resumed with a higher limit


def test_testing_without_a_checkpoint(overrides: list[str], tool: Any) -> None:
    done = tool("test_net.py", "--cfg", CONFIG, *overrides)
    assert done.returncode == 2 and "run: no such " in done.stderr


@pytest.mark.parametrize("name", ["train_net.py", "test_net.py", "launch_slurm.py"])
def test_options_may_stand_between_keys(name: str, tool: Any) -> None:
    done = tool(name, "--cfg", CONFIG, "optim.lr=1e-3", "--dry-run", "optim.lrr=1")
    assert done.returncode == 2 and "unknown key 'optim.lrr'" in done.stderr, done.stderr


def test_options_may_stand_between_videos(tool: Any) -> None:
    done = tool("predict.py", "a.mp4", "--run", "nowhere", "b.mp4")
    assert done.returncode == 2 and done.stderr.startswith("error: "), done.stderr


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_start_without_torch(name: str, launch: Any) -> None:
    """Each `tools/*.py`, launched: `--help` and errors answer before torch is imported."""
    done = launch(name, "--help")
    assert done.returncode == 0 and "usage: hiera-video " in done.stdout, done.stderr
    done = launch(name, "--no-such-option")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    done = launch(name, "--help", env={**os.environ, "PYTHONPROFILEIMPORTTIME": "1"})
    assert not re.search(r"\| +torch$", done.stderr, flags=re.MULTILINE)
