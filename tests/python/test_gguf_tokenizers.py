"""The tokenisers in GGUF files give the ids of the tokenisers that they were made of: byte-level BPE with the splits
that the file names, by Hugging Face's tokenizers, and SentencePiece's BPE, by SentencePiece."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

from test_tokenizer_sentencepiece import GEMMA_LIKE, LLAMA_LIKE, TEXT, texts
from tokenizing import assert_same, decoded_tokens, mixed_texts, tokenize
from zygote import RUNNER

sentencepiece_model_pb2 = pytest.importorskip("sentencepiece.sentencepiece_model_pb2", reason="needs protobuf")
gguf = pytest.importorskip("gguf", reason="the Python package gguf is not there (tests/requirements.txt)")

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)


def write(file: Path, kind: str, architecture: str = "llama", **keys: Any) -> Path:
    """A GGUF file of a tokeniser alone, by the keys behind "tokenizer.ggml."."""
    writer = gguf.GGUFWriter(file, architecture)
    writer.add_tokenizer_model(kind)
    for key, value in keys.items():
        add = {bool: writer.add_bool, int: writer.add_uint32, str: writer.add_string}.get(type(value), writer.add_array)
        add(f"tokenizer.ggml.{key}", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return file


# --- Byte-level BPE ------------------------------------------------------------------------------------------------

WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def split(pattern: str) -> list[Any]:
    return [
        pre_tokenizers.Split(Regex(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]


CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
GPT4O = (
    rf"[^\r\n\p{{L}}\p{{N}}]?[\p{{Lu}}\p{{Lt}}\p{{Lm}}\p{{Lo}}\p{{M}}]*[\p{{Ll}}\p{{Lm}}\p{{Lo}}\p{{M}}]+{CONTRACTION}|"
    rf"[^\r\n\p{{L}}\p{{N}}]?[\p{{Lu}}\p{{Lt}}\p{{Lm}}\p{{Lo}}\p{{M}}]+[\p{{Ll}}\p{{Lm}}\p{{Lo}}\p{{M}}]*{CONTRACTION}|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BLOOM = r" ?[^(\s|[.,!?…。，、।۔،])]+"
GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
# What the tokenizer.json of the models of these names says.
STAGES = {
    "gpt-2": [GPT2],
    "smollm": [pre_tokenizers.Digits(individual_digits=True), GPT2],
    "llama-bpe": split(WORDS % r"\p{N}{1,3}"),
    "smaug-bpe": split(WORDS % r"\p{N}{1,3}"),
    "qwen2": split(WORDS % r"\p{N}"),
    "tekken": split(TEKKEN),
    "phi-2": [GPT2],
    "olmo": [GPT2],
    "mpt": [GPT2],
    "refact": [pre_tokenizers.Digits(individual_digits=True), GPT2],
    "command-r": [pre_tokenizers.Digits(individual_digits=True), GPT2],
    "dbrx": split(WORDS % r"\p{N}{1,3}"),
    "stablelm2": split(WORDS % r"\p{N}"),
    "glm4": split(WORDS % r"\p{N}{1,3}"),
    "gpt-4o": split(GPT4O),
    # The original has Digits before the last one; no merge of its own joins a space to digits.
    "falcon": [
        pre_tokenizers.Punctuation("contiguous"),
        GPT2,
        pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), "isolated"),
    ],
    "bloom": split(BLOOM),
}
WHOLE_PARTS = ("llama-bpe", "tekken", "glm4")
COMPOSED = ("qwen2", "olmo", "mpt", "command-r", "stablelm2")


@pytest.fixture(scope="module")
def vocabulary(shared: Path) -> tuple[list[str], list[str]]:
    """GPT-2's tokens by id, and its merges."""
    ids = json.loads((shared / "tokenizers/gpt2/vocab.json").read_text())
    lines = (shared / "tokenizers/gpt2/merges.txt").read_text().splitlines()
    return sorted(ids, key=ids.get), [line for line in lines if not line.startswith("#version")]


def judge(pre: str, tokens: list[str], merges: list[str]) -> Tokenizer:
    pairs = [tuple(merge.split(" ")) for merge in merges]
    bpe = models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=pairs, ignore_merges=pre in WHOLE_PARTS)
    tokenizer = Tokenizer(bpe)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(STAGES[pre])
    if pre in COMPOSED:
        tokenizer.normalizer = normalizers.NFC()
    return tokenizer


