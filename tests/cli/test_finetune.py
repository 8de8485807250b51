"""The `finetune` command: lists, plan, training and test, and one line for each bad input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hiera_video.config.load import load_config, save_config
from hiera_video.data.manifest.read import read_manifest
from hiera_video.errors import ConfigError, ManifestError
from hiera_video.video.encode import write_video
from hiera_video.workflows.finetune import closing_lines

MICRO = ("--model", "hiera_micro_16x32", "--checkpoint", "none")
QUICK = ("data.workers=0", "test.clips=1", "test.crops=1")
MOTION = Path(__file__).parents[2] / "configs/motion_hiera_micro.yaml"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 12 videos on different backgrounds; left/0.mp4 and left/copy.mp4 are equal."""
    folder = tmp_path_factory.mktemp("videos")
    generator = np.random.default_rng(0)
    for name, step in (("left", -1), ("right", 1)):
        (folder / name).mkdir()
        for number in range(12 - (name == "left")):
            background = generator.integers(0, 120, (4, 4, 3), dtype=np.uint8)
            frames = np.stack([background.repeat(8, 0).repeat(8, 1)] * 17)
            for time in range(17):
                place = 12 + step * (time - 8)
                frames[time, 8:20, place : place + 8] = 240
            write_video(folder / name / f"{number}.mp4", frames, fps=12)
    shutil.copy(folder / "left/0.mp4", folder / "left/copy.mp4")
    return folder


@pytest.fixture(autouse=True)
def few_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let so few videos choose a checkpoint as these folders have."""
    monkeypatch.setattr("hiera_video.workflows.finetune_recipe.MIN_VALIDATION", 2)


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the pictures of a dry run empty, which takes a tenth of the time."""
    for name in ("augmented_clips", "schedule_plot"):
        monkeypatch.setattr(f"hiera_video.workflows.finetune.{name}", lambda *_: b"")


def finetune(*arguments: object) -> int:
    from hiera_video.cli.finetune import main

    return main([str(argument) for argument in arguments])


def paths_of(run: Path, part: str, root: Path) -> list[str]:
    records = read_manifest(str(run / "lists" / f"{part}.csv"), root=str(root)).records
    return [str(Path(record.path).relative_to(root)) for record in records]


