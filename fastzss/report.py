"""Numbers and pictures -> report.json and report.html, one page that needs nothing else.

The report is a dict of plain values; every key is optional:

    title, intro, date, command   str
    rows      [{"row": name, "split": "test", "all": mIoU, "things": mIoU, ... (those of SCORES that it has),
                "seeds": [{"seed": 0, "all": ..., "things": ..., ...}, ...]}]   points 0..100, means over seeds
    classes   {"names": [K names], "iou": {row: [K points, or None where a class occurs nowhere]}}
    curves    {run: [{"step": ..., "loss_global": ..., "loss_local": ..., ...}]}   as a run's metrics.jsonl has them
    times     {stage: seconds}, in order
    store     {"images": ..., "bytes": ..., ...}
    bank      {"names": size, "origin": ..., "coverage": share 0..1, "overlap": sentence, ...}
    readout, machine   {what: value}

A number that is not finite counts as missing: null in report.json, a dash on the page.
"""

import json
import math
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from fastzss.drawing import css, curve_svg, data_uri, fitted, overlay, palette
from fastzss.store.files import write_file

SCORES = ("all", "things", "stuff", "unseen", "seen")
ROWS = {  # the rows we know: colour, meaning
    "random text": ("faint", "the same model with a text encoder that has learned nothing: what chance gives"),
    "global only": ("second", "trained with the loss between whole captions and whole images alone"),
    "global + local": ("strong", "trained also with the loss between a caption's concepts and their patches"),
    "class means": ("bound", "each class is the mean of its patches under true masks: no competitor"),
    "ceiling": ("faint", "the best mask the grid of patches can draw, from true masks: a bound, no competitor"),
}
SPLITS = {  # the harder tests we know, and what they ask
    "combinations": "a colour and a thing that no caption ever put together (unseen), beside usual ones (seen)",
    "drawings": "new drawings: shapes and textures with parameters outside the ranges seen in training",
    "large": "pictures of other sizes and aspects, read through sliding windows",
}
NOT_LEARNED = ("random text", "class means", "ceiling")
LOSSES = {"loss_global": "Global loss: captions and images", "loss_local": "Local loss: concepts and patches"}
CARDS = {"store": "Store", "bank": "Concept bank", "readout": "Readout", "machine": "Machine"}
NOTABLE = 0.005  # share of a picture from which on a class stands in its legend
PICTURE = 256, 512  # least width and largest side of a picture on the page, in pixels
DASH = "\N{EN DASH}"


@dataclass(frozen=True)
class Scene:
    """An image as the model sees it, beside the truth if there is one."""

    image: Image.Image  # RGB
    prediction: np.ndarray  # uint8 [H, W]: index into `names` of every pixel
    truth: np.ndarray | None  # uint8 [H, W]; ids without a name are unlabelled
    caption: str
    names: tuple[str, ...]


def write_report(folder, report, scenes):
    """Write `report` and its page into `folder`; returns the path of the page."""
    text = json.dumps(finite(report), indent=2, allow_nan=False) + "\n"
    write_file(Path(folder) / "report.json", text.encode())
    path = Path(folder) / "report.html"
    write_file(path, page(report, scenes).encode("utf-8", "xmlcharrefreplace"))
    return path


