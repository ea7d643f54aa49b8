"""SentencePiece models under the rules of their tokenizer_config.json, as transformers applies them: the begin-of-text
token, the space before a text, special and added tokens. On small models trained here, and on those of ../shared."""

from __future__ import annotations

import io
import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from tokenizers import AddedToken

from tokenizing import CODE_POINTS, assert_ranges, assert_same, python_sources, tokenize

pytest.importorskip("google.protobuf", reason="transformers reads a .model file with protobuf")

TEXT = """The tower stands in the middle of the town, and the town stands at the mouth of the river.
She plays the violin; he plays the piano. In 1998 there were 12,345 visitors.
Le château près de la forêt a été bâti à côté de l'église. El niño comió una manzana.
Река течёт через город. 川は町を流れて、海に入る。彼女はバイオリンを弾く。 मदी
"""


def train(folder: Path, **options: Any) -> None:
    """Writes tokenizer.model, as large as the text allows."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        **({"sentence_iterator": iter((TEXT * 3).splitlines() + python_sources(2)[0].splitlines()), "model_writer": model,
            "vocab_size": 700, "character_coverage": 1.0, "hard_vocab_limit": False, "minloglevel": 2} | options)
    )
    (folder / "tokenizer.model").write_bytes(model.getvalue())


LLAMA_LIKE = {"model_type": "bpe", "byte_fallback": True, "split_digits": True, "normalization_rule_name": "identity",
              "remove_extra_whitespaces": False, "unk_id": 0, "bos_id": 1, "eos_id": 2}
GEMMA_LIKE = LLAMA_LIKE | {"add_dummy_prefix": False, "pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3, "unk_piece": "<unk>",
                           "bos_piece": "<bos>", "eos_piece": "<eos>", "user_defined_symbols": ["\n", "\n\n", "<table>"],
                           "control_symbols": ["<start_of_turn>"], "allow_whitespace_only_pieces": True}


def texts(seed: int, parts: list[str] = [], count: int = 400) -> list[str]:
    generator = random.Random(seed)
    alphabet = [*TEXT.split(" "), " ", "  ", "   ", "\n", "\t", "▁", "😀", "月", "e\u0301", "ﬁ", "x=1;", *parts]
    found = ["".join(generator.choices(alphabet, k=generator.randint(1, 9))) for _ in range(count)]
    found += [" ".join(generator.choices(alphabet, k=generator.randint(1, 9))) for _ in range(count)]
    found += ["".join(map(chr, generator.choices(CODE_POINTS, k=generator.randint(1, 12)))) for _ in range(count)]
    return found + ["", " ", "  ", "a", " a", "▁", "\n", *TEXT.splitlines()]


def read_by_transformers(folder: Path) -> Any:
    return pytest.importorskip("transformers").AutoTokenizer.from_pretrained(str(folder))


def tokenizer_of_class(name: str, folder: Path, config: dict[str, Any]) -> Any:
    """A tokeniser class of transformers on tokenizer.model, with the merges that the makers' tokenizer.json has. (From
    the model alone, transformers 5.23 takes them in the order of the ids, whatever the pieces' scores.)"""
    transformers = pytest.importorskip("transformers")
    from transformers.convert_slow_tokenizer import generate_merges

    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    scores = {model.id_to_piece(i): model.get_score(i) for i in range(model.get_piece_size())}
    vocab = {piece: i for i, piece in enumerate(scores)}
    options = {name: value for name, value in config.items() if name not in ("tokenizer_class", "added_tokens_decoder")}
    if isinstance(options.get("bos_token"), dict):
        options["bos_token"] = AddedToken(**options["bos_token"])
    decoder = {int(i): AddedToken(**token) for i, token in config.get("added_tokens_decoder", {}).items()}
    merges = generate_merges(vocab, scores)
    return getattr(transformers, name)(vocab=vocab, merges=merges, added_tokens_decoder=decoder, **options)


def assert_covered(text: str, ranges: list[list[int]]) -> None:
    """Whole characters, in order; all is covered that is no white space (for SentencePiece, "▁" is)."""
    assert_ranges(text, ranges, spaces="▁")
    for begin, end in ranges:
        text.encode()[begin:end].decode()


def assert_same_as_transformers(tool: Path, folder: Path, judge: Any, all_texts: list[str], *options: str) -> None:
    expected = [judge(text, split_special_tokens="--parse-special" not in options).input_ids for text in all_texts]
    assert_same(tool, folder, all_texts, expected, "--prompt", *options, check=assert_covered)


