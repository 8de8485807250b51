"""Files that are no lists of videos, although they look like one.

Annotation files of data sets, and lists of other toolkits whose columns have another meaning, are
recognised by their first lines. The message names the command or the columns to use instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from hiera_video.data.manifest.record import VIDEO_SUFFIXES, Record
from hiera_video.errors import ManifestError

Texts = Sequence[str]
"""The first lines of a file."""

KINETICS_COLUMNS = {"youtube_id", "time_start", "time_end"}
KINETICS_ROW = re.compile(r'(?:"[^"]*"|[^",]*),"?[\w-]{11}"?,[\d.]+,[\d.]+,[^,]*(?:,[^,]*)?')
CHARADES_COLUMNS = {"id", "script", "actions"}
ID_AND_CLASS = re.compile(r"[0-9]+;\s*[^\d\s].*")
NUMBER_AND_CLASS = re.compile(r"[0-9]+\s+[^\W\d][^./]*")
HMDB51_NAME = re.compile(r".+_test_split([123])\.txt")
HMDB51_ROW = re.compile(r"[^/]*\.avi\s+[012]")
UCF101_PATH = re.compile(r"(?:.*/)?([^/]+)/v_([^/]+)_g\d+_c\d+\.\w+")
UCF101_FIRST = "ApplyEyeMakeup"
UCF101_NAME = re.compile(r"(?:train|test)list0([123])\.txt")
WHOLE_VIDEO = re.compile(r".*\s0\s+-1(?:\s+0)?")
START_AND_TOTAL = re.compile(r".*\s[0-9]+\s+[0-9]+(?:\s+0)?")


def refuse_known_files(path: Path, texts: Texts) -> None:
    """Check that a file is not an annotation file or a list of another meaning.

    Args:
        path: The file.
        texts: Its first lines, stripped.

    Raises:
        ManifestError: It is one; the message names what to use instead.
    """
    for describe in FORMS:
        if (problem := describe(path, texts)) is not None:
            raise ManifestError(f"{path}: {problem}")


def refuse_lists_with_offsets(path: Path, texts: Texts) -> None:
    """Check that not all lines of a single-label list are a folder and three or more numbers.

    Raises:
        ManifestError: They are, as in MMAction2's lists with an offset or with several labels.
    """
    counts = set(map(_count_numbers, texts))
    if min(counts) < 2 or max(counts) < 3:
        return
    if counts != {3}:
        span = " to ".join(map(str, sorted({min(counts), max(counts)})))
        raise ManifestError(
            f"{path}: has {span} numbers after each folder, the first "
            f"{texts[0][:120]!r}; if they are `frame_dir num_frames label label …`, set "
            "data.multi_label=true"
        )
    raise ManifestError(
        f"{path}: has three numbers after each folder, the first {texts[0][:120]!r}; MMAction2's "
        "`frame_dir offset num_frames label` is not supported: put the frames of each clip into a "
        "folder of its own and write `frame_dir num_frames label`; if the last two numbers are "
        "labels, set data.multi_label=true; if they are seconds of a video, put its path into "
        "quotes"
    )


def refuse_ucf101_numbers(path: Path, records: Sequence[Record]) -> None:
    """Check that the labels of UCF101's videos do not count from 1, as in its `trainlist01.txt`.

    Its first class shows it; a list without that class may be of some classes, counted from 0.

    Args:
        path: The list, which has no class names beside it.
        records: Its records.

    Raises:
        ManifestError: Videos of UCF101's first class have label 1.
    """
    if not records or not _is_ucf101(records[0].path):
        return
    first = [record for record in records if Path(record.path).parent.name == UCF101_FIRST]
    if first and all(record.label == 1 for record in first):
        split = UCF101_NAME.fullmatch(path.name)
        raise ManifestError(
            f"{path}: labels count from 1, as in UCF101's trainlist01.txt, and classes from 0; "
            f"{_prepare_ucf101_hmdb51(path, split)}, or subtract 1 from each label"
        )


def _describe_kinetics(path: Path, texts: Texts) -> str | None:
    columns = _header(texts)
    command = f"`hiera-video prepare kinetics --csv {path} --videos FOLDER`"
    if columns.issuperset(KINETICS_COLUMNS):
        if "label" in columns:
            return f"is Kinetics' annotation file; make a list of your clips with {command}"
        return (
            "is Kinetics' annotation file of a split without labels; pass the folder of its clips "
            "to hiera-video predict"
        )
    if all(map(KINETICS_ROW.fullmatch, texts)):
        return (
            "is Kinetics' annotation file without its header; put the first line "
            f"`label,youtube_id,time_start,time_end,split` back and use {command}"
        )
    return None


def _describe_charades(path: Path, texts: Texts) -> str | None:
    if not _header(texts).issuperset(CHARADES_COLUMNS):
        return None
    return (
        "is Charades' annotation file; write `<id>.mp4 92 147` lines, with the numbers of the "
        "actions c092 and c147, and set data.multi_label=true, or use PySlowFast's lists of its "
        "frames"
    )


def _describe_something_something(path: Path, texts: Texts) -> str | None:
    command = "`hiera-video prepare ssv2 --json train.json`"
    if texts[0] in ("[", "{", "[{") or texts[0].startswith(('[{"', '{"')):
        return (
            "is JSON; if these are Something-Something's annotations, give the file a name that "
            f"ends in .json, which is read as it is, or use {command}"
        )
    if all(map(ID_AND_CLASS.fullmatch, texts)):
        return (
            "has `id;class` lines, as the csv files of Something-Something v1 and Jester; for "
            f"version 2 use its json, read as it is or by {command}; for the others write `path "
            "label` or `frame_dir num_frames label` lines, with the class's index from 0"
        )
    return None


def _describe_ucf101_classes(path: Path, texts: Texts) -> str | None:
    if not all(map(NUMBER_AND_CLASS.fullmatch, texts)):
        return None
    return (
        "has `number class` lines, as UCF101's classInd.txt, and no videos; for UCF101 "
        f"{_prepare_ucf101_hmdb51(path, None)}; for your own videos write the names, without "
        "numbers, into labels.txt beside the list of videos"
    )


def _describe_hmdb51(path: Path, texts: Texts) -> str | None:
    name = HMDB51_NAME.fullmatch(path.name)
    if name is None or not all(map(HMDB51_ROW.fullmatch, texts)):
        return None
    return (
        "is a split file of HMDB51, whose numbers are parts (1 training, 2 test), not classes; "
        f"{_prepare_ucf101_hmdb51(path, name)}; if they are classes of yours, give the file "
        "another name"
    )


def _describe_videomae_pretraining(path: Path, texts: Texts) -> str | None:
    folders = [text for text in texts if WHOLE_VIDEO.fullmatch(text) is None]
    if len(folders) == len(texts) or not all(map(START_AND_TOTAL.fullmatch, folders)):
        return None
    return (
        "has `path 0 -1` lines, VideoMAEv2's form for pre-training (path, start, total); write one "
        "path a line, without the numbers, as pre-training needs no labels; folders of frames go "
        'into a list of their own, as `frame_dir num_frames ""`'
    )


FORMS: Sequence[Callable[[Path, Texts], str | None]] = (
    _describe_kinetics,
    _describe_charades,
    _describe_something_something,
    _describe_ucf101_classes,
    _describe_hmdb51,
    _describe_videomae_pretraining,
)
"""Each returns what a file is and what to use instead, or None for other files."""


def _header(texts: Texts) -> set[str]:
    """Return the column names of the first line, if it is the header of a csv file."""
    return {column.strip(' "') for column in texts[0].lower().split(",")}


def _count_numbers(text: str) -> int:
    """Return how many numbers follow the folder in a line; 0 for videos and paths in quotes."""
    columns = text.split()
    count = 0
    while count < len(columns) - 1 and columns[-count - 1].isdecimal():
        count += 1
    path = columns[-count - 1].lower()
    return 0 if text.startswith('"') or path.endswith(VIDEO_SUFFIXES) else count


def _is_ucf101(path: str) -> bool:
    found = UCF101_PATH.fullmatch(path)
    # HandstandPushups/v_HandStandPushups_g01_c01.avi
    return found is not None and found[1].lower() == found[2].lower()


def _prepare_ucf101_hmdb51(path: Path, split: re.Match[str] | None) -> str:
    number = "1" if split is None else split[1]
    return (
        f"make the lists with `hiera-video prepare ucf101_hmdb51 --split {number} --videos FOLDER "
        f"--splits {path.parent}`"
    )
