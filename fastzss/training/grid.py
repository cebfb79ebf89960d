"""`--vary KEY=VALUE,VALUE ...`: settings and their values -> the combinations of them, and a folder's name for each."""

import re
from dataclasses import fields
from itertools import product

from fastzss.base.config import coerce, flag_of
from fastzss.base.errors import UserError, nearest
from fastzss.base.files import identity
from fastzss.training.settings import TrainConfig

EXAMPLE = "--vary local_weight=0.05,0.25 temperature=0.1,0.2"


def varied(words, free=()):
    """{setting: its values} of the words behind --vary; `free`: settings that do not change what is learned."""
    known = {field.name: field for field in fields(TrainConfig)} | {flag_of(f): f for f in fields(TrainConfig)}
    found = {}
    for word in words:
        key, equals, values = word.partition("=")
        field = known.get(key.strip().lstrip("-").replace("-", "_"))
        if field is None:
            others = sorted({f.name for f in known.values()} - set(free))
            raise UserError(f"--vary {word}: unknown setting {key!r}{nearest(key, others)}; as in {EXAMPLE}", code=2)
        if field.name in free:
            raise UserError(f"--vary {word}: {field.name} does not change what is learned; as in {EXAMPLE}", code=2)
        if not equals or not all(value.strip() for value in values.split(",")):
            raise UserError(f"--vary {word}: has no values; expected as in {EXAMPLE}", code=2)
        if field.name in found:
            raise UserError(f"--vary {word}: {field.name} is varied twice; give its values with commas", code=2)
        found[field.name] = [coerce(value.strip(), field, f"--vary {word}") for value in values.split(",")]
        if len(set(found[field.name])) < len(found[field.name]):
            raise UserError(f"--vary {word}: names a value twice", code=2)
    return found


def combinations(values):
    """[{setting: value}]: every value of one with every value of the others, the last setting changing fastest."""
    return [dict(zip(values, chosen, strict=True)) for chosen in product(*values.values())]


def folder_of(combination):
    """The name of a run's folder: local_weight=0.25,temperature=0.1"""
    name = ",".join(f"{key}={value}" for key, value in combination.items())
    safe = re.sub(r"[^A-Za-z0-9_.,=+-]", "_", name)
    return safe if safe == name else f"{safe[:200]}-{identity(name)[:6]}"  # of paths, which may look alike
