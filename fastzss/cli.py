"""The doors: `fastzss` and `fastzss-cache`.  A command parses, calls one function, and prints what it returns."""

import sys
from collections import Counter
from pathlib import Path

from fastzss import __version__
from fastzss.config import Parser, add_config, configured
from fastzss.console import guarded, say
from fastzss.errors import UserError
from fastzss.settings import DemoConfig, ExtractConfig


def cache_main(argv=None):
    return guarded("fastzss-cache", lambda: answer(cache_commands(), argv))


def main(argv=None):
    return guarded("fastzss", lambda: answer(commands(), argv))


def answer(program, argv):
    args = program.parser.parse_args(argv)
    if (result := args.work(args)) is not None:  # of several processes one has something to say
        say(result, args.json)


def cache_commands():
    program = Program("fastzss-cache", "Make and inspect feature stores.")

    extract = program.add("extract", ExtractConfig.__doc__, run_extract)
    add_config(extract, ExtractConfig)
    extract.add_argument("--dry-run", action="store_true", help="say what would be written, and write nothing")

    concepts = program.add("concepts", "Find the names of another bank in a store's captions.", run_concepts)
    concepts.add_argument("store", type=Path)
    concepts.add_argument("--bank", required=True, metavar="FILE", help="file with a name a line, or: captions")
    concepts.add_argument("--parser", default="auto", help="auto, bank, or spacy:PIPELINE (default: %(default)s)")

    info = program.add("info", "Say what a store holds, and how far it is.", run_info)
    info.add_argument("store", type=Path)

    verify = program.add("verify", "Look for damage in a store; exit code 1 where there is some.", run_verify)
    verify.add_argument("store", type=Path)
    verify.add_argument("--level", type=int, default=2, choices=(0, 1, 2, 3), help="0: records and sizes, 1: indices, "
                        "2: hashes of all files, 3: checksums of all images (default: %(default)s)")  # fmt: skip
    repair = "drop what is broken; the same extract command then writes exactly that again"
    verify.add_argument("--repair", action="store_true", help=repair)

    convert = program.add("convert", "Write a store in another form: the same features, byte for byte.", run_convert)
    convert.add_argument("store", type=Path)
    convert.add_argument("out", type=Path, metavar="OUT", help="folder of the new store")
    convert.add_argument("--format", metavar="X", help="zarr or webdataset; by default that of the store")
    convert.add_argument("--codec", metavar="X", help="none, or zstd: smaller, for keeping (default: none)")

    merge = program.add("merge", "Join stores that hold parts of one plan, without rewriting them.", run_merge)
    merge.add_argument("parts", nargs="+", type=Path, metavar="PART")
    merge.add_argument("out", type=Path, metavar="OUT", help="folder of the joined store")
    return program


def commands():
    program = Program("fastzss", "Teach a text encoder to point: open-vocabulary segmentation from cached features.")

    demo = program.add("demo", DemoConfig.__doc__, run_demo)
    add_config(demo, DemoConfig)

    evaluate = program.add("evaluate", "Score a run on a set of images with true masks (mIoU).", run_evaluate)
    evaluate.add_argument("run", type=Path)
    evaluate.add_argument("--protocol", default="world", help="world or folder (default: %(default)s)")
    evaluate.add_argument(
        "--data", metavar="X", help="for world: world:test,n=200; for folder: DIR with images/, labels/, classes.txt"
    )
    evaluate.add_argument("--readout", help="concept or eot; by default what the run was trained for")
    add_model_flags(evaluate)

    segment = program.add("segment", "Segment images into classes named in plain words.", run_segment)
    segment.add_argument("run", type=Path)
    segment.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    segment.add_argument("--classes", required=True, metavar='"A, B"', help="names of the classes, with commas between")
    segment.add_argument("--out", type=Path, default=Path("."), help="folder for the pictures (default: here)")
    add_model_flags(segment)
    return program


