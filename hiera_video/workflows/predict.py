"""Answers for files and folders: what `tools/predict.py` does."""

from __future__ import annotations

import csv
import io
import itertools
import json
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hiera_video.config.load import load_config
from hiera_video.data.manifest.record import VIDEO_SUFFIXES
from hiera_video.errors import ConfigError, DecodeError
from hiera_video.models.registry import config_for
from hiera_video.video.options import Backend, FrameFolder

if TYPE_CHECKING:
    from hiera_video.workflows.load_run import LoadedRun

logger = logging.getLogger(__name__)
DONE, NOTHING_READ, SOME_BROKEN = 0, 2, 3


@dataclass(frozen=True)
class Answerer:
    """Who answers: a run, by one of its checkpoints, or the model of a name with weights."""

    run: str | None
    which: Literal["best", "last"] | None = None
    model: str | None = None
    pretrained: str | None = None

    def backend(self) -> Backend:
        """What videos are read with: as the run did. `ConfigError` where it is none. No torch."""
        if self.run is None:
            config_for(str(self.model))
            return "pyav"
        written = Path(self.run) / "config.yaml"
        if not written.is_file():
            raise ConfigError(f"--run {self.run}: holds no config.yaml; give the out_dir of a run")
        return load_config(written).data.backend

    def load(self) -> LoadedRun:
        """With the model on the GPU where there is one."""
        import torch

        from hiera_video.workflows.load_run import load

        loaded = load(str(self.run or self.pretrained), self.which, model=self.model)
        loaded.model.to("cuda" if torch.cuda.is_available() else "cpu")
        return loaded


def find_videos(paths: Sequence[str], backend: Backend = "pyav") -> list[Path]:
    """Files as they are, folders' videos in alphabetical order, each once; for a `FrameFolder` backend the folders that
    hold frames. `ConfigError` for what is not there."""
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        if path.is_dir():
            inside = (
                _frame_folders(path, backend)
                if isinstance(backend, FrameFolder)
                else _video_files(path)
            )
            if not inside:
                raise ConfigError(f"{path}: holds no {_wanted(backend)}")
            found |= dict.fromkeys(inside)
        elif not path.exists():
            raise ConfigError(f"{path}: no such file or folder")
        elif isinstance(backend, FrameFolder):
            raise ConfigError(
                f"{path}: is a file, and data.decoder=frames, which the run has, reads folders of frames; take the video "
                "apart first, for example with ffmpeg"
            )
        else:
            found[path] = None
    return list(found)


def _video_files(folder: Path) -> list[Path]:
    return sorted(
        item
        for item in folder.rglob("*")
        if item.suffix.lower() in VIDEO_SUFFIXES
        and item.is_file()
        and not item.name.startswith(".")
    )


def _frame_folders(folder: Path, naming: FrameFolder) -> list[Path]:
    """`folder` itself and those below it, where they hold a picture that is named as a frame."""
    pattern = naming.pattern()
    return sorted(
        Path(place) for place, _, names in os.walk(folder) if any(map(pattern.fullmatch, names))
    )


def _wanted(backend: Backend) -> str:
    if isinstance(backend, FrameFolder):
        return f"frames, as the run reads them (data.frame_template={backend.template or 'null'})"
    return f"videos (read are {' '.join(VIDEO_SUFFIXES)})"


def predict_files(
    paths: Sequence[Path],
    answerer: Answerer,
    *,
    topk: int,
    along: bool,
    window: float | None,
    step: float | None,
    csv_file: str | None,
    json_file: str | None,
) -> int:
    """Print a line a video or stretch, write the files asked for. Exit code 3 where some videos could not be read, 2
    where none could; each of those is one line."""
    for file in filter(None, (csv_file, json_file)):
        _check_writable(file)
    loaded, rows, broken = answerer.load(), list[dict[str, Any]](), 0
    for path in paths:
        try:
            for row in _answers(loaded, path, topk=topk, along=along, window=window, step=step):
                rows.append(row)
                said = ", ".join(
                    f"{item['label']} {item['probability']:.1%}" for item in row["answers"]
                )
                print(
                    f"{path}  {row['start_seconds']:z.2f}–{row['end_seconds']:.2f} s  {said}",
                    flush=True,
                )
        except DecodeError as error:
            broken += 1
            logger.error("error: %s", error)
    if json_file:
        _write(json_file, json.dumps(rows, indent=1, ensure_ascii=False))
    if csv_file:
        _write(csv_file, _csv(rows))
    if broken:
        logger.error("%d of %d videos could not be read", broken, len(paths))
    return DONE if not broken else SOME_BROKEN if rows else NOTHING_READ


def predict_webcam(
    device: str, answerer: Answerer, *, topk: int, window: float, step: float | None
) -> int:
    """Print a line for each `window` seconds that the camera sees, until it ends or Ctrl-C comes."""
    from hiera_video.video.camera import camera_frames
    from hiera_video.workflows.sliding_window import predict_live

    pictures = camera_frames(device)
    first = next(pictures, None)  # a camera that is not there is told before the model is loaded
    loaded = answerer.load()
    try:
        shown = itertools.chain([first] if first else [], pictures)
        for part in predict_live(loaded, shown, window=window, step=step, topk=topk):
            said = ", ".join(f"{label} {share:.1%}" for label, share in part.answers)
            print(f"{part.start_seconds:z.2f}–{part.end_seconds:.2f} s  {said}", flush=True)
    except KeyboardInterrupt:
        logger.info("stopped")
    return DONE


def _answers(
    run: LoadedRun, path: Path, *, topk: int, along: bool, window: float | None, step: float | None
) -> Iterator[dict[str, Any]]:
    from hiera_video.workflows.load_run import predict
    from hiera_video.workflows.sliding_window import predict_windows

    if along:
        for part in predict_windows(run, path, window=window, step=step, topk=topk):
            yield _row(path, part.start_seconds, part.end_seconds, part.answers)
        return
    found = predict(run, path, topk)
    spans = found[0].clip_seconds
    start, end = min(first for first, _ in spans), max(last for _, last in spans)
    yield _row(path, start, end, [(item.label, item.probability) for item in found])


def _row(
    path: Path, start: float, end: float, answers: Sequence[tuple[str, float]]
) -> dict[str, Any]:
    return {
        "path": str(path),
        "start_seconds": round(start, 3),
        "end_seconds": round(end, 3),
        "answers": [{"label": label, "probability": round(share, 6)} for label, share in answers],
    }


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "start_seconds", "end_seconds", "rank", "label", "probability"])
    for row in rows:
        for rank, item in enumerate(row["answers"], 1):
            writer.writerow(
                [
                    row["path"],
                    row["start_seconds"],
                    row["end_seconds"],
                    rank,
                    item["label"],
                    item["probability"],
                ]
            )
    return text.getvalue()


def _check_writable(path: str) -> None:
    """`ConfigError` before the work whose result could not be kept."""
    folder = os.path.dirname(path) or "."  # noqa: PTH120 (os.path answers for closed folders too, where Path raises)
    if not os.path.isdir(folder):  # noqa: PTH112
        raise ConfigError(f"{path}: cannot be written, there is no folder {folder}; make it first")
    if os.path.isdir(path):  # noqa: PTH112
        raise ConfigError(f"{path}: cannot be written, is a folder; name a file")
    if not os.access(path if os.path.exists(path) else folder, os.W_OK):  # noqa: PTH110
        raise ConfigError(f"{path}: cannot be written; check the permissions")


def _write(path: str, text: str) -> None:
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror})") from error
