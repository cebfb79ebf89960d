"""Images -> how similar each patch is to each class of a fixed list, as ONNX or as a program of torch.export.

OUT/model.onnx, or OUT/model.pt2     images float32 [B, 3, H, W] of 0..1 -> logits [B, K, h, w]
OUT/labels.json                      the classes; size, patch, and whether H and W are free
"""

import logging

import torch

from fastzss.base.errors import UserError
from fastzss.base.files import write_json
from fastzss.export.dense import Dense
from fastzss.export.sample import gap

OLDEST = 18  # opset: the first whose Resize does what ours does


def write(model, classes, form, out, opset, pixels):
    """(names of files, the largest difference between the file and the run)."""
    vision = model.vision
    dense = Dense(vision, model.embed_text(classes)).to("cpu").eval()
    size, patch = vision.size, vision.size // vision.grid[0]
    free = torch.export.Dim.DYNAMIC
    sides = {2: free, 3: free} if dense.any_size else {}
    example = torch.rand(2, 3, size + 3 * patch, size + patch) if dense.any_size else torch.rand(2, 3, size, size)
    shapes = ({0: free, **sides},)
    with torch.no_grad():
        program = torch.export.export(dense, (example,), dynamic_shapes=shapes)
    if form == "onnx":
        file, run = out / "model.onnx", as_onnx(program, out / "model.onnx", shapes, opset)
    else:
        file, run = out / "model.pt2", as_program(program, out / "model.pt2")
    names = [found.name for found in classes]
    write_json(out / "labels.json", {"classes": names, "size": size, "patch": patch, "any_size": dense.any_size})
    return [file.name, "labels.json"], difference(model, dense, run, pixels)


def as_onnx(program, path, shapes, opset):
    """Write it; returns a function that runs the file."""
    import onnx
    import onnxruntime

    newest = onnx.defs.onnx_opset_version()
    if opset is not None and not OLDEST <= opset <= newest:
        raise UserError(f"--opset {opset}: expected {OLDEST} to {newest}, which the installed onnx has", code=2)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    torch.onnx.export(
        program,
        f=str(path),
        dynamo=True,
        dynamic_shapes=shapes,
        input_names=["images"],
        output_names=["logits"],
        opset_version=opset or OLDEST,
        external_data=False,
        verbose=False,
    )
    onnx.checker.check_model(str(path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def as_program(program, path):
    torch.export.save(program, str(path))
    return torch.export.load(str(path)).module()


@torch.inference_mode()
def difference(model, dense, run, pixels):
    """Between the file and the run at the run's own size, and the module at another, and of one image alone."""
    images = pixels.float() / 255
    own = model.vision(pixels)[0].cpu() @ dense.vectors.T
    found = [gap(run(images).flatten(2).mT, own), gap(run(images[:1]).flatten(2).mT, own[:1])]
    if dense.any_size:
        other = torch.nn.functional.interpolate(images, (2 * images.shape[-2], images.shape[-1] + dense.patch))
        found.append(gap(run(other), dense(other)))
    return max(found)
