"""Search a feature store for windows that look like an example: `hiera-video search`."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hiera_video.config.load import override_config
from hiera_video.config.schema import Config
from hiera_video.data.config import AugmentConfig, DataConfig
from hiera_video.data.manifest.record import Manifest, Record
from hiera_video.data.sampling import ClipConfig
from hiera_video.errors import ConfigError, DecodeError, FeatureError
from hiera_video.features.config import FeaturesConfig
from hiera_video.models.registry import ModelConfig, is_mae
from hiera_video.train.config import TrainConfig
from hiera_video.utils import atomic_files
from hiera_video.utils.short_paths import short_paths
from hiera_video.utils.text_files import csv_cell, read_text, unescape_names
from hiera_video.video.options import Backend

if TYPE_CHECKING:
    from torch import nn

    from hiera_video.features.search import SearchIndex
    from hiera_video.features.store import FeatureStore, VideoFeatures

logger = logging.getLogger(__name__)
STRIP_FRAMES = 6
"""Frames of a window on the contact sheet."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """A video to search for."""

    video: VideoFeatures
    is_stored: bool
    """True for a video of the store; its own windows are left out of the results."""


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """A window that was found for an example."""

    example: str
    """Path of the example."""
    rank: int
    """1 for the nearest window."""
    path: str
    """Path of the video with the window."""
    row: int
    """Row of that video in the store's manifest."""
    start_seconds: float
    """Start of the window, on the file's clock."""
    end_seconds: float
    """End of the window."""
    similarity: float
    """Cosine similarity, in [-1, 1]."""
    example_seconds: tuple[float, float]
    """Start and end of the example's nearest window."""


COLUMNS = [field.name for field in fields(SearchResult)]


def read_names(path: str) -> list[str]:
    """Read a text file with one name per line; blank lines and lines that start with # are skipped.

    Raises:
        ConfigError: There is no such file, or it has no names.
    """
    if not Path(path).is_file():
        raise ConfigError(
            f"--list {path}: no such file; give a text file with one example per line"
        )
    lines = [line.strip() for line in read_text(Path(path)).splitlines()]
    names = [line for line in lines if line and not line.startswith("#")]
    if not names:
        raise ConfigError(f"--list {path}: has no examples; write one path per line")
    return names


def search(
    store: FeatureStore,
    examples: Sequence[Example],
    topk: int,
    *,
    at: float | None = None,
    each_video_once: bool = False,
    index: SearchIndex | None = None,
) -> list[SearchResult]:
    """Find the nearest windows of each example by cosine similarity.

    Args:
        store: The features to search.
        examples: Videos with features of the same model and settings.
        topk: Number of windows per example, at most.
        at: Use only the example's windows at this time, in seconds; None: all.
        each_video_once: Return only the nearest window of each video.
        index: The store's index, where it is built already.

    Returns:
        The windows of each example by descending similarity, numbers rounded for display.

    Raises:
        FeatureError: An example has no window at `at`, or the store is empty.
    """
    from hiera_video.features.search import SearchIndex

    index = SearchIndex(store) if index is None else index
    clips, results = store.clips(), list[SearchResult]()
    for example in examples:
        video = example.video
        (chosen,) = np.nonzero(_covers(video, at))
        if not len(chosen):
            raise FeatureError(
                f"{video.path}: has no window at {at:g} s; its windows cover "
                f"{video.start_seconds[0]:g} to {video.end_seconds[-1]:g} s"
            )
        matches = index.search(
            video.features[chosen],
            topk,
            exclude_rows=[video.row] if example.is_stored else [],
            each_video_once=each_video_once,
        )
        for rank, match in enumerate(matches, 1):
            (found,) = clips.slice(match.index, 1).to_pylist()
            window = chosen[match.window]
            times = video.start_seconds[window], video.end_seconds[window]
            results.append(
                SearchResult(
                    example=video.path,
                    rank=rank,
                    path=found["path"],
                    row=found["row"],
                    start_seconds=round(found["start_seconds"], 3),
                    end_seconds=round(found["end_seconds"], 3),
                    similarity=round(match.similarity, 6),
                    example_seconds=(round(float(times[0]), 3), round(float(times[1]), 3)),
                )
            )
    return results


