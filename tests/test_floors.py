"""The house: who may import whom, names that must not be taken, and what stays out of memory until it is needed."""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
FLOORS = {
    0: "__init__ errors config console settings cores worker kernels",
    1: "world captions batch store ranks room",
    2: "images vision text runs tiny index folders crew",
    3: "objective protocols score drawing readout",
    4: "segment loader bank memory looking forecast",
    5: "extract evaluate report naming",
    6: "training",
    7: "train demo commands",
    8: "cli",
}
FLOOR = {name: floor for floor, names in FLOORS.items() for name in names.split()}
# The two late imports that look upward or sideways on purpose, each with its reason.
ALLOWED = {
    ("__init__", "segment"): "load() is the one convenience of the package, and imports late",
    ("console", "errors"): "same floor",
    ("config", "errors"): "same floor",
    ("settings", "config"): "same floor",
    ("settings", "errors"): "same floor",
    ("vision", "tiny"): "the shipped backbone is one of the backbones",
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


def rooms_imported(path):
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "fastzss":
            yield parts[1] if len(parts) > 1 and parts[1] in FLOOR else "__init__"


def test_every_module_has_a_floor():
    assert {room for room, _ in sources()} - {"data"} == set(FLOOR)


def test_modules_import_from_lower_floors_only():
    wrong = [
        f"{path.relative_to(ROOT)} (floor {FLOOR[room]}) imports {other} (floor {FLOOR[other]})"
        for room, path in sources()
        if room != "data"
        for other in rooms_imported(path)
        if other != room and FLOOR[other] >= FLOOR[room] and (room, other) not in ALLOWED
    ]
    assert not wrong, "\n".join(wrong)


def test_kernels_import_nothing_of_ours():
    for room, path in sources():
        if room == "kernels":
            others = {name for name in imports(path) if not name.startswith("fastzss.kernels")}
            assert not any(name.startswith("fastzss") for name in others), path
            assert {name.split(".")[0] for name in others} <= KERNEL_IMPORTS, path


def test_no_module_takes_the_name_of_a_standard_one():
    taken = {room for room, _ in sources()} & set(sys.stdlib_module_names)
    assert not taken


def test_importing_the_package_imports_nothing_heavy():
    heavy = "torch timm spacy numpy PIL zarr open_clip accelerate yaml"
    code = f"import sys, fastzss; sys.exit(' '.join(m for m in {heavy.split()!r} if m in sys.modules) or 0)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr == ""


def test_help_imports_nothing_heavy():
    """What makes --help instant, tested without a clock."""
    code = """
import sys
from fastzss import cli, settings
doors = [cli.main] * 3 + [cli.cache_main] * 2 + [settings.train_config]
for door, line in zip(doors, ["--help", "demo --help", "segment --help", "--help", "extract --help", "--help"]):
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
        if (lines := len(path.read_text().splitlines())) > 400
    }
    assert not long, f"more than about 300 lines: {long}"


def test_the_repository_keeps_to_itself():
    """Nothing of the machine that built it."""
    for folder in ("fastzss", "kernels", "tools", "benchmarks", "docs", ".ci"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".md", "", ".json") and path.is_file():
                assert "/work/" not in path.read_text(), path
