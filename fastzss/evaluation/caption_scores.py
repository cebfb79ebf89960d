"""Held-out captions as a measure, where there are no masks: do they find their image, and their names its patches?

    image     mean reciprocal rank of a caption's own image among all, by caption vector and global vector
    patches   mean average precision of the images whose captions mention a name, by their patch nearest to it
    score     the mean of both, in points as they are

Names count alike, however often they are mentioned.  A store's features are asked: no image is looked at.

Sizes: B captions, I images, K names, N patches, D channels.
"""

import numpy as np
import torch
import torch.nn.functional as F

from fastzss.base.errors import UserError

MOST = 1000  # images
AT_ONCE = 64  # images whose patches are read at a time


@torch.inference_mode()
def caption_scores(words, store, rows, bank=None, feature=None):
    """{"score", "image", "patches"} of a text tower on some images of a store.

    Args:
        words: the Readout.
        store: the PatchStore.
        rows: [I] int64, ascending: images that the tower learned nothing from.
        bank: the identity of the concept bank; None: the only one there is.
        feature: which global vector; None: the store's first.
    """
    captions, concepts = store.captions, store.concepts(bank)
    place = torch.full((len(store),), -1)
    place[rows] = torch.arange(len(rows))
    own = place[captions.row]  # of each caption: its image among `rows`
    chosen = [c for c in (own >= 0).nonzero().flatten().tolist() if captions.texts[c].strip()]
    if len(rows) < 2 or not chosen:
        raise UserError(
            f"{store.path}: {len(rows)} images with {len(chosen)} captions are held out, too few to judge by; hold "
            f"out a larger share (--hold-out), or give images with true masks (--eval-data)"
        )
    ends = words.class_vectors([captions.texts[c] for c in chosen], readout="eot", templates=("{}",)).float().cpu()
    images = F.normalize(store.globals(rows, feature or store.plan.globals[0]).float(), dim=-1)
    image = reciprocal_rank(ends @ images.T, own[chosen])

    mentions = torch.stack([concepts.name.long(), own[concepts.caption.long()]], 1)
    mentions = mentions[mentions[:, 1] >= 0]
    names, name = mentions[:, 0].unique(return_inverse=True)
    if not len(names):
        return {"score": 100 * image, "image": 100 * image, "patches": None}
    vectors = words.class_vectors([concepts.bank["names"][k] for k in names.tolist()]).float().cpu()
    nearest = torch.empty(len(names), len(rows))
    for part in torch.arange(len(rows)).split(AT_ONCE):
        patches = store.take(rows[part.numpy()]).take(slice(None))  # [I, N, D]
        nearest[:, part] = (F.normalize(patches, dim=-1) @ vectors.T).amax(1).T
    mentioned = torch.zeros(len(names), len(rows), dtype=torch.bool)
    mentioned[name, mentions[:, 1]] = True
    patches = average_precision(nearest, mentioned)
    return {"score": 50 * (image + patches), "image": 100 * image, "patches": 100 * patches}


def reciprocal_rank(similarity, own):
    """Mean over the rows of [B, I] of 1 / rank of the column `own` [B]; of equals the worst rank counts."""
    mine = similarity.gather(1, own.unsqueeze(1))
    return (1 / (similarity >= mine).sum(1)).mean().item()


def average_precision(score, right):
    """Mean over the rows of [K, I] of the average precision of the columns that are `right`.

    Rows in which all columns are right, or none is, say nothing and are left out; 0 where no row is left.
    """
    telling = right.any(1) & ~right.all(1)
    if not telling.any():
        return 0.0
    order = score[telling].argsort(dim=1, descending=True, stable=True)
    hits = right[telling].gather(1, order)
    precision = hits.cumsum(1) / torch.arange(1, hits.shape[1] + 1)
    return ((precision * hits).sum(1) / hits.sum(1)).mean().item()


def judged_rows(store, held):
    """[I] int64, ascending: rows of held-out images that could be read and have captions; the first ones of many."""
    with_captions = np.unique(store.captions.row.numpy())
    rows = with_captions[held[with_captions] & store.valid().numpy()[with_captions]]
    return rows[:MOST]
