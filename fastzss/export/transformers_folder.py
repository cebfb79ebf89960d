"""The text tower as transformers' CLIPTextModelWithProjection, with its tokenizer.

OUT/config.json, model.safetensors, vocab.json, merges.txt, tokenizer_config.json, special_tokens_map.json
"""

import json

import torch
import torch.nn.functional as F
from safetensors.torch import save

from fastzss.base.files import write_file
from fastzss.captions.tokens import CONTEXT, END, START, byte_pairs
from fastzss.export.sample import gap
from fastzss.text.tower import VOCABULARY

SPECIAL = {START: "<|startoftext|>", END: "<|endoftext|>"}
NAMES = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj",
         "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}  # fmt: skip


def write(model, run, out, sample):
    """(names of files, the largest difference between what transformers loads and the run)."""
    tower = model.words.tower
    files = {
        "config.json": config(tower),
        "vocab.json": vocabulary(),
        "tokenizer_config.json": {
            "tokenizer_class": "CLIPTokenizer", "model_max_length": CONTEXT, "do_lower_case": True,
            "bos_token": SPECIAL[START], "eos_token": SPECIAL[END], "unk_token": SPECIAL[END],
            "pad_token": SPECIAL[END],
        },
        "special_tokens_map.json": {"bos_token": SPECIAL[START], "eos_token": SPECIAL[END],
                                    "unk_token": SPECIAL[END], "pad_token": SPECIAL[END]},
    }  # fmt: skip
    for name, content in files.items():
        write_file(out / name, json.dumps(content, indent=1, ensure_ascii=False).encode())
    merges = "\n".join(" ".join(pair) for pair in byte_pairs().bpe_ranks)
    write_file(out / "merges.txt", f"#version: 0.2\n{merges}\n".encode())
    write_file(out / "model.safetensors", save(tensors(tower), {"format": "pt"}))
    return [*files, "merges.txt", "model.safetensors"], difference(out, sample)


def config(tower):
    size = tower.size
    return {
        "architectures": ["CLIPTextModelWithProjection"],
        "model_type": "clip_text_model",
        "vocab_size": VOCABULARY,
        "max_position_embeddings": CONTEXT,
        "hidden_size": size.width,
        "intermediate_size": 4 * size.width,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "projection_dim": tower.text_projection.shape[1],
        "hidden_act": tower.activation,
        "layer_norm_eps": tower.ln_final.eps,
        "bos_token_id": START,
        "eos_token_id": END,
        "pad_token_id": END,
    }


def tensors(tower):
    """The tower's tensors under transformers' names: q, k and v apart, the projection the other way round."""
    found = {}
    for name, value in tower.state_dict().items():
        value = value.detach().float().cpu()
        if name == "token_embedding.weight":
            found["text_model.embeddings.token_embedding.weight"] = value
        elif name == "positional_embedding":
            found["text_model.embeddings.position_embedding.weight"] = value
        elif name == "text_projection":
            found["text_projection.weight"] = value.T
        elif name.startswith("ln_final."):
            found[f"text_model.final_layer_norm.{name.rpartition('.')[2]}"] = value
        else:
            _, _, layer, rest = name.split(".", 3)
            where = f"text_model.encoder.layers.{layer}"
            if rest.startswith("attn.in_proj_"):
                for part, own in zip("qkv", value.chunk(3), strict=True):
                    found[f"{where}.self_attn.{part}_proj.{rest.removeprefix('attn.in_proj_')}"] = own
            else:
                module, _, kind = rest.rpartition(".")
                found[f"{where}.{NAMES[module]}.{kind}"] = value
    return {name: value.contiguous() for name, value in found.items()}


def vocabulary():
    """{token: id}; START and END have other names there."""
    return {SPECIAL.get(number, token): number for token, number in byte_pairs().encoder.items()}


@torch.inference_mode()
def difference(out, sample):
    from transformers import CLIPTextModelWithProjection, CLIPTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    tower = CLIPTextModelWithProjection.from_pretrained(out).eval()
    asked = CLIPTokenizer.from_pretrained(out)(list(sample.words), padding=True, return_tensors="pt")
    texts = F.normalize(tower(**asked).text_embeds, dim=-1)
    return max(gap(texts, sample.texts), gap(sample.images @ texts.T, sample.images @ sample.texts.T))
