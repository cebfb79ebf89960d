"""Class lists of evaluation sets.

world          the built-in world
classes/*.txt  public sets, a class a line with other writings behind commas
"""

from pathlib import Path

from fastzss import world
from fastzss.base.errors import UserError, nearest

LISTS = Path(__file__).parent / "classes"


def set_names():
    return ("world", *sorted(path.stem for path in LISTS.glob("*.txt")))


def class_groups(name):
    """{class of an evaluation set: other ways to write it}."""
    if name not in set_names():
        there = ", ".join(set_names())
        raise UserError(f'unknown evaluation set "{name}"{nearest(name, set_names())}; expected {there}', code=2)
    if name == "world":
        return dict.fromkeys(world.NAMES, ())
    lines = (LISTS / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    groups = ([writing.strip() for writing in line.split(",")] for line in lines)
    return {first: tuple(dict.fromkeys(others)) for first, *others in groups}
