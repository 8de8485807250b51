"""Something-Something v2: a list of frame folders from annotations and extracted frames."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from hiera_video.data.manifest.read import read_manifest
from hiera_video.errors import ManifestError

Prepare = Callable[[], None]


@pytest.fixture
def prepare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, load_script: Callable[[str], ModuleType]
) -> Prepare:
    """Return a function that makes the list in the current folder."""
    monkeypatch.chdir(tmp_path)

    def run() -> None:
        arguments = ["--json", "ssv2/train.json", "--frames", "ssv2/frames"]
        assert load_script("ssv2").main(arguments) == 0

    return run


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """Three annotated videos, two of them with extracted frames."""
    folder = tmp_path / "ssv2"
    for name in ("7/7_01.jpg", "7/7_02.jpg", "7/notes.txt", "9/9_01.jpg"):
        (folder / "frames" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "frames" / name).touch()
    classes = {"Moving something up": "0", "Pushing something": "1"}
    (folder / "labels.json").write_text(json.dumps(classes))
    annotate(
        folder,
        {"id": "7", "label": "pushing a cup", "template": "Pushing [something]"},
        {"id": "8", "template": "Pushing [something]"},
        {"id": "9", "template": "Moving [something] up"},
    )
    return folder


def annotate(folder: Path, *entries: dict[str, str]) -> None:
    (folder / "train.json").write_text(json.dumps(entries))


def test_frame_folders_become_a_list(
    release: Path, prepare: Prepare, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare()
    out = capsys.readouterr().out
    assert "train_frames.txt: 2 of 3 listed videos are present, 2 classes" in out
    manifest = read_manifest(str(release / "train_frames.txt"), root=str(release / "frames"))
    assert [(record.label, record.num_frames) for record in manifest.records] == [(1, 2), (0, 1)]
    assert manifest.class_names == ("Moving something up", "Pushing something")


def test_missing_annotations(prepare: Prepare) -> None:
    with pytest.raises(
        ManifestError, match=r"ssv2/train.json: does not exist; hiera-video prepare ssv2 --help"
    ):
        prepare()


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"id": "7"}, r"ssv2/train.json: 7 has no template, as in the release's test.json, but a"),
        (
            {"id": "7", "template": "Eating [something]"},
            r"template 'Eating something' of 7 is not in ssv2/labels.json",
        ),
        (
            {"id": "8", "template": "Pushing [something]"},
            r"ssv2/frames: contains frames of none of the 1 video in ssv2/train.json",
        ),
    ],
)
def test_bad_annotations(
    release: Path, prepare: Prepare, entry: dict[str, str], words: str
) -> None:
    annotate(release, entry)
    with pytest.raises(ManifestError, match=words):
        prepare()
