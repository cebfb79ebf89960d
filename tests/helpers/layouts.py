"""The same captioned pictures in every layout that a source reads."""

import io
import json
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from helpers.backbones import picture
from PIL import Image

NAMES = ("a b.jpg", "Ärger.JPG", "sub/c.jpeg", "sub/deeper/d.jpg", "z-猫.PNG")
THINGS = ("dog", "red car", "house", "tree", "bird")


def encoded(image, kind="JPEG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def samples(names=NAMES):
    """[(name, bytes of the file, captions)], ascending by name; no two pictures have the same shape."""
    made = []
    for k, name in enumerate(sorted(names)):
        kind = "PNG" if name.lower().endswith("png") else "JPEG"
        thing = THINGS[k % len(THINGS)]
        captions = [f"a {thing} by the water, number {k}", f"there is a {thing} under a tree"][: 1 + k % 2]
        made.append((name, encoded(picture(150 + 7 * k, 131 + 5 * (k % 3), k), kind), captions))
    return made


def write_folder(root, found, captions=True):
    for name, data, texts in found:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        if captions:
            path.with_suffix(".txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    return f"folder:{root}"


def write_coco(root, found, split="train2017", **changes):
    """Pictures and captions in COCO's layout and schema; `changes` replace keys of the captions file."""
    (root / split).mkdir(parents=True, exist_ok=True)
    (root / "annotations").mkdir(exist_ok=True)
    images, annotations = [], []
    for k, (name, data, texts) in enumerate(found):
        (root / split / name).write_bytes(data)
        try:
            width, height = Image.open(io.BytesIO(data)).size
        except OSError:
            width, height = 640, 480
        images.append({
            "license": 3, "file_name": name, "coco_url": f"http://images.cocodataset.org/{split}/{name}",
            "height": height, "width": width, "date_captured": "2013-11-14 11:18:45",
            "flickr_url": "http://farm9.staticflickr.com/x.jpg", "id": 100 + k,
        })  # fmt: skip
        annotations += [{"image_id": 100 + k, "id": 1000 + 10 * k + j, "caption": t} for j, t in enumerate(texts)]
    content = {"info": {"year": 2017}, "licenses": [], "images": images[::-1], "annotations": annotations[::-1]}
    (root / "annotations" / f"captions_{split}.json").write_text(json.dumps(content | changes), encoding="utf-8")
    return f"coco:{root}:{split}"


def add_member(tar, name, data):
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))


def write_tars(root, found, each=3):
    """As img2dataset does it, captions in turn as .txt, .json and both."""
    root.mkdir(parents=True, exist_ok=True)
    for number, start in enumerate(range(0, len(found), each)):
        with tarfile.open(root / f"{number:05d}.tar", "w") as tar:
            for k, (name, data, texts) in enumerate(found[start : start + each], start):
                suffix = name.rpartition(".")[2]
                add_member(tar, f"{k:08d}.{suffix}", data)
                if k % 3 != 1:
                    add_member(tar, f"{k:08d}.txt", "\n".join(texts).encode())
                if k % 3:
                    record = {"caption": texts, "key": f"{k:08d}", "width": 1, "url": None}
                    add_member(tar, f"{k:08d}.json", json.dumps(record).encode())
    last = len(range(0, len(found), each)) - 1
    return f"wds:{root}/{{00000..{last:05d}}}.tar"


def write_table(root, found):
    """One row a caption, with the path of its image."""
    write_folder(root, found, captions=False)
    rows = [(name, text) for name, _, texts in found for text in texts]
    pq.write_table(pa.table({"file_name": [r[0] for r in rows], "caption": [r[1] for r in rows]}), root / "t.parquet")
    return f"table:{root / 't.parquet'}"


def hf_table(found):
    image = pa.array(
        [{"bytes": data, "path": name} for name, data, _ in found],
        pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    )
    return pa.table({"image": image, "captions": [texts for *_, texts in found], "id": list(range(len(found)))})


def write_hf(root, found, split=None):
    """As Dataset.save_to_disk writes it, in two files; with `split`, one of a DatasetDict."""
    folder = root / split if split else root
    folder.mkdir(parents=True, exist_ok=True)
    if split:
        (root / "dataset_dict.json").write_text(json.dumps({"splits": [split]}))
    names = []
    for k, part in enumerate((found[:2], found[2:])):
        names.append(f"data-{k:05d}-of-00002.arrow")
        table = hf_table(part)
        with pa.ipc.new_stream(folder / names[-1], table.schema) as out:
            out.write_table(table, max_chunksize=2)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": n} for n in names], "_split": split}))
    (folder / "dataset_info.json").write_text("{}")
    return f"hf:{root}"


def write_hf_parquet(root, found):
    """As a repository of the hub has it."""
    (root / "data").mkdir(parents=True)
    pq.write_table(hf_table(found[:3]), root / "data" / "train-00000-of-00002.parquet")
    pq.write_table(hf_table(found[3:]), root / "data" / "train-00001-of-00002.parquet")
    return f"hf:{root}"


LAYOUTS = {
    "folder": write_folder, "coco": write_coco, "wds": write_tars, "table": write_table, "hf": write_hf,
    "hf-parquet": write_hf_parquet,
}  # fmt: skip


def strange():
    """[(name, bytes, five captions)] as COCO holds them among its thousands: grey, CMYK, turned, broken."""
    turned = Image.Exif()
    turned[0x112] = 6
    grey = picture(140, 131, 1).convert("L")
    cmyk = Image.fromarray(np.asarray(picture(131, 140, 2))).convert("CMYK")
    made = {
        "000000000009.jpg": encoded(picture(150, 131, 0)),
        "000000000025.jpg": encoded(grey),
        "000000000030.jpg": encoded(cmyk),
        "000000000034.jpg": encoded(picture(170, 140, 3), exif=turned),
        "000000000036.jpg": encoded(picture(200, 150, 4))[:900],  # a broken one
    }
    return [
        (name, data, [f"{what} {THINGS[k]} by a tree" for what in ("a", "one", "the", "some", "another")])
        for k, (name, data) in enumerate(made.items())
    ]
