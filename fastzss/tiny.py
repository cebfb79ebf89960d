"""The tiny backbone: a vision transformer small enough to ship, for the built-in world.

128 px in patches of 8 px: a 16 x 16 grid of 128 channels and a class token, 0.85 M parameters. Its weights,
`fastzss/data/tiny.safetensors`, are made by `tools/make_tiny_backbone.py` without labels, masks or captions.
Inputs are RGB scaled to 0..1, then normalised by MEAN and STD.
"""

SIZE = 128
PATCH = 8
WIDTH = 128
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


def tiny_vit():
    """The timm model with random weights; its output is [B, 1 + 256, 128], the class token first."""
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(
        img_size=SIZE,
        patch_size=PATCH,
        embed_dim=WIDTH,
        depth=4,
        num_heads=4,
        num_classes=0,
        global_pool="",
    )
