"""An epoch of shuffled batches from disk, which any number of ranks shares.

Rows lie in a pseudo-random order already, so it is enough to read shards in random order, a few at a time, and to
shuffle the rows of these few.  The order is a function of the store, seed and epoch alone.  It is cut into global
batches; rank r takes rows r::world of each, so whoever continues sees the same global batches on any number of ranks.
The rest that fills no batch is dropped, on all ranks alike.
"""

import numpy as np

from fastzss.errors import UserError
from fastzss.store.plan import permutation

MIXED = 8  # shards that are read from at a time


def epoch_order(plan, seed, epoch):
    """int64 [n]: the rows of a store in the order of an epoch."""
    shards, parts = permutation(plan.shards, seed, epoch), []
    for group, start in enumerate(range(0, len(shards), MIXED)):
        rows = np.concatenate([np.array(plan.rows(int(shard))) for shard in shards[start : start + MIXED]])
        parts.append(rows[permutation(len(rows), seed, epoch, group, 1)])
    return np.concatenate(parts)


class Stream:
    """An iterator of (rows, Patches); see `PatchStore.stream`.  `state`: what to continue from, after the batch that
    was yielded last."""

    def __init__(self, store, batch, seed, epoch, state, rank, world, device):
        if state is not None:
            if state["plan_id"] != store.identity:
                raise UserError(
                    f"{store.path}: is store {store.identity[:12]}, and the stream was of {state['plan_id'][:12]}. "
                    f"Continue with the store it was begun with, or begin an epoch anew."
                )
            seed, epoch = state["seed"], state["epoch"]
        if batch < 1 or batch % world or not 0 <= rank < world:
            raise UserError(f"a batch of {batch} does not divide among {world} ranks (this is rank {rank})")
        self.seen = state["samples_seen"] if state else 0
        self.seed, self.epoch, self.plan_id = seed, epoch, store.identity
        order = epoch_order(store.plan, seed, epoch)
        order = order[store.valid().numpy()[order]]
        self.batch, self.batches = batch, max(0, len(order) - self.seen) // batch
        starts = self.seen + batch * np.arange(self.batches)
        self._reading = store.read_ahead((order[s : s + batch][rank::world] for s in starts.tolist()), device)

    def __len__(self):
        """Batches from where it began."""
        return self.batches

    def __iter__(self):
        return self

    def __next__(self):
        found = next(self._reading)
        self.seen += self.batch
        return found

    def close(self):
        """End the thread that reads ahead; so does losing the stream."""
        self._reading.close()

    @property
    def state(self):
        return {"seed": self.seed, "epoch": self.epoch, "samples_seen": self.seen, "plan_id": self.plan_id}
