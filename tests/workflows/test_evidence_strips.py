"""Evidence strips of a test's report are those of `hv.explain`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import nn

import hiera_video as hv
from hiera_video.data.manifest.record import Record
from hiera_video.models.factory import create_model
from hiera_video.viz.overlays import overlay
from hiera_video.workflows.evidence_strips import evidence_drawer
from hiera_video.workflows.load_run import load


def test_strips_show_the_evidence_for_the_class(run_folder: Path, films: Path) -> None:
    run = load(run_folder)
    draw = evidence_drawer(run.config, run.model)
    assert draw is not None
    found = hv.explain(run, films / "a.mp4", 1)
    drawn = draw(Record(path=str(films / "a.mp4"), label=None, row=0), 1)
    assert drawn.shape == (16, 32, 32, 3)
    assert np.array_equal(drawn, overlay(found.frames, found.maps - found.maps.mean()))


def test_other_models_have_none(run_folder: Path) -> None:
    config = load(run_folder).config
    assert evidence_drawer(config, nn.Linear(2, 2)) is None
    assert evidence_drawer(config, create_model("hiera_micro_16x32", num_classes=0)) is None
    # its class token is classified, so a test of it has a report without evidence
    assert evidence_drawer(config, create_model("mvitv2_micro_16x32", num_classes=3)) is None
