"""Six pictures to begin with: scenes of the built-in world that no training has seen, and words for them."""

from functools import cache

import numpy as np

from fastzss import world
from fastzss.masks.result import encoded

SPLIT = "test"
EVERY = 5  # scenes from one example to the next: none is chosen by hand
COUNT = 6
OTHERS = ("snow", "road", "cup", "house", "sky", "fish")  # a word more for each, of what may not be there


def examples():
    """[{"src": its address, "alt": its caption, "classes": words}] of all."""
    return [
        {"src": f"/examples/{number}.png", "alt": drawn(number).captions[0], "classes": ", ".join(classes(number))}
        for number in range(COUNT)
    ]


def classes(number):
    here = [world.NAMES[k] for k in np.unique(drawn(number).mask)]
    return list(dict.fromkeys([*here, OTHERS[number]]))


@cache
def drawn(number):
    return world.scene(SPLIT, EVERY * number)


@cache
def picture(number):
    return encoded(drawn(number).image, "PNG")
