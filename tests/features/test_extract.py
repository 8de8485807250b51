"""What a feature is: the model's own maps, in spatial order, pooled as asked for, in batches of one shape."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

import hiera_video as hv
from hiera_video.config.schema import Config
from hiera_video.features.config import FeaturesConfig
from hiera_video.features.extract import BatchRunner, ClipEncoder, check_finite, device_for
from hiera_video.models.hiera import Hiera
from hiera_video.models.weights.digest import weights_digest
from hiera_video.video.encode import write_video
from hiera_video.workflows.extract import make_encoder

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model(weights: Path) -> Hiera:
    found = hv.create_model("hiera_micro_16x32", pretrained=str(weights)).eval()
    assert isinstance(found, Hiera)
    return found


@pytest.fixture(scope="module")
def clips() -> torch.Tensor:
    return torch.randn(5, 3, 16, 32, 32, generator=torch.Generator().manual_seed(1))


def encoder(model: Hiera, **options: Any) -> ClipEncoder:
    return ClipEncoder(model, FeaturesConfig(**options), CPU)


def test_dense_maps_are_forward_intermediates(model: Hiera, clips: torch.Tensor) -> None:
    count = len(model.stages)
    dense = encoder(model, pooling="none", stages=tuple(range(1, count + 1)))
    with torch.inference_mode():
        expected = model.forward_intermediates(clips)
    found = dense(clips)
    assert list(found) == [f"stage{stage}" for stage in range(1, count + 1)]
    for ours, theirs in zip(found.values(), expected):
        assert torch.equal(ours, theirs)
    assert dense.names == {name: list(value.shape[1:]) for name, value in found.items()}


def test_pooled_features_are_means_and_maxima_of_the_map(model: Hiera, clips: torch.Tensor) -> None:
    with torch.inference_mode():
        maps = model.forward_features(clips)
    name = f"stage{len(model.stages)}"
    expected = {
        "mean": maps.mean(dim=(1, 2, 3)),
        "max": maps.amax(dim=(1, 2, 3)),
        "temporal": maps.mean(dim=(2, 3)),
    }
    for pooling, value in expected.items():
        pooled = encoder(model, pooling=pooling)
        assert pooled.names == {name: list(value.shape[1:])}
        assert torch.allclose(pooled(clips)[name], value, atol=1e-5), pooling
    assert encoder(model, dtype="bf16")(clips)[name].dtype == torch.bfloat16
    half = encoder(model, precision="bf16")(clips)[name]
    assert half.dtype == torch.float32 and 1e-4 < (half - expected["mean"]).abs().max() < 0.2


@pytest.mark.parametrize(
    ("top", "left"), [(True, True), (True, False), (False, True), (False, False)]
)
@pytest.mark.parametrize("late", [False, True])
def test_a_marked_corner_is_at_that_corner(
    make_config: Callable[..., Config], tmp_path: Path, top: bool, left: bool, late: bool
) -> None:
    """From the video's file to the stored map: what differs from the unmarked video is where the mark is."""
    videos = tmp_path / "videos"
    videos.mkdir()
    plain = np.full((16, 36, 36, 3), 120, np.uint8)
    marked = plain.copy()
    box = np.s_[
        8 * late : 8 * late + 8,
        (0 if top else 26) : (10 if top else 36),
        (0 if left else 26) : (10 if left else 36),
    ]
    marked[box] = 250
    for name, frames in (("a", plain), ("b", marked)):
        write_video(videos / f"{name}.mp4", frames, fps=12)
    config = make_config(tmp_path / "out", "features.pooling=none", "features.stages=[1,3]")
    store = hv.extract_features(config, videos, tmp_path / "out")
    before, after = store.matrix("stage1")
    change = (after - before).abs().sum(dim=-1)  # [t, h, w]
    t, h, w = np.unravel_index(int(change.argmax()), change.shape)
    assert (t >= change.shape[0] / 2) == late
    assert (h < change.shape[1] / 2) == top and (w < change.shape[2] / 2) == left
    assert store.matrix("stage3").shape[0] == 2


