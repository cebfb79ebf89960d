"""Blocks of a transformer on packed captions as one operation: PyTorch's products, and between them Triton kernels.

What lies between two products is one kernel (fused_attention.py, fused_block.py).  The whole is one step for autograd,
for what would else be many small launches can then be one for all blocks:

    going forward    the matrices are copied to the dtype of the products by one call
    going back       a matrix's gradient is a product in float32, and no copy;
                     what programs add up for biases, gains and shifts lies side by side, and is summed at the end

For each block and token 6 W + 2 V numbers in that dtype and 2 W of the stream are kept, until the block has been gone
through.  Where a row and head is more than a tile (fused_attention.fits), the whole is the definition.

Sizes: R rows of L tokens, n blocks of W channels, V of the hidden layer, P programs of a backward pass.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fastzss.kernels import reference_tower
from fastzss.kernels.configs import arch_of
from fastzss.kernels.fused_attention import attention, attention_gradient, fits
from fastzss.kernels.fused_block import empty_sums, gelu, gelu_gradient, residual_norm, residual_norm_gradients
from fastzss.kernels.products import compute_dtype, precise
from fastzss.kernels.reference_tower import BlockWeights

MATRICES = "in_weight", "out_weight", "fc_weight", "proj_weight"


class Kept(NamedTuple):
    """What the backward pass of a block needs besides its weights."""

    read: Tensor  # [R, L, W] the norm before the block
    qkv: Tensor  # [R, L, 3 W] without bias
    mixed: Tensor  # [R, L, W]
    middle: Tensor  # [R, L, W] the stream behind attention
    normal: Tensor  # [R, L, W] its norm
    hidden: Tensor  # [R, L, V] without bias and activation
    active: Tensor  # [R, L, V]
    stream: Tensor  # [R, L, W] behind the block


class _Blocks(torch.autograd.Function):
    clear_saved_tensors_on_access = True  # else all would stay until the last block has been gone through

    @staticmethod
    def forward(ctx, x, normal, segment, heads, quick, keep, *weights):
        ctx.set_materialize_grads(False)
        dtype, saved = normal.dtype, []
        blocks = in_dtype(parted(weights, BlockWeights), dtype)
        for block in blocks:
            read, qkv = normal, F.linear(normal, block.in_weight)
            mixed = attention(qkv, block.in_bias, segment, heads)
            y = F.linear(mixed, block.out_weight)
            middle, normal = residual_norm(y, block.out_bias, x, block.gain, block.shift, dtype)
            hidden = F.linear(normal, block.fc_weight)
            active = gelu(hidden, block.fc_bias, quick)
            y = F.linear(active, block.proj_weight)
            x, following = residual_norm(y, block.proj_bias, middle, block.next_gain, block.next_shift, dtype)
            if keep:
                saved += Kept(read, qkv, mixed, middle, normal, hidden, active, x)
            normal = following
        if keep:
            ctx.save_for_backward(segment, *(tensor for block in blocks for tensor in block), *saved)
        ctx.heads, ctx.quick, ctx.dtypes = heads, quick, [weight.dtype for weight in weights]
        return x, normal

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, residual, upstream):
        segment, *tensors = ctx.saved_tensors
        n = len(ctx.dtypes) // len(BlockWeights._fields)
        blocks, kept = parted(tensors[: len(ctx.dtypes)], BlockWeights), parted(tensors[len(ctx.dtypes) :], Kept)
        del tensors
        residual, upstream = (None if g is None else g.contiguous() for g in (residual, upstream))
        (R, L), (V, W) = segment.shape, blocks[0].fc_weight.shape
        dtype, device = blocks[0].fc_weight.dtype, segment.device
        sums = empty_sums(R * L, n, 6 * W + V, device=device)
        row_sums = torch.empty(R, n, 3 * W, dtype=torch.float32, device=device)
        wanted = parted(ctx.needs_input_grad[-len(ctx.dtypes) :], BlockWeights)
        matrices = [None] * n
        for i in reversed(range(n)):
            block, own, want = blocks[i], kept.pop(), wanted[i]
            of_middle, of_hidden, of_last = sums[:, i].split([3 * W, V, 3 * W], 1)
            residual, g = residual_norm_gradients(own.stream, block.next_gain, upstream, residual, of_last, dtype)
            g_proj = matrix_gradient(g, own.active) if want.proj_weight else None
            g = gelu_gradient(own.hidden, block.fc_bias, g @ block.proj_weight, of_hidden, ctx.quick)
            g_fc = matrix_gradient(g, own.normal) if want.fc_weight else None
            upstream = g @ block.fc_weight
            residual, g = residual_norm_gradients(own.middle, block.gain, upstream, residual, of_middle, dtype)
            g_out = matrix_gradient(g, own.mixed) if want.out_weight else None
            upstream = g @ block.out_weight
            g = attention_gradient(own.qkv, block.in_bias, segment, ctx.heads, upstream, row_sums[:, i])
            g_in = matrix_gradient(g, own.read) if want.in_weight else None
            upstream = g @ block.in_weight
            matrices[i] = g_in, g_out, g_fc, g_proj
        gradients = []
        for (g_in, g_out, g_fc, g_proj), in_bias, rest in zip(matrices, row_sums.sum(0), sums.sum(0), strict=True):
            out_bias, gain, shift, fc_bias, *last = rest.split([W, W, W, V, W, W, W])
            gradients += BlockWeights(g_in, in_bias, g_out, out_bias, gain, shift, g_fc, fc_bias, g_proj, *last)
        gradients = [
            g.to(dtype) if want else None
            for g, dtype, want in zip(gradients, ctx.dtypes, ctx.needs_input_grad[-len(gradients) :], strict=True)
        ]
        return residual, upstream, None, None, None, None, *gradients


def parted(tensors, kind):
    """[kind]: tensors that lie end to end."""
    size = len(kind._fields)
    return [kind(*tensors[start : start + size]) for start in range(0, len(tensors), size)]


def in_dtype(blocks, dtype):
    """Blocks with their matrices in a dtype, all copied at once."""
    matrices = [getattr(block, name) for block in blocks for name in MATRICES]
    if all(matrix.dtype == dtype for matrix in matrices):
        return blocks
    copies = [torch.empty_like(matrix, dtype=dtype) for matrix in matrices]
    torch._foreach_copy_(copies, matrices)
    each = iter(copies)
    return [block._replace(**{name: next(each) for name in MATRICES}) for block in blocks]


def matrix_gradient(upstream, read):
    """Of a linear layer's matrix: float32, summed over all tokens."""
    return precise(upstream.flatten(0, 1).T, read.flatten(0, 1))


def transformer_blocks(x, normal, segment, blocks, heads, quick=False):
    """See reference_tower.transformer_blocks; the second result is of the dtype in which products are computed."""
    dtype, (_, L, W) = compute_dtype(x), x.shape
    if not fits(dtype, L, W // heads, arch_of(x.device)):
        return reference_tower.transformer_blocks(x, normal, segment, blocks, heads, quick)
    tensors = x.contiguous(), normal.to(dtype).contiguous(), segment.int().contiguous()
    weights = (tensor for block in blocks for tensor in block)
    return _Blocks.apply(*tensors, heads, quick, torch.is_grad_enabled(), *weights)
