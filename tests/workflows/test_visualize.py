"""`hiera-video visualize`: contact sheets with and without predictions, and reconstructions."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import hiera_video as hv
from hiera_video.cli.visualize import main
from hiera_video.config.catalogue import list_configs
from hiera_video.config.load import load_config, save_config
from hiera_video.data.manifest.record import Manifest, Record
from hiera_video.errors import ConfigError
from hiera_video.models.factory import create_model
from hiera_video.train.checkpoint import CheckpointStore
from hiera_video.video import open_video
from hiera_video.viz.overlays import as_pictures, overlay
from hiera_video.viz.sheet import Strip
from hiera_video.workflows import visualize
from hiera_video.workflows.clip_films import (
    augmented_films,
    explained_films,
    middle_views,
    unit_films,
)
from hiera_video.workflows.load_run import load
from hiera_video.workflows.predict import ModelSource, find_records
from hiera_video.workflows.train_components import make_clips


def test_a_contact_sheet_has_a_strip_for_each_video(
    films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    output = tmp_path / "sheet.png"
    assert main([f"input={films}", f"input={tmp_path / 'broken.mp4'}", f"output={output}"]) == 0
    assert capsys.readouterr().out == f"{output}: 3 videos\n"
    # 8 frames of 48×40 fill 720 pixels, 8 on each side; a grey box is 48 high
    assert Image.open(output).size == (734, 8 + 2 * (20 + 74 + 8) + 20 + 48 + 8)


def test_keys_choose_how_videos_are_read(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / "frames" / name).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (48, 40)).save(tmp_path / "frames" / name / f"{number}.png")
    output = tmp_path / "sheet.png"
    arguments = [f"input={tmp_path / 'frames'}", f"output={output}"]
    with pytest.raises(ConfigError, match=r"data.decoder=frames reads those"):
        main(arguments)
    assert main([*arguments, "data.decoder=frames"]) == 0
    assert output.exists()
    with pytest.raises(ConfigError, match=r"optim.lr=1: visualize accepts keys of data and clip"):
        main([*arguments, "optim.lr=1"])


def test_no_picture_of_unreadable_videos_alone(tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(ConfigError, match="none of the videos can be read; hiera-video check-data"):
        main([f"input={tmp_path / 'broken.mp4'}", f"output={tmp_path / 'a.png'}"])
    assert not (tmp_path / "a.png").exists()


def test_titles_have_the_file_its_facts_and_the_class(
    films: Path, run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[str] = []

    def keep_titles(strips: list[Strip]) -> bytes:
        found.extend(strip.title for strip in strips)
        return b""

    monkeypatch.setattr(visualize, "contact_sheet", keep_titles)
    paths = [films / "a.mp4", films / "deep" / "b.mp4"]
    visualize.video_sheet(paths, "pyav")
    assert found == ["a.mp4  48×40, 16 fps, 2.0 s", "b.mp4  48×40, 16 fps, 1.5 s"]
    found.clear()
    visualize.video_sheet(paths[:1], "pyav", load(run_folder))
    (title,) = found
    name, probability = title.removeprefix("a.mp4  ").split("%")[0].rsplit(" ", 1)
    assert name in ("to the right", "to the left", "up") and 100 / 3 <= float(probability) <= 100


def test_reconstructions_show_the_visible_pixels_unchanged(films: Path, tmp_path: Path) -> None:
    config = load_config(list_configs()["motion_hiera_micro_mae"], [f"out_dir={tmp_path}"])
    save_config(config, tmp_path / "config.yaml")
    state = create_model(config.model.name, mae=config.mae).state_dict()
    meta = {"model": {"num_classes": None}, "class_names": None}
    CheckpointStore(tmp_path / "checkpoints", keep=1).save(1, state, {}, meta, best=False)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    model, config = visualize.load_autoencoder(ModelSource(str(tmp_path)))
    paths = [tmp_path / "broken.mp4", films / "a.mp4"]
    picture = visualize.reconstructions(model, config, paths)
    assert picture == visualize.reconstructions(model, config, paths)
    pixels = np.asarray(Image.open(io.BytesIO(picture)))
    assert pixels.shape == (3 * (96 + 4), 8 * (96 + 4), 3)  # 32 pixels, enlarged three times
    original, visible, reconstructed = pixels.reshape(3, 100, 8, 100, 3)[:, :96, :, :96].swapaxes(
        1, 2
    )
    shown = (visible == original).all(axis=-1)
    assert 0.15 < shown.mean() < 0.35  # mask_ratio 0.75
    assert (reconstructed == original).all(axis=-1)[shown].all()
    with pytest.raises(ConfigError, match="none of the videos can be read; hiera-video check-data"):
        visualize.reconstructions(model, config, paths[:1])


@pytest.mark.parametrize("drawn", ["evidence", "occlusion", "rollout", "colours"])
def test_explanations_are_drawn_over_the_frames(
    films: Path, run_folder: Path, tmp_path: Path, drawn: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "why.png"
    options = ["--draws", "32"] if drawn == "occlusion" else []
    source = [f"input={films}", f"output={output}", "--run", str(run_folder), "--limit", "1"]
    assert main([*source, "--draw", drawn, *options]) == 0
    assert capsys.readouterr().out == f"{output}: 1 video\n"
    # two strips of 8 frames that are 88 pixels high, each under a title
    assert Image.open(output).size == (734, 8 + 2 * (20 + 88 + 8))


def test_captions_name_class_probability_and_scale(films: Path, run_folder: Path) -> None:
    run, paths = load(run_folder), [films / "a.mp4"]
    (film,) = explained_films(run, paths, "evidence", target="up")
    found = hv.explain(run, films / "a.mp4", "up")
    one, two = film.renderings
    assert (film.title, film.fps) == ("a.mp4", 16.0)
    assert one.caption == f"up {found.probability:.1%}"
    largest = np.abs(found.maps - found.maps.mean()).max()
    assert two.caption == (
        f"evidence: red above the clip's mean, blue below, up to {largest:.2g} logits"
    )
    (other,) = explained_films(run, paths, "rollout")
    assert other.renderings[1].caption == "rollout: red where more attention goes"
    assert np.array_equal(one.frames, found.frames)
    assert np.array_equal(two.frames, overlay(found.frames, found.maps - found.maps.mean()))


@pytest.mark.parametrize(("suffix", "kind"), [(".gif", b"GIF89a"), (".mp4", b"ftyp")])
def test_films_move(
    films: Path, run_folder: Path, tmp_path: Path, suffix: str, kind: bytes
) -> None:
    output = tmp_path / f"why{suffix}"
    source = [f"input={films / 'a.mp4'}", f"output={output}", "--run", str(run_folder)]
    assert main([*source, "--draw", "rollout"]) == 0
    assert kind in output.read_bytes()[:16]
    with open_video(output) as video:
        assert (len(video.times), video.info.height) == (16, 8 + 20 + 192 + 8)


def test_units_show_the_mask_of_pre_training(films: Path, tmp_path: Path) -> None:
    config = load_config("motion_hiera_micro_mae", ["mae.masking=future", "mae.mask_ratio=0.5"])
    (film,) = unit_films(config, [films / "a.mp4"])
    lines, masked = film.renderings
    assert lines.caption == "8×2×2 mask units, each 2 frames of 16×16 pixels"
    assert (lines.frames[:, 16] == 255).all() and (lines.frames[:, :, 16] == 255).all()
    assert masked.caption == "mae.masking=future, 50% hidden"
    assert (masked.frames[8:] == 128).all() and not (masked.frames[:8] == 128).all()
    (plain,) = unit_films(load_config("motion_hiera_micro"), [films / "a.mp4"])
    assert len(plain.renderings) == 1


def test_augmented_clips_are_those_of_a_training(
    films: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    config = load_config("motion_hiera_micro", ["augment.mixup=0.8", "augment.flip=1"])
    caplog.set_level("INFO")
    (film,) = augmented_films(config, [tmp_path / "broken.mp4", films / "a.mp4"])
    assert caplog.messages[0] == (
        "augment.mixup and augment.cutmix mix clips of a batch; they are not drawn"
    )
    assert "broken.mp4" in caplog.messages[1]
    assert [one.caption for one in film.renderings] == ["epoch 1", "epoch 2", "epoch 3"]
    records = (Record(path=str(films / "a.mp4"), label=0, row=0),)
    manifest = Manifest(records=records, class_names=None, multi_label=False, source="list.csv")
    pixels = make_clips(config, manifest, 1, need_labels=True)[0, 0].clips[0].finish().pixels
    # the second place of the list draws other random numbers than the first
    assert film.renderings[0].frames.shape == (*pixels.shape[1:], 3)
    (alone,) = augmented_films(config, [films / "a.mp4"])
    expected = as_pictures(pixels, mean=config.augment.mean, std=config.augment.std)
    assert np.array_equal(alone.renderings[0].frames, expected)
    assert not np.array_equal(alone.renderings[1].frames, expected)


def test_boxes_of_a_detection_are_not_drawn() -> None:
    config = SimpleNamespace(train=SimpleNamespace(task="detect"))
    with pytest.raises(ConfigError) as error:
        augmented_films(config, [])  # type: ignore[arg-type]
    assert str(error.value).startswith(
        "train.task=detect: its clips are cropped around boxes of a list, which are not drawn; use"
    )


def test_segments_of_a_list_are_drawn(
    films: Path, run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(films / "a.mp4", tmp_path)
    (tmp_path / "list.csv").write_text("a.mp4 0 0 1\na.mp4 1 1 2\n")
    output = tmp_path / "sheet.png"
    assert main([f"input={tmp_path / 'list.csv'}", f"output={output}"]) == 0
    assert capsys.readouterr().out == f"{output}: 2 videos\n"
    pixels = np.asarray(Image.open(output)).astype(int)
    first, second = pixels[30:100, 30:730], pixels[132:202, 30:730]
    assert np.abs(first - second).mean() > 20  # other frames
    records = find_records([str(tmp_path / "list.csv")])
    seconds = [view.seconds for view in middle_views(load(run_folder).config, records, crops=1)]
    assert seconds == [pytest.approx((0, 1)), pytest.approx((1, 2))]


def test_a_schedule_needs_no_videos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "rate.png"
    drawn = ["--draw", "schedule", "--cfg", "motion_hiera_micro", "train.epochs=7"]
    assert main([f"output={output}", *drawn]) == 0
    assert capsys.readouterr().out == f"{output}: 7 epochs\n"
    assert output.read_bytes().startswith(b"\x89PNG")


def test_the_schedule_is_the_trainers(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[list[float]] = []

    def keep(epochs: list[float], rates: list[float]) -> bytes:
        drawn.extend((epochs, rates))
        return b""

    monkeypatch.setattr(visualize, "learning_rate_curve", keep)
    keys = ["train.epochs=4", "optim.warmup_epochs=1", "optim.lr=1e-3", "optim.min_lr=0"]
    scaled = ["optim.lr_for_batch=8", "train.batch_size=16", "optim.cosine_after_warmup=true"]
    visualize.schedule_plot(load_config("motion_hiera_micro", [*keys, *scaled]))
    epochs, rates = drawn
    assert (epochs[0], epochs[50], epochs[-1]) == (0, 0.5, 3.99)
    assert (rates[0], rates[50]) == (0, 1e-3)
    assert rates[100] == pytest.approx(2e-3) and rates[250] == pytest.approx(1e-3)


def test_weights_by_name_reconstruct(films: Path, tmp_path: Path) -> None:
    hv.save_pretrained(create_model("mae_hiera_micro_16x32"), tmp_path / "weights")
    output = tmp_path / "mae.gif"
    source = ["--model", "mae_hiera_micro_16x32", "--checkpoint", str(tmp_path / "weights")]
    assert main([f"input={films / 'a.mp4'}", f"output={output}", *source]) == 0
    gif = Image.open(output)
    assert gif.format == "GIF" and gif.size[1] == 8 + 20 + 192 + 8


def test_a_classifier_reconstructs_nothing(films: Path, run_folder: Path, tmp_path: Path) -> None:
    paths = [f"input={films}", f"output={tmp_path / 'a.png'}", "--draw", "reconstructions"]
    with pytest.raises(ConfigError) as error:
        main([*paths, "--run", str(run_folder)])
    assert str(error.value) == (
        f"--run {run_folder}: is no run of masked pre-training, so it reconstructs nothing"
    )
    with pytest.raises(ConfigError) as error:
        main([*paths, "--model", "hiera_micro_16x32", "--checkpoint", "x"])
    assert str(error.value) == (
        "--model hiera_micro_16x32: reconstructs nothing; name a masked autoencoder of videos, "
        "such as mae_hiera_base_16x224"
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["output=a.png"], "input= is not set; name a video, a folder or a list"),
        (["input=a.mp4"], "output=: name a file that ends in .png"),
        (["input=a.mp4", "output=a.gif"], "output=a.gif: name a file that ends in .png"),
        (
            ["input=a.mp4", "output=a.avi", "--draw", "rollout", "--run", "x"],
            "output=a.avi: name a file that ends in .png or .gif or .mp4",
        ),
        (["input=a.mp4", "output=a.png", "--draw", "rollout"], "--draw rollout: needs a model"),
        (["input=a.mp4", "output=a.png", "--draw", "units"], "--draw units: give --cfg FILE or"),
        (
            [
                *("input=a.mp4", "output=a.png", "--draw", "units", "--cfg", "x"),
                *("--model", "m", "--checkpoint", "w"),
            ],
            "--draw units: give --cfg FILE or --run DIR, and no --model",
        ),
        (
            ["input=a.mp4", "output=a.png", "--draw", "schedule", "--cfg", "x"],
            "input=a.mp4: --draw schedule draws no videos",
        ),
        (["input=a.mp4", "output=a.png", "--cfg", "x"], "--cfg x: goes with --draw units, augm"),
        (
            ["input=a.mp4", "output=a.png", "--target", "up"],
            "--target up: goes with --draw evidence or occlusion",
        ),
        (["input=a.mp4", "output=a.png", "--draws", "9"], "--draws 9: goes with --draw occlusion"),
        (["input=a.mp4", "output=a.png", "--stage", "1"], "--stage 1: goes with --draw colours"),
        (["input=a.mp4", "output=a.png", "--store", "s"], "--store s: goes with --draw colours"),
        (["input=a.mp4", "output=a.png", "a.b=1"], "a.b=1: unknown argument; give input=PATH"),
        (["input=a.mp4", "output=a.jpg"], "output=a.jpg: name a file that ends in .png"),
        (["input=a.mp4", "output=a.png", "b.mp4"], "b.mp4: unknown argument; give input=PATH"),
        (["input=a.mp4", "output=a.png", "--limit", "0"], "--limit 0: must be 1 or more"),
        (["input=a.mp4", "output=a.png", "--checkpoint", "best"], "--checkpoint best: needs --run"),
        (["input=a.mp4", "output=no/a.png"], "no/a.png: cannot be written"),
    ],
)
def test_mistakes(arguments: list[str], words: str) -> None:
    with pytest.raises(ConfigError) as error:
        main(arguments)
    assert str(error.value).startswith(words)
