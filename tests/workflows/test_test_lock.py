"""Two tests of one run at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from hiera_video.config.load import load_config
from hiera_video.data.manifest.record import Manifest, Record
from hiera_video.errors import CheckpointError, ConfigError
from hiera_video.eval.shards import lock_results
from hiera_video.workflows import detection_test, test

CONFIG = Path(__file__).parents[2] / "configs/motion_hiera_micro.yaml"


@pytest.mark.parametrize("run", [test.run_test, detection_test.run_detection_test])
def test_the_second_test_ends_in_one_line(
    run: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert callable(run)
    (tmp_path / "empty.pt").touch()
    keys = [f"out_dir={tmp_path / 'run'}", f"test.checkpoint={tmp_path / 'empty.pt'}"]
    config = load_config(CONFIG, keys)
    record = Record(path="a.mp4", label=0, row=0)
    manifest = Manifest(records=(record,), class_names=None, multi_label=False, source="val.csv")
    with lock_results(tmp_path / "run"):
        with pytest.raises(ConfigError, match=r"run: another test is writing its results there"):
            run(config, manifest, dry_run=False)
        with pytest.raises(CheckpointError):  # writes nothing
            run(config, manifest, dry_run=True)
        monkeypatch.setenv("RANK", "1")  # rank 0 holds the lock of this test
        with pytest.raises(CheckpointError):
            run(config, manifest, dry_run=False)