@pytest.mark.parametrize("pre", STAGES)
def test_texts_are_split_as_the_name_says(
    tool: Path, vocabulary: tuple[list[str], list[str]], tmp_path: Path, pre: str
) -> None:
    tokens, merges = vocabulary
    types = [CONTROL if token == "<|endoftext|>" else NORMAL for token in tokens]
    file = write(
        tmp_path / "t.gguf", "gpt2", pre=pre, tokens=tokens, merges=merges, token_type=types, bos_token_id=50256
    )
    tokenizer = judge(pre, tokens, merges)
    some = mixed_texts(7, decoded_tokens(tokenizer)) + [
        "It's 12345 o'clock, isn't it?\n\n  \tJustBecause ÀB x_y  ",
        "e\u0301",
    ]
    expected = [encoding.ids for encoding in tokenizer.encode_batch(some)]
    assert_same(tool, file, some, expected)


def test_what_is_special_is_text_unless_asked_for(tool: Path, tmp_path: Path) -> None:
    tokens = ["a", "b", "Ġ", "<", "s", ">", "ab", "<s>", "[ x ]"]
    keys = {
        "pre": "llama-bpe",
        "tokens": tokens,
        "merges": ["a b"],
        "token_type": [NORMAL] * 7 + [CONTROL, USER_DEFINED],
    }
    file = write(tmp_path / "t.gguf", "gpt2", bos_token_id=7, **keys)
    (plain,) = tokenize(tool, file, ["ab<s>[ x ]b"])
    (parsed,) = tokenize(tool, file, ["ab<s>[ x ]b"], "--parse-special")
    assert plain["ids"] == [6, 3, 4, 5, 8, 1]
    assert parsed["ids"] == [6, 7, 8, 1]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"pre": "llama-bpe"}, [4]),  # the begin-of-text token is of models of this name
        ({"pre": "llama-bpe", "add_bos_token": False}, []),
        ({"pre": "qwen2"}, []),
        ({"pre": "qwen2", "add_bos_token": True}, [4]),
    ],
)
def test_a_prompt_begins_as_the_file_says(
    rometrace: Any, tool: Path, tmp_path: Path, keys: dict[str, Any], expected: list[int]
) -> None:
    tokens = {"tokens": ["a", "b", "Ġ", "ab", "<s>"], "merges": ["a b"], "token_type": [NORMAL] * 4 + [CONTROL]}
    file = write(tmp_path / "t.gguf", "gpt2", bos_token_id=4, **tokens, **keys)
    (answer,) = tokenize(tool, file, ["ab"], "--prompt")
    assert answer["ids"] == [*expected, 3]


# --- SentencePiece -------------------------------------------------------------------------------------------------


def keys_of(model: sentencepiece.SentencePieceProcessor, raw_spaces: bool = True) -> dict[str, Any]:
    """What llama.cpp's converter takes of a model: the spaces of tokens that its maker defined are written as such."""
    ids = range(model.get_piece_size())
    kinds = {model.is_unknown: UNKNOWN, model.is_control: CONTROL, model.is_unused: UNUSED, model.is_byte: BYTE}
    types = [next((kind for test, kind in kinds.items() if test(i)), NORMAL) for i in ids]
    tokens = [model.id_to_piece(i) for i in ids]
    for i in ids:  # no function tells
        if (
            types[i] == NORMAL
            and model.get_score(i) == 0
            and tokens[i] in GEMMA_LIKE["user_defined_symbols"] + ["▁▁", "▁▁▁"]
        ):
            types[i] = USER_DEFINED
            tokens[i] = tokens[i].replace("▁", " ") if raw_spaces else tokens[i]
    rules = sentencepiece_model_pb2.ModelProto.FromString(model.serialized_model_proto()).normalizer_spec
    keys = {"tokens": tokens, "scores": [model.get_score(i) for i in ids], "token_type": types}
    keys |= {"add_space_prefix": rules.add_dummy_prefix, "remove_extra_whitespaces": rules.remove_extra_whitespaces}
    return keys | ({"precompiled_charsmap": rules.precompiled_charsmap} if rules.precompiled_charsmap else {})


def trained(**options: Any) -> sentencepiece.SentencePieceProcessor:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        **(
            {
                "sentence_iterator": iter((TEXT * 3).splitlines()),
                "model_writer": model,
                "vocab_size": 500,
                "character_coverage": 1.0,
                "hard_vocab_limit": False,
                "minloglevel": 2,
            }
            | options
        )
    )
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


