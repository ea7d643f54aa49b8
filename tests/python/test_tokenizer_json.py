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

from tokenizing import CODE_POINTS, python_sources, tokenize

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
WORDS = "It's THEY'LL we'vE 1234567 café naïve Ǆenan ǅ ʰ ٣٤ Ⅷ 川は町 नदी \n\n  \r\n\t x=1; //** _a  'S 'ſ K ﬁ ß".split(" ")


def isolated(pattern: str) -> pre_tokenizers.PreTokenizer:
    split = pre_tokenizers.Split(Regex(pattern), "isolated", invert=False)
    return pre_tokenizers.Sequence([split, byte_level(regex=False)])


def byte_level(*, regex: bool, space: bool = False) -> pre_tokenizers.PreTokenizer:
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


def assert_same(tool: Path, folder: Path, tokenizer: Tokenizer, texts: list[str], *options: str) -> None:
    tokenizer.encode_special_tokens = "--parse-special" not in options
    answers = tokenize(tool, folder, texts, *options)
    expected = tokenizer.encode_batch(texts, add_special_tokens="--prompt" in options)
    prefix = answers[0]["ids"][: answers[0]["ranges"].count([0, 0])] if "--prompt" in options else []
    for text, answer, encoding in zip(texts, answers, expected):
        assert answer.get("ids") == encoding.ids, (text, answer, encoding.ids, encoding.tokens)
        assert_ranges(text, answer["ranges"][len(prefix) :])


def assert_ranges(text: str, ranges: list[list[int]]) -> None:
    """Inside the text, in order, with nothing but white space (which a pattern may drop) left out."""
    encoded, at = text.encode(), 0
    for begin, end in ranges:
        assert 0 <= begin <= end <= len(encoded), (text, ranges)
        assert begin <= at or not encoded[at:begin].decode().strip(), (text, ranges)
        at = max(at, end)
    assert not encoded[at:].decode().strip(), (text, ranges)
    assert [begin for begin, _ in ranges] == sorted(begin for begin, _ in ranges), (text, ranges)


@pytest.mark.parametrize("pattern", [LLAMA_3, QWEN_2, GPT_4, NEMO], ids=["llama 3", "qwen 2", "gpt-4", "nemo"])
def test_split_patterns_cut_as_oniguruma_does(tool: Path, tmp_path: Path, pattern: str) -> None:
    tokenizer = train(tmp_path, isolated(pattern))
    assert_same(tool, tmp_path, tokenizer, random_texts(1, ["'s", "'LL", "'ſ"]) + python_sources(4))


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
    assert_same(tool, tmp_path, tokenizer, in_chunks([f"a{chr(p)}B {chr(p)}" for p in telling_points(64)]))


@pytest.mark.parametrize("stages", ["no regex", "digits", "each digit", "space first", "removed", "matches only", "string"])
def test_stages_cut_as_tokenizers_does(tool: Path, tmp_path: Path, stages: str) -> None:
    def then(stage: Any, regex: bool = True) -> Any:
        return pre_tokenizers.Sequence([stage, byte_level(regex=regex)])

    pre_tokenizer = {
        "no regex": byte_level(regex=False),
        "digits": then(pre_tokenizers.Digits(individual_digits=False)),
        "each digit": then(pre_tokenizers.Digits(individual_digits=True)),
        "space first": byte_level(regex=True, space=True),
        "removed": then(pre_tokenizers.Split(Regex(r"\s+"), "removed"), regex=False),
        "matches only": then(pre_tokenizers.Split(Regex(r"[^\s]+|\s"), "removed", invert=True), regex=False),
        "string": then(pre_tokenizers.Split("='.", "isolated")),
    }[stages]
    added = [special("<|x|>"), plain("~~")]
    tokenizer = train(tmp_path, pre_tokenizer, added=added)
    texts = random_texts(2, ["='.", "=", ".", "<|x|>", "~~"], 1500)
    assert_same(tool, tmp_path, tokenizer, texts)
    assert_same(tool, tmp_path, tokenizer, texts[::3], "--parse-special")


