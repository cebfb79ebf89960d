"""One scene of the built-in world: a picture, two captions and the class of every pixel.

Beside the usual splits there are three harder tests, with scenes that training never shows:

    combinations   every thing has one of two colours: its usual one, or one that it never has in any other split
    drawings       the parameters of every drawing and texture lie outside the ranges of the other splits
    large          pictures of other sizes and aspects: things as long beside the short side, and more of them
"""

import math
from dataclasses import dataclass
from random import Random

import numpy as np
from PIL import Image

from fastzss.world.captions import Seen, make_caption
from fastzss.world.stuffs import STUFFS, TEXTURES, pixels
from fastzss.world.things import DRAWINGS, THINGS, draw_thing

SIZE = 128
SPLITS = ("train", "validation", "test", "combinations", "drawings", "large")
NAMES = THINGS + STUFFS  # the class id of a name is its index here
SEEN_SHARE = 0.3  # a thing is visible when this much of its drawing is uncovered and inside the picture


def phrases(colours):
    """A colour and a thing: 'green tree'."""
    return tuple(map(" ".join, zip(colours, THINGS, strict=True)))


UNSEEN = phrases(drawing.unseen for drawing in DRAWINGS.values())
SEEN = phrases(drawing.colours[0] for drawing in DRAWINGS.values())


def groups(split):
    """The classes of a split by group; the class id of a name is its index over all groups."""
    return {"things": UNSEEN + SEEN if split == "combinations" else THINGS, "stuff": STUFFS}


def names(split):
    """The classes of a split, in the order of their ids."""
    return tuple(name for group in groups(split).values() for name in group)


@dataclass(frozen=True)
class Scene:
    """A made-up photograph with its truth."""

    image: Image.Image  # RGB
    captions: tuple[str, str]
    mask: np.ndarray  # uint8 of the image's height and width: class id of every pixel


class Beyond(Random):
    """Draws numbers from outside the range asked for: up to a third of its width below or above."""

    def uniform(self, a, b):
        by = (b - a) * super().uniform(0.03, 1 / 3)
        return a - by if self.random() < 0.5 else b + by


def scene(split, index, seed=0):
    """The scene number `index` of a split: a pure function of its arguments."""
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r} of the built-in world; it has {', '.join(SPLITS)}")
    random = Random(f"{seed}/{split}/{int(index)}")
    noise = np.random.Generator(np.random.PCG64(random.getrandbits(64)))
    shapes = Beyond(random.getrandbits(64)) if split == "drawings" else random
    width, height = any_shape(random) if split == "large" else (SIZE, SIZE)
    zoom = min(width, height) / SIZE

    stuffs = random.sample(STUFFS, random.choice((1, 2, 2)))
    image, ground = lay_ground(random, shapes, noise, stuffs, (height, width))
    layers = Image.fromarray(ground)  # which layer shows at a pixel: the stuffs come first, then thing after thing
    count = random.choice((1, 2, 2, 3, 3, 4))
    chosen = random.choices(THINGS, k=round(count * max(width, height) / min(width, height)))
    drawn, areas = [], []
    for name in chosen:
        size = random.uniform(44, 72 if count < 3 else 64)
        sprite, colour = draw_thing(name, zoom * size, shapes, split == "combinations")
        x, y = find_place(random, size, drawn, width / zoom, height / zoom)
        x, y = x * zoom, y * zoom
        corner = round(x - sprite.width / 2), round(y - sprite.height / 2)
        inside = sprite.getchannel("A").point(lambda alpha: 255 * (alpha >= 128))
        image.paste(sprite, corner, sprite)
        layers.paste(len(stuffs) + len(drawn), corner, inside)
        under = stuffs[ground[min(int(y), height - 1), min(int(x), width - 1)]]
        drawn.append(Seen(name, colour, x / width, y / height, size, under))
        areas.append(inside.histogram()[255])

    layers = np.asarray(layers)
    shown = np.bincount(layers.ravel(), minlength=len(stuffs) + len(drawn))
    things = [
        thing for thing, left, all_ in zip(drawn, shown[len(stuffs) :], areas, strict=True) if left >= SEEN_SHARE * all_
    ]
    stuffs_seen = [stuff for stuff, left in zip(stuffs, shown, strict=False) if left >= 0.04 * width * height]
    captions = tuple(make_caption(random, things, stuffs_seen) for _ in range(2))
    labels = [f"{thing.colour} {thing.name}" if split == "combinations" else thing.name for thing in drawn]
    id_of = {name: k for k, name in enumerate(names(split))}
    ids = np.array([id_of[name] for name in stuffs + labels], np.uint8)
    return Scene(image, captions, ids[layers])


def any_shape(random):
    short = random.choice((96, 128, 192, 256))
    sides = [short, round(short * random.uniform(1.2, 2.5))]
    random.shuffle(sides)
    return sides


def lay_ground(random, shapes, noise, stuffs, shape):
    """One texture, or two with an uneven border; returns the picture and which of them lies at each pixel."""
    textures = [TEXTURES[stuff](shapes, noise, shape) for stuff in stuffs]
    if len(stuffs) == 1:
        return Image.fromarray(textures[0]), np.zeros(shape, np.uint8)
    (x, y), turn = pixels(shape), random.uniform(0, 2 * math.pi)
    (height, width), side = shape, math.sqrt(shape[0] * shape[1])
    along, across = math.cos(turn) * x + math.sin(turn) * y, math.cos(turn) * y - math.sin(turn) * x
    middle = (math.cos(turn) * height - math.sin(turn) * width) / 2 + random.uniform(-0.2, 0.2) * side
    border = across - middle
    for length in (random.uniform(70, 130), random.uniform(25, 50), random.uniform(9, 16)):
        border += random.uniform(0.04, 0.12) * length * np.sin(along * (2 * math.pi / length) + random.uniform(0, 6.3))
    blend = np.clip(border + 0.5, 0, 1)[..., None]
    picture = textures[0] * (1 - blend) + textures[1] * blend
    return Image.fromarray(picture.astype(np.uint8)), (border >= 0).astype(np.uint8)


def find_place(random, size, drawn, width, height):
    """A centre well inside the picture, and away from the other things when one of a few tries is."""
    best, best_room = None, -1.0
    for _ in range(6):
        place = tuple(random.uniform(0.4 * size, side - 0.4 * size) for side in (width, height))
        gaps = (math.dist(place, (t.x * width, t.y * height)) / (0.5 * (size + t.size)) for t in drawn)
        room = min(gaps, default=math.inf)
        if room > best_room:
            best, best_room = place, room
        if room > 0.8:  # over the mean length of the two: they touch at most
            break
    return best