@pytest.mark.parametrize("name", ["tokenizers/llama2-tokenizer.model", "models/stories260K-hf/tokenizer.model"])
def test_llamas_models_give_their_own_ids(tool: Path, shared: Path, tmp_path: Path, name: str) -> None:
    if not (shared / name).exists():
        pytest.skip(f"{name} is not there")
    model = sentencepiece.SentencePieceProcessor(model_file=str(shared / name))
    file = write(tmp_path / "t.gguf", "llama", **keys_of(model), bos_token_id=1, unknown_token_id=0)
    some = texts(3, [model.id_to_piece(i).replace("▁", " ") for i in range(259, model.get_piece_size(), 37)], 1500)
    assert_same(tool, file, some, model.encode(some), check=lambda text, ranges: None)
    (answer,) = tokenize(tool, file, ["a"], "--prompt")
    assert answer["ids"] == [1, *model.encode("a")]


@pytest.mark.parametrize("options", [LLAMA_LIKE, GEMMA_LIKE], ids=["like Llama", "like Gemma"])
def test_models_that_are_trained_here_give_their_own_ids(tool: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    options = dict(options)
    if "user_defined_symbols" in options:
        options["user_defined_symbols"] = [*options["user_defined_symbols"], "▁▁", "▁▁▁"]
    model = trained(**options)
    keys = keys_of(model) | {"add_bos_token": False}
    file = write(tmp_path / "t.gguf", "llama", **keys, bos_token_id=model.bos_id(), unknown_token_id=model.unk_id())
    if "user_defined_symbols" in options:
        assert "  " in keys["tokens"]
    some = texts(5)
    assert_same(tool, file, some, model.encode(some), check=lambda text, ranges: None)


# --- Refusals ------------------------------------------------------------------------------------------------------

BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
PIECES = {"tokens": ["<unk>", "a"], "scores": [0.0, -1.0], "token_type": [UNKNOWN, NORMAL], "bos_token_id": 0}
BYTE_LEVEL = {"tokens": ["a", "b", "ab"], "merges": ["a b"], "pre": "gpt-2"}


@pytest.mark.parametrize(
    ("kind", "keys", "expected"),
    [
        ("bert", BYTE_LEVEL, 'tokenizer.ggml.model is "bert"; expected "gpt2"'),
        ("gpt2", BYTE_LEVEL | {"pre": "kimi-k2"}, 'tokenizer.ggml.pre is "kimi-k2"; expected one of gpt-2, '),
        ("gpt2", {"tokens": ["a"], "merges": []}, "has no tokenizer.ggml.merges"),
        ("gpt2", {"tokens": ["a", "b", "ab"], "merges": ["a b"]}, "has no tokenizer.ggml.pre"),
        ("gpt2", BYTE_LEVEL | {"merges": ["a c"]}, 'merge 0: merge "a c" needs "c"'),
        ("gpt2", BYTE_LEVEL | {"token_type": [1, 1]}, "token_type is a list of 2; expected one for each of 3 tokens"),
        ("gpt2", BYTE_LEVEL | {"token_type": [1, 1, 9]}, "token_type has 9; expected 1 to 6"),
        ("gpt2", BYTE_LEVEL | {"add_bos_token": True}, "has no tokenizer.ggml.bos_token_id"),
        ("gpt2", BYTE_LEVEL | {"add_bos_token": True, "bos_token_id": 3}, "bos_token_id is 3; expected 0 to 2"),
        ("gpt2", BYTE_LEVEL | {"add_space_prefix": True}, "add_space_prefix is true; expected false"),
        ("llama", PIECES | {"scores": [0.0]}, "scores is a list of 1; expected one for each of 2 tokens"),
        ("llama", PIECES | {"scores": [0.0, float("nan")]}, "scores of token 1 is no number"),
        ("llama", PIECES | {"token_type": [1, 1]}, "has no tokenizer.ggml.unknown_token_id"),
        (
            "llama",
            {"tokens": ["u", "a", "a"], "scores": [0.0] * 3, "token_type": [2, 1, 1], "bos_token_id": 0},
            "SentencePiece cannot load it",
        ),
        ("llama", PIECES | {"token_type": [2, 6]}, "SentencePiece cannot load it"),
        ("llama", PIECES | {"bos_token_id": 7}, "bos_token_id is 7; expected 0 to 1"),
    ],
)
def test_what_is_not_known_is_refused_in_one_line(
    tool: Path, tmp_path: Path, kind: str, keys: dict[str, Any], expected: str
) -> None:
    file = write(tmp_path / "t.gguf", kind, **keys)
    done = RUNNER.run([tool, file], env=os.environ, input=b"", timeout=300)
    message = done.stderr.decode()
    assert done.returncode != 0 and expected in message and len(message.splitlines()) == 1, message
