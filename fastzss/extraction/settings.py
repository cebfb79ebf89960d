"""What can be set of an extraction; light to import, so that `--help` is instant."""

from dataclasses import dataclass
from pathlib import Path

from fastzss.base.config import option

MATCHES = ("exact", "embedding")  # what becomes of noun phrases that are no name of the bank


@dataclass(frozen=True, kw_only=True)
class ExtractConfig:
    """Look at every image once with a frozen vision transformer and store its patch features."""

    source: str = option(
        "where images come from: world:SPLIT, folder:DIR, coco:DIR, wds:PATTERN, table:FILE, hf:DIR", positional=True
    )
    store: Path = option("folder of the store, or s3://BUCKET/NAME: created, or continued", positional=True)
    model: str | None = option("tiny, or a timm ViT by name; by default tiny for world: and else DINOv2", None)
    weights: Path | None = option(
        "file with the model's weights (.safetensors, .pth), its folder, or hf-hub:NAME", None
    )
    random_weights: bool = option("do not load weights: for trying things out", False)
    size: int | None = option("pixels a side; by default the model's usual one", None)
    layer: int | None = option(
        "the block whose patches are stored, from 1, or from -1 backwards; by default the last", None
    )
    fit: str = option("how a picture becomes a square", "crop", choices=("crop", "squash"))
    norm: str = option("whose mean and std of colours: the model's, or CLIP's", "model", choices=("model", "clip"))
    crops: int = option("random crops of each image, each a row of its own; 1: the image itself", 1)
    denoiser: Path | None = option("file of a block that cleans the patches, as of Denoising Vision Transformers", None)
    decode: str = option("fast: large JPEGs at half their size or less", "exact", choices=("exact", "fast"))
    precision: str = option("of the backbone; auto: bf16 on a GPU", "auto", choices=("auto", "fp32", "bf16"))
    dtype: str = option("how patches are stored", "int8", choices=("int8", "float16"))
    format: str | None = option("zarr or webdataset; by default as the store was begun, else zarr", None)
    stats_from: Path | None = option("store whose statistics the int8 quantiser takes, instead of its own", None)
    part: str | None = option("I/N: only every N-th shard, beginning with the I-th; `merge` joins the parts", None)
    claim: bool = option("share the work with other jobs that were started with the same command", False)
    engine: str = option("ray: shards as tasks of a Ray cluster", "local", choices=("local", "ray"))
    workers: int | None = option("of --engine ray; by default one a GPU, or a core", None)
    bank: str = option("concepts to find in the captions: captions, a file or a bank of names, or none", "captions")
    parser: str = option("how they are found: auto, bank, or spacy:PIPELINE[,tokens=phrase]", "auto")
    match: str = option("noun phrases that are no name: dropped, or nearest name", "exact", choices=MATCHES)
    teacher: str | None = option(
        "add a teacher's views: tiny, an open_clip model as ViT-L-14/openai, or a CLIP tower of timm", None
    )
    teacher_weights: Path | None = option("file with the teacher's weights", None)
    views: str = option("with --teacher: the grids that views are cut by, 1 for the whole image", "1,2,3,4")
    view_source: str = option("views are cut from the image as it came, or as the backbone saw it", "original",
                              choices=("original", "crop"))  # fmt: skip
    pixels: int = option("with --teacher: keep the centre crop too, so many pixels a side; 0: no", 0)
    batch: int | None = option("images per forward pass; by default 32, on a GPU as many as fit", None)
    device: str | None = option("cpu, cuda, ...; by default cuda where there is one", None)
    seed: int = option("seed of the order in which images lie in the store", 0)

    def __post_init__(self):
        if self.claim and self.part is not None:
            raise ValueError("--claim shares all shards among jobs; it does not go with --part")
        if self.engine != "local" and (self.claim or self.part is not None):
            raise ValueError(f"--engine {self.engine} shares the work itself; leave --claim and --part out")
        for name in ("batch", "size", "crops", "workers"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"--{name} must be positive, got {getattr(self, name)}")
        if self.teacher is None and (self.teacher_weights is not None or self.pixels):
            raise ValueError("--teacher-weights and --pixels go with --teacher MODEL")
        if self.pixels < 0:
            raise ValueError(f"--pixels must not be negative, got {self.pixels}")
        _ = self.scales
        if self.stats_from is not None and self.dtype != "int8":
            raise ValueError(f"--stats-from goes with --dtype int8, not with {self.dtype}")
        if self.part is not None:
            number, _, parts = self.part.partition("/")
            if not (number.isdecimal() and parts.isdecimal() and 1 <= int(number) <= int(parts)):
                raise ValueError(f"--part is {self.part!r}; expected I/N, as 1/4")

    @property
    def scales(self):
        """--views as numbers."""
        words = [word.strip() for word in self.views.split(",")]
        scales = tuple(int(word) for word in words if word.isdecimal())
        if len(scales) < len(words) or not all(1 <= s <= 16 for s in scales) or list(scales) != sorted(set(scales)):
            raise ValueError(f"--views is {self.views!r}; expected grids from 1 to 16, ascending, as 1,2,3,4")
        if len(scales) == 1 and scales[0] == 1:
            raise ValueError("--views 1 has the whole image only, and segments learn from its parts; expected as 1,3")
        return scales