def test_the_normaliser_is_that_of_tokenizers_for_every_code_point(tool: Path, tmp_path: Path) -> None:
    tokenizer = train(tmp_path, byte_level(regex=False), normalizer=normalizers.NFC())
    # Marks, and what is made of several characters: by itself, after a letter, between marks of other classes, taken apart.
    points = [p for p in CODE_POINTS if p % 128 == 5 or unicodedata.decomposition(chr(p)) or unicodedata.combining(chr(p))]
    texts = [f"a{chr(p)}\u0301{chr(p)}\u0334.{unicodedata.normalize('NFD', chr(p))}\u0323" for p in points]
    assert_same(tool, tmp_path, tokenizer, in_chunks(texts))


NEOX_ADDED = [special("<|endoftext|>"), special("<|padding|>"), *(plain(" " * n) for n in range(24, 1, -1)), plain("é!"), plain("é?", normalized=False)]


@pytest.mark.parametrize("options", [[], ["--parse-special"]], ids=["as text", "parsed"])
def test_added_tokens_beside_a_normaliser_are_found_as_tokenizers_finds_them(tool: Path, tmp_path: Path, options: list[str]) -> None:
    normalizer = normalizers.Sequence([normalizers.NFC()])
    tokenizer = train(tmp_path, byte_level(regex=True), normalizer=normalizer, added=NEOX_ADDED)
    parts = ["<|endoftext|>", "<|endof", "|>", "<|padding|>", " " * 5, " " * 30, "é!", "e\u0301!", "é?", "e\u0301?"]
    assert_same(tool, tmp_path, tokenizer, random_texts(3, parts * 4), *options)


def test_tokens_take_the_white_space_beside_them_where_they_say_so(tool: Path, tmp_path: Path) -> None:
    added = [special("<L>", lstrip=True), special("<R>", rstrip=True), plain("<B>", lstrip=True, rstrip=True, normalized=False)]
    tokenizer = train(tmp_path, isolated(QWEN_2), added=added)
    parts = ["<L>", "<R>", "<B>", " <L> ", "  <R>\n "]
    for options in ([], ["--parse-special"]):
        assert_same(tool, tmp_path, tokenizer, random_texts(4, parts * 6, 1500), *options)


def test_extra_tokens_of_gpt_j_do_not_disturb_its_text(tool: Path, tmp_path: Path) -> None:
    added = [special("<|endoftext|>"), *(plain(f"<|extratoken_{i}|>") for i in range(1, 144))]
    tokenizer = train(tmp_path, byte_level(regex=True), added=added)
    assert_same(tool, tmp_path, tokenizer, random_texts(5, ["<|extratoken_1|>", "<|extratoken_143|>", "<|extratoken_"] * 3, 800))


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
        assert_same(tool, tmp_path, tokenizer, random_texts(6, [], 600) + python_sources(3))


def test_the_template_says_what_goes_before_a_prompt(tool: Path, tmp_path: Path) -> None:
    tokenizer = train(tmp_path, isolated(LLAMA_3), added=[special("<|begin_of_text|>"), special("<|end|>")])
    bos = ("<|begin_of_text|>", tokenizer.token_to_id("<|begin_of_text|>"))
    template = processors.TemplateProcessing(single=f"{bos[0]} $A", pair=f"{bos[0]} $A {bos[0]} $B", special_tokens=[bos])
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    texts = ["Miles Davis plays the", "", "<|begin_of_text|>again", *random_texts(7, ["<|begin_of_text|>"], 100)]
    assert_same(tool, tmp_path, tokenizer, texts, "--prompt")
    assert_same(tool, tmp_path, tokenizer, texts, "--prompt", "--parse-special")
    assert_same(tool, tmp_path, tokenizer, texts)
    # Behind the text: left off.
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos[0]} $A <|end|>", special_tokens=[bos, ("<|end|>", tokenizer.token_to_id("<|end|>"))]
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    for text, answer in zip(texts, tokenize(tool, tmp_path, texts, "--prompt")):
        assert answer["ids"] == tokenizer.encode(text).ids[:-1] or "<|begin_of_text|>" in text, text


def test_ranges_are_those_of_the_text_before_it_was_normalised(tool: Path, tmp_path: Path) -> None:
    train(tmp_path, byte_level(regex=True), normalizer=normalizers.NFC())
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
