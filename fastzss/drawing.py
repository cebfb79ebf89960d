"""Pictures of masks and curves: palettes, overlays, overlays with a legend, line charts as SVG.

A mask is uint8 [H, W], the class id of every pixel; a palette is uint8 [K, 3], the colour of every class id.
An id without a colour (255, "nothing") leaves the image as it is in an overlay and is grey in a mask of its own.
"""

import base64
import io
import math
import unicodedata
from functools import cache
from html import escape

import numpy as np
from PIL import Image, ImageDraw, ImageFont

FIRST = "4c8edb f08a3c 4fae5b e0526a 9a6fd6 2fb3b0 e0bb35 a5734a e78ac3 9cb83a 5b5cb8 c04fa9"  # chosen by eye
NOTHING = (128, 128, 128)
INK, PAPER = (33, 37, 43), (252, 252, 251)  # of the legend
LEGEND_WIDTH = 384  # pixels that a legend and the picture above it need to be readable
CHART = 390, 260  # width and height of a chart, in units of its own
LINES = 200  # a longer curve is drawn as the means of this many stretches


def palette(names):
    """uint8 [K, 3]: the colour of a class depends on its position alone, so that two pictures agree."""
    if len(names) > 256:
        raise ValueError(f"palette: {len(names)} classes; a uint8 mask holds 256 at most")
    return _colours()[: len(names)].copy()


def css(colour):
    """A colour as #rrggbb."""
    return "#" + bytes(int(c) for c in colour).hex()


def data_uri(image):
    """The picture as a PNG inside its own address."""
    file = io.BytesIO()
    image.convert("RGB").save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def colour_mask(mask, colours):
    """The mask as an RGB picture."""
    table = np.full((256, 3), NOTHING, np.uint8)
    table[: len(colours)] = colours
    return Image.fromarray(table[mask])


def overlay(image, mask, colours, opacity=0.55):
    """The image in grey under the colours of its mask, with thin darker outlines between regions."""
    if image.size != mask.shape[::-1]:
        raise ValueError(f"overlay: the image is {image.size}, the mask {mask.shape[::-1]} (width, height)")
    coloured = (mask < len(colours))[..., None]
    # grey, so that the hue is the class's alone: green grass under a red is not brown
    grey = np.asarray(image.convert("L"), np.float32)[..., None]
    over = np.asarray(colour_mask(mask, colours), np.float32)
    blend = np.where(coloured, grey * (1 - opacity) + over * opacity, np.asarray(image.convert("RGB"), np.float32))
    blend[borders(mask)] *= 0.5
    return Image.fromarray(blend.round().astype(np.uint8))


