"""Classify a video with an exported model; needs onnxruntime, av, numpy and pillow, not torch.

hiera-video export --run runs/x output=x.onnx
python examples/onnx_runtime.py clip.mp4 x.onnx
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import av
import numpy as np
import onnxruntime
from PIL import Image


def read_clip(path: str, note: dict) -> np.ndarray:
    """Return the middle clip of a video, [1, 3, T, S, S], normalised as `note` describes."""
    with av.open(path) as container:
        stream = container.streams.video[0]
        fps = float(stream.average_rate)
        frames = [frame.to_image() for frame in container.decode(stream)]
    clip, size = note["clip"], note["input_size"]["height"]
    span = clip["num_frames"] * clip["frame_stride"] * fps / (clip["target_fps"] or fps)
    start = max(len(frames) - span, 0) // 2
    places = np.linspace(start, start + span - 1, clip["num_frames"]).astype(int)
    pixels = [
        prepare(frames[place], note["pixels"]["short_side"], size)
        for place in places.clip(0, len(frames) - 1)
    ]
    scaled = np.stack(pixels, axis=1, dtype=np.float32) / 255  # [3, T, S, S]
    mean, std = (np.reshape(note[key], (3, 1, 1, 1)) for key in ("mean", "std"))
    return ((scaled - mean) / std).astype(np.float32)[None]


def prepare(frame: Image.Image, short_side: int, size: int) -> np.ndarray:
    """Scale the short side, without antialiasing as in training, and crop the centre."""
    short = min(frame.size)
    scaled = [side * short_side // short for side in frame.size]
    left, top = ((side - size + 1) // 2 for side in scaled)
    x, y = (before / after for before, after in zip(frame.size, scaled, strict=True))
    affine = (x, 0, left * x, 0, y, top * y)
    crop = frame.transform((size, size), Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)
    return np.asarray(crop).transpose(2, 0, 1)


def main(video: str, program: str) -> None:
    note = json.loads(Path(f"{program}.json").read_text())
    session = onnxruntime.InferenceSession(program, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"clips": read_clip(video, note)})
    scores = np.exp(logits[0] - logits[0].max())
    for index in scores.argsort()[::-1][:5]:
        name = note["class_names"][index] if note["class_names"] else str(index)
        print(f"{scores[index] / scores.sum():6.1%}  {name}")


if __name__ == "__main__":
    main(*sys.argv[1:])
