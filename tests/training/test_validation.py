"""A run that watches itself: evaluation from kept features, the best checkpoint, trackers, and what --dry-run says."""

import json
import subprocess
import sys
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
import torch
from accelerate import PartialState
from helpers.trainings import interrupted_after
from safetensors.torch import load_file
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from fastzss.base.errors import UserError
from fastzss.base.ranks import Ranks, counted, told_to_launcher, usable
from fastzss.base.runs import Run
from fastzss.evaluation import looks as looks_module
from fastzss.evaluation.datasets.world import world_set
from fastzss.evaluation.evaluate import evaluate
from fastzss.methods.registry import load
from fastzss.store.reading.reader import PatchStore
from fastzss.training.loop import main, train
from fastzss.training.validation import Validation

ROOT = Path(__file__).parents[2]
SET = "world:validation,n=6"


@pytest.fixture
def watched(config):
    return replace(config, eval_every=3, eval_data=SET, checkpoint_every=100, steps=10, keep=1, precision="float32")


def test_the_score_inside_a_run_is_that_of_evaluate(watched):
    last = train(watched)
    data = world_set(SET)
    model = load(watched.out, "cpu")
    expected = evaluate(model.vision, {"run": model.class_vectors(data.names)}, data)["run"]
    assert last["miou"] == pytest.approx(expected["all"], abs=0.1), "features are kept in half precision"
    assert last["miou_things"] == pytest.approx(expected["things"], abs=0.1)


def test_a_run_evaluates_when_it_is_time_and_keeps_its_best(watched, monkeypatch):
    scores = iter([{"miou": 20.0}, {"miou": 50.0}, {"miou": 40.0}, {"miou": 30.0}])
    monkeypatch.setattr(Validation, "scores", lambda self: next(scores))
    train(replace(watched, log_every=5))
    run = Run(watched.out)
    assert [(m["step"], m.get("miou")) for m in run.metrics()] == [(3, 20), (5, None), (6, 50), (9, 40), (10, 30)]
    assert (run.best.name, run.latest.name) == ("step-000006", "step-000010")
    assert sorted(p.name for p in run.best.parent.iterdir()) == ["step-000006", "step-000010"]
    assert run.state["best"]["step"] == 6 and run.state["best"]["miou"] == 50


def test_a_run_that_goes_on_knows_its_best(watched, monkeypatch):
    scores = iter([{"miou": 50.0}, {"miou": 40.0}, {"miou": 45.0}, {"miou": 46.0}])
    monkeypatch.setattr(Validation, "scores", lambda self: next(scores))
    with pytest.raises(UserError, match="stopped at step 7"), interrupted_after(7):
        train(replace(watched, checkpoint_every=7))
    train(replace(watched, checkpoint_every=7, eval_every=9))
    assert Run(watched.out).best.name == "step-000003"


def test_images_are_looked_at_once(watched, monkeypatch):
    watched, looks = replace(watched, steps=1), []
    real = looks_module.see
    monkeypatch.setattr(looks_module, "see", lambda *a, **n: looks.append(1) or real(*a, **n))
    train(watched)
    assert len(looks) == 6
    folder = watched.out / "evaluation"
    (folder / "000004.safetensors").unlink()
    (watched.out / "latest").unlink()
    train(watched)
    assert len(looks) == 7, "only what is missing"
    (watched.out / "latest").unlink()
    train(replace(watched, eval_data="world:validation,n=6,seed=5"))
    assert len(looks) == 13, "other images"
    kept = load_file(folder / "000000.safetensors")
    plan = PatchStore(watched.store).plan
    assert kept["patches"].dtype == torch.float16 and kept["patches"].shape == (plan.patches, plan.channels)


def test_a_damaged_feature_file_is_named(watched):
    train(replace(watched, steps=1))
    damaged = watched.out / "evaluation" / "000003.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:100])
    (watched.out / "latest").unlink()
    with pytest.raises(UserError, match="000003.safetensors: cannot be read .*delete it and go on"):
        train(replace(watched, steps=1))


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"eval_protocol": "wrold"}, 'unknown protocol "wrold" .did you mean "world"'),
        ({"eval_protocol": "folder", "eval_data": None}, "the protocol folder needs --eval-data DIR"),
        ({"eval_protocol": "folder", "eval_data": "/nowhere"}, "--eval-data /nowhere: has no images"),
        ({"eval_data": "world:valid"}, 'no split "valid"'),
        ({"device": "cuda"}, "--device cuda: torch sees 0 GPUs here; leave --device out"),
        ({"device": "gpu"}, "--device gpu: no such device; expected cpu, cuda"),
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="says what a machine without a GPU says")
def test_mistakes_are_named_before_anything_is_written(watched, change, sentence):
    with pytest.raises(UserError, match=sentence):
        train(replace(watched, **change))
    assert not watched.out.exists()


@pytest.mark.parametrize("found", [None, ModuleSpec("wandb", None)], ids=["nothing", "a folder of that name"])
def test_a_tracker_that_is_not_installed_is_named(config, monkeypatch, found):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: found)
    with pytest.raises(UserError, match="--log wandb: the package is not installed; `pip install wandb` brings it"):
        train(replace(config, log="wandb"))
    assert not config.out.exists()


