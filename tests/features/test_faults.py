"""F1 of RELIABILITY.md with the smallest counts: extraction that is killed gives the same bytes."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def faults() -> Any:
    spec = importlib.util.spec_from_file_location(
        "features_faults", BENCHMARKS / "features_faults.py"
    )
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_killed_twice(faults: Any, tmp_path: Path) -> None:
    row = faults.kill_again_and_again(faults.Lab(tmp_path, 40), 2)
    assert row["failures"] == [] and row["held"] == row["trials"] == 2
    assert row["figures"]["clips"] == 40 and row["figures"]["extractions"] >= 1


def test_a_difference_is_seen(faults: Any, reference_store: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    for path in reference_store.rglob("*.*"):
        target = output / path.relative_to(reference_store)
        if path.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    assert faults._differences(reference_store, output) == []
    shards = output / "shards" / "00000"
    content = (shards / "00000001.safetensors").read_bytes()
    (shards / "00000001.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    (shards / "00000000.parquet").unlink()
    (shards / ".00000002.json.7.partial").write_text("{")
    found = faults._differences(reference_store, output, whole=False)
    assert sorted(found) == [
        "shards/00000/00000000.parquet differs",
        "shards/00000/00000001.safetensors differs",
    ]
