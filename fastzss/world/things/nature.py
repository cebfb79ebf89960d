"""Things that grow, and animals."""

import math

from fastzss.world.pen import CREAM, curve, dome, ellipse, shade, varied


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


def draw_apple(pen, random, colour):
    wide, shoulder, dip = random.uniform(0.8, 0.95), random.uniform(-0.42, -0.22), random.uniform(-0.36, -0.24)
    foot, base = random.uniform(0.3, 0.48), random.uniform(0.84, 0.92)
    lean, top = random.uniform(-0.16, 0.16), random.uniform(-0.96, -0.8)
    wood = varied(random, (98, 66, 42))
    left = [(-foot, base + 0.06), (-0.85 * wide, 0.46), (-wide, shoulder + 0.36), (-0.8 * wide, shoulder - 0.06)]
    left += [(-0.4 * wide, dip - 0.26), (-0.1, dip - 0.08)]
    right = [(-x, y) for x, y in reversed(left)]
    body = curve([*left, (0, dip), *right, (0, base)], 7)
    if random.random() < 0.3:  # a bite: the rim is pushed back from its middle, the flesh less far than the skin
        mouth, bite = (wide + 0.1, shoulder + random.uniform(0.3, 0.5)), random.uniform(0.34, 0.44)
        pushes = [(point, max(math.dist(point, mouth), 1e-6)) for point in body]
        for tint, r in ((CREAM, bite), (colour, bite + 0.13)):
            far = [(x - mouth[0], y - mouth[1], max(1, r / d)) for (x, y), d in pushes]
            pen.fill(tint, [(mouth[0] + x * f, mouth[1] + y * f) for x, y, f in far], edge=r == bite)
    else:
        pen.fill(colour, body)
    pen.fill(shade(colour, 0.45), ellipse(-0.52 * wide, shoulder + 0.22, 0.12, 0.24, 0.4), edge=False)
    pen.line(wood, [(0, dip + 0.1), (0.3 * lean, (dip + top) / 2), (lean, top)], 0.13)
    for side in random.choice(((1,), (1,), (-1,), (-1, 1), ())):
        long, lift = random.uniform(0.42, 0.58), random.uniform(0.1, 0.3)
        leaf = [(0.03 * side, -0.52), (0.5 * long * side, -0.62 - lift), (long * side, -0.6 - lift)]
        pen.fill(varied(random, (88, 164, 62)), curve([*leaf, (0.6 * long * side, -0.45 - 0.4 * lift)], 4))


def draw_bird(pen, random, colour):
    fat, beak = random.uniform(0.36, 0.48), varied(random, (244, 164, 44))
    wing = shade(colour, random.choice((-0.3, -0.22, 0.3)))
    head, brow, tail = random.uniform(0.25, 0.33), random.uniform(-0.42, -0.28), random.uniform(-0.15, 0.3)
    flies = random.random() < 0.35
    if flies:
        far = curve([(-0.2, 0.1), (random.uniform(-0.25, -0.05), -0.96), (0.12, -0.6), (0.2, 0.1)], 4)
        pen.fill(shade(wing, -0.15), far)
    else:
        for x in (-0.08, 0.16):
            pen.line(shade(beak, -0.4), [(x, fat), (x, 0.93), (x + 0.18, 0.93)], 0.09)
    pen.fill(beak, [(0.5, brow - 0.12), (random.uniform(0.9, 1.0), brow + 0.04), (0.5, brow + 0.15)])
    plume = [(-0.45, 0.02), (-1.0, tail - 0.13), (-0.9, tail + 0.05), (-0.98, tail + 0.2), (-0.4, 0.3)]
    body = curve([(-0.62, 0.1), (-0.15, 0.12 - fat), (0.3, brow - 0.06), (0.62, brow + 0.14), (0.52, 0.26),
                  (0.12, 0.16 + fat), (-0.35, 0.1 + 0.75 * fat)], 4)  # fmt: skip
    skull = ellipse(0.38, brow, head)
    if random.random() < 0.3:
        pen.fill(colour, [(0.4, brow - head + 0.05), (-0.02, brow - head - 0.2), (0.16, brow - 0.1)])
    pen.fill(colour, plume, body, skull)
    if random.random() < 0.6:
        pen.fill(shade(colour, 0.6), ellipse(0.26, 0.22, 0.22, 0.6 * fat, 0.5), edge=False)
    if flies:
        pen.fill(wing, curve([(0.28, 0.06), (-0.2, -0.35), (-0.62, random.uniform(-0.98, -0.8)), (-0.4, 0.06)], 4))
    else:
        tip = random.uniform(-0.62, -0.48)
        pen.fill(wing, curve([(0.16, 0.0), (0.1, 0.3), (-0.2, 0.36), (tip, 0.24), (-0.2, -0.06)], 4))
    pen.fill((255, 255, 255), ellipse(0.46, brow - 0.03, 0.1), edge=False)
    pen.fill((28, 28, 34), ellipse(0.48, brow - 0.03, 0.07), edge=False)


