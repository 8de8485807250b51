"""Write results as JSON, with the date, the machine and the package versions."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "torchvision", "av", "numpy", "hiera-video")


def record(name: str, result: dict[str, Any], path: Path | None = None) -> Path:
    """Write `result` to `results/<name>.json`, or to `path`, and return the path."""
    RESULTS.mkdir(exist_ok=True)
    path = path or RESULTS / f"{name}.json"
    path.write_text(json.dumps({**result, **facts()}, indent=1) + "\n")
    return path


def facts(packages: Sequence[str] = PACKAGES) -> dict[str, Any]:
    """Return the date, the machine, and the versions of the installed packages."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = (line.split(":")[1].strip() for line in lines if "model name" in line)
    cpu = next(models, platform.processor())
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": {"cpu": cpu, "cores": os.cpu_count(), "python": platform.python_version()},
        "versions": {package: _version(package) for package in packages if _version(package)},
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
