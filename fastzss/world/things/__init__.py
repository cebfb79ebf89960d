"""The things of the built-in world: one small drawing function a class.

Each function takes a pen, a random source and the colour a caption may name, and draws one member of a family of
shapes inside the pen's unit box. A new class is one such function and one row of `DRAWINGS`.
"""

import math
from typing import NamedTuple

from fastzss.world.pen import COLOURS, Pen, shade, varied
from fastzss.world.things.home import (
    draw_ball,
    draw_bell,
    draw_chair,
    draw_clock,
    draw_cup,
    draw_key,
    draw_ladder,
    draw_umbrella,
)
from fastzss.world.things.nature import (
    draw_apple,
    draw_bird,
    draw_butterfly,
    draw_fish,
    draw_flower,
    draw_mushroom,
    draw_snail,
    draw_tree,
)
from fastzss.world.things.outdoors import draw_boat, draw_car, draw_house
from fastzss.world.things.sky import draw_balloon, draw_kite, draw_moon, draw_rocket, draw_star

ANY_COLOUR = 0.15  # share of the drawings whose colour is not typical of their class


class Drawing(NamedTuple):
    draw: object  # (pen, random, colour) -> None
    colours: tuple  # names of the one to three typical colours
    turn: float  # largest rotation, degrees
    unseen: str  # a colour it has in the split of combinations alone


DRAWINGS = {
    "tree": Drawing(draw_tree, ("green", "orange"), 14, "blue"),
    "flower": Drawing(draw_flower, ("pink", "purple", "white"), 25, "blue"),
    "mushroom": Drawing(draw_mushroom, ("red", "brown"), 22, "purple"),
    "apple": Drawing(draw_apple, ("red", "green"), 25, "purple"),
    "fish": Drawing(draw_fish, ("orange", "blue"), 45, "green"),
    "bird": Drawing(draw_bird, ("blue", "brown", "yellow"), 15, "pink"),
    "snail": Drawing(draw_snail, ("brown", "orange", "pink"), 12, "green"),
    "butterfly": Drawing(draw_butterfly, ("orange", "purple", "blue"), 60, "red"),
    "star": Drawing(draw_star, ("yellow",), 180, "green"),
    "moon": Drawing(draw_moon, ("yellow", "white"), 40, "orange"),
    "kite": Drawing(draw_kite, ("red", "green", "purple"), 40, "yellow"),
    "balloon": Drawing(draw_balloon, ("red", "pink", "orange"), 15, "blue"),
    "rocket": Drawing(draw_rocket, ("white", "grey", "red"), 40, "yellow"),
    "house": Drawing(draw_house, ("white", "yellow"), 12, "red"),
    "boat": Drawing(draw_boat, ("red", "blue"), 18, "yellow"),
    "car": Drawing(draw_car, ("red", "blue", "green"), 20, "pink"),
    "cup": Drawing(draw_cup, ("white", "blue", "red"), 15, "orange"),
    "clock": Drawing(draw_clock, ("red", "brown", "blue"), 15, "green"),
    "chair": Drawing(draw_chair, ("brown", "red"), 12, "blue"),
    "key": Drawing(draw_key, ("yellow", "grey"), 180, "red"),
    "bell": Drawing(draw_bell, ("yellow", "orange"), 25, "purple"),
    "ladder": Drawing(draw_ladder, ("brown", "grey"), 30, "red"),
    "ball": Drawing(draw_ball, ("red", "blue", "orange"), 180, "purple"),
    "umbrella": Drawing(draw_umbrella, ("red", "purple", "blue"), 30, "orange"),
}
THINGS = tuple(DRAWINGS)


def draw_thing(name, size, random, combinations=False):
    """One drawing of the class: its RGBA sprite, drawn `size` pixels long, and the name of its colour.

    With `combinations` the colour is the first typical one or the one that is not seen elsewhere.
    """
    drawing = DRAWINGS[name]
    if combinations:
        colour = random.choice((drawing.colours[0], drawing.unseen))
    elif random.random() < ANY_COLOUR:
        colour = random.choice([colour for colour in COLOURS if colour != drawing.unseen])
    else:
        colour = random.choice(drawing.colours)
    ink = shade(COLOURS[colour], random.uniform(-0.8, -0.55)) if random.random() < 0.8 else None
    angle = math.radians(random.triangular(-drawing.turn, drawing.turn))
    pen = Pen(size, angle, random.random() < 0.5, ink, random.uniform(0.03, 0.065))
    drawing.draw(pen, random, varied(random, COLOURS[colour]))
    return pen.sprite(), colour
