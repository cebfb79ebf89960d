"""The built-in world: scenes, captions and true masks, made on the spot from a seed.

Things are small drawings, each class a family of shapes; stuffs are procedural textures. `scene(split, index, seed)`
is a pure function; the mask holds the class of every pixel as an index into `NAMES`. Needs numpy and Pillow only.
"""

from fastzss.world.captions import SYNONYMS
from fastzss.world.pen import COLOURS
from fastzss.world.scene import NAMES, SPLITS, Scene, scene
from fastzss.world.stuffs import SIZE, STUFFS
from fastzss.world.things import THINGS

__all__ = ["COLOURS", "NAMES", "SIZE", "SPLITS", "STUFFS", "SYNONYMS", "THINGS", "Scene", "scene"]
