"""Train Hiera in a plain PyTorch loop: your dataset, your transforms, your optimizer.

python examples/own_loop.py videos/train hiera_base_16x224 mae_k400
"""

from __future__ import annotations

import sys

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

import hiera_video as hv


class Clips(Dataset):
    """A clip from a random place of each video in class folders."""

    def __init__(self, folder: str, num_frames: int, size: int, stride: int = 1) -> None:
        self.list = hv.read_manifest(folder)
        self.offsets = torch.arange(num_frames) * stride
        to_float = v2.ToDtype(torch.float32, scale=True)
        crop = v2.RandomResizedCrop(size, scale=(0.5, 1.0), antialias=False)
        self.transform = v2.Compose([crop, to_float, v2.Normalize([0.45] * 3, [0.225] * 3)])

    def __len__(self) -> int:
        return len(self.list.records)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        record = self.list.records[index]
        with hv.open_video(record.path) as video:
            last = video.info.num_frames - 1
            start = torch.randint(max(last - int(self.offsets[-1]), 0) + 1, ())
            frames = video.frames((start + self.offsets).clamp(max=last).tolist())
        clip = self.transform(torch.from_numpy(frames).permute(0, 3, 1, 2))  # [T, 3, H, W]
        return clip.transpose(0, 1), record.label


def main(folder: str, name: str, weights: str = "none", epochs: str = "1") -> float:
    pretrained = None if weights == "none" else weights
    classes = len(hv.read_manifest(folder).class_names)
    model = hv.create_model(name, num_classes=classes, pretrained=pretrained, drop_path_rate=0.1)
    frames, size, _ = model.config.input_size
    loader = DataLoader(Clips(folder, frames, size), batch_size=4, shuffle=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.05)
    for epoch in range(int(epochs)):
        for clips, labels in loader:
            loss = cross_entropy(model(clips), labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}")
    return loss.item()


if __name__ == "__main__":
    main(*sys.argv[1:])
