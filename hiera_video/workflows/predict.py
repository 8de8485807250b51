"""The `predict` command: class predictions for files, folders and cameras."""

from __future__ import annotations

import csv
import io
import itertools
import json
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hiera_video.config.load import load_config, override_config, run_config_file
from hiera_video.config.schema import Config
from hiera_video.data.manifest.class_folders import is_video, picture_folders
from hiera_video.data.manifest.read import read_manifest
from hiera_video.data.manifest.record import VIDEO_SUFFIXES, Record
from hiera_video.data.sampling import ClipConfig
from hiera_video.errors import ConfigError, DecodeError
from hiera_video.models.registry import ModelConfig, config_for
from hiera_video.utils import atomic_files
from hiera_video.utils.safe_paths import walk_folders
from hiera_video.utils.text_files import count_of, csv_cell, encode_json, encode_text, printable
from hiera_video.video.options import Backend, FrameFolder

if TYPE_CHECKING:
    from hiera_video.workflows.load_run import LoadedRun
    from hiera_video.workflows.sliding_window import SegmentPrediction

logger = logging.getLogger(__name__)
DONE, NOTHING_READ, SOME_UNREADABLE = 0, 2, 3

LIST_SUFFIXES = (".csv", ".txt", ".tsv", ".lst", ".list", ".json")
"""Suffixes of files that are lists of videos."""
MIN_UNSEEN = 0.1
"""Seconds of a segment without frames that the model saw, from which on they are printed."""
DEFAULT_MODEL = "hiera_base_16x224"
"""Model of the configuration that reads videos where no model is involved."""
Window = float | Literal["clip"]
"""Length of a segment in seconds, or that of the model's clip."""


@dataclass(frozen=True)
class ModelSource:
    """The model to predict with: a checkpoint of a run, or a model's name and its weights.

    Without either it describes how videos are read, and cannot be loaded.
    """

    run: str | None
    which: Literal["best", "last"] | None = None
    model: str | None = None
    pretrained: str | None = None
    overrides: tuple[str, ...] = ()
    """`key=value` overrides of the configuration."""

    def backend(self) -> Backend:
        """Return the decoder: the run's, or PyAV. Imports no torch.

        Raises:
            ConfigError: `run` is not the folder of a run, `model` is unknown, or an override is
                invalid.
        """
        if self.run is not None:
            return load_config(run_config_file(self.run), self.overrides).data.backend
        name = self.model or DEFAULT_MODEL
        frames = config_for(name).input_size[0]
        if not self.overrides:
            return "pyav"
        model, clip = ModelConfig(name=name), ClipConfig(num_frames=frames)
        return override_config(Config(model=model, clip=clip), self.overrides).data.backend

    def load(self) -> LoadedRun:
        """Load the model, onto the GPU if there is one."""
        import torch

        from hiera_video.workflows.load_run import load, override_run

        loaded = load(str(self.run or self.pretrained), self.which, model=self.model)
        loaded = override_run(loaded, self.overrides)
        loaded.model.to("cuda" if torch.cuda.is_available() else "cpu")
        return loaded


def run_of_checkpoint(folder: str | Path) -> Path | None:
    """Return the folder of the run that a checkpoint's folder lies in; None for other folders."""
    path = Path(folder)
    run = path.parent.parent
    is_run = (path / "config.yaml").exists()  # runs may be kept in a folder of this name
    is_checkpoint = path.parent.name == "checkpoints" and path.is_dir() and not is_run
    return run if is_checkpoint and (run / "config.yaml").is_file() else None


