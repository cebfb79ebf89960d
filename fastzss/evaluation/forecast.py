"""What an evaluation would look at, and how much a cache of it would take, before any image is seen."""

from fastzss.evaluation.windows import patch_of

TRIED = 12  # images whose sizes are looked up


def forecast(name, data, protocol, vision):
    """{"set", "images", "windows", "bytes"}; windows are None for a protocol that looks at fields."""
    look = protocol.windows
    if look is None:
        return {"set": name, "images": len(data), "windows": None, "bytes": None}
    some = range(0, len(data), -(-len(data) // TRIED))
    counts = []
    for index in some:
        rows, columns = look.sides(data.label(index).shape, patch_of(vision))
        counts.append((len(rows.starts) * len(columns.starts), rows.patches * columns.patches))
    windows = len(data) * sum(count for count, _ in counts) / len(counts)
    patches = len(data) * sum(count * patches for count, patches in counts) / len(counts)
    return {
        "set": name,
        "images": len(data),
        "windows": round(windows),
        "bytes": round(2 * patches * vision.channels),
    }
