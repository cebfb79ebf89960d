"""The table where a row does not fit in memory, and the store that --full keeps."""

import json
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
TINY = ["--size", "tiny", "--batch", "12", "--steps", "1", "--device", "cpu", "--threads", "1"]


def test_a_row_that_does_not_fit_is_left_out_and_the_others_are_measured(bench, capsys, monkeypatch):
    throughput = bench("throughput")
    real = throughput.inspect

    def inspect(row, setting):
        if row.label.startswith("(A)"):
            raise torch.OutOfMemoryError("out of memory")
        return real(row, setting)

    monkeypatch.setattr(throughput, "inspect", inspect)
    assert throughput.main([*TINY, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert len(result["rows"]) == 5 and all(row["ms"] > 0 for row in result["rows"])
    assert [label[:3] for label in result["out_of_memory"]] == ["(A)"] and "speedup" not in result
    assert throughput.main(TINY) == 0
    assert "out of memory; give a smaller --batch" in capsys.readouterr().out


@pytest.mark.slow
def test_the_made_up_store_is_kept_where_it_is_wanted(bench, tmp_path, capsys):
    given = [*TINY, "--full", "--images", "40", "--store", str(tmp_path / "kept"), "--json"]
    for _ in range(2):
        assert bench("throughput").main(given) == 0
        assert json.loads(capsys.readouterr().out)["settings"]["images"] == 40
        mark = tmp_path / "kept" / "mark"
        assert not mark.exists() or mark.read_text() == "the same store"
        mark.write_text("the same store")
    assert mark.exists()
    assert bench("throughput").main([*given[:-1], "--images", "50"]) != 0
    assert "another store than 50 images" in capsys.readouterr().err


def test_a_step_of_zeroseg_beside_one_that_looks(bench, capsys, monkeypatch):
    throughput, zeroseg = bench("throughput"), bench("zeroseg")
    assert throughput.main([*TINY, "--zeroseg", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["settings"]["views"] == 30 and result["loss"] > 0
    assert result["speedup"] == pytest.approx(result["looking_ms"] / result["cached_ms"]) and result["speedup"] > 1
    real = zeroseg.Setting.cached

    def cached(self):
        patches, views = real(self)
        return patches, -views

    monkeypatch.setattr(zeroseg.Setting, "cached", cached)
    assert throughput.main([*TINY, "--zeroseg"]) == 1
    assert "no times: the loss is" in capsys.readouterr().err
