"""Lists of `finetune`: a folder or list of videos, checked and divided by class and source."""

from __future__ import annotations

import json
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePath

from hiera_video.config.schema import Config
from hiera_video.data.manifest.class_names import find_class_names, write_class_names
from hiera_video.data.manifest.list_file import format_line
from hiera_video.data.manifest.read import read_manifest
from hiera_video.data.manifest.record import Manifest, as_tuple
from hiera_video.data.prepare.sources import name_sources, read_groups, source_names
from hiera_video.data.prepare.split import PARTS, Part, split_parts, take_part
from hiera_video.errors import ConfigError, ManifestError
from hiera_video.eval.class_names import quote_names
from hiera_video.utils.atomic_files import write_atomic
from hiera_video.utils.checks import require
from hiera_video.utils.text_files import count_of, read_json
from hiera_video.workflows.build import align_val
from hiera_video.workflows.finetune_recipe import HELD_OUT, validation_share

logger = logging.getLogger(__name__)
FACTS, RECIPE = "split.json", "recipe.yaml"


@dataclass(frozen=True, kw_only=True)
class ListRequest:
    """What `finetune` is given to read; a split is reused only for an equal request."""

    videos: str
    """Folder of class folders, or a list."""
    root: str | None = None
    """Folder that relative paths of all lists start from; None: each list's own."""
    val: str | None = None
    """Validation videos; None: held out of `videos`."""
    test: str | None = None
    """Test videos; None: held out of `videos`."""
    groups: str | None = None
    """CSV file with the group of each video."""
    source: str | None = None
    """Regular expression whose group in a path is the source."""

    def absolute(self) -> dict[str, str | None]:
        """Return the fields, with absolute paths."""
        paths = {
            key: value and os.path.abspath(value)  # noqa: PTH100 (links stay)
            for key, value in asdict(self).items()
        }
        return {**paths, "source": self.source}


@dataclass(frozen=True, kw_only=True)
class SplitLists:
    """The written lists."""

    files: Mapping[Part, str]
    """List of each part that has videos."""
    root: str
    """Folder that the paths of the lists start from."""
    notes: tuple[str, ...]
    """How the videos were divided, one line each, for the plan."""


def read_videos(request: ListRequest, config: Config) -> Manifest:
    """Read the videos and check their classes, before anything is decoded.

    Raises:
        ConfigError: `source` is not valid.
        ManifestError: A label is missing, or there are too few classes or videos.
    """
    options = {**config.data.list_options, "root": request.root}
    manifest = read_manifest(request.videos, **options)
    require(
        not any(record.shard_video for record in manifest.records),
        f"{request.videos}: is an index of tar shards; finetune reads folders and lists of files; "
        "use hiera-video train with data.split",
    )
    manifest.require_labels()
    _check_classes(manifest)
    _check_names(manifest, request.videos)
    _require_several(manifest, 1 if request.test else 2)
    if request.groups:
        read_groups(Path(request.groups), manifest)
    name_sources([record.path for record in manifest.records], request.source)
    return manifest


def _check_classes(manifest: Manifest) -> None:
    present, names = manifest.labels_present, manifest.class_names
    if len(present) < 2 and not manifest.multi_label:
        name = f" ({names[min(present)]!r})" if names else ""
        raise ManifestError(
            f"{manifest.source}: has one class{name}, and a classifier needs two or more; put the "
            "videos of each class into a folder of its own, or list them with another label"
        )
    missing = sorted(set(range(manifest.num_classes)) - present)
    if missing and names:
        raise ManifestError(
            f"{manifest.source}: {count_of(len(names), 'class')} named beside it, and its videos "
            "are of "
            f"{len(present)}: none of {quote_names([names[index] for index in missing])}; is the "
            "labels file another folder's? correct it, or add videos"
        )
    if missing:
        raise ManifestError(
            f"{manifest.source}: has labels up to {manifest.num_classes - 1}, but no video of "
            f"{quote_names([str(index) for index in missing])}; number the classes from 0 without "
            "gaps"
        )


