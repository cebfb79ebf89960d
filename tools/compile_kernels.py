"""Compile the Triton kernels without a GPU and tell what each would need on one.

    python tools/compile_kernels.py                         every kernel, sm_80, sm_90 and sm_100
    python tools/compile_kernels.py --arch 90 --only clip   some of them

One JSON record a line: name, arch, registers of a thread, bytes of stack and of shared memory, how many instructions
spill (LDL, STL), and how many there are of the kinds that matter.  `over` lists what is above the kernel's budget.
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
FILES = sorted(path.stem for path in (Path(__file__).parent.parent / "kernels").glob("fused_*.py"))


def cases(only=""):
    """(file, AotCase, arch, Budget) of all kernels whose name holds `only`, one of several names parted by commas."""
    for file in FILES:
        module = importlib.import_module(f"fastzss.kernels.{file}")
        for case in getattr(module, "aot_cases", tuple)():
            if any(re.search(part, case.name) for part in only.split(",")):
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


def over(budget, needs):
    """What is above the budget, in words."""
    counts = needs["instructions"]
    problems = [f"{what} {counts[what]} times: it spills" for what in ("LDL", "STL") if what in counts]
    if needs["stack"]:
        problems.append(f"{needs['stack']} bytes of stack")
    if needs["registers"] > budget.registers:
        problems.append(f"{needs['registers']} registers, at most {budget.registers}")
    if needs["shared"] > budget.shared:
        problems.append(f"{needs['shared']} bytes of shared memory, at most {budget.shared}")
    problems += [f"no {kind}" for kind in budget.instructions if kind not in counts]
    return problems


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="parts of names, parted by commas (regular expressions)")
    parser.add_argument("--arch", type=int, help="80, 90 or 100 (default: all)")
    args = parser.parse_args()
    if os.environ.pop("TRITON_INTERPRET", None):
        sys.exit("compile_kernels: TRITON_INTERPRET is set, and interpreted kernels cannot be compiled; unset it")
    bad = 0
    for file, case, arch, budget in cases(args.only):
        if args.arch in (None, arch):
            needs = measure(case, arch)
            problems = over(budget, needs)
            bad += bool(problems)
            print(json.dumps({"file": file, "name": case.name, "arch": arch, **needs, "over": problems}), flush=True)
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
