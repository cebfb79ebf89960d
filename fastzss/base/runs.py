"""The run folder: what a training leaves behind, and all that is needed to use or to continue it.

    RUN/
      config.yaml              settings; size of the tower; the backbone, the store and the bank it was trained with
      bank.json                the concept bank
      metrics.jsonl            one object a logged step: step, loss, loss_global, loss_local, scale, lr; miou
      checkpoints/step-NNNNNN/ model.safetensors, optimizer.safetensors, state.json
      latest                   name of the newest checkpoint
      best                     name of the one with the highest mIoU, where the run evaluates itself
      evaluation/              features of the evaluated images: made anew when they are gone
      dump/step-NNNNNN/        batch and weights of a step whose loss or gradient was no number
      tensorboard/, wandb/     where they were asked for

Checkpoints are written aside and renamed, and `latest` is replaced last: whenever a run is stopped, what `latest` names
is whole.  A model's tensors have open_clip's names below "text.", and "logit_scale".
"""

import json
import secrets
import shutil
from contextlib import contextmanager
from pathlib import Path

import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from fastzss.base.errors import UserError, nearest
from fastzss.base.files import locked, make_folder, read_json, sync_folder, write_file, write_json, writing
from fastzss.base.tensors import safetensors_parts


class Run:
    """A run folder.  `checkpoint`: the one to use, "best", "latest" or its name; None: the best where there is one."""

    def __init__(self, path, checkpoint=None):
        self.path, self._chosen = Path(path), checkpoint

    @property
    def exists(self):
        return (self.path / "config.yaml").is_file()

    @classmethod
    def open(cls, path, checkpoint=None):
        """A run that is there and has a checkpoint."""
        run = cls(path, checkpoint)
        if not run.path.is_dir():
            raise UserError(f"{path}: no such run; expected a folder that `fastzss/train.py --out` wrote")
        if not run.exists:
            raise UserError(
                f"{path}: is no run (it has no config.yaml); expected a folder that `fastzss/train.py --out` wrote"
            )
        if run.latest is None:
            raise UserError(f"{path}: has no checkpoint yet; let its training reach one")
        if not run.checkpoint.is_dir():
            there = sorted(folder.name for folder in (run.path / "checkpoints").glob("step-*"))
            raise UserError(
                f"{path}: has no checkpoint {checkpoint!r}{nearest(checkpoint, there)}; "
                f"there are latest, {'best, ' if run.best else ''}{', '.join(there)}",
                code=2,
            )
        return run

    def create(self, config, bank):
        """config.yaml last: a folder with one is a run."""
        make_folder(self.path)
        write_json(self.path / "bank.json", {"bank": bank})
        write_file(self.path / "config.yaml", yaml.safe_dump(config, sort_keys=False).encode())

    def amend(self, **changes):
        """Change what config.yaml records."""
        write_file(self.path / "config.yaml", yaml.safe_dump(self.config | changes, sort_keys=False).encode())

    @contextmanager
    def alone(self):
        """Keeps a second process on this machine from training the same run at the same time."""
        make_folder(self.path)
        held = f"{self.path}: another process is training this run; wait for it, or give another --out"
        with writing(self.path), locked(self.path, held):
            yield

    @property
    def config(self):
        path = self.path / "config.yaml"
        try:
            return yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as problem:
            raise UserError(f"{path}: cannot be read ({problem}); the run cannot be used without it") from None

    @property
    def tracker_id(self):
        """The name under which a tracker knows this run."""
        path = self.path / ".tracker"
        if not path.is_file():
            write_file(path, secrets.token_hex(4).encode())
        return path.read_text()

    @property
    def bank(self):
        return read_json(self.path / "bank.json")["bank"]

    @property
    def latest(self):
        """Folder of the newest checkpoint; None before the first.  What came from the hub has one, at its top."""
        return self._named("latest") or (self.path if (self.path / "model.safetensors").is_file() else None)

    @property
    def best(self):
        """Folder of the checkpoint with the highest mIoU; None where the run was never evaluated."""
        return self._named("best")

    @property
    def checkpoint(self):
        """Folder of the checkpoint that was chosen."""
        if self._chosen in (None, "best"):
            best = self.best
            return best or (self.latest if self._chosen is None else self.path / "checkpoints" / "best")
        return self.latest if self._chosen == "latest" else self.path / "checkpoints" / self._chosen

    def _named(self, pointer):
        pointer = self.path / pointer
        return self.path / "checkpoints" / pointer.read_text().strip() if pointer.is_file() else None

    def metrics(self):
        path = self.path / "metrics.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("}")]  # a killed run leaves half a line

    def log(self, record):
        with writing(self.path), open(self.path / "metrics.jsonl", "a") as file:
            file.write(json.dumps(record) + "\n")

    def cut_metrics(self, step):
        """Forget what was logged after a checkpoint, a half-written line included."""
        path = self.path / "metrics.jsonl"
        if path.exists():
            lines = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("}\n")]
            write_file(path, "".join(line for line in lines if json.loads(line)["step"] <= step).encode())

    def save(self, step, model, optimizer, state, keep=2, best=False):
        """Write a checkpoint of {name: tensor} dicts on a CPU; of the others, the last ones and the best stay."""
        folder = self.path / "checkpoints" / f"step-{step:06d}"
        aside = folder.with_name(f".{folder.name}.tmp")
        with writing(self.path):
            shutil.rmtree(aside, ignore_errors=True)
            make_folder(aside)
            write_file(aside / "model.safetensors", safetensors_parts(model))
            write_file(aside / "optimizer.safetensors", safetensors_parts(optimizer))
            write_json(aside / "state.json", {"step": step, **state})
            shutil.rmtree(folder, ignore_errors=True)
            aside.rename(folder)
            sync_folder(folder.parent)
            write_file(self.path / "latest", folder.name.encode())
            if best:
                write_file(self.path / "best", folder.name.encode())
            for old in sorted(folder.parent.glob("step-*"))[:-keep]:
                if old not in (folder, self.best):
                    shutil.rmtree(old)

    def dump(self, step, name, tensors):
        """Keep tensors of a step that went wrong, to be looked at; returns the folder."""
        folder = self.path / "dump" / f"step-{step:06d}"
        write_file(folder / f"{name}.safetensors", save({key: t.detach().contiguous() for key, t in tensors.items()}))
        return folder

    @property
    def state(self):
        """What the newest checkpoint says of itself: step, seed, method, best."""
        return read_json(self.latest / "state.json")

    def load(self):
        """(model, optimizer, state) of the newest checkpoint."""
        return self._tensors(self.latest, "model"), self._tensors(self.latest, "optimizer"), self.state

    def load_model(self):
        """{name: tensor} of the chosen checkpoint."""
        return self._tensors(self.checkpoint, "model")

    def _tensors(self, checkpoint, what):
        path = checkpoint / f"{what}.safetensors"
        try:
            return load_file(path)
        except (OSError, SafetensorError) as problem:
            raise UserError(
                f"{path}: cannot be read ({problem}); delete this checkpoint, "
                f"and name an older one in {self.path / 'latest'} to go on from there"
            ) from None
