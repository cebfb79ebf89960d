"""What an extraction writes: a store's features, or an addition for the images its source has got since.

A part keeps the list of images it was begun with, so a stopped one is finished as it was begun, whatever the source has
got or lost meanwhile; what is in no part yet becomes the next addition.
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from fastzss.base.errors import UserError
from fastzss.sources import list_hash, source_record
from fastzss.sources.some import Chosen
from fastzss.store.additions import addition, image_ids, part_folders
from fastzss.store.features import refuse_other_plan
from fastzss.store.layers import read_feature_plan
from fastzss.store.plan import FeaturePlan


class Part(NamedTuple):
    """Images whose features are one plan."""

    folder: Path
    plan: FeaturePlan
    source: Chosen

    @property
    def ids(self):
        """The source's name of each row's image."""
        return [self.source.ids[index] for index in self.plan.order()]


def parts_of(store, source, plan):
    """The parts of a store in the order of their rows, with one more where the source has images that are in none.

    Args:
        store: folder of a store, or of one that is to be.
        source: all that the user wants in it.
        plan: of all of that, as if the store were new.
    """
    store, there = Path(store), part_folders(store)
    if not there or [read_feature_plan(folder).identity for folder in there] == [plan.identity]:
        return [Part(store, plan, Chosen(source, source.ids))]
    first = read_feature_plan(store)
    if not same_but_images(first, plan) or subject(first.source) != subject(plan.source):
        refuse_other_plan(store, first, plan)
    parts = []
    for folder in there:
        own = read_feature_plan(folder)
        parts.append(Part(folder, own, Chosen(source, in_order(image_ids(folder, store), own, folder))))
    known = {name for part in parts for name in part.source.ids}
    if known.isdisjoint(source.ids):
        refuse_other_plan(store, first, plan)
    new = Chosen(source, [name for name in source.ids if name not in known])
    if new.ids:
        own = replace(plan, images=len(new.ids), source=source_record(new))
        parts.append(Part(addition(store, len(parts)), own, new))
    return parts


def same_but_images(found, wanted):
    alike = [replace(plan, images=1, source={}).identity for plan in (found, wanted)]
    return alike[0] == alike[1]


def subject(record):
    """What a source is of, without how much of it: folder:DIR of folder:DIR,limit=9, and how many crops of each."""
    return re.sub(r"(,[\w-]+=[^,]*)+$", "", record.get("spec", "")), record.get("crops")


def in_order(ids, plan, folder):
    """Names of a part's rows, in the order of the source they came from."""
    ids = ids[: plan.images]  # captions of a grown store know the images of all parts
    ordered = [None] * plan.images
    for row, index in enumerate(plan.order()):
        ordered[index] = ids[row]
    if list_hash(ordered) != plan.source.get("list"):
        raise UserError(f"{folder}: its list of images is not the one it was made from. Extract into another store")
    return ordered
