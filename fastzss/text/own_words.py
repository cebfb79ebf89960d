"""The table of the text tower in training: only the words that captions have learn, all others decay.

AdamW gives a word without a gradient no moments, and at every step it only shrinks, p <- p (1 - rate * weight decay).
That is done when the table is asked for, factor by factor in the order of the steps: so a run that was stopped has the
bits of one that was not.

Sizes: V words of the vocabulary, v of them that learn, W width.
"""

import torch
from torch import nn

AT_ONCE = 1 << 18  # numbers that all factors are applied to before the next ones: they stay in the cache


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
        self.register_buffer("table", table, persistent=False)  # [V, W], as it was when `whole` was last called
        self.weight = nn.Parameter(table[self.words])
        self.factors = []  # of the steps since then
        self.register_state_dict_post_hook(OwnWords._give)
        self.register_load_state_dict_pre_hook(OwnWords._take)

    def decay(self, factor):
        """What a step does to the other words."""
        self.factors.append(factor)

    @torch.no_grad()
    def whole(self):
        """[V, W]: the table as it is now."""
        for part in self.table.view(-1).split(AT_ONCE):
            for factor in self.factors:
                part.mul_(factor)
        self.factors.clear()
        return self.table.index_copy_(0, self.words, self.weight)

    def spread(self, rows):
        """[v, W] of the words that learn -> [V, W], 0 for the others."""
        return torch.zeros_like(self.table).index_copy_(0, self.words, rows)

    def gathered(self, table):
        """[V, W] -> [v, W] of the words that learn."""
        return table[self.words]

    def _give(self, state, prefix, _):
        state[f"{prefix}weight"] = self.whole()

    def _take(self, state, prefix, *_):
        if (name := f"{prefix}weight") in state:
            self.table.copy_(state[name])
            self.factors.clear()
            state[name] = self.table[self.words]
