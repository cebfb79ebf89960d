"""Colours of classes: as far from each other as they can be, and near the usual colour of a thing that has one.

A palette is uint8 [K, 3].  Classes that have a usual colour choose first, then the others, in their order: a colour
depends on the list of names alone, so that pictures of one list agree.
"""

from functools import cache

import numpy as np

NOTHING = (128, 128, 128)  # of what is none of the classes
FIRST = "4c8edb f08a3c 4fae5b e0526a 9a6fd6 2fb3b0 e0bb35 a5734a e78ac3 9cb83a 5b5cb8 c04fa9"  # chosen by eye
DISTINCT = 256  # a palette of more begins anew
APART = 0.075  # of a usual colour from those that are taken, where the eye can just tell 0.02
USUAL = """
    e0526a red brick strawberry tomato cherry firetruck
    f08a3c orange carrot fox pumpkin basketball
    e0bb35 yellow sun banana lemon star wheat corn duck straw
    dcc08a sand beach desert
    7fb04a grass lawn meadow field pasture
    3f9a4e green tree forest bush plant leaf cactus palm frog hedge
    2f9c95 turquoise lake pond
    2f8fc4 water sea ocean river
    8ec1ea sky
    4c6fdb blue
    b9d7ea snow ice
    b3c3d6 cloud fog
    8f7fd0 night
    9a6fd6 purple violet grape plum lavender
    e78ac3 pink pig flamingo rose blossom
    a5734a brown wood log bear horse dog floor soil earth ground fence table bench cabin trunk
    8d7f93 road street asphalt pavement
    9a8a78 rock stone mountain wall
    c98462 person man woman child people face
"""


def palette(names):
    """uint8 [K, 3]: the colours of classes.  Names that are no strings have no usual colour."""
    (candidates, lab), usual = all_candidates(), usual_colours()
    room = ((lab - oklab([NOTHING])) ** 2).sum(1)  # of each candidate, the squared distance to the nearest taken one
    wishes = [next((usual[w] for w in words_of(name) if w in usual), None) for name in list(names)[:DISTINCT]]
    chosen = np.zeros(len(wishes), int)
    for k in sorted(range(len(wishes)), key=lambda k: wishes[k] is None):
        free = np.flatnonzero(room > APART**2)
        if not len(free):
            best = room.argmax()
        elif wishes[k] is not None:
            best = free[((lab[free] - wishes[k]) ** 2).sum(1).argmin()]
        else:
            best = free[0] if free[0] < len(FIRST.split()) else room.argmax()
        chosen[k] = best
        room = np.minimum(room, ((lab - lab[best]) ** 2).sum(1))
    return candidates[np.resize(chosen, len(names))].reshape(-1, 3)


def words_of(name):
    """The words of a name, the first of which says most of its colour: red car, brick house, apple tree."""
    words = name.lower().split() if isinstance(name, str) else []
    return [form for word in words for form in (word, word.removesuffix("s"))]


@cache
def usual_colours():
    """word -> [3] its usual colour, in OKLab."""
    lines = [line.split() for line in USUAL.strip().splitlines()]
    return {word: oklab([list(bytes.fromhex(colour))])[0] for colour, *words in lines for word in words}


@cache
def all_candidates():
    """uint8 [n, 3] and their OKLab: first those chosen by eye; none is near white, black or grey, or shrill."""
    levels = np.arange(16, 256, 16)
    grid = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(-1, 3).astype(np.uint8)
    lab = oklab(grid)
    chroma = np.hypot(lab[:, 1], lab[:, 2])
    grid = grid[(0.48 < lab[:, 0]) & (lab[:, 0] < 0.86) & (0.05 < chroma) & (chroma < 0.19)]
    colours = np.vstack([[list(bytes.fromhex(c)) for c in FIRST.split()], grid]).astype(np.uint8)
    return colours, oklab(colours)


def oklab(rgb):
    """[n, 3] sRGB bytes -> [n, 3] lightness and two opponent colours; distance is about what the eye sees (OKLab)."""
    c = np.asarray(rgb, np.float64) / 255
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    cones = [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
             [0.0883024619, 0.2817188376, 0.6299787005]]  # fmt: skip
    opponents = [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
                 [0.0259040371, 0.7827717662, -0.8086757660]]  # fmt: skip
    return np.cbrt(linear @ np.transpose(cones)) @ np.transpose(opponents)


def css(colour):
    """A colour as #rrggbb."""
    return "#" + bytes(int(c) for c in colour).hex()
