"""The frozen vision transformer: images -> patch vectors and global vectors.

Patches are those after a block, by default the last, and the model's own final norm, where it has one; class and
register tokens are dropped, a denoiser cleans what is left, if there is one, and it is L2-normalised.  Global vectors
are the class token, where there is one, and the mean of the patches; they are not normalised.

Sizes: S pixels a side, N = (S / patch)^2 patches, D channels, G kinds of global vectors.
"""

import copy

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from fastzss.backbones.looking import CLIP, DENOISED, FITS, Looking
from fastzss.backbones.weights import weights_hash
from fastzss.base.errors import UserError

LONGEST = 16  # short sides: of longer images only the middle is resized


class Vision:
    """A frozen backbone with its preprocessing."""

    def __init__(self, model, name, size, mean, std, interpolation, licence, origin, device, how=Looking()):  # noqa: B008
        self.model = model.eval().requires_grad_(False).to(device)
        self.name, self.size, self.device, self.how = name, size, torch.device(device), how
        self.interpolation, self.licence = interpolation, licence
        self.mean, self.std = CLIP if how.norm == "clip" else (tuple(mean), tuple(std))
        self.channels = model.num_features
        self.grid = tuple(model.patch_embed.grid_size)
        self.prefix = model.num_prefix_tokens
        self.normed = not isinstance(getattr(model, "norm", None), torch.nn.Identity)  # some models norm what they pool
        self.globals = ("cls", "patch-mean") if getattr(model, "cls_token", None) is not None else ("patch-mean",)
        self.block = self._block(how.layer)
        self.denoiser = None
        self.origin = origin  # where the weights are: "shipped", "random", "hub", or a file
        if how.denoiser is not None:
            from fastzss.backbones.denoiser import Denoiser

            self.denoiser = Denoiser(how.denoiser, self.channels, self.grid).eval().requires_grad_(False).to(device)
            self.origin += f"{DENOISED}{how.denoiser.resolve()}"
        self.reload = None  # size -> the same with its weights as they were before their positions met this size
        self._others = {}

    def _block(self, layer):
        """The number of the block that is looked at; None: the last one."""
        count = len(self.model.blocks)
        if layer is not None and not 1 <= abs(layer) <= count:
            raise UserError(f"--layer {layer}: {self.name} has the blocks 1 to {count}, or -1 to -{count}", code=2)
        block = layer and (layer if layer > 0 else count + 1 + layer)
        return None if block == count else block

    @property
    def record(self):
        """All that decides the features; part of a store's identity.  What is as usual is not mentioned."""
        place = f"block {self.block} of {len(self.model.blocks)}" if self.block else "last block"
        unusual = {
            "colours": self.how.norm != "model" and self.how.norm,
            "decode": self.how.decode == "fast" and "fast",
        }
        record = {
            "model": self.name,
            "weights": weights_hash(self.model),
            "licence": self.licence,
            "layer": f"{place}, {'final norm, ' if self.normed else ''}prefix tokens dropped",
            "norm": "l2",
            "size": self.size,
            "preprocess": {
                "resize": FITS[self.how.fit],
                "interpolation": self.interpolation,
                "mean": list(self.mean),
                "std": list(self.std),
                **{key: value for key, value in unusual.items() if value},
            },
        }
        if self.denoiser is not None:
            record["denoiser"] = weights_hash(self.denoiser)
        return record | ({"precision": self.how.precision} if self.how.precision != "fp32" else {})

    def resize(self, image):
        """A PIL image with its short side brought to S pixels."""
        width, height = (self.size * side // min(image.size) for side in image.size)
        return self._resized(image, width, height)

    def _resized(self, image, width, height):
        return image.resize((width, height), getattr(Image.Resampling, self.interpolation.upper()))

    def pixels(self, image):
        """A PIL image -> uint8 [3, S, S]: squashed; or short side to S, then a centre crop, to the pixel as timm's
        evaluation does it."""
        if self.how.fit == "squash":
            return as_tensor(self._resized(image, self.size, self.size))
        image = self.resize(thinned(image))
        left, top = (round((side - self.size) / 2) for side in image.size)
        return as_tensor(image.crop((left, top, left + self.size, top + self.size)))

    def at(self, height, width):
        """The same backbone for images of so many pixels, multiples of its patch; only to be called.

        Its positions are brought to that grid as its own loader would bring them: from the grid they were trained on.
        """
        if (height, width) == (self.size, self.size):
            return self
        if (height, width) not in self._others:
            if height == width and self.reload is not None:
                self._others[height, width] = self.reload(height)
            else:
                nearest = self.at(max(height, width), max(height, width)) if self.reload else self
                other = copy.copy(nearest)
                other.model = copy.deepcopy(nearest.model, {id(p): p for p in nearest.model.parameters()})
                other.model.set_input_size(img_size=(height, width))
                other.grid = tuple(other.model.patch_embed.grid_size)
                self._others[height, width] = other
        return self._others[height, width]

    @torch.inference_mode()
    def __call__(self, pixels):
        """uint8 [B, 3, S, S] -> (unit patches [B, N, D], global vectors [B, G, D]), float32."""
        shape = (1, 3, 1, 1)
        x = pixels.to(self.device, non_blocking=True).float() / 255
        x = (x - x.new_tensor(self.mean).view(shape)) / x.new_tensor(self.std).view(shape)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.how.precision == "bf16"):
            tokens = self._tokens(x).float()
        patches = tokens[:, self.prefix :]
        if self.denoiser is not None:
            patches = self.denoiser(patches)
        kinds = {"cls": tokens[:, 0], "patch-mean": patches.mean(1)}
        return F.normalize(patches, dim=-1), torch.stack([kinds[kind] for kind in self.globals], 1)

    def _tokens(self, x):
        """What comes out of the block that is looked at, after the final norm; prefix tokens first."""
        if self.block is None:
            return self.model.forward_features(x)
        (found,) = self.model.forward_intermediates(
            x, [self.block - 1], norm=True, output_fmt="NLC", return_prefix_tokens=True, intermediates_only=True
        )
        return torch.cat(found[::-1], 1) if isinstance(found, tuple) else found


def thinned(image):
    """The middle of a very long image, more than is looked at: resized as a whole it would take gigabytes."""
    long, short = max(image.size), min(image.size)
    if long <= LONGEST * short:
        return image
    cut = (long // short - LONGEST) // 2 * short  # whole squares: the pixels of the rest are sampled at the same places
    return image.crop((cut, 0, long - cut, short) if image.width == long else (0, cut, short, long - cut))


def as_tensor(image):
    """A PIL image -> uint8 [3, H, W]."""
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()