def draw_snail(pen, random, colour):
    flesh = varied(random, random.choice(((232, 196, 148), (206, 172, 120), (216, 206, 140), (222, 176, 164))))
    x, r = random.uniform(-0.26, -0.1), random.uniform(0.58, 0.68)
    y, high = 0.62 - r, random.uniform(-0.25, 0.0)
    for stalk in (0.62, 0.84):
        tip = stalk + random.uniform(-0.08, 0.06), high - random.uniform(0.3, 0.45)
        pen.line(pen.ink or shade(flesh, -0.25), [(stalk, high + 0.1), tip], 0.15)
        pen.line(flesh, [(stalk, high + 0.1), tip], 0.08)
        pen.fill(flesh, ellipse(*tip, 0.1))
        pen.fill((28, 28, 34), ellipse(*tip, 0.06), edge=False)
    foot = [
        (-0.99, 0.86),
        (-0.6, 0.55),
        (0.2, 0.52),
        (0.45, 0.3),
        (0.5, high + 0.12),
        (0.72, high),
        (0.95, high + 0.15),
    ]
    pen.fill(flesh, curve([*foot, (0.92, 0.5), (0.7, 0.84), (0.2, 0.9)], 4))
    pen.line(shade(flesh, -0.55), [(0.92, high + 0.3), (0.82, high + 0.36), (0.72, high + 0.32)], 0.05)
    pen.fill(colour, ellipse(x, y, r, r * random.uniform(0.92, 1.05)))
    turns, start, band = random.uniform(1.6, 2.3), random.uniform(0, 1.2), random.uniform(0.08, 0.13)
    polar = [(0.86 * r * (1 - k / 30), start + 2 * math.pi * turns * k / 30) for k in range(31)]
    whorl = [(x + far * math.cos(turn), y + far * math.sin(turn)) for far, turn in polar]
    pen.line(shade(colour, random.choice((-0.45, -0.45, 0.6))), whorl, band)


def draw_butterfly(pen, random, colour):
    span, tall = random.uniform(0.84, 0.96), random.uniform(0.72, 0.92)
    low, drop = random.uniform(0.5, 0.72), random.uniform(0.62, 0.88)
    hind = shade(colour, random.choice((-0.22, 0.0, 0.3)))
    mark = shade(colour, random.choice((0.7, 0.7, -0.6)))
    marks, tailed = random.choice(("spots", "edge", "plain", "both")), random.random() < 0.3
    spot = random.uniform(0.11, 0.16)
    for side in (-1, 1):
        end = [(side * 0.62 * low, drop), (side * 0.42 * low, 1.0)] if tailed else [(side * 0.6 * low, drop)]
        lower = [(0, 0.0), (side * low, 0.12), (side * 1.05 * low, 0.5 * drop), *end, (side * 0.12, 0.55)]
        upper = [(0, -0.12), (side * 0.45, -0.85 * tall), (side * span, -tall), (side * span, -0.25)]
        upper += [(side * 0.6, 0.1), (0, 0.16)]
        pen.fill(hind, curve(lower, 4))
        pen.fill(colour, curve(upper, 4))
        if marks in ("edge", "both"):
            rim = [(side * 0.9 * span, -0.92 * tall), (side * 0.94 * span, -0.25), (side * 0.62 * span, 0.02)]
            pen.line(mark, curve([*rim, (side * 0.8 * span, -0.4)], 4)[:9], 0.12)
        if marks in ("spots", "both"):
            pen.fill(mark, ellipse(side * 0.55 * span, -0.5 * tall, 1.2 * spot, spot, side * 0.7), edge=False)
        if marks != "edge":
            pen.fill(mark, ellipse(side * 0.6 * low, 0.4, spot), edge=False)
        feeler = random.uniform(0.22, 0.36)
        pen.line((48, 40, 44), [(0, -0.4), (side * 0.5 * feeler, -0.8), (side * feeler, -0.95)], 0.06)
        pen.fill((48, 40, 44), ellipse(side * feeler, -0.94, 0.06), edge=False)
    pen.fill((62, 48, 46), ellipse(0, 0.08, random.uniform(0.08, 0.11), 0.5), ellipse(0, -0.42, 0.13))
