"""Commands of the documents: found in the text, and run as they stand there, but for one table of substitutions.

An indented block is shell, a block fenced as python is Python; both are run.  A block fenced as text is not.  The
comment `<!-- not run: WHY -->` before a block excuses it.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

EXCUSES = ("needs a GPU", "needs two machines", "needs the network", "is what .ci/run does")
# What cannot be run here as it stands, or not in minutes; each is said in the order given.
SUBSTITUTIONS = {
    'pip install -e ".[cpu,test]" && python -m pytest': "true",  # .ci/run runs this line, to the letter
    'pip install -e ".[cpu]" && ': "",
    "fastzss demo": "fastzss demo --quick",
    "extract folder:photos": "extract --model tiny folder:photos",  # the default backbone needs the network
    "accelerate launch fastzss/train.py": "accelerate launch --cpu --num_processes 1 --num_machines 1 "
    "--mixed_precision no --dynamo_backend no fastzss/train.py",
    "--steps 500": "--steps 4",
    "--steps 20": "--steps 4",
    "steps: 500": "steps: 4",
    "eval_every: 250": "eval_every: 2",
    "python benchmarks/throughput.py": "python benchmarks/throughput.py --size tiny --batch 8 --steps 1",
    "python benchmarks/words.py": "python benchmarks/words.py --images 70 --steps 1",
}


class Block(NamedTuple):
    document: str
    line: int  # of its first line
    kind: str  # "shell" or "python"
    text: str
    excuse: str | None

    @property
    def command(self):
        """What is run instead of the text."""
        command = self.text
        for found, instead in SUBSTITUTIONS.items():
            command = command.replace(found, instead)
        return command


def blocks(path):
    """The Blocks of a document, from top to bottom."""
    found, lines, excuse, number = [], path.read_text(encoding="utf-8").splitlines(), None, 0
    while number < len(lines):
        line, first = lines[number], number + 1
        number += 1
        if match := re.fullmatch(r"<!-- not run: (.*) -->", line):
            excuse = match[1]
            continue
        if line.startswith("```"):
            end = lines.index("```", number)
            kind, text, number = line[3:], lines[number:end], end + 1
        elif line.startswith("    "):
            kind, text = "shell", [line[4:]]
            while number < len(lines) and lines[number].startswith("    "):
                text.append(lines[number][4:])
                number += 1
        else:
            excuse = excuse if not line else None
            continue
        if kind != "text":
            found.append(Block(path.name, first, kind, "\n".join(text), excuse))
        excuse = None
    return found


def run(block, folder):
    """Run a block in a folder; an AssertionError with its place and its words where it fails."""
    program = ["bash", "-euo", "pipefail", "-c"] if block.kind == "shell" else [sys.executable, "-c"]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*program, block.command], cwd=folder, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, (
        f"{block.document}:{block.line} ended with {done.returncode}:\n{block.command}\n{done.stdout}{done.stderr}"
    )


def prepare(folder):
    """A checkout as the reader has it, and a folder `photos` of images with captions, one of them dog.jpg."""
    folder.mkdir()
    for name in ("fastzss", "kernels", "tools", "benchmarks"):
        (folder / name).symlink_to(ROOT / name)
    write = [sys.executable, ROOT / "tools" / "make_world.py", folder / "world", "--n", "150"]
    subprocess.run(write, check=True, capture_output=True)
    (folder / "world" / "images").rename(folder / "photos")
    for suffix in (".jpg", ".txt"):
        (folder / "photos" / "000000").with_suffix(suffix).rename(folder / "photos" / f"dog{suffix}")
