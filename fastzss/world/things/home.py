"""Things of a house."""

import math

from fastzss.world.pen import COLOURS, CREAM, box, curve, dome, ellipse, shade, varied

DARK = (44, 44, 50)


def bar(ax, ay, bx, by, wide):
    """A straight bar between two points, half as wide to either side."""
    far = math.hypot(bx - ax, by - ay)
    x, y = (ay - by) / far * wide / 2, (bx - ax) / far * wide / 2
    return [(ax + x, ay + y), (bx + x, by + y), (bx - x, by - y), (ax - x, ay - y)]


def arc(x, y, rx, ry, wide, start=0.0, end=360.0):
    """A bent bar along an ellipse, degrees clockwise from the right; a ring unless told otherwise."""
    turns = [math.radians(start + (end - start) * k / 20) for k in range(21)]
    outer = [(x + (rx + wide / 2) * math.cos(t), y + (ry + wide / 2) * math.sin(t)) for t in turns]
    return outer + [(x + (rx - wide / 2) * math.cos(t), y + (ry - wide / 2) * math.sin(t)) for t in turns[::-1]]


def turned(shape, turn, scale=1.0):
    cos, sin = scale * math.cos(turn), scale * math.sin(turn)
    return [(x * cos - y * sin, x * sin + y * cos) for x, y in shape]


def contrast(colour):
    """Whichever of white and dark blue stands out from the colour."""
    return COLOURS["white"] if sum(colour) < 560 else (54, 74, 140)


def draw_cup(pen, random, colour):
    half, thick = random.uniform(0.46, 0.58), random.uniform(0.14, 0.19)
    drink = varied(random, random.choice(((96, 60, 40), (178, 104, 48), (236, 222, 196))))
    tea, steam = random.random() < 0.45, random.random() < 0.4
    top = random.uniform(-0.42, -0.3) if tea or steam else random.uniform(-0.76, -0.62)
    if tea:
        half, foot, saucer = half + 0.1, 0.76, random.uniform(0.84, 0.92)
        pen.fill(shade(colour, -0.12), ellipse(-0.12, foot, saucer, 0.17))
        pen.fill(shade(colour, -0.3), ellipse(-0.12, foot - 0.03, 0.55 * saucer, 0.08), edge=False)
        side = [(half, top), (0.9 * half, 0.15), (0.5 * half, foot - 0.12), (0.42 * half, foot)]
        handle = arc(0.92 * half - 0.12, -0.02, 0.24, 0.2, thick, -110, 110)
    else:
        half, foot, slim = half + 0.06, 0.88, random.uniform(0.78, 1.0)
        side = [(half, top), (slim * half, foot - 0.1), (0.82 * slim * half, foot)]
        wide, tall = random.uniform(0.32, 0.4), random.uniform(0.26, 0.34)
        handle = arc(0.9 * half - 0.12, (top + foot) / 2 - 0.04, wide, tall, thick, -100, 100)
    pen.fill(colour, handle)
    pen.fill(colour, [(x - 0.12, y) for x, y in side] + [(-x - 0.12, y) for x, y in side[::-1]],
             ellipse(-0.12, top, half, 0.15))  # fmt: skip
    mark, middle = random.choice(("plain", "band", "dots")), 0.12 if tea else (top + foot) / 2 + 0.06
    if mark == "band":
        pen.fill(contrast(colour), box(-0.1 - 0.86 * half, middle - 0.1, 0.86 * half - 0.14, middle + 0.08), edge=False)
    for x in (-0.5, 0, 0.5) if mark == "dots" else ():
        pen.fill(contrast(colour), ellipse(x * half - 0.12, middle, 0.1), edge=False)
    pen.fill(drink, ellipse(-0.12, top, half - 0.09, 0.09), edge=False)
    for x in (-0.3, 0.06) if steam else ():
        pen.line(COLOURS["white"], [(x + 0.1 * (k % 2), top - 0.06 - 0.15 * k) for k in range(4)], 0.09)


