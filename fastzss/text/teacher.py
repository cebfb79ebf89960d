"""The text tower of a teacher: names -> unit vectors in the space of its views."""

import torch
import torch.nn.functional as F

from fastzss.backbones.clip import PREFIX
from fastzss.base.errors import UserError
from fastzss.text.readout import TEMPLATES, Readout
from fastzss.text.tower import PRESETS, TextTower

PHOTO = ("a photo of a {}.",)
AT_ONCE = 256


def words_of(teacher):
    """What reads names by a backbones.clip.Teacher; it says so when it is asked, where there is no text tower."""
    if teacher.words is None:
        return NoWords(teacher.name)
    if teacher.name == "tiny":
        words = CaptionReadout(tiny_tower(teacher).to(teacher.device), "eot", TEMPLATES)
    else:
        words = OpenClipWords(teacher)
    words.teacher = teacher
    return words


class CaptionReadout(Readout):
    """A text tower that learned whole captions: no other readout than their end."""

    def class_vectors(self, names, readout=None, templates=None, raw=False):
        return super().class_vectors(names, eot_only(readout), templates, raw)


class OpenClipWords:
    readout, templates = "eot", PHOTO

    def __init__(self, teacher):
        import open_clip

        self.model, self.device = teacher.words, teacher.device
        self.tokenizer = open_clip.get_tokenizer(teacher.name.removeprefix(PREFIX).partition("/")[0])

    @torch.inference_mode()
    def class_vectors(self, names, readout=None, templates=None, raw=False):
        """[K, D_t] unit vectors: of each name the mean over templates, of unit vectors unless `raw`."""
        eot_only(readout)
        found = []
        for template in templates or self.templates:
            texts = [template.replace("{}", name) for name in names]
            parts = [texts[start : start + AT_ONCE] for start in range(0, len(texts), AT_ONCE)]
            vectors = [self.model.encode_text(self.tokenizer(part).to(self.device)).float() for part in parts]
            vectors = torch.cat(vectors)
            found.append(vectors if raw else F.normalize(vectors, dim=-1))
        return F.normalize(torch.stack(found).mean(0), dim=-1)


class NoWords:
    readout, templates = "eot", PHOTO

    def __init__(self, name):
        self.name = name

    def class_vectors(self, names, readout=None, templates=None, raw=False):
        raise UserError(
            f"the teacher {self.name} came without a text tower, so that no name can be compared with what was "
            f"learned; extract the views with open_clip's model of it, as --teacher ViT-L-14/openai, and train again"
        )


def eot_only(readout):
    if readout not in (None, "eot"):
        raise UserError(f"readout {readout}: a teacher's text tower reads whole captions; expected eot", code=2)
    return "eot"


def tiny_tower(teacher):
    """The tiny teacher's text tower; tokens that no caption of its training had are zeros."""
    state = {
        name.removeprefix("text."): value.float() for name, value in teacher.words.items() if name.startswith("text.")
    }
    tower = TextTower(PRESETS["tiny"], teacher.channels)
    table = torch.zeros_like(tower.token_embedding.weight)
    table[teacher.words["tokens"].long()] = state["token_embedding.weight"]
    tower.load_state_dict(state | {"token_embedding.weight": table})
    return tower.requires_grad_(False)
