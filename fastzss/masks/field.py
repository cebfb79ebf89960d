"""A field: an image as the backbone saw it, its patches on one grid over all of the image.

An image is brought to the backbone's size by its short side and looked at through windows half a window apart; where
windows overlap, patches count the more the nearer they are to their window's middle.  Looked at densely, every window
is seen four times, half a patch apart: a cell of the grid is half a patch, and the mean of the four patches over it.

Sizes: h x w cells, an image brought to H x W pixels, D channels.
"""

import torch
import torch.nn.functional as F

from fastzss import kernels
from fastzss.backbones.vision import as_tensor
from fastzss.masks.windows import corners, resized

AT_ONCE = 16  # views that the backbone is given at a time
BAND = 4096  # cells that are smoothed together: a very long image in parts, as their square is what it costs


class Field:
    """Patches [h w, D], row by row, means of unit vectors; grid (h, w); cell, pixels a side; pixels uint8 [3, H, W]."""

    def __init__(self, patches, grid, cell, pixels):
        self.patches, self.grid, self.cell, self.pixels = patches, tuple(grid), cell, pixels
        self._known = {}

    @property
    def size(self):
        """(H, W) to which the image was brought."""
        return tuple(self.pixels.shape[1:])

    def kept(self, key, make):
        """What `make` gave for a key the first time: a second list of classes needs it again."""
        if key not in self._known:
            self._known[key] = make()
        return self._known[key]

    def forget(self):
        """Let go of all that was kept: a memory's answers stay as long as its image."""
        self._known.clear()

    @property
    def bytes(self):
        """Of all that it holds; what memories say of it counts, too."""
        return sum(t.nbytes for t in (self.patches, self.pixels, *list(self._known.values())))

    @torch.inference_mode()
    def smooth(self, values, temperature):
        """[h w, V]: values of the cells, averaged over the cells of this image that resemble each; 0: as they are."""
        if not temperature:
            return values
        (h, w), wide = self.grid, self.grid[1] > self.grid[0]
        patches, values = (
            t.view(h, w, -1).transpose(0, 1) if wide else t.view(h, w, -1) for t in (self.patches, values)
        )
        bands = [
            kernels.smooth_patches(own.flatten(0, 1).unsqueeze(0), there.flatten(0, 1).unsqueeze(0), temperature).view(
                *there.shape
            )
            for own, there in zip(self._bands(patches), self._bands(values), strict=True)
        ]
        smooth = torch.cat(bands)
        return (smooth.transpose(0, 1) if wide else smooth).flatten(0, 1)

    @staticmethod
    def _bands(rows):
        return [band.contiguous() for band in rows.split(max(1, BAND // rows.shape[1]))]

    def smoothed(self, temperature):
        """[h w, D]: the patches themselves, smoothed."""
        return self.kept(("smoothed", temperature), lambda: self.smooth(self.patches, temperature))

    def maps(self, values):
        """[K, H, W]: values [h w, K] of the cells at the pixels, bilinear."""
        h, w = self.grid
        full = resized(values.T.reshape(-1, h, w), (h * self.cell, w * self.cell))
        return full[:, : self.size[0], : self.size[1]]


@torch.inference_mode()
def see(vision, image, dense=True):
    """The Field of a PIL image."""
    pixels = as_tensor(vision.resize(image))
    (H, W), S, (rows, columns) = pixels.shape[1:], vision.size, vision.grid
    patch = S // rows
    dense = dense and patch % 2 == 0
    fine = 2 if dense else 1  # cells a patch, along a side
    cell, half = patch // fine, patch // 2 if dense else 0
    h, w = -(-H // cell), -(-W // cell)
    room = (half, w * cell - W, half, h * cell - H)  # left, right, top, bottom; the part beyond is mirrored
    padded = F.pad(pixels[None].float(), room, mode="reflect")[0].to(torch.uint8)

    shifts = [(y, x) for y in (0, 1) for x in (0, 1)] if dense else [(0, 0)]
    # in cells; a view that is shifted begins one cell before the image
    places = [(y - dy, x - dx) for y, x in corners((h, w), S // cell) for dy, dx in shifts]
    weight = overlap(rows, columns).repeat_interleave(fine, 0).repeat_interleave(fine, 1).to(vision.device)
    total = torch.zeros(h + 1, w + 1, vision.channels, device=vision.device)
    weights = torch.zeros(h + 1, w + 1, 1, device=vision.device)
    for first in range(0, len(places), AT_ONCE):
        some = places[first : first + AT_ONCE]
        corner = [(half + y * cell, half + x * cell) for y, x in some]
        views = torch.stack([padded[:, y : y + S, x : x + S] for y, x in corner])
        for (y, x), patches in zip(some, vision(views)[0], strict=True):
            patches = patches.view(rows, columns, -1).repeat_interleave(fine, 0).repeat_interleave(fine, 1)
            here = slice(y + 1, y + 1 + rows * fine), slice(x + 1, x + 1 + columns * fine)
            total[here] += weight * patches
            weights[here] += weight
    return Field((total / weights)[1:, 1:].flatten(0, 1), (h, w), cell, pixels)


def overlap(rows, columns):
    """[rows, columns, 1]: what a window's patches count where windows overlap: a pyramid, highest in its middle."""
    slopes = [torch.minimum(torch.arange(n) + 1, n - torch.arange(n)) / n for n in (rows, columns)]
    return (slopes[0].unsqueeze(1) * slopes[1]).unsqueeze(-1)
