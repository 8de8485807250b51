"""Files of found segments: CSV, JSON, ELAN's .eaf and a VIA 3 project."""

from __future__ import annotations

import csv
import io
import json
import mimetypes
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from hiera_video.eval.segments.find import FoundSegment
from hiera_video.utils.text_files import csv_cell, encode_json, encode_text, escape_names, printable

EAF_DATE = "1970-01-01T00:00:00+00:00"
"""ELAN requires a date; a fixed one keeps equal predictions equal bytes."""
EAF_SCHEMA = "http://www.mpi.nl/tools/elan/EAFv3.0.xsd"
VIA_VIDEO, VIA_LOCAL_FILE, VIA_SELECT = 4, 1, 4
"""Type of a file, its place (chosen by the user), and type of an attribute with fixed values."""
VIA_TEMPORAL = "FILE1_Z2_XY0"
"""Attribute of a segment of one file, without a region."""


@dataclass(frozen=True, kw_only=True)
class VideoSegments:
    """The segments of one video."""

    path: str
    duration_seconds: float
    segments: Sequence[FoundSegment]
    """In order of time."""


def segments_csv(videos: Sequence[VideoSegments], names: Sequence[str]) -> bytes:
    """Return a CSV file with a line for each segment."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "start_seconds", "end_seconds", "label", "score"])
    for video in videos:
        for row in _rows(video, names):
            writer.writerow([csv_cell(video.path), *row[:2], csv_cell(row[2]), row[3]])
    return encode_text(text.getvalue())


def segments_json(videos: Sequence[VideoSegments], names: Sequence[str]) -> bytes:
    """Return a JSON file with an object for each video."""
    keys = ("start_seconds", "end_seconds", "label", "score")
    content = [
        {
            "path": video.path,
            "duration_seconds": round(video.duration_seconds, 3),
            "segments": [dict(zip(keys, row)) for row in _rows(video, names)],
        }
        for video in videos
    ]
    return encode_json(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _rows(video: VideoSegments, names: Sequence[str]) -> list[tuple[float, float, str, float]]:
    return [
        (
            round(segment.start_seconds, 3),
            round(segment.end_seconds, 3),
            names[segment.label],
            round(segment.score, 6),
        )
        for segment in video.segments
    ]


def segments_eaf(video: VideoSegments, names: Sequence[str]) -> bytes:
    """Return an ELAN annotation file (EAF 3.0) with a tier for each class that was found.

    Times are whole milliseconds. Annotations hold the score; within a tier they do not overlap.
    """
    root = ElementTree.Element(
        "ANNOTATION_DOCUMENT",
        {
            "AUTHOR": "hiera-video",
            "DATE": EAF_DATE,
            "FORMAT": "3.0",
            "VERSION": "3.0",
            "xmlns:xsi": "http://www.w3.org/2001/XMLSchema-instance",
            "xsi:noNamespaceSchemaLocation": EAF_SCHEMA,
        },
    )
    media = _xml_text(video.path)
    header = _add(root, "HEADER", MEDIA_FILE="", TIME_UNITS="milliseconds")
    _add(
        header,
        "MEDIA_DESCRIPTOR",
        MEDIA_URL=Path(media).absolute().as_uri(),
        MIME_TYPE=mimetypes.guess_type(media)[0] or "video/mp4",
        RELATIVE_MEDIA_URL=f"./{Path(media).name}",
    )
    last_used = _add(header, "PROPERTY", NAME="lastUsedAnnotationId")
    last_used.text = str(len(video.segments))
    order = _add(root, "TIME_ORDER")
    for number, segment in enumerate(video.segments):
        for slot, seconds in enumerate((segment.start_seconds, segment.end_seconds), 1):
            slot_id, value = f"ts{2 * number + slot}", str(round(1000 * seconds))
            _add(order, "TIME_SLOT", TIME_SLOT_ID=slot_id, TIME_VALUE=value)
    for label in sorted({segment.label for segment in video.segments}):
        tier = _add(root, "TIER", LINGUISTIC_TYPE_REF="segment", TIER_ID=_xml_text(names[label]))
        for number, segment in enumerate(video.segments):
            if segment.label == label:
                annotation = _add(
                    _add(tier, "ANNOTATION"),
                    "ALIGNABLE_ANNOTATION",
                    ANNOTATION_ID=f"a{number + 1}",
                    TIME_SLOT_REF1=f"ts{2 * number + 1}",
                    TIME_SLOT_REF2=f"ts{2 * number + 2}",
                )
                _add(annotation, "ANNOTATION_VALUE").text = f"{segment.score:.3f}"
    _add(
        root,
        "LINGUISTIC_TYPE",
        GRAPHIC_REFERENCES="false",
        LINGUISTIC_TYPE_ID="segment",
        TIME_ALIGNABLE="true",
    )
    ElementTree.indent(root)
    content: bytes = ElementTree.tostring(root, encoding="UTF-8", xml_declaration=True)
    return content + b"\n"


def _add(parent: ElementTree.Element, tag: str, **attributes: str) -> ElementTree.Element:
    return ElementTree.SubElement(parent, tag, attributes)


def _xml_text(text: str) -> str:
    return printable(escape_names(text))


def segments_via(videos: Sequence[VideoSegments], names: Sequence[str]) -> bytes:
    """Return a project of the VIA 3 video annotator, which asks for the video files."""
    files, views, metadata = dict[str, Any](), dict[str, Any](), dict[str, Any]()
    for number, video in enumerate(videos, 1):
        view, name = str(number), Path(video.path).name
        files[view] = {
            "fid": view,
            "fname": name,
            "type": VIA_VIDEO,
            "loc": VIA_LOCAL_FILE,
            "src": name,
        }
        views[view] = {"fid_list": [view]}
        for row, (segment, times) in enumerate(zip(video.segments, _rows(video, names)), 1):
            metadata[f"{view}_{row:08d}"] = {
                "vid": view,
                "flg": 0,
                "z": list(times[:2]),
                "xy": [],
                "av": {"1": names[segment.label]},
            }
    content = {
        "project": {
            "pid": "__VIA_PROJECT_ID__",
            "rev": "__VIA_PROJECT_REV_ID__",
            "rev_timestamp": "__VIA_PROJECT_REV_TIMESTAMP__",
            "pname": "segments",
            "creator": "hiera-video",
            "created": 0,
            "data_format_version": "3.1.1",
            "vid_list": list(views),
        },
        "config": {
            "file": {"loc_prefix": dict.fromkeys("1234", "")},
            "ui": {
                "file_content_align": "center",
                "file_metadata_editor_visible": True,
                "spatial_metadata_editor_visible": True,
                "temporal_segment_metadata_editor_visible": True,
                "spatial_region_label_attribute_id": "",
                "gtimeline_visible_row_count": "4",
            },
        },
        "attribute": {
            "1": {
                "aname": "class",
                "anchor_id": VIA_TEMPORAL,
                "type": VIA_SELECT,
                "desc": "class of the segment",
                "options": {name: name for name in names},
                "default_option_id": "",
            }
        },
        "file": files,
        "metadata": metadata,
        "view": views,
    }
    return encode_json(json.dumps(content, ensure_ascii=False) + "\n")
