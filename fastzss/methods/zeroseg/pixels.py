"""The paper's student: an encoder of its own, from pixels, that also learns to reconstruct what it does not see.

    pixels ─► patches + fixed positions ─► a random 40 % of them ─► encoder ─► segment head
                                                                        └────► decoder: the hidden patches' pixels

Positions are sines and cosines of a patch's place, so any size of image can be looked at: places are scaled to the
range of training.

Sizes: B images of P x P pixels in N patches of p x p, d channels of the encoder.
"""

import torch
import torch.nn.functional as F
from torch import nn

from fastzss.backbones.tiny_vit import Block, truncated_normal
from fastzss.base.errors import UserError
from fastzss.methods.zeroseg.segmenter import SegmentHead, head_of

# width, layers, heads, patch of the encoder; width, layers, heads of the decoder
ENCODERS = {
    "base": ((768, 12, 12, 16), (512, 8, 16)),
    "small": ((384, 12, 6, 16), (512, 8, 16)),
    "tiny": ((128, 4, 4, 8), (96, 2, 4)),
}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def encoder_record(config, views):
    """What a run records of its encoder, fitted to the pixels of a store."""
    (width, layers, heads, patch), decoder = ENCODERS[config.encoder]
    side = views.pixels
    if side % patch:
        raise UserError(
            f"--encoder {config.encoder} looks at patches of {patch} pixels, and the store's pixels are {side} a side; "
            f"extract with --pixels {max(1, side // patch) * patch}",
            code=2,
        )
    return {
        "name": config.encoder, "width": width, "layers": layers, "heads": heads, "patch": patch, "side": side,
        "patches": (side // patch) ** 2, "decoder": list(decoder),
        "sees_cls": config.seg_head_sees_cls, "norm_pix": config.norm_pix,
    }  # fmt: skip


class PixelStudent(nn.Module):
    def __init__(self, record):
        super().__init__()
        own = self.own = record["encoder"]
        self.grid = (own["side"] // own["patch"],) * 2
        width, patch, (low, layers, heads) = own["width"], own["patch"], own["decoder"]
        self.embed = nn.Conv2d(3, width, patch, patch)
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.blocks = nn.ModuleList(Block(width, own["heads"]) for _ in range(own["layers"]))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.narrow = nn.Linear(width, low)
        self.mask_token = nn.Parameter(torch.empty(1, 1, low))
        self.decoder = nn.ModuleList(Block(low, heads) for _ in range(layers))
        self.decoder_norm = nn.LayerNorm(low, eps=1e-6)
        self.to_pixels = nn.Linear(low, patch * patch * 3)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.embed.weight.view(width, -1))
        for token in (self.cls_token, self.mask_token):
            truncated_normal(token, 0.02)
        self.head: SegmentHead = head_of(record)

    def forward(self, pixels, order=None, noise=None):
        """[B, 3, P, P] in 0..255 -> (Segments of the patches that are seen, reconstruction loss or None).

        `order`: [B, n] of the patches that are seen; None: all are, and nothing is reconstructed.
        """
        x, grid = self.patches(pixels)
        h = self.encode(x if order is None else take(x, order))
        segments = self.segments(h, noise)
        return segments, None if order is None else self.reconstruction(h, order, grid, normalised(pixels))

    def see(self, pixels):
        """Segments of all patches of images of any size that patches divide, and the grid."""
        x, grid = self.patches(pixels)
        return self.segments(self.encode(x)), grid

    def segments(self, h, noise=None):
        """Segments of encoded patches, the class token at their head."""
        found = self.head(h if self.own["sees_cls"] else h[:, 1:], noise)
        return found._replace(first=found.first[:, :, 1:]) if self.own["sees_cls"] else found

    def patches(self, pixels):
        x = self.embed(normalised(pixels))
        grid = tuple(x.shape[2:])
        x = x.flatten(2).transpose(1, 2)
        return x + positions(grid, self.own["side"] // self.own["patch"], x.shape[-1]).to(x), grid

    def encode(self, x):
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def reconstruction(self, h, order, grid, pixels):
        """Mean squared error of the hidden patches."""
        n, N = order.shape[1], grid[0] * grid[1]
        hidden = torch.ones(len(order), N, device=order.device).scatter_(1, order, 0)
        order = torch.cat([order, hidden.argsort(dim=1, descending=True, stable=True)[:, : N - n]], 1)
        x = self.narrow(h)
        masked = self.mask_token.expand(len(x), N - n, -1)
        laid = take(torch.cat([x[:, 1:], masked.to(x.dtype)], 1), order.argsort(1))
        laid = laid + positions(grid, grid[0], x.shape[-1]).to(x)
        x = torch.cat([x[:, :1], laid], 1)
        for block in self.decoder:
            x = block(x)
        wanted = patchified(pixels, self.own["patch"])
        if self.own["norm_pix"]:
            wanted = F.layer_norm(wanted, wanted.shape[-1:], eps=1e-6)
        error = (self.to_pixels(self.decoder_norm(x[:, 1:])).to(wanted.dtype) - wanted).square().mean(-1)
        return error.gather(1, order[:, n:]).mean()


def visible(patches, mask_ratio):
    """How many of the patches are seen."""
    return max(1, int(patches * (1 - mask_ratio)))


def take(x, rows):
    return x.gather(1, rows.unsqueeze(-1).expand(-1, -1, x.shape[-1]))


def normalised(pixels):
    shape = (1, 3, 1, 1)
    return (pixels / 255 - pixels.new_tensor(MEAN).view(shape)) / pixels.new_tensor(STD).view(shape)


def patchified(pixels, patch):
    """[B, 3, P, P] -> [B, N, p * p * 3], row by row."""
    return F.unfold(pixels, patch, stride=patch).mT


def positions(grid, trained, width):
    """[1, N, width]: sines and cosines of the row and the column, scaled to a grid of `trained` patches a side."""
    rate = 1 / 10000 ** (torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    scale = trained / min(grid)
    rows, columns = (torch.arange(n, dtype=torch.float64).mul(scale).unsqueeze(1) * rate for n in grid)
    rows, columns = (torch.cat([angle.sin(), angle.cos()], -1) for angle in (rows, columns))
    both = torch.cat([rows.unsqueeze(1).expand(-1, grid[1], -1), columns.expand(grid[0], -1, -1)], -1)
    return F.pad(both.flatten(0, 1), (0, width - both.shape[-1])).unsqueeze(0)
