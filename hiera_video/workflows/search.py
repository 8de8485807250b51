"""Examples in, the windows of a feature store that look like them out: what `tools/search.py` does."""

from __future__ import annotations

import csv
import io
import json
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hiera_video.config.schema import Config
from hiera_video.data.config import AugmentConfig, DataConfig
from hiera_video.data.manifest.record import Manifest, Record
from hiera_video.data.sampling import ClipConfig
from hiera_video.errors import ConfigError, DecodeError, FeatureError
from hiera_video.features.config import FeaturesConfig
from hiera_video.models.registry import ModelConfig, is_mae
from hiera_video.train.config import TrainConfig
from hiera_video.utils.text_files import read_text
from hiera_video.video.options import Backend

if TYPE_CHECKING:
    from hiera_video.features.store import FeatureStore, VideoFeatures

logger = logging.getLogger(__name__)
COLUMNS = (
    "example",
    "rank",
    "path",
    "row",
    "start_seconds",
    "end_seconds",
    "similarity",
    "example_seconds",
)
STRIP_FRAMES = 6


@dataclass(frozen=True, kw_only=True)
class Example:
    """A video whose like is searched for."""

    video: VideoFeatures
    is_stored: bool
    """It is one of the store's videos, and so no answer to itself."""


def read_names(path: str) -> list[str]:
    """The lines of a text file, blank ones and those that start with # left out. `ConfigError` where there are none."""
    if not Path(path).is_file():
        raise ConfigError(f"--list {path}: no such file; it names an example a line")
    found = [line.strip() for line in read_text(Path(path)).splitlines()]
    found = [line for line in found if line and not line.startswith("#")]
    if not found:
        raise ConfigError(f"--list {path}: names no example; write a path a line")
    return found


def search(
    store: FeatureStore,
    examples: Sequence[Example],
    topk: int,
    *,
    at: float | None = None,
    each_video_once: bool = False,
) -> list[dict[str, Any]]:
    """`COLUMNS` of the `topk` nearest windows of each example, by cosine. at: only the example's windows that this
    second lies in count. Raises `FeatureError` where an example has none, or the store holds nothing."""
    from hiera_video.features.search import SearchIndex

    index, clips, rows = SearchIndex(store), store.clips(), list[dict[str, Any]]()
    for example in examples:
        video = example.video
        (places,) = np.nonzero(_covers(video, at))
        if not len(places):
            raise FeatureError(
                f"{video.path}: no window of it lies at second {at:g}; they go from "
                f"{video.start_seconds[0]:g} to {video.end_seconds[-1]:g}"
            )
        without = [video.row] if example.is_stored else []
        found = index.search(
            video.features[places], topk, without=without, each_video_once=each_video_once
        )
        for rank, match in enumerate(found, 1):
            (facts,) = clips.slice(match.place, 1).to_pylist()
            seen = places[match.window]
            rows.append(
                {
                    "example": video.path,
                    "rank": rank,
                    **{key: facts[key] for key in ("path", "row")},
                    **{key: round(facts[key], 3) for key in ("start_seconds", "end_seconds")},
                    "similarity": round(match.similarity, 6),
                    "example_seconds": [
                        round(float(video.start_seconds[seen]), 3),
                        round(float(video.end_seconds[seen]), 3),
                    ],
                }
            )
    return rows


def _covers(video: VideoFeatures, at: float | None) -> NDArray[np.bool_]:
    if at is None:
        return np.ones(len(video.start_seconds), np.bool_)
    found: NDArray[np.bool_] = (video.start_seconds <= at) & (at < video.end_seconds)
    return found


def find_examples(
    store: FeatureStore,
    *,
    stored: Sequence[str | int],
    videos: Sequence[str],
    listed: Sequence[str],
    run: str | None,
) -> list[Example]:
    """Videos of the store, other videos, and names of either kind, which are looked for in the store first."""
    examples, others = [stored_example(store, item) for item in stored], list(videos)
    known = set(store.table().column("path").unique().to_pylist()) if listed else set[str]()
    for name in listed:
        path = next((path for path in (name, str(Path(name).resolve())) if path in known), None)
        if path is not None:
            examples.append(stored_example(store, path))
        elif Path(name).exists():
            others.append(name)
        else:
            raise ConfigError(
                f"{name}: is neither a path of the store nor a file; correct the list"
            )
    return examples + (new_examples(store, others, run) if others else [])


