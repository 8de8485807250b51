"""Compiled blocks: names, results, graph breaks and variants."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from hiera_video.models.compiled import compile_blocks, transformer_blocks
from hiera_video.models.factory import create_model
from hiera_video.models.hiera import Hiera
from hiera_video.models.mae import MaskedAutoencoderHiera


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


class CountingBackend:
    """Counts the graphs that are compiled and the calls that they serve."""

    def __init__(self) -> None:
        self.graphs, self.calls = 0, 0

    def __call__(
        self, graph: torch.fx.GraphModule, inputs: list[torch.Tensor]
    ) -> Callable[..., object]:
        self.graphs += 1

        def run(*arguments: torch.Tensor) -> object:
            self.calls += 1
            return graph.forward(*arguments)

        return run


def test_transformer_blocks_of_encoder_and_decoder() -> None:
    assert len(transformer_blocks(create_model("hiera_micro_16x32"))) == 4
    assert len(transformer_blocks(create_model("mae_hiera_micro_16x32"))) == 6
    assert transformer_blocks(nn.Linear(2, 2)) == []


@pytest.mark.slow
def test_compiled_blocks_keep_parameter_names_and_results() -> None:
    torch.manual_seed(0)
    model = create_model("hiera_micro_16x32", num_classes=3).eval()
    names, clips = list(model.state_dict()), torch.randn(2, 3, 16, 32, 32)
    plain = model(clips)
    compile_blocks(model, backend="aot_eager")
    assert torch.allclose(model(clips), plain, atol=1e-6) and list(model.state_dict()) == names
    assert not torch.equal(model(clips + 1), plain)


@pytest.mark.slow
def test_steps_that_differ_in_masks_and_drop_path_share_their_graphs() -> None:
    """Draws are tensors: no step after the first compiles anything, and no graph is broken."""
    model = create_model("mae_hiera_micro_16x32", drop_path_rate=0.2).train()
    assert isinstance(model, MaskedAutoencoderHiera)
    backend = CountingBackend()
    compile_blocks(model, backend=backend)
    clips = torch.randn(2, 3, 16, 32, 32)
    graphs = []
    for step in range(3):
        torch.manual_seed(step)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            model(clips, keep=model.draw_keep(2), visible=model.num_visible_units()).loss.backward()
        graphs.append(backend.graphs)
    parts = len(transformer_blocks(model)) + len(model.between_blocks)
    assert graphs == graphs[:1] * 3 and backend.calls == 3 * parts


@pytest.mark.slow
def test_every_kind_of_block_is_compiled_for_training_and_validation() -> None:
    """Torch silently runs blocks uncompiled beyond its limit of variants."""
    model = create_model("mae_hiera_tiny_16x224", input_size=(16, 64, 64))
    clips, backend = torch.randn(1, 3, 16, 64, 64), CountingBackend()
    compile_blocks(model, backend=backend)
    for _ in range(2):
        model.train()(clips)
        with torch.no_grad():
            model.eval()(clips)
    assert isinstance(model, MaskedAutoencoderHiera)
    parts = len(transformer_blocks(model)) + len(model.between_blocks)
    assert backend.calls == 4 * parts
    assert backend.graphs < backend.calls / 2


@pytest.mark.slow
def test_a_graph_break_is_an_error() -> None:
    class Broken(nn.Module):
        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            torch._dynamo.graph_break()
            return tokens

    model = create_model("hiera_micro_16x32").eval()
    assert isinstance(model, Hiera)
    model.blocks[0].mlp = Broken()
    compile_blocks(model, backend="eager")
    with pytest.raises(torch._dynamo.exc.Unsupported):
        model(torch.randn(1, 3, 16, 32, 32))
