"""Settings: one frozen dataclass is the flags, the help, the check, the YAML file and the record of a run.

    dataclass fields  <->  --flags  <->  config.yaml  <->  JSON

A value may come from a recipe, then a file, then flags: the later wins.  Keys nobody knows are refused by name.
"""

import argparse
import dataclasses
import math
import types
import typing
from pathlib import Path

import yaml

from fastzss.base.errors import UserError, nearest


def option(text, default=dataclasses.MISSING, choices=None, positional=False, flag=None, several=False):
    """A config field that is also a command-line flag, or an argument without one (`positional`).

    `flag`: its name for users, where Python does not allow that of a field.
    `several`: may be given several times; then the value is a tuple of strings.
    """
    metadata = {"help": text, "choices": choices, "positional": positional, "flag": flag, "several": several}
    return dataclasses.field(default=default, metadata=metadata)


def flag_of(field):
    return field.metadata["flag"] or field.name.replace("_", "-")


class Parser(argparse.ArgumentParser):
    """argparse that wants flags spelt out, and names the nearest one where it knows none."""

    def __init__(self, **named):
        super().__init__(allow_abbrev=False, **named)
        self.below = []  # parsers of the commands

    def error(self, message):
        _, unknown, flag = message.partition("unrecognized arguments: ")
        if unknown:
            flags = [flag for parser in (self, *self.below) for flag in parser._option_string_actions]
            message += nearest(flag.split()[0].partition("=")[0], flags)
        super().error(message)


def add_flags(parser, config_class, without=()):
    """Add a flag for every field but some; flags that are not given stay out of the namespace."""
    for field in dataclasses.fields(config_class):
        if field.name in without:
            continue
        text = field.metadata["help"].replace("%", "%%")
        if field.default not in (dataclasses.MISSING, None):
            text += f" (default: {field.default})"
        if field.metadata["positional"]:
            parser.add_argument(field.name, help=text, nargs="?", default=argparse.SUPPRESS)
            continue
        kind = dict(action=argparse.BooleanOptionalAction) if _base(field.type) is bool else dict(metavar="X", type=str)
        if choices := field.metadata["choices"]:
            kind.update(choices=choices, metavar=None)
        if field.metadata["several"]:
            kind.update(action="append")
        parser.add_argument(f"--{flag_of(field)}", dest=field.name, default=argparse.SUPPRESS, help=text, **kind)


def build(config_class, *layers):
    """An instance from (where, {key: value}) layers, the later ones winning; values become their field's type."""
    fields = {f.name: f for f in dataclasses.fields(config_class)}
    flags = {f.metadata["flag"]: f.name for f in fields.values() if f.metadata["flag"]}
    values = {}
    for where, layer in layers:
        for key, value in layer.items():
            name = str(key).replace("-", "_")
            name = flags.get(name, name)
            if name not in fields:
                raise UserError(
                    f"{where}: unknown setting {key!r}{nearest(name, fields)}; known are {', '.join(fields)}", code=2
                )
            values[name] = coerce(value, fields[name], where)
    missing = [n for n, f in fields.items() if f.default is dataclasses.MISSING and n not in values]
    if missing:
        named = (n.upper() if fields[n].metadata["positional"] else f"--{n.replace('_', '-')}" for n in missing)
        raise UserError(f"missing: {', '.join(named)}; --help says what it is", code=2)
    try:
        return config_class(**values)
    except ValueError as problem:
        raise UserError(str(problem), code=2) from None


def coerce(value, field, where):
    """A YAML or command-line value as the field's type, or a UserError that names it."""
    if field.metadata["several"] and isinstance(value, list | tuple):
        if not value or not all(isinstance(each, str) and each for each in value):
            raise UserError(f"{where}: {field.name} is {value!r}; expected one or several names", code=2)
        if len(value) > 1:
            return tuple(value)
        value = value[0]
    base = _base(field.type)
    optional = base is not field.type
    if optional and (value is None or str(value).lower() == "none"):
        return None
    if value is None:
        raise UserError(f"{where}: {field.name} is empty; expected {base.__name__}", code=2)
    try:
        if isinstance(value, bool) != (base is bool) or isinstance(value, list | dict):
            raise ValueError
        result = _whole(value) if base is int else base(value)
        if base is float and not math.isfinite(result):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"{where}: {field.name} is {value!r}; expected {base.__name__}", code=2) from None
    choices = field.metadata["choices"]
    if choices and result not in choices:
        found = f"{field.name} is {value!r}{nearest(value, choices)}"
        raise UserError(f"{where}: {found}; expected one of {choices}", code=2)
    return result


def _whole(value):
    """5, "5", "1e3" -> int; 2.5 is a ValueError."""
    try:
        return int(value) if not isinstance(value, float) else _whole(str(value))
    except ValueError:
        number = float(value)
        if number != int(number):
            raise
        return int(number)


def refuse_zero(config, *names):
    """A ValueError for what must be positive and is not; None is left open."""
    for name in names:
        if getattr(config, name) is not None and getattr(config, name) <= 0:
            raise ValueError(f"--{name.replace('_', '-')} must be positive, got {getattr(config, name)}")


def refuse_negative(config, *names):
    for name in names:
        if getattr(config, name) is not None and getattr(config, name) < 0:
            raise ValueError(f"--{name.replace('_', '-')} must not be negative, got {getattr(config, name)}")


def plain(config):
    """A config as {key: value} that YAML and JSON can hold."""
    kinds = {Path: str, tuple: list}
    return {k: next((kinds[t](v) for t in kinds if isinstance(v, t)), v) for k, v in dataclasses.asdict(config).items()}


def read_yaml(path):
    try:
        loaded = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as problem:
        found = f"cannot be read ({problem.strerror})"
        raise UserError(f"{path}: {found}; expected a YAML file of settings", code=2) from None
    except (yaml.YAMLError, UnicodeDecodeError) as problem:
        raise UserError(f"{path}: not valid YAML: {problem}", code=2) from None
    loaded = {} if loaded is None else loaded  # an empty file
    if not isinstance(loaded, dict):
        raise UserError(f"{path}: holds a {type(loaded).__name__}; expected lines of `key: value`", code=2)
    return loaded


def _base(annotation):
    """int for `int | None`, else the annotation itself."""
    if isinstance(annotation, types.UnionType):
        return next(a for a in typing.get_args(annotation) if a is not types.NoneType)
    return annotation


def add_config(parser, config_class, without=()):
    """Flags for every field but some, and `--config`."""
    add_flags(parser, config_class, without)
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file of settings; flags win over it")


def configured(config_class, args, recipes=None):
    """The config that parsed arguments ask for: recipe, then file, then flags."""
    flags = {f.name: getattr(args, f.name) for f in dataclasses.fields(config_class) if hasattr(args, f.name)}
    file = read_yaml(args.config) if args.config else {}
    layers = [(str(args.config), file), ("command line", flags)]
    if recipes is not None:
        method = flags.get("method", file.get("method"))
        first = next((name for name, own in recipes.items() if own.get("method") == method), next(iter(recipes)))
        recipe = flags.get("recipe", file.get("recipe", first))
        if recipe not in list(recipes):
            file = str(recipe).endswith((".yaml", ".yml"))
            hint = "; a file of settings goes to --config" if file else nearest(recipe, recipes)
            raise UserError(f'unknown recipe "{recipe}"{hint}; expected {", ".join(recipes)}', code=2)
        layers.insert(0, (f"recipe {recipe}", recipes[recipe]))
    return build(config_class, *layers)
