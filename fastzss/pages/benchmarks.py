"""Scores of `fastzss evaluate` -> report.json, report.md and report.html.

    {"sets": {name: figures}, "protocol", "hash", ...}   as evaluation/benchmark.py makes them

Our figures and those that others print (published.yaml) are never in one table: their protocols differ.
"""

import json
from html import escape
from pathlib import Path

import yaml

from fastzss.base.errors import UserError
from fastzss.base.files import write_file
from fastzss.masks.colours import css, palette
from fastzss.pages.report import HEAD, classes, details, each, finite, points, style
from fastzss.pages.scenes import pictures

PUBLISHED = Path(__file__).parent / "published.yaml"
RECALLED = "*"


def write_benchmarks(folder, whole, scenes):
    """Write all three into `folder`; `scenes`: {set: [Scene, ...]}.  Returns the path of the page."""
    folder = Path(folder)
    write_file(folder / "report.json", (json.dumps(finite(whole), indent=2, allow_nan=False) + "\n").encode())
    write_file(folder / "report.md", markdown(whole).encode())
    path = folder / "report.html"
    write_file(path, page(whole, scenes).encode("utf-8", "xmlcharrefreplace"))
    return path


def own_table(whole):
    """Rows of texts, the first one their heads."""
    sets = whole["sets"]
    more = list(dict.fromkeys(key for f in sets.values() for key in f if key.startswith("miou_")))
    head = ["set", "mIoU", *(key.removeprefix("miou_") for key in more), "aAcc", "mAcc", "images", "background", "hash"]
    rows = []
    for name, f in sets.items():
        rule = f.get("background") or {}
        value = "" if rule.get("value") is None else f" {rule['value']:g}"
        images = f"{f['images']}" + f" of {f.get('of')}" * ("of" in f) + ", partial" * f["partial"]
        told = [points(f["miou"]), *(points(f.get(key)) for key in more), points(f["aacc"]), points(f["macc"])]
        rows.append([name, *told, images, f"{rule['background']}{value}" if rule else "-", f["hash"]])
    return [head, *rows]


def published_tables():
    """{kind: rows of texts}, the first row their heads, and the sources."""
    found = yaml.safe_load(PUBLISHED.read_text(encoding="utf-8"))
    columns, sources = found.pop("columns"), found.pop("sources")
    tables = {}
    for kind, rows in found.items():
        tables[kind] = [["method", "looks with", *columns, "source"]]
        for method, eyes, source, how, *values in rows:
            mark = RECALLED if how == "recalled" else ""
            tables[kind].append([method, eyes, *(points(v) + (mark if v is not None else "") for v in values), source])
    return tables, sources


def markdown(whole):
    parts = [
        f"# {title(whole)}\n\n{intro(whole)}\n",
        lines(own_table(whole)),
    ]
    for name, f in whole["sets"].items():
        if "tuned" in f:
            parts.append(f"{name}: {f['tuned']['miou']:.2f} with the background at {f['tuned']['value']:g}, "
                         f"{f['tuned']['note']}.\n")  # fmt: skip
    for name, f in whole["sets"].items():
        parts.append(f"## {name}: IoU of each class\n\n" + lines([["class", "IoU"], *class_rows(f)]))
        if f["confused"]:
            parts.append(f"## {name}: taken for another\n\n" + lines([CONFUSED, *confused_rows(f)]))
    tables, sources = published_tables()
    for kind, table in tables.items():
        parts.append(f"## Published by others, {kind}\n\n" + lines(table))
    parts.append(source_note(sources) + "\n")
    return "\n".join(parts)


CONFUSED = ["class", "was taken for", "% of its pixels"]


def class_rows(figures):
    return [[name, points(value)] for name, value in figures["classes"].items()]


def confused_rows(figures):
    return [[true, taken, f"{share:.1f}"] for true, taken, share, _ in figures["confused"]]


def source_note(sources):
    told = "; ".join(f"{key}: {text}" for key, text in sources.items())
    return f"{RECALLED}: recalled from the paper, not read again. Not to be compared number for number. {told}."


def lines(rows):
    """A Markdown table."""
    head, *rest = [[str(cell).replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rest)) + "\n"


def title(whole):
    return f"{', '.join(whole['sets'])} by the protocol {whole['protocol']}"


