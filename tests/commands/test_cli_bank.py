"""`fastzss bank ...`, `fastzss name` and patch memories as a user meets them."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fastzss import cli, world
from fastzss.bank.disk import load_bank
from fastzss.base.runs import Run
from fastzss.masks.inference import DEFAULT

BIN = Path(sys.executable).parent


@pytest.fixture
def tell(capsys):
    """tell("bank near ...") -> what the command says as JSON; it must succeed."""

    def run(main, *argv):
        assert main([str(a) for a in (*argv, "--json")]) == 0, capsys.readouterr().err
        return json.loads(capsys.readouterr().out)

    return run


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp("image") / "scene.png"
    world.scene("test", 4).image.save(path)
    return path


MISTAKES = {
    "no family": ("bank", 2, "the following arguments are required: command"),
    "no source": ("bank build {tmp}/b", 2, "required: SOURCE"),
    "unknown source": ("bank build {tmp}/b caption:x", 2, 'unknown source "caption:x" .did you mean "captions"'),
    "unknown set": ("bank build {tmp}/b classes:vok20", 2, 'unknown evaluation set "vok20" .did you mean "voc20"'),
    "missing words": ("bank build {tmp}/b words:{tmp}/w", 1, "w: cannot be read as text"),
    "store without captions": ("bank build {tmp}/b captions:{tmp}", 1, "has no captions"),
    "least of none": ("bank build {tmp}/b classes:voc20 --least 0", 2, "--least 0: expected at least one"),
    "no such run": ("bank build {tmp}/b classes:voc20 --run {tmp}/r", 1, "no such run"),
    "bank into a file": ("bank build {tmp}/file classes:voc20", 1, "cannot write .*file"),
    "bank among other things": ("bank build {tmp} classes:voc20", 1, "holds other things"),
    "near of nothing": ("bank near {tmp}/b dog", 1, "is no bank .there is no such folder."),
    "near of other things": ("bank near {tmp} dog", 1, "is no bank .it has no bank.json."),
    "near no word": ("bank near {bank} ,", 0, ""),
    "near an empty word": ("bank near {bank} {empty}", 2, "an argument holds no word"),
    "count of none": ("bank near {bank} dog --count 0", 2, "--count 0"),
    "info of nothing": ("bank info {tmp}/b", 1, "b: cannot be read as text"),
    "info of missing captions": ("bank info {bank} --captions {tmp}/t", 1, "t: cannot be read as text"),
    "apply without out": ("bank merge {bank} --apply {tmp}/file", 2, "go together"),
    "apply no list": ("bank merge {bank} --apply {tmp}/file --out {tmp}/b", 1, "is no name of the bank"),
    "memory of nothing": ("bank memory {tmp}/s --run {run}", 1, "there is no such folder"),
    "memory without a run": ("bank memory {store}", 2, "required: --run"),
    "memory of no run": ("bank memory {store} --run {tmp}", 1, "is no run"),
    "memory of no patch": ("bank memory {store} --run {run} --samples 0", 2, "--samples 0"),
    "memory into other things": ("bank memory {store} --run {run} --out {tmp} --samples 99", 1, "holds other things"),
    "a set for a protocol": ("evaluate {run} --protocol ade20k", 2, "ade20k is a set, and goes to --sets"),
    "no such memory": ("segment {run} {image} --classes dog --memory {tmp}/m", 1, "is no memory"),
    "name of no image": ("name {run} {tmp}/i.png", 1, "i.png: no such image"),
    "name by no run": ("name {tmp} {image}", 1, "is no run"),
    "name no region": ("name {run} {image} --regions 0", 2, "--regions 0"),
    "name by no bank": ("name {run} {image} --bank {tmp}/b", 1, "b: cannot be read as text"),
}


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    path = tmp_path_factory.mktemp("bank") / "bank"
    assert cli.main(["bank", "build", str(path), "classes:voc20"]) == 0
    return path


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_one_sentence(mistake, bank, store, trained, image, tmp_path, capsys):
    line, code, sentence = MISTAKES[mistake]
    (tmp_path / "file").write_text("dog, hound\n")
    given = dict(tmp=tmp_path, bank=bank, store=store, run=trained, image=image, empty="")
    before = sorted(tmp_path.rglob("*"))
    try:
        found = cli.main([part.format(**given) for part in line.split()])
    except SystemExit as end:  # argparse's own
        found = end.code
    stderr = capsys.readouterr().err
    assert found == code, stderr
    if code:
        assert re.search(sentence, stderr.strip().splitlines()[-1]), stderr
    assert "Traceback" not in stderr
    assert sorted(tmp_path.rglob("*")) == before, "a refused command left something"


def test_a_bank_from_captions_to_names_in_a_picture(store, trained, image, tmp_path, tell):
    path, out = tmp_path / "bank", tmp_path / "out"
    built = tell(cli.main, "bank", "build", path, f"captions:{store}", "--run", trained)
    assert built["written"] is True and built["vectors"] == "run" and built["origin"] == ["captions"]
    assert tell(cli.main, "bank", "build", path, f"captions:{store}", "--run", trained)["written"] is False
    name = load_bank(path).names[0]
    near = tell(cli.main, "bank", "near", path, name, "--count", 3)[name]
    assert list(near)[0] == name and near[name] == 1.0 and len(near) == 3
    info = tell(cli.main, "bank", "info", path, "--captions", store)
    assert (
        info["names"] == built["names"]
        and info["coverage"] > 0.9
        and info["overlap"]["world"].endswith(f" of {len(world.NAMES)}")
    )

    pairs = tell(cli.main, "bank", "merge", path, "--threshold", -1, "--report", tmp_path / "pairs.txt")["pairs"]
    assert len((tmp_path / "pairs.txt").read_text().splitlines()) == len(pairs) > 0
    keep, gone = pairs[0]["keep"], pairs[0]["merge"]
    (tmp_path / "chosen.txt").write_text(f"{keep}, {gone}\n")
    merged = tell(cli.main, "bank", "merge", path, "--apply", tmp_path / "chosen.txt", "--out", tmp_path / "fewer")
    assert merged["names"] == built["names"] - 1 and gone in load_bank(tmp_path / "fewer").terms
    assert load_bank(path).identity == built["identity"], "the old one stays"

    (named,) = tell(cli.main, "name", trained, image, "--bank", tmp_path / "fewer", "--out", out)
    assert gone not in {region["name"] for region in named["regions"]}
    assert Path(named["overlay"]).name == "scene.named.png" and Path(named["mask"]).name == "scene.named.mask.png"
    assert sum(region["share"] for region in named["regions"]) == pytest.approx(1, abs=0.01)
    assert {p.name for p in out.iterdir()} == {"scene.named.png", "scene.named.mask.png"}


def test_letters_say_that_they_compare_spelling_and_a_run_takes_their_place(bank, trained, capsys):
    def near(*flags):
        assert cli.main(["bank", "near", str(bank), "car", "--json", *map(str, flags)]) == 0
        said = capsys.readouterr()
        return json.loads(said.out)["car"], said.err

    by_letters, warned = near()
    assert re.search("bank: its vectors are of letters, which only compare spelling; --run RUN compares", warned)
    by_run, silent = near("--run", trained)
    assert silent == "" and by_run.keys() != by_letters.keys() and by_run["car"] == 1.0
    assert load_bank(bank).by == {"by": "letters"}, "the bank stays as it is"


@pytest.fixture
def several(store, tmp_path, tell):
    """A copy of the store that has got the mentions of two more banks."""
    shutil.copytree(store, tmp_path / "several")
    for name in ("tree", "house"):
        (tmp_path / f"{name}.txt").write_text(f"{name}\n")
        concepts = ("concepts", tmp_path / "several", "--bank", tmp_path / f"{name}.txt", "--parser", "bank")
        tell(cli.cache_main, *concepts)
    return tmp_path / "several"


def test_a_memory_is_of_the_runs_own_bank_whatever_else_a_store_has(store, several, trained, tmp_path, tell, capsys):
    own = Run.open(trained).config["store"]["bank"]
    flags = ("--run", trained, "--samples", 500)
    alone = tell(cli.main, "bank", "memory", store, *flags, "--out", tmp_path / "alone")
    made = tell(cli.main, "bank", "memory", several, *flags, "--out", tmp_path / "among")
    assert made | {"memory": ""} == alone | {"memory": ""}
    assert json.loads((tmp_path / "among" / "memory.json").read_text())["bank"] == own

    other = next(b["identity"] for b in tell(cli.cache_main, "info", several)["banks"] if b["names"] == 1)
    tell(cli.main, "bank", "memory", several, *flags, "--out", tmp_path / "other", "--bank", other[:8])
    assert json.loads((tmp_path / "other" / "memory.json").read_text())["bank"] == other

    shutil.rmtree(several / "concepts" / own[:12])
    given = ["bank", "memory", several, *flags, "--out", tmp_path / "none"]
    assert cli.main([str(part) for part in given]) == 1
    assert re.search(r"several concept banks; there are: .*identity: --bank [0-9a-f]{12}\n$", capsys.readouterr().err)
    assert not (tmp_path / "none").exists()


def test_concepts_are_those_of_the_runs_bank_where_a_run_is_given(store, trained, tmp_path, tell, capsys):
    shutil.copytree(store, tmp_path / "s")
    shutil.rmtree(tmp_path / "s" / "concepts")
    common = ("concepts", tmp_path / "s", "--parser", "bank")
    said = tell(cli.cache_main, *common, "--match", "embedding", "--run", trained)
    assert said["bank"] == Run.open(trained).config["store"]["bank"] and said["match"].startswith("embedding by run")
    assert cli.cache_main([str(part) for part in common]) == 2
    assert re.search("concepts needs --bank: .*or --match embedding --run RUN", capsys.readouterr().err)


def test_another_bank_for_a_store_by_embedding(store, tmp_path, tell):
    shutil.copytree(store, tmp_path / "s")
    (tmp_path / "names.txt").write_text("brick house\ntree\n")
    common = ("concepts", tmp_path / "s", "--bank", tmp_path / "names.txt", "--parser", "bank")
    assert cli.cache_main([str(part) for part in (*common, "--threshold", 0.6)]) == 2
    exact = tell(cli.cache_main, *common)
    said = tell(cli.cache_main, *common, "--match", "embedding", "--threshold", 0.6)
    assert said["coverage_exact"] == exact["coverage"] < said["coverage"]
    banks = tell(cli.cache_main, "info", tmp_path / "s")["banks"]
    assert [b["match"] for b in banks if b["identity"] == said["bank"]] == ["embedding by letters, 0.6 and above"]


def test_the_runs_own_memory_has_a_say_unless_another_or_none_is_asked(store, trained, image, tmp_path, tell):
    made = tell(cli.main, "bank", "memory", store, "--run", trained, "--out", tmp_path / "m", "--samples", 3000)
    assert 2900 < made["patches"] <= 3000 and made["memory"] == str(tmp_path / "m")
    words = ("segment", trained, image, "--classes", "tree, water, sand", "--out", tmp_path)
    own, another, none = (
        tell(cli.main, *words, *flags) for flags in ((), ("--memory", tmp_path / "m"), ("--memory", "none"))
    )
    assert own != another and own != none and another != none
    for flags, memory in (((), trained / "memory"), (("--memory", tmp_path / "m"), tmp_path / "m")):
        scores = tell(cli.main, "evaluate", trained, "--data", "world:test,n=3", *flags)
        world = scores["sets"]["world"]
        assert scores["memory"] == str(memory) and 0 <= world["miou"] <= 100
        assert world["record"]["inference"] == DEFAULT.record
    assert tell(cli.main, "evaluate", trained, "--data", "world:test,n=3", "--memory", "none")["memory"] is None


def test_stopping_a_memory_leaves_none_or_a_whole_one(store, trained, tmp_path):
    command = [BIN / "fastzss", "bank", "memory", store, "--run", trained, "--out", tmp_path / "m"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    time.sleep(4)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode in (0, 130) and "Traceback" not in stderr, stderr
    assert (tmp_path / "m" / "memory.json").exists() == (process.returncode == 0)
    assert cli.main([str(part) for part in command[1:]]) == 0


def test_help_is_light_and_there_is_json_everywhere(capsys):
    for command in ("build", "near", "info", "merge", "memory"):
        with pytest.raises(SystemExit) as end:
            cli.main(["bank", command, "--help"])
        assert end.value.code == 0 and "--json" in capsys.readouterr().out
    code = """
import sys
from fastzss import cli
for line in ("bank --help", "bank merge --help", "name --help"):
    try:
        cli.main(line.split())
    except SystemExit as end:
        assert end.code == 0
heavy = [m for m in ("torch", "timm", "spacy", "numpy", "PIL", "faiss", "open_clip") if m in sys.modules]
sys.exit(" ".join(heavy) or 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
