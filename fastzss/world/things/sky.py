"""Things that fly or shine."""

import math

from fastzss.world.pen import COLOURS, CREAM, GLASS, curve, ellipse, shade, varied


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


def draw_moon(pen, random, colour):
    sweep, bulk = random.uniform(1.75, 2.05), random.uniform(-0.5, -0.22)  # half the back's arc; the hollow's deepest x
    horn, high = -0.98 * math.cos(sweep), 0.98 * math.sin(sweep)
    shift = (0.98 - horn) / 2
    steps = [k / 14 for k in range(-14, 15)]
    back = [(shift - 0.98 * math.cos(sweep * t), 0.98 * math.sin(sweep * t)) for t in steps]
    deep = [(1 - math.sqrt(1 - 0.85 * t * t)) / (1 - math.sqrt(0.15)) for t in steps]
    hollow = [(shift + bulk + (horn - bulk) * d, -high * t) for d, t in zip(deep, steps, strict=True)]
    kind = random.choice(("plain", "face", "face", "craters", "craters"))
    nose = [(shift + bulk - 0.1, -0.2), (shift + bulk + random.uniform(0.12, 0.22), 0.06), (shift + bulk - 0.1, 0.12)]
    pen.fill(colour, back + hollow, *([nose] if kind == "face" else []))
    broad = bulk + 0.98
    middle, dark = shift - 0.98 + broad / 2, shade(colour, -0.6)
    if kind == "face":
        eye = middle + 0.14 * broad
        if random.random() < 0.5:
            pen.line(dark, [(eye - 0.14, -0.2), (eye - 0.05, -0.14), (eye + 0.06, -0.17)], 0.07)
        else:
            pen.fill(dark, ellipse(eye, -0.2, 0.07, 0.1), edge=False)
        pen.line(dark, [(eye - 0.08, 0.27), (eye + 0.02, 0.33), (eye + 0.16, 0.29)], 0.07)
    elif kind == "craters":
        for turn in random.sample((-0.95, -0.45, 0.1, 0.6), random.randint(2, 3)):
            r = random.uniform(0.17, 0.27) * broad * math.cos(turn)
            far = 0.98 - random.uniform(0.4, 0.55) * broad * math.cos(turn)
            pen.fill(shade(colour, -0.18), ellipse(shift - far * math.cos(turn), far * math.sin(turn), r), edge=False)


def draw_kite(pen, random, colour):
    half, foot, bar = random.uniform(0.55, 0.7), random.uniform(0.2, 0.34), random.uniform(-0.54, -0.42)
    other = shade(colour, random.choice((0.55, 0.35, -0.35)))
    bows, sway = random.randint(2, 3), random.uniform(0.1, 0.24)
    start, waves = random.choice((-1, 1)), random.uniform(0.8, 1.2)
    tail = [(start * sway * math.sin(2 * math.pi * waves * k / 12), foot + (0.9 - foot) * k / 12) for k in range(13)]
    pen.line(pen.ink or shade(colour, -0.55), tail, 0.06)
    ribbon = random.choice((colour, other, CREAM))
    for k in range(bows):
        x, y = tail[round(12 * (k + 1) / bows) - 1]
        pen.fill(ribbon, *([(x, y), (x + s * 0.17, y - 0.09), (x + s * 0.17, y + 0.09)] for s in (-1, 1)))
    top, left, right, end = (0, -0.98), (-half, bar), (half, bar), (0, foot)
    pen.fill(colour, [top, right, end, left])
    panels = random.choice(("quarters", "halves", "stripe", "plain"))
    if panels == "quarters":
        pen.fill(other, [top, right, (0, bar)], edge=False)
        pen.fill(other, [left, (0, bar), end], edge=False)
    elif panels == "halves":
        pen.fill(other, [top, right, end], edge=False)
    elif panels == "stripe":
        low, part = bar + 0.3 * (foot - bar), 0.7 * half
        pen.fill(other, [left, (0, bar + 0.02), right, (part, low), (0, low + 0.02), (-part, low)], edge=False)
    spar = pen.ink or shade(colour, -0.45)
    pen.line(spar, [top, end], 0.05)
    pen.line(spar, [left, right], 0.05)


