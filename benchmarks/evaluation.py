"""What an evaluation costs: from scores of patches to a confusion matrix, and a set whose features are kept.

    python benchmarks/evaluation.py [--images 1000] [--looked 6] [--classes 150]

1. Upsampling, argmax and confusion of one image, beside F.interpolate and argmax of all classes: the same masks.
2. `--images` images of 683 x 512 with kept features of a ViT-B/14, beside the vision pass of `--looked` of them.
Weights are random: they cost the same.  One thread where OMP_NUM_THREADS=1.
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save

from fastzss.backbones import load_vision
from fastzss.base.machine import machine_record
from fastzss.evaluation.datasets import EvaluationSet
from fastzss.evaluation.evaluate import count
from fastzss.evaluation.looks import WindowLooks
from fastzss.evaluation.pixels import nearest
from fastzss.evaluation.protocols import protocol_of
from fastzss.evaluation.reading import WindowReading
from fastzss.evaluation.score import confusion
from fastzss.evaluation.tally import Tally
from fastzss.evaluation.windows import WindowField
from fastzss.masks.inference import PLAIN
from fastzss.masks.vocabulary import Vocabulary

BACKBONE = "vit_base_patch14_reg4_dinov2.lvd142m"
CASES = (("Cityscapes", (1024, 2048), 171), ("VOC", (375, 500), 171), ("ADE20K", (512, 683), 150))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=1000, help="with kept features (default: %(default)s)")
    parser.add_argument("--looked", type=int, default=6, help="with the vision pass (default: %(default)s)")
    parser.add_argument("--classes", type=int, default=150)
    parser.add_argument("--trials", type=int, default=3)
    args = parser.parse_args()
    rows = [pixels(*case, smooth, args.trials) for case in CASES for smooth in (0, 3)]
    rows.append(kept(args.images, args.looked, args.classes))
    for row in rows:
        print(json.dumps(row))
    print(json.dumps({**machine_record("cpu"), "threads": torch.get_num_threads()}))


def pixels(name, size, classes, smooth, trials):
    """Seconds of both ways, medians of trials taken in turn."""
    look = protocol_of("tcl").windows
    sides = look.sides(size, 14)
    windows, grid = len(sides[0].starts) * len(sides[1].starts), (sides[0].patches, sides[1].patches)
    values = torch.randn(windows, classes, *grid, generator=torch.Generator().manual_seed(0))
    for _ in range(smooth):  # as scores of real images are
        values = F.avg_pool2d(F.pad(values, (2, 2, 2, 2), mode="replicate"), 5, 1)
    values = values.permute(0, 2, 3, 1).reshape(-1, classes).contiguous()
    field = WindowField(torch.zeros(windows, grid[0] * grid[1], 1), sides, None)
    truth = np.random.default_rng(0).integers(0, classes, size).astype(np.uint8)

    def ours():
        return confusion(truth, nearest(field.on_grid(values), *field.matrices())[1].numpy(), classes)

    def plain():
        return confusion(truth, interpolated(field, values, size).argmax(0).numpy(), classes)

    assert np.abs(ours() - plain()).sum() <= 1e-4 * truth.size  # ties, rounded in another order
    times = [(seconds(ours), seconds(plain)) for _ in range(trials)]
    one, other = (statistics.median(t) for t in zip(*times, strict=True))
    kind = "smooth" if smooth else "noise"
    return {"case": f"{name}, {classes} classes, {kind}", "ours": one, "interpolate": other, "times": other / one}


def interpolated(field, values, size):
    rows, columns = field.sides
    maps = values.view(-1, rows.patches, columns.patches, values.shape[1]).permute(0, 3, 1, 2)
    maps = F.interpolate(maps, (rows.seen, columns.seen), mode="bilinear")
    sums, counts = torch.zeros(maps.shape[1], rows.resized, columns.resized), torch.zeros(rows.resized, columns.resized)
    corners = [(y, x) for y in rows.starts for x in columns.starts]
    for window, (y, x) in zip(maps, corners, strict=True):
        sums[:, y : y + rows.extent, x : x + columns.extent] += window[:, : rows.extent, : columns.extent]
        counts[y : y + rows.extent, x : x + columns.extent] += 1
    return F.interpolate((sums / counts)[None], size, mode="bilinear")[0]


def seconds(call):
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def kept(images, looked, classes):
    """Images a second with the vision pass, and from kept features."""
    vision, protocol = load_vision(BACKBONE, random=True), protocol_of("tcl").of_set("ade20k")
    random = np.random.default_rng(0)
    folder = Path(tempfile.mkdtemp())
    try:
        coarse = random.integers(0, 256, (looked, 8, 11, 3), np.uint8)
        for index, picture in enumerate(coarse):
            Image.fromarray(picture).resize((683, 512), Image.Resampling.BICUBIC).save(folder / f"{index}.jpg")
            label = np.kron(random.integers(0, classes, (16, 22)), np.ones((32, 32))).astype(np.uint8)[:512, :683]
            Image.fromarray(label).save(folder / f"{index}.png")

        def read(index):
            with Image.open(folder / f"{index % looked}.jpg") as image:
                return image.convert("RGB"), truth(index)

        def truth(index):
            return np.array(Image.open(folder / f"{index % looked}.png"))

        names = tuple(map(str, range(classes)))
        vectors = F.normalize(torch.randn(classes, vision.channels), dim=-1)
        reading = WindowReading(Vocabulary(names, vectors, PLAIN), range(classes), protocol, False)

        def scored(number, keep=None):
            data = EvaluationSet(names, {}, list(range(number)), read, truth)
            looks = WindowLooks(data, vision, protocol.windows, 14)
            if keep is not None:
                looks.folder, looks.device = keep, torch.device("cpu")
            return seconds(lambda: count(looks, [Tally(reading, classes)], shown=False)) / number

        vision.at(448, 448)
        with_vision = scored(looked)
        looks = WindowLooks(EvaluationSet(names, {}, list(range(looked)), read, truth), vision, protocol.windows, 14)
        for index, look, mask in looks.each(range(looked)):
            (folder / f"{index:06d}.safetensors").write_bytes(save(looks.tensors(look(False), mask)))
        for index in range(looked, images):  # a file of its own each, so that the disk has its part
            shutil.copy(folder / f"{index % looked:06d}.safetensors", folder / f"{index:06d}.safetensors")
        from_kept = scored(images, folder)
        return {
            "case": f"{images} images of 683 x 512, {classes} classes, kept features of {BACKBONE}",
            "kept": from_kept,
            "vision": with_vision,
            "vision measured on": looked,
            "times": with_vision / from_kept,
        }
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
