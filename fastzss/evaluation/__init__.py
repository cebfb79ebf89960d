"""Evaluation: masks against truth, by a named protocol.

protocols.py   what a score depends on
datasets/      images with true masks, a file a layout
evaluate.py    the one loop
score.py       the confusion matrix, and what is read from it
oracles.py     what true masks would give
"""