def draw_balloon(pen, random, colour):
    if random.random() < 0.5:  # a toy balloon
        wide, knot = random.uniform(0.56, 0.68), random.uniform(0.4, 0.52)
        sway = random.uniform(-0.16, 0.16)
        string = [(0, knot), (sway, knot + 0.16), (-0.3 * sway, knot + 0.32), (-sway, 0.98)]
        pen.line(pen.ink or shade(colour, -0.5), string, 0.05)
        pen.fill(colour, [(0, knot - 0.1), (0.13, knot + 0.1), (-0.13, knot + 0.1)])
        side = [(0.72 * wide, -0.84), (wide, -0.38), (0.72 * wide, 0.1), (0.2, knot - 0.08)]
        pen.fill(colour, curve([(0, -0.98), *side, *((-x, y) for x, y in reversed(side))], 4))
        glint = shade(colour, 0.65)
        pen.fill(glint, ellipse(-0.48 * wide, -0.52, 0.11, 0.2, 0.5), edge=False)
        return
    wide, hem, mouth = random.uniform(0.68, 0.8), random.uniform(0.36, 0.46), random.uniform(0.2, 0.28)
    top, tall = random.uniform(0.68, 0.74), random.uniform(0.2, 0.26)
    for x, end in ((-mouth, -0.16), (mouth, 0.16)):
        pen.line(pen.ink or (92, 66, 48), [(0.9 * x, hem), (end, top)], 0.05)
    pen.fill((168, 116, 66), [(-0.22, top), (0.22, top), (0.17, top + tall), (-0.17, top + tall)])
    side = [(0.7, -0.86), (1, -0.38), (0.72, 0.08)]
    other = shade(colour, random.choice((0.65, 0.5, -0.3)))
    gores = random.choice((3, 5, 5))
    for k in range(gores + 1):
        # from the outside inwards: whole envelope first, then narrower ones of alternating colour
        share = 1 - k / (gores + 1)
        rim = [(wide * share * x, y) for x, y in side]
        neck = [(mouth * share, hem)]
        shape = curve([(0, -0.98), *rim, *neck, *((-x, y) for x, y in reversed(rim + neck))], 4)
        pen.fill(other if k % 2 else colour, shape, edge=not k)


def draw_rocket(pen, random, colour):
    wide, tail = random.uniform(0.26, 0.38), random.uniform(0.42, 0.52)
    trims = [COLOURS["red"], COLOURS["blue"], COLOURS["orange"], COLOURS["white"], shade(colour, -0.45)]
    trims = [t for t in trims if sum(abs(a - b) for a, b in zip(t, colour, strict=True)) > 130]
    trim = varied(random, random.choice(trims or [GLASS]))
    if random.random() < 0.85:
        fire = random.uniform(0.82, 0.98)
        for share, flame in ((1, (240, 120, 30)), (0.55, (255, 224, 90))):
            x, end = 0.75 * wide * share, tail + share * (fire - tail)
            low = tail + 0.55 * (end - tail)
            tongue = [(0, tail), (x, tail + 0.1), (0.7 * x, low), (0, end), (-0.7 * x, low), (-x, tail + 0.1)]
            pen.fill(flame, curve(tongue, 4), edge=share == 1)
    bell, rim = 0.6 * wide, 0.75 * wide
    pen.fill(shade(trim, -0.45), [(-bell, tail), (bell, tail), (rim, tail + 0.12), (-rim, tail + 0.12)])
    fin, sweep, root = random.uniform(0.28, 0.4), random.uniform(0.12, 0.3), random.uniform(-0.12, 0.08)
    for side in (-1, 1):
        out, inn = side * (wide + fin), side * bell
        pen.fill(trim, [(inn, root), (0.85 * out, tail - 0.14), (out, tail + sweep), (inn, tail)])
    nose = random.uniform(-0.52, -0.4)
    half = [(0.42 * wide, -0.8), (0.8 * wide, nose), (wide, -0.1), (0.92 * wide, 0.22), (0.68 * wide, tail)]
    if random.random() < 0.4:  # a straight body under a cone
        half = [(0.5 * wide, (nose - 0.98) / 2), (wide, nose), (wide, 0.2), (wide, tail)]
    mirror = [(-x, y) for x, y in reversed(half)]
    pen.fill(colour, [(0, -0.98), *half, *mirror])
    pen.fill(trim, [(0, -0.98), *half[:2], *mirror[-2:]], edge=False)
    r = random.uniform(0.5, 0.6) * wide
    for y in random.choice(((-0.14,), (-0.14,), (-0.2, 0.2))):
        pen.fill(shade(trim, -0.5), ellipse(0, y, r), edge=False)
        pen.fill(GLASS, ellipse(0, y, 0.65 * r), edge=False)
