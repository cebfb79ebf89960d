"""Windows over an image, as the public protocols lay them, and the field of what a backbone sees in them.

An image is brought to `short` by its short side, but to `long` at most by its long one, and looked at through windows
`stride` apart, the last of a row shifted back inside.  Scores of a window's patches are brought to its pixels,
bilinear; where windows overlap they are averaged; the mean is brought to the size of the labels, bilinear.

All of that is linear and works along one side at a time, so it is two small matrices (Side.matrix), of rows and of
columns: scores at the pixels of the labels are  down @ grid @ across.T,  where `grid` has the patches of all windows
side by side.  Nothing between is ever made.

Sizes: an image of H x W pixels, gy x gx windows of h x w patches, D channels, K classes.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache, partial

import torch
import torch.nn.functional as F

from fastzss import kernels
from fastzss.backbones.vision import as_tensor
from fastzss.masks.field import Field

AT_ONCE = 16  # windows that the backbone is given at a time


def fitted(size, short, long):
    """(H, W) of an image of `size` with its aspect: its short side `short`, or its long side `long` if that is less."""
    scale = min(long / max(size), short / min(size))
    return tuple(int(side * scale + 0.5) for side in size)


def starts(length, window, stride):
    """Where windows begin along one side."""
    count = max(length - window + stride - 1, 0) // stride + 1
    return [max(min(number * stride + window, length) - window, 0) for number in range(count)]


@dataclass(frozen=True)
class Side:
    """One side of an image under windows.

    original: pixels of the image, and of its labels     resized: those it is brought to     patch: of the backbone
    pad: "patch": a window is filled up to whole patches, half before, half behind; "square": it is resized to `window`
    """

    original: int
    resized: int
    window: int
    stride: int
    patch: int
    pad: str
    align_corners: bool

    @cached_property
    def starts(self):
        return starts(self.resized, self.window, self.stride)

    @property
    def extent(self):
        """Pixels of each window."""
        return min(self.window, self.resized)

    @property
    def seen(self):
        """Pixels that the backbone is given of each window."""
        return self.window if self.pad == "square" else -(-self.extent // self.patch) * self.patch

    @property
    def before(self):
        return (self.seen - self.extent) // 2 if self.pad == "patch" else 0

    @property
    def patches(self):
        """Of each window."""
        return self.seen // self.patch

    @cached_property
    def resized_matrix(self):
        """[resized, windows * patches]: from scores of patches to those of pixels of the resized image."""
        extent, n = self.extent, self.patches
        if self.pad == "square":
            one = bilinear(n, extent, self.align_corners)
        else:
            one = bilinear(n, self.seen, self.align_corners)[self.before : self.before + extent]
        matrix, count = torch.zeros(self.resized, len(self.starts) * n), torch.zeros(self.resized, 1)
        for number, start in enumerate(self.starts):
            matrix[start : start + extent, number * n : (number + 1) * n] += one
            count[start : start + extent] += 1
        return matrix / count

    @cached_property
    def matrix(self):
        """[original, windows * patches]: the same for the pixels of the labels."""
        return bilinear(self.resized, self.original) @ self.resized_matrix


def bilinear(old, new, align_corners=False):
    """[new, old]: what brings `old` values to `new` places."""
    if old == new:
        return torch.eye(old)
    return F.interpolate(torch.eye(old)[None], new, mode="linear", align_corners=align_corners)[0].T


@dataclass(frozen=True, kw_only=True)
class WindowLook:
    """How a protocol looks at images through windows."""

    short: int = 448
    long: int = 2048
    window: int = 448
    stride: int = 224
    pad: str = "patch"
    align_corners: bool = False

    @lru_cache(maxsize=512)  # noqa: B019  a look is a few numbers, and one is made a set
    def sides(self, size, patch):
        """(rows, columns) of an image of (H, W) pixels; their matrices are made once a size."""
        shape = fitted(size, self.short, self.long)
        return tuple(
            Side(old, new, self.window, self.stride, patch, self.pad, self.align_corners)
            for old, new in zip(size, shape, strict=True)
        )

    def resized(self, image):
        """A PIL image -> uint8 [3, H, W] as it is looked at: bilinear without smoothing, as OpenCV does it."""
        pixels = as_tensor(image)
        size = fitted(pixels.shape[1:], self.short, self.long)
        if size == tuple(pixels.shape[1:]):
            return pixels
        return F.interpolate(pixels[None].float(), size, mode="bilinear")[0].round().clamp(0, 255).to(torch.uint8)

    def views(self, pixels, size, vision):
        """uint8 [windows, 3, h, w]: what the backbone is given of a resized image."""
        rows, columns = self.sides(size, patch_of(vision))
        crops = [pixels[:, y : y + rows.extent, x : x + columns.extent] for y in rows.starts for x in columns.starts]
        views = torch.stack(crops)
        shape = (rows.seen, columns.seen)
        if views.shape[2:] == shape:
            return views
        if self.pad == "square":
            return F.interpolate(views.float(), shape, mode="bilinear").round().clamp(0, 255).to(torch.uint8)
        mean = (torch.tensor(vision.mean) * 255).round().to(torch.uint8).view(1, 3, 1, 1)  # zero, once normalised
        filled = mean.expand(len(views), 3, *shape).clone()
        filled[:, :, rows.before : rows.before + rows.extent, columns.before : columns.before + columns.extent] = views
        return filled

    @torch.inference_mode()
    def see(self, vision, images):
        """The WindowField of each of some (size (H, W), resized pixels); their windows are looked at together."""
        views = [self.views(pixels, size, vision) for size, pixels in images]
        seen = [None] * len(images)
        for shape in {view.shape[2:] for view in views}:
            own = [number for number, view in enumerate(views) if view.shape[2:] == shape]
            eye = vision.at(*shape)
            patches = torch.cat([eye(some)[0] for some in torch.cat([views[number] for number in own]).split(AT_ONCE)])
            for number, part in zip(own, patches.split([len(views[number]) for number in own]), strict=True):
                size, pixels = images[number]
                seen[number] = WindowField(part, self.sides(size, patch_of(vision)), partial(as_it_is, pixels))
        return seen


def as_it_is(value):
    return value


def patch_of(vision):
    return vision.size // vision.grid[0]


class WindowField(Field):
    """Patches of the windows of an image, [windows * N, D], window by window; sides (rows, columns).

    `pixels`: a function that gives the resized image, which only refinement asks for.
    """

    def __init__(self, patches, sides, pixels):
        self.sides, self._pixels, self._known = sides, pixels, {}
        rows, columns = sides
        self.shape = len(rows.starts), len(columns.starts), rows.patches, columns.patches
        self.grid = self.shape[0] * self.shape[2], self.shape[1] * self.shape[3]
        self.patches = patches.flatten(0, -2)

    @property
    def pixels(self):
        return self._pixels()

    @property
    def size(self):
        return tuple(side.resized for side in self.sides)

    @torch.inference_mode()
    def smooth(self, values, temperature):
        """[P, V]: values of the patches, averaged over the patches of the same window that resemble each."""
        if not temperature:
            return values
        windows = self.shape[0] * self.shape[1]
        patches, own = (t.view(windows, -1, t.shape[-1]).contiguous() for t in (self.patches, values))
        return kernels.smooth_patches(patches, own, temperature).view(*values.shape)

    def on_grid(self, values):
        """[K, gy h, gx w] of values [P, K]."""
        gy, gx, h, w = self.shape
        return values.view(gy, gx, h, w, -1).permute(4, 0, 2, 1, 3).reshape(-1, *self.grid)

    def maps(self, values):
        """[K, H, W]: values of the patches at the pixels of the resized image."""
        down, across = (side.resized_matrix.to(values.device) for side in self.sides)
        return down @ (self.on_grid(values) @ across.T)

    def matrices(self):
        """(down [H, gy h], across [W, gx w]) to the pixels of the labels."""
        return tuple(side.matrix for side in self.sides)
