"""Masks: what a trained run sees in an image.

windows.py       windows over an image, and which class is nearest at its pixels
field.py         an image as the backbone saw it: patches of all windows and shifts on one grid
inference.py     the steps between an image and its mask, with their settings
vocabulary.py    class names as one model reads them: the steps, one after the other
patch_memory.py  what patches of the store are called
evidence.py      what a memory says of classes
refine.py        shares that follow the edges of the image
background.py    what is none of the classes
segment.py       class names -> a mask
naming.py        what is in an image, without a class list
drawing.py       pictures of masks
"""
