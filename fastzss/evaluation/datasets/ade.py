"""ADE20K, validation, as ADEChallengeData2016.zip comes: 0 is "other", and ignored.

ade/ADEChallengeData2016/{images, annotations}/validation, or without ade/
"""

from fastzss.evaluation.datasets.labels import reduced
from fastzss.evaluation.datasets.layouts import Layout, PublicSet

LAYOUTS = tuple(
    Layout(
        images=f"{root}/images/validation",
        labels=f"{root}/annotations/validation",
        image_end=".jpg",
        label_end=".png",
        means=reduced(150),
        what=f"{root}/annotations/validation",
    )
    for root in ("ade/ADEChallengeData2016", "ADEChallengeData2016")
)
SETS = (PublicSet("ade20k", "ade20k", 2000, LAYOUTS),)
