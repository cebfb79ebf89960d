"""Micro-batches: how many captions the tower reads at a time, so that a batch fits in memory whatever its size."""

from torch.autograd.graph import saved_tensors_hooks

from fastzss.base.machine import USABLE, free_bytes, readable_bytes


def captions_at_once(task, reserve, taken=0):
    """(tokens, of packed rows, that the tower reads at a time, None: all of a batch; a sentence about it).

    Args:
        task: the SimZSSTask.
        reserve: bytes that gradients and optimiser need.
        taken: bytes of the free memory that something else will fill.
    """
    asked, batch = task.config.micro_batch, task.loader.step(0)
    captions, (rows, length) = len(batch.eot), batch.ids.shape
    if asked == "auto":
        each = bytes_per_row(task, batch)
        most = int((USABLE * (free_bytes(task.device) - taken) - reserve) / each)
        needed = f"a forward pass of {captions} captions takes about {readable_bytes(each * rows)}"
    else:
        most, needed = int(asked) * rows // captions, f"micro-batches of about {asked} captions"
        if asked == "0":
            most, needed = rows, f"{captions} captions in one forward pass"
    if most >= rows:
        return None, needed
    parts = -(-rows // max(1, most))
    most = -(-rows // parts)
    return most * length, f"{needed}: {rows} rows of {length} tokens are read twice, {most} at a time"


def bytes_per_row(task, batch):
    """What autograd keeps of a packed row on the way through the tower: counted, on a few rows."""
    more = min(4, len(batch.ids))
    fewer = more // 2  # the difference leaves out what is kept once, such as the weights
    return (kept(task, batch, more) - kept(task, batch, fewer)) / (more - fewer)


def kept(task, batch, rows):
    """Bytes that autograd keeps of a forward pass over the first rows of a batch."""
    if not rows:
        return 0
    used = batch.used[batch.used < rows * batch.ids.shape[1]].to(task.device)
    sizes = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor), task.arithmetic.fast:
        units = task.learner.text.units(batch.ids[:rows].to(task.device), batch.segment[:rows].to(task.device), used)
    del units  # until here nothing was freed, so that no two tensors had the same place
    return sum(sizes.values())