def _covers(video: VideoFeatures, at: float | None) -> NDArray[np.bool_]:
    if at is None:
        return np.ones(len(video.start_seconds), np.bool_)
    covers: NDArray[np.bool_] = (video.start_seconds <= at) & (at < video.end_seconds)
    return covers


def find_examples(
    store: FeatureStore,
    *,
    stored: Sequence[str | int],
    videos: Sequence[str],
    listed: Sequence[str],
    run: str | None,
    overrides: Sequence[str] = (),
) -> list[Example]:
    """Return the examples of a search.

    Args:
        store: The features to search.
        stored: Paths or rows of videos of the store.
        videos: Other video files.
        listed: Names of either kind; looked up in the store first.
        run: Run folder or file with the store's weights; None: where the store's metadata says.
        overrides: `key=value` overrides for reading other videos.

    Raises:
        ConfigError: A file or name does not exist, or an override would change the features.
        FeatureError: An example has no features, or the weights are not those of the store.
    """
    for text in overrides:
        key = text.partition("=")[0]
        if key in store.metadata["identity"]:
            raise ConfigError(f"{text}: the store's features depend on {key}; remove it")
    override_config(config_of_store(store, run or "none"), overrides)  # checks them in any case
    examples, others = [stored_example(store, item) for item in stored], list(videos)
    known = set(store.table().column("path").unique().to_pylist()) if listed else set[str]()
    for name in listed:
        path = next((path for path in (name, str(Path(name).resolve())) if path in known), None)
        if path is not None:
            examples.append(stored_example(store, path))
        elif Path(name).exists():
            others.append(name)
        else:
            raise ConfigError(f"{name}: is neither in the store nor a file; correct the list")
    return examples + (new_examples(store, others, run, overrides) if others else [])


def stored_example(store: FeatureStore, video: str | int) -> Example:
    """Return a video of the store, by its path or row.

    Raises:
        FeatureError: It is not in the store, or has no features.
    """
    try:
        found = store[video]
    except IndexError as error:
        raise FeatureError(str(error)) from error
    return Example(video=require_features(found), is_stored=True)


def require_features(video: VideoFeatures) -> VideoFeatures:
    """Return a video, or raise `FeatureError` if it has no features."""
    if not len(video.start_seconds):
        reason = video.message or "shorter than a window"
        raise FeatureError(
            f"{video.path}: has no features ({video.status}: {reason}); choose another example"
        )
    return video


def new_examples(
    store: FeatureStore, videos: Sequence[str], run: str | None, overrides: Sequence[str] = ()
) -> list[Example]:
    """Extract features of other videos, with the store's model and settings.

    Args:
        store: The features to search.
        videos: Video files.
        run: Run folder or file with the store's weights; None: where the store's metadata says.
        overrides: `key=value` overrides of its configuration.

    Raises:
        ConfigError: A file does not exist.
        FeatureError: The weights are not those of the store, or a video is unreadable.
    """
    from hiera_video.features.store import FeatureStore
    from hiera_video.workflows.extract import run_extraction
    from hiera_video.workflows.extraction_plan import make_encoder

    missing = [video for video in videos if not Path(video).exists()]
    if missing:
        raise ConfigError(
            f"{missing[0]}: no such file; an example is a video file, or a path or row of the store"
        )
    config = override_config(config_of_store(store, run), overrides)
    check_weights(store, config, make_encoder(config).model)
    records = tuple(
        Record(path=str(Path(video).resolve()), label=None, row=row)
        for row, video in enumerate(videos)
    )
    with tempfile.TemporaryDirectory() as folder:
        config = replace(config, features=replace(config.features, output=folder))
        run_extraction(
            config,
            Manifest(records=records, class_names=None, multi_label=False, source="examples"),
        )
        return [
            Example(video=require_features(video), is_stored=False)
            for video in FeatureStore(folder)
        ]


