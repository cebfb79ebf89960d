"""Evaluation inside a run: the backbone looks at every image once; then each evaluation is a product with class names.

    RUN/evaluation/plan.json           which images, which backbone
    RUN/evaluation/NNNNNN.safetensors  windows float16 [w, N, D], size [2], truth uint8 [H, W] of an image

Ranks share the images, and their confusion matrices are summed: the score is that of one process.
"""

import shutil

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from tqdm import tqdm

from fastzss.errors import UserError, nearest
from fastzss.evaluate import scores
from fastzss.protocols import PROTOCOLS
from fastzss.ranks import all_sum
from fastzss.score import confusion
from fastzss.segment import Look, Model, look, winners
from fastzss.store.files import identity, read_json, write_file, write_json
from fastzss.vision import reload_vision

WORLD = "world:validation,n=100"  # what choosing is done on; the test scenes are for the end


def evaluation_set(protocol, spec):
    if protocol not in PROTOCOLS:
        hint = nearest(protocol, PROTOCOLS)
        raise UserError(f'unknown protocol "{protocol}"{hint}; expected {", ".join(PROTOCOLS)}', code=2)
    try:
        return PROTOCOLS[protocol](spec)
    except UserError as problem:  # here its flag has another name
        raise UserError(str(problem).replace("--data", "--eval-data"), problem.code) from None


class Validation:
    """An evaluation set that towers in training are scored on."""

    def __init__(self, config, trainer, ranks):
        spec = config.eval_data or (WORLD if config.eval_protocol == "world" else None)
        self.data = evaluation_set(config.eval_protocol, spec)
        self.ranks, self.record, self.grid = ranks, trainer.record, trainer.loader.store.plan.grid
        self.model = Model(None, trainer.learner.text, self.record["readout"])
        self.own = range(ranks.process_index, len(self.data), ranks.num_processes)
        self.plan = {
            "protocol": config.eval_protocol,
            "data": spec,
            "images": identity(list(self.data.ids)),
            "classes": list(self.data.names),
            "vision": self.record["vision"],
        }
        self.identity = identity(self.plan)

    def prepare(self, folder, shown):
        """Look at the images that nobody has looked at yet."""
        self.folder = folder / "evaluation"
        plan = self.folder / "plan.json"
        if self.ranks.is_main_process and not (plan.is_file() and read_json(plan) == self.plan):
            shutil.rmtree(self.folder, ignore_errors=True)
            write_json(plan, self.plan)
        self.ranks.wait_for_everyone()
        missing = [index for index in self.own if not self._path(index).is_file()]
        if not missing:
            return
        vision = reload_vision(self.record["vision"], self.record["weights"], device=self.ranks.device)
        for index in tqdm(missing, unit="img", desc="look at the evaluation", disable=None if shown else True):
            image, truth = self.data.read(index)
            seen = look(vision, image)
            tensors = {
                "windows": seen.patches.half().cpu(),
                "size": torch.tensor(seen.size),
                "truth": torch.from_numpy(np.ascontiguousarray(truth)),
            }
            write_file(self._path(index), save(tensors))

    def _seen(self, index):
        path = self._path(index)
        try:
            return load(path.read_bytes())
        except (OSError, SafetensorError) as problem:
            raise UserError(f"{path}: cannot be read ({problem}); delete it and go on: it is made anew") from None

    def _path(self, index):
        return self.folder / f"{index:06d}.safetensors"

    def scores(self):
        """{"miou": ..., "miou_GROUP": ...} in points, of the tower as it is now."""
        names, device = self.data.names, self.ranks.device
        vectors = self.model.class_vectors(names).float()
        matrix = np.zeros((len(names),) * 2, np.int64)
        for index in self.own:
            seen = self._seen(index)
            image = Look(seen["windows"].to(device).float(), tuple(seen["size"].tolist()), self.grid)
            truth = seen["truth"].numpy()
            matrix += confusion(truth, winners(image.scores(vectors), truth.shape)[1].numpy(), len(names))
        matrix = all_sum(torch.from_numpy(matrix).to(device)).cpu().numpy()
        found = scores(matrix, self.data.groups)
        return {"miou": found["all"], **{f"miou_{group}": found[group] for group in self.data.groups}}
