"""Words that protocols put around class names, and words for what is background."""

from fastzss.base.errors import UserError, nearest
from fastzss.text.readout import TEMPLATES

SUB_IMAGENET = (
    "itap of a {}.",
    "a bad photo of a {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)
NAMED = {
    "own": TEMPLATES,
    "simple": ("a photo of a {}.",),
    "sub_imagenet": SUB_IMAGENET,
    "tcl": (*SUB_IMAGENET, "a photo of many {}.", "a photo of {}s."),
}
STUFF = tuple(
    "sky wall tree wood grass road sea river mountain sands desk bed building cloud lamp door window wardrobe ceiling "
    "shelf curtain stair floor hill rail fence".split()
)


def templates_of(given):
    """A tuple of templates: of a name, or of a list of them."""
    if isinstance(given, str) and given == "openai":
        from open_clip import OPENAI_IMAGENET_TEMPLATES  # late: takes seconds, and few ask for it

        return tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES)
    if isinstance(given, str):
        if given not in NAMED:
            names = (*NAMED, "openai")
            known = ", ".join(names)
            raise UserError(f'unknown templates "{given}"{nearest(given, names)}; expected {known}, or a list', code=2)
        return NAMED[given]
    if not given or not all(isinstance(template, str) and "{}" in template for template in given):
        raise UserError(f"templates are {given!r}; expected texts with {{}} where the name goes", code=2)
    return tuple(given)
