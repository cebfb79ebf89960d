"""A font that has the letters of a name: Pillow's own for plain Latin, else one of the machine's; or none."""

import os
import re
import sys
from functools import cache
from pathlib import Path

from PIL import ImageFont

PLAIN = ("sans-regular", "sans-", "sans.", "arial", "segoeui", "pingfang", "msyh", "helvetica", "unicode", "regular")
ODD = re.compile("bold|italic|oblique|mono|serif|condensed|narrow|light|thin|black|math|symbol|icon")
ABSENT = "\U0010fffe"  # a code that stays unassigned: what a font draws for it, it draws for all that it lacks


def font_for(text, size):
    """A PIL font of that size that has every letter of `text`; None where no font of this machine has."""
    file = file_for(frozenset(text) - {" "})
    if file is None:
        return None
    return ImageFont.truetype(file, size) if file else ImageFont.load_default(size)


@cache
def file_for(letters):
    """The file of a font that has these letters; "" for Pillow's own, None for none."""
    if all(letter.isascii() and letter.isprintable() for letter in letters):
        return ""
    for file in files():
        try:
            font = ImageFont.truetype(file, 20)
            missing = drawn(font, ABSENT)
            if all(drawn(font, letter) != missing for letter in letters):
                return file
        except (OSError, ValueError):  # a damaged font, or one without outlines at this size
            continue
    return None


def drawn(font, letter):
    """What a font draws of a letter; two letters that it does not have look the same."""
    mask = font.getmask(letter)
    return mask.size, bytes(mask)


@cache
def files():
    """The fonts of this machine, plain ones first."""
    home = Path.home()
    folders = {
        "win32": [
            Path(os.environ.get("WINDIR", "C:/Windows"), "Fonts"),
            home / "AppData/Local/Microsoft/Windows/Fonts",
        ],
        "darwin": [Path("/System/Library/Fonts"), Path("/Library/Fonts"), home / "Library/Fonts"],
    }.get(sys.platform)
    if folders is None:
        shared = os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share"
        folders = [home / ".fonts", home / ".local/share/fonts", *(Path(p, "fonts") for p in shared.split(":"))]
    found = [p for folder in folders for p in folder.rglob("*") if p.suffix.lower() in (".ttf", ".otf", ".ttc")]

    def rank(path):
        name = path.name.lower()
        return bool(ODD.search(name)), next((k for k, word in enumerate(PLAIN) if word in name), len(PLAIN)), str(path)

    return [str(path) for path in sorted(set(found), key=rank)]
