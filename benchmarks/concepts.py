"""Words to concepts: how fast captions become mentions, what FAISS finds, what a patch memory is worth.

    python benchmarks/concepts.py                      speed and recall; --only words|table|faiss
    python benchmarks/concepts.py --run runs/demo      also: mIoU on the built-in world with a patch memory and without,
                                                       and how much of an image `fastzss name` names rightly
    python benchmarks/concepts.py --json               the same as JSON, with machine, versions and load

Captions are made of the class names of the evaluation sets and of the dictionary's nouns, adjectives and verbs, all
distinct, about as long as COCO's.  Words are timed cold (a fresh tokenizer), the median of TRIALS; `per second` is of
the clock, `per CPU second` of what one core was given meanwhile: on a busy machine the two differ.  A row with a bar
that is missed says so, and the command ends with 1.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from ops import machine

from fastzss.console import guarded

TRIALS = 5
CAPTIONS, NAMES, COCO = 20_000, 5_000, 591_753
VECTORS, CHANNELS, QUERIES, NEAREST = 200_000, 128, 500, 10
SCENES, NAMED = 200, 60  # test scenes that are scored, and that are named


def vocabulary(random):
    """(names of a bank, other nouns, adjectives, verbs): the words that captions are made of."""
    from fastzss.bank.build import bank_of_set, set_names
    from fastzss.captions.words import tables

    t = tables()
    classes = [name for key in set_names() for name in bank_of_set(key).names]
    plain = [sorted(w for w in kind if w.isascii() and w.isalpha() and 3 <= len(w) <= 8) for kind in t[2:5]]
    nouns, verbs, adjectives = ([str(w) for w in random.permutation(kind)] for kind in plain)
    names = list(dict.fromkeys(classes + nouns))[:NAMES]
    return names, nouns[NAMES : NAMES + 3000], adjectives[:800], [f"{v.removesuffix('e')}ing" for v in verbs[:300]]


def make_captions(count, random, words):
    """Distinct captions of about ten words."""
    names, nouns, adjectives, verbs = words
    common = 1 / np.arange(1, 1 + len(names))  # some are much more frequent than others, as in life

    def choose(values, share=None):
        return iter(random.choice(len(values), 4 * count, p=None if share is None else share / share.sum()))

    draws = [(names, choose(names, common)), (nouns, choose(nouns)), (adjectives, choose(adjectives))]
    known, other, adjective = ((lambda v=v, at=at: v[next(at)]) for v, at in draws)
    coin = iter(random.random(20 * count))

    def phrase():
        noun = known() if next(coin) < 0.7 else other()
        noun += "s" if next(coin) < 0.2 and not noun.endswith("s") else ""
        colour = f"{adjective()} " if next(coin) < 0.4 else ""
        return f"{('a', 'the', 'two', 'some')[int(4 * next(coin))]} {colour}{noun}"

    made = {}
    while len(made) < count:
        verb, joint = verbs[int(len(verbs) * next(coin))], ("on", "near", "with", "next to")[int(4 * next(coin))]
        text = f"{phrase()} {verb} {joint} {phrase()}" + (f" and {phrase()}" if next(coin) < 0.3 else "")
        made[text.capitalize() + "."] = None
    return list(made)


def timed(work):
    """(wall seconds, CPU seconds of this process), each the median of TRIALS."""
    walls, cpus = [], []
    for _ in range(TRIALS):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return statistics.median(walls), statistics.median(cpus)


def words_rows():
    from open_clip.tokenizer import SimpleTokenizer

    from fastzss.captions import Tokenizer, choose_parser
    from fastzss.captions.words import spaced

    random = np.random.default_rng(0)
    words = vocabulary(random)
    texts = make_captions(CAPTIONS, random, words)
    terms = {spaced(name): row for row, name in enumerate(words[0])}
    parser, tokenizer = choose_parser("bank"), Tokenizer()
    clean = [tokenizer.clean(text) for text in texts]

    def ours():
        fresh = Tokenizer()
        return [fresh(fresh.clean(text)) for text in texts]

    def theirs():
        fresh = SimpleTokenizer(clean="lower")
        return [fresh.encode(text) for text in texts]

    assert [tokens.ids[1:-1] for tokens in ours()] == [ids[:75] for ids in theirs()], "other tokens than open_clip's"
    # made beforehand: what a process pays once
    startup = timed(Tokenizer)
    for name, work, once, bar in (
        ("clean and tokenise, with offsets", ours, startup, 10_000),
        ("the same by open_clip, without offsets", theirs, timed(lambda: SimpleTokenizer(clean="lower")), None),
        (f"parser bank, {len(terms):,} names", lambda: list(parser(clean, terms)), (0, 0), 10_000),
    ):
        wall, cpu = (took - start for took, start in zip(timed(work), once, strict=True))
        rate, cpu_rate = CAPTIONS / wall, CAPTIONS / cpu
        yield {
            "what": name,
            "captions": CAPTIONS,
            "per second": round(rate),
            "per CPU second": round(cpu_rate),
            **({} if bar is None else {"bar": f">= {bar:,} per CPU second", "met": cpu_rate >= bar}),
        }


def table_rows():
    """A COCO-sized captions layer -> its concepts layer, as `fastzss-cache concepts` does it."""
    from fastzss.bank import Bank
    from fastzss.bank.concepts import add_concepts
    from fastzss.captions import choose_parser
    from fastzss.store import read_concepts, write_captions

    random = np.random.default_rng(1)
    words = vocabulary(random)
    texts = make_captions(COCO, random, words)
    names = tuple(words[0])
    bank = Bank(names=names, aliases=((),) * len(names), origin=("made up",) * len(names))
    with tempfile.TemporaryDirectory() as store:
        write_captions(store, np.arange(COCO) // 5, texts, [[0] * 12] * COCO, map(str, range(-(-COCO // 5))), "none")
        wall, cpu = time.perf_counter(), time.process_time()
        said = add_concepts(store, bank, choose_parser("bank"))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        assert len(read_concepts(store).caption) == said["mentions"] > COCO
    yield {
        "what": "table of captions to mentions, one process",
        "captions": COCO,
        "mentions": said["mentions"],
        "seconds": round(wall, 1),
        "CPU seconds": round(cpu, 1),
        "bar": "< 120 CPU seconds",
        "met": cpu < 120,
    }


def faiss_rows():
    from fastzss import index

    random = np.random.default_rng(0)

    def unit(x):
        return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)

    def near(centres, count):
        return unit(
            centres[random.integers(len(centres), size=count)] + 0.6 * unit(random.normal(size=(count, CHANNELS)))
        )

    centres = unit(random.normal(size=(2000, CHANNELS)))
    queries = near(centres, QUERIES)
    for count, kind, bar in ((20_000, "exact", 1.0), (VECTORS, "ivf", 0.98)):
        vectors = near(centres, count)
        began = time.perf_counter()
        made = index.Index(vectors)
        build = time.perf_counter() - began
        truth = index.exact(vectors, queries, NEAREST)[1]
        found = made.search(queries, NEAREST)[1]
        search, plain = (
            timed(lambda m=made: m.search(queries, NEAREST)),
            timed(lambda v=vectors: index.exact(v, queries, NEAREST)),
        )
        got = float(index.recall(found, truth))
        yield {
            "what": f"FAISS {made.kind}, {count:,} x {CHANNELS}" if index.faiss() else f"torch, {count:,} x {CHANNELS}",
            "recall of 10": round(got, 4),
            "build s": round(build, 2),
            "search ms a query": round(1e3 * search[0] / QUERIES, 3),
            "exact in torch ms a query": round(1e3 * plain[0] / QUERIES, 3),
            "bar": f">= {bar:g}",
            "met": got >= bar and (made.kind.startswith(kind) or not index.faiss()),
        }


def world_rows(run):
    """What a patch memory and a list of names do on the built-in world.  The run's own store lies in it: RUN/store."""
    import fastzss
    from fastzss import world
    from fastzss.bank import Bank
    from fastzss.evaluate import evaluate
    from fastzss.memory import WEIGHT, build_memory, load_memory
    from fastzss.naming import Namer
    from fastzss.protocols import world_set
    from fastzss.runs import Run
    from fastzss.world.captions import SYNONYMS

    model, data = fastzss.load(run), world_set(f"world:test,n={SCENES}")
    text = {"text": model.class_vectors(data.names)}
    with tempfile.TemporaryDirectory() as folder:
        made = build_memory(run / "store", run, Path(folder) / "memory")
        for weight in (0.0, WEIGHT, 0.7, 1.0):
            memory = load_memory(Path(folder) / "memory", run, weight) if weight else None
            found = evaluate(model.vision, text, data, memory)["text"]
            scores = {f"mIoU {key}": round(found[key], 1) for key in ("all", *data.groups)}
            what = f"memory of {made['patches']:,} patches, weight {weight:g}" if weight else "text alone"
            yield {"what": what, "test scenes": SCENES, **scores}

    bank = Bank.from_json(Run.open(run).bank)
    namer, classes = Namer(model, bank), {name: k for k, name in enumerate(data.names)}
    meant = classes | {other: classes[name] for name, others in SYNONYMS.items() for other in others}
    for what, see in (
        (f"named without a class list, {len(bank)} names", namer.name),
        ("each place its nearest name of the bank", lambda image: model.segment(image, bank.names)),
        (f"segmented with the {len(world.NAMES)} classes given", lambda image: model.segment(image, data.names)),
    ):
        right = 0.0
        for scene in range(NAMED):
            image, truth = data.read(scene)
            result = see(image)
            right += float((np.array([meant.get(name, -1) for name in result.names])[result.mask] == truth).mean())
        yield {"what": what, "test scenes": NAMED, "pixels right %": round(100 * right / NAMED, 1)}


