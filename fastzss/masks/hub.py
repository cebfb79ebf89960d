"""A model on the hub: a run folder without what only training needs, and a card that says what it is.

    FOLDER/README.md           the card
    FOLDER/config.json         what the hub reads: library, method, backbone
    FOLDER/config.yaml, bank.json, memory/     as in a run; no path of the machine that trained it
    FOLDER/model.safetensors   the chosen checkpoint: all that has learned; the backbone is named, not held

Nothing that is fetched is ever unpickled: only JSON, YAML, safetensors and plain arrays are asked for.
"""

import json
from functools import cache
from pathlib import Path

import yaml

from fastzss.backbones.weights import first_line, patient_only_online
from fastzss.base.errors import UserError
from fastzss.base.files import make_folder, write_file
from fastzss.base.records import is_folder_of, read_folder, write_folder

ADDRESS = "hf:/"  # a path has one slash where an address has two
WANTED = ("README.md", "config.json", "config.yaml", "bank.json", "model.safetensors", "memory/*.json", "memory/*.npy")
PATHS = ("store", "out", "bank", "from_run", "eval_data", "text_init")  # settings that may name places of a machine
LICENCES = {"apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0"}  # under which a model of such a backbone may be, too
TAGS = ["open-vocabulary-segmentation", "zero-shot-image-segmentation"]


class Shareable:
    """What a model can do with the hub; `run` is the Run that it is of."""

    run = None

    def save_pretrained(self, folder, **options):
        """Write the model into a folder, as the hub has it."""
        return self._shared().save_pretrained(folder, **options)

    def push_to_hub(self, repo_id, **options):
        """Write it to huggingface.co/REPO_ID; options are those of huggingface_hub's mixin, such as private=True."""
        return self._shared().push_to_hub(repo_id, **options)

    def _shared(self):
        if self.run is None:
            raise UserError(
                "this model is of no run, and only runs can be saved; `fastzss.load(RUN)` gives such a model"
            )
        return shared()(self)

    @classmethod
    def from_pretrained(cls, name, **options):
        """The model of a folder or of huggingface.co/NAME; see `fastzss.load`."""
        return shared().from_pretrained(name, **options)


@cache
def shared():
    """huggingface_hub's mixin around a model; importing it takes a second, so only when it is needed."""
    from huggingface_hub import ModelHubMixin

    class Shared(ModelHubMixin, library_name="fastzss", pipeline_tag="image-segmentation", tags=TAGS):
        def __init__(self, model=None):
            self.model = model

        def _save_pretrained(self, save_directory):
            write(self.model.run, save_directory)

        @classmethod
        def _from_pretrained(cls, *, model_id, revision, cache_dir, force_download, local_files_only, token, **options):
            import fastzss

            if not Path(model_id).is_dir():
                more = dict(force_download=force_download, local_files_only=local_files_only, token=token)
                model_id = snapshot(model_id, revision, cache_dir=cache_dir, **more)
            return fastzss.load(model_id, **options)

    return Shared


def fetched(path):
    """The folder of a run; of hf://ORG/NAME or hf://ORG/NAME@REVISION it is fetched first."""
    if not str(path).startswith(ADDRESS):
        return path
    name, _, revision = str(path).removeprefix(ADDRESS).lstrip("/").partition("@")
    if len(name.split("/")) != 2 or not all(name.split("/")):
        raise UserError(f"{path}: is no address on the hub; expected hf://ORG/NAME, or hf://ORG/NAME@REVISION", code=2)
    return snapshot(name, revision or None)


def snapshot(name, revision=None, **options):
    from huggingface_hub import snapshot_download

    try:
        with patient_only_online():
            found = Path(snapshot_download(name, revision=revision, allow_patterns=list(WANTED), **options))
    except Exception as problem:  # whatever the hub's client and the network say
        raise UserError(
            f"hf://{name}: cannot be fetched ({first_line(problem)}); check the name, the network, and for what is "
            f"private `hf auth login`"
        ) from None
    if not (found / "config.yaml").is_file():
        raise UserError(f"hf://{name}: is no model of fastzss (it has no config.yaml)")
    return found


