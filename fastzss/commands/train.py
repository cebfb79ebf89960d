"""`fastzss train`, which fastzss/train.py is the other door to."""

from dataclasses import replace

from fastzss.base.config import add_config, configured
from fastzss.training.settings import RECIPES, TrainConfig


def add_train(program):
    train = program.add("train", TrainConfig.__doc__, run_train)
    add_config(train, TrainConfig)
    train.add_argument("--dry-run", action="store_true", help="say what would be trained, and where it finds room")


def run_train(args):
    config = configured(TrainConfig, args, RECIPES)
    from fastzss.store.remote import is_far, local
    from fastzss.training.loop import main

    if is_far(config.store):
        config = replace(config, store=local(config.store))
    return main(config, args.dry_run)
