"""Some images of a source: the first ones (`,limit=N`), or those that are large enough (`,min-side=N`)."""

import logging
from concurrent.futures import ThreadPoolExecutor

from tqdm import tqdm

from fastzss.base.errors import UserError
from fastzss.base.machine import cores
from fastzss.sources.images import ImageUnreadable

log = logging.getLogger("fastzss")

COMMON = ("limit", "min-side")


class Some:
    """The images of a source at some places of its list."""

    def __init__(self, source, places):
        self.source, self.places = source, places
        self.spec, self.form, self.model, self.listed = source.spec, source.form, source.model, source.listed
        self.settings, self.captions_first = source.settings, source.captions_first
        self.crops = getattr(source, "crops", 1)  # crops of each image
        self.ids = [source.ids[place] for place in places]

    def image(self, index, enough=None):
        return self.source.image(self.places[index], enough)

    def size(self, index):
        return self.source.size(self.places[index])

    def captions(self, index):
        return self.source.captions(self.places[index])


class Chosen(Some):
    """The images of a source by their names, in an order of one's own; the source may have lost some since."""

    def __init__(self, source, ids):
        there = {name: place for place, name in enumerate(source.ids)}
        super().__init__(source, [there[name] for name in ids if name in there])
        self.ids, self.places = list(ids), [there.get(name) for name in ids]

    def image(self, index, enough=None):
        if self.places[index] is None:
            raise ImageUnreadable(f"{self.ids[index]}: is in {self.spec} no more")
        return super().image(index, enough)


def some_of(source, settings):
    """The images that {"limit": N, "min-side": N} leave; those that cannot be read stay, to be named as such."""
    places = range(len(source.ids))
    if side := settings.get("min-side"):
        large = _large(source, side, settings.get("limit"))
        if not large:
            raise UserError(f"{source.spec}: none of its {len(source.ids)} images has a short side of {side} pixels")
        if "limit" not in settings and len(large) < len(places):
            log.info("%s: %d images are smaller than that and left out", source.spec, len(places) - len(large))
        places = large
    return Some(source, list(places[: settings.get("limit")]))


def _large(source, side, limit):
    """Places of the images whose short side has so many pixels, or cannot be told; not more than `limit` of them."""

    def fits(place):
        try:
            return min(source.size(place)) >= side
        except ImageUnreadable:
            return True

    found, block = [], 1024
    with (
        ThreadPoolExecutor(cores()) as pool,
        tqdm(total=len(source.ids), unit="img", desc="sizes", disable=None) as bar,
    ):
        for start in range(0, len(source.ids), block):
            places = range(start, min(start + block, len(source.ids)))
            found += [place for place, fit in zip(places, pool.map(fits, places), strict=True) if fit]
            bar.update(len(places))
            if limit is not None and len(found) >= limit:
                break
    return found
