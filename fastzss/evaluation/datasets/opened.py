"""A set by its name, and the sets that a data folder holds."""

from pathlib import Path

from fastzss.base.errors import UserError, nearest
from fastzss.evaluation.datasets import ade, cityscapes, coco, context, voc
from fastzss.evaluation.datasets.folder import PARTS, folder_set
from fastzss.evaluation.datasets.world import world_set

PUBLIC = {public.name: public for file in (voc, context, coco, cityscapes, ade) for public in file.SETS}
SETS = {"world": world_set, "folder": folder_set, **{name: public.open for name, public in PUBLIC.items()}}


def open_set(name, data, flag="--data", skip=False):
    """An EvaluationSet by its name; `data`: what the user gave as such."""
    return SETS[name](data, flag, skip)


def sets_meant(asked, data):
    """Names of sets: "voc20,ade20k", "all" public ones that are there, or None: what the data is."""
    if asked not in (None, "all"):
        names = [name.strip() for name in asked.split(",") if name.strip()]
        for name in names:
            if name not in SETS:
                raise UserError(
                    f'unknown set "{name}"{nearest(name, SETS)}; expected all, or {", ".join(SETS)}', code=2
                )
        if not names:
            raise UserError(f"--sets names none; expected all, or {', '.join(SETS)}", code=2)
        return list(dict.fromkeys(names))
    if asked is None and (data is None or str(data).startswith("world:")):
        return ["world"]
    root = Path(data or ".")
    if not root.is_dir():
        raise UserError(f"--data {root}: no such folder; expected one with images/, labels/ and classes.txt, or with "
                        f"public sets (`fastzss evaluate --check DIR` says where each belongs)")  # fmt: skip
    found = [name for name, public in PUBLIC.items() if public.pairs(root)[0]]
    if asked is None and not found:
        return ["folder"]
    if not found:
        raise UserError(f"--data {root}: holds none of {', '.join(PUBLIC)}; `fastzss evaluate --check {root}` says "
                        f"where each belongs")  # fmt: skip
    return found


def check(data):
    """Rows: of each public set what is there below a folder, and what is missing."""
    root = Path(data)
    if not root.is_dir():
        raise UserError(f"--check {root}: no such folder; expected the one that holds the public sets", code=2)
    rows = [public.check(root) for public in PUBLIC.values()]
    if all((root / part).exists() for part in PARTS):
        data = folder_set(root, "--check", skip=True)
        rows.append({
            "set": "folder",
            "state": "incomplete" if data.bad else "complete",
            "images": str(len(data)),
            "labels": data.used,
            "missing": "; ".join(data.bad) or "nothing",
        })  # fmt: skip
    return rows
