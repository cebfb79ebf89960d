"""Making banks: of the nouns of captions, of lists of words, of the class names of evaluation sets.

captions:STORE or captions:FILE   nouns and pairs of nouns, those that enough captions mention (a file: one a line)
words:FILE, or FILE               a name a line; after commas, other ways to write it
classes:SET                       the classes of an evaluation set, shipped: ade20k, world, ...; see sets.py
"""

import unicodedata
from collections import Counter
from pathlib import Path

from tqdm import tqdm

from fastzss.bank import Bank
from fastzss.bank.sets import class_groups
from fastzss.base.errors import UserError, nearest
from fastzss.captions.mentions import clean_texts
from fastzss.captions.nouns import names_in
from fastzss.captions.words import singular, spaced
from fastzss.store.captions import read_captions

KINDS = ("captions", "words", "classes")


def bank_from_captions(texts, least=None):
    """The nouns of cleaned captions that stand in at least `least` of them (default: 3, or 1 in 20,000)."""
    least = least or max(3, len(texts) // 20000)
    texts = tqdm(texts, unit="captions", desc="nouns", disable=None)
    counts = Counter(name for text in texts for name in set(names_in(text)))
    names = sorted(name for name, count in counts.items() if count >= least)
    return Bank(
        names=tuple(names),
        aliases=((),) * len(names),
        origin=("captions",) * len(names),
        counts=tuple(counts[name] for name in names),
    )


def bank_from_file(path):
    """One name a line; after commas, other ways to write it.  A name that stands there again adds its writings."""
    path = Path(path)
    groups = {}
    for line in read_lines(path, "a concept name a line"):
        writings = [" ".join(writing.lower().split()) for writing in line.split(",")]
        writings = [writing for writing in writings if spaced(writing)]
        if writings:
            groups.setdefault(writings[0], {}).update(dict.fromkeys(w for w in writings if w != writings[0]))
    if not groups:
        raise UserError(f"{path}: holds no name; expected a concept name a line, other writings behind commas")
    return from_groups(groups, path.name)


def from_groups(groups, origin):
    """A bank of {name: its other writings}; of a plural ("skis"), the singular is one."""
    taken = {spaced(writing) for name, others in groups.items() for writing in (name, *others)}
    aliases = []
    for name, others in groups.items():
        ones = (" ".join([*w.split()[:-1], singular(w.split()[-1])]) for w in (name, *others))
        aliases.append((*others, *dict.fromkeys(one for one in ones if spaced(one) not in taken)))
    return Bank(names=tuple(groups), aliases=tuple(aliases), origin=(origin,) * len(groups))


def build_bank(sources, least=None, stop=None):
    """One bank of several sources; a name of more than one keeps all its writings and origins.

    Args:
        sources: as users write them; see above.
        least: captions that must mention a name of captions.
        stop: file of names to leave out.
    """
    banks = [open_bank_source(source, least) for source in sources]
    leave = {spaced(line.strip().lower()) for line in read_lines(Path(stop), "a name a line")} if stop else set()
    bank = united(banks, leave)
    if not len(bank):
        raise UserError("the bank would hold no name: nothing is left of " + ", ".join(map(str, sources)))
    return bank


def united(banks, leave=()):
    """One bank of several; a name of more than one keeps all its writings and origins.  `leave`: terms left out."""
    aliases, origin, counts = {}, {}, {}
    for part in banks:
        for row, name in enumerate(part.names):
            if spaced(name) in leave:
                continue
            aliases.setdefault(name, {}).update(dict.fromkeys(a for a in part.aliases[row] if spaced(a) not in leave))
            origin.setdefault(name, {})[part.origin[row]] = None
            if part.counts:
                counts[name] = counts.get(name, 0) + part.counts[row]
    return Bank(
        names=tuple(aliases),
        aliases=tuple(tuple(a for a in others if a not in aliases) for others in aliases.values()),
        origin=tuple(", ".join(origins) for origins in origin.values()),
        counts=tuple(counts.get(name, 0) for name in aliases) if counts else None,
    )


def open_bank_source(source, least):
    """The bank of one source."""
    kind, colon, rest = str(source).partition(":")
    if not colon and Path(source).is_file():
        kind, rest = "words", source
    if kind not in KINDS or not rest:
        there = "; it is a folder, so write captions:STORE" if Path(source).is_dir() else nearest(kind, KINDS)
        raise UserError(
            f'unknown source "{source}"{there}; expected captions:STORE, captions:FILE, words:FILE or classes:SET',
            code=2,
        )
    if kind == "captions":
        return bank_from_captions(clean_texts(caption_texts(rest)), least)
    return bank_from_file(rest) if kind == "words" else bank_of_set(rest)


def caption_texts(path):
    """The captions of a store, or the lines of a file."""
    path = Path(path)
    if path.is_dir():
        return read_captions(path).texts
    texts = [line for line in read_lines(path, "a store, or a text file with a caption a line") if line.strip()]
    if not texts:
        raise UserError(f"{path}: holds no caption; expected one a line")
    return texts


def bank_of_set(name):
    """The bank of an evaluation set's classes."""
    return from_groups(class_groups(name), name)


def read_lines(path, expected):
    try:
        return unicodedata.normalize("NFC", path.read_text(encoding="utf-8-sig")).splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        raise UserError(f"{path}: cannot be read as text ({problem}); expected {expected}") from None
