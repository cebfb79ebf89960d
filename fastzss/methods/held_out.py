"""Images whose captions a training never sees, so that it can be judged by them where nobody has drawn masks.

Which they are is fixed by their rows alone: the same for every seed and every setting, and as a store grows those that
were held out still are.
"""

from fastzss.store.plan import hashes

SHARE = 0.1  # of the images, where nothing else is asked for
KEY = 0x0E1D  # of no other use of `hashes`


def held_out(images, share):
    """bool [images]: the rows that are held out."""
    return hashes(images, KEY) < int(share * 2**64)
