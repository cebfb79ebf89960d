"""What a command line of `fastzss train` asks for."""

from fastzss.base.config import configured
from fastzss.base.program import Program
from fastzss.commands.train import add_train
from fastzss.training.settings import RECIPES, TrainConfig


def train_config(argv):
    """(TrainConfig, whether JSON is wanted, whether a dry run is)."""
    program = Program("fastzss", "", "0")
    add_train(program)
    args = program.parser.parse_args(["train", *argv])
    return configured(TrainConfig, args, RECIPES), args.json, args.dry_run
