"""SimZSS behind the seam."""

import time
from dataclasses import replace

from fastzss.bank import Bank
from fastzss.bank.joined import concepts_of
from fastzss.base.records import is_folder_of
from fastzss.masks.inference import DEFAULT, PHOTOGRAPHS
from fastzss.masks.patch_memory import build_memory, is_of, own_memory
from fastzss.masks.segment import Model
from fastzss.methods.simzss.auto import choose
from fastzss.methods.simzss.task import SimZSSTask
from fastzss.store.reading.joined import open_store
from fastzss.text.readout import Readout, load_tower


class SimZSS:
    name = "simzss"
    task = SimZSSTask
    free = ("micro_batch", "graph", "bank")  # the bank is compared by what it holds: the record's "store"

    def going_on(self, config, record):
        return config if config.bank else replace(config, bank=bank_of(record))

    def choose(self, config, ranks):
        return choose(config, ranks)

    def model(self, run, vision, device):
        words = Readout(load_tower(run, device), run.config["readout"])
        memory = own_memory(run)
        # scenes of the built-in world are all of its classes; most of a photograph is in no list
        nothing = vision.record["model"] != "tiny" and memory is not None and memory.threshold is not None
        return Model(vision, words, Bank.from_json(run.bank), memory, PHOTOGRAPHS if nothing else DEFAULT)

    def finish(self, run, config, device):
        memory, bank, features = run.path / "memory", bank_of(run.config), run.config["store"]["features"]
        store = open_store(config.store, features)
        if config.memory == "none" or not len(concepts_of(store, bank).name):
            return None
        if is_folder_of(memory, "memory") and is_of(memory, run):
            return None
        began = time.perf_counter()
        made = build_memory(store, run.path, memory, bank, device=device)
        seconds = time.perf_counter() - began
        return f"{memory}: {made['patches']:,} patches of {made['images']:,} images, in {seconds:.1f} s"


def bank_of(record):
    """The bank a run has learned from, or those of its several stores, as --bank names them."""
    return ",".join(record["store"].get("banks", [record["store"]["bank"]]))


METHOD = SimZSS()
