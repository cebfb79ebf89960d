"""Letters: vectors of names by their spelling, before there is a run whose text tower could read them.

Hashed trigrams and words, the last word counted twice, so that "kitchen table" is nearer to "table" than to "kitchen".
"""

import numpy as np
import xxhash

LETTERS = 1024  # channels


def letters(names):
    """float32 [K, LETTERS]: unit vectors that are near for names that are spelt alike."""
    vectors = np.zeros((len(names), LETTERS), np.float32)
    for vector, name in zip(vectors, names, strict=True):
        words = name.split() or [name]
        for word, weight in zip(words, (*[1.0] * (len(words) - 1), 2.0), strict=True):
            padded = f"^{word}$"
            pieces = [padded, *(padded[i : i + 3] for i in range(len(padded) - 2))]
            for piece in pieces:
                digest = xxhash.xxh3_64_intdigest(piece.encode())
                vector[digest % LETTERS] += (weight if digest >> 63 else -weight) / len(pieces) ** 0.5
        vector /= max(np.linalg.norm(vector), 1e-12)
    return vectors
