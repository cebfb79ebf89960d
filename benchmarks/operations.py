"""What a step of ours consists of: time on the processor by kind of operation, and what of it is a matrix product.

On a GPU the time is that of its kernels.
"""

import statistics

import steps
from ops import machine
from torch.profiler import ProfilerActivity, profile

KINDS = {  # the first that a name holds
    "matrix products": ("mm", "gemm", "cutlass", "xmma", "nvjet"),
    "attention": ("attention", "flash", "fmha"),
    "optimiser": ("adam",),
    "norms": ("layer_norm", "norm"),
    "GELU": ("gelu",),
    "embedding and gathers": ("embedding", "index", "gather", "scatter", "cumsum", "cummax"),
    "losses": ("softmax", "logsumexp", "_concept", "_clip", "logaddexp", "exp", "sigmoid"),
    "copies and casts": ("copy", "to_copy", "memcpy", "cat", "contiguous"),
    "sums and elementwise": ("add", "mul", "div", "sub", "sum", "fill", "zero", "where", "neg"),
}


def run(args, folder):
    setting = steps.Setting(folder / "store", args.size, args.batch, device=args.device, dtype=args.dtype)
    row = steps.rows(setting)[-1]
    for _ in range(2):
        steps.step(row, setting)
    cuda = args.device == "cuda"
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * cuda
    whole = []
    with profile(activities=activities) as record:
        for _ in range(args.steps):
            clock = steps.Clock(setting.device, parts=False)
            steps.step(row, setting, clock)
            whole.append(clock.total)
    spent = {}
    for event in record.key_averages():
        time = event.self_device_time_total if cuda else event.self_cpu_time_total
        kind = next((k for k, words in KINDS.items() if any(w in event.key.lower() for w in words)), "everything else")
        spent[kind] = spent.get(kind, 0.0) + time / 1e3 / args.steps
    total = sum(spent.values())
    kinds = {kind: {"ms": ms, "share": ms / total} for kind, ms in sorted(spent.items(), key=lambda k: -k[1])}
    names = ("size", "batch", "steps", "dtype")
    useful = sum(row["share"] for kind, row in kinds.items() if kind in ("matrix products", "attention"))
    return {
        "headlines": [["matrix products and attention, of the operations of our step", f"{useful:.0%}"]],
        "machine": machine(args.device),
        "settings": {name: getattr(args, name) for name in names},
        "step_ms": statistics.median(whole),
        "kinds": kinds,
    }


def show(result):
    print(f"our step, {result['step_ms']:.1f} ms under the profiler")
    for kind, row in result["kinds"].items():
        print(f"  {kind:26}{row['ms']:10.1f} ms{row['share']:8.1%}")
    print("; ".join(f"{name} {value}" for name, value in {**result["settings"], **result["machine"]}.items()))
