"""UCF101 and HMDB51: lists from the releases' split files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from hiera_video.data.manifest.read import read_manifest
from hiera_video.data.manifest.record import Manifest
from hiera_video.errors import ManifestError

Prepare = Callable[..., None]


@pytest.fixture
def prepare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, load_script: Callable[[str], ModuleType]
) -> Prepare:
    """Return a function that makes the lists of a split in the current folder."""
    monkeypatch.chdir(tmp_path)

    def run(split: int = 1) -> None:
        arguments = ["--videos", "videos", "--splits", "lists", "--split", str(split)]
        assert load_script("ucf101_hmdb51").main(arguments) == 0

    return run


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def write_splits(folder: Path, **contents: str) -> None:
    (folder / "lists").mkdir(exist_ok=True)
    for name, content in contents.items():
        (folder / f"lists/{name}.txt").write_text(content)


def contents(manifest: Manifest) -> list[tuple[str, object]]:
    return [(Path(record.path).name, record.label) for record in manifest.records]


def test_ucf101(tmp_path: Path, prepare: Prepare, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("Archery", "YoYo"):
        touch(tmp_path, *(f"videos/{name}/v_{name}_g0{group}_c01.avi" for group in (1, 8)))
    write_splits(
        tmp_path,
        classInd="1 Archery\n2 YoYo\n",
        trainlist01="Archery/v_Archery_g08_c01.avi 1\n"
        "YoYo/v_YoYo_g08_c01.avi 2\n"
        "YoYo/v_YoYo_g09_c01.avi 2\n",
        testlist01="Archery/v_Archery_g01_c01.avi\r\nYoYo/v_YoYo_g01_c01.avi\r\n",
    )
    prepare()
    assert "train_1.csv: 2 of 3 listed videos are present, 2 classes" in capsys.readouterr().out
    train, test = (read_manifest(str(tmp_path / f"{part}_1.csv")) for part in ("train", "test"))
    assert train.class_names == test.class_names == ("Archery", "YoYo")
    assert contents(train) == [("v_Archery_g08_c01.avi", 0), ("v_YoYo_g08_c01.avi", 1)]
    assert contents(test) == [("v_Archery_g01_c01.avi", 0), ("v_YoYo_g01_c01.avi", 1)]


def test_the_class_order_is_that_of_ucf101s_class_index(tmp_path: Path, prepare: Prepare) -> None:
    # 35, 36, 47 and 48 in classInd.txt
    names = ("Hammering", "HammerThrow", "JumpingJack", "JumpRope")
    clips = [f"{name}/v_{name}_g01_c01.avi" for name in names]
    touch(tmp_path, *(f"videos/{clip}" for clip in clips))
    lines = "".join(f"{clip}\n" for clip in clips)
    write_splits(tmp_path, trainlist01=lines, testlist01=lines)
    prepare()
    assert (tmp_path / "labels.txt").read_text().splitlines() == list(names)


def test_hmdb51(tmp_path: Path, prepare: Prepare) -> None:
    for name in ("wave/a_wave_#1", "wave/b_wave", "brush_hair/c", "brush_hair/d"):
        touch(tmp_path, f"videos/{name}.avi")
    write_splits(
        tmp_path,
        x="",
        wave_test_split1="a_wave_#1.avi 1 \nb_wave.avi 2 \nunused.avi 0 \n",
        brush_hair_test_split1="c.avi 2 \nd.avi 1 \n",
    )
    prepare()
    train, test = (read_manifest(str(tmp_path / f"{part}_1.csv")) for part in ("train", "test"))
    assert test.class_names == ("brush_hair", "wave")
    assert contents(train) == [("d.avi", 0), ("a_wave_#1.avi", 1)]
    assert contents(test) == [("c.avi", 0), ("b_wave.avi", 1)]


def test_refusals(tmp_path: Path, prepare: Prepare) -> None:
    with pytest.raises(
        ManifestError, match=r"videos: does not exist; hiera-video prepare ucf101_hmdb51 --help"
    ):
        prepare()
    touch(tmp_path, "videos/wave/a.avi")
    write_splits(tmp_path, wave_test_split1="gone.avi 1\na.avi 2\n")
    with pytest.raises(
        ManifestError, match=r"neither trainlist02.txt .UCF101. nor <class>_test_split2.txt"
    ):
        prepare(split=2)
    with pytest.raises(
        ManifestError,
        match=r"contains none of the 1 clip of the train split, first wave/gone.avi",
    ):
        prepare()
    assert not (tmp_path / "labels.txt").exists()