def finite(value):
    """The value with None for numbers that JSON does not know."""
    if isinstance(value, dict):
        return {key: finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def page(report, scenes):
    report = {key: value for key, value in finite(report).items() if value}
    rows = report.get("rows", [])
    names = [r["row"] for r in rows] + list(report.get("classes", {}).get("iou", {})) + list(report.get("curves", {}))
    others = (css(colour) for colour in palette(range(256))[4:])
    # one name has one colour on the whole page
    colours = {name: f"var(--{ROWS[name][0]})" if name in ROWS else next(others) for name in dict.fromkeys(names)}
    sections = {
        "Results": results(rows, colours),
        "Pictures": pictures(scenes),
        "IoU of each class": classes(report.get("classes", {}), colours),
        "Training": curves(report.get("curves", {}), colours),
        "Time": times(report.get("times", {})),
        "Details": details(report),
    }
    body = "".join(f"<section>\n<h2>{name}</h2>\n{html}</section>\n" for name, html in sections.items() if html)
    title = escape(report.get("title", "Report"))
    head = f"{HEAD}<title>{title}</title>\n<style>{STYLE}</style>"
    main = f"<main>\n<h1>{title}</h1>\n{header(report)}{body}</main>"
    return f'<!doctype html>\n<html lang="en">\n<head>{head}</head>\n<body>\n{main}\n</body>\n</html>\n'


def header(report):
    best = best_learned(report.get("rows", []))
    store, seconds = report.get("store", {}), sum(v for v in report.get("times", {}).values() if v)
    facts = [
        best and (points(best["all"]), f"mIoU, {best['row']}"),
        store.get("images") and (shown("images", store["images"]), "images looked at once"),
        store.get("bytes") and (shown("bytes", store["bytes"]), "of stored features"),
        seconds and (duration(seconds), "all stages together"),
    ]
    tiles = each("<div><b>{}</b><span>{}</span></div>", filter(None, facts))
    intro, command, date = (escape(str(report.get(key, ""))) for key in ("intro", "command", "date"))
    note = f"<code>{command}</code>{date}" if command else date
    return f'<p class="intro">{intro}</p>\n<p class="note">{note}</p>\n<div class="facts">{tiles}</div>\n'


def each(template, rows):
    """The template, filled with the escaped texts of each row."""
    return "".join(template.format(*(escape(str(text)) for text in row)) for row in rows)


def best_learned(rows):
    """The best row of the first split that was learned from captions, or None."""
    learned = [r for r in rows if r["split"] == rows[0]["split"] and r["row"] not in NOT_LEARNED and r.get("all")]
    return max(learned, key=lambda r: r["all"], default=None)


def results(rows, colours):
    """A table for each split, and what its rows mean."""
    splits = dict.fromkeys(r["split"] for r in rows)
    tables = "".join(table([r for r in rows if r["split"] == split], colours) for split in splits)
    known = [name for name in dict.fromkeys(r["row"] for r in rows) if name in ROWS]
    meanings = each("<div><dt>{}</dt><dd>{}</dd></div>\n", [(name, ROWS[name][1]) for name in known])
    return tables + (f'<dl class="meanings">\n{meanings}</dl>\n' if meanings else "")


def table(rows, colours):
    """The rows of one split; the best learned one is emphasised."""
    columns = [c for c in SCORES if any(c in r for r in rows)]
    best = best_learned(rows)
    count = max(len(r.get("seeds") or []) for r in rows)
    note = f"; with a range below: mean of {count} seeds, lowest{DASH}highest" if count > 1 else ""
    body = ""
    for row in rows:
        name = f"{escape(row['row'])}{bar(row.get('all'), 100, colours[row['row']])}"
        cells = "".join(f"<td>{score(row, c)}</td>" for c in columns)
        mark = ' class="best"' if row is best else ""
        body += f'<tr{mark}><th scope="row">{name}</th>{cells}</tr>\n'
    split = escape(rows[0]["split"])
    meaning = f"<br>{SPLITS[split]}" if split in SPLITS else ""
    caption = f"<caption>mIoU in points, {split} split{note}{meaning}</caption>"
    head = f'<thead><tr><th scope="col"></th>{each("<th scope=col>{}</th>", zip(columns))}</tr></thead>'
    return f'<div class="table"><table>{caption}\n{head}\n<tbody>\n{body}</tbody></table></div>\n'


def score(row, column):
    """The mean, and below it the lowest and the highest seed where there are several."""
    seeds = [s[column] for s in row.get("seeds") or [] if s.get(column) is not None]
    spread = f"<small>{points(min(seeds))}{DASH}{points(max(seeds))}</small>" if len(seeds) > 1 else ""
    return points(row.get(column)) + spread


def bar(value, most, colour):
    share = 100 * min(1, max(0, (value or 0) / most))
    return f'<i class="bar" style="width:{share:.1f}%;background:{colour}"></i>'


def keys(entries):
    """Swatches with names, of (colour, name)."""
    return each('<li><i style="background:{}"></i>{}</li>', entries)


def pictures(scenes):
    return f'<div class="scenes">\n{"".join(card(scene) for scene in scenes)}</div>\n' if scenes else ""


def card(scene):
    """Image, prediction and truth side by side, above the colours of their classes."""
    colours = palette(scene.names)
    masks = {"prediction": scene.prediction, "truth": scene.truth}
    masks = {kind: mask for kind, mask in masks.items() if mask is not None}
    shots = {"image": fitted(scene.image, scene.prediction, *PICTURE)[0]}
    shots |= {kind: overlay(*fitted(scene.image, mask, *PICTURE), colours, 0.65) for kind, mask in masks.items()}
    figure = '<figure><img alt="{0}" width="{1}" height="{2}" src="{3}"><figcaption>{0}</figcaption></figure>\n'
    figures = each(figure, [(kind, *shot.size, data_uri(shot)) for kind, shot in shots.items()])
    counts = [np.bincount(mask.ravel(), minlength=256)[: len(scene.names)] / mask.size for mask in masks.values()]
    present = np.flatnonzero(np.max(counts, 0) >= NOTABLE).tolist()
    legend = keys((css(colours[k]), scene.names[k]) for k in present)
    caption = f"<p>{escape(scene.caption)}</p>"
    return f'<article class="scene n{len(shots)}">\n{figures}<ul>{legend}</ul>{caption}</article>\n'


def classes(found, colours):
    """For each class a bar for each row."""
    rows = found.get("iou", {})
    items = ""
    for k, name in enumerate(found.get("names", []) if rows else []):
        bars = (f"<div>{bar(ious[k], 100, colours[row])}{points(ious[k])}</div>" for row, ious in rows.items())
        items += f'<li><span>{escape(name)}</span><div class="bars">{"".join(bars)}</div></li>\n'
    legend = keys((colours[row], row) for row in rows)
    return f'<ul class="keys">{legend}</ul>\n<ul class="classes">\n{items}</ul>\n' if items else ""


def curves(runs, colours):
    """A chart for each loss, of the runs that have it."""
    charts = ""
    for key, title in LOSSES.items():
        lines = {
            run: [(m["step"], m[key]) for m in metrics if None not in (m.get("step"), m.get(key))]
            for run, metrics in runs.items()
        }
        lines = {run: line for run, line in lines.items() if any(y for _, y in line)}
        charts += f"<div>{curve_svg(lines, title, 'step', 'loss', colours)}</div>\n" if lines else ""
    return f'<div class="charts">\n{charts}</div>\n' if charts else ""


def times(stages):
    most = max((v for v in stages.values() if v), default=1)
    items = ""
    for stage, value in stages.items():
        items += f"<li><span>{escape(stage)}</span>{bar(value, most, 'var(--bound)')}<b>{duration(value)}</b></li>\n"
    return f'<ul class="times">\n{items}</ul>\n' if items else ""


def details(report):
    cards = ""
    for key, title in CARDS.items():
        facts = [(k.replace("_", " "), shown(k, v)) for k, v in report.get(key, {}).items() if v is not None]
        items = each("<div><dt>{}</dt><dd>{}</dd></div>\n", facts)
        cards += f"<article><h3>{title}</h3><dl>\n{items}</dl></article>\n" if items else ""
    return f'<div class="details">\n{cards}</div>\n' if cards else ""


def points(value):
    return DASH if value is None else f"{value:.1f}"


def duration(seconds):
    if seconds is None:
        return DASH
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def shown(key, value):
    """A value of a detail in words."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if key == "coverage":
        return f"{100 * value:.1f} %"
    if key == "bytes":
        power = min(4, int(math.log10(max(1, value))) // 3)
        return f"{value / 1000**power:.{min(1, power)}f} {('bytes', 'kB', 'MB', 'GB', 'TB')[power]}"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


# Nothing is ever fetched: the policy makes the browser see to it.
HEAD = """<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
"""
STYLE = """
:root { --paper: #f7f7f5; --card: #fff; --ink: #1e2329; --soft: #626b76; --line: #e2e3e0; --strong: #2c68d8;
  --second: #e08a35; --bound: #98a2ae; --faint: #c7ccd3; --tint: #edf2fc }
@media (prefers-color-scheme: dark) { :root { --paper: #14171b; --card: #1b1f25; --ink: #e5e8ec; --soft: #98a2ae;
  --line: #2d333b; --strong: #6ea2ff; --second: #eda45c; --bound: #7f8a97; --faint: #505963; --tint: #1f2a3c } }
* { box-sizing: border-box; margin: 0; padding: 0 }
body { background: var(--paper); color: var(--ink); overflow-wrap: anywhere; -webkit-text-size-adjust: 100%;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif }
main { max-width: 1100px; margin: auto; padding: clamp(28px, 6vw, 64px) clamp(16px, 3vw, 32px) 80px }
h1 { font-size: clamp(30px, 5vw, 42px); line-height: 1.15; letter-spacing: -.02em; margin-bottom: 14px }
h2 { font-size: 22px; line-height: 1.3; letter-spacing: -.01em; margin: clamp(40px, 5vw, 56px) 0 16px }
h3 { font-size: 16px; margin-bottom: 8px } h1, h2, h3, .facts b, .best { font-weight: 650 }
p { max-width: 68ch; margin-bottom: 12px } .intro { font-size: 18px } ul { list-style: none }
p:empty, .facts:empty { display: none } table { border-collapse: collapse; width: 100% }
.note, caption, small, dt, figcaption, .facts span, thead, .scene p { color: var(--soft); font-size: 14px }
code { font: 13px ui-monospace, Menlo, Consolas, monospace; color: var(--ink); padding: 4px 8px; margin-right: 8px }
code, .facts div, article, .charts div, .table, .classes, .times { background: var(--card);
  border: 1px solid var(--line); border-radius: 6px }
.facts div, article, .charts div, .table, .classes, .times { border-radius: 12px; padding: 16px 18px }
.facts, .scenes, .charts, .details { display: grid; gap: 14px;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, var(--least)), 1fr)) }
.facts { --least: 150px; margin-top: 28px } .scenes, .charts { --least: 420px } .details { --least: 280px }
.facts b { display: block; font-size: clamp(20px, 5vw, 26px); line-height: 1.35; white-space: nowrap }
.bar { display: block; height: 6px; border-radius: 3px } th .bar { margin-top: 7px }
.table { overflow-x: auto; margin-bottom: 20px; padding: 8px 0 } caption { text-align: left; padding: 8px 18px }
table, b, dd, .bars { font-variant-numeric: tabular-nums }
th, td { padding: 10px 18px 10px 0; text-align: right; vertical-align: top; font-weight: inherit }
td, thead { white-space: nowrap }
th:first-child { text-align: left; padding-left: 18px; width: 55%; overflow-wrap: normal }
tbody tr { border-top: 1px solid var(--line) } .best { background: var(--tint) }
small { display: block; font-size: 12px; font-weight: 400; white-space: nowrap }
dl div { display: grid; grid-template-columns: minmax(90px, 3fr) 5fr; gap: 12px; padding: 3px 0; font-size: 14px }
.meanings div { grid-template-columns: minmax(100px, 1fr) 6fr }
.keys, .scene ul { display: flex; flex-wrap: wrap; gap: 4px 16px; font-size: 14px }
.keys i, .scene i { display: inline-block; width: 12px; height: 12px; border-radius: 3px; margin-right: 7px }
.scene { display: grid; gap: 12px; grid-template-columns: repeat(3, 1fr); align-content: start }
.n2 { grid-template-columns: repeat(2, 1fr) } .scene ul, .scene p { grid-column: 1 / -1; margin: 0 }
img, svg { display: block; width: 100%; height: auto; border-radius: 6px; margin-bottom: 4px }
.classes { columns: 2 300px; column-gap: 40px; margin-top: 14px }
.classes li, .bars div, .times li { display: grid; gap: 12px; font-size: 14px; align-items: center }
.classes li { grid-template-columns: 96px 1fr; align-items: start; break-inside: avoid; padding: 6px 0 }
.bars { line-height: 1.3 } .bars div { grid-template-columns: 1fr 38px; text-align: right; font-size: 12px }
.times li { grid-template-columns: minmax(110px, 2fr) 5fr 92px; padding: 4px 0 }
.times b { text-align: right; font-weight: 400 }
@media (max-width: 560px) { .n3 { grid-template-columns: 1fr 1fr } .n3 ul { grid-column: 2; flex-direction: column }
  table { font-size: 15px } th, td { padding-right: 14px } th:first-child { width: 30% } }
"""
