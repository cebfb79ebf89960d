"""A folder: DIR/images, DIR/labels (index PNGs of the same names, 255 = ignored), DIR/classes.txt (a class a line).

Subfolders of images/ have their like in labels/.  A first class called "background" is what is none of the others.
"""

from collections import Counter
from pathlib import Path

from fastzss.base.errors import UserError
from fastzss.evaluation.datasets import EvaluationSet
from fastzss.evaluation.datasets.labels import plain, read_label, read_pair, refuse
from fastzss.sources.images import SUFFIXES, files_below

PARTS = ("images", "labels", "classes.txt")


def folder_set(data, flag="--data", skip=False):
    if data is None:
        raise UserError(f"the protocol folder needs {flag} DIR with images/, labels/ and classes.txt", code=2)
    root = Path(data)
    for part in PARTS:
        if not (root / part).exists():
            raise UserError(f"{flag} {root}: has no {part}; expected images/, labels/ and classes.txt")
    names = class_names(root / "classes.txt", f"{flag} {root}")
    if not (root / "images").is_dir():
        raise UserError(f"{flag} {root}: images is no folder; expected images/, labels/ and classes.txt")
    images = files_below(root / "images")
    if not images:
        raise UserError(f"{flag} {root}: no images in images/; expected files ending in {', '.join(sorted(SUFFIXES))}")
    keys = [path.relative_to(root / "images") for path in images]
    labels = [root / "labels" / key.with_suffix(".png") for key in keys]
    known, pairs, bad = set(labels), [], []
    for pair in zip(images, labels, keys, strict=True):
        if pair[1].is_file():
            pairs.append(pair)
        else:
            bad.append(f"{pair[0]}: an image without a label PNG of its name in labels/")
    bad += [f"{path}: a label without an image" for path in files_below(root / "labels") if path not in known]
    refuse(bad, skip, f"{flag} {root}")
    means = plain(len(names))
    return EvaluationSet(
        names,
        {},
        [str(key) for _, _, key in pairs],
        lambda index: read_pair(*pairs[index][:2], means, "classes.txt"),
        lambda index: read_label(pairs[index][1], means, "classes.txt"),
        background=names[0] == "background",
        used="images/, labels/, classes.txt",
        bad=tuple(bad),
    )


def class_names(path, where):
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        raise UserError(f"{where}: {path.name} cannot be read ({problem}); expected a class a line") from None
    counts = Counter(line.strip() for line in lines if line.strip())
    if not counts or max(counts.values()) > 1:
        twice = [name for name, count in counts.items() if count > 1]
        found = f"one twice ({', '.join(twice)})" if twice else "no class"
        raise UserError(f"{where}: {path.name} holds {found}; expected a class a line, each once")
    return tuple(counts)
