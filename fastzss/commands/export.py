"""`fastzss export`: a run for other programs."""

from pathlib import Path

from fastzss.base.console import ANEW
from fastzss.base.errors import UserError
from fastzss.commands.flags import add_model_flags, model_of

TARGETS = "open-clip, hf, onnx or torch-export"


def add_export(program):
    export = program.add("export", "Write a run for other programs, and check that its numbers stay.", run_export, ANEW)
    export.add_argument("run", help="folder of a run, or hf://ORG/NAME")
    export.add_argument("--to", required=True, metavar="FORM", help=TARGETS)
    export.add_argument("--out", required=True, type=Path, help="a new folder")
    export.add_argument("--classes", metavar='"A, B|C"', help="of onnx and torch-export; by default the run's bank")
    export.add_argument("--classes-file", type=Path, metavar="FILE", help="a file with a class a line")
    export.add_argument("--opset", type=int, help="of onnx (default: 18)")
    add_model_flags(export)


def run_export(args):
    if args.classes is not None and args.classes_file is not None:
        raise UserError("expected either --classes or --classes-file", code=2)
    from fastzss.export.export import export

    model = model_of(args, "cpu")
    classes = args.classes if args.classes_file is None else args.classes_file
    return export(model, model.run, args.to, args.out, classes, args.opset)
