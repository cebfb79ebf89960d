"""Names on the regions of a picture: each where its region has most room, none over another.

A name stands at the point that is farthest from the border of its region, in a picture that is squeezed first, since
names are wider than high; a region that is smaller than its name has it beside it, with a line.  Small regions choose
first: large ones have other places.
"""

import unicodedata

import numpy as np
from PIL import ImageDraw

from fastzss.masks.fonts import font_for
from fastzss.masks.regions import Regions

ROWS = 96  # of the grid in which places are looked for
MINOR = 0.01  # share of a picture below which a region has a name only if its class has no larger region
WIDE = 3  # a cell of it is this much wider than high
SIZE = 1 / 30  # of letters, in sides of a picture
SMALLEST = 13  # pixels of the letters
LONGEST = 24  # letters
INK, PAPER = (20, 22, 26), (255, 255, 255)


def letter(picture, mask, names, colours, size=SIZE):
    """Write on a PIL picture the names of the regions of its mask; `size` of the letters, of a side of the picture.

    Returns {number: name} of those that no font of this machine can write: their numbers stand for them.
    """
    size = max(SMALLEST, round((picture.width * picture.height) ** 0.5 * size))
    texts, numbered = {}, {}
    for k in np.unique(mask).tolist():
        if k >= len(names):
            continue
        text = shortened(" ".join(unicodedata.normalize("NFC", str(names[k])).split()))
        font = font_for(text, size)
        if font is None:
            numbered[k], text, font = str(names[k]), str(k), font_for("0", size)
        texts[k] = text, font, (font.getlength(text) + size * 0.6, size * 1.35)
    draw, line = ImageDraw.Draw(picture), max(1, size // 12)
    placed = places(mask, {k: sides for k, (_, _, sides) in texts.items()})
    for k, point, place in placed:
        if point != place:
            draw.line((*point, *place), INK, 3 * line)
            draw.line((*point, *place), tuple(colours[k].tolist()), line)
            draw.circle(point, 2.5 * line, tuple(colours[k].tolist()), INK, line)
    for k, _, place in placed:
        text, font, sides = texts[k]
        colour = tuple(colours[k].tolist())
        draw.rounded_rectangle(plate(place, sides), size / 4, colour, INK, line)
        draw.text(place, text, INK if np.dot(colour, (0.299, 0.587, 0.114)) > 115 else PAPER, font, anchor="mm")
    return numbered


def shortened(text):
    return text if len(text) <= LONGEST else text[: LONGEST - 3].rstrip() + "..."


def places(mask, sides):
    """[(class, a point of a region, the middle of its name)]; sides: {class: (width, height)} of the names."""
    regions, board = Regions(mask), Board(mask.shape)
    grid = regions.at(board.y.astype(int)[:, None], board.x.astype(int)[None])
    room = depth(grid)
    found, order = [], np.argsort(regions.pixels, kind="stable")
    largest = dict(zip(regions.kind[order].tolist(), order.tolist(), strict=True))
    for region in order.tolist():
        k, box = int(regions.kind[region]), regions.box[region]
        if k not in sides or (regions.pixels[region] < MINOR * mask.size and region != largest[k]):
            continue
        own = np.where(grid == region, room, 0)
        # a region thinner than the grid has no cell of its own
        point = board.point(own.argmax()) if own.any() else (float(box[::2].mean()), float(box[1::2].mean()))
        place = board.within(own, sides[k])
        if place is not None:
            point = place
        else:
            place = board.beside(box, point, sides[k])
        if place is None and region == largest[k]:  # better over another name than nowhere
            place = point = board.clamped(point, sides[k])
        if place is not None:
            board.taken.append(plate(place, sides[k]))
            found.append((k, point, place))
    return found


class Board:
    """A grid of places for names on a picture, and the plates that are taken."""

    def __init__(self, shape):
        self.shape, self.taken = shape, []
        H, W = shape
        rows, columns = min(H, ROWS), min(W, max(1, round(ROWS * W / H / WIDE)), 8 * ROWS)
        self.y, self.x = ((np.arange(n) + 0.5) * side / n for n, side in ((rows, H), (columns, W)))

    def point(self, cell):
        row, column = divmod(int(cell), len(self.x))
        return float(self.x[column]), float(self.y[row])

    def free(self, sides):
        """bool [rows, columns]: where the middle of a name may be, so that it is in the picture and over no other."""
        (H, W), (width, height) = self.shape, sides
        across, down = abs(self.x - W / 2) <= (W - width) / 2, abs(self.y - H / 2) <= (H - height) / 2
        free = across[None] & down[:, None]
        for taken in self.taken:
            free &= ~self.over(taken, sides)
        return free

    def over(self, box, sides):
        """bool [rows, columns]: where a name would lie over a box."""
        (left, top, right, bottom), (width, height) = box, sides
        across = (self.x > left - width / 2) & (self.x < right + width / 2)
        down = (self.y > top - height / 2) & (self.y < bottom + height / 2)
        return across[None] & down[:, None]

    def within(self, room, sides):
        """The place in a region that has most room, where that is enough for most of a name; `room`: its depth."""
        width, height = sides
        cell = self.shape[1] / len(self.x), self.shape[0] / len(self.y)
        enough = (2 * room * cell[1] >= 0.8 * height) & (2 * room * cell[0] >= 0.6 * width)
        room = np.where(enough & self.free(sides), room, 0)
        return self.point(room.argmax()) if room.any() else None

    def beside(self, box, point, sides):
        """The nearest free place that leaves a box visible, unless it is far."""
        far = np.hypot((self.x - point[0])[None], (self.y - point[1])[:, None])
        far = np.where(self.free(sides) & ~self.over(box, sides), far, np.inf)
        reach = np.hypot(*(box[2:] - box[:2])) / 2 + 2 * max(sides)
        return self.point(far.argmin()) if far.min() < reach else None

    def clamped(self, point, sides):
        """The point, moved so that a name there is in the picture."""
        spare = [(side - own) / 2 for side, own in zip(self.shape[::-1], sides, strict=True)]
        middle = [side / 2 for side in self.shape[::-1]]
        return tuple(m + min(max(p - m, -s), s) if s > 0 else m for p, m, s in zip(point, middle, spare, strict=True))


def plate(place, sides):
    """The box (left, top, right, bottom) of a name around its middle."""
    (x, y), (width, height) = place, sides
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def depth(grid):
    """int [rows, columns]: how many steps from each cell to the nearest one of another number, or out of the grid."""
    found = np.zeros(grid.shape, int)
    inside = np.ones(grid.shape, bool)
    near = np.pad(grid, 1, constant_values=-1)
    sides = [(slice(None, -2), slice(1, -1)), (slice(2, None), slice(1, -1)),
             (slice(1, -1), slice(None, -2)), (slice(1, -1), slice(2, None))]  # fmt: skip
    same = np.all([near[side] == grid for side in sides], 0)
    while inside.any():
        found += inside
        wall = np.pad(inside, 1)
        inside = inside & same & np.all([wall[side] for side in sides], 0)
    return found
