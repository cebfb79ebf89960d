"""Train from a store:  accelerate launch fastzss/train.py --store STORE --out RUN [--recipe NAME]

The same as `fastzss train`, for launchers that want a file.
"""

import os
import sys

if __package__ in (None, ""):
    # Run by path: this folder heads sys.path, where its modules would shadow others; the package lies one above.
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [p for p in sys.path if os.path.abspath(p or os.getcwd()) != here] + [os.path.dirname(here)]

if __name__ == "__main__":
    from fastzss.cli import main

    sys.exit(main(["train", *sys.argv[1:]]))
