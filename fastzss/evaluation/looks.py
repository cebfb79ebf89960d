"""The images of an evaluation set as a backbone sees them: each is looked at once, and kept where a folder is given.

    threads read images and labels ─► the backbone ─► (look, truth)

FOLDER/plan.json           which images, which backbone, how they were looked at
FOLDER/NNNNNN.safetensors  patches float16 [h w, D], grid [2], cell, pixels uint8 [3, H, W], truth uint8 [H, W];
                           of windows: patches float16 [windows, N, D]
"""

import shutil
from functools import cache, partial
from itertools import islice

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from tqdm import tqdm

from fastzss.base.background import in_order
from fastzss.base.errors import UserError
from fastzss.base.files import read_json, write_file, write_json
from fastzss.base.machine import cores
from fastzss.evaluation.datasets import BadPair
from fastzss.evaluation.windows import AT_ONCE, WindowField
from fastzss.masks.field import Field, see


class Looks:
    """An EvaluationSet, seen: looks[index] is (function from `dense` to the Field of the image, truth).

    Args:
        data: the EvaluationSet.
        vision: the backbone; a function that loads it where features are kept, and it may not be needed.
    """

    at_once = 1  # images whose windows are given to the backbone together

    def __init__(self, data, vision):
        self.data, self.vision, self.folder = data, vision, None

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        return self.seen([self.load(index)])[0]

    def each(self, indices, skip=False):
        """Yields (index, look, truth), in order, what comes next being read meanwhile.

        Of a pair that cannot be used, with `skip`: (index, None, the BadPair).
        """

        def read(index):
            try:
                return index, self.load(index)
            except BadPair as problem:
                if not skip:
                    raise
                return index, problem

        read_ahead = in_order(read, indices, threads=min(4, max(2, cores() - 1)))
        while group := list(islice(read_ahead, self.at_once)):
            good = [(index, loaded) for index, loaded in group if not isinstance(loaded, BadPair)]
            seen = dict(zip([index for index, _ in good], self.seen([loaded for _, loaded in good]), strict=True))
            for index, loaded in group:
                yield (index, *seen[index]) if index in seen else (index, None, loaded)

    def load(self, index):
        """What a thread can do of looks[index]."""
        return self.data.read(index) if self.folder is None else self._kept(index)

    def seen(self, loaded):
        """The rest of it, for several images."""
        if self.folder is None:
            return [(cache(partial(see, self.vision, image)), truth) for image, truth in loaded]
        return [(self._field(kept), kept["truth"].numpy()) for kept in loaded]

    def _field(self, kept):
        patches = kept["patches"].to(self.device).float()
        field = Field(patches, kept["grid"].tolist(), int(kept["cell"]), kept["pixels"])
        return lambda dense: field

    def _kept(self, index):
        path = self._path(index)
        try:
            return load(path.read_bytes())
        except (OSError, SafetensorError) as problem:
            raise UserError(f"{path}: cannot be read ({problem}); delete it and go on: it is made anew") from None

    def keep(self, folder, plan, ranks, shown, skip=False, dense=False):
        """Look at the images that nobody has looked at yet, each rank at its share, and keep what was seen in a folder.

        `plan` says what is kept; where the folder holds anything else, that goes.
        """
        if ranks.first and not ((folder / "plan.json").is_file() and read_json(folder / "plan.json") == plan):
            shutil.rmtree(folder, ignore_errors=True)
            write_json(folder / "plan.json", plan)
        ranks.wait()
        name = "{:06d}.safetensors"
        missing = [index for index in ranks.share(range(len(self))) if not (folder / name.format(index)).is_file()]
        if missing:
            self.vision = self.vision()
        bar = tqdm(total=len(missing), unit="img", desc="look at the evaluation", disable=None if shown else True)
        with bar:
            for index, look, truth in self.each(missing, skip):
                if look is not None:
                    write_file(folder / name.format(index), save(self.tensors(look(dense), truth)))
                bar.update()
        ranks.wait()
        self.folder, self.device = folder, ranks.device

    def tensors(self, field, truth):
        """What is kept of an image."""
        return {
            "patches": field.patches.half().cpu(),
            "grid": torch.tensor(field.grid),
            "cell": torch.tensor(field.cell),
            "pixels": field.pixels,
            "truth": torch.from_numpy(np.ascontiguousarray(truth)),
        }

    def _path(self, index):
        return self.folder / f"{index:06d}.safetensors"


class WindowLooks(Looks):
    """The same through the windows of a protocol; `patch`: of the backbone, in pixels.

    Labels are not kept, so that sets of the same images share what was seen.
    """

    def __init__(self, data, vision, look, patch=None, device="cpu"):
        super().__init__(data, vision)
        self.look, self.patch = look, patch
        self.at_once = 1 if torch.device(device).type == "cpu" else AT_ONCE // 2  # images have two windows or three

    def load(self, index):
        if self.folder is not None and self._path(index).is_file():
            return self._kept(index)["patches"], self.data.label(index), index
        image, truth = self.data.read(index)
        return self.look.resized(image), truth, index

    def seen(self, loaded):
        if self.folder is not None:
            return [(self._as_seen(*one), one[1]) for one in loaded]
        fields = self.look.see(self.vision, [(truth.shape, pixels) for pixels, truth, _ in loaded])
        return [
            ((lambda dense, field=field: field), truth) for field, (_, truth, _) in zip(fields, loaded, strict=True)
        ]

    def _as_seen(self, patches, truth, index):
        pixels = cache(lambda: self.look.resized(self.data.read(index)[0]))
        field = WindowField(patches.to(self.device).float(), self.look.sides(truth.shape, self.patch), pixels)
        return lambda dense: field

    def tensors(self, field, truth):
        windows = field.shape[0] * field.shape[1]
        return {"patches": field.patches.half().cpu().view(windows, -1, field.patches.shape[-1])}
