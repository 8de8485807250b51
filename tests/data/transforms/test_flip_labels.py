"""Flipped clips take the label of the mirrored class, or are not flipped if there is none."""

from __future__ import annotations

import logging
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from hiera_video.data.dataset import TrainClips
from hiera_video.data.loading.batch_plan import BatchPlan
from hiera_video.data.loading.loader import train_loader
from hiera_video.data.manifest.read import read_manifest
from hiera_video.data.sampling import ClipConfig
from hiera_video.data.transforms.clip_sample import ClipSample
from hiera_video.data.transforms.flip_labels import LabelFlip, make_label_flip, mirrored_classes

SSV2 = [
    "Pulling something from left to right",
    "Pulling something from right to left",
    "Turning the camera left while filming something",
    "Turning the camera right while filming something",
    "Bending something until it breaks",
    "Pushing something onto the bright upright leftovers",
]
MOTION = [
    "Moving [something] from left to right",
    "Moving [something] from right to left",
    "Moving [something] down",
    "Turning [something] clockwise",
    "Turning [something] counter-clockwise",
]


def test_classes_are_found_by_their_words() -> None:
    assert mirrored_classes(SSV2) == {0: 1, 1: 0, 2: 3, 3: 2}
    assert mirrored_classes(MOTION) == {0: 1, 1: 0, 3: 4, 4: 3}
    assert mirrored_classes(["Clockwise", "Anticlockwise", "leftwards", "Rightwards"]) == {
        0: 1,
        1: 0,
        2: 3,
        3: 2,
    }
    assert mirrored_classes(["hook with the left hand", "right-handed serve", "clockwise"]) == {
        0: None,
        1: None,
        2: None,
    }
    assert (
        mirrored_classes(None) == {} and mirrored_classes(["abseiling", "copyright", "cleft"]) == {}
    )


def test_labels_swap_or_clips_are_not_flipped() -> None:
    always = LabelFlip(probability=1.0, mirrored={0: 1, 1: 0, 3: None})
    generator = random.Random(0)
    assert [always.draw(label, generator) for label in (0, 1, 2, 3, None)] == [
        (True, 1), (True, 0), (True, 2), (False, 3), (True, None)
    ]  # fmt: skip
    assert always.draw((0, 2), generator) == (True, (1, 2))
    assert always.draw((2, 3), generator) == (False, (2, 3))
    drawn = [LabelFlip(probability=0.5, mirrored={}).draw(2, generator)[0] for _ in range(1000)]
    assert 450 < sum(drawn) < 550


def test_the_warning_lists_the_classes(caplog: pytest.LogCaptureFixture) -> None:
    assert (
        make_label_flip(SSV2, 0.0) is None
        and make_label_flip(["abseiling"], 0.5) is None
        and make_label_flip(None, 0.5) is None
    )
    assert not caplog.records
    # `benchmark.py data` silences this logger
    with caplog.at_level(logging.WARNING, logger="hiera_video.data.transforms.flip_labels"):
        assert make_label_flip([*SSV2[:3], "clockwise"], 0.5) is not None
    assert (
        "augment.flip=0.5: 4 classes tell left from right (Pulling something from left to right, "
        "Pulling something from right to left, Turning the camera left while filming something …): "
        "flipped clips of 2 take the label of the mirrored class, clips of the other 2 are not "
        "flipped (Turning the camera left while filming something …); set augment.flip=0 to flip "
        "nothing"
    ) in caplog.text


def keep_pixels(frames: Any, generator: random.Random) -> ClipSample:
    return ClipSample(pixels=torch.from_numpy(frames.copy()).permute(3, 0, 1, 2).float())


@pytest.mark.parametrize("separator", ["", ";"])
def test_a_batch_carries_the_flipped_labels(videos: Any, tmp_path: Path, separator: str) -> None:
    for number in range(4):
        videos.write(f"{number}.mp4", 6)
    (tmp_path / "list.csv").write_text(
        "".join(f"{number}.mp4 {number}{separator}\n" for number in range(4))
    )
    (tmp_path / "labels.txt").write_text("to the left\nto the right\nup\nclockwise\n")
    manifest = read_manifest(str(tmp_path / "list.csv"))
    label_flip = make_label_flip(manifest.class_names, 0.5)
    clip = ClipConfig(num_frames=2, frame_stride=1, repeats=4)
    dataset, still = (
        TrainClips(manifest, clip, keep_pixels, seed=0, label_flip=rule)
        for rule in (label_flip, None)
    )
    plan = BatchPlan(num_records=4, batch_size=4, seed=0)
    seen = set()
    for step in train_loader(dataset, plan, first_step=0, last_step=6, workers=0):
        (batch,) = step
        labels = batch.labels if not separator else batch.labels.argmax(dim=1)
        for shown, label, row in zip(batch.clips, labels.tolist(), batch.row.tolist()):
            numbers = (
                videos.numbers(shown.flip(-1).permute(1, 2, 3, 0).numpy()),
                videos.numbers(shown.permute(1, 2, 3, 0).numpy()),
            )
            flipped = numbers[0][1] == numbers[0][0] + 1  # bits run from left to right
            seen.add((row, flipped, label))
    assert seen == {
        (0, False, 0), (0, True, 1), (1, False, 1), (1, True, 0),
        (2, False, 2), (2, True, 2), (3, False, 3),
    }  # fmt: skip
    assert still[0, 0].labels == (manifest.records[0].label,) * 4
