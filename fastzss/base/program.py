"""A program of several commands: each adds its flags, does one thing, and returns what there is to print."""

import os

from fastzss.base.config import Parser
from fastzss.base.console import RESUMED, say
from fastzss.base.errors import Incomplete


class Commands:
    """Commands of a program or of a family; each prints its result as lines, or with --json as one object."""

    def __init__(self, parser):
        self.parser = parser
        self.below = parser.add_subparsers(metavar="command", required=True)

    def add(self, name, description, work, interrupted=RESUMED, cache=None):
        """`interrupted`: what is said of a Ctrl-C; `cache`: what --cache means, where it is more than for all."""
        parser = self._under(name, description)
        common = "what is fetched from far away is kept there, instead of FASTZSS_CACHE or ~/.cache/fastzss"
        parser.add_argument("--cache", metavar="DIR", help=cache or common)
        parser.add_argument("--json", action="store_true", help="print the result as JSON")
        parser.set_defaults(work=work, interrupted=interrupted)
        return parser

    def family(self, name, description):
        return Commands(self._under(name, description))

    def _under(self, name, description):
        parser = self.below.add_parser(name, help=description.split(".")[0], description=description)
        self.parser.below.append(parser)
        return parser


class Program(Commands):
    def __init__(self, name, description, version):
        parser = Parser(prog=name, description=description)
        parser.add_argument("--version", action="version", version=f"{name} {version}")
        super().__init__(parser)

    def answer(self, argv):
        """Do what a command line asks for, and print the result."""
        args = self.parser.parse_args(argv)
        if args.cache:
            os.environ["FASTZSS_CACHE"] = args.cache
        try:
            result = args.work(args)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(args.interrupted) from None
        except Incomplete as problem:
            say(problem.result, args.json)
            raise
        if result is not None:  # of several processes one has something to say
            say(result, args.json)