def _check_names(manifest: Manifest, source: str) -> None:
    """Compare the class names of a list with the names of the folders that the classes lie in."""
    names, file = find_class_names(Path(source))
    folders: dict[int, set[str]] = defaultdict(set)
    for record in manifest.records:
        for label in as_tuple(record.label):
            folders[label].add(PurePath(record.path).parent.name)
    known = {label: next(iter(found)) for label, found in folders.items() if len(found) == 1}
    if not names or Path(source).is_dir() or len(set(known.values())) < len(names):
        return
    wrong = [label for label in sorted(known) if known[label] != names[label]]
    if wrong and set(known.values()) == set(names):
        raise ManifestError(
            f"{file}: class {wrong[0]} is {names[wrong[0]]!r}, but its videos in {source} lie in "
            f"{known[wrong[0]]!r}: the same names in another order; correct one of them"
        )
    if len(wrong) == len(names):
        logger.warning(
            "warning: %s: names the classes %s, but their videos lie in %s; if it is another "
            "folder's labels file, correct it",
            file, quote_names(list(names)), quote_names([known[label] for label in sorted(known)]),
        )  # fmt: skip


def _require_several(manifest: Manifest, needed: int) -> None:
    counts = Counter(label for record in manifest.records for label in as_tuple(record.label))
    names = manifest.class_names
    few = [label for label in sorted(counts) if counts[label] < needed]
    few_names = [names[label] if names else str(label) for label in few]
    if few:
        raise ManifestError(
            f"{manifest.source}: {len(few)} of {len(counts)} classes have one video "
            f"({quote_names(few_names)}); each needs "
            "two or more, one to train on and one to test on"
        )


def make_lists(
    request: ListRequest, manifest: Manifest, config: Config, folder: Path
) -> SplitLists:
    """Return the lists in `folder`, written now or by an earlier call with an equal request.

    Args:
        request: What to read.
        manifest: Its videos, from `read_videos`.
        config: How videos are read.
        folder: Folder of the lists, which may have been edited since.

    Raises:
        ConfigError: `folder` has the lists of another request, or all videos are of one source.
        ManifestError: Too many videos are unreadable, or a class is held out but not trained.
    """
    facts_file = folder / FACTS
    if facts_file.is_file():
        facts = read_json(facts_file)
        if not isinstance(facts, dict) or facts.get("request") != request.absolute():
            raise ConfigError(
                f"{folder}: has lists of other videos or options; choose another output, or delete "
                "the folder to divide these videos"
            )
        # by their names: the folder may have been moved, or is named from another one
        files = {part: str(folder / f"{part}.csv") for part in facts["parts"]}
        lists = SplitLists(files=files, root=facts["root"], notes=("lists made before",))
    else:
        given = _read_given(request, manifest, config)
        _claim(folder)
        lists = _write_lists(request, manifest, config, folder, given)
    _check_parts(lists, config)
    return lists


def _claim(folder: Path) -> None:
    """Create the folder of the lists before the videos are read, which takes time.

    Raises:
        ConfigError: The folder above has other files, or cannot be written.
    """
    output = folder.parent
    found = output.iterdir() if output.is_dir() else iter([output] if output.exists() else [])
    require(
        (output / RECIPE).exists() or all(path == folder for path in found),
        f"output={output}: exists and is not of finetune; choose a new folder",
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"output={output}: cannot be written ({error.strerror}); choose another folder"
        ) from error


def _read_given(request: ListRequest, manifest: Manifest, config: Config) -> dict[Part, Manifest]:
    """Return the parts that the request has lists of, in the classes of `manifest`."""
    options = {**config.data.list_options, "root": request.root}
    lists: dict[Part, str | None] = {"val": request.val, "test": request.test}
    return {
        part: align_val(config, manifest, read_manifest(given, **options))
        for part, given in lists.items()
        if given
    }


def _write_lists(
    request: ListRequest,
    manifest: Manifest,
    config: Config,
    folder: Path,
    given: Mapping[Part, Manifest],
) -> SplitLists:
    from hiera_video.data.prepare.clean_list import common_root

    parts = {**divide(request, manifest, config), **given}
    root = common_root([record.path for part in parts.values() for record in part.records])
    files: dict[Part, str] = {}
    for part in sorted(parts, key=PARTS.index):
        files[part] = str(folder / f"{part}.csv")
        lines = [format_line(r, os.path.relpath(r.path, root)) for r in parts[part].records]
        write_atomic(Path(files[part]), "".join(lines))
    if manifest.class_names:
        write_class_names(folder, manifest.class_names)
    lists = SplitLists(files=files, root=root, notes=tuple(_describe(parts, manifest)))
    facts = {"request": request.absolute(), "parts": list(files), "root": root}
    write_atomic(folder / FACTS, json.dumps(facts, indent=1) + "\n")
    return lists


