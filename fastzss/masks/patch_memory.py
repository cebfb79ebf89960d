"""Patch memory: patches of the store that captions say something about, asked what a patch of a new image is called.

A patch of the store is labelled by the concept that it is most similar to, smoothed over its image, among those its own
image's captions mention; no mask is ever seen.  Of each concept's patches the surer ones are kept, those with the
widest margin to the next concept of their image, and of frequent concepts no more than of others, as far as they go.

A patch of a new image looks up its nearest neighbours; their labels are evidence about names (evidence.py).  A memory
belongs to one checkpoint of one run: with other text vectors the labels would be others.

    MEMORY/memory.json         the run's checkpoint, the store, the bank, sizes, the threshold of a background
    MEMORY/patches-HASH.npy    float16 [M, D]       MEMORY/labels-HASH.npy   int32 [M]
    MEMORY/names-HASH.npy      float32 [K, D], t    MEMORY/index-HASH.faiss  of large memories, where FAISS is installed

Sizes: M patches in memory, N patches and D channels of an image, K names.
"""

import logging

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from fastzss import kernels
from fastzss.bank.embedding import embedder, run_record, same_vectors
from fastzss.bank.joined import concepts_of
from fastzss.base.errors import UserError
from fastzss.base.files import identity
from fastzss.base.neighbours import Index
from fastzss.base.records import is_folder_of, read_folder, read_record, write_folder
from fastzss.base.runs import Run
from fastzss.masks.background import Calibration
from fastzss.store.reading.joined import open_store
from fastzss.store.reading.reader import PatchStore

log = logging.getLogger("fastzss")

# Chosen on the validation split of the built-in world, among a few each.
NEIGHBOURS, TEMPERATURE = 50, 0.1
SAMPLES = 100_000
SURE = 0.6  # share of a concept's patches that may be remembered
SMOOTHING = 0.15  # of patches, before they are labelled
IMAGES = 20_000  # that are read at most
EXACT = 5_000  # patches up to which every one is looked at: an image has hundreds of its own, each with a query
PROBES = 8  # cells of a large index that are searched: more find more, and change nothing (neighbours are averaged)
AT_ONCE = 64  # images read at a time
MAKER = "fastzss bank memory"


class Memory:
    def __init__(self, patches, labels, names, vectors, threshold=None, saved=None):
        self.index = Index(patches, saved, EXACT, PROBES)
        self.labels = torch.from_numpy(labels).long()
        self.names, self.vectors, self.threshold = tuple(names), vectors, threshold

    @torch.inference_mode()
    def evidence(self, patches):
        """[P, D] patches -> [P, K]: the share of each name among their neighbours, the nearer counting more."""
        queries = F.normalize(patches.float(), dim=-1).cpu().numpy()
        similarity, row = self.index.search(queries, NEIGHBOURS)
        share = (torch.from_numpy(similarity) / TEMPERATURE).softmax(-1)
        found = torch.zeros(len(patches), len(self.names))
        return found.scatter_add_(1, self.labels[torch.from_numpy(row)], share).to(patches.device)


def build_memory(store, run, out, bank=None, samples=SAMPLES, seed=0, device="cpu"):
    """Make a memory of a store, opened or where it lies, with the eyes and words of a run; returns what there is to say
    about it."""
    store, run = store if isinstance(store, PatchStore) else open_store(store), Run.open(run)
    if store.plan.vision != run.config["vision"]:
        raise UserError(
            f"{store.path}: its images were seen by {store.plan.vision['model']} "
            f"({store.plan.vision['weights'][:8]}), the run {run.path} looks with {run.config['vision']['model']} "
            f"({run.config['vision']['weights'][:8]}); a memory needs the store of the run's own backbone"
        )
    concepts = concepts_of(store, bank)
    if not len(concepts.name):
        raise UserError(f"{store.path}: no caption mentions a name of its bank, so there is nothing to remember")
    vectors = torch.from_numpy(embedder(run.path).vectors(concepts.bank["names"]))
    random = torch.Generator().manual_seed(seed)
    mentioned = torch.stack([store.captions.row[concepts.caption.long()].long(), concepts.name.long()], 1).unique(dim=0)
    mentioned = mentioned[store.valid()[mentioned[:, 0]]]
    rows = readable(mentioned, random)
    labels, margins, threshold = labelled(store, rows, mentioned, vectors.to(device))
    chosen = balanced(labels, margins, len(vectors), samples, random)
    patches, labels = gathered(store, rows, chosen), labels.flatten()[chosen]

    names = concepts.bank["names"]
    record = {
        "by": run_record(run),
        "vision": identity(run.config["vision"]),
        "store": store.identity,
        "bank": concepts.bank["identity"],
        "patches": len(patches),
        "channels": patches.shape[1],
        "names": names,
        "threshold": threshold,
    }
    arrays = {"patches.npy": patches.numpy(), "labels.npy": labels.int().numpy(), "names.npy": vectors.numpy()}
    write_folder(
        out, "memory", record, arrays | {"index.faiss": Index(patches.float().numpy(), None, EXACT, PROBES).bytes()}
    )
    counts = torch.bincount(labels, minlength=len(vectors))
    return {
        "memory": str(out),
        "patches": len(patches),
        "images": len(rows),
        "concepts": int((counts > 0).sum()),
        "most": {names[k]: int(counts[k]) for k in counts.argsort(descending=True)[:10]},
    }


