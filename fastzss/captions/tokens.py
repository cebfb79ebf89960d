"""The CLIP byte-pair encoding, each token with the exact characters it covers.

A caption is cleaned first (broken Unicode mended, HTML entities resolved, white space squeezed, lower case); offsets
point into the cleaned text.  The encoding works on bytes, so a token may cover part of a character: its span then
holds the whole character.
"""

from functools import cache
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import NamedTuple

from fastzss.base.errors import UserError

CONTEXT = 77
START, END = 49406, 49407
REMEMBERED = 1_000_000  # words whose tokens are kept in memory


class Tokens(NamedTuple):
    ids: list  # start token, text, end token
    spans: list  # (first, last + 1) character of each token in the cleaned text; the end tokens cover nothing
    end: int  # characters before this one are wholly within the context


@cache
def byte_pairs():
    """open_clip's table of words; reading it takes a third of a second.

    Only the file that has it is imported: the package around it would bring timm and torchvision, and take seconds.
    """
    folder = find_spec("open_clip").submodule_search_locations[0]
    spec = spec_from_file_location("fastzss_open_clip_tokenizer", Path(folder) / "tokenizer.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.SimpleTokenizer(clean="lower")


@cache
def byte_counts():
    """How many bytes of the text each token stands for."""
    pieces = byte_pairs().decoder
    counts = [len(pieces[token].removesuffix("</w>")) for token in range(len(pieces))]
    counts[START] = counts[END] = 0
    return counts


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
        return self.located(self.encode(clean)[0], clean)

    def encode(self, clean):
        """(token ids of an already cleaned text, how many beyond the context are left out)."""
        ids, known = [START], self._known
        for word in self._words.findall(clean):
            ids += known.get(word) or self._encode(word)
        keep = self.context - 1
        return ids[:keep] + [END], max(0, len(ids) - keep)

    def located(self, ids, clean):
        """Tokens of a cleaned text whose ids are known.

        They spell its words, one after the other, so their lengths tell where each one stands.
        """
        if clean.isascii():
            character = [i for i, letter in enumerate(clean) if letter != " "]  # of each byte
        else:
            words = (range(*match.span()) for match in self._words.finditer(clean))
            character = [i for word in words for i in word for _ in clean[i].encode("utf-8")]
        counts, spans, at = byte_counts(), [(0, 0)], 0
        whole = sum(counts[token] for token in ids)
        if whole > len(character) or whole < len(character) and len(ids) < self.context:
            raise UserError(
                f'the tokens of the caption "{clean:.60}" are not those of its text: another tokenizer made them. '
                f"Delete the captions folder of its store and run the same extract command again."
            )
        for token in ids[1:-1]:
            before, at = at, at + counts[token]
            spans.append((character[before], character[at - 1] + 1))
        spans.append((len(clean), len(clean)))
        return Tokens(ids, spans, len(clean) if whole == len(character) else character[whole])

    def _encode(self, word):
        """The token ids of a word, remembered."""
        if len(self._known) >= REMEMBERED:
            self._known.clear()
        symbols = "".join(self._bpe.byte_encoder[byte] for byte in word.encode("utf-8"))
        ids = self._known[word] = [self._bpe.encoder[piece] for piece in self._bpe.bpe(symbols).split(" ")]
        return ids


def tokens_of(spans, first, last):
    """Indices of the tokens that cover any of the characters first .. last - 1."""
    return [i for i, (a, b) in enumerate(spans) if a < last and b > first]
