"""What a training step on a GPU consists of, counted without one: FLOPs, bytes and launches by kind.

The very code of the step runs on tensors that have a shape and a device but no memory.  An operation of PyTorch counts
as one launch that reads and writes each tensor it is given once; a kernel of ours likewise, but for the patches, of
which the images of the batch are counted.  What caches save and what an operation does in several passes is not seen:
this is a floor.  Kinds:

    products      matrix products of the tower
    attention     what lies between q, k, v and their mixture
    elementwise   all else of the tower: norms, GELU, residuals, casts, sums, gathers
    losses        both losses, forward and backward, with their products
    optimiser     AdamW, on all words of the table: the made-up captions have them all

With a card's rates (--copy GB/s, --matmul TFLOP/s; measured where there is a GPU) that is a projection of the least
time of a step, and with --ranks of a step that several share: projection.py.
"""

import contextlib
from collections import Counter
from dataclasses import replace
from unittest import mock

import fake
import numpy as np
import projection
import torch
from measuring import CHANNELS, GRID
from steps import LOSS
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from fastzss.kernels import Patches
from fastzss.methods.simzss.batch import Texts, collate
from fastzss.methods.simzss.objective import simzss, used_units
from fastzss.methods.simzss.shapes import shapes_of
from fastzss.methods.simzss.task import Learner, SimZSSTask
from fastzss.text.tower import PRESETS
from fastzss.training.settings import TrainConfig
from fastzss.training.step import parameter_groups
from fastzss.training.sums import Sums

KINDS = ("products", "attention", "elementwise", "losses", "optimiser")
FREE = (
    "profiler::",
    "new_empty",
    "empty",
    "detach",
    "prim::device",
    "lift_fresh",
    "set_",
    "is_same_size",
    "sym_",
    "_unsafe_view",
)
# of a launch over 1, 2, ... lists (multi_tensor_apply, CUDA 12): tensors of a list, blocks; numbers of a block
TENSORS, BLOCKS, CHUNK = (110, 64, 48, 36, 30), 320, 65536


class Counts:
    """FLOPs, bytes and launches of each kind, and the largest [*, L, L] that was seen."""

    def __init__(self, batch):
        self.flops, self.bytes, self.launches, self.names = Counter(), Counter(), Counter(), Counter()
        self.batch, self.section, self.masks = batch, "tower", []
        self.images = len(batch.image.unique())  # whose patches are read
        self.traffic = projection.Traffic(self)  # what is summed over ranks, where several share the batch

    def add(self, kind, name, flops, size, launches=1):
        kind = self.section if self.section in KINDS else kind
        self.flops[kind] += flops
        self.bytes[kind] += size
        self.launches[kind] += launches
        self.names[kind, name] += launches

    def operation(self, function, inputs, outputs):
        """An operation of PyTorch."""
        name = function._schema.name.removeprefix("aten::")
        if name.startswith(FREE) or is_view(function):
            return
        flops = 0
        if function._overloadpacket in flop_registry:
            flops = flop_registry[function._overloadpacket](*inputs[0], **inputs[1], out_val=outputs[0])
        read, written = tensors(inputs), tensors(outputs)
        L = self.batch.ids.shape[1]
        self.masks += [t.shape for t in written if t.dim() > 2 and t.shape[-2:] == (L, L)]
        if name.startswith(("embedding", "index_select", "gather")) and "backward" not in name:
            read = [t for t in read if not t.is_floating_point()] + written
        launches = 1
        if name.startswith("_fused_adam"):
            own = inputs[0][0]
            launches = launches_over(own, 4)
            written = read[: 3 * len(own)]
        elif name.startswith("_foreach"):
            lists = [each for each in (*inputs[0], *outputs) if isinstance(each, (list, tuple)) and each]
            launches = launches_over(lists[0], len(lists))
        size = sum(t.nbytes for t in distinct(read)) + sum(t.nbytes for t in distinct(written))
        self.add("products" if flops else "elementwise", name, flops, size, launches)

    def kernel(self, kernel, arguments, options):
        """A kernel of ours."""
        file = kernel.fn.__module__.rpartition(".")[2]
        given = dict(zip(kernel.arg_names, arguments, strict=False)) | options
        held = {name: value for name, value in given.items() if torch.is_tensor(value)}
        size = sum(t.nbytes for t in distinct(held.values()))
        base = given.get("tokens")
        store = getattr(base, "base", base)  # a tensor, or its descriptor
        if store is not None:  # of the store the images of the batch, not all
            size += self.images * store[0].nbytes - (store.nbytes if torch.is_tensor(base) else 0)
            scale = given.get("scale")
            size += 0 if scale is None else self.images * scale[0].nbytes - scale.nbytes
        self.add(
            "attention" if file == "fused_attention" else "elementwise",
            f"{file}.{kernel.fn.__name__}",
            flops_of(file, kernel.fn.__name__, given),
            size,
        )


