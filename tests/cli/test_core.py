"""The core, without any extra: create, save, load and run a model on a video."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hiera_video.utils.extras import EXTRAS
from hiera_video.video.encode import write_video

MODULES = sorted({module for modules in EXTRAS.values() for module in modules})
HIDE = f"""
import sys
from importlib.machinery import PathFinder
class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        hidden = name.partition(".")[0] in {MODULES}
        return None if hidden else super().find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = Finder
"""
USE = """
import torch, hiera_video as hv
from hiera_video.cli.main import run_command
from hiera_video.cli.run import exit_code

model = hv.create_model("hiera_micro_16x32", num_classes=3)
hv.save_pretrained(model, "saved")
assert hv.from_pretrained("saved")(torch.zeros(1, 3, 16, 32, 32)).shape == (1, 3)
with hv.open_video("clip.mp4") as video:
    assert video.frames([0, 5]).shape == (2, 40, 48, 3)
assert len(hv.predict(hv.load("saved"), "clip.mp4", topk=3)) == 3
arguments = ["predict", "clip.mp4", "--model", "hiera_micro_16x32", "--checkpoint", "saved"]
assert exit_code(lambda: run_command([*arguments, "output=found.csv"])) == 0
assert exit_code(lambda: run_command(["configs"])) == 0
assert exit_code(lambda: run_command(["extract", "--run", "x", "input=a"])) == 2
assert exit_code(lambda: run_command(["train", "--cfg", "k400_hiera_b"])) == 2
try:
    hv.FeatureStore
except hv.HieraVideoError as error:
    print(error, file=sys.stderr)
"""


@pytest.mark.slow
def test_the_core_needs_no_extra(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (20, 40, 48, 3), dtype=np.uint8)
    write_video(tmp_path / "clip.mp4", frames, fps=12)
    command = [sys.executable, "-c", HIDE + USE]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-3:] == [
        "error: pyarrow, fsspec are not installed; pip install 'hiera-video[features]'",
        "error: torchmetrics, matplotlib, jinja2 are not installed; "
        "pip install 'hiera-video[train]'",
        "pyarrow is not installed; pip install 'hiera-video[features]'",
    ]
