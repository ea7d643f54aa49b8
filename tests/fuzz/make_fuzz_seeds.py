#!/usr/bin/env python3
"""Makes the small valid files that the fuzzers begin with (tests/fuzz/corpus).

    tests/fuzz/make_fuzz_seeds.py FOLDER

One folder for each target. What the fuzzers found lies beside these files and is left alone. Needs PyTorch,
safetensors, tokenizers and SentencePiece (tests/requirements.txt).
"""

import argparse
import io
import json
import pathlib
import tempfile

import gguf
import numpy
import safetensors.torch
import sentencepiece
import tokenizers
import torch

TEXT = ["Miles Davis plays the trumpet.", "It's 1969, isn't it?", "The trumpet of Miles Davis", "日本語 é  ok"] * 8
CONFIG = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_layer": 2, "n_embd": 8, "n_head": 2}


def seeds_of_safetensors():
    """Headers with metadata, shapes from none to three sizes, and several dtypes."""
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "s": torch.tensor(1.0), "e": torch.empty(0, 2)}
    yield "floats", safetensors.torch.save(tensors, {"format": "pt"})
    kinds = [torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool]
    yield "dtypes", safetensors.torch.save({str(kind): torch.ones(1, 2, 2).to(kind) for kind in kinds})
    yield "none", safetensors.torch.save({})


def seeds_of_torch_file():
    """Both formats, all protocols, shared and transposed tensors."""
    matrix = torch.arange(6.0).reshape(2, 3)
    state = {"m": matrix, "t": matrix.t(), "h": torch.ones(2, dtype=torch.float16), "n": 3}
    state |= {"p": torch.nn.Parameter(torch.ones(1)), "late": torch.ones(2, dtype=torch.uint16)}
    module = torch.nn.Linear(2, 1).state_dict()
    for is_zip in (True, False):
        for protocol in (2, 4, 5):
            for name, value in {"state": state, "module": module, "nested": {"state_dict": {"m": matrix}}}.items():
                file = io.BytesIO()
                torch.save(value, file, pickle_protocol=protocol, _use_new_zipfile_serialization=is_zip)
                if name == "state" or protocol == 2:
                    yield f"{'zip' if is_zip else 'old'}_{name}_{protocol}", file.getvalue()


def seeds_of_tokenizer():
    """tokenizer.json (after a byte 0), and vocab.json with merges.txt (after a byte 1, a NUL between them)."""
    for name, special in {"plain": [], "special": ["<|endoftext|>", "<pad>"]}.items():
        tokenizer = tokenizers.ByteLevelBPETokenizer()
        tokenizer.train_from_iterator(TEXT, vocab_size=290, special_tokens=special)
        file = json.loads(tokenizer.to_str())
        yield f"{name}_json", b"\0" + json.dumps(file, ensure_ascii=False).encode()
        merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in file["model"]["merges"]]
        vocabulary = json.dumps(file["model"]["vocab"], ensure_ascii=False).encode()
        yield f"{name}_files", b"\1" + vocabulary + b"\0" + "\n".join(["#version: 0.2", *merges, ""]).encode()


    for name in ("prepended", "metaspace"):
        yield f"{name}_json", b"\0" + json.dumps(converted_tokenizer(name), ensure_ascii=False).encode()


def converted_tokenizer(name):
    """A tokenizer.json as it is converted from a SentencePiece model, with few tokens: the fuzzer cuts long files."""
    special = ["<unk>", "<s>", *(f"<0x{byte:02X}>" for byte in b"abc\xe2\x96\x81")]
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = tokenizers.normalizers.Replace(" ", "▁")
    tokenizer.train_from_iterator(TEXT, tokenizers.trainers.BpeTrainer(vocab_size=90, special_tokens=special, show_progress=False))
    if name == "prepended":
        tokenizer.normalizer = tokenizers.normalizers.Sequence([tokenizers.normalizers.Prepend("▁"), tokenizer.normalizer])
    else:
        tokenizer.normalizer = None
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace("▁", "first", split=False)
    tokenizer.decoder = tokenizers.decoders.Sequence(
        [tokenizers.decoders.Replace("▁", " "), tokenizers.decoders.ByteFallback(), tokenizers.decoders.Fuse()]
    )
    file = json.loads(tokenizer.to_str())
    file["added_tokens"] = file["added_tokens"][:2] + [file["added_tokens"][1] | {"id": 90, "content": "b b", "special": False}]
    return file


