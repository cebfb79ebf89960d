"""What the runs of a sweep are compared by: masks of images that no training saw, or else held-out captions.

Both see the bare readout of a run: what training has learned, without what masks/inference.py makes of it.
"""

from functools import partial

from fastzss.backbones import reload_vision
from fastzss.base.files import identity
from fastzss.base.runs import Run
from fastzss.evaluation.caption_scores import caption_scores, judged_rows
from fastzss.evaluation.evaluate import judged
from fastzss.evaluation.looks import Looks
from fastzss.methods.held_out import SHARE, held_out
from fastzss.store.reading.joined import open_store
from fastzss.store.upkeep.origin import weights_origin
from fastzss.training.validation import WORLD, bare_protocol


def judge_of(config):
    """Masks where --eval-data has them, or the store is of the built-in world; else the captions."""
    store = open_store(config.store)
    drawn = str(store.plan.source.get("spec", "")).startswith("world:")
    return ByMasks(config, store) if config.eval_data or drawn else ByCaptions(config, store)


class ByMasks:
    """mIoU in points of all classes, and of groups of them."""

    hold_out = 0.0  # share of the store's images that runs must not learn from

    def __init__(self, config, store):
        spec, name = config.eval_data or WORLD, config.eval_protocol
        if name == "world" and not str(spec).startswith("world:"):
            name = "folder"
        self.protocol, self.data = bare_protocol(name, spec)
        self.vision = partial(reload_vision, store.plan.vision, weights_origin(config.store))
        self.looks = Looks(self.data, None)
        self.columns = ("score", *self.data.groups)
        self.words = f"mIoU on {spec}, {len(self.data)} images, by the words alone"
        self.plan = {
            "protocol": name,
            "data": spec,
            "images": identity(list(self.data.ids)),
            "classes": list(self.data.names),
            "vision": store.plan.vision,
        }
        self.identity = identity(self.plan)

    def prepare(self, folder, ranks, shown=False):
        """Look at the images that nobody has looked at yet; all runs of a sweep share what was seen."""
        self.looks = Looks(self.data, partial(self.vision, device=ranks.device))
        self.looks.keep(folder / "evaluation", self.plan, ranks, shown)

    def scores(self, model, run):
        found = judged(self.looks, {"run": self.protocol.vocabulary(model, self.data.names)}, shown=False)["run"]
        return {"score": found["all"], **{group: found[group] for group in self.data.groups}}


class ByCaptions:
    """How well captions that no run saw find their image, and their names its patches."""

    columns = ("score", "image", "patches")

    def __init__(self, config, store):
        self.store, self.hold_out = store, config.hold_out or SHARE
        self.rows = judged_rows(store, held_out(len(store), self.hold_out))
        self.words = f"held-out captions of {len(self.rows)} images: do they find their image, their names its patches?"
        self.identity = identity({"store": store.identity, "captions": store.captions.identity, "share": self.hold_out})

    def prepare(self, folder, ranks, shown=False):
        pass

    def scores(self, model, run):
        config = Run(run).config
        feature, bank = config["settings"].get("global_feature"), config["store"]["bank"]
        return caption_scores(model.words, self.store, self.rows, bank, feature)