def draw_clock(pen, random, colour):
    alarm = random.random() < 0.5
    y, radius = (0.12, random.uniform(0.66, 0.72)) if alarm else (0, random.uniform(0.86, 0.96))
    if alarm:
        metal = random.choice((COLOURS["grey"], shade(colour, -0.25), (226, 184, 70)))
        for side in (-1, 1):
            pen.fill(metal, bar(side * 0.3, 0.5, side * random.uniform(0.55, 0.65), 0.95, 0.2))
            cap = turned(dome(0, 0, random.uniform(0.3, 0.36), 0.32), side * 0.68)
            pen.fill(metal, [(x + side * 0.46, y - 0.52) for x, y in cap])
        pen.fill(shade(metal, -0.35), bar(0, -0.9, 0, -0.4, 0.1), ellipse(0, -0.84, 0.12, 0.09))
    pen.fill(colour, ellipse(0, y, radius))
    face = radius - random.uniform(0.14, 0.22)
    pen.fill(random.choice((COLOURS["white"], CREAM)), ellipse(0, y, face))
    marks, size = random.choice((4, 12, 12)), random.uniform(0.055, 0.075)
    for k in range(marks):
        turn, inner = 2 * math.pi * k / marks, 0.68 if k * 4 % marks == 0 else 0.76
        cos, sin = face * math.cos(turn), face * math.sin(turn)
        pen.line(DARK, [(inner * cos, y + inner * sin), (0.9 * cos, y + 0.9 * sin)], size)
    hour, minute = random.uniform(0, 2 * math.pi), random.uniform(0.7, 5.5)
    for turn, far, wide in ((hour, 0.46, 0.13), (hour + minute, 0.68, 0.09)):
        pen.line(DARK, [(0, y), (far * face * math.cos(turn), y + far * face * math.sin(turn))], wide)
    pen.fill(random.choice((DARK, COLOURS["red"])), ellipse(0, y, 0.09), edge=False)


def side_chair(pen, random, colour, half, seat, thick):
    """A chair seen from the side; front of it to the right."""
    lean, splay = random.uniform(0.05, 0.2), random.uniform(0.0, 0.12)
    if random.random() < 0.5:
        pen.fill(shade(colour, -0.22), bar(-half, 0.62, half, 0.62, 0.11))
    ends = (half - 0.08, half + splay, 0.98), (0.08 - half, -half - splay, 0.98), (0.08 - half, -half - lean, -0.96)
    legs = [bar(x, seat, end, y, thick) for x, end, y in ends]
    pen.fill(colour, *legs, box(-half - 0.02, seat - 0.1, half + 0.1, seat + 0.1))
    if random.random() < 0.6:
        low, high, back = seat - 0.1, seat - 0.24, 0.14 - half
        cushion = curve([(back, low), (back, high), (half, high), (half + 0.06, low)], 3)
        pen.fill(random.choice((shade(colour, 0.5), shade(colour, -0.45))), cushion)


def draw_chair(pen, random, colour):
    thick, seat, half = random.uniform(0.15, 0.2), random.uniform(0.1, 0.22), random.uniform(0.5, 0.62)
    if random.random() < 0.5:
        side_chair(pen, random, colour, half, seat, thick)
        return
    wide, top = half * random.uniform(0.8, 0.95), random.uniform(-0.96, -0.84)
    pen.fill(shade(colour, -0.4), *(bar(x, seat, x, 0.8, 0.8 * thick) for x in (-0.75 * wide, 0.75 * wide)))
    back = random.choice(("rails", "posts", "board"))
    posts = [bar(x, top, x, seat, thick) for x in (-wide, wide)]
    if back == "board":
        posts = [curve([(-wide - 0.06, seat), (-wide, top), (wide, top), (wide + 0.06, seat - 0.06)], 4)]
    elif back == "posts":
        posts += [bar(x, top, x, seat, 0.12) for x in (-0.33 * wide, 0.33 * wide)]
        posts.append(bar(-wide - thick / 2, top + 0.08, wide + thick / 2, top + 0.08, 0.18))
    else:
        posts += [bar(-wide, y, wide, y, 0.17) for y in (top + 0.16, top + 0.5)]
    pen.fill(colour, *posts)
    pen.fill(colour, *(bar(x, seat + 0.1, x, 0.98, thick) for x in (-half, half)))
    front = half + 0.12
    plane = [(-wide, seat - 0.12), (wide, seat - 0.12), (front, seat + 0.2), (-front, seat + 0.2)]
    pen.fill(shade(colour, -0.22 if back == "board" else 0.2), plane)


