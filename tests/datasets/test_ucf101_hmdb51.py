"""UCF101's and HMDB51's lists on trees laid out as the releases are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from hiera_video.data.manifest.read import read_manifest

PREPARE = Path(__file__).parents[2] / "datasets" / "ucf101_hmdb51" / "prepare.py"


def prepare(folder: Path, split: int = 1) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        str(PREPARE),
        "--videos",
        "videos",
        "--splits",
        "lists",
        "--split",
        str(split),
    ]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")


def test_ucf101(tmp_path: Path) -> None:
    touch(
        tmp_path,
        *(f"videos/{name}/v_{name}_g0{i}_c01.avi" for name in ("Archery", "YoYo") for i in (1, 8)),
    )
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/classInd.txt").write_text("1 Archery\n2 YoYo\n")
    (tmp_path / "lists/trainlist01.txt").write_text(
        "Archery/v_Archery_g08_c01.avi 1\nYoYo/v_YoYo_g08_c01.avi 2\nYoYo/v_YoYo_g09_c01.avi 2\n"
    )
    (tmp_path / "lists/testlist01.txt").write_text(
        "Archery/v_Archery_g01_c01.avi\r\nYoYo/v_YoYo_g01_c01.avi\r\n"
    )
    done = prepare(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "train_1.csv: 2 of 3 listed clips are there, 2 classes" in done.stdout
    train, test = (read_manifest(str(tmp_path / f"{part}_1.csv")) for part in ("train", "test"))
    assert train.class_names == ("Archery", "YoYo") and [
        record.label for record in train.records
    ] == [0, 1]
    assert [Path(record.path).name for record in test.records] == [
        "v_Archery_g01_c01.avi",
        "v_YoYo_g01_c01.avi",
    ]


def test_the_class_order_is_that_of_ucf101s_own_index(tmp_path: Path) -> None:
    index = (
        "Hammering",
        "HammerThrow",
        "JumpingJack",
        "JumpRope",
    )  # 35, 36, 47, 48 in classInd.txt
    touch(tmp_path, *(f"videos/{name}/v_{name}_g01_c01.avi" for name in index))
    (tmp_path / "lists").mkdir()
    for part in ("train", "test"):
        (tmp_path / f"lists/{part}list01.txt").write_text(
            "".join(f"{n}/v_{n}_g01_c01.avi\n" for n in index)
        )
    done = prepare(tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "labels.txt").read_text().splitlines() == list(index)


def test_hmdb51(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "videos/wave/a_wave_#1.avi",
        "videos/wave/b_wave.avi",
        "videos/brush_hair/c.avi",
        "videos/brush_hair/d.avi",
    )
    touch(tmp_path, "lists/x.txt")
    (tmp_path / "lists/wave_test_split1.txt").write_text(
        "a_wave_#1.avi 1 \nb_wave.avi 2 \nunused.avi 0 \n"
    )
    (tmp_path / "lists/brush_hair_test_split1.txt").write_text("c.avi 2 \nd.avi 1 \n")
    done = prepare(tmp_path)
    assert done.returncode == 0, done.stderr
    train, test = (read_manifest(str(tmp_path / f"{part}_1.csv")) for part in ("train", "test"))
    assert [(Path(record.path).name, record.label) for record in train.records] == [
        ("d.avi", 0),
        ("a_wave_#1.avi", 1),
    ]
    assert [record.label for record in test.records] == [0, 1] and test.class_names == (
        "brush_hair",
        "wave",
    )


def test_refusals(tmp_path: Path) -> None:
    assert (
        "videos: no such folder; see datasets/ucf101_hmdb51/README.md" in prepare(tmp_path).stderr
    )
    touch(tmp_path, "videos/wave/a.avi", "lists/wave_test_split1.txt")
    done = prepare(tmp_path, split=2)
    assert (
        done.returncode == 2
        and "holds neither trainlist02.txt (UCF101) nor <class>_test_split2.txt" in done.stderr
    )
    (tmp_path / "lists/wave_test_split1.txt").write_text("gone.avi 1\na.avi 2\n")
    done = prepare(tmp_path)
    assert (
        done.returncode == 2
        and "holds none of the 1 clips of the train list, first wave/gone.avi" in done.stderr
    )
    assert not (tmp_path / "labels.txt").exists()
