"""What whole images and whole captions say, from the same embeddings as the masks.

recall      of each image the nearest captions of a store, and of each caption the nearest images
classified  the nearest class name of each image of a folder, DIR/CLASS/*.jpg

Sizes: n images, B captions, K classes, D channels.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from fastzss.base.errors import UserError
from fastzss.base.files import identity
from fastzss.evaluation.score import mean_iou
from fastzss.sources.images import SUFFIXES, ImageUnreadable, files_below, read_image
from fastzss.store.reading.joined import open_store

AT = (1, 5, 10)
AT_ONCE = 512  # rows of similarities held at a time
BATCH = 32  # images that the backbone is given


def retrieval(model, run, path):
    """{"image to text": {"recall@1": points, ...}, "text to image": ..., "images", "captions"} of a captioned store."""
    store = open_store(path)
    if store.plan.vision != run.config["vision"]:
        raise UserError(
            f"{store.path}: its images were seen by {store.plan.vision['model']}, the run {run.path} looks with "
            f"{run.config['vision']['model']}, or its weights differ; expected a store of the run's own backbone"
        )
    kept = store.valid()[store.captions.row]
    row, texts = store.captions.row[kept], [t for t, good in zip(store.captions.texts, kept, strict=True) if good]
    if not texts:
        raise UserError(f"{store.path}: has no caption of a readable image; expected a store with captions")
    rows, own = row.unique(return_inverse=True)
    images = F.normalize(store.globals(rows.numpy(), global_of(run, store.plan.globals)).float(), dim=-1)
    captions = model.class_vectors(texts, "eot", ("{}",)).float().cpu()
    return {**recall(images, captions, own), "images": len(images), "captions": len(captions)}


def global_of(run, kinds):
    """The global vector of images that a run's captions were brought near to."""
    return run.config["settings"].get("global_feature") or kinds[0]


def recall(images, captions, own):
    """Recall@k both ways, in points, of unit vectors; own [B]: whose each caption is.

    A rank counts what is strictly nearer; an image's is that of its best caption.
    """
    to_image = torch.cat([
        ranks_of(part @ images.T, (part * images[mine]).sum(-1))
        for part, mine in zip(captions.split(AT_ONCE), own.split(AT_ONCE), strict=True)
    ])  # fmt: skip
    best = torch.full((len(images),), -torch.inf).scatter_reduce(0, own, (captions * images[own]).sum(-1), "amax")
    to_text = torch.cat([
        ranks_of(part @ captions.T, mine)
        for part, mine in zip(images.split(AT_ONCE), best.split(AT_ONCE), strict=True)
    ])  # fmt: skip
    return {
        way: {f"recall@{k}": 100 * (ranks < k).double().mean().item() for k in AT}
        for way, ranks in (("image to text", to_text), ("text to image", to_image))
    }


def ranks_of(similarities, own):
    """How many of each row are nearer than its own, by more than rounding."""
    return (similarities > own.unsqueeze(1) + 1e-6).sum(1)


def classified(model, run, folder, protocol, skip=False):
    """{"top1", "top5", "mean class accuracy", "images", "classes", ...}, in points, of DIR/CLASS/*.jpg."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"--classify {folder}: no such folder; expected one with a folder of images a class")
    below = {path: files_below(path) for path in sorted(folder.iterdir()) if path.is_dir()}
    below = {path: images for path, images in below.items() if images and not path.name.startswith(".")}
    if not below:
        raise UserError(
            f"--classify {folder}: no images in folders; expected {folder}/CLASS/*, images ending in "
            f"{', '.join(sorted(SUFFIXES))}, each folder named as its class"
        )
    names = [path.name.replace("_", " ") for path in below]
    classes = model.class_vectors(names, "eot", protocol.templates).float()
    kind = model.vision.globals.index(global_of(run, model.vision.globals))
    work = [(image, k) for k, images in enumerate(below.values()) for image in images]
    hits, bad = np.zeros((len(names), 3), np.int64), 0  # right, among five, all
    for first in tqdm(range(0, len(work), BATCH), unit="batch", desc="classify", disable=None):
        pixels, truth = [], []
        for image, k in work[first : first + BATCH]:
            try:
                pixels.append(model.vision.pixels(read_image(image)))
                truth.append(k)
            except ImageUnreadable as problem:
                if not skip:
                    raise UserError(f"{problem}; --skip-bad leaves such images out") from None
                bad += 1
        if pixels:
            seen = F.normalize(model.vision(torch.stack(pixels))[1][:, kind], dim=-1)
            nearest = (seen @ classes.to(seen.device).T).topk(min(5, len(names)), -1).indices.cpu().numpy()
            right = nearest == np.array(truth)[:, None]
            np.add.at(hits, truth, np.stack([right[:, 0], right.any(1), np.ones(len(truth), bool)], 1))
    if not hits[:, 2].sum():
        raise UserError(f"--classify {folder}: none of its {bad} images can be read")
    each = np.divide(100 * hits[:, 0], hits[:, 2], out=np.full(len(names), np.nan), where=hits[:, 2] > 0)
    return {
        "top1": 100 * float(hits[:, 0].sum() / hits[:, 2].sum()),
        "top5": 100 * float(hits[:, 1].sum() / hits[:, 2].sum()),
        "mean class accuracy": mean_iou(each),
        "images": int(hits[:, 2].sum()),
        "bad": bad,
        "classes": {name: None if np.isnan(value) else float(value) for name, value in zip(names, each, strict=True)},
        "templates": protocol.name,
        "hash": identity({"templates": list(protocol.templates), "classes": names, "readout": "eot"})[:12],
    }
