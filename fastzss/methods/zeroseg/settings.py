"""What can be set of ZeroSeg, and its recipes; light to import, so that `--help` is instant.

What the paper leaves open is a setting, with the reading of docs/methods.md as its default.
"""

from dataclasses import dataclass

from fastzss.base.config import option

BASE_RATE = 1.5e-4  # the paper's "base lr"

# What frozen patches need beyond the paper, or else their segments become one (docs/methods.md).
CLUSTERED = {
    "method": "zeroseg",
    "groups": "64,64",
    "gumbel": False,
    "w_ms": 0.3,
    "w_match": 0.1,
    "w_place": 1.0,
    "anchor": "linear",
    "places": "clusters",
    "weight_decay": 0.05,
}
RECIPES = {
    # The paper's segment head on the patches of a store.
    "zeroseg-frozen": {
        **CLUSTERED,
        "student": "frozen",
        "batch": 1024,
        "steps": 2400,
        "warmup": 0.1,
        "checkpoint_every": 200,
    },
    # The paper: pixels, an encoder from scratch that sees 40 % of the patches, reconstruction; 80 epochs of ImageNet.
    "zeroseg-paper": {
        "method": "zeroseg",
        "student": "paper",
        "batch": 4096,
        "steps": 24960,
        "warmup": 0.25,
        "weight_decay": 0.05,
        "mask_ratio": 0.6,
        "checkpoint_every": 500,
    },
    # Learned queries and two assignments: all that is done with patches is to pool them.
    "zeroseg-light": {
        **CLUSTERED,
        "student": "light",
        "batch": 1024,
        "steps": 2400,
        "warmup": 0.1,
        "checkpoint_every": 200,
    },
    # The built-in world, on a processor: chosen on its validation split.
    "zeroseg-demo": {
        **CLUSTERED,
        "student": "frozen",
        "batch": 32,
        "steps": 40,
        "warmup": 0.1,
        "lr": 5e-5,
        "top5_filter": False,
        "checkpoint_every": 20,
    },
}


@dataclass(frozen=True, kw_only=True)
class ZeroSegSettings:
    """Settings that only ZeroSeg has."""

    student: str = option("zeroseg: what looks: an encoder of its own, the store's patches, or pooling of them alone",
                          "frozen", choices=("paper", "frozen", "light"))  # fmt: skip
    teacher: str | None = option("zeroseg: whose views, where the store has those of several teachers", None)
    encoder: str = option("zeroseg: size of the paper student's encoder", "base", choices=("base", "small", "tiny"))
    mask_ratio: float = option("zeroseg: share of the patches that the student does not see in training", 0.0)
    groups: str = option("zeroseg: group tokens of the two stages", "32,8")
    gumbel: bool = option("zeroseg: noise on the assignment in training", True)
    hard: bool = option("zeroseg: a patch is of one group, with the gradient of the softmax; else of all", True)
    tau: float = option("zeroseg: temperature of the assignment in training", 1.0)
    eps: float = option("zeroseg: what is added to the number of patches of a group", 1.0)
    norm_targets: str = option("zeroseg: views and segments are compared at length 1, or as they are", "l2",
                               choices=("l2", "raw"))  # fmt: skip
    loss_reduction: str = option("zeroseg: over channels, views and segments", "mean", choices=("mean", "sum"))
    w_ms: float = option("zeroseg: weight of the multi-scale loss", 1.0)
    w_match: float = option("zeroseg: weight of the segment matching loss", 1.0)
    w_place: float = option("zeroseg: weight of the loss that ties segments to their places; not in the paper", 0.0)
    w_rec: float = option("zeroseg: weight of the reconstruction loss, of the paper student", 1.0)
    token_projector: str = option("zeroseg: segments go through the projector of the whole, or through none", "shared",
                                  choices=("shared", "none"))  # fmt: skip
    anchor: str = option("zeroseg: segments also say what a linear map says of their patches; not in the paper", "none",
                         choices=("none", "linear"))  # fmt: skip
    places: str = option("zeroseg: groups begin as they may, or as the store's clusters; not in the paper",
                         "random", choices=("random", "clusters"))  # fmt: skip
    tokens_for_match: str = option("zeroseg: segments after the last layer, or before it", "after5",
                                   choices=("after5", "after4"))  # fmt: skip
    seg_head_sees_cls: bool = option("zeroseg: the paper student's head sees its encoder's class token", False)
    norm_pix: bool = option("zeroseg: reconstruct pixels normalised in their patch", False)
    lr_scaling: str = option("zeroseg: without --lr, 1.5e-4 for every 256 images, or as it is", "mae",
                             choices=("mae", "raw"))  # fmt: skip
    top5_filter: bool = option("zeroseg: a window's segments are of the five classes likeliest for all of it", True)
    logit_scale: float = option("zeroseg: of the softmax over classes", 100.0)
    bg_thresh: float = option("zeroseg: score below which a place is background, where one is asked for", 0.95)

    def __post_init__(self):
        for name in ("tau", "logit_scale"):
            if getattr(self, name) <= 0:
                raise ValueError(f"--{name.replace('_', '-')} must be positive, got {getattr(self, name)}")
        for name in ("eps", "w_ms", "w_match", "w_place", "w_rec"):
            if getattr(self, name) < 0:
                raise ValueError(f"--{name.replace('_', '-')} must not be negative, got {getattr(self, name)}")
        if not 0 <= self.mask_ratio < 1:
            raise ValueError(f"--mask-ratio is {self.mask_ratio}; expected a share of the patches, below 1")
        if self.anchor == "linear" and self.student == "paper":
            raise ValueError("--anchor linear is for patches of a store; the paper student's patches are learned")
        if self.places == "clusters" and self.anchor != "linear":
            raise ValueError("--places clusters needs --anchor linear, which standardises the patches")
        if not 0 <= self.bg_thresh <= 1:
            raise ValueError(f"--bg-thresh is {self.bg_thresh}; expected a score from 0 to 1")
        _ = self.group_counts

    @property
    def group_counts(self):
        """--groups as two numbers."""
        counts = [word.strip() for word in self.groups.split(",")]
        if len(counts) != 2 or not all(word.isdecimal() and int(word) > 0 for word in counts):
            raise ValueError(f"--groups is {self.groups!r}; expected two numbers, as 32,8")
        first, second = map(int, counts)
        if not second <= first <= 64:
            raise ValueError(
                f"--groups {self.groups}: the second stage groups what the first one made; expected at most 64 groups, "
                f"and in the second stage no more than in the first"
            )
        return first, second


def peak(config):
    """The peak learning rate where none is given."""
    return BASE_RATE * config.batch / 256 if config.lr_scaling == "mae" else BASE_RATE
