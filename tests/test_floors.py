"""The house: who may import whom, names that must not be taken, and what stays out of memory until it is needed."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Rooms that may be imported by all that stand below them here; those of one line do not know each other.
FLOORS = """
    kernels base
    world
    sources backbones captions
    store
    text
    bank
    masks
    methods
    extraction evaluation
    training
    pages export
    demo
    commands
    cli
    train
"""
FLOOR = {room: floor for floor, line in enumerate(FLOORS.strip().splitlines()) for room in line.split()}
# The same inside rooms that have rooms of their own.
INNER = {
    "store": (
        "plan columns remote",
        "layers",
        "additions forms",
        "commits",
        "captions mentions features",
        "views",
        "reading",
        "upkeep",
    ),
    "evaluation": (
        "score caption_scores",
        "datasets",
        "phrases windows pixels progress",
        "protocols looks",
        "reading",
        "tally",
        "evaluate",
        "oracles benchmark retrieval forecast",
    ),
    "methods": ("method held_out", "placing", "simzss zeroseg", "registry"),
}
KERNEL_IMPORTS = set("torch triton typing os contextlib dataclasses functools importlib json math pathlib".split())


def sources():
    for path in sorted((ROOT / "fastzss").rglob("*.py")):
        yield path.relative_to(ROOT / "fastzss").parts[0].removesuffix(".py"), path
    for path in sorted((ROOT / "kernels").glob("*.py")):
        yield "kernels", path


def imports(path):
    """Every absolute import of a file, those inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_of(path):
    """fastzss.store.plan for its file; a folder's __init__ is the folder."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = ("fastzss", *parts) if parts[0] == "kernels" else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for _, path in sources()}


def imported(path):
    """The modules of ours that a file imports."""
    for name in imports(path):
        while name.startswith("fastzss.") and name not in MODULES:
            name = name.rpartition(".")[0]
        if name.startswith("fastzss."):
            yield name


def room(module, depth=1):
    parts = module.split(".")
    return parts[depth] if len(parts) > depth else "__init__"


def test_every_room_has_a_floor():
    assert {room(module) for module in MODULES if module != "fastzss"} <= set(FLOOR)


def test_rooms_import_from_lower_floors_only():
    wrong = [
        f"{module} (floor {FLOOR[room(module)]}) imports {other} (floor {FLOOR[room(other)]})"
        for module, path in MODULES.items()
        if module != "fastzss"  # load(), the one convenience of the package, imports late
        for other in imported(path)
        if room(other) != room(module) and FLOOR[room(other)] >= FLOOR[room(module)]
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("outer", INNER)
def test_inner_rooms_import_from_lower_floors_only(outer):
    floor = {name: number for number, line in enumerate(INNER[outer]) for name in line.split()}
    own = {module: path for module, path in MODULES.items() if room(module) == outer}
    assert {room(module, 2) for module in own} - {"__init__"} <= set(floor)
    wrong = [
        f"{module} imports {other}"
        for module, path in own.items()
        for other in imported(path)
        if room(other) == outer and room(other, 2) != room(module, 2)
        if floor.get(room(other, 2), -1) >= floor.get(room(module, 2), 0)
    ]
    assert not wrong, "\n".join(wrong)


def test_no_file_is_imported_by_what_it_imports():
    """Neither directly nor by a detour; in the order found, every file comes behind all that it needs."""
    needs = {module: set(imported(path)) - {module} for module, path in MODULES.items()}
    while ready := {module for module, others in needs.items() if not others & needs.keys()}:
        needs = {module: others for module, others in needs.items() if module not in ready}
    assert not needs, f"each of these waits for another of them: {sorted(needs)}"


def test_kernels_import_nothing_of_ours():
    for room, path in sources():
        if room == "kernels":
            others = {name for name in imports(path) if not name.startswith("fastzss.kernels")}
            assert not any(name.startswith("fastzss") for name in others), path
            assert {name.split(".")[0] for name in others} <= KERNEL_IMPORTS, path


def test_no_module_takes_the_name_of_a_standard_one():
    taken = {module for module in MODULES if module.rpartition(".")[2] in sys.stdlib_module_names}
    assert not taken


def test_the_house_has_few_rooms():
    rooms = {path.name for path in (ROOT / "fastzss").iterdir() if path.name != "__pycache__"}
    assert len(rooms) <= 22, sorted(rooms)


def test_importing_the_package_imports_nothing_heavy():
    heavy = "torch timm spacy numpy PIL zarr open_clip accelerate yaml"
    code = f"import sys, fastzss; sys.exit(' '.join(m for m in {heavy.split()!r} if m in sys.modules) or 0)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr == ""


def test_help_imports_nothing_heavy():
    """What makes --help instant, tested without a clock."""
    code = """
import sys
from fastzss import cli
doors = [cli.main] * 4 + [cli.cache_main] * 2
for door, line in zip(doors, ["--help", "demo --help", "segment --help", "train --help", "--help", "extract --help"]):
    try:
        door(line.split())
    except SystemExit as end:
        assert end.code == 0
heavy = [m for m in ("torch", "timm", "spacy", "numpy", "PIL", "zarr", "open_clip", "accelerate") if m in sys.modules]
sys.exit(" ".join(heavy) or 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_files_stay_readable():
    long = {
        str(path.relative_to(ROOT)): lines
        for folder in ("fastzss", "kernels", "tools", "benchmarks", "tests")
        for path in (ROOT / folder).rglob("*.py")
        if (lines := len(path.read_text().splitlines())) > 300
    }
    assert not long, f"more than 300 lines: {long}"


def test_the_repository_keeps_to_itself():
    """Nothing of the machine that built it."""
    for folder in ("fastzss", "kernels", "tools", "benchmarks", "docs", ".ci"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".md", "", ".json") and path.is_file():
                assert "/work/" not in path.read_text(), path
