"""`fastzss evaluate`: a run against true masks."""

import logging
from dataclasses import replace
from pathlib import Path

from fastzss.base.console import ANEW, RESUMED
from fastzss.base.errors import UserError
from fastzss.commands.flags import add_memory_flags, add_model_flags, model_of

log = logging.getLogger("fastzss")


def add_evaluate(program):
    kept = (
        "keep what the backbone saw, so that another text tower needs no vision pass; and what is fetched from far away"
    )
    about = "Score a run on sets of images with true masks (mIoU)."
    evaluate = program.add("evaluate", about, run_evaluate, ANEW, cache=kept)
    add = evaluate.add_argument
    add("run", type=Path, nargs="?", help="a folder that training wrote")
    add("--data", metavar="X", help="DIR with public sets, or with images/, labels/, classes.txt; or world:test,n=200")
    add(
        "--sets", metavar="A,B", help="all, or names with commas: voc20, voc21, context59, ... (default: what is there)"
    )
    add("--protocol", metavar="NAME", help="tcl (the default), sclip, talk2dino, groupvit; folder or world for such "
        "data; or FILE.yaml")  # fmt: skip
    add("--refine", choices=("pamr", "smooth", "smooth+pamr"), help="a second column, of refined masks")
    add(
        "--background",
        choices=("threshold", "prob", "words", "none"),
        help="another rule for what is none of the classes",
    )
    add("--background-value", metavar="X", help="its limit; run: what the run's captions calibrated")
    add("--bg-sweep", metavar="LOW:HIGH:STEP", help="score many limits of the background at once")
    add("--readout", help="concept, eot or both; by default what the run was trained for")
    add("--plain", action="store_true", help="the bare readout: none of the steps of masks/inference.py")
    add("--limit", type=int, metavar="N", help="so many images of each set, at equal distances")
    add("--out", type=Path, metavar="DIR", help="a report; an interrupted evaluation goes on from what is there")
    add("--skip-bad", action="store_true", help="count images and labels that cannot be used, and go on without them")
    add("--dry-run", action="store_true", help="say how many windows there are, how long they take, and what is kept")
    add("--retrieval", type=Path, metavar="STORE", help="recall@1, 5 and 10 of a store's captions and images, instead")
    add("--classify", type=Path, metavar="DIR", help="zero-shot classification of DIR/CLASS/*.jpg, instead")
    add("--compare", nargs=2, metavar=("A", "B"), help="two reports: what changed, class by class")
    add("--check", metavar="DIR", help="say which sets are complete below a folder, and what is missing")
    add_model_flags(evaluate)
    add_memory_flags(evaluate)


def run_evaluate(args):
    if args.check is not None:
        from fastzss.evaluation.datasets.opened import check

        return check(args.check)
    if args.compare is not None:
        return comparison(args)
    if args.run is None and args.dry_run:
        return forecasts(args, *meant(args, None), None)
    if args.run is None:
        raise UserError("missing: RUN; --help says what it is", code=2)
    if args.limit is not None and args.limit < 1:
        raise UserError(f"--limit is {args.limit}; expected at least one image", code=2)
    if args.out is not None or args.cache is not None:
        args.interrupted = RESUMED
    from fastzss.base.ranks import Ranks
    from fastzss.base.runs import Run

    run = Run.open(args.run, args.checkpoint)
    if args.retrieval is not None or args.classify is not None:
        return of_whole_images(args, run)
    sets, protocol = meant(args, run)
    if args.dry_run:
        return forecasts(args, sets, protocol, run)
    limits = limits_of(args.bg_sweep) if args.bg_sweep else ()
    ranks = Ranks(args.device)
    with ranks.one_voice():
        return scored(args, run, sets, protocol, limits, ranks)


