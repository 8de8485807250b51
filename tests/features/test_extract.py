"""Features are the model's own maps, in spatial order, pooled, in batches of one shape."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_link import FakeLink
from torch import nn

import hiera_video as hv
from hiera_video.config.schema import Config
from hiera_video.data.manifest.record import Manifest
from hiera_video.features.config import FeaturesConfig
from hiera_video.features.extract import BatchRunner, ClipEncoder, check_finite, device_for
from hiera_video.models.compiled import compile_blocks
from hiera_video.models.hiera import Hiera
from hiera_video.models.registry import ModelConfig
from hiera_video.models.weights.digest import weights_digest
from hiera_video.runtime.device_feed import HostCopy
from hiera_video.video.encode import write_video
from hiera_video.workflows.extraction_plan import extraction_identity, make_encoder

CPU = torch.device("cpu")
CLIP_SHAPE = (3, 16, 32, 32)


@pytest.fixture(scope="module")
def model(weights: Path) -> Hiera:
    found = hv.create_model("hiera_micro_16x32", pretrained=str(weights)).eval()
    assert isinstance(found, Hiera)
    return found


@pytest.fixture(scope="module")
def clips() -> torch.Tensor:
    return torch.randn(5, *CLIP_SHAPE, generator=torch.Generator().manual_seed(1))


def encoder(model: Hiera, **options: Any) -> ClipEncoder:
    return ClipEncoder(model, FeaturesConfig(**options), CPU)


def test_dense_maps_equal_forward_intermediates(model: Hiera, clips: torch.Tensor) -> None:
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
def test_a_marked_corner_is_at_that_corner_of_the_map(
    make_config: Callable[..., Config], tmp_path: Path, top: bool, left: bool, late: bool
) -> None:
    """From the file to the stored map: only features near the mark change."""
    videos = tmp_path / "videos"
    videos.mkdir()
    plain = np.full((16, 36, 36, 3), 120, np.uint8)
    marked = plain.copy()
    rows = slice(0, 10) if top else slice(26, 36)
    columns = slice(0, 10) if left else slice(26, 36)
    marked[8 * late : 8 * late + 8, rows, columns] = 250
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


@pytest.mark.slow
def test_compiled_features_differ_by_rounding_and_have_their_own_identity(
    weights: Path, clips: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a backend that starts faster."""
    reproducible: list[bool] = []

    def compile_fast(model: nn.Module, **options: bool) -> None:
        reproducible.append(options["reproducible"])
        compile_blocks(model, backend="aot_eager")

    monkeypatch.setattr("hiera_video.features.extract.compile_blocks", compile_fast)
    found = {}
    manifest = Manifest(source="list.csv", records=(), class_names=None, multi_label=False)
    for compiled in (False, True):
        model = hv.create_model("hiera_micro_16x32", pretrained=str(weights))
        assert isinstance(model, Hiera)
        features = FeaturesConfig(compile=compiled)
        config = Config(model=ModelConfig(name="hiera_micro_16x32"), features=features)
        ours = ClipEncoder(model, config.features, CPU)
        (found[compiled],) = ours(clips).values()
        identity = extraction_identity(config, manifest, ours, None)
        assert identity.get("features.compile") is (True if compiled else None)
    assert reproducible == [True]
    assert torch.allclose(found[True], found[False], atol=1e-5)


