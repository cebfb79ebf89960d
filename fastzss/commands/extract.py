"""`fastzss-cache extract` and `fastzss-cache concepts`: what goes into a store."""

from pathlib import Path

from fastzss.base.config import add_config, configured
from fastzss.base.errors import UserError
from fastzss.extraction.settings import MATCHES, ExtractConfig


def add_extract(program):
    extract = program.add("extract", ExtractConfig.__doc__, run_extract)
    add_config(extract, ExtractConfig)
    extract.add_argument("--dry-run", action="store_true", help="say what would be written, and write nothing")

    concepts = program.add("concepts", "Find the names of another bank in a store's captions.", run_concepts)
    concepts.add_argument("store", type=Path)
    concepts.add_argument(
        "--bank", metavar="BANK", help="a bank, a file of names, or: captions; by default the bank of --run"
    )
    concepts.add_argument(
        "--parser", default="auto", help="auto, bank, or spacy:PIPELINE[,tokens=phrase] (default: %(default)s)"
    )
    concepts.add_argument(
        "--match",
        default="exact",
        choices=MATCHES,
        help="phrases that are no name: dropped, or taken for the nearest name (default: %(default)s)",
    )
    concepts.add_argument("--run", type=Path, help="with embedding: the run that compares; by default the bank's own")
    concepts.add_argument("--threshold", type=float, help="with embedding: similarity from which a name is near enough")
    concepts.add_argument(
        "--processes", type=int, help="of a spaCy parser; by default one, for 100,000 captions one a core"
    )


def run_extract(args):
    config = configured(ExtractConfig, args)
    from fastzss.extraction.flow import extract

    return extract(config, dry_run=args.dry_run)


def run_concepts(args):
    from fastzss.bank import Bank
    from fastzss.bank.disk import load_bank
    from fastzss.base.runs import Run
    from fastzss.captions.parsers import choose_parser
    from fastzss.extraction.concepts import add_concepts
    from fastzss.store.remote import copy_store, is_far, local

    if args.match == "exact" and (args.run, args.threshold) != (None, None):
        raise UserError("--run and --threshold need --match embedding", code=2)
    if args.bank is None and args.run is None:
        raise UserError(
            "concepts needs --bank: a bank, a file of names, or captions; or --match embedding --run RUN for its own",
            code=2,
        )
    if args.bank is None:
        bank = Bank.from_json(Run.open(args.run).bank)
    else:
        bank = None if args.bank == "captions" else load_bank(args.bank)
    parser, store = choose_parser(args.parser), local(args.store)
    result = add_concepts(store, bank, parser, args.match, args.run, args.threshold, args.processes)
    if is_far(args.store):
        copy_store(store, args.store)
    return result
