"""Named protocols: all that a score depends on besides the run and the images, so that scores may be compared.

A protocol is a YAML file, one of presets/ or the user's own; every knob of it is a field of Protocol, and stands with a
hash of all beside each score.  `sets` has knobs that are others for some sets.  Two kinds of looking:

    field     an image at the backbone's own size, patches averaged over windows (masks/field.py), and the steps of
              masks/inference.py behind them: how `fastzss segment` looks
    windows   as the public protocols do it (windows.py): the words alone, unless a memory or a refinement is asked for
"""

from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

from fastzss.base.config import read_yaml
from fastzss.base.errors import UserError, nearest
from fastzss.base.files import identity
from fastzss.evaluation.datasets.opened import SETS
from fastzss.evaluation.phrases import STUFF, templates_of
from fastzss.evaluation.windows import WindowLook
from fastzss.masks.inference import DEFAULT, PLAIN, Inference
from fastzss.text.readout import TEMPLATES

PRESETS = Path(__file__).parent / "presets"
NAMES = ("tcl", "sclip", "talk2dino", "groupvit", "folder", "world")
BACKGROUNDS = ("threshold", "prob", "words", "none")
REFINEMENTS = {  # what --refine adds to the steps of a protocol
    "pamr": {"refinement": 10, "dilations": (1, 2, 4, 8, 12, 24)},
    "smooth": {"smoothing": 0.1},
    "smooth+pamr": {"smoothing": 0.1, "refinement": 10, "dilations": (1, 2, 4, 8, 12, 24)},
}
CHOICES = {
    "look": ("field", "windows"),
    "pad": ("patch", "square"),
    "order": ("normalised", "raw"),
    "background": BACKGROUNDS,
    "refine": (None, *REFINEMENTS),
}
NUMBERS = {"short": int, "long": int, "window": int, "stride": int, "scale": float}


@dataclass(frozen=True, kw_only=True)
class Protocol:
    name: str
    look: str = "field"
    short: int = 448  # pixels: windows.py
    long: int = 2048
    window: int = 448
    stride: int = 224
    pad: str = "patch"
    align_corners: bool = False
    templates: tuple = TEMPLATES
    order: str = "normalised"  # before templates are averaged; "raw": only behind
    synonyms: bool = False  # whether a class has all its writings, the best of which counts at each place
    readout: str | None = None  # None: what the run was trained for
    background: str = "none"  # of sets that have one
    value: float | None = None  # below which a place is background; None: what the run's memory was calibrated to
    scale: float = 40.0  # of similarities, before the softmax of "prob"
    capped: bool = False  # whether the value is at most the highest probability of the image
    words: tuple = ()  # more classes, which are background together
    refine: str | None = None  # one of REFINEMENTS; None: none
    inference: Inference = DEFAULT  # of look "field"; of "windows" the evidence of a memory alone
    sets: dict = field(default_factory=dict)  # set -> knobs

    def __post_init__(self):
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                found, known = getattr(self, name), ", ".join(str(choice).lower() for choice in choices)
                raise UserError(f"protocol {self.name}: {name} is {found!r}{nearest(found, choices)}; expected {known}",
                                code=2)  # fmt: skip
        for name, kind in NUMBERS.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | kind) or not value > 0:
                raise UserError(
                    f"protocol {self.name}: {name} is {value!r}; expected a positive {kind.__name__}", code=2
                )
        if self.stride > self.window:
            raise UserError(f"protocol {self.name}: windows of {self.window} pixels {self.stride} apart leave gaps; "
                            f"expected a stride of at most the window", code=2)  # fmt: skip
        if isinstance(self.value, bool) or not isinstance(self.value, int | float | None):
            raise UserError(f"protocol {self.name}: value is {self.value!r}; expected a number, or null", code=2)
        object.__setattr__(self, "templates", templates_of(self.templates))
        words = STUFF if self.words == "stuff" else self.words or ()
        if isinstance(words, str) or not all(isinstance(word, str) for word in words):
            raise UserError(
                f"protocol {self.name}: words is {self.words!r}; expected stuff, or a list of words", code=2
            )
        object.__setattr__(self, "words", tuple(words))
        if not isinstance(self.sets, dict):
            raise UserError(
                f"protocol {self.name}: sets is {self.sets!r}; expected lines of `set: {{knob: value}}`", code=2
            )
        for name, knobs in self.sets.items():
            check_knobs(knobs, f"protocol {self.name}, set {name}", but=("name", "sets", "look"))
            if name not in SETS:
                raise UserError(f"protocol {self.name}: knobs of an unknown set {name!r}{nearest(name, SETS)}", code=2)

    def of_set(self, name):
        """The protocol as it is for one set."""
        return replace(self, sets={}, **self.sets.get(name, {}))

    @property
    def windows(self):
        """The WindowLook of it, or None."""
        if self.look == "field":
            return None
        return WindowLook(**{f.name: getattr(self, f.name) for f in fields(WindowLook)})

    def vocabulary(self, model, names):
        """The classes as a model reads them by this protocol."""
        raw = {"raw": True} if self.order == "raw" else {}
        return model.vocabulary(names, self.inference, self.readout, self.templates, **raw)

    def record(self, model):
        """What stands beside a score, with a hash of it: equal hashes were made alike."""
        knobs = asdict(self) | {"readout": self.readout or model.words.readout, "inference": self.inference.record}
        knobs = {"protocol": knobs.pop("name"), **knobs, "templates": list(self.templates), "words": list(self.words)}
        if self.look == "field":
            knobs = {key: knobs[key] for key in ("protocol", "look", "readout", "templates", "order", "inference")}
        return {**knobs, "hash": identity(knobs)[:12]}