def test_a_dry_run_writes_lists_recipe_and_pictures(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert finetune(folder, *MICRO, f"output={run}", "--dry-run", *QUICK, "train.epochs=7") == 0
    assert sorted(path.name for path in run.iterdir()) == [
        "clips.png",
        "learning_rate.png",
        "lists",
        "recipe.yaml",
    ]
    parts = {part: paths_of(run, part, folder) for part in ("train", "val", "test")}
    assert {part: len(paths) for part, paths in parts.items()} == {
        "train": 16,
        "val": 4,
        "test": 4,
    }
    assert sum("left" in path for path in parts["train"]) == 8
    (same,) = (part for part, paths in parts.items() if "left/0.mp4" in paths)
    assert "left/copy.mp4" in parts[same]
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "model      hiera_micro_16x32 from none"
    assert printed[1] == "videos     16 training, 4 validation, 4 test; 2 classes"
    assert "weights    none: all layers are trained from scratch" in printed
    assert printed[-2].startswith("your keys  data.workers=0") and "nothing trained" in printed[-1]
    recipe = load_config(run / "recipe.yaml")
    assert recipe.data.root == str(folder) and recipe.augment.flip == 0.5
    assert recipe.train.early_stop == 10 and recipe.train.epochs == 7


@pytest.mark.slow
def test_training_ends_with_a_test_of_held_out_videos_and_the_next_commands(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    keys = ("train.epochs=2", "train.batch_size=8")
    command = (folder, *MICRO, f"output={run}", *QUICK, *keys)
    assert finetune(*command) == 0
    results = json.loads((run / "results.json").read_text())
    assert results["evaluated"] == results["of"] == 4 and results["chosen_here"] is False
    assert results["manifest"] == str(run / "lists/test.csv")
    assert results["checkpoint"] == f"{run}/checkpoints/best"
    printed = capsys.readouterr().out.splitlines()
    assert f"report     {run / 'report.html'}" in printed
    held_out = read_manifest(run / "lists/test.csv", root=str(folder)).records[0].path
    assert printed[-3:] == [
        f"  hiera-video predict {held_out} --run {run}",
        f"  hiera-video test --run {run} data.test=LIST data.root=null",
        f"  hiera-video export --run {run} output={run / 'model.pt2'}",
    ]
    assert finetune(*command) == 0  # a finished run is tested again
    config = load_config(run / "config.yaml")
    assert config.train.epochs == 2 and config.optim.warmup_epochs == 0.2


@pytest.mark.usefixtures("no_pictures")
def test_early_stopping_needs_validation_videos(folder: Path, tmp_path: Path) -> None:
    for name in ("left", "right"):
        (tmp_path / "few" / name).mkdir(parents=True)
        for number in range(1, 5):
            shutil.copy(folder / f"{name}/{number}.mp4", tmp_path / "few" / name)
    command = (tmp_path / "few", *MICRO, f"output={tmp_path / 'run'}", "--dry-run", *QUICK)
    words = "train.early_stop=3: needs validation videos, and of so few none are held out; give"
    with pytest.raises(ConfigError, match=words):
        finetune(*command, "train.early_stop=3")


def test_lists_are_kept_and_those_of_other_videos_refused(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = (*MICRO, f"output={run}", "--dry-run", *QUICK)
    finetune(folder, *command)
    listing = run / "lists/train.csv"
    listing.write_text("".join(listing.read_text().splitlines(keepends=True)[1:]))
    finetune(folder, *command)
    assert len(paths_of(run, "train", folder)) == 15
    run = run.rename(tmp_path / "moved")
    command, listing = (*MICRO, f"output={run}", "--dry-run", *QUICK), run / "lists/train.csv"
    finetune(folder, *command)
    assert load_config(run / "recipe.yaml").data.train == str(listing)
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    with pytest.raises(ConfigError, match="has lists of other videos or options; choose another"):
        finetune(other, *command)
    lines = listing.read_text().splitlines(keepends=True)
    listing.write_text("".join(line for line in lines if line.startswith("left")))
    words = r"val\.csv: has videos of class 'right', and .*train.csv none; move some of them there"
    with pytest.raises(ManifestError, match=words):
        finetune(folder, *command)
    shutil.rmtree(run / "lists")
    finetune(folder, *command)  # divided anew
    assert len(paths_of(run, "train", folder)) == 16


@pytest.mark.usefixtures("no_pictures")
def test_groups_stay_together_and_lists_of_the_users_are_taken(
    folder: Path, tmp_path: Path
) -> None:
    groups = tmp_path / "groups.csv"
    rows = [(path, path.stem) for path in sorted(folder.rglob("*.mp4"))]  # left/3 and right/3
    groups.write_text("path,group\n" + "".join(f"{path},{group}\n" for path, group in rows))
    val = tmp_path / "val.csv"
    val.write_text(f"{tmp_path / 'left.mp4'} 0\n{tmp_path / 'right.mp4'} 1\n")
    for name in ("left", "right"):
        shutil.copy(folder / name / "1.mp4", tmp_path / f"{name}.mp4")
    run = tmp_path / "run"
    own = ("--groups", groups, "--val", val)
    finetune(folder, *MICRO, *own, f"output={run}", "--dry-run", *QUICK)
    root = Path(str(load_config(run / "recipe.yaml").data.root))
    assert len(paths_of(run, "val", root)) == 2
    numbers = [
        {Path(path).stem for path in paths_of(run, part, root)} for part in ("train", "test")
    ]
    assert not numbers[0] & numbers[1]


def test_a_run_gives_model_clip_and_normalisation(folder: Path, tmp_path: Path) -> None:
    from hiera_video.workflows.finetune_config import start_keys

    keys = ["model.name=mae_hiera_micro_16x32", "train.task=pretrain", "clip.repeats=4"]
    config = load_config(MOTION, [*keys, "augment.mean=[0.1,0.2,0.3]", "data.frame_fps=12"])
    (tmp_path / "mae").mkdir()
    save_config(config, tmp_path / "mae/config.yaml")
    found = start_keys(str(tmp_path / "mae"), None, None)
    assert found["model"]["name"] == "hiera_micro_16x32"
    assert found["model"]["pretrained"] == str(tmp_path / "mae")
    assert found["clip"]["frame_stride"] == 1 and found["clip"]["repeats"] == 1
    assert found["augment"]["mean"] == [0.1, 0.2, 0.3] and found["data"]["frame_fps"] == 12
    with pytest.raises(ConfigError, match=r"--checkpoint best: .*points has none; leave it"):
        start_keys(str(tmp_path / "mae"), None, "best")


@pytest.mark.usefixtures("no_pictures")
def test_a_third_of_the_videos_is_unreadable(folder: Path, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    shutil.copytree(folder, videos)
    for number in range(4):
        for name in ("left", "right"):
            (videos / name / f"{number}.mp4").write_bytes(b"no video")
    command = (videos, *MICRO, f"output={tmp_path / 'run'}", "--dry-run", *QUICK)
    words = r"8 of 24 videos cannot be read, such as .*left/0.mp4: .*; hiera-video check-data"
    with pytest.raises(ManifestError, match=words):
        finetune(*command)
    assert finetune(*command, "data.max_broken=0.34") == 0
    assert len(paths_of(tmp_path / "run", "train", videos)) == 14


def write_names(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["a/1.mp4", "a/2.mp4"], r"videos: has one class \('a'\), and a classifier needs two or"),
        (
            ["a/1.mp4", "b/1.mp4", "b/2.mp4"],
            r"videos: 1 of 2 classes have one video \('a'\); each needs two or more, one to train",
        ),
        (["1.mp4", "2.mp4"], r"1.mp4 has no label; write `path label` lines or put the videos"),
    ],
    ids=["one class", "one video", "no labels"],
)
def test_too_few_classes_or_videos(tmp_path: Path, files: list[str], words: str) -> None:
    write_names(tmp_path / "videos", *files)
    with pytest.raises(ManifestError, match=words):
        finetune(tmp_path / "videos", *MICRO, f"output={tmp_path / 'run'}")


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (
            ["up", "down", "round"],
            r"list.csv: 3 classes named beside it, and its videos are of 2: none of 'round'; "
            "is the labels file another folder's",
        ),
        (
            ["down", "up"],
            r"labels.txt: class 0 is 'down', but its videos in .*list.csv lie in 'up': the same "
            "names in another order; correct one of them",
        ),
    ],
)
def test_names_of_another_folder(tmp_path: Path, labels: list[str], words: str) -> None:
    write_names(tmp_path, *(f"{name}/{number}.mp4" for name in ("up", "down") for number in "12"))
    (tmp_path / "list.csv").write_text("up/1.mp4 0\nup/2.mp4 0\ndown/1.mp4 1\ndown/2.mp4 1\n")
    (tmp_path / "labels.txt").write_text("\n".join(labels))
    with pytest.raises(ManifestError, match=words):
        finetune(tmp_path / "list.csv", *MICRO, f"output={tmp_path / 'run'}")


