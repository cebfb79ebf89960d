"""The built-in world: every pixel has a class."""

from fastzss import world
from fastzss.base.errors import UserError
from fastzss.evaluation.datasets import EvaluationSet
from fastzss.sources import open_source
from fastzss.sources.world import World


def world_set(data, flag="--data", skip=False):
    source = open_source(data or "world:test,n=200")
    if not isinstance(source, World):
        raise UserError(f"{flag} {data}: the protocol world takes {World.form}", code=2)
    groups = world.groups(source.split)
    names = world.names(source.split)
    if source.split == "combinations":
        groups |= {"unseen": world.UNSEEN, "seen": world.SEEN}

    def read(index):
        scene = source.scene(index)
        return scene.image, scene.mask

    groups = {group: [names.index(name) for name in members] for group, members in groups.items()}
    return EvaluationSet(names, groups, source.ids, read)
