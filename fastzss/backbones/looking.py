"""How a backbone looks at images, beyond which one it is: all that is recorded beside its name and weights."""

import re
from dataclasses import dataclass
from pathlib import Path

FITS = {"crop": "short side, then centre crop", "squash": "both sides: the picture is squashed to a square"}
CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # mean and std of OpenAI's models


@dataclass(frozen=True)
class Looking:
    layer: int | None = None  # the block whose output is taken, from 1, or from -1 backwards; None: the last one
    fit: str = "crop"  # how a picture becomes a square, one of FITS
    norm: str = "model"  # whose mean and std of colours: the model's own, or CLIP's
    decode: str = "exact"  # "fast": large JPEGs at a half, a quarter or an eighth of their size
    precision: str = "fp32"  # or "bf16"
    denoiser: Path | None = None  # file of a block that cleans the patches (denoiser.py)


def looking_of(record, origin):
    """The Looking that made a record of Vision, and (where its weights are, the file of its denoiser)."""
    place, _, denoiser = origin.partition(DENOISED)
    preprocess = record.get("preprocess", {})
    block = re.match(r"block (\d+) of", record.get("layer", ""))
    return Looking(
        layer=int(block[1]) if block else None,
        fit=next((fit for fit, words in FITS.items() if words == preprocess.get("resize")), "crop"),
        norm=preprocess.get("colours", "model"),
        decode=preprocess.get("decode", "exact"),
        precision=record.get("precision", "fp32"),
        denoiser=Path(denoiser) if denoiser else None,
    ), place


DENOISED = " denoised by "  # between the two places in the origin of a backbone
