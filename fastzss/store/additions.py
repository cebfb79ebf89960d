"""A store that has grown: what came later lies beside what was there first, and nothing written is rewritten.

    features/                the images that were there first
    added/000001/features/   those that came later: a plan, an order and commits of their own, the same statistics

The rows of an addition follow those of everything before it.  Captions and concepts are of all rows, and say by the
identity of which features: a store is as long as its captions say, so it can be used while it grows.
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from fastzss.base.errors import UserError
from fastzss.base.files import identity
from fastzss.store.layers import IMAGES, read_feature_plan, read_record

ADDED = "added"


def part_folders(store):
    """Folders that hold features, in the order of their rows: the store itself, then its additions, finished or not."""
    store = Path(store)
    added = sorted((store / ADDED).glob("[0-9]*"))
    return [folder for folder in (store, *added) if (folder / "features" / "plan.json").is_file()]


def addition(store, number):
    """The folder of an addition, counted from 1."""
    return Path(store) / ADDED / f"{number:06d}"


def joint_identity(identities):
    """Of the features of several parts."""
    return identities[0] if len(identities) == 1 else identity({"parts": list(identities)})


def finished(folder):
    return (Path(folder) / "features" / "manifest.json").is_file()


def parts_in_use(store, wanted=None):
    """Folders of the parts that a reader sees: those the captions speak of, or all that are finished.

    `wanted`: identity of the features a run has learned from; what came later is left out.
    """
    folders = part_folders(store)
    while len(folders) > 1 and not finished(folders[-1]):
        folders.pop()
    captions = Path(store) / "captions" / "plan.json"
    of_captions = read_record(captions, "captions")["plan"]["features"] if captions.is_file() else None
    plans = [read_feature_plan(folder).identity for folder in folders]
    lengths = {joint_identity(plans[: count + 1]): count + 1 for count in range(len(plans))}
    return folders[: lengths.get(wanted) or lengths.get(of_captions) or len(folders)]


def image_ids(folder, store=None):
    """The source's names of the images of a part, in the order of its rows.

    `store`: of which it is the first part; older ones keep the names with their captions alone.
    """
    for file in [Path(folder) / "features" / IMAGES, *([Path(store) / "captions" / IMAGES] if store else [])]:
        if file.is_file():
            try:
                return pq.read_table(file)["id"].to_pylist()
            except (OSError, pa.ArrowException) as problem:
                raise UserError(f"{file}: is damaged ({problem}). Run `fastzss-cache verify` on its store") from None
    raise UserError(
        f"{folder}: does not say which images it holds, as older stores without captions; it cannot grow. "
        f"Extract the new images into another store, and train on both"
    )
