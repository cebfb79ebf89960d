"""Write scenes of the built-in world to a folder, as any other dataset would lie there.

DIR/images/000000.jpg      the picture
DIR/images/000000.txt      its captions, one a line
DIR/labels/000000.png      palette PNG: class id of every pixel
DIR/classes.txt            class names, one a line, in the order of their ids
"""

import argparse
import colorsys
import sys
import textwrap
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from fastzss import world
from fastzss.base.errors import UserError
from fastzss.world.stuffs import TEXTURES
from fastzss.world.things import draw_thing

# The contact sheet, in pixels: every class in tiles of TILE, then scenes enlarged to SHOT beside half as large masks.
SHEET_SCENES, TILES, SHOTS, TILE, SHOT, GAP, LINE = 12, 8, 4, 150, 240, 24, 20
PAPER, INK, SOFT = (250, 249, 245), (40, 44, 50), (120, 124, 130)


def main(argv=None):
    parser = argparse.ArgumentParser(description="Write scenes of the built-in world: pictures, captions and labels.")
    parser.add_argument("dir", type=Path, metavar="DIR", help="folder to write, created when it is not there")
    parser.add_argument("--split", choices=world.SPLITS, default="train", help="which scenes (default: %(default)s)")
    parser.add_argument("--n", type=int, default=100, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="another seed is another world (default: %(default)s)")
    parser.add_argument(
        "--sheet", type=Path, metavar="FILE.png", help="also draw all classes and the first scenes on one sheet"
    )
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
    classes = len(world.names(args.split))
    print(f"{args.dir}: {args.n} {args.split} scenes, {classes} classes, seed {args.seed}")


def write_world(folder, split, n, seed=0, progress=False):
    """Write scenes 0 to n - 1 of a split."""
    from tqdm import tqdm

    images, labels = folder / "images", folder / "labels"
    images.mkdir(parents=True, exist_ok=True)
    labels.mkdir(exist_ok=True)
    names = world.names(split)
    (folder / "classes.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    colours = palette(len(names))
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
    """Every class with its name; under them scenes with their masks and what is said of them."""
    width = TILES * (TILE + GAP) + GAP
    shots_top = GAP + -(-len(world.NAMES) // TILES) * (TILE + LINE + GAP)
    cell, tall = (width - GAP) // SHOTS, SHOT + 4 * LINE + GAP
    sheet = Image.new("RGB", (width, shots_top + -(-n // SHOTS) * tall), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(16)
    random, noise = Random(seed), np.random.default_rng(seed)
    for index, name in enumerate(world.NAMES):
        x, y = GAP + index % TILES * (TILE + GAP), GAP + index // TILES * (TILE + LINE + GAP)
        draw_tile(sheet, x, y, name, random, noise)
        draw.text((x + TILE / 2, y + TILE + LINE / 2 + 2), name, INK, font, anchor="mm")
    colours = palette(len(world.NAMES))
    for index in range(n):
        scene = world.scene(split, index, seed)
        x, y = GAP + index % SHOTS * cell, shots_top + index // SHOTS * tall
        shot = ImageOps.contain(scene.image, (SHOT, SHOT), Image.Resampling.LANCZOS)
        mask = label_picture(scene.mask, colours).convert("RGB")
        mask = mask.resize((shot.width * 2 // 5, shot.height * 2 // 5), Image.Resampling.NEAREST)
        sheet.paste(shot, (x, y))
        sheet.paste(mask, (x + SHOT + 6, y))
        for line, text in enumerate(textwrap.wrap(scene.captions[0], 40)[:3]):
            draw.text((x, y + shot.height + 6 + line * LINE), text, SOFT, font)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


def draw_tile(sheet, x, y, name, random, noise):
    """A thing in the middle of a tile, a stuff all over it."""
    if name in world.STUFFS:
        sheet.paste(Image.fromarray(TEXTURES[name](random, noise, (TILE, TILE))), (x, y))
    else:
        sprite, _ = draw_thing(name, 0.9 * TILE, random)
        sheet.paste(sprite, (x + (TILE - sprite.width) // 2, y + (TILE - sprite.height) // 2), sprite)


if __name__ == "__main__":
    try:
        main()
    except UserError as problem:
        sys.exit(f"make_world: {problem}")
