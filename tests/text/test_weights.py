"""--text-init: towers of open_clip models (with random weights) become ours, in every form they are saved in."""

import json
import logging
from dataclasses import replace

import pytest
import torch
from open_clip import create_model, tokenize
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP
from open_clip.transformer import TextTransformer
from safetensors.torch import load_file, save_file

from fastzss.base.errors import UserError
from fastzss.base.runs import Run
from fastzss.store.reading.reader import PatchStore
from fastzss.text.readout import load_tower
from fastzss.text.tower import TextTower, TowerSize
from fastzss.text.weights import activation_of, start_from
from fastzss.training.loop import train

OUT = 48
SIZE = TowerSize(64, 2, 4)
VISION = CLIPVisionCfg(layers=1, width=32, head_width=16, patch_size=16, image_size=32)
TEXT = CLIPTextCfg(width=64, heads=4, layers=2)


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(1)
    return {
        "at the top": CLIP(OUT, VISION, TEXT),
        "under text.": CustomTextCLIP(OUT, VISION, TEXT),
        "alone": TextTransformer(width=64, heads=4, layers=2, output_dim=OUT),
    }


def text_of(model):
    """The text tower's own tensors, by open_clip."""
    module = getattr(model, "text", model)
    return {
        name: value
        for name, value in module.state_dict().items()
        if not name.startswith("visual.") and name not in ("logit_scale", "attn_mask")
    }


def saved(tensors, path, form):
    tensors = {name: value.clone() for name, value in tensors.items()}
    if form == "safetensors":
        save_file(tensors, path / "w.safetensors")
        return str(path / "w.safetensors")
    if form == "training checkpoint":
        tensors = {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in tensors.items()}}
    torch.save(tensors, path / "w.pt")
    return str(path / "w.pt")


@pytest.mark.parametrize("form", ["safetensors", "pt", "training checkpoint"])
@pytest.mark.parametrize("kind", ["at the top", "under text.", "alone"])
def test_a_tower_of_open_clip_becomes_ours(models, kind, form, tmp_path):
    tower = TextTower(SIZE, OUT)
    start_from(tower, saved(models[kind].state_dict(), tmp_path, form))
    expected = text_of(models[kind])
    assert tower.state_dict().keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(tower.state_dict()[name], value), name