LLAMA_CONFIGS = {
    "usual": {"add_bos_token": True, "legacy": False, "bos_token": "<s>"},
    "legacy": {"add_bos_token": True, "legacy": True, "bos_token": {"content": "<s>", "lstrip": False, "rstrip": False,
                                                                    "single_word": False, "normalized": True}},
    "no token, no space": {"add_bos_token": False, "add_prefix_space": False},
    "padding added": {"add_bos_token": True, "pad_token": "<pad>", "added_tokens_decoder": {}},
}


@pytest.mark.parametrize("name", LLAMA_CONFIGS)
@pytest.mark.parametrize("model", ["trained here", "Llama 2's"])
def test_llamas_rules_give_the_ids_of_transformers(tool: Path, tmp_path: Path, request: Any, model: str, name: str) -> None:
    if model == "trained here":
        train(tmp_path, **LLAMA_LIKE)
    else:
        shared = request.getfixturevalue("shared")
        shutil.copy(shared / "tokenizers/llama2-tokenizer.model", tmp_path / "tokenizer.model")
    config = {"tokenizer_class": "LlamaTokenizer"} | LLAMA_CONFIGS[name]
    if name == "padding added":
        size = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model")).get_piece_size()
        flags = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False, "special": True}
        config["added_tokens_decoder"] = {
            str(size): {"content": "<pad>"} | flags, str(size + 1): {"content": "qqxqq"} | flags | {"special": False}
        }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    judge = tokenizer_of_class("LlamaTokenizer", tmp_path, config)
    parts = ["<s>", "</s>", "<unk>", "<pad>", "qqxqq"]
    assert_same_as_transformers(tool, tmp_path, judge, texts(1, parts))
    assert_same_as_transformers(tool, tmp_path, judge, texts(2, parts * 3), "--parse-special")


