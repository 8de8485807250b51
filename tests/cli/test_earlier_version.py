"""A run folder and a feature store of an earlier version can be resumed, tested and loaded.

`fixtures/earlier_version.tar.xz` was made at commit 4016809. It contains eight training videos of
32×40 pixels, a run that stopped after the first of three steps (weights and moments rounded, so
that they compress), a store with one of two shards, and the results of that version for the rest.
"""

from __future__ import annotations

import json
import tarfile
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import hiera_video as hv
from hiera_video.cli import extract, test, train

FIXTURE = Path(__file__).parents[1] / "fixtures" / "earlier_version.tar.xz"
TOLERANCE = 5e-4
"""Kernels round differently on other processors and versions of torch (2.10: by 2.2e-4)."""


@pytest.fixture
def earlier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    with tarfile.open(FIXTURE) as archive:
        archive.extractall(tmp_path, filter="data")
    folder = tmp_path / "earlier_version"
    monkeypatch.chdir(folder)
    return folder


def test_a_run_resumes_and_is_tested(earlier: Path) -> None:
    expected = json.loads((earlier / "expected.json").read_text())
    assert train.main(["--cfg", "run/config.yaml"]) == 0
    rows = [json.loads(line) for line in (earlier / "run/metrics.jsonl").read_text().splitlines()]
    for split in ("train", "val"):
        losses = [row["loss"] for row in rows if row["split"] == split]
        assert losses == pytest.approx(expected[f"{split}_loss"], rel=TOLERANCE)
    assert test.main(["--cfg", "run/config.yaml", "test.checkpoint=run/checkpoints/last"]) == 0
    lines = (earlier / "run/predictions.csv").read_text().splitlines()[1:]
    classes, probabilities = zip(*(line.split(",")[3:5] for line in lines))
    assert list(map(int, classes)) == expected["answers"]
    assert list(map(float, probabilities)) == pytest.approx(
        expected["probabilities"], rel=TOLERANCE
    )


def test_a_run_loads_and_predicts(earlier: Path) -> None:
    run = hv.load("run")
    assert run.class_names == ("to the right", "to the left")
    assert hv.predict(run, "videos/val_0.mp4", topk=1)


def test_a_feature_store_is_completed(earlier: Path) -> None:
    path = earlier / "features/features.json"
    notes = json.loads(path.read_text())
    # a store is bound to the versions and absolute paths that it was started with
    for name in ("av", "numpy", "torch", "torchvision"):
        notes["identity"][f"version of {name}"] = version(name)
    videos = (f"{earlier}/videos/val_{number}.mp4\0None None None\n" for number in range(4))
    notes["identity"]["videos"] = sha256("".join(videos).encode()).hexdigest()
    path.write_text(json.dumps(notes))
    first = earlier / "features/shards/00000/00000000.safetensors"
    before = first.read_bytes()
    options = ["input=videos/val.csv", "output=features", "features.shard_videos=2"]
    assert extract.main(["--run", "run", *options]) == 0
    assert first.read_bytes() == before
    store = hv.FeatureStore("features")
    assert store.is_complete and store.matrix().shape == (8, 256)
    found = load_file(earlier / "features/shards/00000/00000001.safetensors")["stage3"]
    expected = load_file(earlier / "expected_features.safetensors")["stage3"]
    assert torch.allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE)
