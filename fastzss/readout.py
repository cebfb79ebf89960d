"""Readout: names -> unit vectors, by a trained text tower, or by their letters before there is one.

A run reads a name by `concept`, the normalised sum of its words' unit token vectors inside a template (what the local
loss trains), by `eot`, the caption vector (what the global loss trains), or by `both`, the normalised sum of the two;
several templates are averaged.  Letters: hashed trigrams and words, the last word counted twice, so that "kitchen
table" is nearer to "table" than to "kitchen".

Sizes: K names, D channels.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
import xxhash

from fastzss.batch import Texts, collate, offsets
from fastzss.captions import Tokenizer
from fastzss.captions.tokens import tokens_of
from fastzss.errors import UserError
from fastzss.runs import Run
from fastzss.store.files import hash_file
from fastzss.text import TextTower, TowerSize

READOUTS = ("both", "concept", "eot")
TEMPLATES = ("a {}", "the {}")  # as names stand in captions
AT_ONCE = 512  # names read at a time
LETTERS = 1024  # channels of a lexical vector


class Readout:
    """A text tower, asked for names."""

    def __init__(self, tower, readout, templates=TEMPLATES):
        self.tower, self.readout, self.templates = tower.eval(), readout, templates
        self.tokenizer = Tokenizer()

    @torch.inference_mode()
    def class_vectors(self, names, readout=None):
        """[K, D] unit vectors of names, by `readout` (by default the run's own)."""
        readout = readout or self.readout
        if readout not in READOUTS:
            raise UserError(f'unknown readout "{readout}"; expected {" or ".join(READOUTS)}', code=2)
        parts = [names[start : start + AT_ONCE] for start in range(0, len(names), AT_ONCE)]
        vectors = [
            torch.cat([self._in_template(part, template, readout) for part in parts]) for template in self.templates
        ]
        return F.normalize(torch.stack(vectors).mean(0), dim=-1)

    def _in_template(self, names, template, readout):
        """[K, D] unit vectors of the names, each standing in a template."""
        head = self.tokenizer.clean(template.partition("{}")[0])
        rows, words = [], []
        for name in names:
            text = self.tokenizer.clean(template.format(name))
            begin = text.find(self.tokenizer.clean(name), len(head))
            tokens = self.tokenizer(text)
            rows.append(tokens.ids)
            words.append(tokens_of(tokens.spans, begin, begin + len(self.tokenizer.clean(name))))
        lengths = [len(row) for row in rows]
        none = np.empty(0, np.int64)
        texts = Texts.of(
            np.concatenate(rows), offsets(lengths), np.arange(len(rows)), none, none, none, np.zeros(1, int)
        )
        device = next(self.tower.parameters()).device
        batch = collate(texts, np.arange(len(rows))).to(device)
        start = (batch.eot.cpu().numpy() + 1 - lengths).tolist()
        used = torch.tensor([begin + token for own, begin in zip(words, start, strict=True) for token in own])
        units = self.tower.units(batch.ids, batch.segment, torch.cat([batch.eot, used.to(device)]))
        caption, *of_words = units.split([len(names), *map(len, words)])
        if readout == "eot":
            return caption
        concept = F.normalize(torch.stack([own.sum(0) for own in of_words]), dim=-1)
        return concept if readout == "concept" else F.normalize(concept + caption, dim=-1)


def load_tower(run, device="cpu"):
    """The text tower of a Run's newest checkpoint."""
    config = run.config["text"]
    tower = TextTower(TowerSize(**{key: config[key] for key in ("width", "layers", "heads")}), config["out"]).to(device)
    state = {name.removeprefix("text."): t.float() for name, t in run.load_model().items() if name.startswith("text.")}
    tower.load_state_dict(state)
    return tower


@dataclass(frozen=True)
class Embedder:
    """What turns names into vectors, and what a bank or a memory remembers of it."""

    by: dict  # {"by": "letters"} or {"by": "run", "run": its folder, "checkpoint": hash of its newest one}
    vectors: object  # list of K names -> float32 [K, D]


def embedder(run=None, device="cpu"):
    """By a run's text tower; without one by letters."""
    if run is None:
        return Embedder({"by": "letters"}, letters)
    own = Run.open(run)
    readout = Readout(load_tower(own, device), own.config["readout"])
    return Embedder(run_record(own), lambda names: readout.class_vectors(names).float().cpu().numpy())


def run_record(run):
    """What tells the vectors of a run from those of another, or of the same one trained on."""
    return {"by": "run", "run": str(run.path.resolve()), "checkpoint": hash_file(run.latest / "model.safetensors")}


def same_vectors(by, other):
    """Whether two records are of one space of vectors; a run may have moved."""
    return by["by"] == other["by"] and by.get("checkpoint") == other.get("checkpoint")


def letters(names):
    """float32 [K, LETTERS]: unit vectors that are near for names that are spelt alike."""
    vectors = np.zeros((len(names), LETTERS), np.float32)
    for vector, name in zip(vectors, names, strict=True):
        words = name.split() or [name]
        for word, weight in zip(words, (*[1.0] * (len(words) - 1), 2.0), strict=True):
            padded = f"^{word}$"
            pieces = [padded, *(padded[i : i + 3] for i in range(len(padded) - 2))]
            for piece in pieces:
                digest = xxhash.xxh3_64_intdigest(piece.encode())
                vector[digest % LETTERS] += (weight if digest >> 63 else -weight) / len(pieces) ** 0.5
        vector /= max(np.linalg.norm(vector), 1e-12)
    return vectors
