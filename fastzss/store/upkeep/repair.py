"""Making the next extraction mend a store: what is broken is removed, and what says that it is there."""

import shutil
from pathlib import Path

from fastzss.base.files import locked, remove_file
from fastzss.store.commits import commit_name
from fastzss.store.layers import held
from fastzss.store.upkeep.origin import ORIGIN
from fastzss.store.upkeep.verify import said_parts


def repair(path, damages):
    """Drop what is damaged; returns what was dropped.  The same extract command writes it again."""
    path = Path(path)
    texts = [d for d in damages if d.file.startswith(("captions/", "concepts/"))]
    views = [d for d in damages if d.file.startswith("views/")]
    others = [d for d in damages if d not in texts and d not in views]
    files = sorted({d.file for d in others if d.shard is None})
    layers = sorted({str(Path(d.file).parent) for d in texts})
    with locked(path / "features", held(path)):
        for part in said_parts(path):
            features = (part / "features").relative_to(path)
            own = [d for d in others if Path(d.file).is_relative_to(features)]
            if own:
                remove_file(path / features / "manifest.json")  # first: the store is not finished from now on
            for shard in {d.shard for d in own if d.shard is not None}:
                remove_file(path / features / commit_name(shard))
            for damage in own:
                remove_file(path / damage.file)
            if any(d.file.startswith((f"{features}/stats/", f"{features}/commit/stats")) for d in own):
                remove_file(path / features / "commit" / "stats.json")  # they are computed again, all of them
        for damage in views:
            folder = path.joinpath(*damage.file.split("/")[:2])
            names = ["manifest.json", *([commit_name(damage.shard)] if damage.shard is not None else [])]
            for file in (*(folder / name for name in names), path / damage.file):
                remove_file(file)
            files.append(damage.file)
        if ORIGIN in files:
            remove_file(path / ORIGIN)
    shards = sorted({d.shard for d in others if d.shard is not None})
    for layer in layers:
        shutil.rmtree(path / layer)
    return {"shards": shards, "files": files, "layers": layers}
