"""`hiera-video visualize`: contact sheets with and without predictions, and reconstructions."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hiera_video.cli.visualize import main
from hiera_video.config.catalogue import list_configs
from hiera_video.config.load import load_config, save_config
from hiera_video.errors import ConfigError
from hiera_video.models.factory import create_model
from hiera_video.train.checkpoint import CheckpointStore
from hiera_video.workflows import visualize
from hiera_video.workflows.load_run import load


def test_a_contact_sheet_has_a_strip_for_each_video(
    films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    output = tmp_path / "sheet.png"
    assert main([f"input={films}", f"input={tmp_path / 'broken.mp4'}", f"output={output}"]) == 0
    assert capsys.readouterr().out == f"{output}: 3 videos\n"
    # 8 frames of 48×40 fill 720 pixels, 8 on each side and 16 of indent; a grey box is 48 high
    assert Image.open(output).size == (750, 8 + 2 * (20 + 74 + 8) + 20 + 48 + 8)


def test_titles_have_the_file_its_facts_and_the_class(
    films: Path, run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[str] = []

    def keep_titles(strips: list[visualize.Strip]) -> bytes:
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
    model = create_model(config.model.name, mae=config.mae)
    meta = {"model": {"num_classes": None}, "class_names": None}
    CheckpointStore(tmp_path / "checkpoints", keep=1).save(
        1, model.state_dict(), {}, meta, best=False
    )
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    run, paths = load(tmp_path), [tmp_path / "broken.mp4", films / "a.mp4"]
    picture = visualize.reconstructions(run, paths)
    assert picture == visualize.reconstructions(run, paths)
    pixels = np.asarray(Image.open(io.BytesIO(picture)))
    assert pixels.shape == (3 * (96 + 4), 8 * (96 + 4), 3)  # 32 pixels, enlarged three times
    original, visible, reconstructed = pixels.reshape(3, 100, 8, 100, 3)[:, :96, :, :96].swapaxes(
        1, 2
    )
    shown = (visible == original).all(axis=-1)
    assert 0.15 < shown.mean() < 0.35  # mask_ratio 0.75
    assert (reconstructed == original).all(axis=-1)[shown].all()
    with pytest.raises(ConfigError, match="none of the videos can be read; hiera-video check-data"):
        visualize.reconstructions(run, paths[:1])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["output=a.png"], "input= is not set; name a video, a folder or a list"),
        (["input=a.mp4"], "output=: name a file that ends in .png"),
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
