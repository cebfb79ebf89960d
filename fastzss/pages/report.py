"""Numbers and pictures -> report.json and report.html, one page that needs nothing else.

The report is a dict of plain values; every key is optional:

    title, intro, date, command   str
    rows      [{"row": name, "split": "test", "all": mIoU, "things": mIoU, ... (those of SCORES that it has),
                "seeds": [{"seed": 0, "all": ..., "things": ..., ...}, ...]}]   points 0..100, means over seeds
    classes   {"names": [K names], "iou": {row: [K points, or None where a class occurs nowhere]}}
    curves    {run: [{"step": ..., "loss_global": ..., "loss_local": ..., ...}]}   as a run's metrics.jsonl has them
    map       {"names": [K names], "concepts": [[x, y], ...], "patches": [[x, y, index of its true name], ...]}
    times     {stage: seconds}, in order
    store     {"images": ..., "bytes": ..., ...}
    bank      {"names": size, "origin": ..., "coverage": share 0..1, "overlap": sentence, ...}
    readout, inference, machine   {what: value}

A number that is not finite counts as missing: null in report.json, a dash on the page.
"""

import json
import math
from html import escape
from pathlib import Path

from fastzss.base.files import write_file
from fastzss.masks.colours import css, palette
from fastzss.pages.charts import curve_svg
from fastzss.pages.maps import map_svg
from fastzss.pages.scenes import pictures

SCORES = ("all", "things", "stuff", "unseen", "seen")
ROWS = {  # the rows we know: colour, meaning
    "random text": ("faint", "the same model with a text encoder that has learned nothing: what chance gives"),
    "global only, plain": ("second", "trained with the loss between whole captions and whole images alone"),
    "global only": ("second", "the same, with its patch memory and along the image's edges: the default inference"),
    "global + local, plain": ("strong", "trained also with the loss between a caption's concepts and their patches"),
    "global + local": ("strong", "the same, with its patch memory and along the image's edges: the default inference"),
    "random tokens": ("faint", "ZeroSeg's student with weights that have learned nothing"),
    "k-means, plain": ("second", "regions of the same patches, each named by what the same teacher says of its place"),
    "k-means": ("second", "the same, from patches half as far apart and along the image's edges"),
    "teacher patches, plain": ("second", "the teacher's own patches against the names"),
    "teacher patches": ("second", "the same, by the default inference"),
    "zeroseg-frozen, plain": ("strong", "segments that learned from the teacher's views, without any text"),
    "zeroseg-frozen": ("strong", "the same, from patches half as far apart and along the image's edges"),
    "class means": ("bound", "each class is the mean of its patches under true masks: no competitor"),
    "ceiling": ("faint", "the best mask the grid of patches can draw, from true masks: a bound, no competitor"),
}
SPLITS = {  # the harder tests we know, and what they ask
    "combinations": "a colour and a thing that no caption ever put together (unseen), beside usual ones (seen)",
    "drawings": "new drawings: shapes and textures with parameters outside the ranges seen in training",
    "large": "pictures of other sizes and aspects, read through sliding windows",
}
NOT_LEARNED = ("random text", "random tokens", "class means", "ceiling")
LOSSES = {"loss_global": "Global loss: captions and images", "loss_local": "Local loss: concepts and patches",
          "loss_ms": "Multi-scale loss: the image and all views", "loss_match": "Matching loss: segments and views",
          "loss_place": "Loss of places: views and the segments in them"}  # fmt: skip
CARDS = {"store": "Store", "bank": "Concept bank", "readout": "Readout", "inference": "Inference", "machine": "Machine"}
DASH = "\N{EN DASH}"


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
        "Words and patches": words_and_patches(report.get("map")),
        "Training": curves(report.get("curves", {}), colours),
        "Time": times(report.get("times", {})),
        "Details": details(report),
    }
    body = "".join(f"<section>\n<h2>{name}</h2>\n{html}</section>\n" for name, html in sections.items() if html)
    title = escape(report.get("title", "Report"))
    head = f"{HEAD}<title>{title}</title>\n<style>\n{style()}</style>"
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


def words_and_patches(found):
    """The map, and how it is read."""
    if not found:
        return ""
    note = (
        "Each dot is a patch of a test scene, in the colour of what it is truly of; each ring is a word, where the "
        "text encoder puts it. A word points well when its ring lies among dots of its colour; far distances mean "
        "nothing."
    )
    return f'<div class="charts"><div>{map_svg(found)}</div></div>\n<p class="note">{note}</p>\n'


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


def style():
    """The page's style, which stands inside it."""
    return (Path(__file__).parent / "report.css").read_text(encoding="utf-8")
