"""How far an extraction is, seen from another terminal: records of shards, claims, and how fast shards appear."""

import tempfile
import time
from pathlib import Path

from fastzss.base.files import read_json
from fastzss.extraction.claims import list_claims
from fastzss.extraction.unreadable import Unreadable
from fastzss.store.additions import finished, part_folders
from fastzss.store.layers import read_feature_plan, read_store_plan
from fastzss.store.remote import address, copy_store, is_far

LATEST = 20  # shards from whose records the rate is told


def status(store):
    """{finished, shards, images, images/s, seconds_left, unreadable, at_work: [who makes what, and since when]}."""
    if is_far(store):
        with tempfile.TemporaryDirectory() as folder:
            copy_store(store, Path(folder) / "s", records_only=True)
            return _status(Path(folder) / "s") | {"path": address(store), "images/s": None, "seconds_left": None}
    return _status(Path(store))


def _status(store):
    read_store_plan(store)  # says what it is instead of a store
    parts = part_folders(store)
    plans = [read_feature_plan(part) for part in parts]
    records = sorted(
        (path.stat().st_mtime, len(plan.rows(read_json(path)["shard"])))
        for part, plan in zip(parts, plans, strict=True)
        for path in (part / "features/commit").glob("[0-9]*.json")
    )
    images, wanted = sum(count for _, count in records), sum(plan.images for plan in plans)
    rate, done = _rate(records[-LATEST:]), all(map(finished, parts))
    return {
        "path": str(store),
        "finished": done,
        "source": plans[-1].source.get("spec"),
        "shards": f"{len(records)} of {sum(plan.shards for plan in plans)}",
        "images": f"{images} of {wanted}",
        "images/s": None if done else rate,
        "seconds_left": None if done or not rate else (wanted - images) / rate,
        "unreadable": len(Unreadable(store).names),
        "at_work": [
            {
                "what": f"shard {int(name)}" if name.isdecimal() else name,
                "who": f"{claim['host']}, process {claim['process']}",
                "minutes": round((time.time() - (claim["since"] or time.time())) / 60, 1),
                "alive": not claim["stale"],
            }
            for part in parts
            for name, claim in list_claims(part).items()
        ],
    }


def _rate(records):
    """Images a second, from when the records were written; None where that says nothing."""
    took = records[-1][0] - records[0][0] if len(records) > 1 else 0
    return sum(count for _, count in records[1:]) / took if took > 0 else None
