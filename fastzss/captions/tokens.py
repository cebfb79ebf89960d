"""The CLIP byte-pair encoding, each token with the exact characters it covers.

A caption is cleaned first (broken Unicode mended, HTML entities resolved, white space squeezed, lower case); offsets
point into the cleaned text.  The encoding works on bytes, so a token may cover part of a character: its span then
holds the whole character.
"""

from functools import cache
from typing import NamedTuple

CONTEXT = 77
START, END = 49406, 49407
REMEMBERED = 1_000_000  # words whose tokens are kept in memory


class Tokens(NamedTuple):
    ids: list  # start token, text, end token
    spans: list  # (first, last + 1) character of each token in the cleaned text; the end tokens cover nothing
    cut: int  # tokens beyond the context, left out
    end: int  # characters before this one are wholly within the context


@cache
def byte_pairs():
    """open_clip's table of words; reading it takes a third of a second."""
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer(clean="lower")


class Tokenizer:
    def __init__(self, context=CONTEXT):
        import regex

        self.context = context
        self._bpe = byte_pairs()
        # open_clip's words without its special tokens: a caption that spells "<end_of_text>" is text like any other
        self._words = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+", regex.IGNORECASE)
        self._known = {}

    def clean(self, text):
        if text.isascii() and text.isprintable() and "&" not in text:  # nothing to mend: most captions
            return " ".join(text.split()).lower()
        return self._bpe.clean_fn(text)

    def __call__(self, clean):
        """Tokens of an already cleaned text."""
        ids, spans = [START], [(0, 0)]
        known = self._known
        for match in self._words.finditer(clean):
            at, word = match.start(), match.group()
            for token, first, last in known.get(word) or self._encode(word):
                ids.append(token)
                spans.append((at + first, at + last))
        keep = self.context - 1
        cut = max(0, len(ids) - keep)
        end = spans[keep][0] if cut else len(clean)
        return Tokens(ids[:keep] + [END], spans[:keep] + [(len(clean), len(clean))], cut, end)

    def _encode(self, word):
        """A word as (token id, first, last + 1 character) triples, remembered."""
        if len(self._known) >= REMEMBERED:
            self._known.clear()
        encoded = word.encode("utf-8")
        character = [i for i, letter in enumerate(word) for _ in letter.encode("utf-8")]  # of each byte
        symbols = "".join(self._bpe.byte_encoder[byte] for byte in encoded)
        pieces, at = [], 0
        for piece in self._bpe.bpe(symbols).split(" "):
            size = len(piece.removesuffix("</w>"))
            pieces.append((self._bpe.encoder[piece], character[at], character[at + size - 1] + 1))
            at += size
        self._known[word] = pieces
        return pieces


def tokens_of(spans, first, last):
    """Indices of the tokens that cover any of the characters first .. last - 1."""
    return [i for i, (a, b) in enumerate(spans) if a < last and b > first]