def borders(mask):
    """bool [H, W]: pixels whose right or lower neighbour is of another class."""
    edge = np.zeros(mask.shape, bool)
    edge[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    edge[:-1] |= mask[:-1] != mask[1:]
    return edge


def fitted(image, mask, least, most=None):
    """Image and mask, enlarged to a width of at least `least`, shrunk to sides of at most `most` pixels.

    Enlarging is by a whole number, so that all pixels of a mask stay equally large, and stops at a height of 4 `least`.
    """
    width, height = image.size
    if width < least:
        factor = max(1, min(-(-least // width), 4 * least // height))
        size = width * factor, height * factor
    else:
        factor = min(1, (most or math.inf) / max(width, height))
        size = max(1, round(width * factor)), max(1, round(height * factor))
    if size == image.size:
        return image, mask
    mask = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
    return image.convert("RGB").resize(size, Image.Resampling.BICUBIC), mask


def labelled(image, mask, names):
    """The overlay with a legend below: a swatch and a name for each class that is present."""
    colours = palette(names)
    picture = overlay(*fitted(image, mask, LEGEND_WIDTH), colours)
    present = [k for k in np.unique(mask).tolist() if k < len(names)]
    if not present:
        return picture
    width = max(LEGEND_WIDTH, picture.width)  # a very tall picture stays narrower
    size = min(max(15, width // 40), 48)
    font, margin, line = ImageFont.load_default(size), size, round(1.7 * size)

    entries, x, y = [], margin, picture.height + margin
    for k in present:
        name = shortened(plain(names[k]), font, width - 2 * margin - round(1.5 * size))
        right = x + round(1.5 * size + font.getlength(name))
        if x > margin and right > width - margin:
            x, y, right = margin, y + line, margin + right - x
        entries.append((x, y, name, tuple(colours[k].tolist())))
        x = right + round(1.2 * size)

    sheet = Image.new("RGB", (width, y + size + margin), PAPER)
    sheet.paste(picture, ((width - picture.width) // 2, 0))
    draw = ImageDraw.Draw(sheet)
    for x, y, name, colour in entries:
        draw.rounded_rectangle((x, y, x + size, y + size), size // 5, fill=colour)
        draw.text((x + 1.5 * size, y + size / 2), name, INK, font, anchor="lm")
    return sheet


def plain(name):
    """A name on one line and without accents, which Pillow's own font does not have."""
    letters = unicodedata.normalize("NFKD", str(name))
    return " ".join("".join(c for c in letters if not unicodedata.combining(c)).split())


def shortened(text, font, width):
    """The text, or as much of its beginning as fits, with dots."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text.rstrip() + "..."


def curve_svg(series, title, x_label, y_label, colours=None):
    """A line chart of {name: [(x, y), ...]} as inline SVG that takes the text colour of the page around it.

    `colours` maps names to CSS colours; others are the page's --series-1, --series-2, ..., or the palette's.
    Points that are not finite are left out, and a series without points is too.
    """
    series = {name: thinned([p for p in points if all(map(math.isfinite, p))]) for name, points in series.items()}
    series = {name: points for name, points in series.items() if points}
    strokes = {name: f"var(--series-{k + 1}, {css(_colours()[k % 256])})" for k, name in enumerate(series)}
    strokes |= colours or {}
    points = [p for line in series.values() for p in line] or [(0, 0), (1, 1)]
    (left_x, right_x, x_ticks), (low_y, high_y, y_ticks) = (axis([p[d] for p in points], whole=d == 1) for d in (0, 1))

    width, height = CHART
    legend, rows = placed(series, width)
    top, bottom, right = 58 + 20 * rows, height - 40, width - 14
    left = 14 + 7 * max(len(label) for _, label in y_ticks)

    def at(x, y):
        across = left + (x - left_x) / (right_x - left_x) * (right - left)
        return round(across, 1), round(bottom - (y - low_y) / (high_y - low_y) * (bottom - top), 1)

    def text(x, y, words, style='opacity="0.7"'):
        return f'<text x="{x}" y="{y}" {style}>{escape(words)}</text>'

    frame = f'class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}"'
    svg = [f'<svg {frame} fill="currentColor" font-size="12">', text(0, 15, title, 'font-size="14" font-weight="600"')]
    for name, x, row in legend:
        y = 33 + 20 * row
        svg.append(f'<rect x="{x}" y="{y - 1}" width="16" height="4" rx="2" fill="{escape(strokes[name])}"/>')
        svg.append(text(x + 22, y + 5, clipped(name), ""))
    svg.append(text(0, top - 12, y_label))
    svg.append(text((left + right) / 2, height - 6, x_label, 'text-anchor="middle" opacity="0.7"'))
    for value, label in y_ticks:
        y = at(left_x, value)[1]
        svg.append(f'<path d="M{left} {y}H{right}" stroke="currentColor" opacity="0.15"/>')
        svg.append(text(left - 8, y + 4, label, 'text-anchor="end" opacity="0.7"'))
    for value, label in x_ticks:
        x = at(value, low_y)[0]
        anchor = "end" if x + 4 * len(label) > width else "middle"
        svg.append(text(x, bottom + 17, label, f'text-anchor="{anchor}" opacity="0.7"'))
    svg.append(f'<path d="M{left} {bottom}H{right}" stroke="currentColor" opacity="0.5"/>')
    for name, line in series.items():
        stroke = escape(strokes[name])
        dots = [at(*p) for p in line]
        if len(dots) == 1:
            svg.append(f'<circle cx="{dots[0][0]}" cy="{dots[0][1]}" r="3.5" fill="{stroke}"/>')
        else:
            path = " ".join(f"{x},{y}" for x, y in dots)
            style = 'fill="none" stroke-width="2" stroke-linejoin="round"'
            svg.append(f'<polyline points="{path}" stroke="{stroke}" {style}/>')
    return "\n".join(svg) + "\n</svg>"


def thinned(points):
    """The points, or the means of LINES stretches of them."""
    if len(points) <= LINES:
        return points
    return [tuple(part.mean(0).tolist()) for part in np.array_split(np.asarray(points, float), LINES)]


def axis(values, whole):
    """First and last value of an axis and its few round ticks with their labels; `whole`: it ends at ticks."""
    low, high = min(values), max(values)
    if high - low <= 1e-9 * max(abs(low), abs(high)):  # one value only: give it room
        room = abs(low) / 2 or 1
        low, high = low - room, high + room
    rough = (high - low) / 4
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * m for m in (1, 2, 5, 10) if unit * m >= rough * 0.999)
    first, last = math.floor(low / step + 1e-6), math.ceil(high / step - 1e-6)
    if whole:
        low, high = first * step, last * step
    digits = max(0, -math.floor(math.log10(step) + 1e-6))
    style = ".3g" if digits > 4 or max(abs(low), abs(high)) >= 1e7 else f",.{digits}f"
    margin = 1e-6 * step
    ticks = [n * step for n in range(first, last + 1) if low - margin <= n * step <= high + margin]
    return low, high, [(tick, format(tick + 0.0, style)) for tick in ticks]


def placed(names, width):
    """[(name, x, row)] of the entries of a chart's legend, and the number of rows."""
    entries, x, row = [], 0, 0
    for name in names:
        needed = 40 + round(6.6 * len(clipped(name)))
        if x and x + needed > width:
            x, row = 0, row + 1
        entries.append((name, x, row))
        x += needed
    return entries, row + 1 if entries else 0


def clipped(name):
    return name if len(name) <= 56 else name[:55] + "\N{HORIZONTAL ELLIPSIS}"


@cache
def _colours():
    """uint8 [256, 3]: some chosen by eye, then each the farthest candidate from all before it."""
    colours = [np.frombuffer(bytes.fromhex(c), np.uint8) for c in FIRST.split()]
    levels = np.arange(16, 256, 16)
    candidates = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(-1, 3).astype(np.uint8)
    lab = oklab(candidates)
    # neither near white nor near black, so that it shows on both, neither grey nor shrill
    chroma = np.hypot(lab[:, 1], lab[:, 2])
    usable = (0.48 < lab[:, 0]) & (lab[:, 0] < 0.86) & (0.05 < chroma) & (chroma < 0.19)
    candidates, lab = candidates[usable], lab[usable]
    room = np.min([((lab - oklab(c[None])) ** 2).sum(1) for c in (*colours, np.array(NOTHING))], 0)
    while len(colours) < 256:
        best = int(room.argmax())
        colours.append(candidates[best])
        room = np.minimum(room, ((lab - lab[best]) ** 2).sum(1))
    return np.stack(colours)


def oklab(rgb):
    """[n, 3] sRGB bytes -> [n, 3] lightness and two opponent colours; distance is about what the eye sees (OKLab)."""
    c = np.asarray(rgb, np.float64) / 255
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    cones = [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
             [0.0883024619, 0.2817188376, 0.6299787005]]  # fmt: skip
    opponents = [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
                 [0.0259040371, 0.7827717662, -0.8086757660]]  # fmt: skip
    return np.cbrt(linear @ np.transpose(cones)) @ np.transpose(opponents)
