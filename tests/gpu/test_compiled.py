"""Compiled blocks on a GPU: no graph breaks, no second compilation, the same results."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from gpu_helpers import (
    check_captured_steps,
    difference,
    make_batch,
    make_trainer,
    train,
    weights_of,
)

from hiera_video.models.compiled import compile_blocks
from hiera_video.models.factory import create_model
from hiera_video.train.trainer import DONE

pytestmark = [pytest.mark.gpu, pytest.mark.slow]


@contextmanager
def count_compiled() -> Iterator[Any]:
    """Count dynamo's graphs and breaks in the block."""
    counters: Any = torch._dynamo.utils.counters
    torch._dynamo.reset()
    counters.clear()
    yield counters
    torch._dynamo.reset()


@pytest.mark.parametrize("name", ["hiera_micro_16x32", "mae_hiera_micro_16x32"])
def test_compiled_steps(name: str, device: torch.device) -> None:
    """Compiled blocks have no graph breaks, do not compile again, and compute the same."""
    backend = "inductor" if device.type == "cuda" else "aot_eager"
    kind: dict[str, Any] = {"mae": {}} if name.startswith("mae") else {}
    expected = make_trainer(device, **kind)
    assert train(expected, 4) == DONE
    with count_compiled() as counters:
        trainer = make_trainer(device, **kind)
        compile_blocks(trainer.state.model, backend=backend)
        assert train(trainer, 2) == DONE
        graphs = counters["stats"]["unique_graphs"]
        assert graphs > 0 and not counters["graph_break"]
        assert train(trainer, 2) == DONE
        assert counters["stats"]["unique_graphs"] == graphs
    before = weights_of(make_trainer(device, **kind))
    moved = difference(weights_of(expected), before)
    assert difference(weights_of(trainer), weights_of(expected)) <= 0.15 * moved


def test_compiled_inference(device: torch.device) -> None:
    torch.manual_seed(0)
    model = create_model("hiera_micro_16x32").to(device).eval()
    clips = make_batch().clips.to(device)
    backend = "inductor" if device.type == "cuda" else "aot_eager"
    with torch.inference_mode():
        expected = model(clips)
        with count_compiled() as counters:
            compile_blocks(model, backend=backend)
            torch.testing.assert_close(model(clips), expected, rtol=1e-4, atol=1e-5)
            graphs = counters["stats"]["unique_graphs"]
            model(clips)
            assert counters["stats"]["unique_graphs"] == graphs > 0
            assert not counters["graph_break"]


def test_compiled_steps_as_a_graph(cuda: torch.device) -> None:
    check_captured_steps(cuda, "compile")