def draw_key(pen, random, colour):
    thick, bow = random.uniform(0.17, 0.22), random.uniform(0.28, 0.34)
    ring = random.uniform(0.17, 0.2)
    kind = random.choice(("round", "oval", "clover", "square"))
    if kind == "clover":
        spots = [(-0.3, 0), (-0.56, -0.26), (-0.56, 0.26)]
        head = [arc(x - 0.1, y, 0.2, 0.2, 0.16) for x, y in spots]
    elif kind == "square":
        far = bow + 0.06
        head = [bar(-0.58 + a * far, b * far, -0.58 + c * far, d * far, ring)
                for a, b, c, d in ((0, -1.2, 1.2, 0), (1, 0, 0, 1), (0, 1.2, -1.2, 0), (-1, 0, 0, -1))]  # fmt: skip
    else:
        head = [arc(-0.58, 0, bow, bow * (1.35 if kind == "oval" else 1.05), ring)]
    bits, deep = random.randint(2, 3), random.uniform(0.3, 0.42)
    teeth = []
    for k in range(bits):
        x = 0.87 - 0.27 * k
        teeth.append(box(x - 0.08, 0, x + 0.08, deep * random.choice((1, 0.75))))
    pen.fill(colour, *head, box(-0.3, -thick / 2, 0.97, thick / 2), *teeth)
    if random.random() < 0.6:
        pen.fill(shade(colour, -0.3), box(-0.06, -0.17, 0.08, 0.17))
    if random.random() < 0.5:
        pen.line(shade(colour, 0.5), [(0.14, -0.03), (0.9, -0.03)], 0.06)


def draw_bell(pen, random, colour):
    wide, neck = random.uniform(0.72, 0.9), random.uniform(0.34, 0.46)
    held = random.random() < 0.4
    top, rim = (-0.36, 0.66) if held else (random.uniform(-0.72, -0.62), random.uniform(0.56, 0.64))
    tall, dark = rim - top, shade(colour, -0.35)
    if held:
        wide -= 0.1
        wood = varied(random, random.choice(((120, 78, 46), (92, 56, 40), DARK)))
        pen.fill(wood, curve([(-0.1, top), (-0.19, -0.76), (0, -0.98), (0.19, -0.76), (0.1, top)], 4))
    else:
        pen.fill(dark, arc(0, top - 0.08, 0.16, 0.16, random.uniform(0.1, 0.13)))
    pen.fill(dark, ellipse(random.uniform(-0.2, 0.2), rim + 0.14, random.uniform(0.16, 0.2)))
    half = [(neck, top + 0.18 * tall), (1.12 * neck, top + 0.5 * tall), (0.62 * wide, top + 0.78 * tall), (wide, rim)]
    half = [(0.75 * neck, top + 0.04 * tall), *half]
    body = curve([(0, top), *half, (0, rim + 0.04), *((-x, y) for x, y in half[::-1])], 3)
    pen.fill(colour, body)
    pen.fill(shade(colour, 0.5), ellipse(-0.5 * neck, top + 0.42 * tall, 0.09, 0.25 * tall, 0.12), edge=False)
    if random.random() < 0.7:
        band = random.choice((dark, shade(colour, 0.55), COLOURS["red"]))
        y, side = top + 0.62 * tall, 0.93 * max(1.12 * neck, 0.5 * wide)
        pen.line(band, [(-side, y), (-0.5 * side, y + 0.05), (0.5 * side, y + 0.05), (side, y)], 0.11)
    pen.fill(shade(colour, -0.15), ellipse(0, rim, wide, random.uniform(0.09, 0.13)))


def draw_ladder(pen, random, colour):
    thick, rung = random.uniform(0.15, 0.19), random.uniform(0.12, 0.15)
    rungs, foot = random.randint(4, 5), random.uniform(0.38, 0.5)
    top = foot * random.uniform(0.7, 1.0)
    if random.random() < 0.6:
        steps = [-0.94 + 1.88 * (k + 0.5) / rungs for k in range(rungs)]
        sides = [(side * (foot + (top - foot) * (0.97 - y) / 1.94), y) for side in (-1, 1) for y in (-0.97, 0.97)]
        for y in steps:
            pen.fill(shade(colour, 0.18), bar(-top, y, top, y, rung))
        pen.fill(colour, bar(*sides[0], *sides[1], thick))
        pen.fill(colour, bar(*sides[2], *sides[3], thick))
        return
    spread, slant = random.uniform(0.68, 0.8), random.uniform(0.42, 0.56)
    dark, y = shade(colour, -0.35), random.uniform(0.3, 0.5)
    for x, foot in ((0.28, 0.95), (-0.06, 0.74)):
        pen.fill(dark, bar(x, -0.85, x + slant, foot, 0.85 * thick))
    pen.fill(dark, bar(0.1, y, 0.55, y + 0.06, 0.1))
    for k in range(rungs - 1):
        at = (k + 1) / (rungs - 0.3)
        pen.fill(shade(colour, 0.25), bar(-0.3 - (spread - 0.3) * at, 1.8 * at - 0.85, 0.16, 1.8 * at - 0.85, rung))
    pen.fill(colour, bar(-0.3, -0.85, -spread, 0.95, thick))
    pen.fill(colour, bar(0.16, -0.85, 0.14, 0.95, thick))
    pen.fill(colour, box(-0.44, -0.97, 0.38, -0.78))


