"""Patch memory: patches of the store that captions say something about, asked what a patch of a new image is.

A patch of the store is labelled by the concept that it is most similar to among those its own image's captions mention;
no mask is ever seen.  A patch v of a new image looks up its nearest neighbours, and the text vectors t of their labels
say what it is:

    v'  =  (1 - weight) v  +  weight sum_j a_j t(label_j)          a = softmax of the similarities / TEMPERATURE

v' is then compared with the classes as v would be.  What no caption mentions has no label: a large weight hides it
behind what is mentioned.  A memory belongs to one checkpoint of one run: other text vectors would mean something else.

    MEMORY/memory.json         the run's checkpoint, the store, the bank, sizes
    MEMORY/patches-HASH.npy    float16 [M, D]       MEMORY/labels-HASH.npy   int32 [M]
    MEMORY/names-HASH.npy      float32 [K, D], t    MEMORY/index-HASH.faiss  of large memories, where FAISS is installed

Sizes: M patches in memory, D channels, K names.
"""

import numpy as np
import torch
from tqdm import tqdm

from fastzss.errors import UserError
from fastzss.folders import read_folder, write_folder
from fastzss.index import Index
from fastzss.readout import embedder, run_record, same_vectors
from fastzss.runs import Run
from fastzss.store import PatchStore, identity

# Chosen on the validation split of the built-in world, among six each.
NEIGHBOURS, TEMPERATURE = 50, 0.1
WEIGHT = 0.3  # more is better for classes that captions mention, and much worse for those they do not
SAMPLES = 50_000
EXACT = 5_000  # patches up to which every one is looked at: an image has hundreds of its own, each with a query
LEAST = 16  # patches taken of an image at least: images are what is slow to read
AT_ONCE = 64  # images read at a time
MAKER = "fastzss bank memory"


class Memory:
    def __init__(self, patches, labels, names, weight=WEIGHT, saved=None):
        self.index, self.labels, self.names = Index(patches, saved, EXACT), torch.from_numpy(labels).long(), names
        self.weight = weight

    @torch.inference_mode()
    def recall(self, patches):
        """[*, D] unit patches -> [*, D]: moved towards the text vectors of what their neighbours are."""
        flat = patches.flatten(0, -2).float().cpu()
        similarity, row = self.index.search(flat.numpy(), NEIGHBOURS)
        share = (torch.from_numpy(similarity) / TEMPERATURE).softmax(-1)
        near = (share.unsqueeze(-1) * self.names[self.labels[torch.from_numpy(row)]]).sum(-2)
        moved = (1 - self.weight) * flat + self.weight * near
        return moved.view(patches.shape).to(patches.device)


def build_memory(store, run, out, bank=None, samples=SAMPLES, seed=0):
    """Make a memory of a store with the eyes and words of a run; returns what there is to say about it."""
    store, run = PatchStore(store), Run.open(run)
    if store.plan.vision != run.config["vision"]:
        raise UserError(
            f"{store.path}: its images were seen by {store.plan.vision['model']} "
            f"({store.plan.vision['weights'][:8]}), the run {run.path} looks with {run.config['vision']['model']} "
            f"({run.config['vision']['weights'][:8]}); a memory needs the store of the run's own backbone"
        )
    concepts = store.concepts(bank)
    if not len(concepts.name):
        raise UserError(f"{store.path}: no caption mentions a name of its bank, so there is nothing to remember")
    names = torch.from_numpy(embedder(run.path).vectors(concepts.bank["names"]))
    mentioned = torch.stack([store.captions.row[concepts.caption.long()], concepts.name.long()], 1).unique(dim=0)
    random = torch.Generator().manual_seed(seed)
    rows = mentioned[:, 0].unique()
    rows = rows[store.valid()[rows]]
    rows = rows[torch.randperm(len(rows), generator=random)[: max(1, samples // LEAST)]].sort().values
    each = min(store.plan.patches, -(-samples // len(rows)))

    patches, labels = [], []
    for part in tqdm(rows.split(AT_ONCE), unit="reads", desc="memory", disable=None):
        for row, values in zip(part.tolist(), store.take(part).take(slice(None)), strict=True):
            values = values[torch.randperm(len(values), generator=random)[:each]]
            own = mentioned[mentioned[:, 0] == row, 1]
            patches.append(values.half())
            labels.append(own[(values @ names[own].T).argmax(1)])
    patches, labels = torch.cat(patches)[:samples], torch.cat(labels)[:samples]
    record = {
        "by": run_record(run),
        "vision": identity(run.config["vision"]),
        "store": store.identity,
        "bank": concepts.bank["identity"],
        "patches": len(patches),
        "channels": patches.shape[1],
        "names": concepts.bank["names"],
    }
    arrays = {"patches.npy": patches.numpy(), "labels.npy": labels.int().numpy(), "names.npy": names.numpy()}
    write_folder(out, "memory", record, arrays | {"index.faiss": Index(patches.float().numpy(), most=EXACT).bytes()})
    counts = torch.bincount(labels, minlength=len(names))
    return {
        "memory": str(out),
        "patches": len(patches),
        "images": len(rows),
        "concepts": int((counts > 0).sum()),
        "most": {concepts.bank["names"][k]: int(counts[k]) for k in counts.argsort(descending=True)[:10]},
    }


def load_memory(path, run, weight=WEIGHT):
    """The memory of a run's newest checkpoint; refuses that of another."""
    if not 0 <= weight <= 1:
        raise UserError(f"--memory-weight {weight:g}: expected 0 (the text alone) to 1 (the memory alone)", code=2)
    run = Run.open(run)
    record, files = read_folder(path, "memory", MAKER)
    patches, labels, names = (files[f"{what}.npy"] for what in ("patches", "labels", "names"))
    channels = run.config["text"]["out"]
    if patches.shape[1] != channels or names.shape[1] != channels:
        raise UserError(f"{path}: holds patches of {patches.shape[1]} channels, the run {run.path} has {channels}")
    own = run_record(run)
    if record["vision"] != identity(run.config["vision"]) or not same_vectors(record["by"], own):
        raise UserError(
            f"{path}: was made with another run or checkpoint ({record['by']['run']}, "
            f"{record['by']['checkpoint'][:8]}; this one is {own['checkpoint'][:8]}); "
            f"`{MAKER} STORE --run {run.path}` makes one for it"
        )
    return Memory(patches.astype(np.float32), labels, torch.from_numpy(names), weight, files.get("index.faiss"))
