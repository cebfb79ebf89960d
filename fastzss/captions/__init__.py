"""Captions: text -> tokens with exact character offsets -> mentions of given names.

tokens.py    the CLIP byte-pair encoding, each token with the characters it covers
words.py     words, their singular form, and which of them can name something
parsers.py   where a caption mentions a name: by its words (`bank`), or by a spaCy parse (`spacy:PIPELINE`)
"""

from fastzss.captions.parsers import Mention, choose_parser, find_mentions
from fastzss.captions.tokens import Tokenizer

__all__ = ["Mention", "Tokenizer", "choose_parser", "find_mentions"]
