"""The motion set: same bytes each time, a class and its mirror, separate pictures, annotations that agree."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from types import ModuleType

import av
import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "datasets" / "motion" / "prepare.py"


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("motion_prepare", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["motion_prepare"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


motion = load_script()


def run(*arguments: str | Path) -> int:
    """The command, in this process: the imports behind the pictures take seconds."""
    try:
        return motion.main([str(argument) for argument in arguments])
    except SystemExit as end:
        return end.code


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest() for path in files}


def frames_of(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("motion") / "set"
    command = [sys.executable, SCRIPT, "--out", out, "--clips-per-class", "2"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{out}: made 16 training and 8 held-out clips\n"
    return out


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


def test_videos_are_short_h264(small: Path) -> None:
    with av.open(str(small / "videos" / "1.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264" and stream.average_rate == motion.FPS
    assert frames_of(small / "videos" / "1.mp4").shape == (
        motion.FRAMES,
        motion.HEIGHT,
        motion.WIDTH,
        3,
    )


def test_a_class_is_its_mirror_backwards(small: Path) -> None:
    for label in range(0, 8, 2):
        forward, backward = (
            frames_of(small / "videos" / f"{label + 1 + i}.mp4").astype(int) for i in (0, 1)
        )
        assert np.abs(forward - backward[::-1]).mean() < 2  # compression alone
        assert np.abs(forward[0] - forward[-1]).max() > 50  # and something moves


def test_moving_right_moves_right_and_clockwise_turns_clockwise() -> None:
    thing = np.zeros((motion.PATCH, motion.PATCH, 4))
    thing[: motion.PATCH // 2, 8:-8] = 1  # a bar that points up
    ground = np.zeros((motion.HEIGHT, motion.WIDTH, 3))

    def brightest(track: list[float]) -> tuple[float, float]:
        frame = next(motion.render(thing, ground, np.array([track])))[..., 0]
        y, x = np.nonzero(frame > 128)
        return float(x.mean()), float(y.mean())

    middle_x, middle_y = brightest([0, 0, np.log(16), 0])
    assert abs(middle_x - 23.5) < 0.5 and middle_y < 18
    assert brightest([8, 0, np.log(16), 0])[0] > middle_x + 7
    assert brightest([0, 8, np.log(16), 0])[1] > middle_y + 7
    quarter_x, quarter_y = brightest([0, 0, np.log(16), np.pi / 2])  # clockwise from up is right
    assert quarter_x > 26 and abs(quarter_y - 19.5) < 0.5


def test_a_frame_at_random_looks_alike_in_all_classes() -> None:
    """Place, log size and angle of one random frame: the same mean and spread whatever moves, in both directions."""
    statistics = []
    for _, axis, direction in motion.CLASSES:
        tracks = np.stack(
            [motion.draw_scene("train", axis, number, 0).track(direction) for number in range(400)]
        )
        statistics.append([tracks.mean((0, 1)), tracks.std((0, 1))])
    spread = np.mean(statistics, axis=0)[1]
    assert (np.ptp(np.array(statistics), axis=0) < 0.25 * spread).all()


def test_mirrors_are_exact_in_the_parameters() -> None:
    for (_, axis, direction), (_, mirror_axis, mirror_direction) in zip(
        motion.CLASSES[::2], motion.CLASSES[1::2]
    ):
        assert axis == mirror_axis and direction == -mirror_direction == 1
        scene = motion.draw_scene("train", axis, 5, 0)
        assert np.array_equal(scene.track(1), scene.track(-1)[::-1])
        moved = np.ptp(scene.track(1), axis=0) > 1e-9
        assert [each for each, moves in zip(motion.AXES, moved) if moves] == [axis]


def test_training_and_validation_share_no_picture() -> None:
    assert not set(motion.PICTURES["train"]) & set(motion.PICTURES["validation"])
    assert not set(motion.DIGITS["train"]) & set(motion.DIGITS["validation"])


def test_made_once_completed_or_remade(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = hashes(small)
    assert run("--out", small, "--clips-per-class", "2") == 0
    assert capsys.readouterr().out == f"{small}: there already: 16 training and 8 held-out clips\n"

    half = tmp_path / "half"  # as a kill leaves it: some videos, a piece of one, no list
    shutil.copytree(small, half)
    (half / "prepared.json").rename(half / "unfinished.json")
    (half / "train.csv").unlink()
    for number in range(2, 25):
        (half / "videos" / f"{number}.mp4").unlink()
    (half / "videos" / ".3.mp4.99.partial.mp4").write_bytes(b"half")
    kept = (half / "videos" / "1.mp4").stat().st_mtime_ns
    assert run("--out", half, "--clips-per-class", "2", "--workers", "1") == 0
    assert hashes(half) == wanted
    assert (half / "videos" / "1.mp4").stat().st_mtime_ns == kept

    assert run("--out", half, "--clips-per-class", "2", "--seed", "1", "--hard") == 0
    remade = hashes(half)
    assert remade["videos/1.mp4"] != wanted["videos/1.mp4"] and set(remade) == set(wanted)


def test_errors_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--out", tmp_path / "new", "--clips-per-class", "0") == 2
    assert "--clips-per-class 0: must be 1 or more" in capsys.readouterr().err
    (tmp_path / "thesis.txt").write_text("precious")
    assert run("--out", tmp_path) == 2
    assert (
        capsys.readouterr().err
        == f"error: --out {tmp_path}: exists and is not a motion set; name a new folder\n"
    )
    assert (tmp_path / "thesis.txt").read_text() == "precious" and not (tmp_path / "new").exists()
    (tmp_path / "file").write_text("")
    assert run("--out", tmp_path / "file" / "below") == 2
    assert f"error: --out {tmp_path / 'file' / 'below'}: " in capsys.readouterr().err