def check_weights(store: FeatureStore, config: Config, model: nn.Module) -> None:
    """Raise `FeatureError` unless a model has the weights that a store was extracted with."""
    from hiera_video.models.weights.digest import weights_digest

    digest, expected = weights_digest(model), store.metadata["identity"]["weights"]
    if digest != expected:
        raise FeatureError(
            f"{config.model.pretrained}: has other weights ({digest[:12]}…) than the store "
            f"({expected[:12]}…), so features cannot be compared; give the run or file with --run"
        )


def config_of_store(store: FeatureStore, run: str | None = None) -> Config:
    """Return the configuration that a store was extracted with.

    Args:
        store: The store.
        run: Run folder or file with its weights; None: where the store's metadata says.

    Raises:
        FeatureError: The metadata does not say where the weights are.
    """
    pretrained = run or store.metadata.get("pretrained")
    if pretrained is None:
        raise FeatureError(
            "the store does not record where its weights are; give the run or file with --run"
        )
    model = _section(store, "model")
    return Config(
        model=ModelConfig(**model, pretrained=pretrained),
        clip=ClipConfig(**_section(store, "clip")),
        augment=AugmentConfig(**_section(store, "augment")),
        data=DataConfig(**_section(store, "data"), workers=0),
        train=TrainConfig(task="pretrain" if is_mae(model["name"]) else "classify"),
        features=FeaturesConfig(**_section(store, "features")),
    )


def decoder_of_store(store: FeatureStore) -> Backend:
    """Return the backend that decoded the store's videos."""
    return DataConfig(**_section(store, "data")).backend


def _section(store: FeatureStore, name: str) -> dict[str, Any]:
    identity = store.metadata["identity"]
    return {
        key.split(".")[1]: value for key, value in identity.items() if key.startswith(f"{name}.")
    }


def as_csv(results: Sequence[SearchResult]) -> str:
    """Return the results as CSV with one column per field, `example_seconds` as `start-end`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for result in results:
        *values, (start, end) = astuple(result)
        cells = [csv_cell(value) if isinstance(value, str) else value for value in values]
        writer.writerow([*cells, f"{start}-{end}"])
    return text.getvalue()


def as_json(results: Sequence[SearchResult]) -> str:
    """Return the results as a JSON list."""
    return json.dumps([asdict(result) for result in results], indent=1, ensure_ascii=False) + "\n"


def result_sheet(results: Sequence[SearchResult], decoder: Backend = "pyav") -> bytes:
    """Draw a contact sheet: each example, and below it the windows that were found.

    Args:
        results: Results of `search`.
        decoder: Backend that decodes the videos.

    Returns:
        A PNG file. A grey box stands for a video that cannot be read.
    """
    from hiera_video.viz.sheet import Strip, contact_sheet

    strips, last = list[Strip](), None
    names = short_paths(result.path for result in results)
    for result in results:
        if result.example != last:
            last = result.example
            frames = window_frames(last, decoder, *result.example_seconds)
            strips.append(Strip(title=last, frames=frames, heading=True))
        start, end = result.start_seconds, result.end_seconds
        title = (
            f"{result.rank}  {result.similarity:.3f}  {names[result.path]}  {start:.1f}–{end:.1f} s"
        )
        strips.append(Strip(title=title, frames=window_frames(result.path, decoder, start, end)))
    return contact_sheet(strips)


def write_output(path: str, content: bytes) -> None:
    """Write a file of results.

    Raises:
        ConfigError: It cannot be written.
    """
    try:
        atomic_files.write_output(Path(path), content)
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be written ({error.strerror}); choose another file"
        ) from error


def window_frames(
    path: str, decoder: Backend, start: float, end: float
) -> NDArray[np.uint8] | None:
    """Return `STRIP_FRAMES` frames of a window; None, and a warning, if they cannot be read."""
    from hiera_video.video import open_video

    if not os.path.lexists(path):  # the index escapes names that are not UTF-8
        path = unescape_names(path)
    try:
        with open_video(path, decoder) as video:
            times = np.asarray(video.times)
            inside = np.flatnonzero((times >= start - 1e-3) & (times < end - 1e-3))
            if not len(inside):
                return None
            chosen = np.unique(np.linspace(inside[0], inside[-1], STRIP_FRAMES).round().astype(int))
            return video.frames(chosen.tolist())
    except DecodeError as error:
        logger.warning("not on the contact sheet: %s", error)
        return None