def find_videos(
    paths: Sequence[str],
    backend: Backend = "pyav",
    *,
    root: str | None = None,
    follow_links: bool = False,
) -> list[Path]:
    """Return the videos at `paths`, each once.

    Args:
        paths: Videos, and folders that are searched recursively, in alphabetical order.
        backend: With a `FrameFolder`, the videos are the folders that contain matching frames.
        root: Folder that symbolic links to folders may lead into.
        follow_links: Enter all symbolic links to folders.

    Raises:
        ConfigError: A path does not exist, contains no videos, or does not suit `backend`.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        if path.is_dir():
            found |= dict.fromkeys(_videos_in(path, backend, root, follow_links))
        elif not path.exists():
            raise ConfigError(f"{path}: no such file or folder")
        elif isinstance(backend, FrameFolder):
            raise ConfigError(
                f"{path}: is a file, but the run reads folders of frames (data.decoder=frames); "
                "extract the frames first, for example with ffmpeg"
            )
        else:
            found[path] = None
    return list(found)


def find_records(
    paths: Sequence[str], backend: Backend = "pyav", *, follow_links: bool = False
) -> list[Record]:
    """Return the videos at `paths`: those of lists in their order, the others as `find_videos`.

    Raises:
        ConfigError: As for `find_videos`.
        ManifestError: A list has an error.
    """
    records: list[Record] = []
    others: list[str] = []

    def flush() -> None:
        if others:
            found = find_videos(others, backend, follow_links=follow_links)
            records.extend(Record(path=str(path), label=None, row=0) for path in found)
            others.clear()

    for path in paths:
        if Path(path).suffix.lower() in LIST_SUFFIXES and Path(path).is_file():
            flush()
            frames = backend if isinstance(backend, FrameFolder) else None
            records.extend(read_manifest(path, follow_links=follow_links, frames=frames).records)
        else:
            others.append(path)
    flush()
    return [replace(record, row=row) for row, record in enumerate(records)]


def _videos_in(folder: Path, backend: Backend, root: str | None, follow_links: bool) -> list[Path]:
    skipped: list[str] = []

    def enter(link: str) -> bool:
        inside = root is not None and Path(link).resolve().is_relative_to(Path(root).resolve())
        if not (follow_links or inside):
            skipped.append(link)
        return follow_links or inside

    if isinstance(backend, FrameFolder):
        is_frame = backend.is_frame
        walked = walk_folders(folder, enter, is_leaf=lambda names: any(map(is_frame, names)))
        videos = [Path(path) for path, names in walked if any(map(is_frame, names))]
        kind = f"frames that match the run's data.frame_template={backend.template or 'null'}"
    else:
        walked = walk_folders(folder, enter)
        files = (Path(path, name) for path, names in walked for name in names if is_video(name))
        videos = [path for path in files if path.is_file()]
        kind = f"videos ({' '.join(VIDEO_SUFFIXES)})"
    remedy = "pass --follow-links, or set data.follow_links=true, to read what is behind them"
    if not videos:
        links = (
            f" apart from {count_of(len(skipped), 'link')} to folders; {remedy}" if skipped else ""
        )
        frames = next(picture_folders(folder), None) if backend == "pyav" else None
        also = f", but folders of pictures ({frames} …); data.decoder=frames reads those"
        raise ConfigError(f"{folder}: contains no {kind}{links}{also if frames else ''}")
    if skipped:
        logger.warning(
            "warning: %s: did not follow %s to folders (%s%s); %s",
            folder, count_of(len(skipped), "link"), skipped[0],
            " …" if len(skipped) > 1 else "", remedy,
        )  # fmt: skip
    return sorted(videos)


def predict_files(
    videos: Sequence[Path | Record],
    source: ModelSource,
    *,
    topk: int,
    window: Window | None,
    step: float | None,
    csv_file: str | None,
    json_file: str | None,
) -> int:
    """Print the predictions for videos, one line for each video or segment, and write the files.

    Args:
        videos: Videos, or records of lists.
        source: The model.
        topk: Number of classes.
        window: Predict each segment of this length; None predicts whole videos.
        step: Seconds from the start of a segment to the next; by default `window`.
        csv_file: File for the predictions as CSV, one line for each class.
        json_file: File for the predictions as JSON, one object for each video or segment.

    Returns:
        Exit code: 0; 3 if some videos are unreadable, each logged in one line; 2 if all are.

    Raises:
        ConfigError: A file cannot be written.
    """
    for file in filter(None, (csv_file, json_file)):
        check_writable(file)
    run, rows, unreadable = source.load(), list[dict[str, Any]](), 0
    for path, found in _predict_all(run, videos, topk=topk, window=window, step=step):
        if isinstance(found, DecodeError):
            unreadable += 1
            logger.error("error: %s", found)
            continue
        print(printable(f"{path}  {_format(found)}"), flush=True)
        rows.append(_row(path, found))
    if json_file:
        write_file(json_file, encode_json(json.dumps(rows, indent=1, ensure_ascii=False)))
    if csv_file:
        write_file(csv_file, encode_text(_csv(rows)))
    if not unreadable:
        return DONE
    logger.error("%d of %s unreadable", unreadable, count_of(len(videos), "video"))
    return SOME_UNREADABLE if rows else NOTHING_READ


def predict_webcam(
    device: str, source: ModelSource, *, topk: int, window: float, step: float | None
) -> int:
    """Print a prediction for each segment of a camera's stream, until it ends or Ctrl-C.

    Args:
        device: Path of the camera, such as `/dev/video0`.
        source: The model.
        topk: Number of classes.
        window: Length of a segment in seconds.
        step: Seconds from the start of a segment to the next; by default `window`.

    Raises:
        ConfigError: The camera does not exist or cannot be read.
    """
    from hiera_video.video.camera import camera_frames
    from hiera_video.workflows.sliding_window import predict_live

    frames = camera_frames(device)
    first = next(frames, None)  # report a missing camera before the model is loaded
    run = source.load()
    try:
        stream = itertools.chain([first] if first else [], frames)
        for prediction in predict_live(run, stream, window=window, step=step, topk=topk):
            print(printable(_format(prediction)), flush=True)
    except KeyboardInterrupt:
        logger.info("stopped")
    return DONE


def _predict_all(
    run: LoadedRun,
    videos: Sequence[Path | Record],
    *,
    topk: int,
    window: Window | None,
    step: float | None,
) -> Iterator[tuple[str, SegmentPrediction | DecodeError]]:
    """Yield the predictions of each video, and the error of each unreadable one."""
    from hiera_video.workflows.load_run import predict_videos
    from hiera_video.workflows.sliding_window import SegmentPrediction, predict_windows

    paths = [video.path if isinstance(video, Record) else str(video) for video in videos]
    if window is not None:
        seconds = None if window == "clip" else window
        for path, video in zip(paths, videos):
            try:
                for segment in predict_windows(run, video, window=seconds, step=step, topk=topk):
                    yield path, segment
            except DecodeError as error:
                yield path, error
        return
    for path, found in zip(paths, predict_videos(run, videos, topk)):
        if isinstance(found, DecodeError):
            yield path, found
            continue
        clips = found[0].clip_seconds
        start, end = min(start for start, _ in clips), max(end for _, end in clips)
        yield (
            path,
            SegmentPrediction(
                start_seconds=start,
                end_seconds=end,
                seen_seconds=(start, end),
                top_classes=tuple((item.label, item.probability) for item in found),
            ),
        )


def _format(prediction: SegmentPrediction) -> str:
    classes = ", ".join(f"{label} {value:.1%}" for label, value in prediction.top_classes)
    start, end = prediction.start_seconds, prediction.end_seconds
    first, last = prediction.seen_seconds
    longer = end - start - (last - first) > MIN_UNSEEN
    seen = f" (frames of {first:z.2f}–{last:.2f} s)" if longer else ""
    return f"{start:z.2f}–{end:.2f} s{seen}  {classes}"


def _row(path: str, prediction: SegmentPrediction) -> dict[str, Any]:
    return {
        "path": path,
        "start_seconds": round(prediction.start_seconds, 3),
        "end_seconds": round(prediction.end_seconds, 3),
        "seen_seconds": [round(seconds, 3) for seconds in prediction.seen_seconds],
        "answers": [
            {"label": label, "probability": round(probability, 6)}
            for label, probability in prediction.top_classes
        ],
    }


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = ("path", "start_seconds", "end_seconds", "rank", "label", "probability")
    writer.writerow([*columns, "seen_start_seconds", "seen_end_seconds"])
    for row in rows:
        segment = (csv_cell(row["path"]), row["start_seconds"], row["end_seconds"])
        for rank, item in enumerate(row["answers"], 1):
            answer = (rank, csv_cell(item["label"]), item["probability"])
            writer.writerow([*segment, *answer, *row["seen_seconds"]])
    return text.getvalue()


def check_writable(path: str) -> None:
    """Raise `ConfigError` unless the file can be written."""
    # os.path returns False for folders that may not be read, where Path raises
    folder = os.path.dirname(path) or "."  # noqa: PTH120
    if not os.path.isdir(folder):  # noqa: PTH112
        raise ConfigError(
            f"{path}: cannot be written, there is no folder {folder}; create it first"
        )
    if os.path.isdir(path):  # noqa: PTH112
        raise ConfigError(f"{path}: cannot be written, it is a folder; name a file")
    if not os.access(path if os.path.exists(path) else folder, os.W_OK):  # noqa: PTH110
        raise ConfigError(f"{path}: cannot be written; check the permissions")


def write_file(path: str, content: bytes) -> None:
    """Write a file, or raise `ConfigError`."""
    try:
        atomic_files.write_output(Path(path), content)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror})") from error
