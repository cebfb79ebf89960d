"""Images with true masks, a file a layout on disk.

world.py, folder.py                               the built-in world; any folder
voc.py, context.py, coco.py, cityscapes.py, ade.py   the public sets, as mmseg lays them out and as they are downloaded
layouts.py                                        what those five have in common
labels.py                                         label PNGs
"""

from dataclasses import dataclass, field

from fastzss.base.errors import UserError


class BadPair(UserError):
    """One image or its label cannot be used; with --skip-bad it is counted instead."""


@dataclass(frozen=True)
class EvaluationSet:
    names: tuple  # of the classes
    groups: dict  # {"things": class indices, ...}: parts of the classes to score apart
    ids: list
    read: object  # index -> (PIL image, uint8 mask [H, W]); BadPair where there is none
    truth: object = None  # index -> the mask alone, where that is cheaper
    writings: dict = field(default_factory=dict)  # class -> other ways to write it
    background: bool = False  # the first class is what is none of the others
    used: str = ""  # which files these are, in words
    bad: tuple = ()  # sentences about pairs that were left out when the set was opened
    expected: int | None = None  # images that the whole set has

    def __len__(self):
        return len(self.ids)

    def label(self, index):
        return self.read(index)[1] if self.truth is None else self.truth(index)
