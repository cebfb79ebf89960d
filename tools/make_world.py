"""Write scenes of the built-in world to a folder, as any other dataset would lie there.

DIR/images/000000.jpg      the picture
DIR/images/000000.txt      its captions, one a line
DIR/labels/000000.png      palette PNG: class id of every pixel
DIR/classes.txt            class names, one a line, in the order of their ids
"""

import argparse
import colorsys
import sys
from pathlib import Path

from PIL import Image

from fastzss import world
from fastzss.errors import UserError

SHEET_SCENES, SHEET_COLUMNS, SHEET_ZOOM, SHEET_GAP = 24, 6, 3, 6


def main(argv=None):
    parser = argparse.ArgumentParser(description="Write scenes of the built-in world: pictures, captions and labels.")
    parser.add_argument("dir", type=Path, metavar="DIR", help="folder to write, created when it is not there")
    parser.add_argument("--split", choices=world.SPLITS, default="train", help="which scenes (default: %(default)s)")
    parser.add_argument("--n", type=int, default=100, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="another seed is another world (default: %(default)s)")
    parser.add_argument("--sheet", type=Path, metavar="FILE.png", help="also draw the first scenes on one sheet")
    args = parser.parse_args(argv)
    if args.n < 1:
        parser.error(f"--n must be at least 1, got {args.n}")
    try:
        write_world(args.dir, args.split, args.n, args.seed, sys.stderr.isatty())
        if args.sheet:
            write_sheet(args.sheet, args.split, min(args.n, SHEET_SCENES), args.seed)
    except OSError as problem:
        raise UserError(
            f"cannot write {problem.filename or args.dir}: {problem.strerror or problem}; "
            f"give a folder that can be written and has room for {args.n} scenes (about 25 kB each)"
        ) from problem
    print(f"{args.dir}: {args.n} {args.split} scenes, {len(world.NAMES)} classes, seed {args.seed}")


def write_world(folder, split, n, seed=0, progress=False):
    """Write scenes 0 to n - 1 of a split."""
    from tqdm import tqdm

    images, labels = folder / "images", folder / "labels"
    images.mkdir(parents=True, exist_ok=True)
    labels.mkdir(exist_ok=True)
    (folder / "classes.txt").write_text("\n".join(world.NAMES) + "\n", encoding="utf-8")
    colours = palette(len(world.NAMES))
    for index in tqdm(range(n), unit="scene", disable=not progress):
        scene, name = world.scene(split, index, seed), f"{index:06d}"
        scene.image.save(images / f"{name}.jpg", quality=95)
        (images / f"{name}.txt").write_text("\n".join(scene.captions) + "\n", encoding="utf-8")
        label_picture(scene.mask, colours).save(labels / f"{name}.png")


def palette(n):
    """n colours that differ: hues a golden section apart, in two strengths."""
    colours = (colorsys.hsv_to_rgb(0.618034 * k % 1, (0.75, 0.5)[k % 2], (0.95, 0.75)[k // 2 % 2]) for k in range(n))
    return [round(255 * channel) for colour in colours for channel in colour]


def label_picture(mask, colours):
    picture = Image.fromarray(mask).convert("L")
    picture.putpalette(colours)
    return picture


def write_sheet(path, split, n, seed=0):
    """Scenes side by side, each over its mask."""
    size, colours = world.SIZE * SHEET_ZOOM, palette(len(world.NAMES))
    columns = min(n, SHEET_COLUMNS)
    cell, tall = size + SHEET_GAP, size + size // 2 + 2 * SHEET_GAP
    sheet = Image.new("RGB", (columns * cell + SHEET_GAP, -(-n // columns) * tall + SHEET_GAP), "white")
    for index in range(n):
        scene = world.scene(split, index, seed)
        x, y = SHEET_GAP + index % columns * cell, SHEET_GAP + index // columns * tall
        sheet.paste(scene.image.resize((size, size), Image.Resampling.LANCZOS), (x, y))
        mask = (
            label_picture(scene.mask, colours).convert("RGB").resize((size // 2, size // 2), Image.Resampling.NEAREST)
        )
        sheet.paste(mask, (x + size // 4, y + size + SHEET_GAP // 2))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


if __name__ == "__main__":
    try:
        main()
    except UserError as problem:
        sys.exit(f"make_world: {problem}")
