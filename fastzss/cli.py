"""The doors: `fastzss` and `fastzss-cache`.  A command parses, calls one function, and prints what it returns."""

import sys
from pathlib import Path

from fastzss import __version__
from fastzss.commands.bank import add_bank_family
from fastzss.commands.looking import add_looking
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

    add_looking(program)
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


if __name__ == "__main__":
    sys.exit(main())