def gore(pole, turn, angle, bend):
    """A stripe of a beach ball of radius 1: from its pole to `angle` of the rim, with bent sides."""
    rim = turned([(math.cos(k * angle / 4), math.sin(k * angle / 4)) for k in range(5)], turn, 0.985)
    bends = [(0.55 * (x + pole[0]) - bend * y, 0.55 * (y + pole[1]) + bend * x) for x, y in (rim[0], rim[-1])]
    return [pole, bends[0], *rim, bends[1]]


def draw_ball(pen, random, colour):
    radius, other, reach = random.uniform(0.88, 0.96), contrast(colour), [k / 6 for k in range(-6, 7)]
    start, bend = random.uniform(0, 2 * math.pi), random.uniform(0.06, 0.22)
    kind = random.choice(("beach", "beach", "football", "band", "basket"))
    pen.fill(colour, ellipse(0, 0, radius))
    if kind == "beach":
        gores, far = random.choice((3, 3, 4)), random.uniform(0.2, 0.45)
        pole = far * math.cos(start), far * math.sin(start)
        for k in range(gores):
            shape = gore(pole, start + 2 * math.pi * k / gores, math.pi / gores, bend)
            pen.fill(other, turned(shape, 0, radius), edge=False)
        pen.fill(shade(other, -0.1), turned(ellipse(*pole, 0.13), 0, radius), edge=False)
    elif kind == "football":
        dark = DARK if sum(colour) > 560 else other
        fifth = [(0, 0), (0.38, 0), (0.117, 0.361)]  # of the pentagon in the middle
        patch = [(0.96, -0.24), (0.8, -0.2), (0.66, 0), (0.8, 0.2), (0.96, 0.24)]
        for turn in (start + 2 * math.pi * k / 5 for k in range(5)):
            pen.line(dark, turned([(0.3, 0), (0.75, 0)], turn, radius), 0.08)
            pen.fill(dark, turned(patch, turn, radius), turned(fifth, turn, radius), edge=False)
    elif kind == "basket":
        seams = [[(0.97 * t, bend * (1 - t * t)) for t in reach], [(bend * (1 - t * t), 0.97 * t) for t in reach]]
        seams += [[(side * (0.36 + 0.3 * t * t), 0.72 * t) for t in reach] for side in (-1, 1)]
        for seam in seams:
            pen.line(shade(colour, -0.65) if sum(colour) > 200 else other, turned(seam, start, radius), 0.09)
    else:
        wide = random.uniform(0.16, 0.24)
        upper = [(0.95 * t, bend * (1 - t * t) - wide) for t in reach]
        pen.fill(other, turned(upper + [(x, y + 2 * wide) for x, y in upper[::-1]], start, radius), edge=False)
        pen.fill(shade(colour, 0.5), turned(ellipse(-0.3, -0.55, 0.22, 0.13, -0.5), start, radius), edge=False)


def draw_umbrella(pen, random, colour):
    wide, tall = random.uniform(0.86, 0.96), random.uniform(0.64, 0.78)
    edge, lift = random.uniform(-0.12, 0.02), random.uniform(0.08, 0.14)
    wood, side = varied(random, random.choice(((120, 78, 46), DARK, (150, 110, 70)))), random.choice((-1, 1))
    hook, panels = random.uniform(0.15, 0.2), random.choice((4, 5, 6))
    pen.fill(wood, bar(0, edge - 0.2, 0, 0.74, 0.13), arc(side * hook, 0.72, hook, hook, 0.13, 0, 180),
             bar(0, edge - tall - 0.08, 0, edge - tall + 0.1, 0.11))  # fmt: skip
    ribs = []
    for k in range(panels + 1):
        u = wide * math.sin(math.pi / 2 * (2 * k / panels - 1))
        ribs.append([(u * math.sin(t), edge - tall * math.cos(t)) for t in (math.pi / 12 * j for j in range(7))])
    shapes = []
    for left, right in zip(ribs[:-1], ribs[1:], strict=True):
        (ax, _), (bx, _) = left[-1], right[-1]
        scallop = [(bx + (ax - bx) * s, edge - lift * 4 * s * (1 - s)) for s in (0.25, 0.5, 0.75)]
        shapes.append(left[:1] + right[1:] + scallop + left[:0:-1])
    pen.fill(colour, *shapes)
    second = random.choice((shade(colour, -0.28), shade(colour, 0.4), contrast(colour), colour))
    for shape in shapes[1::2]:
        pen.fill(second, shape, edge=False)
    for rib in ribs[1:-1]:
        pen.line(shade(colour, -0.4), rib, 0.04)
