"""`fastzss sweep`: runs of several settings, and a table of them."""

from argparse import Namespace
from pathlib import Path

from fastzss.base.config import add_config, configured
from fastzss.base.errors import UserError
from fastzss.training.settings import RECIPES, TrainConfig


def add_sweep(program):
    sweep = program.add(
        "sweep",
        "Train with every combination of some settings, and compare the runs: by masks that no training saw, or else "
        "by held-out captions.  Run the same command again to go on.",
        run_sweep,
    )
    sweep.add_argument("store", help="feature store written by `fastzss-cache extract`")
    sweep.add_argument("--vary", nargs="+", action="extend", required=True, metavar="KEY=X,X", help="settings, each "
                       "with its values: --vary local_weight=0.05,0.25,1 temperature=0.1,0.2")  # fmt: skip
    sweep.add_argument("--processes", type=int, default=1, help="runs at a time (default: %(default)s)")
    sweep.add_argument("--dry-run", action="store_true", help="list the runs and how far they are; write nothing")
    add_config(sweep, TrainConfig, without=("store",))


def run_sweep(args):
    from fastzss.training.grid import combinations, varied
    from fastzss.training.sweep import FREE, Trial, sweep

    if args.processes < 1:
        raise UserError(f"--processes must be positive, got {args.processes}", code=2)
    values = varied(args.vary, FREE)
    if twice := [key for key in values if hasattr(args, key)]:
        raise UserError(f"--{twice[0].replace('_', '-')} is given, and --vary varies it; leave one of them out", code=2)
    if not hasattr(args, "out"):
        raise UserError("missing: --out, the folder of the runs and of their table", code=2)
    given = {"memory": "none", **vars(args)}  # which is no part of the comparison
    chosen = combinations(values)
    configs = [configured(TrainConfig, Namespace(**given | one), RECIPES) for one in chosen]
    trials = [Trial.of(one, config) for one, config in zip(chosen, configs, strict=True)]
    return sweep(trials, Path(args.out), args.processes, args.dry_run)
