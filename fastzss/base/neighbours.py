"""The nearest of many unit vectors: FAISS where it is installed, exact search in torch where it is not.

    exact   up to EXACT vectors, and whatever their number without FAISS: every query meets every vector
    ivf     above, with FAISS on a CPU: vectors in cells around k-means centres, the nearest cells of a query searched.
            How many cells is measured when the index is made: the least power of two (or all) at which TRIED queries
            find RECALL of what exact search finds
    GPU     faiss-gpu and a GPU it sees: exact up to GPU_EXACT vectors there

faiss-cpu and faiss-gpu install the same folder; either will do.

Sizes: n vectors of D channels, Q queries.
"""

import logging
from functools import cache

import numpy as np

from fastzss.base.errors import UserError

log = logging.getLogger("fastzss")

EXACT, GPU_EXACT = 100_000, 5_000_000
RECALL, TRIED, NEAREST = 0.99, 256, 10
AT_ONCE = 2**24  # similarities held at a time by exact search


@cache
def faiss():
    """The FAISS module, or None."""
    try:
        import faiss as module
    except ImportError:
        module = None
    if not hasattr(module, "IndexFlatIP"):  # one of its two packages was removed, and with it files of the other
        log.info('FAISS is not installed: searching exactly in torch; pip install "fastzss[cpu]" or "fastzss[gpu]"')
        return None
    return module


def gpus():
    """How many GPUs FAISS can use."""
    module = faiss()
    return module.get_num_gpus() if module and hasattr(module, "StandardGpuResources") else 0


class Index:
    """Unit vectors, ready to be searched.

    Args:
        vectors: [n, D] float32.
        saved: what `bytes` gave earlier for the same vectors: saves the work of making cells.
        most: vectors up to which search is exact on a CPU, by default EXACT.
        probes: cells of a query that are searched, by default as many as RECALL needs.
    """

    def __init__(self, vectors, saved=None, most=None, probes=None):
        self.vectors = np.ascontiguousarray(vectors, np.float32)
        if self.vectors.ndim != 2:
            raise ValueError(f"Index: vectors of shape {self.vectors.shape}; expected [n, D]")
        self.kind, self._faiss = "exact", None
        module, n = faiss(), len(self.vectors)
        if module and gpus() and n <= GPU_EXACT:
            self._resources = module.StandardGpuResources()
            self._faiss = module.index_cpu_to_gpu(self._resources, 0, self._flat(module))
            self.kind = "exact, GPU"
        elif module and n > (EXACT if most is None else most):
            self._faiss = restored(module, saved, self.vectors.shape) if saved else self._cells(module, probes)
            self.kind = "ivf"
        elif module:
            self._faiss = self._flat(module)

    def __len__(self):
        return len(self.vectors)

    def search(self, queries, k):
        """(similarity [Q, k] descending, row [Q, k]) of the k nearest vectors of each query."""
        queries = np.ascontiguousarray(queries, np.float32)
        if queries.ndim != 2 or queries.shape[1] != self.vectors.shape[1]:
            raise ValueError(f"search: queries {queries.shape}, vectors have {self.vectors.shape[1]} channels")
        k = min(k, len(self))
        if self._faiss is None:
            return exact(self.vectors, queries, k)
        return self._faiss.search(queries, k)

    def bytes(self):
        """What makes the next start fast; None where there is nothing to save."""
        if self.kind != "ivf":
            return None
        return faiss().serialize_index(self._faiss).tobytes()

    def _flat(self, module):
        index = module.IndexFlatIP(self.vectors.shape[1])
        index.add(self.vectors)
        return index

    def _cells(self, module, probes):
        n, D = self.vectors.shape
        cells = int(4 * n**0.5)
        index = module.index_factory(D, f"IVF{cells},Flat", module.METRIC_INNER_PRODUCT)
        index.cp.seed, index.cp.max_points_per_centroid = 0, 64
        index.train(self.vectors)
        index.add(self.vectors)
        if probes:
            index.nprobe = min(cells, probes)
            return index
        # queries between vectors, not on them: the mean of one and another, which is harder than what is indexed
        random = np.random.default_rng(0)
        queries = self.vectors[random.integers(n, size=TRIED)] + 0.5 * self.vectors[random.integers(n, size=TRIED)]
        true = exact(self.vectors, queries, NEAREST)[1]
        index.nprobe = 8
        while index.nprobe < cells and recall(index.search(queries, NEAREST)[1], true) < RECALL:
            index.nprobe = min(cells, 2 * index.nprobe)
        return index


def restored(module, saved, shape):
    """A saved index, if it is one of that many vectors of that many channels."""
    try:
        index = module.deserialize_index(np.frombuffer(saved, np.uint8))
    except RuntimeError as problem:
        raise UserError(f"the saved index cannot be read ({str(problem).splitlines()[0]}); make it anew") from None
    if (index.ntotal, index.d) != shape:
        found = f"holds {index.ntotal} vectors of {index.d}"
        raise UserError(f"the saved index {found}, and there are {shape[0]} of {shape[1]}; make it anew")
    return index


def exact(vectors, queries, k):
    """(similarity [Q, k], row [Q, k]) by comparing every query with every vector, in torch."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    vectors = torch.from_numpy(vectors).to(device)
    parts = []
    for part in torch.from_numpy(np.ascontiguousarray(queries)).split(max(1, AT_ONCE // max(1, len(vectors)))):
        parts.append([t.cpu() for t in (part.to(device) @ vectors.T).topk(k, dim=-1)])
    if not parts:
        return np.empty((0, k), np.float32), np.empty((0, k), np.int64)
    score, row = (torch.cat(side).numpy() for side in zip(*parts, strict=True))
    return score, row


def recall(found, true):
    """Share of the true neighbours that were found."""
    return np.mean([len(np.intersect1d(a, b)) / len(b) for a, b in zip(found, true, strict=True)])