def intro(whole):
    return (
        f"mIoU in points of {whole['run']}, {whole['checkpoint']}. Scores may be compared where their hashes agree; "
        f"that of the protocol is {whole['hash']}, each set's has its own knobs as well."
    )


def page(whole, scenes):
    """The report as one HTML page that needs nothing else."""
    sets = whole["sets"]
    sections = {"Results": html_table(own_table(whole))}
    for name, f in sets.items():
        if "sweep" in f:
            rows = [["limit", "mIoU"], *([f"{float(limit):g}", points(v)] for limit, v in f["sweep"].items())]
            note = f"best {points(f['tuned']['miou'])} at {f['tuned']['value']:g}, {f['tuned']['note']}"
            sections[f"{name}: limits of the background"] = f"<p>{escape(note)}</p>{html_table(rows)}"
    for name, own in scenes.items():
        sections[f"{name}: best, middle and worst image"] = pictures(own)
    for name, f in sets.items():
        names = list(f["classes"])
        values = {"names": names, "iou": {name: list(f["classes"].values())}}
        sections[f"{name}: IoU of each class"] = classes(values, {name: css(palette(range(4))[0])})
        if f["confused"]:
            sections[f"{name}: taken for another"] = html_table([CONFUSED, *confused_rows(f)])
    tables, sources = published_tables()
    for kind, table in tables.items():
        sections[f"Published by others, {kind}"] = html_table(table)
    sections["Sources"] = f'<p class="note">{escape(source_note(sources))}</p>'
    for name, f in sets.items():
        sections[f"{name}: every knob"] = details({"inference": flat(f["record"])})
    body = "".join(f"<section>\n<h2>{escape(head)}</h2>\n{html}</section>\n" for head, html in sections.items() if html)
    head = f"{HEAD}<title>{escape(title(whole))}</title>\n<style>\n{style()}</style>"
    main = f'<main>\n<h1>{escape(title(whole))}</h1>\n<p class="intro">{escape(intro(whole))}</p>\n{body}</main>'
    return f'<!doctype html>\n<html lang="en">\n<head>{head}</head>\n<body>\n{main}\n</body>\n</html>\n'


def html_table(rows):
    head, *rest = rows
    heads = each('<th scope="col">{}</th>', [(cell,) for cell in head])
    body = "".join(
        f'<tr><th scope="row">{escape(str(row[0]))}</th>{each("<td>{}</td>", [(c,) for c in row[1:]])}</tr>\n'
        for row in rest
    )
    return f'<div class="table"><table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{body}</tbody></table></div>\n'


def flat(record, prefix=""):
    """Knobs of knobs as one level of texts."""
    found = {}
    for key, value in record.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key} ")
        else:
            text = "; ".join(map(str, value)) if isinstance(value, list | tuple) else value
            found[prefix + key] = text if text != "" else "none"
    return found


def compared(one, other):
    """{set: {"miou": [a, b, difference], "hashes": [a, b], "classes": {name: [a, b, difference]}}} of two reports."""
    first, second = read_report(one), read_report(other)
    common = [name for name in first["sets"] if name in second["sets"]]
    if not common:
        raise UserError(
            f"{one} has {', '.join(first['sets'])}, {other} has {', '.join(second['sets'])}; expected a set in common"
        )
    found = {}
    for name in common:
        a, b = first["sets"][name], second["sets"][name]
        rows = {k: triple(a["classes"].get(k), b["classes"].get(k)) for k in {**a["classes"], **b["classes"]}}
        found[name] = {"miou": triple(a["miou"], b["miou"]), "hashes": [a["hash"], b["hash"]],
                       "images": [a["images"], b["images"]], "classes": rows}  # fmt: skip
    return found


def triple(a, b):
    return [a, b, None if a is None or b is None else b - a]


def read_report(path):
    """The whole of a report, by its folder or its report.json."""
    path = Path(path)
    file = path / "report.json" if path.is_dir() else path
    try:
        whole = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(whole.get("sets"), dict):
            raise ValueError("it has no sets")
    except (OSError, ValueError, AttributeError) as problem:
        raise UserError(f"{file}: is no report ({problem}); expected a folder that `fastzss evaluate --out` wrote",
                        code=2) from None  # fmt: skip
    return whole