def stored_example(store: FeatureStore, video: str | int) -> Example:
    """One of the store's videos, by path or row. Raises `FeatureError` where it is not there or has no features."""
    try:
        found = store[video]
    except IndexError as error:
        raise FeatureError(str(error)) from error
    return Example(video=_with_features(found), is_stored=True)


def _with_features(video: VideoFeatures) -> VideoFeatures:
    if not len(video.start_seconds):
        why = (
            f"{video.status}: {video.message}"
            if video.message
            else f"{video.status}, shorter than a window"
        )
        raise FeatureError(f"{video.path}: has no features ({why}); choose another example")
    return video


def new_examples(store: FeatureStore, videos: Sequence[str], run: str | None) -> list[Example]:
    """Features of other videos, made as the store's were; run: a run or file with the store's weights, where they are no
    longer where they were. Raises `FeatureError` for other weights and for a video that cannot be read."""
    from hiera_video.features.store import FeatureStore
    from hiera_video.models.weights.digest import weights_digest
    from hiera_video.workflows.extract import make_encoder, run_extraction

    missing = [video for video in videos if not Path(video).exists()]
    if missing:
        raise ConfigError(
            f"{missing[0]}: no such file; an example is a video, or a path or row of the store"
        )
    config, recorded = config_of_store(store, run), store.notes["identity"]
    digest = weights_digest(make_encoder(config).model)
    if digest != recorded["weights"]:
        raise FeatureError(
            f"{config.model.pretrained}: holds other weights ({digest[:12]}…) than the store was made with "
            f"({recorded['weights'][:12]}…); their features cannot be compared; name the run or file with --run"
        )
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
            Example(video=_with_features(video), is_stored=False) for video in FeatureStore(folder)
        ]


def config_of_store(store: FeatureStore, run: str | None = None) -> Config:
    """What the store's features were made with, from its own notes; weights from `run` where given."""
    pretrained = run or store.notes.get("pretrained")
    if pretrained is None:
        raise FeatureError(
            "the store does not say where its weights came from; name the run or file with --run"
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
    """What the store's videos were read with."""
    return DataConfig(**_section(store, "data")).backend


def _section(store: FeatureStore, name: str) -> dict[str, Any]:
    identity = store.notes["identity"]
    return {
        key.split(".")[1]: value for key, value in identity.items() if key.startswith(f"{name}.")
    }


def as_csv(rows: Sequence[dict[str, Any]]) -> str:
    """`COLUMNS`, the example's seconds as `start-end`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        first, last = row["example_seconds"]
        writer.writerow([*(row[key] for key in COLUMNS[:-1]), f"{first}-{last}"])
    return text.getvalue()


def as_json(rows: Sequence[dict[str, Any]]) -> str:
    """One object a window."""
    return json.dumps(list(rows), indent=1, ensure_ascii=False) + "\n"


def sheet(rows: Sequence[dict[str, Any]], decoder: Backend = "pyav") -> bytes:
    """A contact sheet (PNG): each example, and under it what was found, read with `decoder`; a grey box for a video that
    cannot be read."""
    from hiera_video.viz.sheet import Strip, contact_sheet

    strips, last = list[Strip](), None
    for row in rows:
        if row["example"] != last:
            last = row["example"]
            strips.append(
                Strip(
                    title=last, frames=_frames(last, decoder, *row["example_seconds"]), heading=True
                )
            )
        seconds = f"{row['start_seconds']:.1f}–{row['end_seconds']:.1f} s"
        title = f"{row['rank']}  {row['similarity']:.3f}  {Path(row['path']).name}  {seconds}"
        frames = _frames(row["path"], decoder, row["start_seconds"], row["end_seconds"])
        strips.append(Strip(title=title, frames=frames))
    return contact_sheet(strips)


def write(path: str, content: bytes) -> None:
    """Raises `ConfigError` where `path` cannot be written."""
    try:
        Path(path).write_bytes(content)
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be written ({error.strerror}); name another file"
        ) from error


def _frames(path: str, decoder: Backend, start: float, end: float) -> NDArray[np.uint8] | None:
    from hiera_video.video import open_video

    try:
        with open_video(path, decoder) as video:
            times = np.asarray(video.times)
            inside = np.flatnonzero((times >= start - 1e-3) & (times < end - 1e-3))
            if not len(inside):
                return None
            places = np.unique(np.linspace(inside[0], inside[-1], STRIP_FRAMES).round().astype(int))
            return video.frames(places.tolist())
    except DecodeError as error:
        logger.warning("no picture: %s", error)
        return None