def test_the_projection_is_made_anew_where_the_width_differs(models, tmp_path):
    torch.manual_seed(3)
    tower = TextTower(SIZE, 40)
    own = tower.text_projection.detach().clone()
    start_from(tower, saved(models["alone"].state_dict(), tmp_path, "pt"))
    assert torch.equal(tower.text_projection, own)
    assert torch.equal(tower.token_embedding.weight, models["alone"].token_embedding.weight)


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"vocab_size": 100}, "has a vocabulary of 100 tokens, this tower a vocabulary of 49408 tokens"),
        ({"context_length": 64}, "has a context of 64 tokens, this tower a context of 77 tokens"),
        ({"width": 512}, "has a width of 512, this tower a width of 64; no tower of 2 layers x 512"),
        ({"width": 128}, "has a width of 128, this tower a width of 64; --text tiny has its size"),
        ({"layers": 3}, "has 3 layers, this tower 2"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_tower_of_another_size_is_refused_by_name(change, sentence, tmp_path):
    size = {"width": 64, "heads": 4, "layers": 2, "output_dim": OUT, **change}
    path = saved(TextTransformer(**size).state_dict(), tmp_path, "safetensors")
    tower = TextTower(SIZE, OUT)
    before = {name: value.clone() for name, value in tower.state_dict().items()}
    with pytest.raises(UserError, match=sentence):
        start_from(tower, path)
    assert all(torch.equal(value, before[name]) for name, value in tower.state_dict().items())


def drop(tensors):
    return {name: value for name, value in tensors.items() if name != "ln_final.bias"}


@pytest.mark.parametrize(
    "make, sentence",
    [
        (lambda t, p: saved(drop(t), p, "pt"), "lacks ln_final.bias; expected the text tower"),
        (
            lambda t, p: saved({"conv.weight": t["ln_final.bias"]}, p, "pt"),
            "holds no text tower .*begins with conv.w",
        ),
        (lambda t, p: saved({**t, "ln_final.bias": t["ln_final.bias"][:3]}, p, "pt"), r"bias has the shape \[3\]; exp"),
        (lambda t, p: saved({**t, "transformer.extra": t["ln_final.bias"]}, p, "pt"), "has transformer.extra, which"),
        (lambda t, p: str(p / "nowhere.pt"), "no such file; expected a .safetensors or .pt file, or open_clip:"),
        (lambda t, p: str(p / "nowhere.safetensors"), "no such file; expected"),
        (lambda t, p: written(p / "junk.pt", b"no weights"), "cannot be read as weights"),
        (lambda t, p: written(p / "junk.safetensors", b"no weights"), "cannot be read as weights"),
        (lambda t, p: written(p / "empty.pt", b""), "cannot be read as weights"),
        (lambda t, p: str(p), "cannot be read as weights"),
    ],
)
def test_what_is_no_tower_is_refused(models, make, sentence, tmp_path):
    path = make(text_of(models["alone"]), tmp_path)
    with pytest.raises(UserError, match=sentence):
        start_from(TextTower(SIZE, OUT), path)


def written(path, data):
    path.write_bytes(data)
    return str(path)


@pytest.mark.parametrize(
    "name, sentence",
    [
        ("ViT-B-33", 'has no "ViT-B-33" .did you mean "ViT-B-32"'),
        ("ViT-B-32", "expected open_clip:ViT-B-32/TAG with one of openai, "),
        ("ViT-B-32/laion2b", 'has no weights "laion2b"'),
        ("ViT-B-32/laion2b_s34b_b79k", "cannot be fetched .*give a file of it with --text-init FILE"),
    ],
)
def test_weights_that_open_clip_does_not_give_are_named(name, sentence):
    with pytest.raises(UserError, match=sentence):
        start_from(TextTower(SIZE, OUT), f"open_clip:{name}")


def test_weights_that_open_clip_fetches_are_read(monkeypatch, tmp_path):
    """ViT-B-32 whole, as open_clip builds and saves it; only the way from the hub is cut short."""
    torch.manual_seed(2)
    model = create_model("ViT-B-32")
    path = saved(model.state_dict(), tmp_path, "safetensors")
    monkeypatch.setattr("open_clip.download_pretrained", lambda config: path)
    tower = TextTower(TowerSize(512, 12, 8), 512)
    start_from(tower, "open_clip:ViT-B-32/laion2b_s34b_b79k")
    assert torch.equal(tower.transformer.resblocks[11].mlp.c_fc.weight, model.transformer.resblocks[11].mlp.c_fc.weight)
    assert torch.equal(tower.text_projection, model.text_projection)


def test_a_run_goes_to_open_clip_and_into_another_run(config, tmp_path):
    """What a run keeps loads into open_clip's model as it is, and a next run begins with it, exactly."""
    first = replace(config, steps=1, precision="float32")
    train(first)
    weights = Run.open(first.out).latest / "model.safetensors"
    text = CLIPTextCfg(width=128, heads=4, layers=2)
    model = CustomTextCLIP(PatchStore(config.store).plan.channels, VISION, text)
    answer = model.load_state_dict(load_file(weights), strict=False)
    assert not answer.unexpected_keys and all(name.startswith("visual.") for name in answer.missing_keys)
    back = saved(model.state_dict(), tmp_path, "pt")
    second = replace(first, out=tmp_path / "second", text_init=back, lr=1e-30, warmup=0.0)
    train(second)
    kept = load_file(Run.open(second.out).latest / "model.safetensors")
    for name, value in load_file(weights).items():
        assert name == "logit_scale" or (kept[name] - value).abs().max() < 1e-20, name
    assert train(second)["step"] == 1, "a run that goes on needs the file no more"


# The activation


@pytest.mark.parametrize(
    "spec, activation",
    [
        (None, "gelu"),
        ("open_clip:ViT-B-32-quickgelu/openai", "quick_gelu"),
        ("open_clip:ViT-B-32/openai", "quick_gelu"),  # the architecture does not say it, the weights do
        ("open_clip:ViT-L-14/metaclip_400m", "quick_gelu"),
        ("open_clip:ViT-B-32/laion2b_s34b_b79k", "gelu"),
        ("open_clip:ViT-B-16/laion400m_e32", "gelu"),
        ("anywhere.pt,quick_gelu", "quick_gelu"),
        ("anywhere.pt,gelu", "gelu"),
    ],
)
def test_the_activation_that_a_name_says(spec, activation):
    assert activation_of(spec) == activation


def test_a_file_that_does_not_say_its_activation_is_taken_for_gelu_and_a_line_says_so(models, tmp_path, caplog):
    path = saved(models["alone"].state_dict(), tmp_path, "pt")
    with caplog.at_level(logging.INFO, "fastzss"):
        assert activation_of(path) == "gelu"
    assert f"{path}: does not say its activation; GELU is taken (`--text-init {path},quick_gelu`" in caplog.text
    tower = TextTower(SIZE, OUT, "quick_gelu")
    start_from(tower, f"{path},quick_gelu")
    assert torch.equal(tower.ln_final.weight, models["alone"].ln_final.weight)


@pytest.mark.parametrize("quick, activation", [({"quick_gelu": True}, "quick_gelu"), ({}, "gelu")])
def test_a_file_from_the_hub_has_the_activation_of_the_config_beside_it(models, quick, activation, tmp_path):
    save_file({k: v.clone() for k, v in text_of(models["alone"]).items()}, tmp_path / "open_clip_model.safetensors")
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"embed_dim": OUT, **quick}}))
    assert activation_of(str(tmp_path / "open_clip_model.safetensors")) == activation


