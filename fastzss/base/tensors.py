"""Tensors as the parts of a safetensors file, none of them copied: a header, then the bytes of each tensor.

safetensors.torch.save makes a second copy of all of them first, and lets no other thread run while it does.
"""

import json

import torch

NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def safetensors_parts(tensors):
    """[header, bytes, bytes, ...] of contiguous tensors {name: tensor} in the memory of the machine."""
    header, end = {}, 0
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].itemsize, item[0]))  # so that each begins aligned
    for name, tensor in ordered:
        begin, end = end, end + tensor.nbytes
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    data = [memoryview(tensor.reshape(-1).view(torch.uint8).numpy()) for _, tensor in ordered]
    return [len(text).to_bytes(8, "little") + text, *data]
