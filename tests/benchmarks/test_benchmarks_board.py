"""The board of benchmarks/README.md and the files of results agree, and the board says what nobody has measured."""

import importlib
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MACHINE = {"device": "A Processor", "date": "2026-11-21"}


@pytest.fixture
def board(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("board")


def test_the_board_and_the_results_agree(board):
    assert board.written(board.README.read_text(), board.newest()) == board.README.read_text(), (
        "benchmarks/README.md is not up to date: python benchmarks/board.py"
    )


def test_every_result_says_how_it_was_measured(board):
    for path, result in board.newest().values():
        assert {"device", "date", "python", "torch"} <= set(result["machine"]), path
        assert path.stem.endswith(result["machine"]["date"]), path


def test_a_changed_figure_is_noticed(board, tmp_path, monkeypatch, capsys):
    for name, path in (("README", board.README), ("RESULTS", board.RESULTS)):
        copy = tmp_path / path.name
        copy.write_text(path.read_text()) if path.is_file() else copy.mkdir()
        monkeypatch.setattr(board, name, copy)
    full = {"machine": MACHINE, "settings": {"steps": 3, "batch": 64}, "warm": {"wall_s": 41}}
    newest = tmp_path / "results" / "full-cpu-2026-11-21.json"
    newest.write_text(json.dumps(full | {"cold": {"wall_s": 55}}))
    assert board.main([]) == 0 == board.main(["--check"])
    assert "41 s warm, 55 s cold" in (tmp_path / "README.md").read_text()
    newest.write_text(json.dumps(full | {"cold": {"wall_s": 56}}))
    assert board.main(["--check"]) == 1
    assert "not up to date" in capsys.readouterr().out
    assert "55 s cold" in (tmp_path / "README.md").read_text()  # --check writes nothing


def test_the_newest_file_counts_and_the_missing_are_named(board, tmp_path):
    for date, ratio in (("2026-11-21", 3.0), ("2026-10-01", 2.0)):
        row = {"op": "clip_loss", "size": "4 x 5", "wrong": None, "ratio": ratio, "naive_peak_mb": 9, "peak_mb": 1}
        wrong = {"op": "concept_pool", "size": "4", "wrong": "output is off", "ratio": 9.0}
        result = {"machine": MACHINE | {"date": date}, "rows": [row, wrong]}
        (tmp_path / f"ops-cpu-{date}.json").write_text(json.dumps(result))
    (tmp_path / "tides-cpu-2026-11-20.json").write_text(
        json.dumps({"machine": MACHINE, "headlines": [["reading", "2.0 GB/s"]]})
    )
    lines = board.table(board.newest(tmp_path))
    assert sum("3.0x" in line for line in lines) == 1 and not any("2.0x" in line or "9.0x" in line for line in lines)
    assert any("2.0 GB/s" in line and "tides-cpu-2026-11-20.json" in line for line in lines)
    missing = [line for line in lines if "**not measured**" in line]
    assert len(missing) == len(board.WANTED) - 1
    assert sum("`python benchmarks/throughput.py`" in line for line in missing) == 2  # on a CPU and on a GPU


def test_a_strange_name_is_refused(board, tmp_path):
    (tmp_path / "latest.json").write_text("{}")
    with pytest.raises(SystemExit, match="latest.json: expected a name like"):
        board.newest(tmp_path)


def test_marks_that_are_gone_are_named(board):
    with pytest.raises(SystemExit, match="expected one line"):
        board.written("# no board here", {})
