"""`fastzss evaluate`, `segment` and `name`: commands that look at images with a trained run."""

from collections import Counter
from pathlib import Path

from fastzss.errors import UserError


def add_looking(program):
    evaluate = program.add("evaluate", "Score a run on a set of images with true masks (mIoU).", run_evaluate)
    evaluate.add_argument("run", type=Path)
    evaluate.add_argument("--protocol", default="world", help="world or folder (default: %(default)s)")
    evaluate.add_argument(
        "--data", metavar="X", help="for world: world:test,n=200; for folder: DIR with images/, labels/, classes.txt"
    )
    evaluate.add_argument("--readout", help="concept or eot; by default what the run was trained for")
    add_model_flags(evaluate)
    add_memory_flags(evaluate)

    segment = program.add("segment", "Segment images into classes named in plain words.", run_segment)
    segment.add_argument("run", type=Path)
    segment.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    segment.add_argument("--classes", required=True, metavar='"A, B"', help="names of the classes, with commas between")
    segment.add_argument("--out", type=Path, default=Path("."), help="folder for the pictures (default: here)")
    add_model_flags(segment)
    add_memory_flags(segment)

    name = program.add("name", "Say what is in pictures, without a list of classes.", run_name)
    name.add_argument("run", type=Path)
    name.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    name.add_argument("--bank", metavar="BANK", help="names to choose from; by default the run's own")
    name.add_argument("--regions", type=int, default=8, help="regions of an image at most (default: %(default)s)")
    name.add_argument("--out", type=Path, default=Path("."), help="folder for the pictures (default: here)")
    add_model_flags(name)


def run_evaluate(args):
    from fastzss.errors import nearest
    from fastzss.evaluate import evaluate
    from fastzss.protocols import PROTOCOLS
    from fastzss.segment import load

    if args.protocol not in PROTOCOLS:
        raise UserError(
            f'unknown protocol "{args.protocol}"{nearest(args.protocol, PROTOCOLS)}; expected {", ".join(PROTOCOLS)}',
            code=2,
        )
    data = PROTOCOLS[args.protocol](args.data)
    memory = memory_of(args)
    model = load(args.run, args.device, args.weights)
    scores = evaluate(model.vision, {"run": model.class_vectors(data.names, args.readout)}, data, memory)["run"]
    readout = args.readout or model.readout
    return {
        "protocol": args.protocol,
        "images": len(data),
        "readout": readout,
        "templates": list(model.templates),
        **({} if memory is None else {"memory": str(args.memory), "memory_weight": args.memory_weight}),
        **scores,
        "classes": dict(zip(data.names, scores["classes"], strict=True)),
    }


def run_segment(args):
    from fastzss.segment import check_classes, load

    names = check_classes(args.classes)
    check_images(args)
    memory = memory_of(args)
    model = load(args.run, args.device, args.weights)
    return {
        str(path): {"picture": picture, **{name: round(seen["share"], 4) for name, seen in result.scores.items()}}
        for path, picture, result in pictures(args, lambda path: model.segment(path, names, memory), "segmented")
    }


def run_name(args):
    from fastzss.bank import Bank
    from fastzss.bank.folder import load_bank
    from fastzss.naming import Namer
    from fastzss.runs import Run
    from fastzss.segment import load

    if args.regions < 1:
        raise UserError(f"--regions {args.regions}: expected at least one", code=2)
    check_images(args)
    run = Run.open(args.run)
    namer = Namer(
        load(args.run, args.device, args.weights), load_bank(args.bank) if args.bank else Bank.from_json(run.bank)
    )
    found = {}
    for path, picture, result in pictures(args, lambda path: namer.name(path, args.regions), "named"):
        regions = {
            name: {
                "share": round(seen["share"], 4),
                "similarity": round(seen["confidence"], 4),
                "or": {other: round(score, 4) for other, score in result.others[name]},
            }
            for name, seen in sorted(result.scores.items(), key=lambda region: -region[1]["share"])
        }
        found[str(path)] = {"picture": picture, "regions": regions}
    return found


def check_images(args):
    from fastzss.store.files import make_folder

    missing = [path for path in args.images if not path.is_file()]
    if missing:
        raise UserError(f"{missing[0]}: no such image; expected an image file")
    make_folder(args.out)


def pictures(args, see, suffix):
    """(path, path of the picture that was written, result) for each image."""
    from fastzss.store.files import writing

    names = Counter()
    for path in args.images:
        result = see(path)
        names[path.stem] += 1  # images of one name from several folders are numbered
        number = f"-{names[path.stem]}" if names[path.stem] > 1 else ""
        out = args.out / f"{path.stem}{number}.{suffix}.png"
        with writing(args.out):
            result.save(out)
        yield path, str(out), result


def memory_of(args):
    from fastzss.memory import WEIGHT, load_memory

    if args.memory is None:
        if args.memory_weight is not None:
            raise UserError("--memory-weight needs --memory PATH", code=2)
        return None
    args.memory_weight = WEIGHT if args.memory_weight is None else args.memory_weight
    return load_memory(args.memory, args.run, args.memory_weight)


def add_memory_flags(parser):
    parser.add_argument("--memory", type=Path, metavar="PATH", help="what `fastzss bank memory` made of the run")
    parser.add_argument(
        "--memory-weight", type=float, metavar="W", help="0: the text alone, 1: the memory alone (default: 0.3)"
    )


def add_model_flags(parser):
    parser.add_argument("--device", help="cpu, cuda, ...; by default cuda where there is one")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="the backbone's weights, where they have moved")
