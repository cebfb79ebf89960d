"""The things of the built-in world: one small drawing function a class.

Each function takes a pen, a random source and the colour a caption may name, and draws one member of a family of
shapes inside the pen's unit box. A new class is one such function and one row of `DRAWINGS`.
"""

import math
from typing import NamedTuple

from fastzss.world.pen import COLOURS, Pen, box, curve, dome, ellipse, shade

ANY_COLOUR = 0.15  # share of the drawings whose colour is not typical of their class
GLASS = (176, 216, 236)
CREAM = (250, 240, 214)


def varied(random, colour, by=12):
    """The same colour to the eye, a little different to the pixel."""
    light = random.uniform(-by, by)
    return tuple(min(255, max(0, round(c + light + random.uniform(-by / 2, by / 2)))) for c in colour)


def draw_tree(pen, random, colour):
    wood = varied(random, (120, 78, 46))
    kind = random.choice(("round", "cloud", "fir"))
    wide = random.uniform(0.09, 0.16)
    pen.fill(wood, [(-wide, 0.1), (wide, 0.1), (1.5 * wide, 1), (-1.5 * wide, 1)])
    if kind == "fir":
        tiers, reach = random.randint(2, 4), random.uniform(0.55, 0.75)
        bottom = random.uniform(0.55, 0.7)
        height = (bottom + 1) / (0.6 * tiers + 0.4)
        for tier in range(tiers):
            foot = bottom - 0.6 * height * tier
            half = reach * (1 - 0.6 * tier / tiers)
            pen.fill(shade(colour, 0.09 * tier), [(0, foot - height), (half, foot), (0, foot + 0.05), (-half, foot)])
        return
    if kind == "round":
        rx, ry = random.uniform(0.55, 0.75), random.uniform(0.6, 0.72)
        pen.fill(colour, ellipse(0, -1 + ry, rx, ry))
        pen.fill(shade(colour, 0.2), ellipse(-0.25 * rx, -1 + 0.7 * ry, 0.5 * rx, 0.45 * ry), edge=False)
    else:
        lumps = [(-0.42, -0.1), (0.42, -0.1), (0, 0.05), (-0.28, -0.5), (0.3, -0.5), (0, -0.6)]
        lumps = [(x + random.uniform(-0.08, 0.08), y + random.uniform(-0.06, 0.06)) for x, y in lumps]
        pen.fill(colour, *(ellipse(x, y, random.uniform(0.34, 0.44)) for x, y in lumps))
        for x, y in lumps[3:]:
            pen.fill(shade(colour, 0.2), ellipse(x - 0.08, y - 0.1, 0.17, 0.12), edge=False)
    if random.random() < 0.3:
        fruit = shade(colour, random.choice((-0.45, 0.65)))
        for _ in range(random.randint(4, 7)):
            turn, far = random.uniform(0, 2 * math.pi), random.uniform(0.1, 0.4)
            pen.fill(fruit, ellipse(far * math.cos(turn), -0.35 + far * math.sin(turn), 0.07), edge=False)


def draw_house(pen, random, colour):
    half, eaves = random.uniform(0.62, 0.82), random.uniform(-0.3, 0.0)
    roof = varied(random, random.choice(((150, 62, 48), (104, 82, 74), (88, 98, 122), (176, 98, 56))))
    overhang = half + random.uniform(0.08, 0.17)
    if random.random() < 0.6:
        side = random.choice((-1, 1)) * half * random.uniform(0.45, 0.7)
        pen.fill(shade(roof, -0.3), box(side - 0.1, -1.0, side + 0.1, eaves))
    pen.fill(colour, box(-half, eaves - 0.04, half, 0.92))
    ridge = random.choice((0.0, 0.0, 0.35, 0.55)) * half  # a gable, or a roof with a ridge
    peak = random.uniform(-0.98, -0.82)
    pen.fill(roof, [(-ridge - 0.01, peak), (ridge + 0.01, peak), (overhang, eaves), (-overhang, eaves)])
    door = random.uniform(0.13, 0.18)
    at = random.choice((0, 0, -0.5, 0.5)) * half
    pen.fill(shade(roof, -0.25), box(at - door, 0.92 - random.uniform(0.45, 0.6), at + door, 0.92))
    pane = random.uniform(0.12, 0.16)
    for x in (-0.55 * half, 0.0, 0.55 * half):
        for y in (eaves + 0.24, eaves + 0.68):
            blocked = y + pane > 0.3 and abs(x - at) < door + pane + 0.04
            if not blocked and y + pane < 0.88 and (x or half > 0.72):
                pen.fill(GLASS, box(x - pane, y - pane, x + pane, y + pane))
                pen.line(shade(roof, -0.4), [(x, y - pane), (x, y + pane)], 0.03)


