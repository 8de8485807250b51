"""Assemble the page from a run, and serve it: `hiera-video app`."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hiera_video.app.uploads import AppLimits, Uploads
from hiera_video.config.load import load_config
from hiera_video.config.schema import Config
from hiera_video.data.manifest.record import Record
from hiera_video.errors import ConfigError, HieraVideoError
from hiera_video.workflows.build import read_split
from hiera_video.workflows.predict import ModelSource, find_records

if TYPE_CHECKING:
    import gradio as gr

    from hiera_video.app.analysis import Analyser

logger = logging.getLogger(__name__)
MAX_EXAMPLES = 8


def run_app(
    source: ModelSource,
    *,
    mae: str | None,
    store: str | None,
    examples: Sequence[str],
    limits: AppLimits,
    port: int,
) -> int:
    """Load the models and serve the page until it is interrupted; return the exit code.

    Args:
        source: The classifier.
        mae: Run of masked pre-training; None: the one that the classifier was fine-tuned from, if
            it is still there.
        store: Folder of a feature store to search.
        examples: Videos, folders or lists to pick from; empty: the test or validation list of the
            run.
        limits: Limits of the page.
        port: Port on 127.0.0.1.

    Raises:
        ConfigError: An argument is invalid, or the port is taken.
        CheckpointError: A checkpoint is missing or damaged.
    """
    from hiera_video.app.serve import check_port, serve

    check_port(port)  # before the models are loaded
    logging.getLogger("faiss.loader").setLevel(logging.WARNING)
    analyser = make_analyser(source, mae=mae, store=store, limits=limits)
    records = find_records(examples) if examples else own_examples(analyser.run.config)
    title = Path(source.run).resolve().name if source.run else str(source.model)

    def make(uploads: Uploads) -> gr.Blocks:
        from hiera_video.app.page import make_page

        return make_page(analyser, uploads, copy_examples(records, uploads), title)

    serve(make, limits=limits, port=port, on_start=partial(_report_start, title))
    logger.info("stopped; all uploads are deleted")
    return 0


def _report_start(title: str, address: str) -> None:
    print(f"{title}: {address} (Ctrl-C stops)", flush=True)


def make_analyser(
    source: ModelSource, *, mae: str | None, store: str | None, limits: AppLimits
) -> Analyser:
    """Load the models; arguments and errors as for `run_app`."""
    from hiera_video.app.analysis import Analyser
    from hiera_video.workflows.segments import settings_of

    run = source.load()
    if mae is None and source.run is not None:
        mae = pretraining_of(run.config)
    autoencoder = ModelSource(mae).load() if mae is not None else None
    near = None
    if store is not None:
        from hiera_video.app.nearest import NearVideos

        near = NearVideos(store, limits)
    return Analyser(run, limits, mae=autoencoder, near=near, settings=settings_of(source))


def pretraining_of(config: Config) -> str | None:
    """Return the run of masked pre-training that a run started from, if it is still there."""
    folder = config.model.pretrained
    if folder is None or not (Path(folder) / "config.yaml").is_file():
        return None
    try:
        is_mae = load_config(Path(folder) / "config.yaml").train.task == "pretrain"
    except ConfigError:
        return None
    return folder if is_mae and (Path(folder) / "checkpoints").is_dir() else None


def own_examples(config: Config) -> Sequence[Record]:
    """Return the videos of the run's test or validation list; none if it cannot be read."""
    if config.data.test is None and config.data.val is None:
        return ()
    try:
        return read_split(config, "test").records
    except HieraVideoError as error:
        logger.info("no examples: %s", error)
        return ()


def copy_examples(records: Sequence[Record], uploads: Uploads) -> list[Path]:
    """Copy videos into the page's folder: first one of each class, `MAX_EXAMPLES` at most."""
    turns = Counter[Any]()
    order = []
    for row, record in enumerate(records):
        order.append((turns[record.label], row))
        turns[record.label] += 1
    copies = list[Path]()
    for _, row in sorted(order):
        path = Path(records[row].path)
        if len(copies) == MAX_EXAMPLES:
            break
        if path.is_file() and path.stat().st_size <= uploads.limits.max_bytes:
            copies.append(uploads.add_example(path, f"example_{len(copies) + 1}"))
    return copies
