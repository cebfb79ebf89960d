"""table:FILE[,image=COLUMN][,caption=COLUMN]...: a table with a column of images and columns of captions.

Paths are looked for beside the file.  Columns are guessed where there is one candidate; `,caption=` may be said several
times.  An image that several rows name is one image with the captions of all.
"""

from pathlib import Path

from fastzss.base.errors import UserError
from fastzss.sources.sheets import Rows, read_sheet


class Table(Rows):
    form = "table:FILE[,image=COLUMN][,caption=COLUMN]"
    settings = ("image", "caption")

    def __init__(self, spec, rest, own=None):
        own, sheet = own or {}, read_sheet(rest)
        image = sheet.image_column(one(spec, own, "image"))
        super().__init__(spec, Path(rest).parent, sheet, image, sheet.caption_columns(own.get("caption", ()), image))


def one(spec, own, key):
    """The value of a setting that may be given once."""
    values = own.get(key, [None])
    if len(values) > 1:
        raise UserError(f"{spec}: {key}= is given {len(values)} times; expected once", code=2)
    return values[0]
