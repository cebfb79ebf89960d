"""Wrong use of an operation is refused by a ValueError: the operation, the argument, what was found, what is expected.

Shapes and dtypes are looked at always.  Values (offsets, class ids, finite numbers) are looked at on a CPU always; on a
GPU only under FASTZSS_CHECKS=1, because there each look makes the CPU wait for the GPU.
"""

import os

import torch

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
STORED = (torch.int8, torch.float16, torch.float32, torch.float64)
TARGETS = ("label", "argmax")


def shape(op, argument, tensor, *sizes):
    """Each size a number, or a letter where anything will do."""
    same = tensor.dim() == len(sizes) and all(
        isinstance(size, str) or size == found for size, found in zip(sizes, tensor.shape, strict=False)
    )
    if not same:
        raise ValueError(f"{op}: {argument} has shape {list(tensor.shape)}; expected [{', '.join(map(str, sizes))}]")


def floats(op, argument, tensor, dtypes=FLOATS):
    if tensor.dtype not in dtypes:
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise ValueError(f"{op}: {argument} is {str(tensor.dtype).removeprefix('torch.')}; expected one of {names}")


def whole(op, argument, tensor):
    if tensor.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"{op}: {argument} is {str(tensor.dtype).removeprefix('torch.')}; expected int32 or int64")


def truths(op, argument, tensor):
    if tensor.dtype != torch.bool:
        raise ValueError(f"{op}: {argument} is {str(tensor.dtype).removeprefix('torch.')}; expected bool")


def values_seen(tensor):
    """Whether values may be looked at."""
    return not tensor.is_cuda or os.environ.get("FASTZSS_CHECKS") == "1"


def rows(op, argument, tensor, limit, of):
    """[*] whole numbers that name one of `limit` rows of the argument `of`."""
    whole(op, argument, tensor)
    if tensor.numel() and values_seen(tensor):
        low, high = (int(value) for value in tensor.aminmax())
        if low < 0 or high >= limit:
            raise ValueError(
                f"{op}: {argument} holds {low if low < 0 else high}; expected 0 to {limit - 1}, rows of {of}"
            )


def frozen(op, argument, tensor):
    if tensor.requires_grad:
        raise ValueError(f"{op}: {argument} asks for a gradient, but is frozen here; expected {argument}.detach()")


def positive(op, argument, value):
    if not isinstance(value, torch.Tensor) and not value > 0:
        raise ValueError(f"{op}: {argument} is {value!r}; expected a positive number")


def all_positive(op, argument, tensor):
    if not (tensor > 0).all():
        raise ValueError(f"{op}: {argument} holds {float(tensor.min())}; expected positive numbers")


def class_vectors(units, offset, name, names, all_sum=None, lists=None):
    op = "class_vectors"
    shape(op, "units", units, "tokens", "D")
    floats(op, "units", units)
    shape(op, "name", name, "M")
    shape(op, "offset", offset, len(name) + 1)
    whole(op, "offset", offset)
    rows(op, "name", name, names, "the result")
    if values_seen(offset):
        if offset[0] != 0 or (offset.diff() < 0).any():
            raise ValueError(f"{op}: offset does not ascend from 0; expected where each mention begins, and the end")
        if offset[-1] > len(units):
            raise ValueError(
                f"{op}: offset ends at {int(offset[-1])}; expected at most {len(units)}, the rows of units"
            )


def stored(op, patches, D):
    shape(op, "patches.tokens", patches.tokens, "n", "N", D)
    floats(op, "patches.tokens", patches.tokens, STORED)
    frozen(op, "patches.tokens", patches.tokens)
    if patches.tokens.shape[1] == 0:
        raise ValueError(f"{op}: patches.tokens has no patches; expected [n, N, D] with N of at least 1")
    if patches.tokens.dtype == torch.int8:
        for argument, sizes in (("scale", patches.tokens.shape[:2]), ("mean", (D,)), ("std", (D,))):
            tensor = getattr(patches, argument)
            if tensor is None:
                raise ValueError(f"{op}: patches.{argument} is missing; expected with int8 tokens")
            shape(op, f"patches.{argument}", tensor, *sizes)
    elif patches.scale is not None:
        raise ValueError(f"{op}: patches.scale is given with {patches.tokens.dtype} tokens; expected with int8 only")


