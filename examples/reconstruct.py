"""Hide most of a clip, and draw what a masked autoencoder predicts: original, visible, predicted.

python examples/reconstruct.py clip.mp4 runs/x_mae out.png
python examples/reconstruct.py clip.mp4 mae_k400 out.png mae_hiera_base_16x224
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torchvision.transforms.v2.functional import center_crop, resize

import hiera_video as hv
from hiera_video.viz.reconstructions import reconstruction_sheet

MEAN, STD = (0.45, 0.45, 0.45), (0.225, 0.225, 0.225)


@torch.inference_mode()
def main(video: str, weights: str, picture: str, name: str = "") -> None:
    if name:
        model = hv.create_model(name, pretrained=weights).eval()
    else:
        config = hv.load_config(f"{weights}/config.yaml")
        model = hv.create_model(config.model.name, pretrained=weights, mae=config.mae).eval()
    frames, size = model.config.input_size[0], model.config.input_size[1]
    with hv.open_video(video) as reader:
        places = np.linspace(0, reader.info.num_frames - 1, frames).round().astype(int)
        pixels = torch.from_numpy(reader.frames(places.tolist())).permute(0, 3, 1, 2)
    pixels = center_crop(resize(pixels, [size], antialias=False), [size, size]) / 255
    shape = (1, 3, 1, 1)
    clip = (pixels - torch.tensor(MEAN).view(shape)) / torch.tensor(STD).view(shape)
    clips = clip.permute(1, 0, 2, 3)[None]
    output = model(clips)
    print(f"{output.keep.sum()} of {output.keep.numel()} units visible, loss {output.loss:.3f}")
    sheet = reconstruction_sheet(model.pictures(clips, output), mean=MEAN, std=STD)
    Path(picture).write_bytes(sheet)


if __name__ == "__main__":
    main(*sys.argv[1:])
