"""Something-Something v2 as frames: annotations and folders → a list that the reader takes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from hiera_video.data.manifest.read import read_manifest

PREPARE = Path(__file__).parents[2] / "datasets" / "ssv2" / "prepare.py"


def prepare(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(PREPARE), "--json", "ssv2/train.json", "--frames", "ssv2/frames"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_frames_and_annotations_become_a_list(tmp_path: Path) -> None:
    assert (
        "ssv2/train.json: does not exist; see datasets/ssv2/README.md" in prepare(tmp_path).stderr
    )
    folder = tmp_path / "ssv2"
    for name in ("7/7_01.jpg", "7/7_02.jpg", "7/notes.txt", "9/9_01.jpg"):
        (folder / "frames" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "frames" / name).write_bytes(b"")
    (folder / "labels.json").write_text(
        json.dumps({"Moving something up": "0", "Pushing something": "1"})
    )
    entries = [
        {
            "id": "7",
            "label": "pushing a cup",
            "template": "Pushing [something]",
            "placeholders": ["a cup"],
        },
        {"id": "8", "template": "Pushing [something]"},
        {"id": "9", "template": "Moving [something] up"},
    ]
    (folder / "train.json").write_text(json.dumps(entries))
    done = prepare(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "train_frames.txt: 2 of 3 videos are there, 2 classes" in done.stdout
    manifest = read_manifest(str(folder / "train_frames.txt"), root=str(folder / "frames"))
    assert [(record.label, record.num_frames) for record in manifest.records] == [(1, 2), (0, 1)]
    assert manifest.class_names == ("Moving something up", "Pushing something")
    (folder / "train.json").write_text(json.dumps([{"id": "7"}]))
    unlabelled = prepare(tmp_path)
    assert unlabelled.returncode == 2 and "Traceback" not in unlabelled.stderr
    assert (
        "ssv2/train.json: 7 has no template, as in the release's test.json, and a list of frames"
        in unlabelled.stderr
    )
    (folder / "train.json").write_text(json.dumps([{"id": "7", "template": "Eating [something]"}]))
    assert "template 'Eating something' of 7 is not in ssv2/labels.json" in prepare(tmp_path).stderr
