"""`--recipe auto`: the tower, batch, steps, rates and weight of a new run, from its data and its machine.

The rule was chosen on the built-in world, at 200, 2,000 and 20,000 images (benchmarks/README.md has what it is worth
there beside the best of a sweep); beyond, it leads towards the authors' values for COCO, and is not measured.  What the
user has set stays, and the rest goes with it.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from fastzss.base.machine import readable_bytes, total_bytes
from fastzss.base.ranks import all_least
from fastzss.base.runs import Run
from fastzss.methods.held_out import held_out
from fastzss.methods.simzss.loader import read_texts
from fastzss.store.reading.joined import open_store
from fastzss.text.tower import PRESETS, VOCABULARY

TOWERS = (("base", 400_000), ("small", 50_000), ("tiny", 0))  # and from how many captions on each is taken
SLOWER = 10  # times as many captions it takes without a GPU
RATES = {"tiny": 2e-3, "small": 5e-4, "base": 2.5e-4, "large": 1.5e-4, "huge": 1e-4}  # for a batch of BATCH[0]
FASTEST = 2e-3  # about the authors' rate for 16,384 pairs
PAIRS, A_NAME = 25_600, 512  # that are seen in all, at least, and for each name that captions mention
LOOKS = 1, 128  # how often an image is seen, at least and at most: that counts more
STEPS = 400  # as far as the batch allows
BATCH = 64, 16_384  # at least, where there are as many images, and at most
WEIGHTS = 0.05, 1.0  # of the local loss: the authors' for the many names of COCO, and that for few
FEW_NAMES = 50
ROOM = 0.25  # share of the memory for weights and optimiser, and as much for reading a batch
KEPT = 17 * 4  # bytes that a token keeps for the gradient, for each channel of each layer; measured


@dataclass(frozen=True)
class Facts:
    """What the rule looks at."""

    captions: int
    images: int  # that can be learned from
    names: int  # that captions mention
    tokens: float  # of a caption, on average
    device: str  # "cpu" or "cuda"
    memory: float  # bytes of the device for each process, taken or not
    processes: int = 1

    def __str__(self):
        there = f"{self.device} with {readable_bytes(self.memory)} of memory"
        there += f" for each of {self.processes} processes" if self.processes > 1 else ""
        return f"{self.captions:,} captions of {self.images:,} images, {self.names:,} names in them, {there}"


def choose(config, ranks):
    """(the config with nothing left open, sentences about it)."""
    facts, left_open = facts_of(config, ranks), config.left_open
    given = {key: value for key, value in vars(config).items() if key not in left_open}
    if config.from_run and "text" in left_open:  # no other tower can begin with its weights
        given["text"] = (Run.open(config.from_run).config.get("text") or {}).get("preset")
    found = {key: choice for key, choice in recipe(facts, given).items() if key in left_open}
    words = [f"{key.replace('_', ' ')} {value}" + f" ({why})" * bool(why) for key, (value, why) in found.items()]
    chosen = replace(config, **{key: value for key, (value, _) in found.items()})
    return chosen, [f"chosen for {facts}: {', '.join(words)}"]


def facts_of(config, ranks):
    store = open_store(config.store)
    _, texts = read_texts(store, config.bank)
    usable = store.valid().numpy()[texts.row] & ~held_out(len(store), config.hold_out)[texts.row]
    return Facts(
        captions=int(usable.sum()),
        images=len(np.unique(texts.row[usable])),
        names=len(np.unique(texts.name)),
        tokens=len(texts.ids) / len(texts),
        device=ranks.device.type,
        memory=all_least([total_bytes(ranks.device)], ranks.device)[0],
        processes=ranks.count,
    )


def recipe(facts, given=None):
    """{setting: (its value, why)}; `given`: settings that are fixed already, which are repeated as they are."""
    given, found = given or {}, {}

    def settle(key, value, why=""):
        found[key] = (given[key], "given") if given.get(key) is not None else (value, why)
        return found[key][0]

    text = settle("text", *tower(facts))
    captions = settle("captions", "one")
    samples = facts.captions if captions == "all" else facts.images
    pairs = min(max(PAIRS, A_NAME * facts.names, LOOKS[0] * samples), LOOKS[1] * samples)
    batch = settle("batch", *batch_for(facts, samples, pairs, text))
    steps = max(1, -(-pairs // batch))
    steps = settle("steps", steps, f"each image seen {steps * batch / max(1, samples):.3g} times")
    rate = min(FASTEST, RATES[text] * math.sqrt(batch / BATCH[0]))
    settle("lr", float(f"{rate:.2g}"), f"the tower {text} at this batch")
    settle("warmup", 0.1)
    weight = min(max(FEW_NAMES / max(1, facts.names), WEIGHTS[0]), WEIGHTS[1])
    if facts.names:
        settle("local_weight", float(f"{weight:.2g}"), f"{facts.names:,} names")
    else:
        settle("local_weight", 0.0, "no caption mentions a name")
    return found


def tower(facts):
    """(the largest size that the captions are enough for and that fits, why)."""
    slower = 1 if facts.device == "cuda" else SLOWER
    enough = [(name, least * slower) for name, least in TOWERS if facts.captions >= least * slower]
    fitting = [(name, least) for name, least in enough if 5 * 4 * parameters(name) <= ROOM * facts.memory]
    name, least = (fitting or enough[-1:])[0]
    if (name, least) != enough[0]:
        return name, "what the memory has room for"
    larger = [more * slower for other, more in TOWERS if more * slower > least]
    return name, f"fewer than {min(larger):,} captions" if larger else f"{least:,} captions or more"


def batch_for(facts, samples, pairs, text):
    """(a power of two, as far as there are samples and memory for it, why)."""
    least, most = BATCH
    wanted = 2 ** round(math.log2(max(1, pairs) / STEPS))
    batch, why = min(max(wanted, least), most), f"{pairs:,} pairs in about {STEPS} steps, at least {least} in one"
    size = PRESETS[text]
    each = KEPT * size.width * size.layers * facts.tokens / facts.processes
    while batch > least and batch * each > ROOM * facts.memory:
        batch, why = batch // 2, "what the memory has room for"
    if batch > samples:
        batch, why = samples, "all there are"
    return max(facts.processes, batch - batch % facts.processes), why


def parameters(text):
    """About how many a tower has."""
    size = PRESETS[text]
    return VOCABULARY * size.width + 12 * size.layers * size.width**2
