"""Looking at a bank: what it covers, which evaluation sets it overlaps, which of its names are nearly the same."""

import numpy as np

from fastzss.bank import Bank
from fastzss.bank.build import bank_of_set, read_lines
from fastzss.bank.sets import set_names
from fastzss.base.errors import UserError
from fastzss.captions.words import spaced

RARE = 10  # mentions below which a name is of the tail
NEIGHBOURS = 16  # names looked at around each for near-duplicates


def bank_info(bank):
    """What there is to say of a bank alone."""
    origins = {}
    for origin in bank.origin:
        origins[origin] = origins.get(origin, 0) + 1
    return {
        "identity": bank.identity,
        "names": len(bank),
        "aliases": sum(map(len, bank.aliases)),
        "origin": origins,
        "vectors": "none" if bank.by is None else {"channels": bank.vectors.shape[1], **bank.by},
        "overlap": {name: overlap(bank, bank_of_set(name)) for name in set_names()},
    }


def overlap(bank, classes):
    """How many classes of an evaluation set the bank knows, by a name or an alias: "12 of 20"."""
    writings = ((name, *others) for name, others in zip(classes.names, classes.aliases, strict=True))
    held = sum(any(spaced(writing) in bank.terms for writing in group) for group in writings)
    return f"{held} of {len(classes)}"


def coverage(bank, mentions):
    """What Mentions of the bank's names say of it."""
    counts = np.bincount(mentions.name, minlength=len(bank))
    total = max(1, len(mentions.name))
    often = np.argsort(-counts, kind="stable")
    return {
        "captions": mentions.captions,
        "coverage": mentions.coverage,
        "mentions_per_caption": len(mentions.name) / max(1, mentions.captions),
        "cut": mentions.cut,
        "never": int((counts == 0).sum()),
        f"below_{RARE}": int((counts < RARE).sum()),
        "share_of_ten_most": float(counts[often[:10]].sum() / total),
        "most": {bank.names[row]: int(counts[row]) for row in often[:10] if counts[row]},
    }


def near_pairs(bank, index, threshold):
    """[(similarity, name to keep, name to merge)] of names nearer than a threshold, the nearest first.

    The one to keep is mentioned more often, or shorter, or first.
    """
    score, row = index.search(bank.vectors, min(NEIGHBOURS, len(bank)))
    counts = bank.counts or (0,) * len(bank)

    def rank(one):
        return -counts[one], len(bank.names[one]), one

    pairs = {}
    for one, (scores, others) in enumerate(zip(score.tolist(), row.tolist(), strict=True)):
        for similarity, other in zip(scores, others, strict=True):
            if other not in (one, -1) and similarity >= threshold:
                pairs[tuple(sorted((one, other), key=rank))] = similarity
    found = [(similarity, bank.names[keep], bank.names[merge]) for (keep, merge), similarity in pairs.items()]
    return sorted(found, key=lambda pair: (-pair[0], *pair[1:]))


def merged(bank, path):
    """The bank with the names of each line of a file ("sofa, couch") made one: the others become its aliases."""
    rows = {name: row for row, name in enumerate(bank.names)}
    into = {}
    for line in read_lines(path, "lines of names that are one, with commas between"):
        names = [name.strip().lower() for name in line.split("#")[0].split(",") if name.strip()]
        unknown = [name for name in names if name not in rows]
        if unknown or len(names) == 1:
            found = f'"{unknown[0]}" is no name of the bank' if unknown else f'"{names[0]}" stands alone'
            raise UserError(f"{path}: {found}; expected lines of names that are one, the one to keep first")
        keep = _root(into, names[0]) if names else None
        into.update({root: keep for name in names[1:] if (root := _root(into, name)) != keep})
    if not into:
        raise UserError(f"{path}: names nothing to merge; expected lines of names that are one, the one to keep first")
    members = {}
    for name in bank.names:
        members.setdefault(_root(into, name), []).append(rows[name])
    names = tuple(name for name in bank.names if name in members and name not in into)
    groups = [[rows[name], *(row for row in members[name] if row != rows[name])] for name in names]
    writings = ([w for row in group for w in (bank.names[row], *bank.aliases[row])] for group in groups)
    return Bank(
        names=names,
        aliases=tuple(tuple(dict.fromkeys(group[1:])) for group in writings),
        origin=tuple(", ".join(dict.fromkeys(bank.origin[row] for row in group)) for group in groups),
        counts=None if bank.counts is None else tuple(sum(bank.counts[row] for row in group) for group in groups),
    )


def _root(into, name):
    while name in into:
        name = into[name]
    return name
