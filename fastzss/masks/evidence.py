"""Evidence: what a patch memory knows of classes, beside their similarity with what is seen.

A memory answers in names of its bank; a class is spoken of through the names that are nearest to it.

    e_n      share of a place's neighbours in the memory that are called n
    m_k    = sum_n softmax_n( <g_k, t_n> / NEARNESS ) e_n                    what the memory says of class k
    trust  = sigmoid( (max_n <g_k, t_n> - KNOWN) / SPREAD )                  whether the bank knows k at all
    score  = text + weight ( trust log(m_k + floor) + (1 - trust) neutral )

g_k is the class's own vector, unless the bank has its last word: a "blue tree" and a "green tree" share what is known
of trees, and the words alone tell them apart.  Of a class that the bank does not know nothing is said: it gets what
lies between no evidence and the most that any name has at the place, so that it wins where no name is sure.

Sizes: K classes, N names of the memory's bank, P places.
"""

from math import log

from fastzss.captions.tokens import Tokenizer
from fastzss.captions.words import singular, words

NEARNESS, KNOWN, SPREAD = 0.03, 0.85, 0.03
OF = frozenset("of on in at with without by from for under over near behind beside and or that".split())


def guide(name, rows):
    """The name of a bank (name -> row) that a phrase is about: the longest end of it that the bank has; else None.

    "bowl of soup" is a bowl: what follows a word of OF only says which.
    """
    said = [word for word, _, _ in words(Tokenizer().clean(name))]
    cut = next((i for i, word in enumerate(said) if i and word in OF), len(said))
    said = said[:cut]
    for begin in range(len(said)):
        end = " ".join(said[begin:])
        if end in rows:
            return rows[end]
    # the tables of plurals are read only where they may help
    return rows.get(singular(said[-1])) if said else None


class Known:
    """What the names of a memory are to a list of classes: `weights` [K, N], `trust` [K].

    Args:
        classes: of each class its name, or a tuple of its names.
        vectors: [K, D] unit vectors of the classes.
        names: the memory's.
        named: [N, D] unit vectors of these.
    """

    def __init__(self, classes, vectors, names, named):
        rows = {name: row for row, name in enumerate(names)}
        guides = vectors.clone()
        for k, name in enumerate(classes):
            found = [guide(alias, rows) for alias in ((name,) if isinstance(name, str) else name)]
            found = [row for row in found if row is not None]
            if found:
                guides[k] = named[found[0]]
        near = guides @ named.T
        self.weights = (near / NEARNESS).softmax(-1)
        self.trust = ((near.amax(-1) - KNOWN) / SPREAD).sigmoid()

    def added(self, evidence, inference):
        """[P, K]: what is added to the classes' similarities, from the evidence [P, N]."""
        weights, trust = (t.to(evidence.device) for t in (self.weights, self.trust))
        found = inference.evidence * (evidence @ weights.T + inference.floor).log()
        return trust * found + (1 - trust) * self.neutral(evidence, inference)

    def neutral(self, evidence, inference):
        """[P, 1]: what is added to the similarity of what the memory does not know."""
        least, most = log(inference.floor), (evidence.amax(-1, keepdim=True) + inference.floor).log()
        return inference.evidence * (inference.neutral * most + (1 - inference.neutral) * least)
