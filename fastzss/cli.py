"""The doors `fastzss` and `fastzss-cache`: every command is registered here, by the file that has it."""

import sys

from fastzss import __version__
from fastzss.base.console import guarded
from fastzss.base.program import Program
from fastzss.commands.bank import add_bank
from fastzss.commands.demo import add_demo
from fastzss.commands.evaluate import add_evaluate
from fastzss.commands.export import add_export
from fastzss.commands.extract import add_extract
from fastzss.commands.segment import add_segment
from fastzss.commands.serve import add_serve
from fastzss.commands.store import add_store
from fastzss.commands.sweep import add_sweep
from fastzss.commands.train import add_train

PROGRAMS = {
    "fastzss": (
        "Teach a text encoder to point: open-vocabulary segmentation from cached features.",
        (add_demo, add_train, add_sweep, add_evaluate, add_segment, add_serve, add_export, add_bank),
    ),
    "fastzss-cache": ("Make and inspect feature stores.", (add_extract, add_store)),
}


def main(argv=None):
    return guarded("fastzss", lambda: program("fastzss").answer(argv))


def cache_main(argv=None):
    return guarded("fastzss-cache", lambda: program("fastzss-cache").answer(argv))


def program(name):
    description, commands = PROGRAMS[name]
    made = Program(name, description, __version__)
    for add in commands:
        add(made)
    return made


if __name__ == "__main__":
    sys.exit(main())
