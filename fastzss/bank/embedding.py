"""What turns names into vectors: a run's text tower, or their letters before there is one."""

from dataclasses import dataclass

from fastzss.bank.letters import letters
from fastzss.base.files import hash_file
from fastzss.base.runs import Run
from fastzss.text.readout import Readout, load_tower


@dataclass(frozen=True)
class Embedder:
    """What turns names into vectors, and what a bank or a memory remembers of it."""

    by: dict  # {"by": "letters"} or {"by": "run", "run": its folder, "checkpoint": hash of the one that is used}
    vectors: object  # list of K names -> float32 [K, D]


def embedder(run=None, device="cpu", checkpoint=None):
    """By a run's text tower; without one by letters."""
    if run is None:
        return Embedder({"by": "letters"}, letters)
    own = Run.open(run, checkpoint)
    readout = Readout(load_tower(own, device), own.config["readout"])
    return Embedder(run_record(own), lambda names: readout.class_vectors(names).float().cpu().numpy())


def run_record(run):
    """What tells the vectors of a run from those of another, or of the same one trained on."""
    return {"by": "run", "run": str(run.path.resolve()), "checkpoint": hash_file(run.checkpoint / "model.safetensors")}


def same_vectors(by, other):
    """Whether two records are of one space of vectors; a run may have moved."""
    return by["by"] == other["by"] and by.get("checkpoint") == other.get("checkpoint")
