"""Compile the Triton kernels without a GPU and tell what each would need on one.

    python tools/compile_kernels.py                         every kernel, sm_80, sm_90 and sm_100
    python tools/compile_kernels.py --arch 90 --only clip   some of them
    python tools/compile_kernels.py --write                 write what was found to kernels/budgets.json

One JSON record a line: name, arch, registers of a thread, bytes of stack and of shared memory, how many instructions
spill (LDL, STL), and how many there are of the kinds that matter.  `over` lists what is above the kernel's budget:
the limits of its configs.AotCase, and the ceilings of kernels/budgets.json.  Those are of one version of Triton, and
leave an eighth more registers than it needed; another version is held to the limits alone until it writes its own.
"""

import argparse
import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

KINDS = ("HMMA", "HGMMA", "UTCHMMA", "UTMALDG", "LDGSTS", "LDL", "STL", "LDG")
BUDGETS = Path(__file__).parent.parent / "kernels" / "budgets.json"
FILES = sorted(path.stem for path in (Path(__file__).parent.parent / "kernels").glob("fused_*.py"))


def cases(files, only):
    """(file, AotCase, arch, Budget) of the kernels of some files with a name that one of the patterns `only` fits."""
    for file in files:
        module = importlib.import_module(f"fastzss.kernels.{file}")
        for case in getattr(module, "aot_cases", tuple)():
            if any(re.search(part, case.name) for part in only):
                for arch, budget in case.budgets.items():
                    yield file, case, arch, budget


def measure(case, arch):
    """What a kernel needs, from its machine code."""
    import triton
    from triton.backends.compiler import GPUTarget

    target = GPUTarget("cuda", arch, 32)
    compiled = triton.compile(case.source(), target=target, options={**case.options, "enable_fp_fusion": True})
    with tempfile.NamedTemporaryFile(suffix=".cubin") as cubin:
        cubin.write(compiled.asm["cubin"])
        cubin.flush()
        tools = triton.knobs.nvidia
        usage = subprocess.check_output([tools.cuobjdump.path, "-res-usage", cubin.name], text=True)
        code = subprocess.check_output([tools.nvdisasm.path, "-c", cubin.name], text=True, stderr=subprocess.DEVNULL)
    found = dict(re.findall(r"(REG|STACK):(\d+)", usage))
    # an instruction of SASS: /*0a40*/ @P0 HMMA.16816.F32 R4, ... ;
    opcodes = re.findall(r"/\*[0-9a-f]{4,}\*/\s+(?:\{\s*)?(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9]*)", code)
    return {
        "registers": int(found["REG"]),
        "stack": int(found["STACK"]),
        "shared": compiled.metadata.shared,
        "instructions": {kind: count for kind in KINDS if (count := opcodes.count(kind))},
    }


def ceiling(table, version, key, budget):
    """What a kernel may need with a version of Triton; the budget's own limits where that has no ceilings yet."""
    return table[version].get(key) if version in table else budget._asdict()


def over(budget, needs, ceiling):
    """What is above the budget and above the ceiling of the table, in words."""
    counts = needs["instructions"]
    registers, shared = budget.registers, budget.shared
    if ceiling:
        registers, shared = min(registers, ceiling["registers"]), min(shared, ceiling["shared"])
    problems = [f"{what} {counts[what]} times: it spills" for what in ("LDL", "STL") if what in counts]
    if needs["stack"]:
        problems.append(f"{needs['stack']} bytes of stack")
    if needs["registers"] > registers:
        problems.append(f"{needs['registers']} registers, at most {registers}")
    if needs["shared"] > shared:
        problems.append(f"{needs['shared']} bytes of shared memory, at most {shared}")
    if ceiling is None:
        problems.append(f"not in {BUDGETS.name}: run tools/compile_kernels.py --write")
    return problems + [f"no {kind}" for kind in budget.instructions if kind not in counts]


def a_line_a_kernel(table):
    """JSON of {version: {kernel: ceiling}}, a line for each kernel."""
    blocks = []
    for version, ceilings in sorted(table.items()):
        lines = [f"    {json.dumps(key)}: {json.dumps(value)}" for key, value in sorted(ceilings.items())]
        blocks.append(f"  {json.dumps(version)}: {{\n" + ",\n".join(lines) + "\n  }")
    return "{\n" + ",\n".join(blocks) + "\n}\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="patterns of names, parted by commas")
    parser.add_argument("--file", action="append", choices=FILES, help="kernels of this file only")
    parser.add_argument("--arch", type=int, help="80, 90 or 100 (default: all)")
    parser.add_argument("--write", action="store_true", help="write what was found to kernels/budgets.json")
    args = parser.parse_args()
    if os.environ.pop("TRITON_INTERPRET", None):
        sys.exit("compile_kernels: TRITON_INTERPRET is set, and interpreted kernels cannot be compiled; unset it")
    import triton

    table, version = json.loads(BUDGETS.read_text()), ".".join(triton.__version__.split(".")[:2])
    if args.write:
        table.setdefault(version, {})
    bad = 0
    for file, case, arch, budget in cases(args.file or FILES, args.only.split(",")):
        if args.arch not in (None, arch):
            continue
        key = f"{case.name} sm_{arch}"
        needs = measure(case, arch)
        if args.write:
            registers = min(255, -(-needs["registers"] * 9 // 8 // 8) * 8)
            table[version][key] = {"registers": registers, "shared": needs["shared"]}
        problems = over(budget, needs, ceiling(table, version, key, budget))
        bad += bool(problems)
        print(json.dumps({"file": file, "name": case.name, "arch": arch, **needs, "over": problems}), flush=True)
    if args.write:
        BUDGETS.write_text(a_line_a_kernel(table))
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
