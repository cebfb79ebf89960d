"""What a step of ours consists of: time on the processor by kind of operation, on a GPU that of its kernels."""

import statistics

import steps
from torch.autograd import DeviceType
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
    row, cuda = steps.rows(setting)[-1], args.device == "cuda"
    for _ in range(2):
        steps.step(row, setting)
    spent = {}
    with profile(activities=[ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * cuda) as record:
        whole = [steps.whole(row, setting) for _ in range(args.steps)]
    for event in record.key_averages():
        if cuda and event.device_type != DeviceType.CUDA:
            continue  # an operator on the CPU, to which the time of its kernels is attributed once more
        time = event.self_device_time_total if cuda else event.self_cpu_time_total
        kind = next((k for k, words in KINDS.items() if any(w in event.key.lower() for w in words)), "everything else")
        spent[kind] = spent.get(kind, 0.0) + time / 1e3 / args.steps
    total = sum(spent.values())
    kinds = {kind: {"ms": ms, "share": ms / total} for kind, ms in sorted(spent.items(), key=lambda k: -k[1])}
    useful = sum(row["share"] for kind, row in kinds.items() if kind in ("matrix products", "attention"))
    headlines = [["matrix products and attention, of the operations of our step", f"{useful:.0%}"]]
    settings = {name: getattr(args, name) for name in ("size", "batch", "steps", "dtype")}
    facts = {"step_ms": statistics.median(whole), "kinds": kinds}
    return {"headlines": headlines, "machine": args.machine, "settings": settings, **facts}


def show(result):
    print(f"our step, {result['step_ms']:.1f} ms under the profiler")
    for kind, row in result["kinds"].items():
        print(f"  {kind:26}{row['ms']:10.1f} ms{row['share']:8.1%}")