def unseen_rows(run):
    """A memory of a bank without the names of every third class: what happens to these classes, and to the others."""
    import shutil

    import fastzss
    from fastzss.bank import Bank
    from fastzss.bank.concepts import add_concepts
    from fastzss.captions import choose_parser
    from fastzss.evaluate import evaluate
    from fastzss.memory import WEIGHT, build_memory, load_memory
    from fastzss.protocols import world_set
    from fastzss.runs import Run
    from fastzss.world.captions import SYNONYMS

    model, data = fastzss.load(run), world_set(f"world:test,n={NAMED}")
    text = {"text": model.class_vectors(data.names)}
    held = list(range(0, len(data.names), 3))
    gone = {word for k in held for word in (data.names[k], *SYNONYMS[data.names[k]])}
    names = tuple(name for name in Bank.from_json(Run.open(run).bank).names if gone.isdisjoint(name.split()))
    with tempfile.TemporaryDirectory() as folder:
        store, memory = Path(folder) / "store", Path(folder) / "memory"
        shutil.copytree(run / "store", store, ignore=shutil.ignore_patterns("concepts"))
        add_concepts(store, Bank(names, ((),) * len(names), ("fewer",) * len(names)), choose_parser("bank"))
        build_memory(store, run, memory)
        for weight in (0.0, WEIGHT, 0.7):
            own = load_memory(memory, run, weight) if weight else None
            ious = np.array(evaluate(model.vision, text, data, own)["text"]["classes"], float)
            yield {
                "what": f"memory that lacks every third class, weight {weight:g}" if weight else "text alone, the same",
                "test scenes": NAMED,
                "mIoU lacking": round(np.nanmean(ious[held]), 1),
                "mIoU others": round(np.nanmean(np.delete(ious, held)), 1),
            }