TRACKERS = """
import json, pathlib, sys
class Note:
    def __init__(self, *a, **k): self.add("begin", [str(x) for x in a], {n: str(v) for n, v in k.items()})
    def add(self, *words):
        with open("noted", "a") as file: file.write(json.dumps(words) + "\\n")
    def log(self, values, step): self.add("log", step, values)
    def add_scalar(self, name, value, step): self.add("scalar", name, value, step)
    def flush(self): pass
    def close(self): self.add("end")
    finish = close
init = Note
"""


@pytest.fixture
def noted(monkeypatch, tmp_path):
    """Packages of the trackers' names that write down what they are told."""
    (tmp_path / "packages" / "tensorboard").mkdir(parents=True)
    (tmp_path / "packages" / "tensorboard" / "__init__.py").write_text("")
    (tmp_path / "packages" / "wandb.py").write_text(TRACKERS)
    monkeypatch.syspath_prepend(tmp_path / "packages")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    import wandb

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", type(sys)("torch.utils.tensorboard"))
    sys.modules["torch.utils.tensorboard"].SummaryWriter = wandb.Note
    yield lambda: [json.loads(line) for line in (tmp_path / "noted").read_text().splitlines()]
    sys.modules.pop("wandb", None)


def test_metrics_go_to_the_trackers_that_were_asked_for(config, noted):
    train(replace(config, steps=2, log="tensorboard, wandb"))
    metrics = Run(config.out).metrics()
    notes = noted()
    for record in metrics:
        values = {name: value for name, value in record.items() if name != "step"}
        assert ["log", record["step"], values] in notes
        for name, value in values.items():
            assert ["scalar", name, value, record["step"]] in notes
    assert notes.count(["end"]) == 2
    begun = [note[2] for note in notes if note[0] == "begin" and "project" in note[2]]
    assert begun[0]["project"] == "fastzss" and begun[0]["resume"] == "allow"
    assert begun[0]["id"] == Run(config.out).tracker_id


def test_tensorboard_itself(config):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(replace(config, steps=3, log="tensorboard"))
    events = EventAccumulator(str(config.out / "tensorboard")).Reload()
    found = [(e.step, e.value) for e in events.Scalars("loss")]
    assert found == [(m["step"], pytest.approx(m["loss"])) for m in Run(config.out).metrics()]


def test_a_dry_run_says_what_will_be_and_writes_nothing(config):
    found = main(replace(config, eval_every=5, eval_data=SET, captions="all"), dry_run=True)
    assert not config.out.exists()
    assert (found["run"], found["samples"], found["steps an epoch"], found["epochs"]) == ("is new", 160, 6, 3.33)
    plan = PatchStore(config.store).plan
    tower = 49408 * 128 + 77 * 128 + 2 * (12 * 128**2 + 13 * 128) + 2 * 128 + 128 * plan.channels
    assert found["parameters"] == tower + 1
    size = 80 * plan.patches * (plan.channels + 2) / 1e6
    assert found["patches"].startswith(f"{size:.3g} MB of patches lie in the memory of the machine; free: ")
    words = len(set(PatchStore(config.store).captions.ids.tolist()))
    assert found["words"] == f"{words} of 49,408 are in captions, and learn; the others only decay"
    learning = tower + 1 - (49408 - words) * 128
    assert found["weights, gradients, optimiser"] == f"{8 * (tower + 1 + 4 * learning) / 1e6:.3g} MB"
    assert found["evaluation"] == "every 5 steps on 6 images"
    main(replace(config, steps=2))
    assert main(replace(config, steps=2), dry_run=True)["run"] == "goes on after step 2"


def test_a_dry_run_by_its_door(config):
    command = [sys.executable, ROOT / "fastzss" / "train.py", "--store", config.store, "--out", config.out]
    done = subprocess.run([*command, "--dry-run", "--batch", "32"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "steps an epoch" in done.stdout and not config.out.exists()


def test_processes_that_would_each_work_alone_are_refused(monkeypatch):
    PartialState(cpu=True)  # alone, whatever the launcher says afterwards
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(sys, "argv", ["fastzss/train.py"])
    with pytest.raises(UserError, match="2 processes were started, but each .* alone .*`torchrun --nproc_per_node 2 f"):
        Ranks("cpu")


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(UserError, match="4 processes .* 2 GPUs; `torchrun --nproc_per_node 2 .*--device cpu"):
        Ranks("cuda")
    with pytest.raises(UserError, match="--device cuda:1 is one device"):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
        Ranks("cuda:1")


def test_the_launcher_ends_with_our_sentence(monkeypatch, tmp_path):
    """As torchrun reads it: the file it asks for, and the class that makes its last lines."""
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    with pytest.raises(UserError), told_to_launcher():
        raise UserError("no such thing; expected another")
    failure = ProcessFailure(local_rank=0, pid=1, exitcode=1, error_file=str(tmp_path / "error.json"))
    assert failure.message == "no such thing; expected another"


def test_devices_and_numbers_are_named():
    assert usable("cpu") == torch.device("cpu")
    assert [counted(1, "GPU"), counted(0, "GPU"), counted(2, "process")] == ["1 GPU", "0 GPUs", "2 processes"]
