"""`fastzss demo`: the whole story."""

from fastzss.base.config import add_config, configured
from fastzss.demo.settings import DemoConfig


def add_demo(program):
    demo = program.add("demo", DemoConfig.__doc__, run_demo)
    add_config(demo, DemoConfig)


def run_demo(args):
    config = configured(DemoConfig, args)
    from fastzss.demo.story import demo

    return demo(config)