def draw_boat(pen, random, colour):
    deck, keel = random.uniform(0.3, 0.42), random.uniform(0.8, 0.95)
    stern, bow = random.uniform(0.75, 0.9), 1.0
    dark = shade(colour, -0.35)
    if random.random() < 0.62:
        mast, cloth = random.uniform(-0.12, 0.12), varied(random, random.choice((COLOURS["white"], CREAM, CREAM)))
        top, boom = random.uniform(-1.0, -0.85), deck - random.uniform(0.12, 0.2)
        pen.line((104, 72, 48), [(mast, top), (mast, deck)], 0.09)
        full = random.uniform(0.05, 0.2)
        pen.fill(cloth, [(mast + 0.06, top), (mast + 0.4 + full, (top + boom) / 2 - full), (0.86, boom), (mast, boom)])
        if random.random() < 0.75:
            jib = shade(cloth, -0.12)
            pen.fill(jib, [(mast - 0.07, top + 0.2), (mast - 0.07, boom), (random.uniform(-0.85, -0.6), boom)])
        if random.random() < 0.5:
            pen.fill(colour, [(mast, top), (mast - 0.3, top + 0.08), (mast, top + 0.17)], edge=False)
    else:
        cabin = random.uniform(0.35, 0.5)
        funnel = random.uniform(-0.3, 0.2)
        pen.fill(shade(colour, -0.15), box(funnel - 0.12, -0.85, funnel + 0.12, 0.0))
        pen.fill(COLOURS["white"], box(funnel - 0.12, -0.66, funnel + 0.12, -0.5), edge=False)
        pen.fill(varied(random, CREAM), box(-cabin, -0.22, cabin, deck + 0.02))
        for x in (-0.6 * cabin, 0, 0.6 * cabin):
            pen.fill(GLASS, ellipse(x, 0.04, 0.08))
    foot = random.uniform(0.5, 0.65)
    pen.fill(colour, [(-stern, deck), (bow, deck - 0.06), (foot, keel), (-foot, keel)])
    pen.line(dark, [(-stern + 0.03, deck + 0.13), (bow - 0.1, deck + 0.1)], 0.06)
    if random.random() < 0.4:
        for x in (-0.35, 0.0, 0.35):
            pen.fill(CREAM, ellipse(x, deck + 0.27, 0.07))


