"""The GGUF files that llama.cpp has judged (tests/judge/make_llama_cpp_goldens.py), written again: small models of each
architecture, and GPT-2's vocabulary under each name of splits."""

from __future__ import annotations

import json
from pathlib import Path

import gguf

from gguf_files import CASES, ROUNDED_CASES, add_byte_level_tokenizer, change_config, copy_case, write_gguf

TOKEN_IDS = [7, 3, 21, 40, 3, 12, 30, 5]
POSITIONS = [2, 7]  # of which logits are kept

# What llama.cpp does not load, though its format says it: heads that are not width / heads wide (Qwen 2, OLMo 2 and 3),
# tied heads (GPT-NeoX, Nemotron), no biases (StarCoder 2, GPT-OSS), norms of heads in fewer than 64 layers (Command R).
LEFT_OUT = ("gpt_neox_sequential", "qwen2_yarn", "starcoder2_full", "olmo3", "cohere_norms_of_heads", "nemotron_biases")
LEFT_OUT += ("gpt_oss_grouped",)
LOGIT_CASES = tuple(name for name in (*CASES, *ROUNDED_CASES) if name not in LEFT_OUT) + ("starcoder2",)

PRES = ("gpt-2", "phi-2", "olmo", "mpt", "smollm", "starcoder", "refact", "command-r", "llama-bpe", "smaug-bpe", "dbrx")
PRES += ("chatglm-bpe", "glm4", "qwen2", "stablelm2", "tekken", "gpt-4o", "falcon", "bloom")
# Composed already: llama.cpp does not do that.
TEXTS = (
    "The Space Needle is in downtown Seattle.",
    "It's 12345 o'clock, isn't it? WE'LL SEE; we'd've known 3.1415, 1,000,000 and 7.",
    "  two  spaces\n\n\tand   tabs \n  ",
    "def trace(model):\n    return [x**2 for x in range(10)]  # 100%",
    "Größe, Höhe; château près de l'été: ça va? ¿Dónde está?",
    "Река течёт через город — 2024 год.",
    "东京是日本的首都。12个人",
    "नदी शहर से होकर جاتی ہے۔",
    "JustCamelCase HTTPServer x_y $5 a+b<=c ~`^|",
    "😀 👍🏽 → ∑ x² ½ Ⅻ",
)


def write_case(repository: Path, name: str, folder: Path) -> Path:
    """The file of a case."""
    copy_case(repository, name, folder)
    config = json.loads((folder / "config.json").read_text())
    if config["model_type"] == "phi3":
        change_config(folder, sliding_window=None)  # which llama.cpp does not have
        # It takes the divisors by the room that it has for tokens, 256 at least.
        change_config(folder, original_max_position_embeddings=512, max_position_embeddings=2048)
    if config["model_type"] == "gpt_oss":  # of whose ramp it takes whole numbers, which the model does not
        change_config(folder, rope_scaling={"rope_type": "default"})
    return write_gguf(folder, folder / "model.gguf")


def write_vocabulary(tokenizer: Path, file: Path, pre: str) -> Path:
    """A file of GPT-2's vocabulary alone, by the name of splits."""
    writer = gguf.GGUFWriter(file, "llama")
    add_byte_level_tokenizer(writer, tokenizer, pre)
    writer.add_add_bos_token(False)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return file
