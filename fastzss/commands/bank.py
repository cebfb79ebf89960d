"""`fastzss bank ...`: the names that captions may mention, what is near what, and what patches are called."""

import logging
from pathlib import Path

from fastzss.base.errors import UserError

log = logging.getLogger("fastzss")

BUILD = """Make a bank of names. SOURCE: captions:STORE or captions:FILE (their nouns), words:FILE (a name a line, other
writings behind commas), classes:SET (of an evaluation set)."""


def add_bank(program):
    family = program.family("bank", "The concept bank: the names that captions may mention.")

    build = family.add("build", BUILD, run_build)
    build.add_argument("bank", type=Path, help="folder of the bank")
    build.add_argument("sources", nargs="+", metavar="SOURCE")
    build.add_argument("--least", type=int, help="captions that must mention a name (default: 3, or 1 in 20,000)")
    build.add_argument("--stop", type=Path, metavar="FILE", help="names to leave out, one a line")
    build.add_argument("--run", type=Path, help="run whose text tower makes the vectors; by default letters make them")

    near = family.add("near", "The names nearest to words.", run_near)
    near.add_argument("bank", type=Path)
    near.add_argument("words", nargs="+", help="a name or any other words; several arguments are asked one by one")
    near.add_argument("--count", type=int, default=10, help="(default: %(default)s)")
    near.add_argument("--run", type=Path, help="run that compares; by default what made the bank's vectors")

    info = family.add("info", "What a bank holds, and what it covers.", run_info)
    info.add_argument("bank", type=Path, help="a bank, or a file of names")
    info.add_argument("--captions", metavar="X", help="a store, or a file with a caption a line: how much it covers")
    info.add_argument("--parser", default="bank", help="bank, or spacy:PIPELINE (default: %(default)s)")

    merge = family.add("merge", "List names that are nearly the same, or make those of a list one.", run_merge)
    merge.add_argument("bank", type=Path)
    merge.add_argument("--threshold", type=float, default=0.9, help="similarity from which on (default: %(default)s)")
    merge.add_argument("--report", type=Path, metavar="FILE", help="write the list, to be reviewed and applied")
    merge.add_argument("--apply", type=Path, metavar="FILE", help="lines of names that are one, the one to keep first")
    merge.add_argument("--out", type=Path, metavar="BANK", help="with --apply: folder of the new bank")

    memory = family.add("memory", "Remember patches of a store by the concepts of their captions.", run_memory)
    memory.add_argument("store", type=Path)
    memory.add_argument("--run", type=Path, required=True)
    memory.add_argument("--out", type=Path, help="folder of the memory (default: RUN/memory)")
    memory.add_argument("--bank", metavar="IDENTITY", help="beginning of an identity; by default the run's own bank")
    memory.add_argument(
        "--samples", type=int, default=100_000, help="patches to remember at most (default: %(default)s)"
    )


def run_build(args):
    from fastzss.bank.build import build_bank
    from fastzss.bank.disk import save_bank, with_vectors

    if args.least is not None and args.least < 1:
        raise UserError(f"--least {args.least}: expected at least one caption", code=2)
    bank = with_vectors(build_bank(args.sources, args.least, args.stop), args.run)
    new = save_bank(args.bank, bank)
    origins = sorted(set(bank.origin))
    return {
        "bank": str(args.bank),
        "identity": bank.identity,
        "names": len(bank),
        "origin": origins[:10],
        "vectors": bank.by["by"],
        "written": new,
    }


def run_near(args):
    from fastzss.bank.disk import comparable, load_index
    from fastzss.base.neighbours import Index
    from fastzss.captions.tokens import Tokenizer

    if args.count < 1:
        raise UserError(f"--count {args.count}: expected at least one", code=2)
    saved, index = load_index(args.bank)
    words = [Tokenizer().clean(word) for word in args.words]
    if not all(words):
        raise UserError("nothing to look for: an argument holds no word", code=2)
    bank, own = comparable(saved, args.run, args.bank)
    if bank is not saved:
        index = Index(bank.vectors)
    if own.by["by"] == "letters":
        log.warning(
            "%s: its vectors are of letters, which only compare spelling; --run RUN compares meanings", args.bank
        )
    score, row = index.search(own.vectors(words), args.count)
    return {
        word: {bank.names[r]: round(float(s), 4) for s, r in zip(scores, rows, strict=True) if r >= 0}
        for word, scores, rows in zip(args.words, score, row, strict=True)
    }


def run_info(args):
    from fastzss.bank.build import caption_texts
    from fastzss.bank.coverage import bank_info, coverage
    from fastzss.bank.disk import load_bank
    from fastzss.captions.mentions import clean_texts, find_mentions, useful_processes
    from fastzss.captions.parsers import choose_parser

    bank = load_bank(args.bank)
    result = bank_info(bank)
    if args.captions is not None:
        parser = choose_parser(args.parser)
        texts = caption_texts(args.captions)
        processes = useful_processes(len(texts))
        result |= coverage(bank, find_mentions(clean_texts(texts), bank.terms, parser, processes=processes))
    return result


def run_merge(args):
    from fastzss.bank.coverage import near_pairs
    from fastzss.bank.disk import load_index, merged_bank
    from fastzss.base.files import write_file

    if (args.apply is None) != (args.out is None):
        raise UserError("--apply FILE and --out BANK go together: the new bank has a folder of its own", code=2)
    if args.apply is not None:
        bank = merged_bank(args.bank, args.apply, args.out)
        return {"bank": str(args.out), "identity": bank.identity, "names": len(bank)}
    bank, index = load_index(args.bank)
    pairs = near_pairs(bank, index, args.threshold)
    if args.report is not None:
        lines = [f"{keep}, {merge}  # {similarity:.3f}\n" for similarity, keep, merge in pairs]
        write_file(args.report, "".join(lines).encode())
    return {"pairs": [{"keep": k, "merge": m, "similarity": round(s, 4)} for s, k, m in pairs], "by": bank.by["by"]}


def run_memory(args):
    from fastzss.masks.patch_memory import build_memory

    if args.samples < 1:
        raise UserError(f"--samples {args.samples}: expected at least one patch", code=2)
    bank = args.bank or own_bank(args.store, args.run)
    return build_memory(args.store, args.run, args.out or args.run / "memory", bank, args.samples)


def own_bank(store, run):
    """The identity of a run's own bank where the store has its mentions; else None, the only one of the store."""
    from fastzss.base.runs import Run
    from fastzss.store.mentions import list_concepts

    own = Run.open(run).config["store"]["bank"]
    return own if own in {bank["identity"] for bank in list_concepts(store)} else None
