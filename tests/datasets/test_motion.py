"""The motion set: equal bytes each time, mirrored classes, separate pictures, annotations."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from types import ModuleType

import av
import numpy as np
import pytest

from hiera_video.errors import ConfigError

SCRIPT = Path(__file__).parents[2] / "datasets" / "motion" / "prepare.py"
Run = Callable[..., int]


@pytest.fixture(scope="module")
def run(load_script: Callable[[str], ModuleType]) -> Run:
    """Return a function that runs the command in this process, which has imported the pictures."""

    def run(*arguments: str | Path) -> int:
        code: int = load_script("motion").main([str(argument) for argument in arguments])
        return code

    return run


@pytest.fixture(scope="module")
def scenes() -> ModuleType:
    return import_module("hiera_video.data.prepare.motion_scenes")


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest() for path in files}


def frames_of(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.fixture(scope="module")
def small(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("motion") / "set"
    assert run("--out", out, "--clips-per-class", "2") == 0
    return out


@pytest.mark.slow
def test_a_launch_writes_the_same_bytes(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    command = [sys.executable, str(SCRIPT), "--out", str(out), "--clips-per-class", "2"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{out}: made 16 training and 8 held-out clips\n"
    assert hashes(out) == hashes(small)


def test_annotations_agree(small: Path) -> None:
    names = (small / "labels.txt").read_text().splitlines()
    assert len(names) == 8 and names[0] == "Moving something from left to right"
    assert json.loads((small / "labels.json").read_text()) == {
        name: str(index) for index, name in enumerate(names)
    }
    ids = []
    for entries_file, listing, count in (
        ("train.json", "train.csv", 16),
        ("validation.json", "val.csv", 8),
    ):
        entries = json.loads((small / entries_file).read_text())
        lines = [line.split() for line in (small / listing).read_text().splitlines()]
        assert len(entries) == len(lines) == count
        for entry, (path, label) in zip(entries, lines, strict=True):
            assert set(entry) == {"id", "label", "template", "placeholders"}
            assert path == f"videos/{entry['id']}.mp4" and (small / path).is_file()
            assert entry["template"].replace("[", "").replace("]", "") == names[int(label)]
            assert (
                entry["template"].replace("[something]", entry["placeholders"][0]).lower()
                == entry["label"]
            )
            ids.append(entry["id"])
        labels = [int(label) for _, label in lines]
        assert {labels.count(label) for label in range(8)} == {count // 8}
    assert len(set(ids)) == len(list((small / "videos").iterdir())) == 24


def test_videos_are_short_h264(small: Path, scenes: ModuleType) -> None:
    with av.open(str(small / "videos" / "1.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264" and stream.average_rate == scenes.FPS
    assert frames_of(small / "videos" / "1.mp4").shape == (
        scenes.FRAMES,
        scenes.HEIGHT,
        scenes.WIDTH,
        3,
    )


def test_a_class_is_its_mirror_backwards(small: Path) -> None:
    for label in range(0, 8, 2):
        forward, backward = (
            frames_of(small / "videos" / f"{label + 1 + i}.mp4").astype(int) for i in (0, 1)
        )
        assert np.abs(forward - backward[::-1]).mean() < 2  # compression alone
        assert np.abs(forward[0] - forward[-1]).max() > 50  # and something moves


def test_moving_right_moves_right_and_clockwise_turns_clockwise(scenes: ModuleType) -> None:
    thing = np.zeros((scenes.PATCH, scenes.PATCH, 4))
    thing[: scenes.PATCH // 2, 8:-8] = 1  # a bar that points up
    ground = np.zeros((scenes.HEIGHT, scenes.WIDTH, 3))

    def brightest(track: list[float]) -> tuple[float, float]:
        frame = next(scenes.render(thing, ground, np.array([track])))[..., 0]
        y, x = np.nonzero(frame > 128)
        return float(x.mean()), float(y.mean())

    middle_x, middle_y = brightest([0, 0, np.log(16), 0])
    assert abs(middle_x - 23.5) < 0.5 and middle_y < 18
    assert brightest([8, 0, np.log(16), 0])[0] > middle_x + 7
    assert brightest([0, 8, np.log(16), 0])[1] > middle_y + 7
    quarter_x, quarter_y = brightest([0, 0, np.log(16), np.pi / 2])  # clockwise from up is right
    assert quarter_x > 26 and abs(quarter_y - 19.5) < 0.5


def test_a_random_frame_has_one_distribution_in_all_classes(scenes: ModuleType) -> None:
    """Mean and spread of position, log size and angle are equal for all axes and directions."""
    statistics = []
    for _, axis, direction in scenes.CLASSES:
        tracks = np.stack(
            [scenes.draw_scene("train", axis, number, 0).track(direction) for number in range(400)]
        )
        statistics.append([tracks.mean((0, 1)), tracks.std((0, 1))])
    spread = np.mean(statistics, axis=0)[1]
    assert (np.ptp(np.array(statistics), axis=0) < 0.25 * spread).all()


def test_mirrored_tracks_are_exact(scenes: ModuleType) -> None:
    for (_, axis, direction), (_, mirror_axis, mirror_direction) in zip(
        scenes.CLASSES[::2], scenes.CLASSES[1::2]
    ):
        assert axis == mirror_axis and direction == -mirror_direction == 1
        scene = scenes.draw_scene("train", axis, 5, 0)
        assert np.array_equal(scene.track(1), scene.track(-1)[::-1])
        moved = np.ptp(scene.track(1), axis=0) > 1e-9
        assert [each for each, moves in zip(scenes.AXES, moved) if moves] == [axis]


def test_training_and_validation_share_no_picture(scenes: ModuleType) -> None:
    assert not set(scenes.PICTURES["train"]) & set(scenes.PICTURES["validation"])
    assert not set(scenes.DIGITS["train"]) & set(scenes.DIGITS["validation"])


def test_an_existing_set_is_kept(small: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    before = hashes(small)
    assert run("--out", small, "--clips-per-class", "2") == 0
    assert capsys.readouterr().out == f"{small}: exists: 16 training and 8 held-out clips\n"
    assert hashes(small) == before


def interrupt(folder: Path) -> None:
    """Leave a finished set as a kill would: videos missing, part of one, no list."""
    (folder / "prepared.json").rename(folder / "unfinished.json")
    (folder / "train.csv").unlink()
    for number in (3, 24):
        (folder / f"videos/{number}.mp4").unlink()
    (folder / "videos/.3.mp4.99.partial.mp4").write_bytes(b"half")


def test_an_interrupted_set_is_completed(small: Path, tmp_path: Path, run: Run) -> None:
    half = tmp_path / "half"
    shutil.copytree(small, half)
    interrupt(half)
    kept = (half / "videos/1.mp4").stat().st_mtime_ns
    assert run("--out", half, "--clips-per-class", "2", "--workers", "1") == 0
    assert hashes(half) == hashes(small)
    assert (half / "videos/1.mp4").stat().st_mtime_ns == kept


@pytest.mark.slow
def test_a_set_of_other_options_is_made_again(small: Path, tmp_path: Path, run: Run) -> None:
    other = tmp_path / "other"
    shutil.copytree(small, other)
    assert run("--out", other, "--clips-per-class", "2", "--seed", "1", "--hard") == 0
    before, after = hashes(small), hashes(other)
    assert set(after) == set(before) and after["videos/1.mp4"] != before["videos/1.mp4"]


def test_errors(tmp_path: Path, run: Run) -> None:
    with pytest.raises(ConfigError, match="--clips-per-class 0: must be 1 or more"):
        run("--out", tmp_path / "new", "--clips-per-class", "0")
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(ConfigError, match=r"exists and is not a motion set; choose a new folder"):
        run("--out", tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "precious" and not (tmp_path / "new").exists()
    with pytest.raises(
        ConfigError, match=r"output=.*/thesis.txt/below: Not a directory; free disk"
    ):
        run("--out", tmp_path / "thesis.txt" / "below")
