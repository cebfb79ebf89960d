"""The patch memory: what it remembers, what it says of a patch, and whose it is."""

import math
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import fastzss
from fastzss.base.errors import UserError
from fastzss.base.records import read_folder, write_folder
from fastzss.base.runs import Run
from fastzss.evaluation.datasets.world import world_set
from fastzss.evaluation.evaluate import evaluate
from fastzss.kernels import reference
from fastzss.masks.background import Calibration
from fastzss.masks.inference import DEFAULT
from fastzss.masks.patch_memory import (
    NEIGHBOURS,
    SMOOTHING,
    SURE,
    TEMPERATURE,
    Memory,
    balanced,
    build_memory,
    even,
    load_memory,
    readable,
)
from fastzss.store.reading.reader import PatchStore


@pytest.fixture(scope="module")
def memory(store, trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("memory") / "memory"
    assert 5900 < build_memory(store, trained, path, samples=6000)["patches"] <= 6000
    return path


def test_a_patch_is_labelled_by_the_nearest_concept_that_its_own_image_mentions(store, trained, memory):
    """Each remembered patch is found again in the store, and its label worked out from there."""
    record, files = read_folder(memory, "memory", "x")
    patches, labels, names = (torch.from_numpy(files[f"{part}.npy"]) for part in ("patches", "labels", "names"))
    there = PatchStore(store)
    concepts = there.concepts()
    known = fastzss.load(trained, device="cpu").class_vectors(concepts.bank["names"])
    assert torch.allclose(names, known, atol=1e-6) and record["names"] == concepts.bank["names"]
    everything = there.load().take(slice(None)).float()
    smooth = F.normalize(reference.smooth_patches(everything, everything, SMOOTHING), dim=-1).flatten(0, 1)
    flat, each = everything.flatten(0, 1).half(), everything.shape[1]
    where = {value.numpy().tobytes(): i for i, value in enumerate(flat)}
    for patch, label in zip(patches[::37], labels[::37], strict=True):
        place = where[patch.numpy().tobytes()]
        mine = concepts.name[torch.isin(concepts.caption, torch.nonzero(there.captions.row == place // each)[:, 0])]
        mine = mine.unique().long()
        assert label in mine
        assert known[label] @ smooth[place] >= (known[mine] @ smooth[place]).max() - 1e-4


def test_concepts_are_balanced_and_the_surest_patches_kept():
    """Three names with 100, 20 and 4 patches: 60, 12 and 3 are sure enough, and 40 find room for 25 of the first."""
    labels = torch.cat([torch.zeros(100), torch.ones(20), torch.full((4,), 2.0)]).long()
    labels = labels[torch.randperm(124, generator=torch.Generator().manual_seed(0))].view(2, 62)
    margins = torch.rand(2, 62, generator=torch.Generator().manual_seed(1))
    chosen = balanced(labels, margins, 4, 40, torch.Generator().manual_seed(2))
    assert torch.equal(chosen, chosen.sort().values) and len(chosen.unique()) == 40
    labels, margins = labels.flatten(), margins.flatten()
    assert torch.bincount(labels[chosen]).tolist() == [25, 12, 3]
    for name, sure in ((0, 60), (1, 12), (2, 3)):
        assert sure == math.ceil(SURE * int((labels == name).sum()))
        least = margins[labels == name].sort(descending=True).values[sure - 1]
        assert (margins[chosen][labels[chosen] == name] >= least).all()


@pytest.mark.parametrize("counts, total, limit", [((60, 12, 3), 40, 25), ((5, 5), 100, 5), ((9, 9, 9), 10, 3),
                                                   ((9, 9, 9), 2, 1), ((0, 8), 4, 4)])  # fmt: skip
def test_a_limit_is_as_high_as_the_total_allows(counts, total, limit):
    assert even(torch.tensor(counts), total) == limit


def test_images_are_read_so_that_every_name_has_its_turn(monkeypatch):
    from fastzss.masks import patch_memory

    monkeypatch.setattr(patch_memory, "IMAGES", 3)
    # name 0 is in every image, names 1 and 2 in one each
    mentioned = torch.tensor([[row, 0] for row in range(50)] + [[17, 1], [33, 2]])
    for seed in range(5):
        rows = readable(mentioned, torch.Generator().manual_seed(seed)).tolist()
        assert rows == sorted(rows) and len(rows) == 3 and {17, 33} <= set(rows)


def test_evidence_is_the_share_of_each_name_among_the_neighbours(memory):
    """Without an index: every patch of the memory, sorted by similarity."""
    _, files = read_folder(memory, "memory", "x")
    patches, labels, vectors = (torch.from_numpy(files[f"{part}.npy"]) for part in ("patches", "labels", "names"))
    kept = slice(0, 1000)  # few enough that search is exact
    names = [str(k) for k in range(len(vectors))]
    own = Memory(patches[kept].float().numpy(), labels[kept].numpy(), names, vectors)
    queries = F.normalize(torch.randn(10, patches.shape[1], generator=torch.Generator().manual_seed(0)), dim=-1)
    for query, found in zip(queries, own.evidence(queries), strict=True):
        close = (patches[kept].float() @ query).sort(descending=True, stable=True)
        share = (close.values[:NEIGHBOURS] / TEMPERATURE).softmax(0)
        expected = torch.zeros(len(names))
        for row, weight in zip(close.indices[:NEIGHBOURS], share, strict=True):
            expected[int(labels[kept][row])] += weight
        assert torch.allclose(found, expected, atol=1e-5)


def test_what_the_captions_say_separates_names_that_are_there(memory, trained):
    """The threshold against plain counting: no other similarity separates mentioned names from others better."""
    assert 0 < load_memory(memory, trained).threshold < 0.9
    random = torch.Generator().manual_seed(0)
    vectors = torch.eye(8)
    patches = F.normalize(vectors[:4].repeat(5, 2, 1) + 0.5 * torch.randn(5, 8, 8, generator=random), dim=-1)
    own, there = torch.tensor([[0, 1, 2, 3]] * 5), torch.tensor([[True] * 4] * 5)
    calibration = Calibration(vectors)
    best = (patches @ vectors[:4].T).amax(-1)
    calibration.add(patches, best, own, there)
    false = (patches @ vectors[4:].T).amax(-1)  # as many names as are mentioned: all that are left

    def right(value):
        return float((best > value).float().mean() + (false <= value).float().mean())

    assert right(calibration.threshold) >= max(right(v) for v in torch.linspace(-1, 1, 300)) - 0.03 > 1.3


def test_the_memory_raises_the_score(memory, trained):
    model, data = fastzss.load(trained, device="cpu"), world_set("world:test,n=16")
    model.memory = load_memory(memory, trained)
    helped = model.vocabulary(data.names)
    model.memory = None
    scores = evaluate(model.vision, {"helped": helped, "alone": model.vocabulary(data.names)}, data)
    assert scores["helped"]["all"] > scores["alone"]["all"] + 2
    assert DEFAULT.evidence > 0


def test_a_run_uses_the_memory_that_training_left_in_it(store, trained, config, caplog):
    """The same as is made by hand; `none` leaves none; one of another checkpoint is not used, and it is said."""
    from dataclasses import replace

    from fastzss.training.loop import train

    left = trained / "memory"
    model = fastzss.load(trained, device="cpu")
    own = load_memory(left, trained)
    assert torch.equal(model.memory.labels, own.labels)

    train(replace(config, memory="none"))
    assert not (config.out / "memory").exists() and fastzss.load(config.out, device="cpu").memory is None
    train(replace(config, memory="auto"))  # all steps are done: what is missing is made
    assert fastzss.load(config.out, device="cpu").memory is not None

    older = next(p.name for p in sorted((config.out / "checkpoints").iterdir()) if p.name.startswith("step-"))
    assert fastzss.load(config.out, device="cpu", checkpoint=older).memory is None
    assert f"is of another checkpoint than {older} and is not used" in caplog.text


def test_the_same_memory_is_made_again(store, trained, memory, tmp_path):
    build_memory(store, trained, tmp_path / "m", samples=6000)
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == sorted(p.name for p in memory.iterdir())


def test_a_memory_of_another_run_backbone_or_size_is_refused_by_name(store, trained, memory, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(trained, other)
    weights = Run(other).latest / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(UserError, match="memory: was made with another run or checkpoint"):
        load_memory(memory, other)

    record, files = read_folder(memory, "memory", "x")
    mine = {key: record[key] for key in record if key not in ("files", "format", "version")}
    narrow = files | {"patches.npy": files["patches.npy"][:, :-1]}
    write_folder(tmp_path / "narrow", "memory", mine, narrow)
    with pytest.raises(UserError, match="holds patches of .* channels, the run .* has"):
        load_memory(tmp_path / "narrow", trained)
    write_folder(tmp_path / "eyes", "memory", mine | {"vision": "another"}, files)
    with pytest.raises(UserError, match="eyes: was made with another run"):
        load_memory(tmp_path / "eyes", trained)

    (path,) = memory.glob("patches-*")
    short = tmp_path / "short"
    shutil.copytree(memory, short)
    (short / path.name).write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(UserError, match=f"{path.name}: holds .* bytes, memory.json promises"):
        load_memory(short, trained)


def test_a_store_of_another_backbone_is_refused(store, trained, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(trained, other)
    config = (other / "config.yaml").read_text()
    digest = Run(trained).config["vision"]["weights"]
    (other / "config.yaml").write_text(config.replace(digest, "f" * len(digest)))
    with pytest.raises(UserError, match="a memory needs the store of the run's own backbone"):
        build_memory(store, other, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_a_large_memory_has_cells(memory):
    pytest.importorskip("faiss")
    assert len(list(memory.glob("index-*.faiss"))) == 1
    _, files = read_folder(memory, "memory", "x")
    assert files["patches.npy"].dtype == np.float16
