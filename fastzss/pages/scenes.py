"""Pictures on the report's page: an image, what a model sees in it, and the truth, with names on their regions.

Where the truth is known, what is wrong is hatched, and a sentence says what was taken for what.
"""

from dataclasses import dataclass
from html import escape

import numpy as np
from PIL import Image

from fastzss.masks.drawing import data_uri, fitted, named

IMAGE, PICTURE = 256, 512  # pixels: least width of an image and of a picture with names; PICTURE is the largest side
LETTERS = 1 / 21  # their size, in sides of a picture, which stands on the page at about two thirds of its own
SAID = 0.02  # share of a picture from which on a mistake is told


@dataclass(frozen=True)
class Scene:
    """An image as the model sees it, beside the truth if there is one."""

    image: Image.Image  # RGB
    prediction: np.ndarray  # uint8 [H, W]: index into `names` of every pixel
    truth: np.ndarray | None  # uint8 [H, W]; ids without a name are unlabelled
    caption: str
    names: tuple[str, ...]


def pictures(scenes):
    return f'<div class="scenes">\n{"".join(card(scene) for scene in scenes)}</div>\n' if scenes else ""


def card(scene):
    """Image, prediction and truth side by side, and what went wrong."""
    wrong = None if scene.truth is None else mistaken(scene)
    shots, legend = {"image": fitted(scene.image, scene.prediction, IMAGE, PICTURE)[0]}, {}
    for kind, mask, hatched in (("prediction", scene.prediction, wrong), ("truth", scene.truth, None)):
        if mask is not None:
            image, shown = fitted(scene.image, mask, PICTURE, PICTURE)
            shots[kind], numbered = named(image, shown, scene.names, 0.65, LETTERS, hatched)
            legend |= numbered
    figure = '<figure><img alt="{0}" width="{1}" height="{2}" src="{3}"><figcaption>{0}{4}</figcaption></figure>\n'
    hint = {"prediction": ", hatched where it is wrong"} if wrong is not None else {}
    figures = "".join(
        figure.format(kind, *shot.size, data_uri(shot), hint.get(kind, "")) for kind, shot in shots.items()
    )
    numbers = "; ".join(f"{number}: {name}" for number, name in sorted(legend.items()))
    lines = [scene.caption, "" if wrong is None else verdict(scene, wrong), numbers]
    words = "".join(f"<p>{escape(line)}</p>" for line in lines if line)
    return f'<article class="scene n{len(shots)}">\n{figures}{words}</article>\n'


def mistaken(scene):
    """bool [H, W]: where the truth has a name, and the prediction another."""
    return (scene.truth < len(scene.names)) & (scene.prediction != scene.truth)


def verdict(scene, wrong):
    """How much is right, and the largest mistakes, in one sentence."""
    K, known = len(scene.names), scene.truth < len(scene.names)
    if not known.any():
        return ""
    right = f"{100 * (1 - wrong[known].mean()):.0f} % of the pixels are right"
    seen = np.minimum(scene.prediction[wrong].astype(int), K)
    pairs = np.bincount(scene.truth[wrong].astype(int) * (K + 1) + seen, minlength=K * (K + 1)) / known.sum()
    largest = [pair for pair in np.argsort(-pairs, kind="stable")[:2].tolist() if pairs[pair] >= SAID]
    told = []
    for pair in largest:
        true, taken = divmod(pair, K + 1)
        other = scene.names[taken] if taken < K else "nothing"
        told.append(f"{scene.names[true]} was taken for {other} ({100 * pairs[pair]:.0f} %)")
    return f"{right}; {' and '.join(told)}." if told else f"{right}."
