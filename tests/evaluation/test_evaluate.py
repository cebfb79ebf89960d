"""An evaluation as a whole: backgrounds, refinement, kept features, interruptions, several processes, reports."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.benchmarks import plant
from helpers.pages import Page

import fastzss
from fastzss import cli, world
from fastzss.base.ranks import Ranks
from fastzss.base.runs import Run
from fastzss.evaluation.benchmark import Benchmark
from fastzss.evaluation.datasets import EvaluationSet
from fastzss.evaluation.protocols import protocol_of, replace
from fastzss.evaluation.reading import WindowReading, reading_of
from fastzss.evaluation.score import confusion, iou, mean_iou
from fastzss.evaluation.tally import Tally
from fastzss.evaluation.windows import WindowField

BIN = Path(sys.executable).parent
TCL = protocol_of("tcl")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """VOC of five small scenes of the world; its classes mean nothing here, the bytes do."""
    root = tmp_path_factory.mktemp("data")
    masks, pictures = {}, {}
    for index in range(5):
        scene = world.scene("test", index)
        masks[f"2007_{index:06d}"] = (scene.mask % 21).astype(np.uint8)
        pictures[f"2007_{index:06d}"] = scene.image
    plant(root, "voc20", masks)
    for key, image in pictures.items():
        image.save(root / "VOCdevkit/VOC2012/JPEGImages" / f"{key}.jpg", quality=95)
    return root


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """A protocol of small windows, two kinds of them."""
    path = tmp_path_factory.mktemp("protocol") / "quick.yaml"
    path.write_text("look: windows\nshort: 96\nlong: 512\nwindow: 96\nstride: 48\nbackground: threshold\nvalue: 0.1\n")
    return path


@pytest.fixture
def scorer(trained, data, quick):
    def made(**changes):
        given = {"model": fastzss.load(trained, "cpu"), "run": Run.open(trained), "ranks": Ranks("cpu"), "data": data}
        return Benchmark(**{**given, "protocol": protocol_of(str(quick)), **changes})

    return made


def planted(values, size=(40, 60)):
    """A field of a TCL look, every patch with the same values."""
    sides = TCL.windows.sides(size, 14)
    count = len(sides[0].starts) * len(sides[1].starts) * 32 * 32
    field = WindowField(
        torch.zeros(count, 1), sides, lambda: torch.zeros(3, *(s.resized for s in sides), dtype=torch.uint8)
    )
    return field, SimpleNamespace(values=lambda field: torch.tensor(values).expand(count, -1))


@pytest.mark.parametrize(
    "rule, value, expected",
    [
        ("threshold", 0.2, 2), ("threshold", 0.4, 0),  # the best has 0.3
        ("prob", 0.8, 2), ("prob", 0.99, 0),  # softmax(40 (0.1, 0.3, 0.25)) has 0.881 at most
        ("none", None, 2), ("words", None, 2),
    ],
)  # fmt: skip
def test_a_place_is_background_below_the_value(rule, value, expected):
    field, vocabulary = planted([0.1, 0.3, 0.25])
    protocol = replace(TCL, background=rule, value=value, scale=40.0)
    reading = WindowReading(vocabulary, [1, 2, 3], protocol, True)
    certainty, winner = reading.decide(field, (40, 60))
    assert (reading.settle(certainty, winner) == expected).all()
    if rule == "prob":
        assert certainty == pytest.approx(float(torch.tensor([4.0, 12.0, 10.0]).softmax(0)[1]), abs=1e-5)


def test_refined_shares_have_the_same_background():
    for value, expected in ((0.2, 2), (0.4, 0)):
        field, vocabulary = planted([0.1, 0.3, 0.25])
        reading = WindowReading(vocabulary, [1, 2, 3], replace(TCL, value=value, refine="pamr"), True)
        assert (reading.settle(*reading.decide(field, (40, 60))) == expected).all()


def test_a_capped_value_leaves_the_surest_place():
    field, vocabulary = planted([0.1, 0.3, 0.25])
    protocol = replace(TCL, background="prob", value=0.99, capped=True, scale=40.0)
    reading = WindowReading(vocabulary, [1, 2, 3], protocol, True)
    certainty, winner = reading.decide(field, (40, 60))
    settled = reading.settle(certainty, winner)
    assert np.array_equal(settled == 2, certainty >= certainty.max()) and (settled == 2).any()


def test_words_and_synonyms_are_columns_of_their_classes(trained):
    model = fastzss.load(trained, "cpu")
    data = EvaluationSet(("background", "tree", "house"), {}, [], None, None, {"tree": ("oak", "elm")}, True)
    columns = []
    model.vocabulary = lambda names, *rest, **raw: columns.extend(names) or SimpleNamespace(inference=rest[0])
    protocol = replace(TCL, background="words", synonyms=True, words=("sky", "sea"))
    reading, settled = reading_of(protocol, model, data)
    assert columns == ["tree", "oak", "elm", "house", "sky", "sea"]
    assert reading.owner.tolist() == [1, 1, 1, 2, 0, 0, 0] and reading.limit is None and settled.value is None
    _, settled = reading_of(replace(protocol, background="none"), model, data)
    assert settled.words == () and columns[6:] == ["tree", "oak", "elm", "house"]
    _, settled = reading_of(replace(TCL, value=None), model, data)
    assert settled.value == pytest.approx(model.memory.threshold)


def test_a_sweep_is_each_limit_by_itself():
    """In one pass what as many evaluations would give."""
    random = np.random.default_rng(0)
    truth, winner = random.integers(0, 4, (2, 30, 40)).astype(np.uint8)
    truth[:3] = 255
    certainty, limits = random.random((30, 40)), [0.0, 0.25, 0.5, 1.0]
    reading = SimpleNamespace(
        protocol=SimpleNamespace(capped=False), decide=lambda field, size: (certainty, winner), settle=lambda c, w: w
    )
    tally = Tally(reading, 4, limits)
    tally.add(0, tally.judge(None, truth))
    for limit in limits:
        alone = mean_iou(iou(confusion(truth, np.where(certainty < limit, 0, winner), 4)))
        assert tally.swept[limit] == pytest.approx(100 * alone, abs=1e-12)


def test_the_sweep_of_a_set_meets_its_own_value_and_marks_the_best_as_tuned(scorer):
    limits = (0.0, 0.1, 0.2, 0.3)
    figures, _ = scorer(limits=limits).of("voc21")
    assert figures["sweep"][0.1] == pytest.approx(figures["miou"], abs=1e-9) and len(figures["sweep"]) == 4
    assert figures["tuned"]["miou"] == max(figures["sweep"].values()) and "evaluated images" in figures["tuned"]["note"]
    assert "sweep" not in scorer(limits=limits).of("voc20")[0]  # it has no background


def test_a_refinement_is_a_column_of_its_own(scorer, quick):
    plain, _ = scorer().of("voc20")
    both, _ = scorer(protocol=replace(protocol_of(str(quick)), refine="smooth+pamr")).of("voc20")
    assert both["miou"] == plain["miou"] and both["hash"] == plain["hash"] and "miou_smooth+pamr" not in plain
    assert both["miou_smooth+pamr"] != both["miou"]


class Blind:
    """A backbone that must not be asked again."""

    def __init__(self, vision):
        self.size, self.grid, self.globals, self.device = vision.size, vision.grid, vision.globals, vision.device
        self.at = self.__call__ = None


def test_kept_features_give_the_score_without_a_look_and_sets_of_the_same_images_share_them(scorer, tmp_path):
    plain, _ = scorer().of("voc20")
    kept, _ = scorer(cache=tmp_path).of("voc20")
    assert kept["miou"] == pytest.approx(plain["miou"], abs=0.05)  # float16
    again = scorer(cache=tmp_path)
    again.model.vision = Blind(again.model.vision)
    assert again.of("voc20")[0] == kept
    assert again.of("voc21")[0]["images"] == 5 and len(list(tmp_path.iterdir())) == 1


def test_kept_features_that_are_damaged_are_named(scorer, tmp_path):
    scorer(cache=tmp_path).of("voc20")
    (path,) = tmp_path.glob("*/000003.safetensors")
    path.write_bytes(path.read_bytes()[:99])
    with pytest.raises(fastzss.base.errors.UserError, match="000003.safetensors: cannot be read"):
        scorer(cache=tmp_path).of("voc20")
    path.unlink()
    scorer(cache=tmp_path).of("voc20")


@pytest.mark.parametrize("kept", [False, True], ids=["seen", "kept"])
@pytest.mark.parametrize("at_once", [1, 2])
def test_interrupted_and_continued_is_uninterrupted(scorer, tmp_path, monkeypatch, kept, at_once):
    monkeypatch.setattr("fastzss.evaluation.evaluate.at_once", lambda ranks: at_once)
    cache = tmp_path / "cache" if kept else None
    limits = (0.0, 0.2)
    whole, _ = scorer(out=tmp_path / "one", cache=cache, limits=limits).of("voc21")
    judge, seen = Tally.judge, []

    def stopped(self, field, truth):
        seen.append(1)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return judge(self, field, truth)

    monkeypatch.setattr(Tally, "judge", stopped)
    with pytest.raises(KeyboardInterrupt):
        scorer(out=tmp_path / "two", cache=cache, limits=limits).of("voc21")
    assert scorer(out=tmp_path / "two", cache=cache, limits=limits).of("voc21")[0] == whole
    judged = len(seen)  # three of five were counted before; of two at once the other may have been begun
    assert judged == 4 + 2 if at_once == 1 else 4 + 2 <= judged <= 4 + 3
    assert scorer(out=tmp_path / "two", cache=cache, limits=limits).of("voc21")[0] == whole and len(seen) == judged
    # another protocol begins anew
    scorer(out=tmp_path / "two", protocol=replace(scorer().protocol, value=0.2)).of("voc21")
    assert len(seen) == judged + 5


def run_json(*argv, launch=()):
    done = subprocess.run([*launch, str(BIN / "fastzss"), *map(str, argv)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_two_processes_count_exactly_what_one_does(trained, data, quick, tmp_path):
    argv = ("evaluate", trained, "--data", data, "--protocol", quick, "--refine", "smooth", "--json", "--device", "cpu")
    argv += ("--bg-sweep", "0:0.4:0.1")
    launch = [str(BIN / "torchrun"), "--no-python", "--nproc_per_node", "2"]
    alone = run_json(*argv)
    assert list(alone["sets"]) == ["voc20", "voc21"] and alone["sets"]["voc21"]["miou_smooth"]
    assert run_json(*argv, "--out", tmp_path / "o", launch=launch) == alone
    report = json.loads((tmp_path / "o" / "report.json").read_text())
    assert report["sets"]["voc21"]["miou"] == alone["sets"]["voc21"]["miou"]


def test_a_report_is_a_page_a_table_and_an_object_and_two_are_compared(trained, data, quick, tmp_path, capsys):
    argv = ["evaluate", str(trained), "--data", str(data), "--device", "cpu", "--protocol"]
    assert (
        cli.main([*argv, str(quick), "--sets", "voc21", "--bg-sweep", "0:0.4:0.2", "--out", str(tmp_path / "a")]) == 0
    )
    other = tmp_path / "other.yaml"
    other.write_text(quick.read_text().replace("0.1", "0.3"))
    assert cli.main([*argv, str(other), "--sets", "voc20,voc21", "--out", str(tmp_path / "b")]) == 0
    capsys.readouterr()
    html, text = (tmp_path / "a" / "report.html").read_text(), (tmp_path / "a" / "report.md").read_text()
    page, words = Page(html), " ".join(Page(html).words)
    assert page.count("article", **{"class": "scene n3"}) == 3 and "worst: 2007" in words
    for told in (
        "Published by others, without masks",
        "SimZSS COCO",
        "Talk2DINO B",
        "no score to be compared",
        "voc21",
    ):
        assert told in words
    assert not any(v.startswith("http") for _, own in page.elements for k, v in own.items() if k in ("src", "href"))
    assert "| voc21 |" in text and "| SimZSS COCO | ViT-B/14 | 90.3* |" in text and "recalled from the paper" in text
    first, second = (json.loads((tmp_path / name / "report.json").read_text())["sets"]["voc21"] for name in "ab")
    assert cli.main(["evaluate", "--compare", str(tmp_path / "a"), str(tmp_path / "b"), "--json"]) == 0
    out, err = capsys.readouterr()
    ((name, both),) = json.loads(out)["sets"].items()
    assert (
        name == "voc21"
        and "not made alike" in err
        and both["miou"] == [first["miou"], second["miou"], second["miou"] - first["miou"]]
    )
    assert set(both["classes"]) == set(first["classes"])


MISTAKES = {
    "no run": ("", 2, "missing: RUN"),
    "unknown set": ("{run} --data {data} --sets voc12", 2, 'unknown set "voc12" .did you mean'),
    "no data": ("{run} --sets voc20", 2, "the set voc20 needs --data DIR"),
    "data elsewhere": ("{run} --data {tmp}/no", 1, "no such folder"),
    "a set that is not there": ("{run} --data {data} --sets voc20,ade20k", 1, "ade20k is not there; expected"),
    "limit of none": ("{run} --data {data} --limit 0", 2, "--limit is 0"),
    "sweep of nothing": ("{run} --data {data} --bg-sweep 1:0:2", 2, "expected LOW:HIGH:STEP"),
    "value of words": ("{run} --data {data} --background-value high", 2, "expected a number, or run"),
    "refinement of the world": ("{run} --refine pamr", 2, "--refine is of the protocols that look through windows"),
    "compare nothing": ("--compare {tmp}/a {tmp}/b", 2, "is no report"),
    "check nothing": ("--check {tmp}/no", 2, "no such folder"),
    "no store": ("{run} --retrieval {tmp}/no", 1, "no"),
    "file for a set": ("{run} --protocol {tmp}/x.yaml --data {data}", 2, "x.yaml: cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_sentence(case, trained, data, tmp_path, capsys):
    line, code, sentence = MISTAKES[case]
    argv = line.format(run=trained, data=data, tmp=tmp_path).split()
    assert cli.main(["evaluate", *argv]) == code
    out, err = capsys.readouterr()
    assert sentence.replace(" .did", " (did") in err if "did you" in sentence else sentence in err
    assert "Traceback" not in err and not out


def test_bad_pairs_mark_a_score_as_partial(scorer, data, tmp_path):
    root = shutil.copytree(data, tmp_path / "data")
    (root / "VOCdevkit/VOC2012/SegmentationClass/2007_000002.png").write_bytes(b"")
    (root / "VOCdevkit/VOC2012/JPEGImages/2007_000004.jpg").unlink()
    figures, _ = scorer(data=root, skip=True, out=tmp_path / "o").of("voc20")
    assert figures["images"] == 3 and figures["bad"] == 2 and figures["partial"] and figures["of"] == 1449
    assert scorer(data=root, skip=True, out=tmp_path / "o").of("voc20")[0] == figures
