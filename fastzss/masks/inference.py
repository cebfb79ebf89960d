"""How masks are made of what was seen: the steps between an image and its scores, each of which can be left out.

    dense       the backbone looks four times, half a patch apart: a grid twice as fine                     (field.py)
    evidence    what the run's patch memory says of a place, beside the words' similarity                (evidence.py)
    smoothing   each place is averaged with those of the same image that resemble it                        (field.py)
    refinement  the classes' shares follow the edges of the image                                          (refine.py)
    background  what becomes of a place that is none of the classes                                    (background.py)

Light to import.
"""

from dataclasses import asdict, dataclass

BACKGROUNDS = ("none", "threshold", "prob", "words")


@dataclass(frozen=True, kw_only=True)
class Inference:
    """All that a mask depends on besides the run, the image and the classes; recorded wherever a score is printed.

    Chosen on the validation split of the built-in world (the steps' worth: benchmarks/masks.py).
    """

    dense: bool = True
    evidence: float = 0.3  # weight of the memory's evidence beside a similarity; 0: the words alone
    floor: float = 0.2  # share of the neighbours below which their evidence says no more
    neutral: float = 0.8  # evidence for what the memory does not know: between none (0) and the most at a place (1)
    smoothing: float = 0.1  # temperature of the image's own similarities; 0: none
    temperature: float = 0.05  # of the classes' softmax, before refinement
    refinement: int = 10  # iterations; 0: none
    dilations: tuple = (1, 2, 4, 8)  # pixels to the neighbours that refinement compares
    background: str = "none"

    def __post_init__(self):
        if self.background not in BACKGROUNDS:
            raise ValueError(f"background is {self.background!r}; expected {', '.join(BACKGROUNDS)}")
        for name in ("evidence", "smoothing", "refinement"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 0, for none, or more")
        for name in ("floor", "temperature"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")

    @property
    def record(self):
        """Plain values, for a report."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


DEFAULT = Inference()
PHOTOGRAPHS = Inference(background="threshold")  # most of what is in them is in no list of classes
PLAIN = Inference(dense=False, evidence=0, smoothing=0, refinement=0)  # the bare readout
