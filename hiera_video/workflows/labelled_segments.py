"""Videos with labelled segments: thresholds chosen on them, and found segments tested on them."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hiera_video.config.load import load_config, run_config_file
from hiera_video.config.schema import Config
from hiera_video.data.background import BACKGROUND
from hiera_video.data.manifest.read import read_manifest
from hiera_video.data.manifest.record import Manifest, Record, as_tuple
from hiera_video.data.transforms.train_eval import EvalTransform
from hiera_video.errors import DecodeError, ManifestError
from hiera_video.eval.class_names import align_classes, align_label_count
from hiera_video.eval.segments.average_precision import (
    LabelledSegment,
    SegmentPrecision,
    segment_precision,
)
from hiera_video.eval.segments.files import VideoSegments
from hiera_video.eval.segments.settings import SegmentSettings, write_settings
from hiera_video.eval.segments.thresholds import choose_thresholds
from hiera_video.utils.atomic_files import write_atomic
from hiera_video.utils.short_paths import short_paths
from hiera_video.utils.text_files import count_of
from hiera_video.workflows.build import read_split
from hiera_video.workflows.load_run import LoadedRun
from hiera_video.workflows.predict import DONE, SOME_UNREADABLE, ModelSource
from hiera_video.workflows.segment_bounds import (
    check_headers,
    records_clipped,
    records_outside,
    refuse_outside,
    timed_records,
    warn_of_clipped,
)
from hiera_video.workflows.segments import (
    VideoCurve,
    background_of,
    class_names,
    find_in_curve,
    score_video,
    settings_of,
    timeline_of,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ScoredList:
    """The readable videos of a list, with their scores and labelled segments, by path."""

    curves: Mapping[str, VideoCurve]
    labelled: Mapping[str, Sequence[LabelledSegment]]
    unreadable: Sequence[str]
    """Messages of the videos that cannot be read."""
    names: tuple[str, ...]
    """Name of each class."""


def choose_run_thresholds(
    source_list: str, source: ModelSource, settings: SegmentSettings, *, follow_links: bool
) -> int:
    """Choose the thresholds of a run on a list of labelled segments, and write them beside it.

    Args:
        source_list: The list.
        source: The run.
        settings: Windows, smoothing and minimum length to use and to keep.
        follow_links: Let symbolic links lead out of the list's folder.

    Returns:
        Exit code: 0, or 3 if some videos are unreadable.

    Raises:
        ManifestError: The list has no labelled segments, or classes that the run lacks.
    """
    config = load_config(run_config_file(str(source.run)), source.overrides)
    options = config.data.list_options
    options["follow_links"] |= follow_links
    manifest = read_manifest(source_list, **options)
    run = replace(source.load(), config=config)
    scored = score_list(run, manifest, settings)
    window = max(video.window_seconds for video in scored.curves.values())
    choice = choose_thresholds(
        {path: video.curve for path, video in scored.curves.items()},
        scored.labelled,
        min_seconds=settings.shortest(window),
        skip=background_of(scored.names),
    )
    settings = replace(
        settings,
        keep=choice.keep,
        thresholds={scored.names[label]: value for label, value in choice.thresholds.items()},
    )
    f1 = {scored.names[label]: round(value, 4) for label, value in choice.f1.items()}
    facts = {"list": str(source_list), "videos": len(scored.curves), "f1": f1}
    path = write_settings(Path(str(source.run)), settings, facts)
    for name, value in settings.thresholds.items():
        print(f"threshold {value:.2f}  F1 {f1[name]:.3f}  {name}")
    print(f"mean F1 {choice.mean_f1:.3f} on {count_of(len(scored.curves), 'video')}; wrote {path}")
    return SOME_UNREADABLE if scored.unreadable else DONE


def score_list(run: LoadedRun, manifest: Manifest, settings: SegmentSettings) -> ScoredList:
    """Compute the scores of all videos of a list of labelled segments.

    Raises:
        ManifestError: The list has no labelled segments or classes that the run lacks, or none of
            its videos can be read, or no segment lies in those that can; or a segment lies outside
            its video.
    """
    owner = "the run"
    manifest = align_label_count(manifest, run.multi_label, of=owner)
    manifest = align_classes(manifest, run.class_names, checkpoint=owner, remap=True)
    labelled, timed = labelled_segments(manifest), timed_records(manifest)
    check_headers(manifest, timed, run.config.data.backend)
    curves, unreadable = dict[str, VideoCurve](), list[str]()
    clipped = list[tuple[Record, float]]()
    for record in whole_videos(manifest):
        try:
            video = score_video(run, record, settings)
        except DecodeError as error:
            logger.error("error: %s", error)
            unreadable.append(str(error))
            continue
        first, end = video.zero_seconds, video.zero_seconds + video.curve.end_seconds
        refuse_outside(manifest, records_outside(timed[record.path], first, end))
        clipped += records_clipped(timed[record.path], end)
        curves[record.path] = video
    warn_of_clipped(manifest, clipped)
    if not curves:
        total, root = count_of(len(unreadable), "video"), run.config.data.root
        remedy = "see above"
        if root is not None:
            remedy += (
                f"; its paths start from data.root={root}, with data.root=null from its folder"
            )
        raise ManifestError(f"{manifest.source}: none of its {total} can be read; {remedy}")
    names = class_names(run, next(iter(curves.values())).curve)
    manifest.require_labels_below(len(names), "the run has")
    found = {path: as_found(labelled[path], video) for path, video in curves.items()}
    if not any(found.values()):
        raise ManifestError(
            f"{manifest.source}: none of its labelled segments lies in a video that can be read; "
            "correct the seconds, which count from the start of each video"
        )
    return ScoredList(
        curves=curves,
        labelled=found,
        unreadable=unreadable,
        names=names,
    )


def labelled_segments(manifest: Manifest) -> dict[str, list[LabelledSegment]]:
    """Return the labelled segments of each video, without those of the background.

    A label without times is about the whole video; a line without a label adds a video.

    Raises:
        ManifestError: The list has no labelled segment.
    """
    names = manifest.class_names or ()
    found = dict[str, list[LabelledSegment]]()
    for record in manifest.records:
        segments = found.setdefault(record.path, [])
        for label in as_tuple(record.label):
            if label >= len(names) or names[label] != BACKGROUND:
                start = 0.0 if record.start_seconds is None else record.start_seconds
                end = math.inf if record.end_seconds is None else record.end_seconds
                segments.append(LabelledSegment(label=label, start_seconds=start, end_seconds=end))
    if not any(found.values()):
        raise ManifestError(
            f"{manifest.source}: has no labelled segments; write `path label start_seconds "
            "end_seconds` lines"
        )
    return found


def whole_videos(manifest: Manifest) -> Iterator[Record]:
    """Yield each video of a list once, without its segments."""
    first = {record.path: record for record in reversed(manifest.records)}
    for record in sorted(first.values(), key=lambda record: record.row):
        yield replace(record, label=None, start_seconds=None, end_seconds=None)


def as_found(segments: Sequence[LabelledSegment], video: VideoCurve) -> list[LabelledSegment]:
    """Return labelled segments on the clock of found ones, which begins with the first frame."""
    end = video.curve.end_seconds
    moved = [
        replace(
            segment,
            start_seconds=max(segment.start_seconds - video.zero_seconds, 0.0),
            end_seconds=min(segment.end_seconds - video.zero_seconds, end),
        )
        for segment in segments
    ]
    return [segment for segment in moved if segment.end_seconds > segment.start_seconds]


# -- test --------------------------------------------------------------------------------------


def run_segment_test(config: Config, source: ModelSource) -> int:
    """Test a run on labelled segments: mAP at temporal overlaps, as JSON and as one page.

    Args:
        config: The run's configuration; `data.test`, or `data.val`, is the list.
        source: The run.

    Returns:
        Exit code: 0, or 3 if more than `test.max_broken` of the videos are unreadable.

    Raises:
        ManifestError: As for `score_list`.
    """
    manifest = read_split(config, "test", background=False)
    run, settings = source.load(), settings_of(source)
    transform = EvalTransform(
        config.input_size[1], config.test.crops, config.augment.mean, config.augment.std
    )
    run = replace(run, config=config, transform=transform)
    scored = score_list(run, manifest, settings)
    found = {path: find_in_curve(run, video, settings) for path, video in scored.curves.items()}
    precision = segment_precision(
        scored.labelled, {path: video.segments for path, video in found.items()}
    )
    results = results_of(precision, scored, found, manifest.source)
    stem = f"{config.out_dir}/segments_{Path(manifest.source).stem}"
    write_atomic(Path(f"{stem}.json"), json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    write_atomic(Path(f"{stem}.html"), page_of(run, precision, scored, found, results))
    for overlap, value in zip(precision.overlaps, precision.means):
        logger.info("mAP at overlap %.1f: %.2f", overlap, 100 * value)
    logger.info("evaluated %d of %d", results["evaluated"], results["of"])
    logger.info("report: %s.html", stem)
    if len(scored.unreadable) > config.test.max_broken * results["of"]:
        logger.error(
            "%s: more than test.max_broken=%g",
            count_of(len(scored.unreadable), "unreadable video"),
            config.test.max_broken,
        )
        return SOME_UNREADABLE
    return DONE


def results_of(
    precision: SegmentPrecision,
    scored: ScoredList,
    found: Mapping[str, VideoSegments],
    source_list: str,
) -> dict[str, Any]:
    """Return the content of the results file; average precisions are percentages."""
    return {
        "overlaps": list(precision.overlaps),
        "mAP": [round(100 * value, 4) for value in precision.means],
        "mean_mAP": round(100 * precision.mean, 4),
        "classes": [
            {
                "name": scored.names[row.label],
                "labelled": row.labelled,
                "found": row.found,
                "average_precision": [round(100 * value, 4) for value in row.values],
            }
            for row in precision.classes
        ],
        "videos": {
            path: {
                "labelled": len(scored.labelled[path]),
                "found": len(found[path].segments),
            }
            for path in found
        },
        "manifest": source_list,
        "evaluated": len(scored.curves),
        "of": len(scored.curves) + len(scored.unreadable),
        "unreadable": list(scored.unreadable),
    }


def page_of(
    run: LoadedRun,
    precision: SegmentPrecision,
    scored: ScoredList,
    found: Mapping[str, VideoSegments],
    results: Mapping[str, Any],
) -> str:
    """Return the page of a test: the table of average precisions, and timelines."""
    from hiera_video.viz.timeline import timeline_page

    titles = short_paths(scored.curves)
    videos = [
        replace(
            timeline_of(
                run, video, {"labelled": scored.labelled[path], "found": segments.segments}
            ),
            title=titles[path],
        )
        for (path, video), segments in zip(scored.curves.items(), found.values())
    ]
    rows = [
        (row["name"], row["labelled"], row["found"], *map(_percent, row["average_precision"]))
        for row in results["classes"]
    ]
    total = ("all classes", *(sum(row[column] for row in rows) for column in (1, 2)))
    means = (*total, *map(_percent, results["mAP"]))
    return timeline_page(
        f"mAP {results['mean_mAP']:.1f} %, mean over temporal overlaps of 0.3 to 0.7",
        videos,
        scored.names,
        facts=[
            f"{results['manifest']} · {results['evaluated']} of "
            f"{count_of(results['of'], 'video')} evaluated",
            *results["unreadable"],
        ],
        columns=["class", "labelled", "found", *(f"AP@{at:g}" for at in precision.overlaps)],
        rows=[list(map(str, row)) for row in [means, *rows]],
    )


def _percent(value: float) -> str:
    return f"{value:.1f}"
