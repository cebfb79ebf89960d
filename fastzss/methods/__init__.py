"""Methods: what is learned from a store, and how.  Training and `fastzss.load` know a method by this seam alone.

method.py     what a method is
registry.py   a method by its name, and the model of a run
placing.py    where frozen patches lie
simzss/       captions learn to point, from a global and a concept-level contrastive loss
zeroseg/      segments learn what a CLIP vision encoder says of views, without any text
"""

METHODS = ("simzss", "zeroseg")  # by the names of their folders