def concept_pool(classes, patches, row, name, temperature, lists=None):
    op = "concept_pool"
    shape(op, "classes", classes, "K", "D")
    floats(op, "classes", classes)
    stored(op, patches, classes.shape[1])
    shape(op, "row", row, "M")
    shape(op, "name", name, len(row))
    rows(op, "row", row, len(patches.tokens), "patches")
    rows(op, "name", name, len(classes), "classes")
    positive(op, "temperature", temperature)


def candidates(op, classes, present, name, weight, scale, target):
    """What concept_loss and local_loss share."""
    shape(op, "present", present, len(classes))
    truths(op, "present", present)
    shape(op, "weight", weight, len(name))
    positive(op, "scale", scale)
    if target not in TARGETS:
        raise ValueError(f'{op}: target is {target!r}; expected "label" or "argmax"')
    if values_seen(name) and not present[name].all():
        absent = int(name[~present[name]][0])
        raise ValueError(f"{op}: name holds {absent}, a class that present says is absent")


def concept_loss(pooled, classes, present, name, weight, scale, target="label", all_sum=None):
    op = "concept_loss"
    shape(op, "classes", classes, "K", "D")
    floats(op, "classes", classes)
    floats(op, "pooled", pooled)
    shape(op, "name", name, "M")
    shape(op, "pooled", pooled, len(name), classes.shape[1])
    rows(op, "name", name, len(classes), "classes")
    candidates(op, classes, present, name, weight, scale, target)


def local_loss(
    classes, patches, row, name, present, weight, *, temperature, scale, target="label", all_sum=None, lists=None
):
    concept_pool(classes, patches, row, name, temperature)
    candidates("local_loss", classes, present, name, weight, scale, target)


def clip_loss(images, texts, log_scale, first=0, all_sum=None, all_max=None, same=None):
    op = "clip_loss"
    shape(op, "images", images, "B", "D")
    floats(op, "images", images)
    frozen(op, "images", images)
    shape(op, "texts", texts, "b", images.shape[1])
    floats(op, "texts", texts)
    if len(texts) == 0:
        raise ValueError(f"{op}: texts has no rows; expected at least one")
    if first < 0 or first + len(texts) > len(images):
        raise ValueError(
            f"{op}: {len(texts)} texts from column {first} on; expected to end within the {len(images)} rows of images"
        )
    shape(op, "log_scale", log_scale)
    if same is not None:
        shape(op, "same", same, len(images))
        whole(op, "same", same)


def unit_rows(vectors, index, dtype):
    op = "unit_rows"
    shape(op, "vectors", vectors, "n", "D")
    floats(op, "vectors", vectors)
    frozen(op, "vectors", vectors)
    shape(op, "index", index, "U")
    rows(op, "index", index, len(vectors), "vectors")


def used_units(tokens, index, projection, uses=None):
    op = "used_units"
    shape(op, "projection", projection, "W", "D")
    floats(op, "projection", projection)
    floats(op, "tokens", tokens)
    if tokens.dim() < 2 or tokens.shape[-1] != len(projection):
        raise ValueError(f"{op}: tokens has shape {list(tokens.shape)}; expected [*, {len(projection)}]")
    shape(op, "index", index, "U")
    rows(op, "index", index, tokens.shape[:-1].numel(), "tokens")


def group_pool(logits, values, hard, eps=1.0):
    op = "group_pool"
    shape(op, "logits", logits, "B", "G", "N")
    shape(op, "values", values, logits.shape[0], logits.shape[2], "C")
    floats(op, "logits", logits)
    floats(op, "values", values, (logits.dtype,))
    if logits.shape[1] == 0:
        raise ValueError(f"{op}: logits has no groups; expected [B, G, N] with G of at least 1")
    if not eps >= 0:
        raise ValueError(f"{op}: eps is {eps}; expected 0 or more")


def segment_match(segments, views):
    op = "segment_match"
    shape(op, "segments", segments, "B", "M", "D")
    shape(op, "views", views, segments.shape[0], "V", segments.shape[2])
    floats(op, "segments", segments)
    floats(op, "views", views, (segments.dtype,))
    frozen(op, "views", views)
    if views.shape[1] == 0 or segments.numel() == 0:
        empty = "views" if views.shape[1] == 0 else "segments"
        raise ValueError(f"{op}: {empty} is empty; expected at least one")


