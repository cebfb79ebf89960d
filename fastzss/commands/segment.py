"""`fastzss segment` and `fastzss name`: what a run sees in pictures."""

from dataclasses import replace
from pathlib import Path

from fastzss.base.errors import UserError
from fastzss.commands.flags import add_memory_flags, add_model_flags, model_of
from fastzss.commands.pictures import FPS, Pictures
from fastzss.masks.inference import BACKGROUNDS, PLAIN

STOPPED = "interrupted; the pictures that were made stay, and the same command makes all of them anew"
LISTED = 6  # classes of a picture in the table


def add_segment(program):
    segment = program.add("segment", "Segment images into classes named in plain words.", run_segment, STOPPED)
    segment.add_argument("run", type=Path)
    add_images(segment)
    segment.add_argument(
        "--classes", metavar='"A, B|C"', help="names of the classes, with commas between; | between names of one class"
    )
    segment.add_argument("--classes-file", type=Path, metavar="FILE", help="a file with a class a line")
    segment.add_argument(
        "--watch", action="append", default=[], metavar="WORD", help="save also where the image is similar to a word"
    )
    segment.add_argument(
        "--plain", action="store_true", help="the bare readout: none of the steps of masks/inference.py"
    )
    segment.add_argument(
        "--background",
        choices=BACKGROUNDS,
        help="what becomes of places that are none of the classes: none, they get the nearest one; threshold, they are "
        "like nothing; words, they are like other names of the run's bank; prob, they are nothing for sure (default: "
        "none for the built-in world; threshold for other runs, where their memory knows one)",
    )
    add_model_flags(segment)
    add_memory_flags(segment)

    name = program.add("name", "Say what is in pictures, without a list of classes.", run_name, STOPPED)
    name.add_argument("run", type=Path)
    add_images(name)
    name.add_argument("--bank", metavar="BANK", help="names to choose from; by default the run's own")
    name.add_argument("--regions", type=int, default=8, help="regions of an image at most (default: %(default)s)")
    add_model_flags(name)


def add_images(parser):
    parser.add_argument(
        "images", nargs="+", type=Path, metavar="IMAGE", help="an image, a folder of images, an animation, or a video"
    )
    parser.add_argument("--fps", type=float, default=FPS, help="frames a second of a video (default: %(default)g)")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder for the pictures (default: here)")


def run_segment(args):
    from fastzss.masks.classes import classes_of

    if (args.classes is None) == (args.classes_file is None):
        raise UserError('expected either --classes "dog, red car, sky" or --classes-file FILE', code=2)
    classes = classes_of(args.classes_file if args.classes is None else args.classes)
    watched = classes_of(args.watch) if args.watch else ()
    pictures = Pictures(args.images, args.out, args.fps)
    model = model_of(args)
    inference = PLAIN if args.plain else model.inference
    if args.background:
        inference = replace(inference, background=args.background)
    found = []
    for name, image, place in pictures:
        result = model.segment(image, classes, inference)
        overlay, mask = result.save(f"{place}.segmented.png")
        boxes = result.boxes()
        seen = [
            {"name": c, "index": result.names.index(c), **rounded(result.scores[c]), "box": boxes[c][0]}
            for c in largest_first(result.scores)
        ]
        one = {"image": name, "mask": str(mask), "overlay": str(overlay), "classes": seen}
        if watched:
            one["watch"] = watch(model, image, watched, pictures, place)
        found.append(one)
    if args.json:
        return pictures.whole(found)
    rows = [{"image": one["image"], "picture": one["overlay"], "seen": listed(one["classes"])} for one in found]
    return pictures.whole(rows)


def run_name(args):
    from fastzss.bank.disk import load_bank
    from fastzss.masks.naming import Namer

    if args.regions < 1:
        raise UserError(f"--regions {args.regions}: expected at least one", code=2)
    pictures = Pictures(args.images, args.out, args.fps)
    model = model_of(args)
    namer = Namer(model, load_bank(args.bank) if args.bank else model.bank)
    found = []
    for name, image, place in pictures:
        result = namer.name(image, args.regions)
        overlay, mask = result.save(f"{place}.named.png")
        regions = [
            {
                "name": region,
                "share": round(result.scores[region]["share"], 4),
                "similarity": round(result.scores[region]["confidence"], 4),
                "or": {other: round(score, 4) for other, score in result.others[region]},
            }
            for region in largest_first(result.scores)
        ]
        found.append({"image": name, "mask": str(mask), "overlay": str(overlay), "regions": regions})
    if args.json:
        return pictures.whole(found)
    rows = [
        {
            "image": one["image"],
            "region": region["name"],
            "share": percent(region["share"]),
            "similarity": f"{region['similarity']:.2f}",
            "or": ", ".join(f"{other} {score:.2f}" for other, score in region["or"].items()),
        }
        for one in found
        for region in one["regions"]
    ]
    return pictures.whole(rows)


def watch(model, image, words, pictures, place):
    """{word: the path of its picture}: where an image is similar to words."""
    from fastzss.base.files import write_file
    from fastzss.masks.drawing import heat
    from fastzss.masks.result import encoded

    saved = {}
    for word, similarity in zip(words, model.similarities(image, words), strict=True):
        letters = "".join(c if c.isalnum() else "-" for c in word.name)
        path = f"{pictures.place(f'{place.relative_to(pictures.out)}.watch-{letters}')}.png"
        write_file(path, encoded(heat(image, similarity), "PNG"))
        saved[word.name] = path
    return saved


def largest_first(scores):
    return sorted(scores, key=lambda name: -scores[name]["share"])


def rounded(scores):
    return {key: round(value, 4) for key, value in scores.items()}


def listed(seen):
    """The largest classes of a picture in words."""
    told = [f"{one['name']} {percent(one['share'])}" for one in seen[:LISTED]]
    return ", ".join(told + [f"{len(seen) - LISTED} more"] * (len(seen) > LISTED))


def percent(share):
    return f"{100 * share:.0f} %" if share >= 0.01 else f"{100 * share:.1f} %"
