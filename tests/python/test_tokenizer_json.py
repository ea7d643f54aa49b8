"""Byte-level tokenizer.json files as GPT-NeoX, Llama 3, Qwen 2, GPT-4 and Mistral NeMo have them: ids as Hugging Face's
tokenizers gives them, ranges inside the original text. The vocabularies are trained here, small; patterns, normalisers
and added tokens are those of the real files."""

from __future__ import annotations

import json
import os
import random
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from tokenizing import CODE_POINTS, assert_same, python_sources, tokenize

LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_2 = LLAMA_3.replace("{1,3}", "")
GPT_4 = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
NEMO = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BLOOM = r" ?[^(\s|[.,!?…。，、।۔،])]+"
WORDS = "It's THEY'LL we'vE 1234567 café naïve Ǆenan ǅ ʰ ٣٤ Ⅷ 川は町 नदी \n\n  \r\n\t x=1; //** _a  'S 'ſ K ﬁ ß".split(" ")


def isolated(pattern: str) -> pre_tokenizers.PreTokenizer:
    split = pre_tokenizers.Split(Regex(pattern), "isolated", invert=False)
    return pre_tokenizers.Sequence([split, byte_level_stage(regex=False)])


def byte_level_stage(*, regex: bool, space: bool = False) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=space, trim_offsets=False, use_regex=regex)


def special(content: str, **flags: bool) -> AddedToken:
    return AddedToken(content, **({"special": True, "normalized": False} | flags))


def plain(content: str, **flags: bool) -> AddedToken:
    return AddedToken(content, **({"special": False, "normalized": True} | flags))


def train(tmp_path: Path, pre_tokenizer: Any, *, normalizer: Any = None, added: list[AddedToken] = [], **model: Any) -> Tokenizer:
    """A tokenizer.json in `tmp_path`, and what tokenizers reads from it."""
    tokenizer = Tokenizer(models.BPE(**model))
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=900, min_frequency=1, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(python_sources(3) + WORDS * 3, trainer)
    tokenizer.add_tokens(added)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return Tokenizer.from_file(str(tmp_path / "tokenizer.json"))