def embed_norm(words, places, index, segment, gain, shift):
    op = "embed_norm"
    shape(op, "words", words, "words", "W")
    W = words.shape[1]
    shape(op, "places", places, "places", W)
    shape(op, "index", index, "R", "L")
    rows(op, "index", index, len(words), "words")
    shape(op, "segment", segment, *index.shape)
    whole(op, "segment", segment)
    floats(op, "words", words)
    floats(op, "places", places, (words.dtype,))
    for argument, tensor in (("gain", gain), ("shift", shift)):
        shape(op, argument, tensor, W)
        floats(op, argument, tensor)


def transformer_blocks(x, normal, segment, blocks, heads, quick=False):
    op = "transformer_blocks"
    shape(op, "x", x, "R", "L", "W")
    R, L, W = x.shape
    shape(op, "normal", normal, R, L, W)
    shape(op, "segment", segment, R, L)
    whole(op, "segment", segment)
    floats(op, "x", x)
    floats(op, "normal", normal)
    if heads < 1 or W % heads:
        raise ValueError(f"{op}: heads is {heads!r}; expected a divisor of {W}, the channels of x")
    if not blocks:
        raise ValueError(f"{op}: blocks is empty; expected at least one")
    V = len(blocks[0].fc_weight)
    sizes = (3 * W, W), (3 * W,), (W, W), (W,), (W,), (W,), (V, W), (V,), (W, V), (W,), (W,), (W,)
    for i, block in enumerate(blocks):
        for name, tensor, size in zip(block._fields, block, sizes, strict=True):
            shape(op, f"blocks[{i}].{name}", tensor, *size)
            floats(op, f"blocks[{i}].{name}", tensor)


def quantise(vectors, mean, std):
    op = "quantise"
    floats(op, "vectors", vectors)
    if vectors.dim() < 1:
        raise ValueError(f"{op}: vectors is a single number; expected [..., D]")
    for argument, tensor in (("mean", mean), ("std", std)):
        shape(op, argument, tensor, vectors.shape[-1])
        floats(op, argument, tensor)
    if values_seen(vectors):
        finite(op, vectors)
        all_positive(op, "std", std)


def finite(op, vectors):
    """Without a mask as large as the vectors: one NaN or infinity shows in the smallest or the largest value."""
    if vectors.numel():
        low, high = vectors.aminmax()
        if not (torch.isfinite(low) and torch.isfinite(high)):
            raise ValueError(f"{op}: vectors hold NaN or infinite values; expected finite unit vectors")


def smooth_patches(patches, values, temperature):
    op = "smooth_patches"
    shape(op, "patches", patches, "B", "N", "D")
    shape(op, "values", values, *patches.shape[:2], "V")
    floats(op, "patches", patches)
    floats(op, "values", values, (patches.dtype,))
    frozen(op, "patches", patches)
    frozen(op, "values", values)
    positive(op, "temperature", temperature)
    if isinstance(temperature, torch.Tensor):
        if temperature.dim():
            shape(op, "temperature", temperature, len(patches))
        if values_seen(temperature):
            all_positive(op, "temperature", temperature)


def refine_scores(image, scores, iterations=10, dilations=(1,)):
    op = "refine_scores"
    shape(op, "image", image, "C", "H", "W")
    shape(op, "scores", scores, "K", *image.shape[1:])
    floats(op, "image", image)
    floats(op, "scores", scores)
    frozen(op, "image", image)
    frozen(op, "scores", scores)
    if image.numel() == 0:
        raise ValueError(f"{op}: image has shape {list(image.shape)}; expected at least one colour and one pixel")
    if not isinstance(iterations, int) or iterations < 1:
        raise ValueError(f"{op}: iterations is {iterations!r}; expected a whole number of at least 1")
    if len(dilations) == 0 or not all(isinstance(d, int) and d > 0 for d in dilations):
        raise ValueError(f"{op}: dilations is {dilations!r}; expected whole numbers of at least 1, one or more")
