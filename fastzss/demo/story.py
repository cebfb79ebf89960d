"""The demo: the whole story on the built-in world, from images to a report, in minutes on a CPU.

    OUT/store          features, captions, concepts of world:train
    OUT                the run with both losses (seed 0): `fastzss segment OUT IMAGE --classes ...` works on it
    OUT/runs/...       the run with the global loss only, and those of further seeds
    OUT/report.html    what happened

With --method zeroseg the store has the views of the tiny teacher too, and OUT is the run of ZeroSeg; with --method both
the same scenes are told twice, and ZeroSeg's runs lie in OUT/runs.

Every stage continues where an interrupted one stopped.
"""

import datetime
from dataclasses import replace

import torch

from fastzss import world
from fastzss.bank import Bank
from fastzss.base.machine import machine_record
from fastzss.captions.tokens import Tokenizer
from fastzss.demo import simzss, zeroseg
from fastzss.demo.baselines import STORED
from fastzss.demo.telling import stage
from fastzss.evaluation.datasets.world import world_set
from fastzss.extraction.flow import extract
from fastzss.extraction.settings import ExtractConfig
from fastzss.masks.inference import DEFAULT
from fastzss.pages.report import ROWS, SCORES, write_report
from fastzss.store.reading.joined import open_store

LEARNED = {
    "simzss": "a text encoder learned from their captions alone",
    "zeroseg": "segments learned from what a teacher says of views of them, without any text",
}


def demo(config):
    """Run all stages; returns the report's table and where it is."""
    # Matrices this small gain little from a second thread (a training: 11 s for 15 s), and on a busy machine its
    # waiting costs minutes; and one thread gives the same figures on any number of cores.
    torch.set_num_threads(1)
    images, tests, means = (300, 60, 60) if config.quick else (2400, 200, 200)
    if config.method == "zeroseg" and not config.quick:
        images = 1200  # fourteen views of each take their time
    times, methods = {}, ("simzss", "zeroseg") if config.method == "both" else (config.method,)
    store = config.out / "store"
    looking = ExtractConfig(source=f"world:train,n={images}", store=store, device=config.device)
    with stage("look at the images, once", times):
        info = extract(looking)
    if "zeroseg" in methods:
        with stage("ask the teacher about views", times):
            extract(replace(looking, teacher="tiny", views=",".join(map(str, STORED))))
    chapters = []
    if "simzss" in methods:
        chapters.append(simzss.tell(config, store, tests, means, times))
    if "zeroseg" in methods:
        chapters.append(zeroseg.tell(config, store, tests, times))

    data, device = world_set(f"world:test,n={tests}"), machine_record(torch.device(config.device or "cpu"))
    said = " and ".join(LEARNED[method] for method in methods)
    report = {
        "title": "fastzss demo",
        "intro": f"A frozen vision transformer looked at {images} drawn scenes once. Then {said}; no mask was seen. "
        "Scores are mIoU in points on test scenes it never saw.",
        "rows": together(chapter.rows for chapter in chapters),
        "classes": {"names": list(data.names), "iou": merged(chapter.classes for chapter in chapters)},
        "map": next((chapter.map for chapter in chapters if chapter.map), None),
        "curves": merged(chapter.curves for chapter in chapters),
        "times": times,
        "store": {key: info[key] for key in ("images", "patches", "channels", "dtype", "shards", "bytes", "captions")},
        "bank": bank_record(open_store(store).concepts()),
        "machine": device,
        "date": datetime.date.today().isoformat(),
        "command": "fastzss demo"
        + " --quick" * config.quick
        + f" --seeds {config.seeds}" * (config.seeds > 1)
        + f" --method {config.method}" * (config.method != "simzss"),
        "readout": merged(chapter.readout for chapter in chapters),
        "inference": DEFAULT.record,
    }
    scenes = [scene for same in zip(*(chapter.scenes for chapter in chapters), strict=True) for scene in same]
    path = write_report(config.out, report, scenes)
    table = {
        f"{row['split']}, {row['row']}": {key: round(row[key], 1) for key in SCORES if key in row}
        for row in report["rows"]
    }
    return {**table, "report": str(path)}


def merged(parts):
    return {key: value for part in parts for key, value in part.items()}


def together(parts):
    """Rows of all chapters, split by split; what two of them have, such as the ceiling, stands once, at the end."""
    rows = {(row["split"], row["row"]): row for part in parts for row in part}
    splits, order = list(dict.fromkeys(split for split, _ in rows)), list(ROWS)
    return sorted(rows.values(), key=lambda row: (splits.index(row["split"]), order.index(row["row"])))


def bank_record(concepts):
    """Size of the bank, how many captions mention it, and which evaluated classes it happens to hold."""
    bank = Bank.from_json(concepts.bank)
    held = [name for name in world.NAMES if Tokenizer().clean(name) in bank.terms]
    captions = int(concepts.caption.unique().numel())
    return {
        "names": len(bank),
        "origin": ", ".join(sorted(set(bank.origin))),
        "parser": concepts.parser,
        "captions with a mention": captions,
        "overlap": f"{len(held)} of the {len(world.NAMES)} evaluated classes are in the bank by their own name",
    }
