"""What a request holds: bytes -> fields -> an image, words, numbers; whatever is wrong is a Refused with its status."""

import io

from PIL import Image
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from fastzss.base.errors import UserError, nearest
from fastzss.masks.classes import classes_of
from fastzss.sources.images import upright

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
WORKING = 2_000_000  # pixels: a larger image is shrunk to that before it is looked at; its mask is enlarged again
LETTERS = 100  # of a class
PARTS = 12  # fields of a form


class Refused(Exception):
    """A request that is not answered, and why."""

    def __init__(self, status, sentence):
        super().__init__(sentence)
        self.status = status


def fields(body, content_type, known):
    """{name: bytes} of a multipart form."""
    kind, options = parse_options_header(content_type or "")
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise Refused(415, f"the request is {said(content_type or 'of no type')}; expected multipart/form-data")
    form = Form(known)
    try:
        parser = MultipartParser(options[b"boundary"], form.callbacks())
        parser.write(body)
        parser.finalize()
    except (MultipartParseError, ValueError, UnicodeDecodeError) as problem:
        raise Refused(400, f"the form cannot be read ({said(problem)}); expected multipart/form-data") from None
    if not form.ended:
        raise Refused(400, "the form breaks off before its end; send it again")
    return form.fields


class Form:
    """Collects the fields of a form in memory; names of files are not looked at."""

    def __init__(self, known):
        self.known, self.fields, self.ended = known, {}, False
        self._header, self._value, self._name, self._data = b"", b"", None, bytearray()

    def callbacks(self):
        names = "part_begin header_field header_value header_end headers_finished part_data part_end end".split()
        return {f"on_{name}": getattr(self, name) for name in names}

    def part_begin(self):
        self._name, self._data = None, bytearray()
        self._header = self._value = b""

    def header_field(self, data, start, end):
        self._header += data[start:end]

    def header_value(self, data, start, end):
        self._value += data[start:end]

    def header_end(self):
        if self._header.lower() == b"content-disposition":
            self._name = parse_options_header(self._value)[1].get(b"name")
        self._header = self._value = b""

    def headers_finished(self):
        if self._name is None:
            raise Refused(400, "a part of the form has no name; expected " + ", ".join(self.known))
        name = self._name.decode("utf-8", "replace")
        if name not in self.known:
            raise Refused(
                400, f'unknown field "{said(name)}"{nearest(name, self.known)}; known: {", ".join(self.known)}'
            )
        if name in self.fields or len(self.fields) >= PARTS:
            raise Refused(400, f'the field "{name}" is given twice; expected it once')
        self._name = name

    def part_data(self, data, start, end):
        self._data += data[start:end]

    def part_end(self):
        self.fields[self._name] = bytes(self._data)

    def end(self):
        self.ended = True


def opened(data, megapixels):
    """(upright RGB image of at most WORKING pixels, the size that it was given in)."""
    if not data:
        raise Refused(400, "the image is empty; expected the bytes of a picture")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > megapixels * 1_000_000:
                raise Image.DecompressionBombError
            shrink = (WORKING / (width * height)) ** 0.5
            if shrink < 1:
                image.draft("RGB", (round(width * shrink), round(height * shrink)))  # a JPEG is decoded no larger
            found = upright(image)
    except Image.DecompressionBombError:
        raise Refused(413, f"the image has too many pixels; at most {megapixels} megapixels are taken") from None
    except Image.UnidentifiedImageError:
        raise Refused(400, f"this is no picture (it begins with {start_of(data)}); {EXPECTED}") from None
    except Exception as problem:  # whatever a decoder says of damaged bytes
        raise Refused(400, f"the image is damaged ({said(problem) or type(problem).__name__}); {EXPECTED}") from None
    if (found.width > found.height) != (width > height):  # turned as its camera was held
        width, height = height, width
    shrink = (WORKING / (found.width * found.height)) ** 0.5
    if shrink < 1:
        size = max(1, round(found.width * shrink)), max(1, round(found.height * shrink))
        found = found.resize(size, Image.Resampling.LANCZOS)
    return found, (width, height)


EXPECTED = "expected a JPEG, PNG, WebP, GIF, BMP or TIFF"


def words(text, most):
    """The classes of a text with commas or line ends between them."""
    names = [name.split("|") for name in text.replace("\n", ",").replace(";", ",").split(",")]
    if longest := next((name for group in names for name in group if len(name.strip()) > LETTERS), None):
        raise Refused(400, f'the class "{longest.strip()[:20]}..." is longer than {LETTERS} letters; expected a name')
    try:
        found = classes_of(names)
    except UserError as problem:
        raise Refused(400, str(problem)) from None
    if len(found) > most or sum(map(len, names)) > 4 * most:
        raise Refused(400, f"{len(found)} classes; at most {most} are taken at a time")
    return found


def text(given, name):
    try:
        return given[name].decode("utf-8")
    except KeyError:
        raise Refused(400, f'the field "{name}" is missing') from None
    except UnicodeDecodeError:
        raise Refused(400, f'the field "{name}" is no UTF-8 text') from None


def number(given, name, low, high, default):
    """A number between two, or what there is by default."""
    if name not in given:
        return default
    try:
        value = type(default)(text(given, name))
        if low <= value <= high:  # NaN is not
            return value
    except ValueError:
        pass
    raise Refused(400, f'the field "{name}" is "{said(text(given, name))}"; expected a number from {low} to {high}')


def choice(given, name, choices):
    value = text(given, name) if name in given else choices[0]
    if value not in choices:
        raise Refused(400, f'the field "{name}" is "{said(value)}"; expected {" or ".join(choices)}')
    return value


def start_of(data):
    return ascii(data[:16].decode("latin-1"))


def said(what):
    """Something of a request in one short printable line."""
    line = " ".join(str(what).split())
    return "".join(letter if letter.isprintable() else "?" for letter in line)[:120]
