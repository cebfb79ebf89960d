"""A step of the demo's training that trains the words of its captions, beside one that trains the whole table.

    python benchmarks/words.py                          2,400 scenes, 100 steps of each
    python benchmarks/words.py --images 80 --steps 2    in seconds: to see that it works

Both are one training: no time is shown unless their losses agree to 1e-6.  What the other words lose is in the steps.
"""

import statistics
import sys
import tempfile
from pathlib import Path
from unittest import mock

from measuring import begin, command, in_turn, options, seconds, tell

from fastzss.base.errors import UserError


def measure(args, folder):
    from fastzss.base.config import build
    from fastzss.base.ranks import Ranks
    from fastzss.extraction.flow import extract
    from fastzss.extraction.settings import ExtractConfig
    from fastzss.methods.simzss.task import SimZSSTask
    from fastzss.training.settings import RECIPES, TrainConfig
    from fastzss.training.step import Trainer

    extract(ExtractConfig(source=f"world:train,n={args.images}", store=folder / "store", device=args.device))
    given = {**RECIPES["demo"], "store": folder / "store", "out": folder / "run", "recipe": "demo"}
    config = build(TrainConfig, ("recipe demo", given | {"device": args.device}))
    own = Trainer(config, Ranks(args.device))
    with mock.patch.object(SimZSSTask, "keep_to_own_words", lambda self: {}):
        whole = Trainer(config, Ranks(args.device))

    def stepping(trainer):
        """What takes a step and gives (seconds, loss)."""
        trainer.begin(fresh=True)
        batches, losses = trainer.task.steps(0, args.steps + 1), []

        def step():
            losses.append(trainer.differentiate(next(batches))["loss"].item())
            trainer.learn(config.peak)

        return lambda: (seconds(step), losses[-1])

    found = in_turn([stepping(whole), stepping(own)], args.steps)
    for (_, exact), (_, loss) in zip(*found, strict=True):
        if not abs(loss - exact) <= 1e-6 * abs(exact):
            raise UserError(f"no times: the loss is {loss:.9g} with the own words, {exact:.9g} with the whole table")
    slow, fast = ([1e3 * taken for taken, _ in rounds] for rounds in found)
    (table,) = own.task.tables.values()
    words, of = len(table.words), len(table.table)
    whole_ms, own_ms = statistics.median(slow), statistics.median(fast)
    speedup = statistics.median(a / b for a, b in zip(slow, fast, strict=True))
    what = f"step of the demo that trains {words} of {of:,} words, beside one that trains all"
    return {
        "headlines": [[what, f"**{speedup:.2f}x** ({whole_ms:.1f} -> {own_ms:.1f} ms)"]],
        "machine": args.machine,
        "settings": {"images": args.images, "steps": args.steps, "batch": config.batch, "text": config.text},
        "words": words,
        "whole_ms": whole_ms,
        "own_ms": own_ms,
        "speedup": speedup,
    }


def show(result):
    print("the whole table {whole_ms:.1f} ms, {words} words of it {own_ms:.1f} ms: {speedup:.2f}x".format(**result))


@command
def main(argv):
    parser = options(__doc__, threads=1)
    parser.add_argument("--images", type=int, default=2400, help="of the world (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=100, help="of each (default: %(default)s)")
    args = begin(parser, argv)
    with tempfile.TemporaryDirectory() as folder:
        tell(measure(args, Path(folder)), args, show)
    return 0


if __name__ == "__main__":
    sys.exit(main())
