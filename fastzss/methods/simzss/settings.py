"""What can be set of SimZSS, and its recipes; light to import, so that `--help` is instant."""

from dataclasses import dataclass

from fastzss.base.config import option, refuse_negative, refuse_zero

OPEN = ("text", "batch", "steps", "captions", "lr", "warmup", "local_weight")  # what auto.py has a rule for

RECIPES = {
    # The authors' schedule for COCO captions.  Not here: AdamW's betas and epsilon, the first and the local scale, the
    # clamp, which are the same for all (training/step.py, objective.py).
    "simzss-coco": {
        "text": "base",
        "batch": 16384,
        "steps": 280,
        "captions": "all",
        "lr": None,
        "warmup": 0.1,
        "weight_decay": 0.2,
        "local_weight": 0.05,
        "temperature": 0.1,
        "same_image": "keep",
    },
    # The built-in world: a tower of 2 layers learns its hundred words in seconds.  Weight, steps, readout, templates
    # and global feature were chosen on the validation split, among a dozen (one seed).
    "demo": {
        "text": "tiny",
        "batch": 64,
        "steps": 200,
        "captions": "one",
        "lr": 2e-3,
        "warmup": 0.1,
        "local_weight": 0.25,
        "checkpoint_every": 100,
    },
}


@dataclass(frozen=True, kw_only=True)
class SimZSSSettings:
    """Settings that only SimZSS has."""

    text: str | None = option("size of the text tower", None, choices=("tiny", "small", "base", "large", "huge"))
    text_init: str | None = option("begin with CLIP's weights: FILE[,quick_gelu], or open_clip:ARCHITECTURE/TAG", None)
    captions: str | None = option("one caption an image and epoch, or all", None, choices=("one", "all"))
    bank: str | None = option("identity (or its beginning) of the concept bank, where the store has several", None)
    local_weight: float | None = option("lambda: weight of the local loss; 0 leaves it out", None)
    local_target: str = option("the mention's own concept, or the nearest one", "label", choices=("label", "argmax"))
    same_image: str = option("other captions of an image are negatives, or masked", "keep", choices=("keep", "mask"))
    temperature: float = option("of the softmax over patches", 0.1)
    global_feature: str | None = option("the image's vector, cls or patch-mean; by default the store's first", None)
    graph: bool = option("all batches of one shape, and on a GPU each step's kernels launched as one graph", False)
    micro_batch: str = option("captions the tower reads at a time on a process: auto, 0 (all), or a number", "auto")

    def __post_init__(self):
        refuse_negative(self, "local_weight")
        refuse_zero(self, "temperature")
        if self.micro_batch != "auto" and not self.micro_batch.isdecimal():
            raise ValueError(f"--micro-batch is {self.micro_batch}; expected auto, 0, or a number of captions")


def peak(config):
    """The peak learning rate where none is given."""
    return 3e-5 * config.batch / 256
