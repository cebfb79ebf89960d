"""The things of the built-in world: one small drawing function a class.

Each function takes a pen, a random source and the colour a caption may name, and draws one member of a family of
shapes inside the pen's unit box. A new class is one such function and one row of `DRAWINGS`.
"""

import math
from typing import NamedTuple

from fastzss.world.pen import COLOURS, Pen, shade, varied
from fastzss.world.things.nature import draw_fish, draw_flower, draw_mushroom, draw_tree
from fastzss.world.things.outdoors import draw_boat, draw_car, draw_house
from fastzss.world.things.sky import draw_star

ANY_COLOUR = 0.15  # share of the drawings whose colour is not typical of their class


class Drawing(NamedTuple):
    draw: object  # (pen, random, colour) -> None
    colours: tuple  # names of the one to three typical colours
    turn: float  # largest rotation, degrees


DRAWINGS = {
    "tree": Drawing(draw_tree, ("green", "orange"), 14),
    "house": Drawing(draw_house, ("white", "yellow"), 12),
    "boat": Drawing(draw_boat, ("red", "blue"), 18),
    "car": Drawing(draw_car, ("red", "blue", "green"), 20),
    "fish": Drawing(draw_fish, ("orange", "blue"), 45),
    "flower": Drawing(draw_flower, ("pink", "purple", "white"), 25),
    "mushroom": Drawing(draw_mushroom, ("red", "brown"), 22),
    "star": Drawing(draw_star, ("yellow",), 180),
}
THINGS = tuple(DRAWINGS)


def draw_thing(name, size, random):
    """One drawing of the class: its RGBA sprite, drawn `size` pixels long, and the name of its colour."""
    drawing = DRAWINGS[name]
    colour = random.choice(tuple(COLOURS) if random.random() < ANY_COLOUR else drawing.colours)
    ink = shade(COLOURS[colour], random.uniform(-0.8, -0.55)) if random.random() < 0.8 else None
    angle = math.radians(random.triangular(-drawing.turn, drawing.turn))
    pen = Pen(size, angle, random.random() < 0.5, ink, random.uniform(0.03, 0.065))
    drawing.draw(pen, random, varied(random, COLOURS[colour]))
    return pen.sprite(), colour