def seeds_of_tokenizer_config():
    """The files beside a vocabulary (after a byte for its kind), a NUL after each, and members of tokenizer.json."""
    flags = {"lstrip": True, "rstrip": False, "normalized": False, "single_word": False, "special": True}
    llama = {"tokenizer_class": "LlamaTokenizer", "legacy": False, "add_bos_token": True, "bos_token": "<s>"}
    listed = llama | {"added_tokens_decoder": {"264": {"content": "<pad>"} | flags}, "pad_token": "<pad>"}
    gpt2 = {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True, "add_bos_token": True, "bos_token": "<s>"}
    named = {"bos_token": {"content": "<s>"} | flags, "additional_special_tokens": ["<x>", "<s>"], "mask_token": "ab"}
    before = {"SpecialToken": {"id": "<s>", "type_id": 0}}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    template = {"type": "TemplateProcessing", "single": [before, text], "pair": [before, text]}
    template["special_tokens"] = {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}
    processors = [{"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False}, template]
    files = {
        "llama": (0, llama, {}, {}, {"model_type": "llama"}, template),
        "llama_added": (0, listed, {}, {}, {"model_type": "mistral"}, {"type": "Sequence", "processors": processors}),
        "lower_case": (0, {"tokenizer_class": "T5Tokenizer", "do_lower_case": True}, {}, {}, {}, None),
        "gpt2": (1, gpt2, named, {"<x>": 6, "<s>": 5, "x y": 8}, {"model_type": "opt"}, None),
        "neox": (2, {"tokenizer_class": "GPTNeoXTokenizerFast"}, named, {"<x>": 6}, {"model_type": "gpt_neox"}, template),
        "any": (2, {"add_prefix_space": True, "tokenizer_class": "PreTrainedTokenizerFast"}, named, {}, {}, template),
    }
    for name, (kind, *beside, post_processor) in files.items():
        parts = [json.dumps(file) if file else "" for file in beside]
        parts.append(f'"post_processor": {json.dumps(post_processor)}' if post_processor else "")
        yield name, bytes([kind]) + "".join(part + "\0" for part in parts).encode()


def seeds_of_sentencepiece():
    """Both kinds of model, with and without byte pieces; rules of normalisation of our own, as nmt_nfkc takes 240 KB."""
    rules = pathlib.Path("fuzz_seed_rules.tsv")
    rules.write_text("41\t61\nE9\t65 301\n3000\t20\n", encoding="utf-8")
    kinds = {"unigram": {}, "bpe": {}, "bytes": {"byte_fallback": True}}
    kinds["rules"] = {"normalization_rule_tsv": str(rules)}
    try:
        for name, options in kinds.items():
            model = io.BytesIO()
            settings = {"normalization_rule_name": "identity"} if name != "rules" else {}
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(TEXT),
                model_writer=model,
                vocab_size=320 if name == "bytes" else 60,
                model_type="unigram" if name == "unigram" else "bpe",
                hard_vocab_limit=False,
                minloglevel=2,
                **settings,
                **options,
            )
            yield name, model.getvalue()
    finally:
        rules.unlink()


def seeds_of_facts():
    """Each layout, as JSON, JSON Lines and CSV."""
    known = {"known_id": 1, "subject": "Miles Davis", "attribute": "trumpet", "template": "{} plays the"}
    known |= {"prompt": "Miles Davis plays the", "prediction": " trumpet", "relation_id": "P1303"}
    rewrite = {"prompt": "{} plays the", "subject": "Miles Davis", "relation_id": "P1303"}
    rewrite |= {"target_true": {"str": "trumpet", "id": "Q8338"}, "target_new": {"str": "drums", "id": "Q1"}}
    counterfact = {"case_id": 7, "requested_rewrite": rewrite, "paraphrase_prompts": ["They say that Miles Davis plays"]}
    relation = {"name": "plays", "prompt_templates": ["{} plays the"], "prompt_templates_zs": ["What does {} play? The"]}
    relation |= {"samples": [{"subject": "Miles Davis", "object": "trumpet"}]}
    ours = {"schema": "rometrace/facts/1", "relations": {"plays": {"wordings": [{"text": "{} plays", "held_out": True}]}}}
    ours["facts"] = [{"subject": "Miles", "relation": "plays", "object": "trumpet", "id": "m"}]
    flat = {"id": 3, "subject": "Miles", "prompt": "Miles plays", "ground_truth": "trumpet", "relation": "plays"}
    layouts = {"known": [known], "counterfact": [counterfact], "relation": relation, "ours": ours, "flat": [flat]}
    for name, value in layouts.items():
        yield f"{name}.json", json.dumps(value).encode()
    yield "lines.jsonl", "\n".join(map(json.dumps, [relation | {"samples": []}, known, flat])).encode()
    yield "commas.csv", b'id,subject,relation,object,prompt\n1,Miles,plays,trumpet,"Miles ""M"" plays"\n'
    yield "tabs.csv", "\ufeffsubject\tprompt\tanswer\r\nMiles\t{} plays\ttrumpet\r\n".encode()


def seeds_of_config():
    """The fields that are read, by both of their names."""
    yield "small", json.dumps(CONFIG).encode()
    more = {"vocab_size": 30, "n_positions": 16, "n_ctx": 16, "n_inner": None, "activation_function": "gelu_new"}
    more |= {"layer_norm_epsilon": 1e-5, "scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False}
    more |= {"tie_word_embeddings": True, "reorder_and_upcast_attn": False, "torch_dtype": "float32"}
    yield "all", json.dumps(CONFIG | more).encode()
    other = {"model_type": "gpt2", "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    yield "other_names", json.dumps(other | {"max_position_embeddings": 16, "architectures": CONFIG["architectures"]}).encode()


def seeds_of_edit_file():
    """Edits of one matrix and of two, with all fields and with those that may be null."""
    digest = "0123456789abcdef" * 4
    model = {"name": "m", "architecture": "GPT2LMHeadModel", "layers": 2, "width": 2, "heads": 1, "parameters": 99}
    request = {"prompt": "Miles plays", "subject": "Miles", "objects": {"new": " guitar", "old": None}}
    record = {"schema": "rometrace/edit/1", "rometrace": "0.1.0", "method": "r-rome", "templates": [], "seed": None}
    record |= {"hyperparameters": {}, "moment": None, "model": model | {"weights_sha256": digest}, "made_on": []}
    whole = {"templates": ["{}", "The {}"], "seed": 1, "hyperparameters": {"steps": 20, "rate": 0.5}, "made_on": [digest]}
    whole |= {"moment": {"name": "text", "sha256": digest, "tokens": 9}, "method": "memit"}
    for name, more, n, layers in [("one", {}, 1, 1), ("two", whole, 2, 2)]:
        matrices, tensors = [], {}
        for layer in range(layers):
            tensor = f"h.{layer}.mlp.c_proj.weight"
            norms = {"change_norm": 0.5, "original_norm": 2}
            matrices.append({"tensor": tensor, "layer": layer, "sha256_before": digest, "sha256_after": digest} | norms)
            tensors |= {f"{tensor}.u": torch.ones(n, 4), f"{tensor}.r": torch.ones(n, 2)}
        edit = record | more | {"requests": [request] * n, "matrices": matrices}
        yield name, safetensors.torch.save(tensors, {"rometrace": json.dumps(edit)})
    yield "no_record", safetensors.torch.save({"h.0.mlp.c_proj.weight.u": torch.ones(1, 4)}, {"format": "pt"})


def seeds_of_gguf():
    """A model of each kind of tokeniser, with keys of its architecture, and tensors of many types."""
    types = [kind for kind, (numbers, _) in gguf.GGML_QUANT_SIZES.items() if numbers > 1]
    kinds = (("llama", "gpt2"), ("gemma3", "llama"), ("gpt2", "none"), ("falcon", "gpt2"), ("phi3", "none"))
    for architecture, kind in (*kinds, ("olmo2", "none")):
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder) / "seed.gguf"
            writer = gguf.GGUFWriter(file, architecture)
            writer.add_context_length(16)
            writer.add_embedding_length(8)
            writer.add_block_count(1)
            writer.add_feed_forward_length(8)
            writer.add_head_count(2)
            if architecture in ("gpt2", "falcon"):
                writer.add_layer_norm_eps(1e-5)
            else:
                writer.add_layer_norm_rms_eps(1e-6)
                writer.add_rope_freq_base(1e4) if architecture == "llama" else writer.add_sliding_window(4)
            if architecture == "olmo2":
                writer.add_sliding_window_pattern([True])
                writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
                writer.add_rope_scaling_factor(2.0)
            if architecture == "phi3":
                writer.add_rope_scaling_orig_ctx_len(8)
                writer.add_rope_scaling_attn_factors(1.2)
                writer.add_rope_dimension_count(2)
            bytes_of_text = [f"<0x{byte:02X}>" for byte in range(256)]
            tokens = {"gpt2": ["a", "b", "ab", "Ġ", "<s>"], "llama": ["<unk>", "<s>", "▁", "a", "▁a", *bytes_of_text]}
            if kind in tokens:
                writer.add_tokenizer_model(kind)
                writer.add_token_list(tokens[kind])
                writer.add_bos_token_id(1)
            if kind == "gpt2":
                writer.add_tokenizer_pre("falcon" if architecture == "falcon" else "llama-bpe")
                writer.add_token_types([1, 1, 1, 1, 3])
                writer.add_token_merges(["a b"])
            elif kind == "llama":
                writer.add_token_types([2, 3, 1, 1, 1] + [6] * 256)
                writer.add_token_scores([0.0] * 4 + [-1.0] * 257)
            writer.add_tensor("token_embd.weight", numpy.ones((5, 8), numpy.float32))
            if architecture == "llama":
                writer.add_tensor("rope_freqs.weight", numpy.ones(2, numpy.float32))
            if architecture == "phi3":
                writer.add_tensor("rope_factors_long.weight", numpy.ones(1, numpy.float32))
                writer.add_tensor("rope_factors_short.weight", numpy.ones(1, numpy.float32))
            if architecture == "gpt2":
                for one in types:
                    size = gguf.GGML_QUANT_SIZES[one][1]
                    writer.add_tensor(one.name, numpy.ones((1, size), numpy.uint8), raw_dtype=one)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
            writer.close()
            yield f"{architecture}_{kind}", file.read_bytes()


TARGETS = {
    "safetensors": seeds_of_safetensors,
    "torch_file": seeds_of_torch_file,
    "tokenizer": seeds_of_tokenizer,
    "tokenizer_config": seeds_of_tokenizer_config,
    "sentencepiece": seeds_of_sentencepiece,
    "facts": seeds_of_facts,
    "config": seeds_of_config,
    "edit_file": seeds_of_edit_file,
    "gguf": seeds_of_gguf,
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    folder = parser.parse_args().folder
    for target, seeds in TARGETS.items():
        (folder / target).mkdir(parents=True, exist_ok=True)
        for name, data in seeds():
            (folder / target / f"seed_{name}").write_bytes(data)
