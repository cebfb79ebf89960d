"""The stuffs of the built-in world: one procedural texture a class, with random scale, direction and tint.

Each function takes a random source (Python's) and a noise source (numpy's) and returns a [SIZE, SIZE, 3] uint8 picture.
A new class is one such function and one row of `TEXTURES`.
"""

import math

import numpy as np
from PIL import Image, ImageDraw

SIZE = 128
Y, X = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)


def ramp(*colours):
    """A [256, 3] table running through the colours, to be indexed by brightness."""
    colours = np.asarray(colours, np.float32)
    at = np.linspace(0, len(colours) - 1, 256)
    channels = [np.interp(at, np.arange(len(colours)), colours[:, c]) for c in range(3)]
    return np.clip(np.stack(channels, 1), 0, 255).astype(np.uint8)


def paint(value, table):
    """Colour a [SIZE, SIZE] field of values from 0 to 1."""
    return table[np.clip(value * 255, 0, 255).astype(np.uint8)]


def clouds(noise, cell, stretch=1.0):
    """Smooth noise between 0 and 1; `cell` is the size of a lump in pixels, `stretch` its height over its width."""
    shape = max(2, round(SIZE / (cell * stretch)) + 1), max(2, round(SIZE / cell) + 1)
    lumps = Image.fromarray(noise.random(shape, dtype=np.float32))
    return np.asarray(lumps.resize((SIZE, SIZE), Image.Resampling.BICUBIC))


def tinted(random, colour, by):
    light = random.uniform(-by, by)
    return [c + light + random.uniform(-by, by) / 2 for c in colour]


def along(turn):
    """Coordinates along and across a direction, in pixels."""
    cos, sin = math.cos(turn), math.sin(turn)
    return cos * X + sin * Y, cos * Y - sin * X


def grass(random, noise):
    green = random.choice(((112, 164, 66), (92, 150, 72), (140, 172, 70)))
    green = tinted(random, green, 14)
    ground = paint(clouds(noise, 26), ramp([0.72 * c for c in green], [0.86 * c for c in green]))
    sheet = Image.fromarray(ground)
    draw = ImageDraw.Draw(sheet)
    lean, length = random.uniform(-0.5, 0.5), random.uniform(7, 13)
    blades = 340 if length < 10 else 260
    places = noise.random((blades, 4), dtype=np.float32)
    places = places[np.argsort(places[:, 1])]  # the near ones over the far ones
    tips = lean + 0.9 * (places[:, 2] - 0.5)
    tall = length * (0.6 + 0.7 * places[:, 3])
    x, y = places[:, 0] * (SIZE + 8) - 4, places[:, 1] * (SIZE + 10)
    ends = np.stack([x, y, x + tall * np.sin(tips), y - tall * np.cos(tips)], 1).tolist()
    lights = [tuple(int(min(255, c * (0.8 + 0.1 * k))) for c in green) for k in range(5)]
    kinds = (places[:, 2] * 997 % 5).astype(int).tolist()
    for end, kind in zip(ends, kinds, strict=True):
        draw.line(end, fill=lights[kind], width=1 + (kind == 2))
    return np.asarray(sheet)


def sand(random, noise):
    tan = tinted(random, random.choice(((226, 200, 150), (214, 184, 132), (232, 212, 172))), 10)
    _, across = along(random.uniform(-0.7, 0.7))
    wave = random.uniform(9, 17)
    ripple = np.sin(across * (2 * math.pi / wave) + 7 * clouds(noise, 34))
    grain = noise.random((SIZE, SIZE), dtype=np.float32)
    value = 0.5 + random.uniform(0.06, 0.16) * ripple + 0.3 * (grain - 0.5) + 0.15 * (clouds(noise, 50) - 0.5)
    value -= 0.5 * (grain > 0.985)
    return paint(value, ramp([0.78 * c for c in tan], tan, [1.1 * c for c in tan]))


def water(random, noise):
    blue = tinted(random, random.choice(((58, 128, 190), (52, 146, 178), (44, 104, 168))), 12)
    along_it, across = along(random.uniform(-0.35, 0.35))
    wave = random.uniform(10, 18)
    swell = np.sin(along_it * (2 * math.pi / random.uniform(20, 34)) + 6 * clouds(noise, 40))
    phase = across * (2 * math.pi / wave) + 0.9 * swell + 3 * clouds(noise, 30)
    value = 0.42 + 0.16 * np.sin(phase) + 0.16 * (clouds(noise, 24, 0.4) - 0.5)
    crest = np.sin(phase + 0.5) > random.uniform(0.9, 0.95)
    value += 0.4 * (crest & (clouds(noise, 9, 0.5) > 0.42))
    return paint(value, ramp([0.62 * c for c in blue], blue, [0.45 * c + 130 for c in blue]))


def brick(random, noise):
    clay = tinted(random, random.choice(((168, 82, 62), (150, 92, 72), (178, 104, 74))), 12)
    mortar = tinted(random, (206, 196, 182), 14)
    long = random.uniform(20, 32)
    high, joint = long * random.uniform(0.42, 0.52), random.uniform(1.6, 2.6)
    u, v = along(random.uniform(-0.25, 0.25) + random.choice((0, 0, 0, math.pi / 2)))
    v = v / high + random.random() + 16
    row = np.floor(v)
    u = u / long + 0.5 * (row % 2) + 16
    column = np.floor(u)
    fired = noise.random(256, dtype=np.float32)[((row * 29 + column * 13) % 256).astype(np.uint8)]
    value = 0.25 + 0.5 * fired + 0.3 * (noise.random((SIZE, SIZE), dtype=np.float32) - 0.5)
    picture = paint(value, ramp([0.74 * c for c in clay], clay, [1.14 * c for c in clay]))
    # how far each pixel is from the nearest joint, in pixels; the joint fades over one pixel
    gap = np.minimum((0.5 - np.abs(u - column - 0.5)) * long, (0.5 - np.abs(v - row - 0.5)) * high)
    wall = np.clip(gap - joint / 2 + 0.5, 0, 1)[..., None]
    return (picture * wall + np.asarray(mortar, np.float32) * (1 - wall)).astype(np.uint8)


TEXTURES = {"grass": grass, "sand": sand, "water": water, "brick": brick}
STUFFS = tuple(TEXTURES)
