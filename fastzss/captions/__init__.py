"""Captions: text -> tokens with exact character offsets -> mentions of given names.

tokens.py    the CLIP byte-pair encoding, each token with the characters it covers
words.py     words and their singular form
nouns.py     which words of a caption name something
parsers.py   where a caption mentions a name: by its words (`bank`), or by a spaCy parse (`spacy:PIPELINE`)
mentions.py  the mentions of many captions, as flat arrays of token positions
"""
