"""Wrong use of an operation, and of FASTZSS_BACKEND: each mistake is named."""

import inspect

import pytest
import torch

from fastzss import kernels
from fastzss.kernels import chunked, chunked_filters, chunked_losses, reference, reference_tower

M, K, N, D = 3, 4, 5, 6
CODES = kernels.Patches(
    torch.zeros(2, N, D, dtype=torch.int8), torch.ones(2, N, dtype=torch.half), torch.zeros(D), torch.ones(D)
)
POOL = {
    "classes": torch.randn(K, D),
    "patches": kernels.Patches(torch.randn(2, N, D)),
    "row": torch.tensor([0, 1, 1]),
    "name": torch.tensor([0, 3, 1]),
    "temperature": 0.1,
}
CANDIDATES = {"present": torch.ones(K, dtype=torch.bool), "weight": torch.ones(M), "scale": 14.0}
BLOCK = kernels.BlockWeights(
    *(torch.randn(36, 12), torch.randn(36), torch.randn(12, 12), *torch.randn(3, 12)),
    *(torch.randn(5, 12), torch.randn(5), torch.randn(12, 5), *torch.randn(3, 12)),
)
RIGHT = {
    "class_vectors": {
        "units": torch.randn(4, D),
        "offset": torch.tensor([0, 1, 2, 4]),
        "name": torch.tensor([0, 3, 1]),
        "names": K,
    },
    "concept_pool": POOL,
    "concept_loss": {"pooled": torch.randn(M, D), "classes": POOL["classes"], "name": POOL["name"], **CANDIDATES},
    "local_loss": POOL | CANDIDATES,
    "clip_loss": {"images": torch.randn(4, D), "texts": torch.randn(2, D), "log_scale": torch.tensor(2.0), "first": 2},
    "unit_rows": {"vectors": torch.randn(4, D), "index": torch.tensor([3, 0, 3]), "dtype": torch.float32},
    "used_units": {"tokens": torch.randn(2, 3, 7), "index": torch.tensor([5]), "projection": torch.randn(7, D)},
    "group_pool": {"logits": torch.randn(2, 3, N), "values": torch.randn(2, N, D), "hard": True},
    "segment_match": {"segments": torch.randn(2, 3, D), "views": torch.randn(2, 4, D)},
    "embed_norm": {
        "words": torch.randn(9, 12),
        "places": torch.randn(8, 12),
        "index": torch.tensor([[0, 8, 3], [2, 2, 0]]),
        "segment": torch.tensor([[0, 0, 1], [2, -1, -1]]),
        "gain": torch.ones(12),
        "shift": torch.zeros(12),
    },
    "transformer_blocks": {
        "x": torch.randn(2, 8, 12),
        "normal": torch.randn(2, 8, 12),
        "segment": torch.zeros(2, 8, dtype=torch.int32),
        "blocks": [BLOCK, BLOCK],
        "heads": 3,
    },
    "quantise": {"vectors": torch.randn(2, N, D), "mean": torch.zeros(D), "std": torch.ones(D)},
    "smooth_patches": {"patches": torch.randn(2, N, D), "values": torch.randn(2, N, 3), "temperature": 0.1},
    "refine_scores": {
        "image": torch.rand(3, 4, 5),
        "scores": torch.rand(K, 4, 5),
        "iterations": 2,
        "dilations": [1, 3],
    },
}
WRONG = [
    ("class_vectors", {"offset": torch.tensor([0, 3, 2, 4])}, "offset does not ascend"),
    ("class_vectors", {"offset": torch.tensor([0, 1, 2, 9])}, "offset ends at 9; expected at most 4"),
    ("class_vectors", {"offset": torch.tensor([0, 1])}, r"offset has shape \[2\]; expected \[4\]"),
    ("class_vectors", {"name": torch.tensor([0, -1, 1])}, "name holds -1; expected 0 to 3"),
    ("class_vectors", {"units": torch.randn(9)}, r"units has shape \[9\]; expected \[tokens, D\]"),
    ("unit_rows", {"index": torch.tensor([0, 4])}, "index holds 4; expected 0 to 3, rows of vectors"),
    ("unit_rows", {"vectors": torch.randn(4, D).requires_grad_()}, "frozen"),
    ("concept_pool", {"classes": torch.randn(K, 7)}, r"patches.tokens has shape \[2, 5, 6\]; expected \[n, N, 7\]"),
    ("concept_pool", {"row": torch.tensor([0, 2, 1])}, "row holds 2; expected 0 to 1, rows of patches"),
    ("concept_pool", {"name": torch.tensor([0, 4, 1])}, "name holds 4; expected 0 to 3, rows of classes"),
    ("concept_pool", {"name": torch.tensor([0.0, 1.0, 1.0])}, "name is float32; expected int32 or int64"),
    ("concept_pool", {"row": torch.tensor([0])}, r"name has shape \[3\]; expected \[1\]"),
    ("concept_pool", {"temperature": 0.0}, "temperature is 0.0; expected a positive number"),
    ("concept_pool", {"patches": CODES._replace(scale=None)}, "patches.scale is missing; expected with int8"),
    ("concept_pool", {"patches": CODES._replace(std=torch.ones(5))}, r"patches.std has shape \[5\]; expected \[6\]"),
    ("concept_pool", {"patches": kernels.Patches(torch.ones(2, N, D).int())}, "patches.tokens is int32; expected one"),
    ("concept_pool", {"patches": kernels.Patches(torch.ones(2, 0, D))}, "no patches"),
    ("concept_pool", {"patches": kernels.Patches(torch.ones(2, N, D).requires_grad_())}, "frozen"),
    ("concept_loss", {"pooled": torch.randn(M, 5)}, r"pooled has shape \[3, 5\]; expected \[3, 6\]"),
    ("concept_loss", {"present": torch.ones(K)}, "present is float32; expected bool"),
    ("concept_loss", {"present": torch.tensor([True, True, True, False])}, "name holds 3, a class that present"),
    ("concept_loss", {"weight": torch.ones(2)}, r"weight has shape \[2\]; expected \[3\]"),
    ("concept_loss", {"target": "nearest"}, 'target is \'nearest\'; expected "label" or "argmax"'),
    ("local_loss", {"weight": torch.ones(2)}, "local_loss: weight"),
    ("clip_loss", {"texts": torch.randn(2, 5)}, r"texts has shape \[2, 5\]; expected \[b, 6\]"),
    ("clip_loss", {"texts": torch.randn(0, D)}, "texts has no rows"),
    ("clip_loss", {"log_scale": torch.ones(2)}, r"log_scale has shape \[2\]; expected \[\]"),
    ("clip_loss", {"first": 3}, "2 texts from column 3 on; expected to end within the 4 rows of images"),
    ("clip_loss", {"images": torch.randn(4, D).requires_grad_()}, "images asks for a gradient, but is frozen"),
    ("clip_loss", {"same": torch.tensor([1, 2])}, r"same has shape \[2\]; expected \[4\]"),
    ("used_units", {"index": torch.tensor([6])}, "index holds 6; expected 0 to 5, rows of tokens"),
    ("used_units", {"projection": torch.randn(8, D)}, r"tokens has shape \[2, 3, 7\]; expected \[\*, 8\]"),
    ("group_pool", {"values": torch.randn(2, 4, D)}, r"values has shape \[2, 4, 6\]; expected \[2, 5, C\]"),
    ("segment_match", {"views": torch.randn(2, 0, D)}, "views is empty"),
    ("embed_norm", {"index": torch.tensor([[0, 9, 3]] * 2)}, "index holds 9; expected 0 to 8, rows of words"),
    ("embed_norm", {"segment": torch.zeros(2, 4).int()}, r"segment has shape \[2, 4\]; expected \[2, 3\]"),
    ("embed_norm", {"places": torch.randn(8, 11)}, r"places has shape \[8, 11\]; expected \[places, 12\]"),
    ("embed_norm", {"gain": torch.ones(11)}, r"gain has shape \[11\]; expected \[12\]"),
    ("transformer_blocks", {"blocks": []}, "blocks is empty; expected at least one"),
    (
        "transformer_blocks",
        {"blocks": [BLOCK, BLOCK._replace(in_bias=torch.randn(12))]},
        r"blocks\[1\].in_bias has shape \[12\]; expected \[36\]",
    ),
    (
        "transformer_blocks",
        {"blocks": [BLOCK._replace(proj_weight=torch.randn(12, 6))]},
        r"blocks\[0\].proj_weight has shape \[12, 6\]; expected \[12, 5\]",
    ),
    (
        "transformer_blocks",
        {"blocks": [BLOCK._replace(gain=torch.ones(12).int())]},
        r"\[0\].gain is int32; expected one",
    ),
    ("transformer_blocks", {"normal": torch.randn(2, 8, 5)}, r"normal has shape \[2, 8, 5\]; expected \[2, 8, 12\]"),
    ("transformer_blocks", {"segment": torch.zeros(2, 7).int()}, r"segment has shape \[2, 7\]; expected \[2, 8\]"),
    ("transformer_blocks", {"segment": torch.zeros(2, 8)}, "segment is float32; expected int32 or int64"),
    ("transformer_blocks", {"heads": 5}, "heads is 5; expected a divisor of 12, the channels of x"),
    ("quantise", {"vectors": torch.full((2, N, D), torch.nan)}, "NaN or infinite"),
    ("quantise", {"mean": torch.zeros(5)}, r"mean has shape \[5\]; expected \[6\]"),
    ("quantise", {"std": torch.zeros(D)}, "std holds 0.0; expected positive numbers"),
    ("smooth_patches", {"patches": torch.randn(N, D)}, r"patches has shape \[5, 6\]; expected \[B, N, D\]"),
    ("smooth_patches", {"values": torch.randn(2, 4, 3)}, r"values has shape \[2, 4, 3\]; expected \[2, 5, V\]"),
    ("smooth_patches", {"values": torch.randn(2, N, 3).half()}, "values is float16; expected one of float32"),
    ("smooth_patches", {"values": torch.randn(2, N, 3).requires_grad_()}, "values asks for a gradient, but is frozen"),
    ("smooth_patches", {"temperature": 0}, "temperature is 0; expected a positive number"),
    ("smooth_patches", {"temperature": torch.ones(3)}, r"temperature has shape \[3\]; expected \[2\]"),
    ("smooth_patches", {"temperature": torch.tensor([0.1, 0.0])}, "temperature holds 0.0; expected positive numbers"),
    ("refine_scores", {"image": torch.rand(4, 5)}, r"image has shape \[4, 5\]; expected \[C, H, W\]"),
    ("refine_scores", {"image": torch.ones(3, 4, 5).byte()}, "image is uint8; expected one of float16"),
    ("refine_scores", {"scores": torch.rand(K, 5, 4)}, r"scores has shape \[4, 5, 4\]; expected \[K, 4, 5\]"),
    ("refine_scores", {"scores": torch.rand(K, 4, 5).requires_grad_()}, "scores asks for a gradient, but is frozen"),
    (
        "refine_scores",
        {"image": torch.rand(3, 0, 5), "scores": torch.rand(K, 0, 5)},
        "at least one colour and one pixel",
    ),
    ("refine_scores", {"iterations": 0}, "iterations is 0; expected a whole number of at least 1"),
    ("refine_scores", {"iterations": 2.0}, "iterations is 2.0; expected a whole number"),
    ("refine_scores", {"dilations": ()}, r"dilations is \(\); expected whole numbers of at least 1, one or more"),
    ("refine_scores", {"dilations": (1, 0)}, r"dilations is \(1, 0\); expected whole numbers"),
]


