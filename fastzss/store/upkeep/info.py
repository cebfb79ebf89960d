"""What a store says of itself, finished or not."""

from pathlib import Path

from fastzss.store.additions import finished, joint_identity, part_folders
from fastzss.store.commits import read_commits, store_form
from fastzss.store.layers import read_feature_plan, read_record, read_store_plan
from fastzss.store.mentions import list_concepts
from fastzss.store.reading.views import list_views


def store_info(path):
    """What `fastzss-cache info` shows of a store, finished or not, as a dict that JSON can hold."""
    path = Path(path)
    plan = read_store_plan(path)
    form = store_form(path / "features")
    parts = part_folders(path)
    plans = [read_feature_plan(part) for part in parts]
    commits = [c for part, own in zip(parts, plans, strict=True) for c in read_commits(part / "features", own).values()]
    files = [file for record in commits for file in record["files"].values()]
    captions = path / "captions" / "plan.json"
    texts = read_record(captions, "captions")["plan"] if captions.is_file() else {}
    return {
        "path": str(path),
        "identity": joint_identity([own.identity for own in plans]),
        "finished": all(map(finished, parts)) and bool(texts),
        "model": plan.vision.get("model"),
        "licence": plan.vision.get("licence"),
        "source": plan.source.get("spec"),
        "images": sum(own.images for own in plans),
        "additions": len(parts) - 1,
        "removed": texts.get("removed", 0),
        "valid": sum(record["valid"] for record in commits),
        "patches": plan.patches,
        "grid": list(plan.grid),
        "channels": plan.channels,
        "globals": list(plan.globals),
        "dtype": plan.dtype,
        "format": form and form.format,
        "codec": form and form.codec,
        "shards": sum(own.shards for own in plans),
        "shards_written": len(commits),
        "shard_images": plan.shard_images,
        "bytes": sum(file["bytes"] for file in files),
        "captions": texts.get("captions", 0),
        "banks": list_concepts(path),
        "views": list_views(path),
    }
