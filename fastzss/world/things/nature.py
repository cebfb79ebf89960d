"""Things that grow, and animals."""

import math

from fastzss.world.pen import curve, dome, ellipse, shade, varied


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