def draw_car(pen, random, colour):
    kind = random.choice(("saloon", "beetle", "van"))
    sill, belt = random.uniform(0.38, 0.46), random.uniform(-0.02, 0.08)
    roof = random.uniform(-0.52, -0.4)
    if kind == "van":
        roof -= 0.12
        cabin = [(-0.93, belt), (-0.9, roof), (0.45, roof), (0.75, belt)]
        windows = [box(-0.76, roof + 0.12, -0.42, belt), box(-0.3, roof + 0.12, 0.04, belt)]
        windows.append([(0.16, roof + 0.12), (0.4, roof + 0.12), (0.6, belt), (0.16, belt)])
    elif kind == "beetle":
        cabin = dome(-0.05, 0.2, 0.72, 0.2 - roof)
        windows = [[(-0.5, belt), (-0.38, roof + 0.22), (-0.1, roof + 0.13), (-0.1, belt)]]
        windows.append([(0.02, belt), (0.02, roof + 0.13), (0.28, roof + 0.22), (0.42, belt)])
    else:
        rear, front = random.uniform(-0.62, -0.52), random.uniform(0.3, 0.42)
        cabin = [(rear - 0.12, belt), (rear + 0.1, roof), (front - 0.2, roof), (front + 0.14, belt)]
        windows = [[(rear + 0.04, belt), (rear + 0.17, roof + 0.1), (-0.14, roof + 0.1), (-0.14, belt)]]
        windows.append([(-0.04, belt), (-0.04, roof + 0.1), (front - 0.25, roof + 0.1), (front - 0.02, belt)])
    nose = random.uniform(0.0, 0.12)
    body = curve([(-0.96, sill), (-0.98, belt + 0.08), (-0.85, belt - 0.03), (0.7, belt - 0.02 + nose / 2),
                  (0.96, belt + 0.1 + nose), (0.98, sill)], 3)  # fmt: skip
    pen.fill(colour, cabin, body)
    for window in windows:
        pen.fill(GLASS, window)
    pen.line(shade(colour, -0.3), [(-0.9, sill - 0.1), (0.9, sill - 0.1)], 0.05)
    pen.fill((255, 240, 170), ellipse(0.86, belt + 0.18 + nose / 2, 0.08), edge=False)
    wheel = random.uniform(0.2, 0.26)
    hub = random.choice((COLOURS["grey"], CREAM))
    for x in (-random.uniform(0.48, 0.6), random.uniform(0.48, 0.6)):
        pen.fill((44, 44, 50), ellipse(x, sill, wheel))
        pen.fill(hub, ellipse(x, sill, 0.45 * wheel), edge=False)


def draw_fish(pen, random, colour):
    tall, tail = random.uniform(0.38, 0.6), random.uniform(0.35, 0.55)
    fin = shade(colour, random.choice((-0.28, 0.35)))
    pen.fill(fin, [(-0.4, 0), (-0.98, -tail), (random.uniform(-0.85, -0.68), 0), (-0.98, tail)])
    pen.fill(fin, curve([(-0.25, -0.6 * tall), (0.0, -tall - 0.24), (0.35, -0.6 * tall)], 4))
    if random.random() < 0.6:
        pen.fill(fin, curve([(-0.15, 0.6 * tall), (-0.05, tall + 0.2), (0.2, 0.6 * tall)], 4))
    pen.fill(colour, curve([(-0.55, 0), (-0.1, -0.9 * tall), (0.45, -0.85 * tall), (0.97, 0.02), (0.45, 0.85 * tall),
                            (-0.1, 0.9 * tall)]))  # fmt: skip
    marks = random.choice(("plain", "stripes", "scales"))
    if marks == "stripes":
        for x in (-0.25, 0.02, 0.28)[: random.randint(2, 3)]:
            pen.fill(shade(colour, 0.65), ellipse(x, 0, 0.07, 0.68 * tall), edge=False)
    elif marks == "scales":
        for x, y in ((-0.2, -0.2), (0.05, -0.2), (-0.32, 0.05), (-0.07, 0.05), (0.18, 0.05), (-0.1, 0.28)):
            pen.line(shade(colour, -0.3), [(x - 0.08, y - 0.1), (x, y), (x - 0.08, y + 0.1)], 0.05)
    pen.fill((255, 255, 255), ellipse(0.58, -0.14, 0.15))
    pen.fill((28, 28, 34), ellipse(0.62, -0.14, 0.08), edge=False)
    pen.line(shade(colour, -0.5), [(0.9, 0.16), (0.72, 0.2)], 0.05)


