"""Families of `fastzss` commands: each adds its flags to the program and runs what they ask for.

looking.py   evaluate, segment, name: what a run sees
bank.py      bank build|near|info|merge|memory
"""