def readable(mentioned, random):
    """Ascending rows of the images to be read, at most IMAGES: the first of each name, then the second, and so on."""
    order = torch.randperm(len(mentioned), generator=random)
    row, name = mentioned[order].T
    by_name = name.argsort(stable=True)
    counts = torch.bincount(name)
    turn = torch.empty_like(name)
    turn[by_name] = torch.arange(len(name)) - (counts.cumsum(0) - counts)[name[by_name]]
    first = torch.full((int(row.max()) + 1,), len(name)).scatter_reduce(0, row, turn, "amin")
    rows = row.unique()
    return rows[first[rows].argsort(stable=True)[:IMAGES]].sort().values


@torch.inference_mode()
def labelled(store, rows, mentioned, vectors):
    """(label int64 [n, N], margin float32 [n, N], threshold of a background) of all patches of some images.

    The margin is what a patch is nearer to its label than to the next concept of its image; where there is no other, it
    is infinite.
    """
    labels = torch.empty(len(rows), store.plan.patches, dtype=torch.long)
    margins = torch.empty(len(rows), store.plan.patches)
    begins = torch.searchsorted(mentioned[:, 0].contiguous(), rows)
    counts = torch.searchsorted(mentioned[:, 0].contiguous(), rows, right=True) - begins
    device, calibration = vectors.device, Calibration(vectors)
    for part in tqdm(torch.arange(len(rows)).split(AT_ONCE), unit="reads", desc="memory", disable=None):
        patches = store.take(rows[part], device=device).take(slice(None)).float()
        smooth = F.normalize(kernels.smooth_patches(patches, patches, SMOOTHING), dim=-1)
        slot = torch.arange(max(2, int(counts[part].max())))
        there = (slot < counts[part].unsqueeze(1)).to(device)
        own = mentioned[(begins[part].unsqueeze(1) + slot).clamp_max(len(mentioned) - 1), 1].to(device)  # [b, slots]
        near = (smooth @ vectors[own].mT).masked_fill(~there.unsqueeze(1), -torch.inf)
        (best, second), which = near.topk(2, -1).values.unbind(-1), near.argmax(-1)
        labels[part], margins[part] = own.gather(1, which).cpu(), (best - second).cpu()
        calibration.add(smooth, best, own, there)
    return labels, margins, calibration.threshold


def balanced(labels, margins, names, samples, random):
    """Flat indices of the patches to remember: of each name the surest, of all names as evenly as they allow."""
    labels, margins = labels.flatten(), margins.flatten()
    order = margins.argsort(descending=True, stable=True)
    order = order[labels[order].argsort(stable=True)]  # name by name, the surest first
    counts = torch.bincount(labels, minlength=names)
    sure = (SURE * counts.double()).ceil().long()
    limit = even(sure, samples)
    chosen = []
    for own, best in zip(order.split(counts.tolist()), sure.tolist(), strict=True):
        own = own[:best]
        chosen.append(own[torch.randperm(len(own), generator=random)[:limit]])
    return torch.cat(chosen)[:samples].sort().values


def even(counts, total):
    """The largest limit with sum( min(counts, limit) ) <= total; at least 1."""
    left = counts.sort().values
    before = left.cumsum(0) - left
    for k, count in enumerate(left.tolist()):
        share = (total - int(before[k])) // (len(left) - k)
        if share < count:
            return max(1, share)
    return int(left[-1])


def gathered(store, rows, chosen):
    """float16 [M, D]: the patches with these ascending flat indices."""
    image, place = chosen // store.plan.patches, chosen % store.plan.patches
    found = []
    for part in torch.arange(len(rows)).split(AT_ONCE):
        inside = (image >= part[0]) & (image <= part[-1])
        if inside.any():
            patches = store.take(rows[part]).take(slice(None))
            found.append(patches[image[inside] - part[0], place[inside]].half())
    return torch.cat(found)


def load_memory(path, run):
    """The memory of a run's chosen checkpoint (a Run, or its folder); refuses that of another."""
    run = run if isinstance(run, Run) else Run.open(run)
    record, files = read_folder(path, "memory", MAKER)
    patches, labels, vectors = (files[f"{what}.npy"] for what in ("patches", "labels", "names"))
    channels = run.config["text"]["out"]
    if patches.shape[1] != channels or vectors.shape[1] != channels:
        raise UserError(f"{path}: holds patches of {patches.shape[1]} channels, the run {run.path} has {channels}")
    if not is_of(path, run):
        own = run_record(run)
        raise UserError(
            f"{path}: was made with another run or checkpoint ({record['by']['run']}, "
            f"{record['by']['checkpoint'][:8]}; this one is {own['checkpoint'][:8]}); "
            f"`{MAKER} STORE --run {run.path}` makes one for it"
        )
    kept = record.get("threshold"), files.get("index.faiss")
    return Memory(patches.astype(np.float32), labels, record["names"], torch.from_numpy(vectors), *kept)


def own_memory(run):
    """The memory in a Run's own folder; None where there is none, or one of another checkpoint."""
    path = run.path / "memory"
    if not is_folder_of(path, "memory"):
        return None
    if is_of(path, run):
        return load_memory(path, run)
    log.warning("%s is of another checkpoint than %s and is not used", path, run.checkpoint.name)
    return None


def is_of(path, run):
    """Whether a memory is one of a Run's chosen checkpoint; refuses a folder that holds none."""
    record = read_record(path, "memory", MAKER)
    return record["vision"] == identity(run.config["vision"]) and same_vectors(record["by"], run_record(run))
