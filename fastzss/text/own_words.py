"""The table of the text tower in training: only the words that captions have learn, all others decay.

AdamW gives a word without a gradient no moments, and at every step it only shrinks, p <- p (1 - rate * weight decay).
The other words get their factors in the order of the steps, some words at a time: at every step it is the turn of a
few parts of the table, and when the table is asked for, of all that wait.  Each number is multiplied as it would be at
every step, so a run that was stopped has the bits of one that was not.

Sizes: V words of the vocabulary, v of them that learn, W width.
"""

import torch
from torch import nn

PART = 1 << 18  # numbers that all waiting factors are applied to before the next ones: they stay in the cache
TURNS = 16  # steps in which every part has its turn


class OwnWords(nn.Module):
    """Some rows of an embedding.  It is asked by their places among `words`; its state dict has the whole table.

    Args:
        embedding: nn.Embedding of V words; its table is taken over.
        words: [v] int64, those that learn.
    """

    def __init__(self, embedding, words):
        super().__init__()
        table = embedding.weight.detach()
        self.register_buffer("words", words.to(table.device), persistent=False)
        self.register_buffer("table", table, persistent=False)  # [V, W], but for the waiting factors and own words
        self.weight = nn.Parameter(table[self.words])
        self.waiting = [[] for _ in self.parts()]  # factors of each part of the table
        self.turn = 0
        self.register_state_dict_post_hook(OwnWords._give)
        self.register_load_state_dict_pre_hook(OwnWords._take)

    def parts(self):
        """The table's numbers, cut into parts."""
        # on a GPU it is one, where a launch costs more than the memory it reads
        return self.table.view(-1).split(self.table.numel() if self.table.is_cuda else PART)

    def decay(self, factor):
        """What a step does to the other words."""
        for factors in self.waiting:
            factors.append(factor)
        count = -(-len(self.waiting) // TURNS)
        self.catch_up([(self.turn + k) % len(self.waiting) for k in range(count)])
        self.turn += count

    def catch_up(self, numbers):
        """Apply what waits for some parts."""
        parts = self.parts()
        for number in numbers:
            for factor in self.waiting[number]:
                parts[number].mul_(factor)
            self.waiting[number].clear()

    def whole(self):
        """[V, W]: the table as it is now."""
        self.catch_up(range(len(self.waiting)))
        return self.table.index_copy_(0, self.words, self.weight.detach())

    def moments(self, rows, words=None):
        """[v, W] of its own words, from the rows of a checkpoint: those of some words, or of all.

        The captions of a store may have changed since; a word that had no caption then has no moments.
        """
        if words is not None:
            rows = torch.zeros_like(self.table).index_copy_(0, words.to(rows.device), rows)
        return rows[self.words]

    def _give(self, state, prefix, _):
        state[f"{prefix}weight"] = self.whole()

    def _take(self, state, prefix, *_):
        if (name := f"{prefix}weight") in state:
            self.table.copy_(state[name])
            for factors in self.waiting:
                factors.clear()
            state[name] = self.table[self.words]
