"""The report: whole JSON, a page that is balanced, escaped, complete and self-contained, and that fits its window."""

import base64
import io
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from helpers.pages import Page
from PIL import Image

from fastzss import world
from fastzss.masks.colours import palette
from fastzss.pages.report import DASH, ROWS, duration, page, shown, write_report
from fastzss.pages.scenes import Scene, card, mistaken, verdict

HOSTILE = "<script>alert(\"1\")</script> & 'so on' \udc80"


def row(name, *scores, seeds=(0.0,), split="test"):
    """A row whose seeds lie around the scores."""
    keys = ("all", "things", "stuff")
    return {
        "row": name,
        "split": split,
        **dict(zip(keys, scores, strict=True)),
        "seeds": [{"seed": n, **{k: s + d for k, s in zip(keys, scores, strict=True)}} for n, d in enumerate(seeds)],
    }


def full_report():
    losses = [{"step": n, "loss": 9.0, "loss_global": 5 / (1 + n), "loss_local": 3 / (1 + n)} for n in range(0, 50, 5)]
    return {
        "title": "A demo",
        "intro": "What happened.",
        "rows": [
            row("random text", 1.23, 0.42, 3.14),
            row("global only", 28.34, 11.78, 77.81, seeds=(-1.5, 0.5, 1.0)),
            row("global + local", 35.91, 19.44, 85.26, seeds=(-2.0, 0.0, 2.0)),
            row("class means", 39.87, 23.56, 88.79),
            row("ceiling", 80.52, 76.83, 91.64),
        ],
        "classes": {
            "names": list(world.NAMES),
            "iou": {
                "global only": [10.0] * len(world.NAMES),
                "global + local": [None, *[61.7] * (len(world.NAMES) - 1)],
            },
        },
        "curves": {"global only": [{**m, "loss_local": 0.0} for m in losses], "global + local": losses},
        "times": {"look": 41.24, "train": 7262.0},
        "store": {"images": 1200, "bytes": 40_512_000, "dtype": "int8"},
        "bank": {"names": 61, "origin": "captions", "coverage": 0.9734, "overlap": "12 of 12 classes are in the bank"},
        "readout": {"global + local": "concept"},
        "machine": {"python": "3.12.1", "cpus": 2},
        "date": "2025-01-31",
        "command": "fastzss demo --seeds 3",
    }


