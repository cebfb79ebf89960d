"""What a store says of itself, finished or not."""

from pathlib import Path

from fastzss.errors import UserError
from fastzss.store.commits import begun, form_of, read_commits
from fastzss.store.layers import read_feature_plan, read_record
from fastzss.store.texts import list_concepts


def read_store_plan(path):
    """The plan of a store, finished or not; says what else `path` is when it is no store."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: there is no such folder. Make a store with `fastzss-cache extract SOURCE {path}`.")
    if not path.is_dir():
        raise UserError(f"{path}: is a file; expected the folder of a store.")
    if not (path / "features" / "plan.json").is_file():
        raise UserError(
            f"{path}: is no store: it has no features/plan.json. "
            f"Give the folder that `fastzss-cache extract SOURCE STORE` wrote."
        )
    return read_feature_plan(path)


def store_form(folder):
    """How the shards of a features layer lie on disk; None while there is none."""
    manifest = folder / "manifest.json"
    if manifest.is_file():
        return form_of(read_record(manifest, "features"), manifest)
    there = begun(folder)
    return there and there[0]


def store_info(path):
    """What `fastzss-cache info` shows of a store, finished or not, as a dict that JSON can hold."""
    path = Path(path)
    plan = read_store_plan(path)
    form = store_form(path / "features")
    commits = read_commits(path / "features", plan)
    files = [file for record in commits.values() for file in record["files"].values()]
    captions = path / "captions" / "plan.json"
    return {
        "path": str(path),
        "identity": plan.identity,
        "finished": (path / "features" / "manifest.json").is_file(),
        "model": plan.vision.get("model"),
        "licence": plan.vision.get("licence"),
        "source": plan.source.get("spec"),
        "images": plan.images,
        "valid": sum(record["valid"] for record in commits.values()),
        "patches": plan.patches,
        "grid": list(plan.grid),
        "channels": plan.channels,
        "globals": list(plan.globals),
        "dtype": plan.dtype,
        "format": form and form.format,
        "codec": form and form.codec,
        "shards": plan.shards,
        "shards_written": len(commits),
        "shard_images": plan.shard_images,
        "bytes": sum(file["bytes"] for file in files),
        "captions": read_record(captions, "captions")["plan"]["captions"] if captions.is_file() else 0,
        "banks": list_concepts(path),
    }