def check_knobs(knobs, where, but=("name",)):
    known = [f.name for f in fields(Protocol) if f.name not in but]
    if not isinstance(knobs, dict):
        raise UserError(f"{where}: holds {knobs!r}; expected knobs, {', '.join(known)}", code=2)
    for key in knobs:
        if key not in known:
            raise UserError(f"{where}: unknown knob {key!r}{nearest(key, known)}; known are {', '.join(known)}", code=2)


def protocol_of(name):
    """The Protocol of that name, or of a YAML file."""
    file = Path(name)
    if name in NAMES:
        file = PRESETS / f"{name}.yaml"
    elif file.suffix not in (".yaml", ".yml"):
        hint = f"; {name} is a set, and goes to --sets" if name in SETS else nearest(name, NAMES)
        raise UserError(f'unknown protocol "{name}"{hint}; expected {", ".join(NAMES)}, or a .yaml file', code=2)
    knobs = read_yaml(file)
    check_knobs(knobs, str(file))
    knobs = {"inference": {}, **knobs}
    own = [f.name for f in fields(Inference)]
    if not isinstance(knobs["inference"], dict) or (strange := [key for key in knobs["inference"] if key not in own]):
        found = repr(strange[0]) if isinstance(knobs["inference"], dict) else repr(knobs["inference"])
        raise UserError(f"{file}: inference has {found}; its knobs are {', '.join(own)}", code=2)
    plain = PLAIN if knobs.get("look") == "windows" else DEFAULT
    try:
        knobs["inference"] = replace(plain, **knobs["inference"])
    except (TypeError, ValueError) as problem:
        raise UserError(f"{file}: {problem}", code=2) from None
    return Protocol(name=file.stem, **knobs)


def protocol_for(sets):
    """The name of the protocol that sets are scored by where none is named."""
    kinds = {name if name in ("world", "folder") else "tcl" for name in sets}
    if len(kinds) > 1:
        raise UserError(f"{', '.join(sets)} have no protocol in common; name one with --protocol, or one kind of sets",
                        code=2)  # fmt: skip
    return kinds.pop()
