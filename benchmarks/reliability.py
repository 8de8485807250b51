"""RELIABILITY.md from what was measured.

    python benchmarks/reliability.py          # make faults does it at its end

Reads every `results/*.json` that holds `faults`; nothing in the page is written by hand.
"""

from __future__ import annotations

import json
from typing import Any

from record import RESULTS

PAGE = RESULTS.parents[1] / "RELIABILITY.md"
HEAD = """# What holds when things go wrong

Each line is a fault that was injected into real runs, and what came of it. `make faults` measures all of it anew and
writes this page; the tests run the same code with smaller counts.

| fault | how | what must hold | held |
|---|---|---|---|
"""


def page(files: list[dict[str, Any]]) -> str:
    """The page's text."""
    rows, sources = "", ""
    for found in files:
        for fault in found["faults"]:
            figures = "".join(
                f"<br>{name}: {_number(value)}" for name, value in fault["figures"].items()
            )
            rows += (
                f"| **{fault['id']}** {fault['fault']} | {fault['how']} | {fault['must_hold']} "
                f"| {fault['held']} of {fault['trials']}{figures} |\n"
            )
        machine, versions = found["machine"], found["versions"]
        sources += (
            f"- `{found['command']}`, {found['date']}: {machine['cpu']}, {machine['cores']} cores, "
            f"Python {machine['python']}, torch {versions['torch']}, av {versions['av']}\n"
        )
    return f"{HEAD}{rows}\nMeasured by:\n\n{sources}"


def _number(value: float) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value)


def results() -> list[dict[str, Any]]:
    """Every result that holds faults, in the order of their names."""
    found = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    return [result for result in found if "faults" in result]


if __name__ == "__main__":
    PAGE.write_text(page(results()))
    print(PAGE)
