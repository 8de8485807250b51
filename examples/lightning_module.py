"""Train Hiera with Lightning (pip install lightning), on the clips of own_loop.py.

python examples/lightning_module.py videos/train hiera_base_16x224 mae_k400
"""

from __future__ import annotations

import sys

import lightning
import torch
from own_loop import Clips
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

import hiera_video as hv


class VideoClassifier(lightning.LightningModule):
    """Hiera with a cross-entropy loss and AdamW, without decay on norms, biases and positions."""

    def __init__(
        self, name: str, num_classes: int, pretrained: str | None, lr: float = 1e-4
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.model = hv.create_model(name, num_classes=num_classes, pretrained=pretrained)

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], index: int) -> torch.Tensor:
        clips, labels = batch
        logits = self.model(clips)
        loss = cross_entropy(logits, labels)
        accuracy = (logits.argmax(dim=1) == labels).float().mean()
        self.log_dict({"loss": loss, "accuracy": accuracy}, prog_bar=True, batch_size=len(labels))
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        undecayed = self.model.no_weight_decay()
        groups: dict[bool, list[torch.nn.Parameter]] = {True: [], False: []}
        for name, parameter in self.model.named_parameters():
            groups[parameter.ndim > 1 and name not in undecayed].append(parameter)
        decayed = {"params": groups[True], "weight_decay": 0.05}
        rest = {"params": groups[False], "weight_decay": 0.0}
        return torch.optim.AdamW([decayed, rest], lr=self.hparams["lr"])


def main(folder: str, name: str, weights: str = "none", epochs: str = "1") -> VideoClassifier:
    classes = len(hv.read_manifest(folder).class_names)
    module = VideoClassifier(name, classes, None if weights == "none" else weights)
    frames, size, _ = module.model.config.input_size
    loader = DataLoader(Clips(folder, frames, size), batch_size=4, shuffle=True)
    trainer = lightning.Trainer(max_epochs=int(epochs), logger=False, log_every_n_steps=1)
    trainer.fit(module, loader)
    return module


if __name__ == "__main__":
    main(*sys.argv[1:])