def write(run, folder):
    """Write a Run's chosen checkpoint as the hub has it."""
    folder, config = Path(folder), run.config
    make_folder(folder)
    settings = {key: Path(value).name if key in PATHS and value else value for key, value in config["settings"].items()}
    origin = config["weights"] if config["weights"] in ("shipped", "random", "hub") else "hub"
    config |= {"settings": settings, "weights": origin}
    about = {"library_name": "fastzss", "method": settings["method"], "vision": config["vision"]}
    write_file(folder / "model.safetensors", (run.checkpoint / "model.safetensors").read_bytes())
    write_file(folder / "bank.json", (run.path / "bank.json").read_bytes())
    if is_folder_of(run.path / "memory", "memory"):
        record, files = read_folder(run.path / "memory", "memory", "fastzss bank memory")
        record = {key: value for key, value in record.items() if key not in ("self", "format", "version", "files")}
        record["by"] = {**record["by"], "run": run.path.resolve().name}
        write_folder(folder / "memory", "memory", record, {k: v for k, v in files.items() if k.endswith(".npy")})
    write_file(folder / "config.json", json.dumps(about, indent=2).encode())
    write_file(folder / "README.md", card(run, config).encode())
    write_file(folder / "config.yaml", yaml.safe_dump(config, sort_keys=False).encode())


def card(run, config):
    """The model card: what it learned from, what it can name, whose eyes it has, and how it scored."""
    from fastzss.bank import Bank
    from fastzss.bank.coverage import bank_info  # late: whoever only loads a model would wait for it

    vision, settings = config["vision"], config["settings"]
    licence = vision["licence"].lower()
    head = {
        "library_name": "fastzss",
        "pipeline_tag": "image-segmentation",
        "license": licence if licence in LICENCES else "other",
        **({} if licence in LICENCES else {"license_name": vision["licence"]}),
        "tags": [*TAGS, settings["method"]],
    }
    info = bank_info(Bank.from_json(run.bank)) if run.bank else None
    store = config.get("store") or {}
    lines = [
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n",
        f"# {run.path.resolve().name}\n",
        "Segments an image into classes named in plain words; trained with fastzss from captions, without masks.\n",
        "```python\nimport fastzss\n\nmodel = fastzss.load(\"hf://ORG/NAME\")\n"
        'model.segment("street.jpg", "car, road, sky").save("street.png")\n```\n',
        "## Data\n",
        f"Store `{settings['store']}`, features `{store.get('features', 'unknown')[:12]}`; "
        f"method {settings['method']}, recipe {settings.get('recipe')}, "
        f"{settings['steps']} steps of {settings['batch']} captions.\n",
        "## Backbone\n",
        f"`{vision['model']}` at {vision['size']} pixels, frozen; its weights (sha256 `{vision['weights'][:12]}`) "
        f"are not in this repository. Licence: {vision['licence']}.\n",
        "## Concept bank\n",
        *bank_lines(info),
        "\n## Scores\n",
        *score_lines(run, settings),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def bank_lines(info):
    if info is None:
        return ["None.\n"]
    origin = ", ".join(f"{count} from {name}" for name, count in info["origin"].items())
    rows = [f"| {name} | {found} |" for name, found in info["overlap"].items()]
    return [f"{info['names']} names ({origin}). Classes of evaluation sets that it holds by a name of theirs:\n",
            "| set | held |", "|---|---|", *rows]  # fmt: skip


def score_lines(run, settings):
    """What the run itself recorded: its own evaluations while it trained, and the report of a demo."""
    found = [
        f"| {settings['eval_protocol']}, step {line['step']} | {line['miou']:.1f} |"
        for line in run.metrics()[-1000:]
        if "miou" in line
    ][-1:]
    report = run.path / "report.json"
    if report.is_file():
        rows = json.loads(report.read_text(encoding="utf-8")).get("rows", [])
        found += [f"| world, {row['split']}, {row['row']} | {row['all']:.1f} |" for row in rows if row.get("all")]
    return ["| protocol | mIoU |", "|---|---|", *found] if found else ["Not measured."]
