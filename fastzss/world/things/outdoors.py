"""Things that stand or move under the sky."""

from fastzss.world.pen import COLOURS, CREAM, GLASS, box, curve, dome, ellipse, shade, varied


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