def test_batches_have_one_shape_and_keep_the_order(model: Hiera, clips: torch.Tensor) -> None:
    shapes: list[tuple[int, ...]] = []

    class RecordingEncoder(ClipEncoder):
        def __call__(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
            shapes.append(tuple(batch.shape))
            return super().__call__(batch)

    runner = BatchRunner(RecordingEncoder(model, FeaturesConfig(), CPU), 2, CLIP_SHAPE)
    (name,) = runner.encoder.names
    for clip in clips:
        runner.add(clip)
    features = runner.finish()[name]
    assert shapes == [(2, *CLIP_SHAPE)] * 3
    assert torch.allclose(features, encoder(model)(clips)[name], atol=1e-5)
    runner.add(clips[4])  # the next shard does not depend on what is left in the buffers
    assert torch.equal(runner.finish()[name], features[4:])
    assert runner.finish()[name].shape == (0, *runner.encoder.names[name])


def test_results_are_copied_from_the_gpu_before_the_next_batch_is_queued(
    model: Hiera, clips: torch.Tensor
) -> None:
    """Otherwise, waiting for one batch would be waiting for the next one too."""
    link, calls, cpu_encoder = FakeLink(late=True, computes=True), list[str](), encoder(model)

    class Link(FakeLink):
        def fetch(self, tensor: torch.Tensor) -> HostCopy:
            calls.append("copy")
            copy = link.fetch(tensor)

            class Event:
                def synchronize(self) -> None:
                    calls.append("wait")
                    link.run_until(link.queued)

            return HostCopy(copy.tensor, Event())

    class GpuEncoder:
        device, names, dtype = torch.device("cuda"), cpu_encoder.names, cpu_encoder.dtype

        def __call__(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
            calls.append("compute")
            return cpu_encoder(batch)

    cpu_runner = BatchRunner(cpu_encoder, 2, CLIP_SHAPE)
    runner = BatchRunner(GpuEncoder(), 2, CLIP_SHAPE, link=Link(late=True, computes=True))  # type: ignore[arg-type]
    for clip in clips:
        runner.add(clip)
    found = runner.finish()
    batch = ["compute", "copy"]
    assert calls == [*batch, *batch, "wait", *batch, "wait", "wait"]
    for clip in clips:
        cpu_runner.add(clip)
    assert torch.equal(found["stage3"], cpu_runner.finish()["stage3"])


def test_features_that_are_not_finite_are_refused() -> None:
    bad = {"stage4": torch.tensor([[1.0, float("inf")]])}
    message = (
        "shard 0: stage4 has values that are not finite; set features.dtype and features.precision "
        "to bf16 or fp32"
    )
    with pytest.raises(ValueError, match=message):
        check_finite(bad, FeaturesConfig(dtype="fp16"), "shard 0")
    with pytest.raises(ValueError, match="not finite; check the weights"):
        check_finite(bad, FeaturesConfig(), "shard 0")
    check_finite({"stage4": torch.ones(2, 2)}, FeaturesConfig(), "shard 0")


def test_a_missing_stage_is_refused(model: Hiera) -> None:
    with pytest.raises(ValueError, match=r"features.stages=\[1, 9\]: this model has stages 1 to 3"):
        encoder(model, stages=(9, 1))


def test_the_digest_covers_every_weight(model: Hiera, weights: Path) -> None:
    before = weights_digest(model)
    assert before == weights_digest(hv.create_model("hiera_micro_16x32", pretrained=str(weights)))
    with torch.no_grad():
        model.norm.bias[-1] += 1
        assert weights_digest(model) != before
        model.norm.bias[-1] -= 1


def test_the_encoder_of_an_autoencoder_gives_features(
    make_config: Callable[..., Config], tmp_path: Path
) -> None:
    config = make_config(tmp_path)
    hv.save_pretrained(hv.create_model("mae_hiera_micro_16x32", mae=config.mae), tmp_path / "mae")
    model = dataclasses.replace(
        config.model, name="mae_hiera_micro_16x32", pretrained=str(tmp_path / "mae")
    )
    train = dataclasses.replace(config.train, task="pretrain")
    found = make_encoder(dataclasses.replace(config, model=model, train=train), device_for(0))
    assert found(torch.zeros(1, *CLIP_SHAPE, device=found.device))["stage3"].shape == (1, 256)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_same_features_up_to_rounding(weights: Path, clips: torch.Tensor) -> None:
    model = hv.create_model("hiera_micro_16x32", pretrained=str(weights))
    assert isinstance(model, Hiera)
    expected = encoder(model)(clips)["stage3"]
    gpu_encoder = ClipEncoder(model, FeaturesConfig(), torch.device("cuda"))
    runner = BatchRunner(gpu_encoder, 2, CLIP_SHAPE)
    for clip in clips:
        runner.add(clip)
    assert torch.allclose(runner.finish()["stage3"], expected, atol=1e-3)
