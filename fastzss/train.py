"""Train from a store:  accelerate launch fastzss/train.py --store STORE --out RUN [--recipe NAME]"""

import os
import sys

if __package__ in (None, ""):
    # Run by path: this folder heads sys.path, where its modules would shadow others; the package lies one above.
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [p for p in sys.path if os.path.abspath(p or os.getcwd()) != here] + [os.path.dirname(here)]


def work():
    asked = train_config()
    from fastzss.training import main  # late: --help is instant

    main(*asked)


if __name__ == "__main__":
    from fastzss.console import guarded
    from fastzss.settings import train_config

    sys.exit(guarded("train.py", work))
