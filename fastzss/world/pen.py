"""The pen of the built-in world: anti-aliased sprites from shapes in a unit box.

A shape is a list of (x, y) points in a box from -1 to 1, x to the right, y downwards. The pen turns, flips and
scales it, so that a drawing function never thinks about pixels.
"""

import math

from PIL import Image, ImageDraw

FINE = 3  # sprites are drawn this many times larger, then averaged down
CIRCLE = [(math.cos(2 * math.pi * k / 28), math.sin(2 * math.pi * k / 28)) for k in range(28)]

COLOURS = {
    "red": (206, 44, 44),
    "orange": (240, 138, 36),
    "yellow": (246, 210, 60),
    "green": (74, 156, 66),
    "blue": (52, 104, 208),
    "purple": (138, 76, 184),
    "pink": (244, 150, 188),
    "brown": (138, 90, 56),
    "white": (245, 243, 238),
    "grey": (142, 144, 150),
    "black": (48, 48, 54),
}
GLASS = (176, 216, 236)
CREAM = (250, 240, 214)


def shade(colour, amount):
    """Darker for amount < 0, lighter for amount > 0; -1 is black, 1 is white."""
    target = 255 if amount > 0 else 0
    return tuple(round(c + (target - c) * abs(amount)) for c in colour)


def varied(random, colour, by=12):
    """The same colour to the eye, a little different to the pixel."""
    light = random.uniform(-by, by)
    return tuple(min(255, max(0, round(c + light + random.uniform(-by / 2, by / 2)))) for c in colour)


def box(left, top, right, bottom):
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def ellipse(x, y, rx, ry=None, turn=0.0):
    """`turn` in radians."""
    ry = rx if ry is None else ry
    if not turn:
        return [(x + rx * c, y + ry * s) for c, s in CIRCLE]
    cos, sin = math.cos(turn), math.sin(turn)
    return [(x + rx * c * cos - ry * s * sin, y + rx * c * sin + ry * s * cos) for c, s in CIRCLE]


def dome(x, y, rx, ry, foot=0.0):
    """The upper half of an ellipse standing on y, its foot bulging downwards by `foot`."""
    return [(x + rx * c, y + (ry if s < 0 else foot) * s) for c, s in CIRCLE]


def curve(points, steps=5):
    """A closed smooth curve through the points (Catmull-Rom)."""
    n, smooth = len(points), []
    for k in range(n):
        (ax, ay), (bx, by), (cx, cy), (dx, dy) = (points[(k + j - 1) % n] for j in range(4))
        for step in range(steps):
            t = step / steps
            wa, wb = t * (t * (2 - t) - 1) / 2, (t * t * (3 * t - 5) + 2) / 2
            wc, wd = t * (t * (4 - 3 * t) + 1) / 2, t * t * (t - 1) / 2
            smooth.append((wa * ax + wb * bx + wc * cx + wd * dx, wa * ay + wb * by + wc * cy + wd * dy))
    return smooth


class Pen:
    """Draws on a square sprite of `size` pixels a side, around a unit box turned by `angle` radians.

    `ink` is the colour of outlines, or None for a drawing without them; `weight` is their width in unit lengths.
    """

    def __init__(self, size, angle=0.0, flip=False, ink=None, weight=0.05):
        half = size / 2 * FINE
        # a turned box needs more room than an upright one
        room = math.ceil(size / 2 * (abs(math.cos(angle)) + abs(math.sin(angle))) + 3)
        self.centre = room * FINE
        self.ink, self.scale = ink, half
        self.weight = max(2, round(2 * weight * half))
        sign = -half if flip else half
        self.matrix = sign * math.cos(angle), -half * math.sin(angle), sign * math.sin(angle), half * math.cos(angle)
        self.sheet = Image.new("RGBA", (2 * self.centre, 2 * self.centre))
        self.draw = ImageDraw.Draw(self.sheet)

    def place(self, shape):
        a, b, c, d = self.matrix
        o = self.centre
        return [(o + a * x + b * y, o + c * x + d * y) for x, y in shape]

    def fill(self, colour, *shapes, edge=True):
        """Fill the union of the shapes; the outline runs around the union, not around each shape."""
        placed = [self.place(shape) for shape in shapes]
        if edge and self.ink:
            for points in placed:
                self.draw.line(points + points[:2], fill=self.ink, width=self.weight, joint="curve")
        for points in placed:
            self.draw.polygon(points, fill=colour)

    def line(self, colour, points, width):
        """An open line; `width` in unit lengths."""
        self.draw.line(self.place(points), fill=colour, width=max(1, round(width * self.scale)), joint="curve")

    def sprite(self):
        return self.sheet.reduce(FINE)
