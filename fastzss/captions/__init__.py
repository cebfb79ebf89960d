"""Captions: text -> tokens with exact character offsets -> mentions of given names.

tokens.py    the CLIP byte-pair encoding, each token with the characters it covers
words.py     words and their singular form
nouns.py     which words of a caption name something
parsers.py   where a caption mentions a name: by its words (`bank`), or by a spaCy parse (`spacy:PIPELINE`)
mentions.py  the mentions of many captions, as flat arrays of token positions
"""

from fastzss.captions.mentions import Mentions, clean_texts, find_mentions, useful_processes
from fastzss.captions.parsers import Mention, choose_parser
from fastzss.captions.tokens import Tokenizer

__all__ = ["Mention", "Mentions", "Tokenizer", "choose_parser", "clean_texts", "find_mentions", "useful_processes"]
