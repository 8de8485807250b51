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

    def read(self, text: str | None, where: str) -> Label:
        """Return the label that `text` spells; None: the line has none.

        Args:
            text: The column.
            where: Position in the list, for messages.

        Raises:
            ManifestError: It is not a class index, or higher than the class names permit.
        """
        if text in self._known:
            return self._known[text]
        assert text is not None
        label = _parse_label(text, where)
        for index in as_tuple(label):
            if self._num_names is not None and index >= self._num_names:
                raise ManifestError(
                    f"{where}: label {index} is too high: {self._names_source} names "
                    f"{count_of(self._num_names, 'class')}, 0 to {self._num_names - 1}; "
                    "correct the label or complete the names"
                )
        self._known[text] = label
        return label


def _parse_label(text: str, where: str) -> Label:
    parts = text.split(";")
    if len(parts) > 1 and parts[-1] == "":
        parts.pop()  # `3;` is one label of a multi-label list
    for part in parts:
        if INDEX.fullmatch(part) is None:
            header = "; remove a header line" if where.endswith(":1") else ""
            remedy = ", or set data.multi_label=true" if "," in part else ""
            raise ManifestError(
                f"{where}: label {part[:80]!r} is not a class index: must be a whole number from "
                f"0, several joined by `;`{remedy}{header}"
            )
    if ";" not in text:
        return int(text)
    return tuple(sorted({int(part) for part in parts}))


def format_label(label: Label) -> str:
    """Return the text that reads back as `label`; empty for None.

    >>> format_label(3), format_label((3,)), format_label((3, 7)), format_label(())
    ('3', '3;', '3;7', ';')
    """
    text = ";".join(map(str, as_tuple(label)))
    return text + ";" if isinstance(label, tuple) and len(label) < 2 else text
