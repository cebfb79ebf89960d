"""`fastzss serve`: a run in the browser."""

from fastzss.base.config import add_config, configured
from fastzss.pages.serve.settings import ServeConfig


def add_serve(program):
    serve = program.add("serve", ServeConfig.__doc__, run_serve, "stopped")
    add_config(serve, ServeConfig)


def run_serve(args):
    config = configured(ServeConfig, args)
    from fastzss.base.console import say
    from fastzss.pages.serve.server import serve

    def ready(what):
        say(what, args.json)
        if not args.json:
            print("Ctrl-C stops it", flush=True)

    serve(config, ready)
