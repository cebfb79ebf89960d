"""What was counted of a set so far, so that an interrupted evaluation goes on: a file a rank.

FOLDER/SET-HASH-RANK-COUNT.npz    counts of the tallies, what was skipped, how many images
"""

import io
import json
import time

import numpy as np

from fastzss.base.files import write_file

EVERY = 20  # seconds between two notes


class Progress:
    """`key`: all that the counts depend on, as a short hash."""

    def __init__(self, folder, name, key, ranks):
        self.path = folder / f"{name}-{key}-{ranks.rank}-{ranks.count}.npz"
        self._noted = time.monotonic()

    def resume(self, tallies, bad):
        """Take up what was counted; returns how many images that were."""
        try:
            with np.load(self.path, allow_pickle=False) as arrays:
                found = {name: arrays[name] for name in arrays.files}
            for number, tally in enumerate(tallies):
                tally.state = {name.partition(".")[2]: a for name, a in found.items() if name.startswith(f"{number}.")}
            bad |= {int(index): sentence for index, sentence in json.loads(str(found["bad"])).items()}
            return int(found["done"])
        except (OSError, ValueError, KeyError, EOFError):  # nothing yet, or a file of other counts
            return 0

    def note(self, tallies, bad, done, now=False):
        if not now and time.monotonic() - self._noted < EVERY:
            return
        arrays = {f"{number}.{name}": a for number, tally in enumerate(tallies) for name, a in tally.state.items()}
        file = io.BytesIO()
        np.savez(file, done=done, bad=json.dumps(bad), **arrays)
        write_file(self.path, file.getvalue())
        self._noted = time.monotonic()
