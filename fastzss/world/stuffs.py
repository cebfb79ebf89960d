"""The stuffs of the built-in world: one procedural texture a class, with random scale, direction and tint.

Each function takes a random source (Python's), a noise source (numpy's) and the shape (height, width) of the picture it
returns, a [height, width, 3] uint8 array. A new class is one such function and one row of `TEXTURES`.
"""

import math
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw


@lru_cache(maxsize=8)
def pixels(shape):
    """The x and y of every pixel."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    return x, y


def ramp(*colours):
    """A [256, 3] table running through the colours, to be indexed by brightness."""
    colours = np.asarray(colours, np.float32)
    at = np.linspace(0, len(colours) - 1, 256)
    channels = [np.interp(at, np.arange(len(colours)), colours[:, c]) for c in range(3)]
    return np.clip(np.stack(channels, 1), 0, 255).astype(np.uint8)


def paint(value, table):
    """Colour a field of values from 0 to 1."""
    return table[np.clip(value * 255, 0, 255).astype(np.uint8)]


def clouds(noise, shape, cell, stretch=1.0):
    """Smooth noise between 0 and 1; `cell` is the size of a lump in pixels, `stretch` its height over its width."""
    height, width = shape
    cells = max(2, round(height / (cell * stretch)) + 1), max(2, round(width / cell) + 1)
    lumps = Image.fromarray(noise.random(cells, dtype=np.float32))
    return np.asarray(lumps.resize((width, height), Image.Resampling.BICUBIC))


def tinted(random, colour, by):
    light = random.uniform(-by, by)
    return [c + light + random.uniform(-by, by) / 2 for c in colour]


def along(shape, turn):
    """Coordinates along and across a direction, in pixels."""
    cos, sin = math.cos(turn), math.sin(turn)
    x, y = pixels(shape)
    return cos * x + sin * y, cos * y - sin * x


def grass(random, noise, shape):
    green = random.choice(((112, 164, 66), (92, 150, 72), (140, 172, 70)))
    green = tinted(random, green, 14)
    ground = paint(clouds(noise, shape, 26), ramp([0.72 * c for c in green], [0.86 * c for c in green]))
    sheet = Image.fromarray(ground)
    draw = ImageDraw.Draw(sheet)
    lean, length = random.uniform(-0.5, 0.5), random.uniform(7, 13)
    height, width = shape
    blades = round((0.021 if length < 10 else 0.016) * height * width)
    places = noise.random((blades, 4), dtype=np.float32)
    places = places[np.argsort(places[:, 1])]  # the near ones over the far ones
    tips = lean + 0.9 * (places[:, 2] - 0.5)
    tall = length * (0.6 + 0.7 * places[:, 3])
    x, y = places[:, 0] * (width + 8) - 4, places[:, 1] * (height + 10)
    ends = np.stack([x, y, x + tall * np.sin(tips), y - tall * np.cos(tips)], 1).tolist()
    lights = [tuple(int(min(255, c * (0.8 + 0.1 * k))) for c in green) for k in range(5)]
    kinds = (places[:, 2] * 997 % 5).astype(int).tolist()
    for end, kind in zip(ends, kinds, strict=True):
        draw.line(end, fill=lights[kind], width=1 + (kind == 2))
    return np.asarray(sheet)


def sand(random, noise, shape):
    tan = tinted(random, random.choice(((226, 200, 150), (214, 184, 132), (232, 212, 172))), 10)
    _, across = along(shape, random.uniform(-0.7, 0.7))
    wave = random.uniform(9, 17)
    ripple = np.sin(across * (2 * math.pi / wave) + 7 * clouds(noise, shape, 34))
    grain = noise.random(shape, dtype=np.float32)
    value = 0.5 + random.uniform(0.06, 0.16) * ripple + 0.3 * (grain - 0.5) + 0.15 * (clouds(noise, shape, 50) - 0.5)
    value -= 0.5 * (grain > 0.985)
    return paint(value, ramp([0.78 * c for c in tan], tan, [1.1 * c for c in tan]))


def water(random, noise, shape):
    blue = tinted(random, random.choice(((58, 128, 190), (52, 146, 178), (44, 104, 168))), 12)
    along_it, across = along(shape, random.uniform(-0.35, 0.35))
    wave = random.uniform(10, 18)
    swell = np.sin(along_it * (2 * math.pi / random.uniform(20, 34)) + 6 * clouds(noise, shape, 40))
    phase = across * (2 * math.pi / wave) + 0.9 * swell + 3 * clouds(noise, shape, 30)
    value = 0.42 + 0.16 * np.sin(phase) + 0.16 * (clouds(noise, shape, 24, 0.4) - 0.5)
    crest = np.sin(phase + 0.5) > random.uniform(0.9, 0.95)
    value += 0.4 * (crest & (clouds(noise, shape, 9, 0.5) > 0.42))
    return paint(value, ramp([0.62 * c for c in blue], blue, [0.45 * c + 130 for c in blue]))


def brick(random, noise, shape):
    clay = tinted(random, random.choice(((168, 82, 62), (150, 92, 72), (178, 104, 74))), 12)
    mortar = tinted(random, (206, 196, 182), 14)
    long = random.uniform(20, 32)
    high, joint = long * random.uniform(0.42, 0.52), random.uniform(1.6, 2.6)
    u, v = along(shape, random.uniform(-0.25, 0.25) + random.choice((0, 0, 0, math.pi / 2)))
    v = v / high + random.random()
    row = np.floor(v)
    u = u / long + 0.5 * (row % 2)
    column = np.floor(u)
    fired = noise.random(256, dtype=np.float32)[((row * 29 + column * 13) % 256).astype(np.uint8)]
    value = 0.25 + 0.5 * fired + 0.3 * (noise.random(shape, dtype=np.float32) - 0.5)
    picture = paint(value, ramp([0.74 * c for c in clay], clay, [1.14 * c for c in clay]))
    # how far each pixel is from the nearest joint, in pixels; the joint fades over one pixel
    gap = np.minimum((0.5 - np.abs(u - column - 0.5)) * long, (0.5 - np.abs(v - row - 0.5)) * high)
    wall = np.clip(gap - joint / 2 + 0.5, 0, 1)[..., None]
    return (picture * wall + np.asarray(mortar, np.float32) * (1 - wall)).astype(np.uint8)


def snow(random, noise, shape):
    white = tinted(random, random.choice(((232, 238, 247), (226, 236, 248), (240, 240, 240))), 5)
    _, across = along(shape, random.uniform(-0.5, 0.5))
    drift = np.sin(across * (2 * math.pi / random.uniform(34, 60)) + 5 * clouds(noise, shape, 46))
    value = 0.55 + 0.25 * drift + 0.4 * (clouds(noise, shape, 20) - 0.5)
    value -= 0.22 * (noise.random(shape, dtype=np.float32) > random.uniform(0.96, 0.985))  # specks
    return paint(value, ramp([c * f for c, f in zip(white, (0.76, 0.83, 0.93), strict=True)], white, (254, 254, 255)))


def wood(random, noise, shape):
    brown = tinted(random, random.choice(((164, 112, 66), (132, 88, 54), (190, 144, 92))), 12)
    u, v = along(shape, random.uniform(-0.15, 0.15) + random.choice((0, 0, math.pi / 2)))
    wide, long = random.uniform(17, 28), random.uniform(70, 130)
    v = v / wide + random.random()
    plank = np.floor(v)
    u = u / long + 0.37 * plank
    # each plank has its own tone and its own grain, which runs along it
    tone = noise.random(256, dtype=np.float32)[((plank * 37 + np.floor(u) * 11) % 256).astype(np.uint8)]
    grain = np.sin(v * random.uniform(22, 34) + 14 * tone + 9 * clouds(noise, shape, 44))
    value = 0.3 + 0.3 * tone + 0.13 * grain + 0.12 * (noise.random(shape, dtype=np.float32) - 0.5)
    gap = np.minimum((0.5 - np.abs(v - plank - 0.5)) * wide, (0.5 - np.abs(u - np.floor(u) - 0.5)) * long)
    value *= np.clip(gap - random.uniform(0.2, 0.6), 0.3, 1)
    return paint(value, ramp([0.4 * c for c in brown], brown, [1.25 * c for c in brown]))


def sky(random, noise, shape):
    blue = tinted(random, random.choice(((96, 164, 226), (120, 184, 236), (84, 142, 210))), 10)
    _, y = pixels(shape)
    haze = 0.35 * y / shape[0]
    heap = 0.6 * clouds(noise, shape, random.uniform(34, 52), 0.6) + 0.4 * clouds(noise, shape, 15, 0.7)
    cover = random.uniform(0.46, 0.62)
    white = np.clip((heap - cover) * random.uniform(4, 7), 0, 1)
    value = haze + white * (0.95 - haze - 0.15 * clouds(noise, shape, 12))
    return paint(value, ramp(blue, [0.6 * c + 94 for c in blue], (252, 253, 255)))


def stone(random, noise, shape):
    grey = tinted(random, random.choice(((140, 140, 144), (120, 122, 130), (156, 148, 138))), 10)
    cell, turn = random.uniform(15, 24), random.uniform(0, math.pi)
    u, v = (c / cell for c in along(shape, turn))
    column, row = np.floor(u).astype(np.int16), np.floor(v).astype(np.int16)
    middles = noise.random((3, 256), dtype=np.float32)  # of each stone: where it lies in its cell, and its tone
    first = second = np.full(shape, 9, np.float32)  # squared distances to the nearest two middles
    owner = np.zeros(shape, np.uint8)
    for dx in (-1, 0, 1):
        for dy in (-1, 0, 1):
            number = ((column + dx) * 31 + (row + dy) * 57).astype(np.uint8)
            x, y = (0.15 + d + 0.7 * place[number] for d, place in zip((dx, dy), middles, strict=False))
            far = (column + x - u) ** 2 + (row + y - v) ** 2
            second = np.minimum(second, np.maximum(first, far))
            owner = np.where(far < first, number, owner)
            first = np.minimum(first, far)
    first, second = np.sqrt(first), np.sqrt(second)
    rough = 0.16 * (noise.random(shape, dtype=np.float32) - 0.5) + 0.2 * (clouds(noise, shape, 8) - 0.5)
    value = 0.42 + 0.3 * middles[2, owner] - 0.2 * first + rough
    value *= np.clip((second - first) * random.uniform(6, 10), 0.25, 1)  # dark joints
    return paint(value, ramp([0.35 * c for c in grey], grey, [1.35 * c for c in grey]))


TEXTURES = {
    "grass": grass,
    "sand": sand,
    "water": water,
    "brick": brick,
    "snow": snow,
    "wood": wood,
    "sky": sky,
    "stone": stone,
}
STUFFS = tuple(TEXTURES)