def random_texts(seed: int, parts: list[str], count: int = 2500) -> list[str]:
    generator = random.Random(seed)
    marks = ["\u0301", "\u0323", "\u0307", "\u1100", "\u1161", "\u11a8", "\u0344", "\u212b", "\u0958", "\u1e9b\u0323", "q"]
    spaces = [" ", "  ", "    ", "\n", "\r\n", "\t", "\u00a0", "\u3000", "\u180e", "\u200b", "\u2028", "\x1c", "\x85", "\0"]
    alphabet = [*WORDS, *marks, *spaces, *parts, *"aAeEzZ019'-", "😀", "👩\u200d👧", "\U0001E4D0", "\U00010D40"]
    texts = ["".join(generator.choices(alphabet, k=generator.randint(1, 12))) for _ in range(count)]
    texts += ["".join(generator.choices(marks + ["a", "e", " "], k=generator.randint(1, 8))) for _ in range(count // 4)]
    texts += ["".join(map(chr, generator.choices(CODE_POINTS, k=generator.randint(1, 20)))) for _ in range(count // 4)]
    return texts + ["", " ", "a", "\n"]


def assert_same_as_tokenizers(tool: Path, folder: Path, tokenizer: Tokenizer, texts: list[str], *options: str) -> None:
    tokenizer.encode_special_tokens = "--parse-special" not in options
    encodings = tokenizer.encode_batch(texts, add_special_tokens="--prompt" in options)
    assert_same(tool, folder, texts, [encoding.ids for encoding in encodings], *options)


@pytest.mark.parametrize("pattern", [LLAMA_3, QWEN_2, GPT_4, NEMO, BLOOM], ids=["llama 3", "qwen 2", "gpt-4", "nemo", "bloom"])
def test_split_patterns_cut_as_oniguruma_does(tool: Path, tmp_path: Path, pattern: str) -> None:
    tokenizer = train(tmp_path, isolated(pattern))
    assert_same_as_tokenizers(tool, tmp_path, tokenizer, random_texts(1, ["'s", "'LL", "'ſ"]) + python_sources(4))


def telling_points(of_many: int) -> list[int]:
    """Code points of all kinds: of the letters without case and of the unassigned ones of far planes one in `of_many`
    (ROMETRACE_EXHAUSTIVE=1: all)."""
    if os.environ.get("ROMETRACE_EXHAUSTIVE") == "1":
        return CODE_POINTS
    return [p for p in CODE_POINTS if p % of_many == 3 or (p < 0x1FC00 and unicodedata.category(chr(p)) not in ("Lo", "Co"))]


def in_chunks(texts: list[str]) -> list[str]:
    return ["\n.".join(texts[begin : begin + 64]) for begin in range(0, len(texts), 64)]


def test_every_code_point_is_cut_as_oniguruma_cuts_it(tool: Path, tmp_path: Path) -> None:
    tokenizer = train(tmp_path, isolated(NEMO))
    assert_same_as_tokenizers(tool, tmp_path, tokenizer, in_chunks([f"a{chr(p)}B {chr(p)}" for p in telling_points(64)]))


@pytest.mark.parametrize("stages", ["no regex", "digits", "each digit", "space first", "removed", "matches only", "string"])
def test_stages_cut_as_tokenizers_does(tool: Path, tmp_path: Path, stages: str) -> None:
    def then(stage: Any, regex: bool = True) -> Any:
        return pre_tokenizers.Sequence([stage, byte_level_stage(regex=regex)])

    pre_tokenizer = {
        "no regex": byte_level_stage(regex=False),
        "digits": then(pre_tokenizers.Digits(individual_digits=False)),
        "each digit": then(pre_tokenizers.Digits(individual_digits=True)),
        "space first": byte_level_stage(regex=True, space=True),
        "removed": then(pre_tokenizers.Split(Regex(r"\s+"), "removed"), regex=False),
        "matches only": then(pre_tokenizers.Split(Regex(r"[^\s]+|\s"), "removed", invert=True), regex=False),
        "string": then(pre_tokenizers.Split("='.", "isolated")),
    }[stages]
    added = [special("<|x|>"), plain("~~")]
    tokenizer = train(tmp_path, pre_tokenizer, added=added)
    texts = random_texts(2, ["='.", "=", ".", "<|x|>", "~~"], 1500)
    assert_same_as_tokenizers(tool, tmp_path, tokenizer, texts)
    assert_same_as_tokenizers(tool, tmp_path, tokenizer, texts[::3], "--parse-special")


def test_the_normaliser_is_that_of_tokenizers_for_every_code_point(tool: Path, tmp_path: Path) -> None:
    tokenizer = train(tmp_path, byte_level_stage(regex=False), normalizer=normalizers.NFC())
    # Marks, and what is made of several characters: by itself, after a letter, between marks of other classes, taken apart.
    points = [p for p in CODE_POINTS if p % 128 == 5 or unicodedata.decomposition(chr(p)) or unicodedata.combining(chr(p))]
    texts = [f"a{chr(p)}\u0301{chr(p)}\u0334.{unicodedata.normalize('NFD', chr(p))}\u0323" for p in points]
    assert_same_as_tokenizers(tool, tmp_path, tokenizer, in_chunks(texts))


NEOX_ADDED = [special("<|endoftext|>"), special("<|padding|>"), *(plain(" " * n) for n in range(24, 1, -1)), plain("é!"), plain("é?", normalized=False)]


@pytest.mark.parametrize("options", [[], ["--parse-special"]], ids=["as text", "parsed"])
def test_added_tokens_beside_a_normaliser_are_found_as_tokenizers_finds_them(tool: Path, tmp_path: Path, options: list[str]) -> None:
    normalizer = normalizers.Sequence([normalizers.NFC()])
    tokenizer = train(tmp_path, byte_level_stage(regex=True), normalizer=normalizer, added=NEOX_ADDED)
    parts = ["<|endoftext|>", "<|endof", "|>", "<|padding|>", " " * 5, " " * 30, "é!", "e\u0301!", "é?", "e\u0301?"]
    assert_same_as_tokenizers(tool, tmp_path, tokenizer, random_texts(3, parts * 4), *options)


def test_tokens_take_the_white_space_beside_them_where_they_say_so(tool: Path, tmp_path: Path) -> None:
    added = [special("<L>", lstrip=True), special("<R>", rstrip=True), plain("<B>", lstrip=True, rstrip=True, normalized=False)]
    tokenizer = train(tmp_path, isolated(QWEN_2), added=added)
    parts = ["<L>", "<R>", "<B>", " <L> ", "  <R>\n "]
    for options in ([], ["--parse-special"]):
        assert_same_as_tokenizers(tool, tmp_path, tokenizer, random_texts(4, parts * 6, 1500), *options)


def test_extra_tokens_of_gpt_j_do_not_disturb_its_text(tool: Path, tmp_path: Path) -> None:
    added = [special("<|endoftext|>"), *(plain(f"<|extratoken_{i}|>") for i in range(1, 144))]
    tokenizer = train(tmp_path, byte_level_stage(regex=True), added=added)
    assert_same_as_tokenizers(tool, tmp_path, tokenizer, random_texts(5, ["<|extratoken_1|>", "<|extratoken_143|>", "<|extratoken_"] * 3, 800))


def test_a_part_that_is_a_token_needs_no_merges_where_the_file_says_so(tool: Path, tmp_path: Path) -> None:
    train(tmp_path, isolated(LLAMA_3))
    file = json.loads((tmp_path / "tokenizer.json").read_text())
    generator = random.Random(6)
    merges = file["model"]["merges"]
    file["model"]["merges"] = generator.sample(merges, len(merges) // 2)
    for ignore in (False, True):
        file["model"]["ignore_merges"] = ignore
        (tmp_path / "tokenizer.json").write_text(json.dumps(file))
        tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
        assert_same_as_tokenizers(tool, tmp_path, tokenizer, random_texts(6, [], 600) + python_sources(3))


def test_the_template_says_what_goes_before_a_prompt(tool: Path, tmp_path: Path) -> None:
    tokenizer = train(tmp_path, isolated(LLAMA_3), added=[special("<|begin_of_text|>"), special("<|end|>")])
    bos = ("<|begin_of_text|>", tokenizer.token_to_id("<|begin_of_text|>"))
    template = processors.TemplateProcessing(single=f"{bos[0]} $A", pair=f"{bos[0]} $A {bos[0]} $B", special_tokens=[bos])
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    texts = ["Miles Davis plays the", "", "<|begin_of_text|>again", *random_texts(7, ["<|begin_of_text|>"], 100)]
    assert_same_as_tokenizers(tool, tmp_path, tokenizer, texts, "--prompt")
    assert_same_as_tokenizers(tool, tmp_path, tokenizer, texts, "--prompt", "--parse-special")
    assert_same_as_tokenizers(tool, tmp_path, tokenizer, texts)
    # Behind the text: left off.
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos[0]} $A <|end|>", special_tokens=[bos, ("<|end|>", tokenizer.token_to_id("<|end|>"))]
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    for text, answer in zip(texts, tokenize(tool, tmp_path, texts, "--prompt")):
        assert answer["ids"] == tokenizer.encode(text).ids[:-1] or "<|begin_of_text|>" in text, text


def test_ranges_are_those_of_the_text_before_it_was_normalised(tool: Path, tmp_path: Path) -> None:
    train(tmp_path, byte_level_stage(regex=True), normalizer=normalizers.NFC())
    text = "a cafe\u0301 \u1112\u1161\u11ab o"
    (answer,) = tokenize(tool, tmp_path, [text])
    encoded = text.encode()
    pieces = [encoded[begin:end].decode() for begin, end in answer["ranges"]]
    assert any(piece.endswith("e\u0301") for piece in pieces), pieces
    assert any("\u1112\u1161\u11ab" in piece for piece in pieces), pieces
    assert answer["decoded"] == unicodedata.normalize("NFC", text)


@pytest.mark.parametrize("config", [{"add_bos_token": True}, {"add_bos_token": True, "bos_token": "a"}, {"add_prefix_space": True}, {}])
def test_gpt_2s_files_begin_as_transformers_begins_them(tool: Path, tmp_path: Path, repository: Path, config: dict[str, Any]) -> None:
    """OPT's are such files, with a begin-of-text token."""
    transformers = pytest.importorskip("transformers")
    shutil.copytree(repository / "tests/fixtures/bpe", tmp_path, dirs_exist_ok=True)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer"} | config))
    (tmp_path / "config.json").write_text('{"model_type": "opt"}')
    judge = transformers.AutoTokenizer.from_pretrained(str(tmp_path))
    texts = random_texts(8, ["<|endoftext|>"] * 3, 300)
    for options in ([], ["--parse-special"]):
        for text, answer in zip(texts, tokenize(tool, tmp_path, texts, "--prompt", *options)):
            assert answer["ids"] == judge(text, split_special_tokens=not options).input_ids, text


def template(token: str, identifier: int) -> dict[str, Any]:
    """A post-processor that puts a token before the text."""
    parts = [{"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    pair = [*parts, {"Sequence": {"id": "B", "type_id": 1}}]
    special_tokens = {token: {"id": token, "ids": [identifier], "tokens": [token]}}
    return {"type": "TemplateProcessing", "single": parts, "pair": pair, "special_tokens": special_tokens}


def write_config(folder: Path, model_type: str, config: dict[str, Any]) -> Any:
    """The files beside a tokeniser, and what transformers reads then."""
    transformers = pytest.importorskip("transformers")
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    return transformers.AutoTokenizer.from_pretrained(str(folder))


def assert_same_as_transformers(tool: Path, folder: Path, judge: Any, texts: list[str], *options: str) -> None:
    split = "--parse-special" not in options
    expected = [judge(text, split_special_tokens=split).input_ids for text in texts]
    assert_same(tool, folder, texts, expected, "--prompt", *options)


CLASSES = [None, "GPT2Tokenizer", "PreTrainedTokenizerFast", "TokenizersBackend", "LlamaTokenizerFast", "GPTNeoXTokenizerFast"]


@pytest.mark.parametrize("post_processor", ["none", "byte level", "template"])
def test_tokenizer_json_alone_says_what_goes_before_a_prompt(tool: Path, tmp_path: Path, post_processor: str) -> None:
    """transformers 5 does not heed add_bos_token where there is a tokenizer.json, and GPT-NeoX's class no template."""
    tokenizer = train(tmp_path, byte_level_stage(regex=True), added=[special("<|endoftext|>"), special("<s>")])
    file = json.loads((tmp_path / "tokenizer.json").read_text())
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    start = template("<s>", tokenizer.token_to_id("<s>"))
    file["post_processor"] = {"none": None, "byte level": byte_level, "template": start}[post_processor]
    (tmp_path / "tokenizer.json").write_text(json.dumps(file))
    cases = [("gpt2", name, add) for name in CLASSES for add in (None, True, False)]
    for model_type, name, add in [*cases, ("opt", "GPT2Tokenizer", True), ("opt", None, True), ("gpt_neox", None, True)]:
        config = {"bos_token": "<s>", "tokenizer_class": name, "add_bos_token": add}
        config = {key: value for key, value in config.items() if value is not None}
        judge = write_config(tmp_path, model_type, config)
        assert_same_as_transformers(tool, tmp_path, judge, ["the river", ""])


@pytest.mark.parametrize("listed", [False, True], ids=["tokenizer.json", "and tokenizer_config.json"])
def test_named_tokens_keep_the_flags_that_they_were_added_with(tool: Path, tmp_path: Path, listed: bool) -> None:
    added = [special("<mask>", lstrip=True), plain("<x>"), plain("<pad>", rstrip=True), special("<y>", rstrip=True)]
    tokenizer = train(tmp_path, byte_level_stage(regex=True), added=[special("<|endoftext|>"), *added])
    config: dict[str, Any] = {"mask_token": "<mask>", "pad_token": "<pad>", "additional_special_tokens": ["<x>", "<y>"]}
    if listed:
        file = json.loads((tmp_path / "tokenizer.json").read_text())
        config["added_tokens_decoder"] = {str(token.pop("id")): token for token in file["added_tokens"]}
        config["added_tokens_decoder"][str(tokenizer.token_to_id("<x>"))]["lstrip"] = True
    texts = random_texts(9, ["<mask>", " <mask> ", "<x>", " <x>", "<pad>", "<pad> ", "<y>  "] * 5, 300)
    for name in ("PreTrainedTokenizerFast", "GPT2Tokenizer"):
        judge = write_config(tmp_path, "gpt2", config | {"tokenizer_class": name})
        for options in ([], ["--parse-special"]):
            assert_same_as_transformers(tool, tmp_path, judge, texts, *options)


@pytest.mark.parametrize("name", ["PreTrainedTokenizerFast", "TokenizersBackend", "LlamaTokenizerFast"])
@pytest.mark.parametrize("space", [True, False])
def test_classes_without_a_pre_tokeniser_of_their_own_take_the_files_first_space(
    tool: Path, tmp_path: Path, name: str, space: bool
) -> None:
    train(tmp_path, byte_level_stage(regex=True, space=space))
    judge = write_config(tmp_path, "gpt2", {"tokenizer_class": name, "add_prefix_space": not space})
    assert_same_as_transformers(tool, tmp_path, judge, ["the river", " the river", "", "It's"])


@pytest.mark.parametrize("kind", ["GPT2Tokenizer", "GPTNeoXTokenizer", None])
def test_the_files_own_splits_count_whatever_the_class(tool: Path, tmp_path: Path, kind: str | None) -> None:
    """SmolLM's digits, say: the classes of transformers 5.23 leave the file's stages out, but the models were trained
    with them."""
    stages = [pre_tokenizers.Digits(individual_digits=True), byte_level_stage(regex=True)]
    tokenizer = train(tmp_path, pre_tokenizers.Sequence(stages))
    judge = write_config(tmp_path, "gpt2", {"tokenizer_class": kind} if kind else {})
    assert judge("a\n\n1").input_ids != tokenizer.encode("a\n\n1").ids
    assert_same_as_tokenizers(tool, tmp_path, tokenizer, ["a\n\n1", "x  12", *random_texts(11, [], 100)])


def test_a_text_of_tiktokens_beside_tokenizer_json_is_let_be(tool: Path, tmp_path: Path) -> None:
    """Llama 3's folders have one, under the name of a SentencePiece model."""
    tokenizer = train(tmp_path, isolated(LLAMA_3))
    (tmp_path / "tokenizer.model").write_text("IQ== 0\nIg== 1\n")
    assert_same_as_tokenizers(tool, tmp_path, tokenizer, random_texts(10, [], 100))