def draw_flower(pen, random, colour):
    stem = varied(random, (72, 138, 60))
    lean = random.uniform(-0.2, 0.2)
    pen.line(shade(stem, -0.4), [(0, -0.3), (0.3 * lean, 0.3), (lean, 1)], 0.15)
    pen.line(stem, [(0, -0.3), (0.3 * lean, 0.3), (lean, 0.97)], 0.1)
    for side in (-1, 1)[: random.randint(1, 2)]:
        y = random.uniform(0.5, 0.75)
        pen.fill(stem, ellipse(0.6 * lean + side * 0.3, y, 0.28, 0.12, -side * 0.6))
    if random.random() < 0.3:  # a tulip
        cup = [(-0.5, -0.9), (-0.22, -0.55), (0, -0.97), (0.22, -0.55), (0.5, -0.9), (0.46, -0.25), (0, 0.05)]
        pen.fill(colour, cup + [(-0.46, -0.25)])
        pen.fill(shade(colour, 0.22), curve([(0, -0.92), (0.22, -0.4), (0, 0.0), (-0.22, -0.4)], 4))
        return
    petals, reach = random.randint(5, 9), random.uniform(0.27, 0.31)
    start, slim = random.uniform(0, 1), random.uniform(1.15, 1.5) * math.pi / petals
    shapes = []
    for k in range(petals):
        turn = 2 * math.pi * (k + start) / petals
        x, y = 0.36 * math.cos(turn), -0.36 + 0.36 * math.sin(turn)
        shapes.append(ellipse(x, y, reach, reach * slim, turn))
    for shape in shapes:
        pen.fill(colour, shape)
    heart = random.choice(((250, 206, 70), (120, 76, 44), (255, 246, 220)))
    pen.fill(heart, ellipse(0, -0.36, random.uniform(0.17, 0.24)))


def draw_mushroom(pen, random, colour):
    flesh = varied(random, (242, 230, 206))
    neck, foot = random.uniform(0.15, 0.24), random.uniform(0.22, 0.36)
    root = [(foot, 0.7), (0.7 * foot, 0.95), (-0.7 * foot, 0.95), (-foot, 0.7)]
    pen.fill(flesh, curve([(-neck, -0.2), (neck, -0.2), *root], 4))
    if random.random() < 0.5:
        pen.line(shade(flesh, -0.25), [(-neck, 0.22), (0, 0.28), (neck, 0.22)], 0.08)
    brim, wide, high = random.uniform(-0.05, 0.12), random.uniform(0.72, 0.97), random.uniform(0.75, 1.02)
    if random.random() < 0.25:  # a pointed cap
        side = 0.45 * wide, brim - 0.6 * high
        peak = [(-side[0], side[1]), (0, brim - high), side]
        hat = curve([(-wide, brim), *peak, (wide, brim), (0, brim + 0.14)])
    else:
        hat = dome(0, brim, wide, high, 0.15)
    pen.fill(colour, hat)
    if random.random() < 0.75:
        spots = (-0.5, -0.2, 0.11), (0.02, -0.3, 0.15), (0.5, -0.22, 0.12), (-0.24, -0.58, 0.1), (0.27, -0.6, 0.12)
        for x, y, r in spots:
            x, y = x * wide, brim + (y + random.uniform(-0.06, 0.06)) * high
            pen.fill((252, 246, 232), ellipse(x, y, r * random.uniform(0.8, 1.2)), edge=False)


def draw_star(pen, random, colour):
    points, inner = random.choice((5, 5, 5, 6)), random.uniform(0.4, 0.55)
    blunt = 0.08 if random.random() < 0.4 else 0.0  # half the angle of a cut-off tip, radians
    shape = []
    for k in range(points):
        tip, notch = 2 * math.pi * k / points - math.pi / 2, 2 * math.pi * (k + 0.5) / points - math.pi / 2
        shape += [(math.cos(tip + side), math.sin(tip + side)) for side in ((-blunt, blunt) if blunt else (0,))]
        shape.append((inner * math.cos(notch), inner * math.sin(notch)))
    pen.fill(colour, shape)
    inside = random.choice(("plain", "small", "face"))
    if inside == "small":
        pen.fill(shade(colour, 0.45), [(0.55 * x, 0.55 * y) for x, y in shape], edge=False)
    elif inside == "face":
        for x in (-0.17, 0.17):
            pen.fill((50, 40, 40), ellipse(x, -0.1, 0.06, 0.09), edge=False)
        pen.line((50, 40, 40), [(-0.18, 0.14), (-0.08, 0.22), (0.08, 0.22), (0.18, 0.14)], 0.06)


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