def some_scenes(count=2):
    scenes = (world.scene("test", n) for n in range(count))
    return [Scene(s.image, s.mask // 2 * 2, s.mask, s.captions[0], world.NAMES) for s in scenes]


def test_json_holds_exactly_the_report(tmp_path):
    report = full_report()
    path = write_report(tmp_path / "new", report, [])
    assert path == tmp_path / "new/report.html"
    assert json.loads((tmp_path / "new/report.json").read_text()) == report
    assert sorted(p.name for p in path.parent.iterdir()) == ["report.html", "report.json"]


def test_json_is_standard_where_a_number_is_missing(tmp_path):
    report = {"rows": [row("global only", float("nan"), float("inf"), 2.0)], "times": {"a": float("nan")}}
    write_report(tmp_path, report, [])
    found = json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)
    assert found["rows"][0]["all"] is None and found["rows"][0]["things"] is None and found["rows"][0]["stuff"] == 2
    words = Page((tmp_path / "report.html").read_text("utf-8")).words
    assert DASH in words and "2.0" in words and "nan" not in words


def test_the_page_is_balanced_and_needs_nothing_else(tmp_path):
    html = write_report(tmp_path, full_report(), some_scenes()).read_text("utf-8")
    found = Page(html)
    assert not re.search(r"https?://|@import|url\(", html)
    assert {a["src"][:22] for _, a in found.elements if "src" in a} == {"data:image/png;base64,"}
    assert not {t for t, _ in found.elements} & {"script", "link", "iframe", "object"}
    assert not [a for _, a in found.elements if any(k == "href" or k.startswith("on") for k in a)]
    assert html.index('<meta charset="utf-8">') < 200 and found.count("meta", name="viewport") == 1


def test_numbers_on_the_page_are_those_of_the_rows():
    words = Page(page(full_report(), [])).words
    table = words[words.index("stuff") + 1 :]
    assert table[:4] == ["random text", "1.2", "0.4", "3.1"]
    spread = ["28.3", f"26.8{DASH}29.3", "11.8", f"10.3{DASH}12.8", "77.8", f"76.3{DASH}78.8"]
    assert table[4:11] == ["global only", *spread]
    assert table[11:14] == ["global + local", "35.9", f"33.9{DASH}37.9"]
    assert table[18:26] == ["class means", "39.9", "23.6", "88.8", "ceiling", "80.5", "76.8", "91.6"]
    assert [row for row, (_, meaning) in ROWS.items() if meaning in words] == [row for row in ROWS if row in table]
    assert {"41.2 s", "2 h 01 min", "40.5 MB", "1,200", "97.3 %", "2025-01-31", "fastzss demo --seeds 3"} <= set(words)


def test_the_best_learned_row_is_emphasised_not_the_bounds():
    html = page(full_report(), [])
    assert re.findall(r'<tr class="best"><th scope="row">([^<]+)', html) == ["global + local"]
    words = Page(html).words
    assert words[words.index("mIoU, global + local") - 1] == "35.9"


def test_each_split_has_its_table_and_unknown_rows_have_no_meaning():
    rows = [row("global only", 20.0, 1.0, 2.0), row("mine", 30.0, 1.0, 2.0), row("mine", 5.0, 1.0, 2.0, split="unseen")]
    html = page({"rows": rows}, [])
    found = Page(html)
    assert found.count("table") == 2 and found.count("tr", **{"class": "best"}) == 2
    assert [w.split()[-2] for w in found.words if w.endswith("split")] == ["test", "unseen"]
    assert found.words.count("mine") == 2 and found.count("dt") == 1


def test_scores_that_a_protocol_does_not_have_get_no_column():
    html = page({"rows": [{"row": "mine", "split": "val", "all": 12.34}]}, [])
    words = Page(html).words
    assert "12.3" in words and "things" not in words and "stuff" not in words


def test_every_class_has_a_bar_for_every_row():
    html = page({"classes": full_report()["classes"]}, [])
    assert html.count('class="bar"') == 2 * len(world.NAMES)
    words = Page(html).words
    tree = words.index(world.NAMES[0])
    assert words[tree : tree + 6] == [world.NAMES[0], "10.0", DASH, world.NAMES[1], "10.0", "61.7"]


def test_a_run_without_local_loss_is_not_in_its_chart():
    found = Page(page({"curves": full_report()["curves"]}, []))
    assert found.count("svg") == 2 and found.count("polyline") == 3
    assert Page(page({"curves": {"global only": full_report()["curves"]["global only"]}}, [])).count("svg") == 1


def test_one_name_has_one_colour_on_the_whole_page():
    curves = {"mine": [{"step": 0, "loss_global": 2.0}, {"step": 1, "loss_global": 1.0}]}
    html = page({"classes": {"names": ["a"], "iou": {"other": [1.0], "mine": [50.0]}}, "curves": curves}, [])
    bar = re.search(r"width:50.0%;background:(#\w+)", html)[1]
    assert f'stroke="{bar}"' in html


def test_pictures_come_back_from_the_page():
    scene = some_scenes(1)[0]
    html = page({}, [scene])
    images = [a for t, a in Page(html).elements if t == "img"]
    assert [a["alt"] for a in images] == ["image", "prediction", "truth"]
    shots = [Image.open(io.BytesIO(base64.b64decode(a["src"].split(",")[1]))) for a in images]
    sizes = [("PNG", int(a["width"]), int(a["height"])) for a in images]
    assert [(shot.format, *shot.size) for shot in shots] == sizes
    assert shots[0].tobytes() == scene.image.resize((256, 256), Image.Resampling.BICUBIC).tobytes()
    for shot, mask in ((shots[1], scene.prediction), (shots[2], scene.truth)):
        colours, pixels = palette(world.NAMES), np.asarray(shot)
        plates = [k for k in np.unique(mask).tolist() if (pixels == colours[k]).all(-1).sum() > 100]
        large = np.flatnonzero(np.bincount(mask.ravel()) > 0.02 * mask.size)
        assert set(large) <= set(plates), "the name of each stands on a plate of its colour"
    assert scene.caption in Page(html).words


def test_what_is_wrong_is_hatched_and_said():
    truth = np.zeros((100, 100), np.uint8)
    truth[:, 90:] = 255  # unlabelled
    prediction = truth.copy()
    image, names = Image.new("RGB", (100, 100), (90, 90, 90)), ("cat", "dog", "sky")
    right = Scene(image, prediction.copy(), truth, "", names)
    assert verdict(right, mistaken(right)) == "100 % of the pixels are right."
    prediction[:30, :30], prediction[:10, 50:70], prediction[50:, 95:] = 1, 2, 1
    prediction[99, 0] = 255
    wrong = Scene(image, prediction, truth, "a caption", names)
    assert mistaken(wrong).sum() == 900 + 200 + 1, "where nothing is labelled nothing is wrong"
    said = "88 % of the pixels are right; cat was taken for dog (10 %) and cat was taken for sky (2 %)."
    assert verdict(wrong, mistaken(wrong)) == said
    assert {said, "a caption", "prediction, hatched where it is wrong"} <= set(Page(card(wrong)).words)
    assert "hatched" not in card(Scene(image, prediction, None, "", names))
    unlabelled = Scene(image, prediction, np.full_like(truth, 255), "", names)
    assert verdict(unlabelled, mistaken(unlabelled)) == ""


@pytest.mark.parametrize("size", [(1, 1), (5, 700), (1500, 900)], ids=["dot", "tall", "large"])
def test_pictures_of_any_size_without_truth_or_with_unlabelled_pixels(size):
    mask = np.full(size[::-1], 255, np.uint8)
    image = Image.new("RGB", size, (10, 200, 30))
    scenes = [Scene(image, mask * 0, None, "", ("cat",)), Scene(image, mask * 0, mask, "", ("cat",))]
    html = page({}, scenes)
    assert Page(html).count("img") == 5
    assert len(html) < 100_000


def test_all_text_is_escaped(tmp_path):
    report = full_report()
    for part in ("title", "intro", "date", "command"):
        report[part] = HOSTILE
    report["rows"] = [row(HOSTILE, 1.0, 2.0, 3.0, split=HOSTILE)]
    report["classes"] = {"names": [HOSTILE], "iou": {HOSTILE: [50.0]}}
    report["curves"] = {HOSTILE: report["curves"]["global + local"]}
    report["times"] = {HOSTILE: 3.0}
    for part in ("store", "bank", "readout", "machine"):
        report[part] = {HOSTILE: HOSTILE}
    scene = some_scenes(1)[0]
    scene = Scene(scene.image, scene.prediction, None, HOSTILE, (HOSTILE,) * len(world.NAMES))
    html = write_report(tmp_path, report, [scene]).read_text("utf-8")
    assert "<script" not in html and "alert(&quot;1&quot;)" in html
    assert sum("alert" in word for word in Page(html).words) > 15
    assert json.loads((tmp_path / "report.json").read_text())["title"] == HOSTILE


@pytest.mark.parametrize("missing", sorted(full_report()))
def test_every_part_may_be_missing_or_empty(missing):
    report = full_report()
    value = report.pop(missing)
    without = page(report, [])
    Page(without)
    assert page({**report, missing: type(value)()}, []) == without


def test_an_empty_report_is_a_page_with_a_title():
    assert Page(page({}, [])).words == ["Report", "Report"]


@pytest.mark.parametrize(
    "seconds, words",
    [(0, "0.0 s"), (99.94, "99.9 s"), (99.96, "1 min 40 s"), (3599.4, "59 min 59 s"), (3599.6, "1 h 00 min"),
     (None, DASH)],
)  # fmt: skip
def test_durations(seconds, words):
    assert duration(seconds) == words


@pytest.mark.parametrize(
    "key, value, words",
    [("bytes", 0, "0 bytes"), ("bytes", 999, "999 bytes"), ("bytes", 23_500_000_000, "23.5 GB"),
     ("images", 1200, "1,200"), ("coverage", 1.0, "100.0 %"), ("rate", 0.12345, "0.1235"), ("resident", True, "True"),
     ("dtype", "int8", "int8")],
)  # fmt: skip
def test_details_in_words(key, value, words):
    assert shown(key, value) == words


@pytest.fixture(scope="module")
def browser():
    path = shutil.which("chromium")
    if not path:
        pytest.skip("no chromium on PATH")
    return path


# A browser's window is never narrower than about 500 px, a frame is; the page in it measures itself and tells it.
MEASURE = """<script>addEventListener("load", () => {
  const wide = document.scrollingElement.scrollWidth;
  const drawn = [...document.images].filter(i => i.naturalWidth > 0).length;
  parent.postMessage([innerWidth, wide, drawn, getComputedStyle(document.body).backgroundColor].join("; "), "*");
})</script></body>"""
FRAME = """<!doctype html><meta name="color-scheme" content="light dark"><body>
<script>addEventListener("message", e => { document.body.dataset.measured = e.data })</script>
<iframe src="report.html" style="width: %dpx; height: 1000px; border: 0"></iframe>"""


@pytest.mark.parametrize("scheme, paper", [("light", "rgb(247, 247, 245)"), ("dark", "rgb(20, 23, 27)")])
@pytest.mark.parametrize("width", [1280, 390, 320])
def test_the_page_fits_its_window_in_a_browser(browser, tmp_path, width, scheme, paper):
    report = full_report()
    report["classes"]["names"][0] = "a" * 60  # even then
    report["store"]["source"] = "folder:/" + "long" * 50
    path = write_report(tmp_path, report, some_scenes())
    html = path.read_text("utf-8").replace("default-src 'none'", "default-src 'none'; script-src 'unsafe-inline'")
    path.write_text(html.replace("</body>", MEASURE), "utf-8")
    (tmp_path / "frame.html").write_text(FRAME % width)

    quiet = "disable-gpu disable-quic no-first-run disable-background-networking disable-component-update disable-sync"
    command = [browser, "--headless=new", "--no-sandbox", *(f"--{flag}" for flag in quiet.split())]
    command += [f"--user-data-dir={tmp_path}/profile", "--window-size=1400,1000", "--enable-logging=stderr"]
    command += [f"--blink-settings=preferredColorScheme={int(scheme == 'light')}", "--hide-scrollbars"]
    command += ["--virtual-time-budget=2000", "--dump-dom", (tmp_path / "frame.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    measured = re.search(r'data-measured="([^"]+)"', done.stdout)[1].split("; ")
    assert measured == [str(width), str(width), "6", paper]  # as wide as its window, all pictures drawn
    assert not [line for line in done.stderr.splitlines() if "CONSOLE" in line]
