"""Installation.  The folder `kernels/` is installed as `fastzss.kernels`: another package owns the name `kernels`."""

from pathlib import Path

from setuptools import setup

here = Path(__file__).parent

setup(
    name="fastzss",
    version="0.1.0",
    description="Teach a text encoder to point: open-vocabulary segmentation from cached features of a frozen ViT",
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=[
        "fastzss",
        "fastzss.bank",
        "fastzss.captions",
        "fastzss.commands",
        "fastzss.data",
        "fastzss.kernels",
        "fastzss.store",
        "fastzss.training",
        "fastzss.world",
        "fastzss.world.things",
    ],
    package_dir={"fastzss": "fastzss", "fastzss.kernels": "kernels"},
    package_data={"fastzss.data": ["*.safetensors", "*.md", "classes/*.txt"]},
    entry_points={
        "console_scripts": [
            "fastzss = fastzss.cli:main",
            "fastzss-cache = fastzss.cli:cache_main",
        ]
    },
    install_requires=[
        "torch>=2.11",
        "triton>=3.6; platform_system == 'Linux'",
        "timm>=1.0.20",
        "open_clip_torch>=3.0",
        "zarr>=3",
        "webdataset>=0.2.100",
        "spacy>=3.7",
        "spacy-lookups-data>=1.0.5",
        "accelerate>=1.10",
        "numpy>=2",
        "safetensors",
        "huggingface_hub",
        "pillow",
        "pyarrow",
        "xxhash",
        "google-crc32c>=1.5",
        "fsspec",
        "psutil",
        "tqdm",
        "pyyaml",
    ],
    # FAISS comes by an extra: the CPU and the GPU package install the same folder and break each other.
    extras_require={
        "cpu": ["faiss-cpu>=1.9"],
        "gpu": ["faiss-gpu>=1.15"],
        "test": ["pytest>=8", "hypothesis", "ruff", "torchmetrics>=1.4"],
    },
)
