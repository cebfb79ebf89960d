"""The built-in world: scenes, captions and true masks, made on the spot from a seed.

Things are small drawings, each class a family of shapes; stuffs are procedural textures. `scene(split, index, seed)`
is a pure function; the mask holds the class of every pixel as an index into the names of `groups(split)`, which are
`NAMES` but for the split of combinations. Needs numpy and Pillow only.
"""

from fastzss.world.captions import SYNONYMS
from fastzss.world.pen import COLOURS
from fastzss.world.scene import NAMES, SEEN, SIZE, SPLITS, UNSEEN, Scene, groups, names, scene
from fastzss.world.stuffs import STUFFS
from fastzss.world.things import DRAWINGS, THINGS

__all__ = [
    "COLOURS",
    "DRAWINGS",
    "NAMES",
    "SEEN",
    "SIZE",
    "SPLITS",
    "STUFFS",
    "SYNONYMS",
    "THINGS",
    "UNSEEN",
    "Scene",
    "groups",
    "names",
    "scene",
]