def test_batches_all_have_one_shape_and_keep_the_order(model: Hiera, clips: torch.Tensor) -> None:
    seen: list[tuple[int, ...]] = []

    class Counting(ClipEncoder):
        def __call__(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
            seen.append(tuple(batch.shape))
            return super().__call__(batch)

    runner = BatchRunner(Counting(model, FeaturesConfig(), CPU), 2, (3, 16, 32, 32))
    (name,) = runner.encoder.names
    for clip in clips:
        runner.add(clip)
    five = runner.finish()[name]
    assert seen == [(2, 3, 16, 32, 32)] * 3
    assert torch.allclose(five, encoder(model)(clips)[name], atol=1e-5)
    runner.add(clips[4])  # the next shard, which sees nothing of what is left in the buffers
    assert torch.equal(runner.finish()[name], five[4:])
    assert runner.finish()[name].shape == (0, *runner.encoder.names[name])


class PretendedGpu(TorchFunctionMode):
    """Takes copies to and from a GPU for copies within the CPU, and writes down what is queued and waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        kwargs.pop("pin_memory", None)
        if func is torch.Tensor.to and args[1:] and isinstance(args[1], str | torch.device):
            assert kwargs == {"non_blocking": True}
            if args[1] == "cpu":
                self.done.append("copy")
            return args[0].clone()
        return func(*args, **kwargs)

    def record_event(self) -> Any:
        """As a stream does."""
        self.done.append("record")
        return self

    def synchronize(self) -> None:
        """As an event does."""
        self.done.append("wait")


def test_a_gpus_results_are_copied_before_the_next_batch_is_queued(
    model: Hiera, clips: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that waiting for one batch is not waiting for the next one."""
    gpu, on_cpu = PretendedGpu(), encoder(model)

    class There:
        device, names, dtype = torch.device("cuda"), on_cpu.names, on_cpu.dtype

        def __call__(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
            gpu.done.append("compute")
            return on_cpu(batch)

    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: gpu)
    here = BatchRunner(on_cpu, 2, (3, 16, 32, 32))
    with gpu:
        runner = BatchRunner(There(), 2, (3, 16, 32, 32))  # type: ignore[arg-type]
        for clip in clips:
            runner.add(clip)
        found = runner.finish()
    batch = ["compute", "copy", "record"]
    assert gpu.done == [*batch, *batch, "wait", *batch, "wait", "wait"]
    for clip in clips:
        here.add(clip)
    assert torch.equal(found["stage3"], here.finish()["stage3"])


def test_features_that_are_not_numbers_are_refused() -> None:
    bad = {"stage4": torch.tensor([[1.0, float("inf")]])}
    words = r"shard 0: stage4 holds values that are not finite; set features.dtype and features.precision to bf16 or fp32"
    with pytest.raises(ValueError, match=words):
        check_finite(bad, FeaturesConfig(dtype="fp16"), "shard 0")
    with pytest.raises(ValueError, match="not finite; check the weights"):
        check_finite(bad, FeaturesConfig(), "shard 0")
    check_finite({"stage4": torch.ones(2, 2)}, FeaturesConfig(), "shard 0")


def test_a_stage_that_is_not_there(model: Hiera) -> None:
    with pytest.raises(ValueError, match=r"features.stages=\[1, 9\]: this model has stages 1 to 3"):
        encoder(model, stages=(9, 1))


def test_the_digest_is_of_every_weight(model: Hiera, weights: Path) -> None:
    before = weights_digest(model)
    assert before == weights_digest(hv.create_model("hiera_micro_16x32", pretrained=str(weights)))
    with torch.no_grad():
        model.norm.bias[-1] += 1
        assert weights_digest(model) != before
        model.norm.bias[-1] -= 1


def test_an_autoencoders_encoder_gives_features_too(
    make_config: Callable[..., Config], tmp_path: Path
) -> None:
    config = make_config(tmp_path)
    hv.save_pretrained(hv.create_model("mae_hiera_micro_16x32", mae=config.mae), tmp_path / "mae")
    model = dataclasses.replace(
        config.model, name="mae_hiera_micro_16x32", pretrained=str(tmp_path / "mae")
    )
    train = dataclasses.replace(config.train, task="pretrain")
    found = make_encoder(dataclasses.replace(config, model=model, train=train), device_for(0))
    assert found(torch.zeros(1, 3, 16, 32, 32, device=found.device))["stage3"].shape == (1, 256)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_same_but_for_rounding(weights: Path, clips: torch.Tensor) -> None:
    model = hv.create_model("hiera_micro_16x32", pretrained=str(weights))
    assert isinstance(model, Hiera)
    expected = encoder(model)(clips)["stage3"]
    runner = BatchRunner(
        ClipEncoder(model, FeaturesConfig(), torch.device("cuda")), 2, (3, 16, 32, 32)
    )
    for clip in clips:
        runner.add(clip)
    assert torch.allclose(runner.finish()["stage3"], expected, atol=1e-3)
