"""The filters of a finished answer for CPUs: smoothing over patches, refining along edges; see chunked.py.

Smoothing holds the similarities of as many patches as make one part, never [N, N].

Refining keeps what neighbours weigh, one number for each pixel and neighbour [H, W, P], and walks over the image with
two tables of some classes, one read and one written.  A table has a row of classes for each pixel, so that a pixel's
mean is a weighted sum of P of its rows: a bag of embeddings, which PyTorch has in vector code.  Above and below, the
tables repeat the border; then one list of rows serves all strips of the image, counted from the strip's own begin.

At 2048 x 1024 with six dilations that is 400 MB of weights and twice 280 MB of table, whatever the number of classes.
"""

import torch
import torch.nn.functional as F

from fastzss.kernels.parts import parts, working
from fastzss.kernels.reference import neighbours

CLASSES, TABLE = 64, 1 << 26  # in a table: classes, and numbers where the image is large; both at most


def smooth_patches(patches, values, temperature):
    """As reference.smooth_patches."""
    B, N, _ = patches.shape
    wide = working(patches)
    sharpness = 1 / torch.as_tensor(temperature, dtype=wide, device=patches.device).expand(B)
    smooth = torch.empty(values.shape, dtype=values.dtype, device=values.device)
    for b in range(B):
        own, answers = patches[b].to(wide), values[b].to(wide)
        centred = F.normalize(own - own.mean(0), dim=-1)
        queries = centred * sharpness[b]
        for part in parts(N, N):
            smooth[b, part] = (queries[part] @ centred.T).softmax(-1) @ answers
    return smooth


def refine_scores(image, scores, iterations=10, dilations=(1, 2, 4, 8, 12, 24)):
    """As reference.refine_scores."""
    (K, H, W), wide = scores.shape, working(scores)
    # beyond the border all rows and columns are the border's
    moves = [(min(max(dy, 1 - H), H - 1), min(max(dx, 1 - W), W - 1)) for dy, dx in neighbours(dilations)]
    reach = max(dy for dy, _ in moves)
    weights = closeness(image.to(wide), moves)
    strips = parts(H, W * len(moves))
    rows = neighbour_rows(moves, reach, strips[0].stop, W, image.device)
    refined = torch.empty(scores.shape, dtype=scores.dtype, device=scores.device)
    some = max(1, min(K, CLASSES, TABLE // (H * W)))
    tables = torch.empty(2, (H + 2 * reach) * W * some, dtype=wide, device=scores.device)
    for first in range(0, K, some):
        classes = slice(first, min(first + some, K))
        size = classes.stop - first
        read, written = (table[: (H + 2 * reach) * W * size].view(-1, W, size) for table in tables)
        own = slice(reach, reach + H)
        read[own].flatten(0, 1).copy_(scores[classes].flatten(1).T)  # of a matrix: twice as fast as by permute
        for _ in range(iterations):
            read[:reach], read[reach + H :] = read[reach], read[reach + H - 1]
            for strip in strips:
                here = weights[strip].flatten(0, 1)
                near = read[strip.start :].flatten(0, 1)
                mean = F.embedding_bag(rows[: len(here)], near, mode="sum", per_sample_weights=here)
                written[own][strip] = mean.view(-1, W, size)
            read, written = written, read
        refined[classes].flatten(1).copy_(read[own].flatten(0, 1).T)
    return refined


def closeness(image, moves):
    """[H, W, P]: what each pixel's neighbours weigh; the definition's sums, for a strip of rows at a time."""
    C, H, W = image.shape
    down, right = (max(step) for step in zip(*moves, strict=True))
    padded = F.pad(image, [right, right, down, down], mode="replicate")
    moved = padded.unfold(1, H, 1).unfold(2, W, 1)  # [C, 2 down + 1, 2 right + 1, H, W], a view
    weights = image.new_empty(H, W, len(moves))
    seen = len(moves) // 8 * 9  # colours that the spread is of
    for strip in parts(H, W * len(moves)):
        distance = image.new_zeros(len(moves), strip.stop - strip.start, W)
        apart = torch.empty_like(distance)
        for colour in moved:
            for p, (dy, dx) in enumerate(moves):
                torch.sub(colour[down + dy, right + dx, strip], colour[down, right, strip], out=apart[p])
            # of differences from the pixel itself, whose own are zeros: where colours hardly differ, nothing cancels
            squares = apart.square().sum(0).sub_(apart.sum(0).square_().div_(seen))
            spread = squares.clamp_min_(0).div_(seen - 1).sqrt_()
            distance.addcmul_(apart.abs_(), 1 / (C * (0.1 * spread + 1e-8)))
        weights[strip].flatten(0, 1).copy_(distance.neg_().softmax(0).flatten(1).T)
    return weights


def neighbour_rows(moves, reach, high, W, device):
    """int32 [high W, P]: rows of a table at which the neighbours of a strip's pixels lie."""
    dy, dx = torch.tensor(moves, device=device).T
    y = reach + torch.arange(high, device=device).view(-1, 1, 1) + dy
    x = (torch.arange(W, device=device).unsqueeze(1) + dx).clamp_(0, W - 1)
    return (y * W + x).flatten(0, 1).int()
