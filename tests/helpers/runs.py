"""A run folder that nobody trained: any backbone and any tower, with random weights."""

import torch

from fastzss.backbones import load_vision
from fastzss.bank import Bank
from fastzss.base.runs import Run
from fastzss.text.tower import PRESETS, TextTower


def random_run(folder, model="vit_small_patch14_dinov2", text="base", **settings):
    """Its path.  The tower's weights are larger than at the start of a training, so that differences show."""
    torch.manual_seed(0)
    vision, size = load_vision(model, random=True), PRESETS[text]
    tower = TextTower(size, vision.channels)
    bank = Bank(("tree", "house", "sky", "dog"), ((),) * 4, ("captions",) * 4)
    config = {
        "settings": {"method": "simzss", "global_feature": "cls", "store": "s", "steps": 0, "batch": 0, **settings},
        "text": {"width": size.width, "layers": size.layers, "heads": size.heads, "out": vision.channels},
        "readout": "both",
        "vision": vision.record,
        "weights": "random",
        "store": {"features": "0" * 64, "bank": bank.identity},
    }
    run = Run(folder)
    run.create(config, bank.to_json())
    tensors = {f"text.{name}": value for name, value in tower.state_dict().items()}
    run.save(1, {**tensors, "logit_scale": torch.tensor(2.0)}, {}, {"method": "simzss", "seed": 0})
    return folder
