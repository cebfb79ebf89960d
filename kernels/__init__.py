"""Fused operations on frozen patch features.  Imports torch only; nothing of fastzss.

    Patches            stored patch vectors, quantised or not, and what turns them back into numbers
    quantise           unit patch vectors -> int8 and a scale per patch
    class_vectors      token vectors -> one unit vector per concept named in the batch
    concept_pool       patches -> one image-side vector per mention, under a softmax over the patches
    concept_loss       how far the pooled vectors are from their concept's class vector (cross-entropy)
    clip_loss          symmetric contrastive loss of captions and frozen image vectors

The names are bound by reference.py, their definition in plain PyTorch.
"""

from fastzss.kernels.reference import Patches, class_vectors, clip_loss, concept_loss, concept_pool, quantise

__all__ = ["Patches", "class_vectors", "clip_loss", "concept_loss", "concept_pool", "quantise"]
