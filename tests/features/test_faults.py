"""Extraction that is killed resumes with the same bytes: F1 of RELIABILITY.md, small."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def faults() -> Any:
    path = BENCHMARKS / "features_faults.py"
    spec = importlib.util.spec_from_file_location("features_faults", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.fault
def test_extraction_survives_kills(faults: Any, tmp_path: Path) -> None:
    row = faults.run_kills(faults.Lab(tmp_path, 40), 2)
    assert row["failures"] == [] and row["held"] == row["trials"] == 2
    assert row["figures"]["clips"] == 40 and row["figures"]["extractions"] >= 1


def test_differences_between_stores_are_found(
    faults: Any, reference_store: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    shutil.copytree(reference_store, output)
    assert faults.find_differences(reference_store, output) == []
    shards = output / "shards" / "00000"
    content = (shards / "00000001.safetensors").read_bytes()
    (shards / "00000001.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    (shards / "00000000.parquet").unlink()
    (shards / ".00000002.json.7.partial").write_text("{")
    found = faults.find_differences(reference_store, output, complete=False)
    assert sorted(found) == [
        "shards/00000/00000000.parquet differs",
        "shards/00000/00000001.safetensors differs",
    ]