def of_whole_images(args, run):
    """Figures of whole images: retrieval, classification."""
    from fastzss.evaluation.protocols import protocol_of
    from fastzss.evaluation.retrieval import classified, retrieval

    protocol = protocol_of(args.protocol or "folder")
    model, found = model_of(args), {}
    if args.retrieval is not None:
        found["retrieval"] = retrieval(model, run, args.retrieval)
    if args.classify is not None:
        found["classification"] = classified(model, run, args.classify, protocol, args.skip_bad)
    if args.json:
        return found
    rows = [
        {"what": f"{way}, {at}", "points": f"{value:.2f}"}
        for way, values in found.get("retrieval", {}).items()
        if isinstance(values, dict)
        for at, value in values.items()
    ]
    whole = found.get("classification", {})
    return rows + [{"what": f"classification, {key}", "points": f"{whole[key]:.2f}"}
                   for key in ("top1", "top5", "mean class accuracy") if whole]  # fmt: skip


def scored(args, run, sets, protocol, limits, ranks):
    from fastzss.evaluation.benchmark import Benchmark
    from fastzss.evaluation.datasets.opened import open_set
    from fastzss.pages.report import finite

    for name in sets if len(sets) > 1 else ():  # what is missing is said before the first image
        open_set(name, args.data, "--data", args.skip_bad)
    model = model_of(args, ranks.device)
    cache = args.cache and Path(args.cache)
    benchmark = Benchmark(
        model=model, run=run, protocol=protocol, ranks=ranks, data=args.data, limits=limits, cache=cache,
        out=args.out, limit=args.limit, skip=args.skip_bad,
    )  # fmt: skip
    found, shots = {}, {}
    for name in sets:
        found[name], shots[name] = benchmark.of(name)
    if not ranks.first:
        return None
    whole = {
        "sets": found,
        "protocol": protocol.name,
        "hash": protocol.record(model)["hash"],
        "run": str(args.run),
        "checkpoint": run.checkpoint.name,
        "memory": str(args.memory or args.run / "memory") if model.memory and protocol.inference.evidence else None,
    }
    if args.out is not None:
        from fastzss.pages.benchmarks import write_benchmarks
        from fastzss.pages.scenes import Scene

        scenes = {
            name: [
                Scene(image, mask, truth, f"{what}: {key}, {points:.1f} mIoU", tuple(found[name]["classes"]))
                for what, key, points, image, mask, truth in shot()
            ]
            for name, shot in shots.items()
        }
        log.info("%s", write_benchmarks(args.out, whole, scenes))
    return finite(whole) if args.json else [row(name, figures, protocol) for name, figures in found.items()]


def comparison(args):
    """Two reports: of each set its mIoU and the classes that changed most."""
    from fastzss.pages.benchmarks import compared

    found = compared(*args.compare)
    for name, both in found.items():
        if both["hashes"][0] != both["hashes"][1] or both["images"][0] != both["images"][1]:
            log.warning("%s: hashes %s and %s, images %s and %s: not made alike, so a difference says little", name,
                        *both["hashes"], *both["images"])  # fmt: skip
    if args.json:
        return {"sets": found}
    rows = []
    for name, both in found.items():
        changed = sorted(both["classes"].items(), key=lambda item: -abs(item[1][2] or 0))
        for label, (a, b, change) in (("mIoU", both["miou"]), *changed):
            told = ["-" if value is None else f"{value:.2f}" for value in (a, b)]
            rows.append({"set": name, "class": label, "A": told[0], "B": told[1],
                         "change": "-" if change is None else f"{change:+.2f}"})  # fmt: skip
    return rows


def forecasts(args, sets, protocol, run):
    """A row of each set, without a look; without a RUN, of the default backbone with random weights."""
    from fastzss.backbones import load_vision, reload_vision
    from fastzss.base.ranks import usable
    from fastzss.evaluation.datasets.opened import open_set
    from fastzss.evaluation.forecast import forecast
    from fastzss.extraction.forecast import seconds_of_forward_pass
    from fastzss.sources.folder import Folder

    device, config = usable(args.device), None if run is None else run.config
    if config is None:
        vision = load_vision(Folder.model, random=True, device=device)
    else:
        vision = reload_vision(config["vision"], config["weights"], args.weights, device)
    rows = []
    for name in sets:
        own = protocol.of_set(name)
        row = forecast(name, open_set(name, args.data, "--data", args.skip_bad), own, vision)
        if row["windows"] is not None:
            row["seconds"] = round(row["windows"] * seconds_of_forward_pass(vision.at(own.window, own.window), 2), 1)
        rows.append({**row, "model": vision.name})
    return {"sets": rows} if args.json else [{key: said(value) for key, value in row.items()} for row in rows]


