"""What can be set: the settings of extraction, training and the demo, and the recipes.

Everything here is light to import, so that `--help` is instant.
"""

from dataclasses import dataclass
from pathlib import Path

from fastzss.config import Parser, add_config, configured, option
from fastzss.errors import nearest

TRACKERS = ("tensorboard", "wandb")

# A recipe is a set of settings with a name.
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
        "lr": 2e-3,
        "local_weight": 0.25,
        "checkpoint_every": 100,
    },
}


@dataclass(frozen=True, kw_only=True)
class ExtractConfig:
    """Look at every image once with a frozen vision transformer and store its patch features."""

    source: str = option("where images come from: world:SPLIT,n=COUNT,seed=SEED, or folder:DIR", positional=True)
    store: Path = option("folder of the store: created, or continued", positional=True)
    model: str | None = option("tiny, or a timm ViT by name; by default tiny for world: and else DINOv2", None)
    weights: Path | None = option("file with the model's weights (.safetensors, .pth)", None)
    random_weights: bool = option("do not load weights: for trying things out", False)
    size: int | None = option("pixels a side; by default the model's usual one", None)
    dtype: str = option("how patches are stored", "int8", choices=("int8", "float16"))
    format: str | None = option("zarr or webdataset; by default as the store was begun, else zarr", None)
    stats_from: Path | None = option("store whose statistics the int8 quantiser takes, instead of its own", None)
    part: str | None = option("I/N: only every N-th shard, beginning with the I-th; `merge` joins the parts", None)
    bank: str = option("concepts to find in the captions: captions, a file or a bank of names, or none", "captions")
    parser: str = option("how they are found: auto, bank, or spacy:PIPELINE[,tokens=phrase]", "auto")
    match: str = option(
        "noun phrases that are no name: dropped, or nearest name", "exact", choices=("exact", "embedding")
    )
    batch: int = option("images per forward pass", 32)
    device: str | None = option("cpu, cuda, ...; by default cuda where there is one", None)
    seed: int = option("seed of the order in which images lie in the store", 0)

    def __post_init__(self):
        if self.batch < 1:
            raise ValueError(f"--batch must be positive, got {self.batch}")
        if self.size is not None and self.size < 1:
            raise ValueError(f"--size must be positive, got {self.size}")
        if self.stats_from is not None and self.dtype != "int8":
            raise ValueError(f"--stats-from goes with --dtype int8, not with {self.dtype}")
        if self.part is not None:
            number, _, parts = self.part.partition("/")
            if not (number.isdecimal() and parts.isdecimal() and 1 <= int(number) <= int(parts)):
                raise ValueError(f"--part is {self.part!r}; expected I/N, as 1/4")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Teach a text tower to point, from a finished store.  Run the same command again to continue a stopped run."""

    store: Path = option("feature store written by `fastzss-cache extract`")
    out: Path = option("run folder: settings, metrics, checkpoints")
    method: str = option("what is trained", "simzss", choices=("simzss",))
    recipe: str = option("settings to begin from: " + ", ".join(RECIPES), "simzss-coco")
    text: str = option("size of the text tower", "base", choices=("tiny", "small", "base", "large", "huge"))
    text_init: str | None = option("begin with CLIP's weights: a file, or open_clip:ARCHITECTURE/TAG", None)
    steps: int = option("optimiser steps", 280)
    batch: int = option("pairs a step, over all processes", 16384)
    captions: str = option("one caption an image and epoch, or all", "one", choices=("one", "all"))
    bank: str | None = option("identity (or its beginning) of the concept bank, where the store has several", None)
    lr: float | None = option("peak learning rate; by default 3e-5 for every 256 pairs of the batch", None)
    warmup: float = option("share of the steps in which the learning rate rises", 0.1)
    weight_decay: float = option("of matrices; vectors and scales have none", 0.2)
    local_weight: float = option("lambda: weight of the local loss; 0 leaves it out", 0.05)
    local_target: str = option("the mention's own concept, or the nearest one", "label", choices=("label", "argmax"))
    same_image: str = option("other captions of an image are negatives, or masked", "keep", choices=("keep", "mask"))
    temperature: float = option("of the softmax over patches", 0.1)
    global_feature: str | None = option("the image's vector, cls or patch-mean; by default the store's first", None)
    precision: str = option("arithmetic of the tower", "auto", choices=("auto", "float32", "bfloat16", "float64"))
    seed: int = option("of the weights and of the order of the samples", 0)
    device: str | None = option("cpu, cuda, ...; by default cuda where there is one", None)
    micro_batch: str = option("captions the tower reads at a time on a process: auto, 0 (all), or a number", "auto")
    loader: str = option("where patches lie", "auto", choices=("auto", "device", "host", "stream"))
    resume: str = option("go on with the run in --out", "auto", choices=("auto", "never", "must"))
    log: str | None = option("where metrics go besides: tensorboard, wandb, or both with a comma", None)
    log_every: int = option("steps between two lines of metrics.jsonl", 10)
    checkpoint_every: int = option("steps between two checkpoints", 100)
    keep: int = option("checkpoints that stay, beside the best one", 2)
    eval_every: int = option("steps between two evaluations; 0: none", 0)
    eval_protocol: str = option("of the evaluations, as for `fastzss evaluate`", "world")
    eval_data: str | None = option("what they see; for world by default world:validation,n=100", None)

    def __post_init__(self):
        for name in ("steps", "batch", "temperature", "log_every", "checkpoint_every", "keep"):
            if getattr(self, name) <= 0:
                raise ValueError(f"--{name.replace('_', '-')} must be positive, got {getattr(self, name)}")
        for name in ("weight_decay", "local_weight", "warmup", "eval_every"):
            if getattr(self, name) < 0:
                raise ValueError(f"--{name.replace('_', '-')} must not be negative, got {getattr(self, name)}")
        if self.micro_batch != "auto" and not self.micro_batch.isdecimal():
            raise ValueError(f"--micro-batch is {self.micro_batch}; expected auto, 0, or a number of captions")
        for name in self.trackers:
            if name not in TRACKERS:
                raise ValueError(
                    f"--log {self.log}: {name!r} is none of {', '.join(TRACKERS)}{nearest(name, TRACKERS)}"
                )

    @property
    def trackers(self):
        return tuple(name.strip() for name in (self.log or "").split(",") if name.strip())

    @property
    def peak(self):
        return self.lr if self.lr is not None else 3e-5 * self.batch / 256


def train_config(argv=None):
    """(TrainConfig, whether JSON is wanted, whether a dry run is) from a command line."""
    parser = Parser(prog="fastzss/train.py", description=TrainConfig.__doc__)
    add_config(parser, TrainConfig)
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    parser.add_argument("--dry-run", action="store_true", help="say what would be trained, and where it finds room")
    args = parser.parse_args(argv)
    return configured(TrainConfig, args, RECIPES), args.json, args.dry_run


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """The whole story on the built-in world: look at images once, learn from captions alone, segment, report."""

    out: Path = option("folder of the store, the runs and the report", Path("runs/demo"))
    quick: bool = option("a smaller world and fewer steps: to see that everything works, not how well", False)
    seeds: int = option("runs of each kind, with their own weights and sample order", 1)
    method: str = option("what is trained", "simzss", choices=("simzss",))
    device: str | None = option("cpu, cuda, ...; by default cuda where there is one", None)

    def __post_init__(self):
        if self.seeds < 1:
            raise ValueError(f"--seeds must be positive, got {self.seeds}")