def test_the_paths_of_all_lists_start_from_one_root(tmp_path: Path) -> None:
    names = [f"{name}/{number}.mp4" for name in ("up", "down") for number in "12"]
    write_names(tmp_path / "videos", *names)
    (tmp_path / "lists").mkdir()
    for part in ("train", "test"):
        lines = [f"{name} {int('down' in name)}" for name in names]
        (tmp_path / f"lists/{part}.csv").write_text("\n".join(lines))
    lists = (tmp_path / "lists/train.csv", "--test", tmp_path / "lists/test.csv")
    with pytest.raises(ManifestError, match=r"4 of 4 videos cannot be read, such as .*up/1\.mp4"):
        finetune(
            *lists, "--root", tmp_path / "videos", *MICRO, f"output={tmp_path / 'run'}", *QUICK
        )


def test_names_unlike_all_folders_are_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from hiera_video.workflows.finetune_lists import ListRequest, read_videos

    write_names(tmp_path, *(f"{name}/{number}.mp4" for name in ("up", "down") for number in "12"))
    (tmp_path / "list.csv").write_text("up/1.mp4 0\nup/2.mp4 0\ndown/1.mp4 1\ndown/2.mp4 1\n")
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    read_videos(ListRequest(videos=str(tmp_path / "list.csv")), load_config(MOTION))
    assert "names the classes 'cat', 'dog', but their videos lie in 'up', 'down'" in caplog.text