def run_extract(args):
    config = configured(ExtractConfig, args)
    from fastzss.extract import extract

    return extract(config, dry_run=args.dry_run)


def run_concepts(args):
    from fastzss.bank import bank_from_file
    from fastzss.captions import choose_parser
    from fastzss.extract import add_concepts

    bank = None if args.bank == "captions" else bank_from_file(args.bank)
    return add_concepts(args.store, bank, choose_parser(args.parser))


def run_info(args):
    from fastzss.store import store_info

    return store_info(args.store)


def run_verify(args):
    from fastzss.store import repair, store_info, verify

    damages = verify(args.store, args.level)
    result = {"path": str(args.store), "level": args.level, "damages": [str(damage) for damage in damages]}
    if damages and args.repair:
        result["dropped"] = repair(args.store, damages)
    elif damages:
        say(result, args.json)
        raise UserError(
            f"{args.store}: {len(damages)} damages. `fastzss-cache verify {args.store} --level {args.level} --repair` "
            f"drops what is broken; the same extract command then writes it again."
        )
    else:
        result |= {key: store_info(args.store)[key] for key in ("finished", "shards", "shards_written", "bytes")}
    return result


def run_convert(args):
    from fastzss.store import convert

    return convert(args.store, args.out, args.format, args.codec)


def run_merge(args):
    from fastzss.store import merge

    return merge(args.parts, args.out)


def run_demo(args):
    config = configured(DemoConfig, args)
    from fastzss.demo import demo

    return demo(config)


def run_evaluate(args):
    from fastzss.errors import nearest
    from fastzss.evaluate import evaluate
    from fastzss.protocols import PROTOCOLS
    from fastzss.segment import load

    if args.protocol not in PROTOCOLS:
        raise UserError(
            f'unknown protocol "{args.protocol}"{nearest(args.protocol, PROTOCOLS)}; expected {", ".join(PROTOCOLS)}',
            code=2,
        )
    data = PROTOCOLS[args.protocol](args.data)
    model = load(args.run, args.device, args.weights)
    scores = evaluate(model.vision, {"run": model.class_vectors(data.names, args.readout)}, data)["run"]
    readout = args.readout or model.readout
    return {
        "protocol": args.protocol,
        "images": len(data),
        "readout": readout,
        "templates": list(model.templates),
        **scores,
        "classes": dict(zip(data.names, scores["classes"], strict=True)),
    }


def run_segment(args):
    from fastzss.segment import check_classes, load
    from fastzss.store.files import make_folder, writing

    names = check_classes(args.classes)
    missing = [path for path in args.images if not path.is_file()]
    if missing:
        raise UserError(f"{missing[0]}: no such image; expected an image file")
    make_folder(args.out)
    model = load(args.run, args.device, args.weights)
    found, pictures = {}, Counter()
    for path in args.images:
        result = model.segment(path, names)
        pictures[path.stem] += 1  # images of one name from several folders are numbered
        number = f"-{pictures[path.stem]}" if pictures[path.stem] > 1 else ""
        out = args.out / f"{path.stem}{number}.segmented.png"
        with writing(args.out):
            result.save(out)
        found[str(path)] = {"picture": str(out), **{n: round(s["share"], 4) for n, s in result.scores.items()}}
    return found


def add_model_flags(parser):
    parser.add_argument("--device", help="cpu, cuda, ...; by default cuda where there is one")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="the backbone's weights, where they have moved")


class Program:
    """A program with subcommands; each prints its result as lines, or with --json as one object."""

    def __init__(self, name, description):
        self.parser = Parser(prog=name, description=description)
        self.parser.add_argument("--version", action="version", version=f"{name} {__version__}")
        self.commands = self.parser.add_subparsers(metavar="command", required=True)

    def add(self, name, description, work):
        parser = self.commands.add_parser(name, help=description.split(".")[0], description=description)
        parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
        parser.set_defaults(work=work)
        self.parser.below.append(parser)
        return parser


if __name__ == "__main__":
    sys.exit(main())