@pytest.mark.parametrize("op", RIGHT)
def test_the_right_use_passes(op):
    getattr(kernels, op)(**RIGHT[op])


@pytest.mark.parametrize("op, change, sentence", WRONG, ids=[f"{op}-{'-'.join(change)}" for op, change, _ in WRONG])
def test_wrong_use_is_named(op, change, sentence):
    with pytest.raises(ValueError, match=sentence) as problem:
        getattr(kernels, op)(**RIGHT[op] | change)
    assert op in str(problem.value) or op == "local_loss"


@pytest.mark.parametrize("op", RIGHT)
def test_all_forms_have_one_signature(op):
    files = kernels, chunked, chunked_losses, chunked_filters, reference, reference_tower
    forms = [getattr(file, op) for file in files if hasattr(file, op)]
    assert len(forms) > 1 and len({inspect.signature(form) for form in forms}) == 1


@pytest.mark.parametrize(
    "backend, sentence",
    [
        ("cuda", "FASTZSS_BACKEND is 'cuda'; expected one of auto, reference, chunked, triton, interpret"),
        ("triton", "the tensors are on cpu; expected cuda"),
        ("interpret", "expected TRITON_INTERPRET=1 before fastzss is imported"),
    ],
)
def test_a_backend_that_cannot_serve_is_refused(backend, sentence, monkeypatch):
    monkeypatch.setenv("FASTZSS_BACKEND", backend)
    monkeypatch.setattr(kernels, "INTERPRETED", False)
    with pytest.raises(ValueError, match=sentence):
        kernels.concept_pool(**POOL)


def test_every_backend_that_can_serve_is_asked(monkeypatch):
    for backend, module in (("reference", reference), ("chunked", chunked), ("auto", chunked)):
        monkeypatch.setenv("FASTZSS_BACKEND", backend)
        monkeypatch.setattr(module, "segment_match", lambda *a, backend=backend, **k: backend)
        assert kernels.segment_match(**RIGHT["segment_match"]) == backend