def test_gemmas_class_gives_the_ids_of_transformers(tool: Path, tmp_path: Path) -> None:
    train(tmp_path, **GEMMA_LIKE)
    config = {"tokenizer_class": "GemmaTokenizer", "add_bos_token": True, "bos_token": "<bos>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    symbols = [AddedToken(symbol, normalized=False, special=False) for symbol in GEMMA_LIKE["user_defined_symbols"]]
    symbols += [AddedToken("<start_of_turn>", normalized=False, special=True)]
    names = {"pad_token": "<unk>", "mask_token": "<unk>", "additional_special_tokens": symbols}
    judge = tokenizer_of_class("GemmaTokenizer", tmp_path, config | names)
    parts = ["<table>", "\n\n", "<start_of_turn>", "<bos>", "<eos>"]
    assert_same_as_transformers(tool, tmp_path, judge, texts(7, parts))
    assert_same_as_transformers(tool, tmp_path, judge, texts(8, parts * 3), "--parse-special")


def test_a_text_cannot_spell_a_special_token_that_the_model_finds_by_itself(tool: Path, tmp_path: Path) -> None:
    """As Gemma's <start_of_turn>, which its maker defined as a piece for users. tokenizer.json has no such pieces."""
    symbols = [*GEMMA_LIKE["user_defined_symbols"], "<start_of_turn>"]
    train(tmp_path, **(GEMMA_LIKE | {"user_defined_symbols": symbols, "control_symbols": []}))
    model = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    id_of_turn = model.piece_to_id("<start_of_turn>")
    flags = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False, "special": True}
    config = {"tokenizer_class": "GemmaTokenizer", "bos_token": "<bos>",
              "added_tokens_decoder": {str(id_of_turn): {"content": "<start_of_turn>"} | flags}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (refused, table) = tokenize(tool, tmp_path, ["é <start_of_turn>user", "<table>\U0001F600 <unk>"])
    assert refused["error"].startswith('text, byte 3: spells the special token "<start_of_turn>"'), refused
    assert table["ids"] == model.encode("<table>\U0001F600 <unk>")
    (parsed,) = tokenize(tool, tmp_path, ["é <start_of_turn>user"], "--parse-special")
    assert parsed["ids"] == model.encode("é <start_of_turn>user")


@pytest.mark.parametrize("post_processor", ["none", "byte level", "template"])
def test_tokenizer_json_beside_a_model_alone_says_what_goes_before_a_prompt(tool: Path, tmp_path: Path, post_processor: str) -> None:
    """Not add_bos_token, which transformers 5 does not heed then, nor the class."""
    train(tmp_path, **LLAMA_LIKE)
    scratch = tokenizer_of_class("LlamaTokenizer", tmp_path, {})
    scratch.save_pretrained(str(tmp_path))
    file = json.loads((tmp_path / "tokenizer.json").read_text())
    text = {"Sequence": {"id": "A", "type_id": 0}}
    special_tokens = {"</s>": {"id": "</s>", "ids": [2], "tokens": ["</s>"]}}
    start = [{"SpecialToken": {"id": "</s>", "type_id": 0}}, text]
    template = {"type": "TemplateProcessing", "single": start, "pair": [*start, text], "special_tokens": special_tokens}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    file["post_processor"] = {"none": None, "byte level": byte_level, "template": template}[post_processor]
    (tmp_path / "tokenizer.json").write_text(json.dumps(file))
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    for name in ("LlamaTokenizer", "PreTrainedTokenizerFast"):
        for add in (True, False):
            config = {"tokenizer_class": name, "add_bos_token": add, "bos_token": "<s>", "legacy": False}
            (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
            judge = read_by_transformers(tmp_path)
            (answer,) = tokenize(tool, tmp_path, [""], "--prompt")
            assert answer["ids"] == judge("").input_ids == [2] * (post_processor == "template"), config


@pytest.mark.parametrize("kind", ["bpe without space", "bpe", "unigram", "unigram with bytes"])
def test_models_without_a_class_of_their_own_give_sentencepieces_ids(tool: Path, tmp_path: Path, kind: str) -> None:
    options = {
        "bpe without space": GEMMA_LIKE,
        "bpe": LLAMA_LIKE,
        "unigram": {"model_type": "unigram", "vocab_size": 400},
        "unigram with bytes": {"model_type": "unigram", "byte_fallback": True, "vocab_size": 600},
    }[kind]
    train(tmp_path, **options)
    gemma = kind == "bpe without space"
    if gemma:
        (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "GemmaTokenizer", "bos_token": "<bos>"}')
    judge = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    all_texts = texts(3, ["<table>", "\n\n", "<start_of_turn>"])
    for text, answer in zip(all_texts, tokenize(tool, tmp_path, all_texts, "--prompt")):
        assert answer["ids"] == [2] * gemma + judge.encode(text), (text, answer)
        assert_covered(text, answer["ranges"])


def test_capitals_are_made_small_where_the_configuration_says_so(tool: Path, tmp_path: Path) -> None:
    """As rinna's models want it, whose tokenizer_config.json has do_lower_case."""
    train(tmp_path, model_type="unigram", vocab_size=400)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "T5Tokenizer", "do_lower_case": true}')
    judge = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    all_texts = texts(4, ["TOWER", "ΣΑΣ", "İ", "ẞ", "Ǆ"])
    all_texts = [text for text in all_texts if not any(point >= "\U00010000" for point in text)]
    for text, answer in zip(all_texts, tokenize(tool, tmp_path, all_texts)):
        assert answer["ids"] == judge.encode(text.lower()), (text, answer)
        assert_covered(text, answer["ranges"])


def test_t5s_class_gives_the_ids_of_transformers_but_for_the_token_behind(tool: Path, tmp_path: Path, shared: Path) -> None:
    folder = shared / "tokenizers/hf-rinna-japanese-gpt2-dir"
    judge = read_by_transformers(folder)
    words = ["これは", "日本", "の", "東京", "、", "です", "カタカナ", "ｶﾀｶﾅ", "①", "。"]
    generator = random.Random(5)
    all_texts = [generator.choice(["", " "]).join(generator.choices(words, k=6)) for _ in range(300)]
    for text, answer in zip(all_texts, tokenize(tool, folder, all_texts, "--prompt")):
        assert answer["ids"] == judge(text).input_ids[:-1], (text, answer)


def test_a_model_that_names_no_class_begins_as_its_type_does(tool: Path, shared: Path) -> None:
    """Trained with Llama's code: <s> before each text, and the model's own space."""
    folder = shared / "models/stories260K-hf"
    judge = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    all_texts = texts(6)
    for text, answer in zip(all_texts, tokenize(tool, folder, all_texts, "--prompt")):
        assert answer["ids"] == [1, *judge.encode(text)], text
