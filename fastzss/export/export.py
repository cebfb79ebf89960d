"""A run and a form -> a folder, checked: what the other program says of three images and three words is what we say."""

from importlib import import_module
from pathlib import Path

from fastzss.base.errors import UserError, nearest
from fastzss.base.files import make_folder
from fastzss.export.sample import sample, sample_images
from fastzss.masks.classes import classes_of

FORMS = {  # form -> (module that writes it, packages it needs, how far apart numbers may be)
    "open-clip": ("open_clip_folder", ("open_clip",), 1e-5),
    "hf": ("transformers_folder", ("transformers",), 1e-5),
    "onnx": ("graphs", ("onnx", "onnxscript", "onnxruntime"), 1e-4),
    "torch-export": ("graphs", (), 1e-5),
}
MARK = ".fastzss-export"  # of a folder that may be written anew


def export(model, run, form, out, classes=None, opset=None):
    """Write a model, of a Run, into a folder; returns what there is to say about it."""
    if form not in FORMS:
        raise UserError(f'unknown form "{form}"{nearest(form, FORMS)}; expected --to {", ".join(FORMS)}', code=2)
    if opset is not None and form != "onnx":
        raise UserError(f"--opset goes with --to onnx, not with {form}", code=2)
    name, packages, most = FORMS[form]
    for package in packages:
        try:
            import_module(package)
        except ImportError:
            raise UserError(f'--to {form} needs {package}: `pip install "fastzss[export]"`', code=2) from None
    out = Path(out)
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / MARK).is_file()):
        raise UserError(f"{out}: is no empty folder; give a new --out", code=2)
    make_folder(out)
    (out / MARK).touch()
    writer = import_module(f"fastzss.export.{name}")
    if name == "graphs":
        names = classes_of(classes) if classes is not None else all_names(model)
        files, difference = writer.write(model, names, form, out, opset, sample_images(model.vision))
        said = {"classes": len(names)}
    else:
        if classes is not None:
            raise UserError(f"--to {form} has no list of classes: its text tower reads any word", code=2)
        files, difference = writer.write(model, run, out, sample(model, run, form))
        said = {}
    if not difference <= most:
        raise UserError(f"{out}: its numbers differ from the run's by {difference:.2g}; at most {most:g} is rounding")
    return {"out": str(out), "files": files, **said, "largest difference": float(f"{difference:.2g}"), "allowed": most}


def all_names(model):
    if model.bank is None:
        raise UserError("this run has no bank of names; say which classes with --classes", code=2)
    return classes_of([(name,) for name in model.bank.names])