def launches_over(own, lists):
    """Of one operation over so many lists of tensors, of which `own` is one."""
    launches = held = blocks = 0
    for tensor in own:
        chunks, held = -(-tensor.numel() // CHUNK), held + 1
        for chunk in range(chunks):
            blocks, last = blocks + 1, chunk == chunks - 1
            if blocks == BLOCKS or held == TENSORS[lists - 1] and last:
                launches, blocks, held = launches + 1, 0, 0 if last else 1  # its rest is of the next one
    return launches + (blocks > 0)


def flops_of(file, name, given):
    """Of the products inside a kernel of ours."""
    if file == "fused_attention":
        heads, (rows, L, _) = given["H"], given["qkv"].shape
        return 2 * L * L * given["C"] * heads * rows * (2 if name == "_attention_forward" else 5)
    if file == "fused_clip" and name in ("_forward", "_backward"):
        texts = given["b"] if name == "_forward" else given["stop"] - given["start"]
        return 2 * given["B"] * texts * given["D"]
    if file == "fused_concept" and name in ("_forward", "_backward"):
        rows = given["R"] if name == "_forward" else given["stop"] - given["start"]
        return 2 * rows * given["K"] * given["D"]
    if file == "fused_pool" and name in ("_forward", "_backward"):
        return 4 * len(given["row"]) * given["N"] * given["D"]
    return 0


def is_view(function):
    """Whether its result lies where its input lies, unwritten."""
    results = [result.alias_info for result in function._schema.returns]
    return any(alias is not None and not alias.is_write for alias in results)


def tensors(tree):
    return [leaf for leaf in torch.utils._pytree.tree_leaves(tree) if torch.is_tensor(leaf)]


def distinct(some):
    """Of tensors that are one, the first."""
    return {id(tensor): tensor for tensor in some}.values()


class Counting(TorchDispatchMode):
    def __init__(self, counts):
        super().__init__()
        self.counts = counts

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        self.counts.operation(function, (args, kwargs or {}), (out,))
        return out


@contextlib.contextmanager
def pretended_gpu(counts):
    """Tensors without memory, of which everything takes the path of a GPU of compute capability 9.0."""
    from triton.runtime.jit import JITFunction

    from fastzss import kernels
    from fastzss.kernels import fused_clip, fused_concept, fused_tower, fused_used, patch_tiles, products

    def run(kernel, *arguments, grid=None, warmup=False, **options):
        counts.kernel(kernel, arguments, options)

    def precise(a, b, out=None):  # a product that PyTorch has on a GPU only
        out = a.new_empty(len(a), b.shape[1], dtype=torch.float32) if out is None else out
        counts.add("products", "mm", 2 * len(a) * b.numel(), a.nbytes + b.nbytes + out.nbytes)
        return out

    with contextlib.ExitStack() as stack:
        put = lambda *rest: stack.enter_context(mock.patch.object(*rest))  # noqa: E731
        put(kernels, "backend", lambda tensor: "triton")
        put(kernels.checks, "values_seen", lambda tensor: False)
        put(JITFunction, "run", run)
        put(patch_tiles, "describable", lambda tokens, DC: False)
        for module in (fused_tower, products, patch_tiles):
            put(module, "arch_of", lambda device: 90)
        for module in (fused_clip, fused_concept, fused_tower, fused_used):
            put(module, "precise", precise)
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        yield


def coco_batch(batch, ranks=1):
    """A rank's Batch of made-up captions as long as COCO's, filled up to the shapes of such a batch."""
    captions, images = max(batch, fake.CAPTIONS // 8), fake.IMAGES // 8
    row, ids, offset = fake.captions(images, captions)
    caption, name, token, sizes = fake.mentions(offset)
    texts = Texts.of(ids, offset, row, caption, name, token, sizes)
    chosen = np.random.default_rng(0).permutation(captions)[:batch]
    return collate(texts, chosen, 0, ranks, shapes_of(texts, [chosen], ranks)).with_lists()


def counted(size, batch, N, D):
    """Counts of one step of our form, of a tower of some TowerSize on a Batch, which may be one rank's share."""
    counts, alone = Counts(batch), len(batch.eot) == len(batch)
    with torch.device("meta"):
        learner = Learner(size, D, shared=not alone)
    with pretended_gpu(counts), contextlib.nullcontext() if alone else projection.among_ranks(counts.traffic):
        learner.to_empty(device="cpu")
        groups = parameter_groups(learner, TrainConfig.weight_decay)
        optimiser = torch.optim.AdamW(groups, lr=0.0, fused=True, **SimZSSTask.optimiser)
        stored = torch.empty(fake.IMAGES, N, D, dtype=torch.int8), torch.empty(fake.IMAGES, N, dtype=torch.float16)
        patches, images = Patches(*stored, torch.empty(D), torch.empty(D)), torch.empty(fake.IMAGES, D)
        here = batch._each(lambda t: torch.empty(t.shape, dtype=t.dtype))
        for parameter in learner.parameters():
            parameter.grad = torch.empty_like(parameter)
        optimiser.step()
        optimiser.zero_grad()
        sums = Sums(learner.parameters())
        fast = torch.autocast("cpu", torch.bfloat16)
        with Counting(counts):
            with fast:
                units = used_units(learner.text, here)
            leaf = units.detach().float().requires_grad_()
            counts.section = "losses"
            with fast:
                losses = simzss(leaf, here, patches, images, learner.logit_scale, **LOSS)
            losses.loss.backward()
            counts.section = "tower"
            units.backward(leaf.grad)
            sums.finish()
            counts.section = "optimiser"
            optimiser.step()
            optimiser.zero_grad()
    return counts


def run(args, folder=None):
    rates, ranks, link = projection.rates_of(args), args.ranks or 1, args.link or projection.NVLINK
    N, D, size = GRID[0] * GRID[1], CHANNELS[args.size], PRESETS[args.size]
    shares = []
    for number in projection.numbers_of_ranks(ranks, args.batch):
        batch = coco_batch(args.batch, number)
        counts = counted(size, batch, N, D)
        shares.append(projection.shared(counts, number, rates, link))
    fewer = counted(replace(size, layers=size.layers - 1), batch, N, D)
    return {
        "machine": args.machine,
        "settings": {"size": args.size, "batch": args.batch, "dtype": "int8", "patches": N, "channels": D, **rates}
        | ({"ranks": ranks, "link": link} if args.ranks else {}),
        "rows": list(counts.batch.ids.shape),
        "flops": {kind: counts.flops[kind] for kind in KINDS},
        "bytes": {kind: counts.bytes[kind] for kind in KINDS},
        "launches": {kind: counts.launches[kind] for kind in KINDS},
        "launches_step": counts.launches.total(),
        "elementwise_bytes_per_layer": counts.bytes["elementwise"] - fewer.bytes["elementwise"],
        "launches_per_layer": counts.launches.total() - fewer.launches.total(),
        "masks": [list(shape) for shape in counts.masks],
        "seconds": projection.floors((counts.flops, counts.bytes), rates),
        "seconds_step": shares[-1]["seconds_step"],
        "seconds_recipe": shares[-1]["seconds_recipe"],
        "operations": {f"{kind}: {name}": count for (kind, name), count in counts.names.most_common()},
        **({"ranks": shares} if args.ranks else {}),
    }


def show(result):
    settings = result["settings"]
    if "ranks" in result:
        print(f"one of {settings['ranks']} ranks: {settings['batch'] // settings['ranks']} captions")
    print(f"{'counted':12}{'TFLOP':>10}{'GB':>10}{'launches':>10}{'floor ms':>10}")
    for kind in KINDS:
        work, size, ms = result["flops"][kind] / 1e12, result["bytes"][kind] / 1e9, result["seconds"][kind] * 1e3
        print(f"{kind:12}{work:10.2f}{size:10.1f}{result['launches'][kind]:10}{ms:10.1f}")
    each = result["elementwise_bytes_per_layer"] / 1e9
    print(f"elementwise {each:.1f} GB a layer; {result['launches_step']} launches a step; {len(result['masks'])} masks")
    rates = f"{settings['copy']:.0f} GB/s and {settings['matmul']:.0f} TFLOP/s"
    step, recipe = result["seconds_step"] * 1e3, result["seconds_recipe"]
    steps = projection.STEPS
    print(f"a projection, not a measurement: at {rates} a step takes {step:.0f} ms, {steps} {recipe:.0f} s")
    if "ranks" in result:
        projection.show_shared(result["ranks"], settings["link"])