def about():
    import spacy

    from fastzss.index import faiss

    return {**machine("cpu"), "spacy": spacy.__version__, "faiss": getattr(faiss(), "__version__", None)}


def work(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("words", "table", "faiss", "world", "unseen"))
    parser.add_argument("--run", type=Path, help="folder of a demo, with its store")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    if args.only in ("world", "unseen") and args.run is None:
        parser.error(f"--only {args.only} needs --run, the folder of a demo")
    where = about()
    parts = {"words": words_rows, "table": table_rows, "faiss": faiss_rows}
    if args.run is not None:
        parts |= {"world": lambda: world_rows(args.run), "unseen": lambda: unseen_rows(args.run)}
    rows = []
    for part, make in parts.items():
        if args.only in (None, part):
            for row in make():
                rows.append(row)
                if not args.json:
                    facts = "  ".join(
                        f"{k} {v:,}" if isinstance(v, int) else f"{k} {v}" for k, v in row.items() if k != "what"
                    )
                    print(f"{row['what']:<48}  {facts}", flush=True)
    where["load after"] = round(os.getloadavg()[0], 1)
    if args.json:
        print(json.dumps({"machine": where, "trials": TRIALS, "rows": rows}, indent=1))
    else:
        print(", ".join(f"{key} {value}" for key, value in where.items()))
    return 1 if any(row.get("met") is False for row in rows) else 0


def main(argv=None):
    return guarded("concepts", lambda: work(argv), "interrupted")


if __name__ == "__main__":
    sys.exit(main())