def said(value):
    return f"{value:,}" if isinstance(value, int | float) else "-" if value is None else value


def meant(args, run):
    """(names of the sets, Protocol) that the flags ask for."""
    from fastzss.evaluation.datasets.opened import sets_meant
    from fastzss.evaluation.protocols import protocol_for, protocol_of

    model = "the default" if run is None else run.config["vision"]["model"]
    if args.protocol in ("world", "folder") and args.sets is None:
        sets = [args.protocol]
    elif args.data is None and model != "tiny":
        raise UserError(
            f"this run looks with {model}, and no --data was given: the built-in world is drawings, which say nothing "
            f"about such a run. Give --data DIR with images/, labels/ and classes.txt, or with public sets, or ask for "
            f"--protocol world",
            code=2,
        )
    else:
        sets = sets_meant(args.sets, args.data)
    protocol = protocol_of(args.protocol or protocol_for(sets))
    return sets, changed(protocol, args)


def changed(protocol, args):
    """The protocol with what the flags make of it."""
    from fastzss.masks.inference import DEFAULT, PLAIN

    changes = {"readout": args.readout} if args.readout else {}
    asked = {"--refine": args.refine, "--background": args.background, "--background-value": args.background_value,
             "--bg-sweep": args.bg_sweep}  # fmt: skip
    if protocol.look == "field":
        for flag, value in asked.items():
            if value is not None:
                raise UserError(
                    f"{flag} is of the protocols that look through windows (tcl, sclip, talk2dino, groupvit); "
                    f"{protocol.name} has the steps of masks/inference.py, and with --plain none",
                    code=2,
                )
        return replace(protocol, **changes, **({"inference": PLAIN} if args.plain else {}))
    if args.refine:
        changes["refine"] = args.refine
    if args.memory is not None and str(args.memory) != "none":
        changes["inference"] = replace(protocol.inference, evidence=DEFAULT.evidence)
    if args.background or args.background_value:
        rule = args.background or protocol.background
        changes |= {"background": rule, "value": value_of(args.background_value, rule, protocol)}
        changes["sets"] = {
            name: {key: value for key, value in knobs.items() if key != "value"}
            for name, knobs in protocol.sets.items()
        }
    return replace(protocol, **changes)


def value_of(text, rule, protocol):
    if text in (None, "run") or rule in ("words", "none"):
        return protocol.value if text is None and rule == protocol.background else None
    try:
        return float(text)
    except ValueError:
        raise UserError(f"--background-value is {text!r}; expected a number, or run", code=2) from None


def limits_of(text):
    """[0, 0.02, ...] of "0:0.6:0.02"."""
    try:
        low, high, step = map(float, text.split(":"))
        count = int((high - low) / step + 1.5)
        if not (step > 0 and 1 < count <= 1000):
            raise ValueError
    except (ValueError, ZeroDivisionError, OverflowError):
        raise UserError(
            f"--bg-sweep is {text!r}; expected LOW:HIGH:STEP such as 0:0.6:0.02, of 1000 at most", code=2
        ) from None
    return [round(low + number * step, 6) for number in range(count)]


def row(name, figures, protocol):
    """A line of the table."""
    of = f" of {figures['of']}" if "of" in figures else ""
    skipped = f", {figures['bad']} left out" if figures["bad"] else ""
    rule = figures.get("background", {})
    value = "" if rule.get("value") is None else f" {rule['value']:g}"
    tuned = figures.get("tuned")
    return {
        "set": name,
        "mIoU": f"{figures['miou']:.2f}",
        **{key.removeprefix("miou_"): f"{value:.2f}" for key, value in figures.items() if key.startswith("miou_")},
        "aAcc": f"{figures['aacc']:.2f}",
        "mAcc": f"{figures['macc']:.2f}",
        "images": f"{figures['images']}{of}{skipped}{' (partial)' if figures['partial'] else ''}",
        "background": f"{rule['background']}{value}" if rule else "-",
        **({"tuned on these images": f"{tuned['miou']:.2f} at {tuned['value']:g}"} if tuned else {}),
        "protocol": protocol.name,
        "hash": figures["hash"],
    }
