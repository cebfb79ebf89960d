"""Data that comes with the package: the weights of the tiny backbone and their card."""
