"""The page of a comparison of two tests, with the curves of both runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hiera_video.config.load import load_config
from hiera_video.errors import HieraVideoError
from hiera_video.eval.compare import Comparison
from hiera_video.eval.compare_report import ComparedRun, write_comparison
from hiera_video.runtime.log import read_metrics


def write_page(path: Path, comparison: Comparison, results: Sequence[str]) -> None:
    """Write the page of a comparison.

    Args:
        path: HTML file to write.
        comparison: What `eval.compare.compare` found.
        results: The two `results.json`; the rest of each run is beside them.
    """
    first, second = (_read_run(Path(file).parent) for file in results)
    write_comparison(path, comparison, (first, second))


def _read_run(folder: Path) -> ComparedRun:
    """Return the curves of a run, and the last reconstructions of the one it started from."""
    try:
        pretrained = load_config(folder / "config.yaml").model.pretrained
    except (HieraVideoError, OSError):  # a test of weights that were trained elsewhere
        pretrained = None
    picture = Path(pretrained or folder) / "reconstructions" / "latest.png"
    return ComparedRun(
        name=folder.name,
        metrics=read_metrics(folder / "metrics.jsonl"),
        reconstructions=picture.read_bytes() if picture.is_file() else None,
    )
