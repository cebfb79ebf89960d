"""ZeroSeg's answers: segments of windows, each named by the teacher's text tower.

A window of the image's field of patches becomes segments e_i and the soft share of each place in them. With unit
vectors t_c of the classes, s the logit scale, and z the whole window,

    P   = softmax_c(s <e_i, t_c>)
    Pf  = the same over the five classes with the largest <z, t_c>          (top5_filter)
    R   = Pf P                                                              score of class c for segment i

A pixel is of the segment with the largest share there, shares between places being bilinear; it has that segment's
scores; windows that overlap are averaged.  Background, where it is asked for: min(bg_thresh, the largest R) and more
is needed to be a class.

Sizes: K classes, M segments, an image looked at in H x W pixels.
"""

import torch
import torch.nn.functional as F

from fastzss.backbones.clip import reload_teacher
from fastzss.bank import Bank
from fastzss.base.errors import UserError
from fastzss.masks.field import see
from fastzss.masks.images import rgb
from fastzss.masks.inference import DEFAULT
from fastzss.masks.refine import refined
from fastzss.masks.segment import Model
from fastzss.masks.windows import corners, resized
from fastzss.methods.zeroseg.pixels import PixelStudent
from fastzss.methods.zeroseg.segmenter import head_of
from fastzss.text.teacher import words_of

TOP = 5
WINDOWS = 16  # of a protocol that the student looks at together


class ZeroSegModel(Model):
    """A trained run: of the same face as SimZSS's, with segments instead of a patch memory."""

    def __init__(self, vision, words, student, scoring, bank=None, inference=DEFAULT):
        super().__init__(vision, words, bank, None, inference)
        self.student, self.scoring = student, scoring

    def vocabulary(self, names, inference=None, readout=None, templates=None, raw=False):
        vectors = self.class_vectors(names, readout, templates, raw)
        return SegmentVocabulary(vectors, self.student, self.scoring, inference or self.inference)

    def _vocabulary(self, classes, inference):
        return SegmentVocabulary(self._embed(classes), self.student, self.scoring, inference)

    @torch.inference_mode()
    def embed_image(self, image):
        """(unit vectors [rows, columns, D_t], [1, D_t]): of each place its segment's, and the whole's: what
        `embed_text` may be compared with."""
        field = see(self.vision, rgb(image), dense=False)
        places, wholes = torch.zeros(*field.grid, len(self.class_vectors(["thing"])[0])), []
        for (y, x, rows, columns), share, segments, whole in windows(self.student, field):
            own = share.argmax(-1).view(rows, columns)
            places[y : y + rows, x : x + columns] += F.normalize(segments, dim=-1)[own].cpu()
            wholes.append(whole.cpu())
        return F.normalize(places, dim=-1), F.normalize(torch.stack(wholes).mean(0, keepdim=True), dim=-1)


