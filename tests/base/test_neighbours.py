"""The index: exact search against numpy, cells against exact search, with FAISS, with half of it, and without."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from fastzss.base import neighbours as index
from fastzss.base.errors import UserError
from fastzss.base.neighbours import Index, exact, recall


def unit(count, channels, seed, centres=50):
    """Unit vectors that lie in heaps, as those of words do."""
    random = np.random.default_rng(seed)
    heaps = np.random.default_rng(0).normal(size=(centres, channels))
    vectors = heaps[random.integers(centres, size=count)] + 0.7 * random.normal(size=(count, channels))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(params=["faiss", "no faiss", "half of faiss"])
def package(request, monkeypatch):
    """FAISS as installed, not at all, or what is left of it when the other of its packages was removed."""
    if request.param == "no faiss":
        monkeypatch.setitem(sys.modules, "faiss", None)
    elif request.param == "half of faiss":
        monkeypatch.setitem(sys.modules, "faiss", SimpleNamespace())
    else:
        pytest.importorskip("faiss")
    index.faiss.cache_clear()
    yield request.param
    index.faiss.cache_clear()


def nearest(vectors, queries, k):
    scores = queries.astype(np.float64) @ vectors.T.astype(np.float64)
    rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, rows, 1), rows


@pytest.mark.parametrize("count, channels, k", [(1, 5, 3), (37, 48, 10), (2000, 64, 10)])
def test_search_is_exact(package, count, channels, k):
    vectors, queries = unit(count, channels, 1), unit(23, channels, 2)
    made = Index(vectors)
    assert made.kind == "exact" and made.bytes() is None and len(made) == count
    score, row = made.search(queries, k)
    truth, rows = nearest(vectors, queries, k)
    assert recall(row, rows) == 1.0
    assert np.allclose(score, truth, atol=1e-5)


def test_cells_find_what_exact_search_finds():
    pytest.importorskip("faiss")
    vectors, queries = unit(6000, 32, 1), unit(300, 32, 2)
    made = Index(vectors, most=5000)
    assert made.kind == "ivf"
    found = made.search(queries, 10)[1]
    assert recall(found, nearest(vectors, queries, 10)[1]) >= 0.98
    saved = made.bytes()
    again = Index(vectors, saved, most=5000)
    assert np.array_equal(again.search(queries, 10)[1], found)
    assert np.array_equal(Index(vectors, most=5000).search(queries, 10)[1], found), "made anew it is the same"


def test_cells_are_found_on_vectors_without_any_structure():
    pytest.importorskip("faiss")
    random = np.random.default_rng(0)
    vectors, queries = (random.normal(size=(n, 24)).astype(np.float32) for n in (5001, 200))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert recall(Index(vectors, most=5000).search(queries, 10)[1], nearest(vectors, queries, 10)[1]) >= 0.98


def test_without_faiss_many_vectors_are_searched_exactly(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    index.faiss.cache_clear()
    try:
        vectors, queries = unit(6000, 8, 1), unit(40, 8, 2)
        made = Index(vectors, b"cells of a machine with FAISS", most=5000)
        assert made.kind == "exact" and recall(made.search(queries, 5)[1], nearest(vectors, queries, 5)[1]) == 1.0
    finally:
        index.faiss.cache_clear()


def test_faiss_for_gpus_is_used_where_it_sees_one(monkeypatch):
    """The package for GPUs has these names, the one for CPUs has not; the GPU here is the CPU."""
    faiss = pytest.importorskip("faiss")
    moved = []

    def to_gpu(resources, gpu, cpu_index):
        moved.append((resources, gpu))
        return cpu_index

    fake = SimpleNamespace(
        IndexFlatIP=faiss.IndexFlatIP,
        StandardGpuResources=lambda: "resources",
        get_num_gpus=lambda: 1,
        index_cpu_to_gpu=to_gpu,
    )
    monkeypatch.setitem(sys.modules, "faiss", fake)
    index.faiss.cache_clear()
    try:
        vectors, queries = unit(50, 8, 1), unit(5, 8, 2)
        made = Index(vectors)
        assert made.kind == "exact, GPU" and moved == [("resources", 0)] and made.bytes() is None
        assert recall(made.search(queries, 5)[1], nearest(vectors, queries, 5)[1]) == 1.0
        fake.get_num_gpus = lambda: 0  # a machine without one
        assert Index(vectors).kind == "exact"
    finally:
        index.faiss.cache_clear()


def test_exact_search_in_parts_is_the_same(monkeypatch):
    vectors, queries = unit(100, 8, 1), unit(17, 8, 2)
    whole = exact(vectors, queries, 7)
    monkeypatch.setattr(index, "AT_ONCE", 300)
    for a, b in zip(whole, exact(vectors, queries, 7), strict=True):
        assert np.allclose(a, b)
    assert exact(vectors, queries[:0], 7)[1].shape == (0, 7)


def test_a_saved_index_of_other_vectors_or_a_cut_one_is_refused():
    pytest.importorskip("faiss")
    vectors = unit(5100, 8, 1)
    saved = Index(vectors, most=5000).bytes()
    with pytest.raises(UserError, match="holds 5100 vectors of 8, and there are 5099 of 8"):
        Index(vectors[:-1], saved, most=5000)
    with pytest.raises(UserError, match="cannot be read"):
        Index(vectors, saved[:1000], most=5000)


def test_queries_of_other_channels_are_refused(package):
    with pytest.raises(ValueError, match="vectors have 8 channels"):
        Index(unit(10, 8, 1)).search(unit(3, 9, 1), 2)