def test_labels_with_a_gap(tmp_path: Path) -> None:
    write_names(tmp_path, *(f"{number}.mp4" for number in range(4)))
    (tmp_path / "list.csv").write_text("0.mp4 0\n1.mp4 0\n2.mp4 2\n3.mp4 2\n")
    with pytest.raises(ManifestError, match="has labels up to 2, but no video of '1'; number the"):
        finetune(tmp_path / "list.csv", *MICRO, f"output={tmp_path / 'run'}")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["output=x", *MICRO], "name the videos: one folder with a folder for each class, or a l"),
        (["v", "w", "output=x", *MICRO], "name the videos: one folder"),
        (["v", *MICRO], "output= is not set; name a folder for the run, such as runs/mine"),
        (
            ["v", "output=x", "--model", "hiera_base_16x224"],
            "needs --checkpoint: a file, folder or run, the tag mae_k400_ft_k400, mae_k400, or n",
        ),
        (["v", "output=x", "--run", "r", "--checkpoint", "a.pth"], "--checkpoint a.pth: must be b"),
        (["v", "output=x", *MICRO, "data.val=a.csv"], "data.val=a.csv: is chosen by finetune; use"),
        (["v", "output=x", *MICRO, "optim.lrr=1"], "unknown key 'optim.lrr'; did you mean"),
        (["nowhere", "output=x", *MICRO], "nowhere: no such file or folder"),
    ],
)
def test_invalid_arguments(arguments: list[str], words: str) -> None:
    with pytest.raises((ConfigError, ManifestError), match=words):
        finetune(*arguments)


def test_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    words = "finetune runs in one process; for several devices, run it with --dry-run, then torch"
    with pytest.raises(ConfigError, match=words):
        finetune("videos", *MICRO, "output=x")


def test_an_output_with_other_files_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="exists and is not of finetune; choose a new folder"):
        finetune(folder, *MICRO, f"output={tmp_path}", *QUICK)


def test_videos_of_one_source_cannot_be_divided(folder: Path, tmp_path: Path) -> None:
    command: tuple[Any, ...] = (folder, *MICRO, f"output={tmp_path / 'run'}", *QUICK)
    with pytest.raises(ConfigError, match="of each class are of one source, so none can be"):
        finetune(*command, "--source", "(videos)")


def test_an_output_that_cannot_be_written(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    words = r"file/run: cannot be written \(Not a directory\); choose another folder"
    with pytest.raises(ConfigError, match=words):
        finetune(folder, *MICRO, f"output={tmp_path / 'file/run'}", *QUICK)


def test_a_list_that_is_missing_leaves_no_output(folder: Path, tmp_path: Path) -> None:
    for option in ("--val", "--test"):
        with pytest.raises(ManifestError, match=r"none\.csv: no such file or folder"):
            finetune(folder, *MICRO, option, "none.csv", f"output={tmp_path / 'run'}", *QUICK)
        assert not (tmp_path / "run").exists()


def test_the_end_shows_accuracy_and_mean_of_the_classes(tmp_path: Path) -> None:
    results = (
        '{"top1": 37.74, "mean_class": 73.08, "evaluated": 106, "intervals": {"top1": [29, 47]}}'
    )
    (tmp_path / "results.json").write_text(results)
    assert closing_lines(tmp_path, "a.mp4")[0] == (
        "test       top1 37.7 % on 106 held-out videos (95 % interval 29.0 to 47.0), mean of the "
        "classes 73.1 %"
    )


def test_the_next_commands_are_quoted(tmp_path: Path) -> None:
    run = tmp_path / "my run"
    run.mkdir()
    (run / "results.json").write_text('{"top1": 50, "evaluated": 2}')
    assert closing_lines(run, "a b.mp4")[-3:] == [
        f"  hiera-video predict 'a b.mp4' --run '{run}'",
        f"  hiera-video test --run '{run}' data.test=LIST data.root=null",
        f"  hiera-video export --run '{run}' 'output={run}/model.pt2'",
    ]


def test_shards_are_refused(shards_index: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is an index of tar shards; finetune reads folders and"):
        finetune(shards_index, *MICRO, f"output={tmp_path / 'run'}")
