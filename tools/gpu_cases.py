"""What gpu_check.py checks: every operation, in every dtype or storage."""

import importlib
import itertools
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent


class Check(NamedTuple):
    """One operation on one input.  Leaves get gradients; floats of `inputs` and leaves are cast to the dtype judged."""

    op: str
    label: str
    dtype: object  # plain PyTorch is judged in it
    inputs: dict
    leaves: dict
    environment: dict = {}
    cast: bool = True  # whether ours gets the leaves in that dtype as well
    call: object = None  # what takes the leaves by their names where the operation does not


def script(name):
    """A file of tools/ or benchmarks/ as a module; late, for TRITON_INTERPRET is read when triton is imported."""
    for folder in ("tools", "benchmarks"):
        if str(ROOT / folder) not in sys.path:
            sys.path.append(str(ROOT / folder))
    return importlib.import_module(name)


def one_block(x, normal, segment, heads, quick, **weights):
    from fastzss import kernels

    return kernels.transformer_blocks(x, normal, segment, [kernels.BlockWeights(**weights)], heads, quick)


def checks(run):
    """Every operation, in every dtype or storage."""
    import torch
    import torch.nn.functional as F

    device = run.device
    B, N, M, K, D, W = (4, 20, 5, 3, 24, 12) if run.toy else (96, 256, 200, 70, 768, 512)
    generator = torch.Generator().manual_seed(0)
    normal = lambda *sizes: torch.randn(*sizes, generator=generator).to(device)  # noqa: E731
    unit = lambda *sizes: F.normalize(normal(*sizes), dim=-1)  # noqa: E731
    whole = lambda high, *sizes: torch.randint(high, sizes, generator=generator).to(device)  # noqa: E731

    images = unit(B, D)
    texts = F.normalize(unit(B, D) + images, dim=-1)
    name = torch.arange(M, device=device) % K  # all are named: plain float16 makes NaN of a class without a mention
    classes, used = unit(K, D), whole(4 * B, 3 * B)
    offset = torch.arange(M + 1, device=device) * 2
    pooled = unit(M, D) + classes[name]
    candidates = {"present": torch.ones(K, dtype=torch.bool, device=device), "name": name, "weight": 1.0 + whole(3, M)}
    for dtype in (torch.float32, torch.float16, torch.bfloat16)[: 2 if run.toy else 3]:  # not bfloat16 if interpreted
        kind = str(dtype).removeprefix("torch.")
        for same in (None, whole(B // 3 + 1, B)):
            label = f"{kind}{', same images' if same is not None else ''}"
            leaves = {"texts": texts, "log_scale": torch.tensor(2.6, device=device)}
            yield Check("clip_loss", label, dtype, {"images": images, "same": same}, leaves)
        for target in ("label", "argmax"):
            inputs = {**candidates, "scale": 14.0, "target": target}
            yield Check("concept_loss", f"{kind}, {target}", dtype, inputs, {"pooled": pooled, "classes": classes})
        yield Check("unit_rows", kind, dtype, {"vectors": normal(B, D), "index": whole(B, 3 * B), "dtype": dtype}, {})
        inputs = {"offset": offset, "name": name, "names": K}
        yield Check("class_vectors", kind, dtype, inputs, {"units": unit(2 * M, D)})
        leaves = {"tokens": normal(4 * B, W), "projection": normal(W, D) * W**-0.5}
        yield Check("used_units", kind, dtype, {"index": used}, leaves)
        for L, heads in ((64, W // 4 if run.toy else 8), (128, 1 if run.toy else 16)):
            segment = torch.arange(L, device=device).div(9, rounding_mode="floor").int().repeat(8 if run.toy else B, 1)
            segment[:, L - 5 :] = -1
            tokens = len(segment), L
            sizes = {"in": (3 * W, W), "out": (W, W), "fc": (W + 3, W), "proj": (W, W + 3)}
            leaves = {f"{name}_weight": normal(*size) * size[1] ** -0.5 for name, size in sizes.items()}
            leaves |= {f"{name}_bias": normal(size[0]) for name, size in sizes.items()}
            leaves |= {name: normal(W) for name in ("gain", "shift", "next_gain", "next_shift")}
            leaves |= {"x": normal(*tokens, W), "normal": normal(*tokens, W)}
            for quick in (False, True):
                label = f"{kind}, L {L}, {heads} heads{', quick' * quick}"
                inputs = {"segment": segment, "heads": heads, "quick": quick}
                yield Check("transformer_blocks", label, dtype, inputs, leaves, call=one_block)
            inputs = {"segment": segment, "index": whole(K, *tokens)}
            leaves = {"words": normal(K, W), "places": normal(9, W), "gain": normal(W), "shift": normal(W)}
            yield Check("embed_norm", f"{kind}, L {L}", dtype, inputs, leaves)
        inputs = {"values": normal(B, N, W), "hard": True}
        distinct = torch.rand(B, M // 4 + 2, N, generator=generator).argsort(1).to(device) / 2  # in any dtype
        yield Check("group_pool", f"{kind}, hard", dtype, inputs, {"logits": distinct})
        inputs = {"hard": False}
        yield Check("group_pool", f"{kind}, soft", dtype, inputs, {"logits": distinct, "values": normal(B, N, W)})
        views = unit(B, 29, D)
        near = views[:, :8] + 0.05 * normal(B, 8, D).sign() * (1 + normal(B, 8, D).abs())  # no two are as near
        yield Check("segment_match", kind, dtype, {"views": views}, {"segments": near})
        inputs = {"vectors": unit(B, N, D), "mean": 0.1 * unit(D), "std": 0.1 + unit(D).abs()}
        yield Check("quantise", kind, dtype, inputs, {})
        inputs = {"patches": unit(2, 4 * N, D) + 0.03, "values": normal(2, 4 * N, M), "temperature": 0.1}
        yield Check("smooth_patches", kind, dtype, inputs, {})
        image, scores = normal(3, N, N + 5).abs(), normal(K, N, N + 5)
        yield Check("refine_scores", kind, dtype, {"image": image, "scores": scores}, {})
    for storage, width in itertools.product(
        (torch.int8, torch.float16, torch.float32), (40,) if run.toy else (128, 192, 384, 768, 1024, 100)
    ):
        for length in (N,) if run.toy or width != 768 else (N, 50, 1369):
            with torch.device(device):
                patches = script("cases").patches_of(storage, B, length, width)
            row, vectors = whole(B, M), unit(K, width)
            judged = torch.float32 if storage == torch.float32 else torch.float16
            label = f"{str(storage).removeprefix('torch.')}, N {length}, D {width}"
            inputs = {"patches": patches, "row": row, "name": name, "temperature": 0.1}
            yield Check("concept_pool", label, judged, inputs, {"classes": vectors}, cast=False)
            if length == N:
                inputs |= {**candidates, "scale": 14.0}
                for one in "01":
                    label_one = f"{label}, {'one kernel' if one == '1' else 'two kernels'}"
                    switch = {"FASTZSS_FUSED_STEP": one}
                    yield Check("local_loss", label_one, judged, inputs, {"classes": vectors}, switch, cast=False)
