"""Models on the hub: what is written, what comes back, and what is never read."""

import json
import shutil

import numpy as np
import pytest
import yaml
from huggingface_hub import HfApi

import fastzss
from fastzss import world
from fastzss.base.errors import UserError
from fastzss.masks import hub
from fastzss.masks.segment import Model

WORDS = "tree, grass, sky, house"


@pytest.fixture
def online(tmp_path, monkeypatch):
    """A hub on this machine: a folder a repository; and what was asked of it."""
    import huggingface_hub

    asked = []

    def snapshot(name, revision=None, allow_patterns=None, **options):
        asked.append((name, revision, tuple(allow_patterns)))
        folder = tmp_path / "hub" / name
        if not folder.is_dir():
            raise OSError(f"404: {name}")
        return str(folder)

    def upload(self, repo_id, folder_path, **options):
        shutil.copytree(folder_path, tmp_path / "hub" / repo_id)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    monkeypatch.setattr(HfApi, "create_repo", lambda self, repo_id, **o: type("Url", (), {"repo_id": repo_id})())
    monkeypatch.setattr(HfApi, "upload_folder", upload)
    return asked


def test_there_and_back(trained, online, tmp_path):
    model, image = fastzss.load(trained), world.scene("test", 3).image
    model.push_to_hub("somebody/world")
    again = fastzss.load("hf://somebody/world@main")
    assert online == [("somebody/world", "main", hub.WANTED)]
    one, other = model.segment(image, WORDS), again.segment(image, WORDS)
    assert (one.mask == other.mask).all() and one.scores == other.scores
    assert again.memory is not None and again.name(image).names == model.name(image).names
    third = Model.from_pretrained(str(tmp_path / "hub" / "somebody" / "world"))
    assert (third.segment(image, WORDS).mask == one.mask).all()
    again.save_pretrained(tmp_path / "twice")  # what came from the hub can go there again
    assert (fastzss.load(tmp_path / "twice").segment(image, WORDS).mask == one.mask).all()


def test_nothing_of_the_machine_goes_along_and_nothing_pickled(trained, tmp_path):
    fastzss.load(trained).save_pretrained(tmp_path / "saved")
    files = {
        path.relative_to(tmp_path / "saved").as_posix() for path in (tmp_path / "saved").rglob("*") if path.is_file()
    }
    top = {file for file in files if "/" not in file}
    assert top == {"README.md", "config.json", "config.yaml", "bank.json", "model.safetensors"}
    assert all(file.endswith((".json", ".npy")) for file in files - top)
    for file in files:
        assert str(trained.parent).encode() not in (tmp_path / "saved" / file).read_bytes(), file
    assert not [pattern for pattern in hub.WANTED if pattern.endswith((".bin", ".pt", ".pth", ".pkl", "*"))]
    np.load(next((tmp_path / "saved" / "memory").glob("patches-*.npy")), allow_pickle=False)


def test_the_card_says_what_it_is(trained, tmp_path):
    fastzss.load(trained).save_pretrained(tmp_path / "saved")
    _, head, text = (tmp_path / "saved" / "README.md").read_text().split("---\n", 2)
    head = yaml.safe_load(head)
    assert head["library_name"] == "fastzss" and head["license"] == "apache-2.0"
    assert head["pipeline_tag"] == "image-segmentation" and "simzss" in head["tags"]
    bank = json.loads((trained / "bank.json").read_text())["bank"]
    assert f"{len(bank['names'])} names" in text and "| world |" in text and "of 32 |" in text
    assert "`tiny` at 128 pixels" in text and "Licence: Apache-2.0" in text and "Not measured." in text


def test_scores_of_the_run_stand_in_the_card(trained, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    with open(run / "metrics.jsonl", "a") as file:
        file.write(json.dumps({"step": 60, "miou": 41.25}) + "\n")
    rows = [{"row": "global + local", "split": "test", "all": 67.1}]
    (run / "report.json").write_text(json.dumps({"rows": rows}))
    fastzss.load(run).save_pretrained(tmp_path / "saved")
    card = (tmp_path / "saved" / "README.md").read_text()
    assert "| world, step 60 | 41.2 |" in card and "| world, test, global + local | 67.1 |" in card


def test_what_is_wrong_is_said(online, tmp_path):
    for address, said in (
        ("hf://world", "expected hf://ORG/NAME"),
        ("hf://a/b/c", "expected hf://ORG/NAME"),
        ("hf://nobody/nothing", "hf://nobody/nothing: cannot be fetched (404"),
    ):
        with pytest.raises(UserError, match=said.replace("(", r"\(")):
            fastzss.load(address)
    with pytest.raises(UserError, match="is of no run"):
        Model(None, None).save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_another_repository_is_no_model(online, tmp_path):
    (tmp_path / "hub" / "a" / "b").mkdir(parents=True)
    with pytest.raises(UserError, match="no model of fastzss"):
        fastzss.load("hf://a/b")
