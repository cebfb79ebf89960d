"""Things that fly or shine."""

import math

from fastzss.world.pen import ellipse, shade


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
