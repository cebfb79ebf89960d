"""The captions of a store: read, compared with those that are there, tokenised."""

import logging
from collections import defaultdict

from tqdm import tqdm

from fastzss.base.errors import UserError
from fastzss.captions.tokens import Tokenizer
from fastzss.store.additions import joint_identity
from fastzss.store.captions import read_captions, write_captions

log = logging.getLogger("fastzss")


def texts_of(source):
    """{image: its captions}; what cannot be read is said and left out."""
    texts, bad, bare = {}, 0, []
    for index, name in enumerate(tqdm(source.ids, unit="img", desc="captions", disable=None)):
        texts[name] = []
        try:
            texts[name] = source.captions(index)
            if not texts[name]:
                bare.append(name)
        except UserError as problem:
            bad += 1
            log.warning("%s; its captions are left out", problem)
    if 0 < len(bare) < len(texts):
        log.warning("%s: %d images without captions, such as %s", source.spec, len(bare), bare[0])
    if bad:
        log.warning("%s: captions of %d of %d images cannot be read", source.spec, bad, len(texts))
    return texts


def add_captions(store, parts, texts):
    """Tokenise the captions of all images and write them, where they are not those that are there.

    Args:
        store: its folder.
        parts: the Parts of its features.
        texts: what texts_of gave.
    """
    names = [name for part in parts for name in part.ids]
    rows, captions = [], []
    for row, name in enumerate(names):
        rows += [row] * len(texts.get(name, ()))
        captions += texts.get(name, ())
    removed = [row for row, name in enumerate(names) if name not in texts]
    features = joint_identity([part.plan.identity for part in parts])
    if not captions:
        log.warning("%s: no captions; the store can be read, but no text tower can learn from it", store)
    if not (store / "captions" / "manifest.json").exists():
        return _write(store, rows, captions, names, features, removed)
    found = read_captions(store)
    if (found.row.tolist(), found.texts, found.images, list(found.removed)) == (rows, captions, names, removed):
        return None
    _say_changes(store, found, names, texts, removed)
    return _write(store, rows, captions, names, features, removed)


def _say_changes(store, found, names, texts, removed):
    before = defaultdict(list)
    for row, text in zip(found.row.tolist(), found.texts, strict=True):
        before[found.images[row]].append(text)
    changed = sum(before[name] != texts[name] for name in found.images if name in texts)
    counts = [
        (len(names) - len(found.images), "images more"),
        (len(set(removed) - set(found.removed)), "images gone from the source"),
        (changed, "images with other captions than before"),
    ]
    log.info("%s: %s", store, ", ".join(f"{count} {what}" for count, what in counts if count))


def _write(store, rows, texts, names, features, removed):
    tokenizer = Tokenizer()
    ids, cut = [], 0
    for text in tqdm(texts, unit="caption", desc="tokens", disable=None):
        tokens, beyond = tokenizer.encode(tokenizer.clean(text))
        ids.append(tokens)
        cut += beyond > 0
    if cut:
        log.warning("%d of %d captions are longer than the context and were cut", cut, len(texts))
    return write_captions(store, rows, texts, ids, names, features, removed)
