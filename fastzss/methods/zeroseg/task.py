"""A training of ZeroSeg: a student's segments learn what a teacher says of views.  No text takes part."""

import torch

from fastzss.base.errors import UserError
from fastzss.base.files import read_json
from fastzss.base.machine import readable_bytes
from fastzss.base.runs import Run
from fastzss.methods.placing import put_where
from fastzss.methods.zeroseg.anchor import fit_anchor, fit_clusters
from fastzss.methods.zeroseg.loader import Loader
from fastzss.methods.zeroseg.objective import cover_of, losses, spread, view_area
from fastzss.methods.zeroseg.pixels import PixelStudent, encoder_record, take, visible
from fastzss.methods.zeroseg.segmenter import CHOSEN, head_of
from fastzss.store.mentions import list_concepts
from fastzss.store.upkeep.origin import teacher_origin, weights_origin


class ZeroSegTask:
    optimiser = {"betas": (0.9, 0.95), "eps": 1e-8}
    tables = {}

    def __init__(self, config, ranks, arithmetic):
        self.config, self.device, self.arithmetic = config, ranks.device, arithmetic
        self.loader = Loader(
            config.store,
            config.batch,
            teacher=config.teacher,
            pixels=config.student == "paper",
            seed=config.seed,
            device=self.device,
            rank=ranks.rank,
            world=ranks.count,
        )
        self.share = 1 / ranks.count
        self.whole_views = int(self.loader.views.plan.scales[0] == 1)
        self.student = student_record(config, self.loader)
        torch.manual_seed(config.seed)
        learner = PixelStudent(self.student) if config.student == "paper" else head_of(self.student)
        self.learner = learner.to(self.device, arithmetic.exact)
        self.samples, self.steps_per_epoch = self.loader.samples, self.loader.steps_per_epoch
        self.bank, self.last = bank_of(config.store), None
        grid = learner.grid if config.student == "paper" else self.loader.store.plan.grid
        self.area = view_area(self.loader.views.plan.scales, grid).to(self.device)

    @property
    def record(self):
        store, views = self.loader.store, self.loader.views
        config = self.config
        return {
            "student": self.student,
            "scoring": {key: getattr(config, key) for key in ("top5_filter", "logit_scale", "bg_thresh")},
            "readout": "eot",
            "teacher": {"model": views.plan.teacher, "views": views.path.name,
                        "weights": teacher_origin(config.store, views.path.name)},
            "vision": store.plan.vision,
            "weights": weights_origin(config.store),
            "store": {"features": store.identity, "views": views.identity},
        }  # fmt: skip

    def begin(self, fresh, reserve):
        if fresh and self.config.from_run:
            self.take_over(Run.open(self.config.from_run))
        sentences = self.loader.load(self.config.loader, reserve)
        if fresh and not self.config.from_run and self.config.anchor == "linear":
            fit_anchor(self.learner, self.loader, self.area, self.config.norm_targets)
            if self.config.places == "clusters":
                fit_clusters(self.learner, self.loader)
        return sentences

    def take_over(self, run):
        there, here = run.config, self.record
        for what in ("student", "teacher", "vision"):
            key = ("model",) if what == "teacher" else ()
            was, now = there.get(what), here[what]
            for part in key:
                was, now = was and was.get(part), now[part]
            if was != now:
                raise UserError(f"--from {run.path}: its {what} is not that of this training")
        self.learner.load_state_dict(run.load_model())

    def forecast(self, reserve):
        views = self.loader.views
        found = {"views": f"{views.plan.patches} an image of {views.plan.teacher['model']}, "
                          f"{readable_bytes(views.bytes())}"}  # fmt: skip
        if self.config.student != "paper":
            found["patches"] = put_where(self.config.loader, self.loader.bytes, self.device, reserve)[1]
        return found

    def steps(self, begin, end):
        return self.loader.steps(begin, end)

    def captured(self, derive):
        return derive

    def losses(self, batch):
        config, exact, rec = self.config, self.arithmetic.exact, None
        noise, N = self.noise(batch), self.area.shape[1]
        order = seen(N, batch.draws, config.mask_ratio)  # the patches that the student sees
        with self.arithmetic.fast:
            if config.student == "paper":
                segments, rec = self.learner(batch.pixels.to(exact), order, noise)
            else:
                patches = batch.patches.take(batch.image, exact)
                segments = self.learner(patches if order is None else take(patches, order), noise)
        segments = type(segments)(*(t.to(exact) for t in segments))
        self.last = type(segments)(*(t.detach() for t in segments)), batch.views
        cover = cover_of(segments, self.area if order is None else self.area[:, order].movedim(0, 1))
        return losses(segments, batch.views, config, self.whole_views, self.share, rec, cover)

    def noise(self, batch):
        exact = self.arithmetic.exact
        return (lambda K, N: batch.draws.gumbel(K, N).to(exact)) if self.config.gumbel else None

    def settle(self):
        pass

    def readings(self):
        return spread(*self.last, self.config, self.whole_views) if self.last else {}

    def dump(self, batch):
        return {"rows": batch.rows, "views": batch.views}

    def classifier(self):
        from fastzss.methods.zeroseg.model import learning  # late: it reads names, which no training does

        return learning(self)


def student_record(config, loader):
    """All that decides the student's shape, checked against the store."""
    plan, views = loader.store.plan, loader.views.plan
    encoder = encoder_record(config, views) if config.student == "paper" else None
    width = encoder["width"] if encoder else plan.channels
    patches = visible(encoder["patches"] if encoder else plan.patches, config.mask_ratio)
    K, M = config.group_counts
    if K > patches:
        raise UserError(
            f"--groups {config.groups}: {K} groups of the {patches} patches that the student sees of an image; "
            f"expected fewer groups than patches",
            code=2,
        )
    if config.token_projector == "none" and width != views.channels:
        raise UserError(
            f"--token-projector none: segments of {width} channels cannot be compared with views of {views.channels}; "
            f"expected shared",
            code=2,
        )
    record = {"kind": config.student, "width": width, "out": views.channels, "groups": [K, M]}
    record |= {key: getattr(config, key) for key in CHOSEN}
    return record | ({"encoder": encoder} if encoder else {})


def seen(patches, draws, mask_ratio):
    """[b, n]: the patches of each image that are seen in training, in no order; None: all of them."""
    if not mask_ratio:
        return None
    return draws.uniform(patches).argsort(1)[:, : visible(patches, mask_ratio)]


def bank_of(store):
    """The bank of a store that has just one: names for `fastzss name`; nothing is learned from it."""
    banks = list_concepts(store)
    return read_json(f"{banks[0]['folder']}/bank.json")["bank"] if len(banks) == 1 else None
