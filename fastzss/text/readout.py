"""Readout: names -> unit vectors, by a trained text tower.

A run reads a name by `concept`, the normalised sum of its words' unit token vectors inside a template (what the local
loss trains), by `eot`, the caption vector (what the global loss trains), or by `both`, the normalised sum of the two;
several templates are averaged.

Sizes: K names, D channels.
"""

import numpy as np
import torch
import torch.nn.functional as F

from fastzss.base.errors import UserError
from fastzss.base.ragged import offsets
from fastzss.captions.tokens import Tokenizer, tokens_of
from fastzss.text.packing import packed
from fastzss.text.tower import TextTower, TowerSize

READOUTS = ("both", "concept", "eot")
TEMPLATES = ("a {}", "the {}")  # as names stand in captions
AT_ONCE = 512  # names read at a time


class Readout:
    """A text tower, asked for names."""

    def __init__(self, tower, readout, templates=TEMPLATES):
        self.tower, self.readout, self.templates = tower.eval(), readout, templates
        self.tokenizer = Tokenizer()

    @torch.inference_mode()
    def class_vectors(self, names, readout=None, templates=None, raw=False):
        """[K, D] unit vectors of names, by `readout` and inside `templates` (by default the run's own).

        `raw`: what is averaged over templates, and over words, has its own length, as some protocols want it.
        """
        readout = readout or self.readout
        if readout not in READOUTS:
            raise UserError(f'unknown readout "{readout}"; expected {" or ".join(READOUTS)}', code=2)
        parts = [names[start : start + AT_ONCE] for start in range(0, len(names), AT_ONCE)]
        vectors = [
            torch.cat([self._in_template(part, template, readout, raw) for part in parts])
            for template in templates or self.templates
        ]
        return F.normalize(torch.stack(vectors).mean(0), dim=-1)

    def _in_template(self, names, template, readout, raw):
        """[K, D] vectors of the names, each standing in a template; unit ones unless `raw`."""
        head = self.tokenizer.clean(template.partition("{}")[0])
        rows, words = [], []
        for name in names:
            if not self.tokenizer.clean(name):
                raise UserError(f'the class "{name}" reads as nothing; expected a word', code=2)
            text = self.tokenizer.clean(template.replace("{}", name))
            begin = text.find(self.tokenizer.clean(name), len(head))
            tokens = self.tokenizer(text)
            rows.append(tokens.ids)
            words.append(tokens_of(tokens.spans, begin, begin + len(self.tokenizer.clean(name))))
        lengths = np.array([len(row) for row in rows])
        laid = packed(np.concatenate(rows), offsets(lengths)[:-1], lengths)
        start = laid.start.tolist()
        used = torch.tensor([begin + token for own, begin in zip(words, start, strict=True) for token in own])
        used = torch.cat([torch.from_numpy(laid.start + lengths - 1), used])
        device = next(self.tower.parameters()).device
        read, unit = (self.tower.vectors, torch.nn.Identity()) if raw else (self.tower.units, normalised)
        vectors = read(*(t.to(device) for t in (laid.ids, laid.segment, used)))
        caption, *of_words = vectors.split([len(names), *map(len, words)])
        if readout == "eot":
            return caption
        concept = unit(torch.stack([own.sum(0) for own in of_words]))
        return concept if readout == "concept" else unit(concept + caption)


def normalised(vectors):
    return F.normalize(vectors, dim=-1)


def load_tower(run, device="cpu"):
    """The text tower of a Run's chosen checkpoint."""
    config = run.config["text"]
    size = TowerSize(**{key: config[key] for key in ("width", "layers", "heads")})
    tower = TextTower(size, config["out"], config.get("activation", "gelu")).to(device)
    state = {name.removeprefix("text."): t.float() for name, t in run.load_model().items() if name.startswith("text.")}
    tower.load_state_dict(state)
    return tower
