"""The doors: `fastzss` and `fastzss-cache`.  A command parses, calls one function, and prints what it returns."""

from collections import Counter
from pathlib import Path

from fastzss import __version__
from fastzss.cli.bank import add_bank_family
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
    say(args.work(args), args.json)


def cache_commands():
    program = Program("fastzss-cache", "Make and inspect feature stores.")

    extract = program.add("extract", ExtractConfig.__doc__, run_extract)
    add_config(extract, ExtractConfig)
    extract.add_argument("--dry-run", action="store_true", help="say what would be written, and write nothing")

    concepts = program.add("concepts", "Find the names of another bank in a store's captions.", run_concepts)
    concepts.add_argument("store", type=Path)
    concepts.add_argument("--bank", required=True, metavar="BANK", help="a bank, a file of names, or: captions")
    concepts.add_argument(
        "--parser", default="auto", help="auto, bank, or spacy:PIPELINE[,tokens=phrase] (default: %(default)s)"
    )
    concepts.add_argument(
        "--match",
        default="exact",
        choices=("exact", "embedding"),
        help="phrases that are no name: dropped, or taken for the nearest name (default: %(default)s)",
    )
    concepts.add_argument("--run", type=Path, help="with embedding: the run that compares; by default the bank's own")
    concepts.add_argument("--threshold", type=float, help="with embedding: similarity from which a name is near enough")
    concepts.add_argument(
        "--processes", type=int, help="of a spaCy parser; by default one, for 100,000 captions one a core"
    )

    info = program.add("info", "Say what a store holds.", run_info)
    info.add_argument("store", type=Path)
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
    add_memory_flags(evaluate)

    segment = program.add("segment", "Segment images into classes named in plain words.", run_segment)
    segment.add_argument("run", type=Path)
    segment.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    segment.add_argument("--classes", required=True, metavar='"A, B"', help="names of the classes, with commas between")
    segment.add_argument("--out", type=Path, default=Path("."), help="folder for the pictures (default: here)")
    add_model_flags(segment)
    add_memory_flags(segment)

    name = program.add("name", "Say what is in pictures, without a list of classes.", run_name)
    name.add_argument("run", type=Path)
    name.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    name.add_argument("--bank", metavar="BANK", help="names to choose from; by default the run's own")
    name.add_argument("--regions", type=int, default=8, help="regions of an image at most (default: %(default)s)")
    name.add_argument("--out", type=Path, default=Path("."), help="folder for the pictures (default: here)")
    add_model_flags(name)

    add_bank_family(program)
    return program


def run_extract(args):
    config = configured(ExtractConfig, args)
    from fastzss.extract import extract

    return extract(config, dry_run=args.dry_run)


def run_concepts(args):
    from fastzss.bank.concepts import add_concepts
    from fastzss.bank.folder import load_bank
    from fastzss.captions import choose_parser

    if args.match == "exact" and (args.run, args.threshold) != (None, None):
        raise UserError("--run and --threshold need --match embedding", code=2)
    bank = None if args.bank == "captions" else load_bank(args.bank)
    parser = choose_parser(args.parser)
    return add_concepts(args.store, bank, parser, args.match, args.run, args.threshold, args.processes)


def run_info(args):
    from fastzss.store import store_info

    return store_info(args.store)


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
    memory = memory_of(args)
    model = load(args.run, args.device, args.weights)
    scores = evaluate(model.vision, {"run": model.class_vectors(data.names, args.readout)}, data, memory)["run"]
    readout = args.readout or model.readout
    return {
        "protocol": args.protocol,
        "images": len(data),
        "readout": readout,
        "templates": list(model.templates),
        **({} if memory is None else {"memory": str(args.memory), "memory_weight": args.memory_weight}),
        **scores,
        "classes": dict(zip(data.names, scores["classes"], strict=True)),
    }


def run_segment(args):
    from fastzss.segment import check_classes, load

    names = check_classes(args.classes)
    check_images(args)
    memory = memory_of(args)
    model = load(args.run, args.device, args.weights)
    return {
        str(path): {"picture": picture, **{name: round(seen["share"], 4) for name, seen in result.scores.items()}}
        for path, picture, result in pictures(args, lambda path: model.segment(path, names, memory), "segmented")
    }


def run_name(args):
    from fastzss.bank import Bank
    from fastzss.bank.folder import load_bank
    from fastzss.naming import Namer
    from fastzss.runs import Run
    from fastzss.segment import load

    if args.regions < 1:
        raise UserError(f"--regions {args.regions}: expected at least one", code=2)
    check_images(args)
    run = Run.open(args.run)
    namer = Namer(
        load(args.run, args.device, args.weights), load_bank(args.bank) if args.bank else Bank.from_json(run.bank)
    )
    found = {}
    for path, picture, result in pictures(args, lambda path: namer.name(path, args.regions), "named"):
        regions = {
            name: {
                "share": round(seen["share"], 4),
                "similarity": round(seen["confidence"], 4),
                "or": {other: round(score, 4) for other, score in result.others[name]},
            }
            for name, seen in sorted(result.scores.items(), key=lambda region: -region[1]["share"])
        }
        found[str(path)] = {"picture": picture, "regions": regions}
    return found


def check_images(args):
    from fastzss.store.files import make_folder

    missing = [path for path in args.images if not path.is_file()]
    if missing:
        raise UserError(f"{missing[0]}: no such image; expected an image file")
    make_folder(args.out)


def pictures(args, see, suffix):
    """(path, path of the picture that was written, result) for each image."""
    from fastzss.store.files import writing

    names = Counter()
    for path in args.images:
        result = see(path)
        names[path.stem] += 1  # images of one name from several folders are numbered
        number = f"-{names[path.stem]}" if names[path.stem] > 1 else ""
        out = args.out / f"{path.stem}{number}.{suffix}.png"
        with writing(args.out):
            result.save(out)
        yield path, str(out), result


def memory_of(args):
    from fastzss.memory import WEIGHT, load_memory

    if args.memory is None:
        if args.memory_weight is not None:
            raise UserError("--memory-weight needs --memory PATH", code=2)
        return None
    args.memory_weight = WEIGHT if args.memory_weight is None else args.memory_weight
    return load_memory(args.memory, args.run, args.memory_weight)


def add_memory_flags(parser):
    parser.add_argument("--memory", type=Path, metavar="PATH", help="what `fastzss bank memory` made of the run")
    parser.add_argument(
        "--memory-weight", type=float, metavar="W", help="0: the text alone, 1: the memory alone (default: 0.7)"
    )


def add_model_flags(parser):
    parser.add_argument("--device", help="cpu, cuda, ...; by default cuda where there is one")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="the backbone's weights, where they have moved")


class Commands:
    """Commands of a program or of a family; each prints its result as lines, or with --json as one object."""

    def __init__(self, parser):
        self.parser = parser
        self.below = parser.add_subparsers(metavar="command", required=True)

    def add(self, name, description, work):
        parser = self._under(name, description)
        parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
        parser.set_defaults(work=work)
        return parser

    def family(self, name, description):
        return Commands(self._under(name, description))

    def _under(self, name, description):
        parser = self.below.add_parser(name, help=description.split(".")[0], description=description)
        self.parser.below.append(parser)
        return parser


class Program(Commands):
    def __init__(self, name, description):
        parser = Parser(prog=name, description=description)
        parser.add_argument("--version", action="version", version=f"{name} {__version__}")
        super().__init__(parser)