@pytest.mark.parametrize("config", ["", "{}", "[1]", '{"model_cfg": 3}'])
def test_a_config_from_the_hub_that_is_none_says_nothing(models, config, tmp_path, caplog):
    save_file({k: v.clone() for k, v in text_of(models["alone"]).items()}, tmp_path / "open_clip_model.safetensors")
    (tmp_path / "open_clip_config.json").write_text(config)
    with caplog.at_level(logging.INFO, "fastzss"):
        assert activation_of(str(tmp_path / "open_clip_model.safetensors")) == "gelu"
    assert "does not say its activation" in caplog.text


@pytest.mark.parametrize("spec", ["nowhere.pt", "w.pt,quickgelu"])
def test_a_missing_file_is_named_before_anything_is_made(config, spec, tmp_path):
    with pytest.raises(UserError, match=f"--text-init .*{spec}: no such file; expected .*FILE,quick_gelu"):
        train(replace(config, text_init=str(tmp_path / spec)))
    assert not config.out.exists()


@pytest.fixture(scope="module")
def openai(store, tmp_path_factory):
    """(a small CLIP with QuickGELU, the file of it that is made as OpenAI's are: half precision, by TorchScript)."""
    torch.manual_seed(5)
    channels = PatchStore(store).plan.channels
    model = CLIP(channels, VISION, CLIPTextCfg(width=128, heads=4, layers=2), quick_gelu=True).eval()
    inputs = torch.zeros(1, 3, 32, 32), torch.zeros(1, 77, dtype=torch.long)
    path = tmp_path_factory.mktemp("openai") / "ViT-tiny.pt"
    with torch.no_grad():
        torch.jit.trace(model, inputs, check_trace=False).half().save(path)
    return model, path


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::torch.jit.TracerWarning")
def test_openais_own_archive_makes_a_tower_that_reads_as_theirs(openai, config, tmp_path):
    model, path = openai
    moved = path.rename(tmp_path / "ViT-tiny.pt")
    first = replace(config, text_init=str(moved), steps=1, lr=1e-30, warmup=0.0)
    train(first)
    moved.rename(path)
    run = Run.open(first.out)
    assert run.config["text"]["activation"] == "quick_gelu"
    tower = load_tower(run)
    words = tokenize(["a red boat", "two houses and a tree on the grass"])
    theirs = model.half().float().encode_text(words, normalize=True)
    segment = torch.arange(2, dtype=torch.int32).unsqueeze(1).expand_as(words)
    found = tower.units(words, segment, words.argmax(1) + torch.tensor([0, 77]))
    assert (found - theirs).norm() < 1e-5 * theirs.norm()

    assert train(first)["step"] == 1, "a run that goes on needs the file no more"
    checkpoint = run.latest / "model.safetensors"
    assert activation_of(str(checkpoint)) == "quick_gelu", "its run says so"


def test_a_run_of_gelu_is_recorded_as_ever(config):
    train(replace(config, steps=1))
    assert "activation" not in Run.open(config.out).config["text"]
    assert load_tower(Run.open(config.out)).activation == "gelu"
