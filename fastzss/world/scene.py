"""One scene of the built-in world: a picture, two captions and the class of every pixel."""

import math
from dataclasses import dataclass
from random import Random

import numpy as np
from PIL import Image

from fastzss.world.captions import Seen, make_caption
from fastzss.world.stuffs import SIZE, STUFFS, TEXTURES, X, Y
from fastzss.world.things import THINGS, draw_thing

SPLITS = ("train", "validation", "test")
NAMES = THINGS + STUFFS  # the class id of a name is its index here
SEEN_SHARE = 0.3  # a thing is visible when this much of its drawing is uncovered and inside the picture


@dataclass(frozen=True)
class Scene:
    """A made-up photograph with its truth."""

    image: Image.Image  # RGB, SIZE x SIZE
    captions: tuple[str, str]
    mask: np.ndarray  # [SIZE, SIZE] uint8: class id of every pixel


def scene(split, index, seed=0):
    """The scene number `index` of a split: a pure function of its arguments."""
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r} of the built-in world; it has {', '.join(SPLITS)}")
    random = Random(f"{seed}/{split}/{int(index)}")
    noise = np.random.Generator(np.random.PCG64(random.getrandbits(64)))

    stuffs = random.sample(STUFFS, random.choice((1, 2, 2)))
    image, ground = lay_ground(random, noise, stuffs)
    layers = Image.fromarray(ground)  # which layer shows at a pixel: the stuffs come first, then thing after thing
    chosen = random.choices(THINGS, k=random.choice((1, 2, 2, 3, 3, 4)))
    drawn, pixels = [], []
    for name in chosen:
        size = random.uniform(44, 72 if len(chosen) < 3 else 64)
        sprite, colour = draw_thing(name, size, random)
        x, y = find_place(random, size, drawn)
        corner = round(x - sprite.width / 2), round(y - sprite.height / 2)
        inside = sprite.getchannel("A").point(lambda alpha: 255 * (alpha >= 128))
        image.paste(sprite, corner, sprite)
        layers.paste(len(stuffs) + len(drawn), corner, inside)
        under = stuffs[ground[min(int(y), SIZE - 1), min(int(x), SIZE - 1)]]
        drawn.append(Seen(name, colour, x / SIZE, y / SIZE, size, under))
        pixels.append(inside.histogram()[255])

    layers = np.asarray(layers)
    shown = np.bincount(layers.ravel(), minlength=len(stuffs) + len(drawn))
    things = [
        thing
        for thing, left, all_ in zip(drawn, shown[len(stuffs) :], pixels, strict=True)
        if left >= SEEN_SHARE * all_
    ]
    stuffs_seen = [stuff for stuff, left in zip(stuffs, shown, strict=False) if left >= 0.04 * SIZE * SIZE]
    captions = tuple(make_caption(random, things, stuffs_seen) for _ in range(2))
    ids = np.array([NAMES.index(name) for name in stuffs + chosen], np.uint8)
    return Scene(image, captions, ids[layers])


def lay_ground(random, noise, stuffs):
    """One texture, or two with an uneven border; returns the picture and which of them lies at each pixel."""
    textures = [TEXTURES[stuff](random, noise) for stuff in stuffs]
    if len(stuffs) == 1:
        return Image.fromarray(textures[0]), np.zeros((SIZE, SIZE), np.uint8)
    turn = random.uniform(0, 2 * math.pi)
    along, across = math.cos(turn) * X + math.sin(turn) * Y, math.cos(turn) * Y - math.sin(turn) * X
    middle = (math.cos(turn) - math.sin(turn)) * SIZE / 2 + random.uniform(-0.2, 0.2) * SIZE
    border = across - middle
    for length in (random.uniform(70, 130), random.uniform(25, 50), random.uniform(9, 16)):
        border += random.uniform(0.04, 0.12) * length * np.sin(along * (2 * math.pi / length) + random.uniform(0, 6.3))
    blend = np.clip(border + 0.5, 0, 1)[..., None]
    picture = textures[0] * (1 - blend) + textures[1] * blend
    return Image.fromarray(picture.astype(np.uint8)), (border >= 0).astype(np.uint8)


def find_place(random, size, drawn):
    """A centre well inside the picture, and away from the other things when one of a few tries is."""
    best, best_room = None, -1.0
    for _ in range(6):
        place = tuple(random.uniform(0.4 * size, SIZE - 0.4 * size) for _ in range(2))
        gaps = (math.dist(place, (t.x * SIZE, t.y * SIZE)) / (0.5 * (size + t.size)) for t in drawn)
        room = min(gaps, default=math.inf)
        if room > best_room:
            best, best_room = place, room
        if room > 0.8:  # over the mean length of the two: they touch at most
            break
    return best