def divide(request: ListRequest, manifest: Manifest, config: Config) -> dict[Part, Manifest]:
    """Look at every video, and return the readable ones by part."""
    from tqdm import tqdm

    from hiera_video.data.loading.quarantine import QuarantinePolicy
    from hiera_video.data.prepare.glance import glance, near_duplicates

    policy = QuarantinePolicy(deadline_seconds=config.data.deadline_seconds)
    data = config.data
    looks = glance(manifest, decoder=data.backend, workers=data.workers, quarantine=policy)
    count = len(manifest.records)
    seen = list(tqdm(looks, total=count, unit="video", desc="reading", disable=None))
    readable = [row for row, video in enumerate(seen) if video.message is None]
    _limit_unreadable([str(v.message) for v in seen if v.message], len(seen), data.max_broken)
    manifest = _keep(manifest, readable)
    _require_several(manifest, 1 if request.test else 2)
    paths = [record.path for record in manifest.records]
    columns = [name_sources(paths, request.source)]
    if request.groups:
        columns.append(list(read_groups(Path(request.groups), manifest)))
    pairs = near_duplicates([seen[row].thumbnails for row in readable])
    sources = source_names(paths, columns, pairs)
    labels = [record.label for record in manifest.records]
    parts = split_parts(labels, sources, _shares(request, manifest))
    logger.info(
        "%d videos of %d sources, %d pairs nearly equal", len(paths), len(set(sources)), len(pairs)
    )
    require(
        request.test is not None or "test" in parts,
        f"{request.videos}: the videos of each class are of one source, so none can be held out; "
        "give --test LIST, or other sources with --source or --groups",
    )
    found = {part: take_part(manifest, parts, part) for part in PARTS}
    return {part: videos for part, videos in found.items() if videos.records}


def _shares(request: ListRequest, manifest: Manifest) -> dict[Part, float]:
    counts = Counter(label for record in manifest.records for label in as_tuple(record.label))
    typical = sorted(counts.values())[len(counts) // 2]
    share = validation_share(len(manifest.records), typical, len(counts))
    return {
        "val": share if request.val is None else 0.0,
        "test": HELD_OUT if request.test is None else 0.0,
    }


def _keep(manifest: Manifest, rows: Sequence[int]) -> Manifest:
    records = (replace(manifest.records[row], row=new) for new, row in enumerate(rows))
    return replace(manifest, records=tuple(records))


def _limit_unreadable(messages: list[str], of: int, limit: float) -> None:
    if len(messages) > limit * of:
        raise ManifestError(
            f"{len(messages)} of {of} videos cannot be read, such as {messages[0]}; hiera-video "
            f"check-data names all; remove them, or set data.max_broken={len(messages) / of:.2g} "
            "to leave them out"
        )
    for message in messages:
        logger.warning("left out: %s", message)


def _describe(parts: Mapping[Part, Manifest], manifest: Manifest) -> list[str]:
    """Return lines about the parts, and on classes that are not held out."""
    lines = []
    names = manifest.class_names
    for part in ("val", "test"):
        if part in parts:
            missing = sorted(manifest.labels_present - parts[part].labels_present)
            if missing:
                text = quote_names([names[label] if names else str(label) for label in missing])
                lines.append(f"no {part} videos of {text}: too few sources")
    return lines


def _check_parts(lists: SplitLists, config: Config) -> None:
    """Refuse lists that hold out a class of which no video is trained on."""
    options = {**config.data.list_options, "root": lists.root}
    trained = read_manifest(lists.files["train"], **options)
    for part in ("val", "test"):
        file = lists.files.get(part)
        if file is None:
            continue
        missing = read_manifest(file, **options).labels_present - trained.labels_present
        if missing:
            label = min(missing)
            name = repr(trained.class_names[label]) if trained.class_names else label
            raise ManifestError(
                f"{file}: has videos of class {name}, and {lists.files['train']} none; move some "
                "of them there, or remove them"
            )
