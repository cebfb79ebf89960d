"""The patch memory: what it remembers, what it says of a patch, and whose it is."""

import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import fastzss
from fastzss.errors import UserError
from fastzss.evaluate import evaluate
from fastzss.folders import read_folder, write_folder
from fastzss.memory import NEIGHBOURS, TEMPERATURE, build_memory, load_memory
from fastzss.protocols import world_set
from fastzss.runs import Run
from fastzss.segment import similarity
from fastzss.store import PatchStore


@pytest.fixture(scope="module")
def memory(store, trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("memory") / "memory"
    assert build_memory(store, trained, path, samples=6000)["patches"] == 6000
    return path


def test_a_patch_is_labelled_by_the_nearest_concept_that_its_own_image_mentions(store, trained, memory):
    """Each remembered patch is found again in the store, and its label worked out from there."""
    _, files = read_folder(memory, "memory", "x")
    patches, labels, names = (torch.from_numpy(files[f"{part}.npy"]) for part in ("patches", "labels", "names"))
    there = PatchStore(store)
    concepts = there.concepts()
    known = fastzss.load(trained, device="cpu").class_vectors(concepts.bank["names"])
    assert torch.allclose(names, known, atol=1e-6)
    everything = there.load().take(slice(None))
    flat = everything.flatten(0, 1).half()
    where = {value.numpy().tobytes(): i // everything.shape[1] for i, value in enumerate(flat)}
    for patch, label in zip(patches[::37], labels[::37], strict=True):
        image = where[patch.numpy().tobytes()]
        mine = concepts.name[torch.isin(concepts.caption, torch.nonzero(there.captions.row == image)[:, 0])].unique()
        assert label in mine
        assert known[label] @ patch.float() >= (known[mine.long()] @ patch.float()).max() - 1e-3


def test_recall_is_the_formula(memory, trained):
    """Without an index: every patch of the memory, sorted by similarity."""
    _, files = read_folder(memory, "memory", "x")
    patches, labels, names = (torch.from_numpy(files[f"{part}.npy"]) for part in ("patches", "labels", "names"))
    kept = slice(0, 1000)  # few enough that search is exact
    from fastzss.memory import Memory

    own = Memory(patches[kept].float().numpy(), labels[kept].numpy(), names, weight=0.3)
    queries = F.normalize(torch.randn(2, 5, patches.shape[1], generator=torch.Generator().manual_seed(0)), dim=-1)
    found = own.recall(queries)
    for query, moved in zip(queries.flatten(0, 1), found.flatten(0, 1), strict=True):
        close = (patches[kept].float() @ query).sort(descending=True, stable=True)
        share = (close.values[:NEIGHBOURS] / TEMPERATURE).softmax(0)
        said = (share[:, None] * names[labels[kept][close.indices[:NEIGHBOURS]].long()]).sum(0)
        assert torch.allclose(moved, 0.7 * query + 0.3 * said, atol=1e-5)


def test_no_weight_is_the_text_alone_and_the_memory_raises_the_score(memory, trained):
    model, data = fastzss.load(trained, device="cpu"), world_set("world:test,n=16")
    vectors = model.class_vectors(data.names)
    image, _ = data.read(0)
    silent = similarity(model.vision, image, vectors, load_memory(memory, trained, 0.0))
    assert torch.allclose(silent, similarity(model.vision, image, vectors), atol=1e-5)
    text = evaluate(model.vision, {"text": vectors}, data)["text"]["all"]
    helped = evaluate(model.vision, {"text": vectors}, data, load_memory(memory, trained))["text"]["all"]
    assert helped > text


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


@pytest.mark.parametrize("weight", [-0.1, 1.5, float("nan")])
def test_a_weight_that_is_no_share_is_refused(memory, trained, weight):
    with pytest.raises(UserError, match="--memory-weight .*expected 0 .* to 1"):
        load_memory(memory, trained, weight)


def test_a_large_memory_has_cells(memory):
    pytest.importorskip("faiss")
    assert len(list(memory.glob("index-*.faiss"))) == 1
    _, files = read_folder(memory, "memory", "x")
    assert files["patches.npy"].dtype == np.float16