class SegmentVocabulary:
    """Class names as a student reads them; of the same face as masks.vocabulary.Vocabulary."""

    def __init__(self, vectors, student, scoring, inference=DEFAULT):
        if inference.background not in ("none", "threshold"):
            raise UserError(
                f"background {inference.background} asks a patch memory, and a run of ZeroSeg has none; "
                f"expected none or threshold",
                code=2,
            )
        self.vectors, self.count = vectors.float(), len(vectors)
        self.student, self.scoring, self.inference = student, scoring, inference

    def see(self, vision, image):
        return see(vision, image, self.inference.dense)

    @torch.inference_mode()
    def scores(self, field):
        """float32 [K, H, W] on the CPU: shares of the pixels, which add up to 1; with a background, one more."""
        H, W = field.size
        h, w = field.grid
        total = torch.zeros(self.count, h * field.cell, w * field.cell)
        weight = torch.zeros(1, h * field.cell, w * field.cell)
        most = 0.0
        for (y, x, rows, columns), share, segments, whole in self.windows(field):
            score = self.of_segments(segments, whole).cpu()
            most = max(most, float(score.max()))
            size = rows * field.cell, columns * field.cell
            own = resized(share.T.reshape(-1, rows, columns).cpu(), size).argmax(0)
            here = slice(y * field.cell, y * field.cell + size[0]), slice(x * field.cell, x * field.cell + size[1])
            total[:, *here] += score.T[:, own]
            weight[:, *here] += 1
        maps = (total / weight)[:, :H, :W]
        if self.inference.background == "threshold":
            least = min(self.scoring["bg_thresh"], most)
            nothing = maps.amax(0, keepdim=True) < least
            maps = torch.cat([maps.masked_fill(nothing, 0), nothing.to(maps.dtype)])
        maps = maps / maps.sum(0, keepdim=True).clamp_min(1e-12)
        if self.inference.refinement:
            maps = refined(field.pixels, maps, self.inference.refinement, self.inference.dilations)
        return maps.float().cpu()

    @torch.inference_mode()
    def values(self, field):
        """[P, K]: of each patch of a protocol's windows the score of its segment."""
        if isinstance(self.student, PixelStudent):
            raise UserError(
                "the student of zeroseg-paper looks at pixels, and protocols of windows keep patches alone; "
                "evaluate it with --protocol world or folder",
                code=2,
            )
        windows = field.shape[0] * field.shape[1]
        patches, values = field.patches.view(windows, -1, field.patches.shape[-1]), []
        for part in patches.to(next(self.student.parameters()).dtype).split(WINDOWS):
            found = self.student(part)
            for share, segments, whole in zip(found.shares(), found.vectors, found.whole, strict=True):
                values.append(self.of_segments(segments, whole)[share.argmax(-1)])
        return torch.cat(values)

    def shares(self, maps):
        return maps[: self.count]

    def windows(self, field):
        return windows(self.student, field)

    def of_segments(self, segments, whole):
        """[M, K]: R of a window's segments."""
        scale, vectors = self.scoring["logit_scale"], self.vectors.to(segments.device)
        logits = scale * F.normalize(segments, dim=-1) @ vectors.T
        P = logits.softmax(-1)
        if not self.scoring["top5_filter"]:
            return P
        top = (F.normalize(whole, dim=-1) @ vectors.T).topk(min(TOP, self.count)).indices
        others = torch.ones(self.count, dtype=torch.bool, device=logits.device)
        others[top] = False
        return logits.masked_fill(others, -torch.inf).softmax(-1) * P


def windows(student, field):
    """Yield ((row, column, rows, columns) in cells, shares [n, M], segments [M, D_t], whole [D_t]) of each window.

    Windows are squares as long as the field's short side, half of that apart.
    """
    if isinstance(student, PixelStudent):
        return pixel_windows(student, field)
    return patch_windows(student, field)


def patch_windows(student, field):
    (h, w), side = field.grid, min(field.grid)
    patches = field.patches.view(h, w, -1).to(next(student.parameters()).dtype)
    for y, x in corners((h, w), side):
        found = student(patches[y : y + side, x : x + side].reshape(1, side * side, -1))
        yield (y, x, side, side), found.shares()[0], found.vectors[0], found.whole[0]


def pixel_windows(student, field):
    """The same of the image itself, brought to the size of the student's training by its short side."""
    own, cell = student.own, field.cell
    (h, w), side = field.grid, min(field.grid)
    image = F.pad(field.pixels[None].float(), (0, w * cell - field.size[1], 0, h * cell - field.size[0]), "replicate")
    for y, x in corners((h, w), side):
        part = image[:, :, y * cell : (y + side) * cell, x * cell : (x + side) * cell]
        part = F.interpolate(part, (own["side"], own["side"]), mode="bicubic", antialias=True).clamp(0, 255)
        found, (rows, columns) = student.see(part.to(next(student.parameters())))
        share = found.shares()[0]
        share = resized(share.T.reshape(-1, rows, columns), (side, side)).flatten(1).T
        yield (y, x, side, side), share, found.vectors[0], found.whole[0]


def student_of(record, weights=None):
    """The student that a run records, with its weights."""
    student = PixelStudent(record) if record["kind"] == "paper" else head_of(record)
    if weights is not None:
        student.load_state_dict({name: value.float() for name, value in weights.items()})
    return student.eval()


def model_of(run, vision, device):
    """The ZeroSegModel of a Run's chosen checkpoint."""
    config = run.config
    teacher = reload_teacher(config["teacher"]["model"], config["teacher"]["weights"], None, device)
    student = student_of(config["student"], run.load_model()).to(device)
    bank = run.bank
    return ZeroSegModel(vision, words_of(teacher), student, config["scoring"], bank and Bank.from_json(bank))


def learning(task):
    """The model of a task's learner as it is now, without a backbone."""
    teacher = task.record["teacher"]
    words = words_of(reload_teacher(teacher["model"], teacher["weights"], None, task.device))
    return ZeroSegModel(None, words, task.learner, task.record["scoring"])
