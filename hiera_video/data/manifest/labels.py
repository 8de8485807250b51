"""Labels as they stand in lists: `3`, several joined by `;`, and the signs for none."""

from __future__ import annotations

import re

from hiera_video.data.manifest.record import Label, as_tuple
from hiera_video.errors import ManifestError
from hiera_video.utils.text_files import count_of

NO_LABEL = '""'
"""A video that is not labelled."""
NO_CLASSES = ";"
"""A video of a multi-label list that shows none of the classes."""
INDEX = re.compile(r"[0-9]{1,9}")
LETTER = re.compile(r"[^\W\d_]")
INDEX_FOR_NAME = (
    "write the class's index instead of its name, from 0, and the names in their order into "
    "labels.txt beside the list"
)


class LabelReader:
    """Reads the labels of a list and checks them against its class names.

    Each distinct text is parsed once.

    Args:
        num_names: Number of class names; None: unknown.
        names_source: File of the class names, for messages.
    """

    def __init__(self, num_names: int | None, names_source: str) -> None:
        self._num_names, self._names_source = num_names, names_source
        self._known: dict[str | None, Label] = {None: None, NO_LABEL: None, NO_CLASSES: ()}

    def read(self, text: str | None, where: str, *, may_be_header: bool = False) -> Label:
        """Return the label that `text` spells; None: the line has none.

        Args:
            text: The column.
            where: Position in the list, for messages.
            may_be_header: The line may be a header, as it is the first one and names no video.

        Raises:
            ManifestError: It is not a class index, or higher than the class names permit.
        """
        if text in self._known:
            return self._known[text]
        assert text is not None
        label = _parse_label(text, where, may_be_header)
        for index in as_tuple(label):
            if self._num_names is not None and index >= self._num_names:
                raise ManifestError(
                    f"{where}: label {index} is too high: {self._names_source} names "
                    f"{count_of(self._num_names, 'class')}, 0 to {self._num_names - 1}; "
                    "correct the label or complete the names"
                )
        self._known[text] = label
        return label


def _parse_label(text: str, where: str, may_be_header: bool) -> Label:
    parts = text.split(";")
    if len(parts) > 1 and parts[-1] == "":
        parts.pop()  # `3;` is one label of a multi-label list
    for part in parts:
        if INDEX.fullmatch(part) is None:
            raise ManifestError(
                f"{where}: label {part[:80]!r} is not a class index: must be a whole number from "
                f"0, several joined by `;`; {_label_remedy(part, may_be_header)}"
            )
    if ";" not in text:
        return int(text)
    return tuple(sorted({int(part) for part in parts}))


def _label_remedy(part: str, may_be_header: bool) -> str:
    """Return what to do about a label that is not a class index."""
    if "," in part:
        return "set data.multi_label=true"
    if LETTER.search(part):
        return f"remove a header line, or {INDEX_FOR_NAME}" if may_be_header else INDEX_FOR_NAME
    if re.fullmatch(r"-[0-9]+", part):
        return f"write `{NO_LABEL}` for a video without label"
    if written := re.fullmatch(r'"?([0-9]{1,9})(?:\.0*)?"?', part):
        return f"write {written[1]}"
    return "correct it"


def format_label(label: Label) -> str:
    """Return the text that reads back as `label`; empty for None.

    >>> format_label(3), format_label((3,)), format_label((3, 7)), format_label(())
    ('3', '3;', '3;7', ';')
    """
    text = ";".join(map(str, as_tuple(label)))
    return text + ";" if isinstance(label, tuple) and len(label) < 2 else text
