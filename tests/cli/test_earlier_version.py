"""A run folder and a feature store that an earlier version wrote are continued, tested and loaded.

`fixtures/earlier_version.tar.xz` was made at commit 4016809: eight training videos of 32×40, a run that stopped after the
first of three steps (weights and moments rounded, so that they compress), a store with one of two shards, and what that
version went on to compute.
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
FLOAT = 2e-4
"""Kernels of other processors and torch versions round differently."""


@pytest.fixture
def earlier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    with tarfile.open(FIXTURE) as archive:
        archive.extractall(tmp_path, filter="data")
    folder = tmp_path / "earlier_version"
    monkeypatch.chdir(folder)
    return folder


def test_a_run_continues_and_is_tested(earlier: Path) -> None:
    expected = json.loads((earlier / "expected.json").read_text())
    assert train.main(["--cfg", "run/config.yaml"]) == 0
    rows = [json.loads(line) for line in (earlier / "run/metrics.jsonl").read_text().splitlines()]
    for split in ("train", "val"):
        losses = [row["loss"] for row in rows if row["split"] == split]
        assert losses == pytest.approx(expected[f"{split}_loss"], rel=FLOAT)
    assert test.main(["--cfg", "run/config.yaml", "test.checkpoint=run/checkpoints/last"]) == 0
    lines = (earlier / "run/predictions.csv").read_text().splitlines()[1:]
    answers, probabilities = zip(*(line.split(",")[3:5] for line in lines))
    assert list(map(int, answers)) == expected["answers"]
    assert list(map(float, probabilities)) == pytest.approx(expected["probabilities"], rel=FLOAT)


def test_a_run_loads_and_predicts(earlier: Path) -> None:
    run = hv.load("run")
    assert run.class_names == ("to the right", "to the left")
    assert hv.predict(run, "videos/val_0.mp4", topk=1)


def test_a_feature_store_is_completed(earlier: Path) -> None:
    path = earlier / "features/features.json"
    notes = json.loads(path.read_text())
    for name in (
        "av",
        "numpy",
        "torch",
        "torchvision",
    ):  # a store goes with the versions it was begun with
        notes["identity"][f"version of {name}"] = version(name)
    videos = (f"{earlier}/videos/val_{number}.mp4\0None None None\n" for number in range(4))
    notes["identity"]["videos"] = sha256("".join(videos).encode()).hexdigest()  # of absolute paths
    path.write_text(json.dumps(notes))
    before = (earlier / "features/shards/00000/00000000.safetensors").read_bytes()
    assert (
        extract.main(
            ["--run", "run", "input=videos/val.csv", "output=features", "features.shard_videos=2"]
        )
        == 0
    )
    assert (earlier / "features/shards/00000/00000000.safetensors").read_bytes() == before
    store = hv.FeatureStore("features")
    assert store.is_complete and store.matrix().shape == (8, 256)
    found = load_file(earlier / "features/shards/00000/00000001.safetensors")["stage3"]
    expected = load_file(earlier / "expected_features.safetensors")["stage3"]
    assert torch.allclose(found, expected, rtol=FLOAT, atol=FLOAT)
