"""Where a store came from: origin.json, beside its layers and no part of its identity."""

from pathlib import Path

from fastzss.base.files import read_json, write_json

ORIGIN = "origin.json"


def write_origin(store, weights, source):
    path = Path(store) / ORIGIN
    teachers = read_json(path).get("teachers", {}) if path.is_file() else {}
    write_json(path, {"weights": weights, "source": source} | ({"teachers": teachers} if teachers else {}))


def write_teacher(store, name, weights):
    """Where the weights of the teacher were whose views lie in the folder `name`."""
    path = Path(store) / ORIGIN
    origin = read_json(path) if path.is_file() else {}
    write_json(path, origin | {"teachers": origin.get("teachers", {}) | {name: weights}})


def teacher_origin(store, name):
    path = Path(store) / ORIGIN
    return read_json(path).get("teachers", {}).get(name, "hub") if path.is_file() else "hub"


def copy_origin(store, other):
    """Take it along into another store that has none."""
    if (Path(store) / ORIGIN).is_file() and not (Path(other) / ORIGIN).is_file():
        write_json(Path(other) / ORIGIN, read_json(Path(store) / ORIGIN))


def weights_origin(path):
    """Where the weights were when the store was made: "shipped", "random", "hub", or a file."""
    origin = Path(path) / ORIGIN
    return read_json(origin).get("weights", "hub") if origin.exists() else "hub"
