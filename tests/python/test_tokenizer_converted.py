"""tokenizer.json files that were converted from SentencePiece BPE, as Llama 2, Mistral and Gemma have them: the ids and
offsets that Hugging Face's tokenizers gives for the file, or transformers for the folder. The vocabularies are trained
here, small, and those of ../shared; the rules around them are those of the real files."""

from __future__ import annotations

import functools
import io
import json
import random
import shutil
from pathlib import Path
from typing import Any, Callable

import pytest
import sentencepiece
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from reference_tracer import encode, load_tokenizer, prefix_ids, token_bytes
from tokenizing import CODE_POINTS, python_sources, tokenize

TEXT = """The tower stands in the middle of the town, and the town stands at the mouth of the river.
She plays the violin;  he plays the piano. In 1998 there were 12,345 visitors.\n\n\tfor i in range(7):\n\t\tprint(i)
Le château près de la forêt a été bâti à côté de l'église. El niño comió una manzana.
Река течёт через город. 川は町を流れて、海に入る。彼女はバイオリンを弾く。 नदी
"""
BYTES = {f"<0x{byte:02X}>": byte for byte in range(256)}
Vocabulary = tuple[dict[str, int], list[tuple[str, str]]]


def corpus() -> list[str]:
    return (TEXT * 3).splitlines() + python_sources(2)[0].splitlines()


@functools.cache
def from_model(file: Path | bytes, *, by_score: bool) -> Vocabulary:
    """All pairs of pieces that make a piece: by the pieces' scores, as the makers' files have them, or by their ids."""
    options = {"model_proto": file} if isinstance(file, bytes) else {"model_file": str(file)}
    model = sentencepiece.SentencePieceProcessor(**options)
    pieces = [model.id_to_piece(i) for i in range(model.get_piece_size())]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    merges = []
    for i, piece in enumerate(pieces):
        rank = -model.get_score(i) if by_score else i
        pairs = [(piece[:at], piece[at:]) for at in range(1, len(piece))]
        merges += [(rank, vocab[a], vocab[b], a, b) for a, b in pairs if a in vocab and b in vocab]
    return vocab, [merge[3:] for merge in sorted(merges)]


@functools.cache
def sentencepiece_model(vocab_size: int) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus()), model_writer=model, vocab_size=vocab_size, model_type="bpe", byte_fallback=True,
        split_digits=True, normalization_rule_name="identity", remove_extra_whitespaces=False, character_coverage=0.995,
        unk_id=0, bos_id=1, eos_id=2, allow_whitespace_only_pieces=True, hard_vocab_limit=False, minloglevel=2,
    )
    return model.getvalue()


@functools.cache
def trained_by_sentencepiece(by_score: bool) -> Vocabulary:
    return from_model(sentencepiece_model(700), by_score=by_score)


@functools.cache
def trained_by_tokenizers() -> Vocabulary:
    """Merges over words' borders, and over runs of spaces."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    special = ["<unk>", "<s>", "</s>", *BYTES]
    tokenizer.train_from_iterator(
        corpus(), trainers.BpeTrainer(vocab_size=900, min_frequency=2, special_tokens=special, limit_alphabet=90, max_token_length=12, show_progress=False)
    )
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [tuple(merge) for merge in model["merges"]]


def odd(seed: int) -> Vocabulary:
    """Merges out of order, several that make one token, pairs listed twice, tokens that no merge makes, names of bytes
    and special tokens that merges make, some characters without a token."""
    generator = random.Random(seed)
    tokens = [*"▁abé<0x41>s/"]
    merges: list[tuple[str, str]] = []
    for left, right in [("<", "0"), ("<0", "x"), ("<0x", "4"), ("<0x4", "1"), ("<0x41", ">"), ("<", "s"), ("<s", ">")]:
        merges.append((left, right))
        tokens.append(left + right)
    for _ in range(generator.randint(1, 60)):
        left, right = generator.choice(tokens), generator.choice(tokens)
        if len(left + right) <= 20 and "<0x41>" not in (left, right):
            merges.append((left, right))
            tokens += [left + right] if left + right not in tokens else []
    generator.shuffle(merges)
    merges += merges[:2]
    return {token: i for i, token in enumerate(dict.fromkeys(["<unk>", "<s>", "</s>", *BYTES, *tokens]))}, merges


VOCABULARIES: dict[str, Callable[[], Vocabulary]] = {
    "sentencepiece, by score": lambda: trained_by_sentencepiece(True),
    "sentencepiece, by id": lambda: trained_by_sentencepiece(False),
    "tokenizers": trained_by_tokenizers,
}
SHARED = {"Llama 2's": "tokenizers/llama2-tokenizer.model", "stories260K's": "models/stories260K-hf/tokenizer.model"}


@pytest.fixture
def vocabulary_of(request: Any) -> Callable[[str], Vocabulary]:
    def find(name: str) -> Vocabulary:
        if name not in SHARED:
            return VOCABULARIES[name]()
        return from_model(request.getfixturevalue("shared") / SHARED[name], by_score=True)

    return find


LAYOUTS = ["prepended", "replaced", "metaspace first", "metaspace always", "metaspace never", "gemma", "both"]
WORDS = ["metaspace first words", "metaspace always words", "metaspace never words", "metaspace always old"]


def special(content: str, **flags: bool) -> AddedToken:
    return AddedToken(content, **({"special": True, "normalized": False} | flags))


def plain(content: str, **flags: bool) -> AddedToken:
    return AddedToken(content, **({"special": False, "normalized": False} | flags))


USUAL = [special("<unk>"), special("<s>"), special("</s>")]
GEMMAS = [*USUAL, special("<start_of_turn>"), plain("<table>"), *(plain("\n" * n) for n in range(1, 9)), *(plain("▁" * n) for n in range(2, 9)), plain("\t\t")]
OTHERS = [special("<unk>"), special("<s>", normalized=True), special("</s>", rstrip=True), special("▁<PRE>", lstrip=True),
          plain("town s", normalized=True), plain("the▁r", normalized=True), plain("qq", lstrip=True, rstrip=True)]


def convert(vocabulary: Vocabulary, layout: str, added: list[AddedToken], **model: Any) -> Tokenizer:
    vocab, merges = vocabulary
    tokenizer = Tokenizer(models.BPE(**{"vocab": vocab, "merges": merges, "unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True} | model))
    replace = normalizers.Replace(" ", "▁")
    if layout in ("prepended", "both"):
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), replace])
    if layout in ("replaced", "gemma"):
        tokenizer.normalizer = replace
    if layout == "gemma":
        tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    if layout.startswith("metaspace"):
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", layout.split()[1], split=layout in WORDS)
    if layout == "both":
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace("▁", "always", split=False)])
    strip = [decoders.Strip(" ", 1, 0)] if layout not in ("gemma", "metaspace never", "metaspace never words") else []
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    tokenizer.add_tokens(added)
    return tokenizer


def write(folder: Path, tokenizer: Tokenizer, *, merges_as_text: bool = False, layout: str = "") -> Tokenizer:
    file = json.loads(tokenizer.to_str())
    if layout.endswith("old"):
        file["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "add_prefix_space": True, "str_rep": "▁"}
    if merges_as_text:
        file["model"]["merges"] = [" ".join(merge) for merge in file["model"]["merges"]]
    (folder / "tokenizer.json").write_text(json.dumps(file, ensure_ascii=False), encoding="utf-8")
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def texts(seed: int, parts: list[str] = [], count: int = 300) -> list[str]:
    generator = random.Random(seed)
    spaces = [" ", "  ", "   ", " " * 17, "\n", "\n\n\n", "\t", "\t\t", "\r\n", "\u00a0", "\u3000", "\u200b", "\x1c", "\0", "▁", "▁▁", " ▁"]
    hard = ["😀", "👩\u200d👧", "月", "e\u0301", "\u0301", "ﬁ", "नि", "\U0010ffff", "\ufffd", "<0x41>", "<s>", "</s>", "<unk>", "x=1;"]
    alphabet = [*TEXT.split(" "), *spaces, *hard, *parts]
    found = ["".join(generator.choices(alphabet, k=generator.randint(1, 9))) for _ in range(count)]
    found += [" ".join(generator.choices(alphabet, k=generator.randint(1, 9))) for _ in range(count)]
    found += ["".join(generator.choices([*spaces, "a", *parts], k=generator.randint(1, 8))) for _ in range(count)]
    found += ["".join(map(chr, generator.choices(CODE_POINTS, k=generator.randint(1, 12)))) for _ in range(count)]
    found += ["".join(generator.choices("ab é<0x41>s/", k=generator.randint(1, 40))) for _ in range(count)]
    return found + ["", " ", "  ", "a", " a", "a ", "▁", "▁a", "\n", "\0", TEXT, *TEXT.splitlines()]


def assert_same(tool: Path, folder: Path, tokenizer: Tokenizer, all_texts: list[str], *options: str) -> None:
    tokenizer.encode_special_tokens = "--parse-special" not in options
    answers = tokenize(tool, folder, all_texts, *options)
    added = {token.content.replace("▁", " ") for token in tokenizer.get_added_tokens_decoder().values()}
    for text, answer, encoding in zip(all_texts, answers, tokenizer.encode_batch(all_texts, add_special_tokens=False)):
        assert answer.get("ids") == encoding.ids, (text, answer, encoding.ids, encoding.tokens)
        # tokenizers calls an added token by its normalised spelling, which may begin with a space that the text has not.
        if not any(token[1:].replace("▁", " ") in added for token in encoding.tokens):
            assert answer["decoded"] == tokenizer.decode(encoding.ids, skip_special_tokens=False), (text, encoding.tokens)
        assert_ranges(text, answer["ranges"], encoding, added)


def assert_ranges(text: str, ranges: list[list[int]], encoding: Any, added: set[str]) -> None:
    """Those of tokenizers; only a space that was put before the text is no character's, where it is a token. And what
    the tokens are made of."""
    encoded = text.encode()
    at = [0]
    for character in text:
        at.append(at[-1] + len(character.encode()))
    covered = 0
    for (begin, end), offsets, token in zip(ranges, encoding.offsets, encoding.tokens, strict=True):
        expected = [at[offset] for offset in offsets]
        in_front = token == "▁" and begin == end == expected[0]
        assert [begin, end] == expected or in_front, (text, token, begin, end, expected)
        assert begin <= covered, (text, ranges, encoding.tokens)
        covered = max(covered, end)
        part = encoded[begin:end].decode()
        if token in BYTES and token != part:
            assert BYTES[token] in part.replace(" ", "▁").encode(), (text, token, part)
        elif token.replace("▁", " ") not in (marked := part.replace("▁", " "), " " + marked):
            assert part.replace("▁", " ").strip() in {name.strip() for name in added}, (text, token, part)
    assert covered == len(encoded), (text, ranges)


@pytest.mark.parametrize("layout", LAYOUTS + WORDS)
@pytest.mark.parametrize("name", [*VOCABULARIES, *SHARED])
def test_converted_vocabularies_give_the_ids_of_tokenizers(
    tool: Path, tmp_path: Path, vocabulary_of: Callable[[str], Vocabulary], name: str, layout: str
) -> None:
    added = GEMMAS if layout == "gemma" else USUAL
    tokenizer = write(tmp_path, convert(vocabulary_of(name), layout, added), merges_as_text=layout in ("replaced", "metaspace first"), layout=layout)
    parts = [token.content for token in added]
    assert_same(tool, tmp_path, tokenizer, texts(1, parts) + python_sources(3))
    assert_same(tool, tmp_path, tokenizer, texts(2, parts * 3, 100), "--parse-special")


@pytest.mark.parametrize("layout", LAYOUTS + WORDS)
def test_added_tokens_of_all_kinds_are_found_as_tokenizers_finds_them(tool: Path, tmp_path: Path, layout: str) -> None:
    tokenizer = write(tmp_path, convert(trained_by_tokenizers(), layout, OTHERS), layout=layout)
    parts = ["<s>", " <s>", "▁<s>", "</s> ", "▁<PRE>", " <PRE>", "town s", "town▁s", "the▁r", "the r", "qq", " qq "]
    assert_same(tool, tmp_path, tokenizer, texts(3, parts * 4))
    assert_same(tool, tmp_path, tokenizer, texts(4, parts * 4), "--parse-special")


@pytest.mark.parametrize("seed", range(14))
def test_vocabularies_with_odd_merges_give_the_same_ids(tool: Path, tmp_path: Path, seed: int) -> None:
    layout = LAYOUTS[seed % len(LAYOUTS)]
    tokenizer = write(tmp_path, convert(odd(seed), layout, USUAL), merges_as_text=seed % 2 == 0)
    assert_same(tool, tmp_path, tokenizer, texts(seed))
    assert_same(tool, tmp_path, tokenizer, texts(seed, ["<s>"] * 9, count=100), "--parse-special")


def test_every_code_point_is_split_as_tokenizers_splits_it(tool: Path, tmp_path: Path) -> None:
    tokenizer = write(tmp_path, convert(trained_by_tokenizers(), "prepended", USUAL))
    points = [p for p in CODE_POINTS if p < 0x3000 or p % 32 == 5]
    chunks = [points[at : at + 64] for at in range(0, len(points), 64)]
    assert_same(tool, tmp_path, tokenizer, ["\n.".join(f"a{chr(p)}b {chr(p)}{chr(p)}" for p in chunk) for chunk in chunks])


@pytest.mark.parametrize("unit", [" ", "a", "é", "日", "the ", "▁", "\n"])
def test_megabytes_of_one_character_are_split(tool: Path, tmp_path: Path, unit: str) -> None:
    tokenizer = write(tmp_path, convert(trained_by_tokenizers(), "metaspace first", USUAL))
    assert_same(tool, tmp_path, tokenizer, [unit * (200_000 // len(unit.encode()))])


def test_a_character_whose_bytes_have_no_tokens_is_refused_and_no_other(tool: Path, tmp_path: Path) -> None:
    """As Gemma's tab, which took the place of its byte."""
    vocab, merges = odd(1)
    vocab = {token: i for token, i in vocab.items() if token not in ("<0x62>", "<0xE6>", "<0x43>")}
    tokenizer = write(tmp_path, convert((vocab, merges), "prepended", USUAL))
    assert_same(tool, tmp_path, tokenizer, ["ab b", "Aé", "😀", ""])
    for text, character in {"a C": "C", "é日a": "日"}.items():
        (answer,) = tokenize(tool, tmp_path, [text])
        at = text.encode().index(character.encode())
        assert answer["error"].startswith(f'text, byte {at}: the character "{character}" has no token'), answer


# ----------------------------------------------------------------------------------------------------------------------
# Folders as transformers reads them


def assert_same_prompts(tool: Path, folder: Path, judge: Any, all_texts: list[str]) -> None:
    for options in ([], ["--parse-special"]):
        for text, answer in zip(all_texts, tokenize(tool, folder, all_texts, "--prompt", *options)):
            expected = judge(text, split_special_tokens=not options).input_ids
            assert answer.get("ids") == expected, (text, options, answer, expected, judge.convert_ids_to_tokens(expected))


def read_by_transformers(folder: Path) -> Any:
    return pytest.importorskip("transformers").AutoTokenizer.from_pretrained(str(folder))


@pytest.mark.parametrize("options", [{}, {"legacy": True}, {"add_prefix_space": False}, {"add_bos_token": True}], ids=str)
@pytest.mark.parametrize("kind", ["LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer"])
@pytest.mark.parametrize("name", ["sentencepiece, by score", "Llama 2's", "stories260K's"])
def test_what_transformers_saves_gives_its_ids(
    tool: Path, tmp_path: Path, vocabulary_of: Callable[[str], Vocabulary], name: str, kind: str, options: dict[str, bool]
) -> None:
    transformers = pytest.importorskip("transformers")
    vocab, merges = vocabulary_of(name)
    named = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<unk>"} if kind == "GemmaTokenizer" else {}
    judge = getattr(transformers, kind)(vocab=vocab, merges=merges, **options, **named)
    judge.save_pretrained(str(tmp_path))
    assert not (tmp_path / "tokenizer.model").exists()
    assert_same_prompts(tool, tmp_path, read_by_transformers(tmp_path), texts(5, ["<s>", "</s>", "<unk>"] * 3, 50))


@pytest.mark.parametrize("layout", ["prepended", "replaced", "metaspace first", "metaspace always", "metaspace never"])
@pytest.mark.parametrize("config", [
    {"tokenizer_class": "LlamaTokenizer"},
    {"tokenizer_class": "LlamaTokenizerFast", "legacy": True},
    {"tokenizer_class": "CodeLlamaTokenizer", "legacy": True, "prefix_token": None, "middle_token": None, "suffix_token": None, "eot_token": None, "fill_token": None},
    {"tokenizer_class": "LlamaTokenizer", "legacy": False, "add_prefix_space": False},
    {"tokenizer_class": "LlamaTokenizer", "model_type": "mistral", "bos_token": "<s>"},
    {"tokenizer_class": "TokenizersBackend", "add_prefix_space": True},
    {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>"},
    {"model_type": "llama"},
    {"model_type": "mistral"},
], ids=str)
def test_the_class_of_a_folder_goes_before_the_file_where_it_does_for_transformers(
    tool: Path, tmp_path: Path, config: dict[str, Any], layout: str
) -> None:
    (tmp_path / "tokenizer.model").write_bytes(sentencepiece_model(500))  # not read, where tokenizer.json is there
    tokenizer = convert(trained_by_sentencepiece(True), layout, OTHERS[:3])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])
    write(tmp_path, tokenizer)
    config = dict(config)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": config.pop("model_type", "llama")}))
    if config:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert_same_prompts(tool, tmp_path, read_by_transformers(tmp_path), texts(6, ["<s>", "</s>", " </s> "] * 3, 50))


@pytest.mark.parametrize("add", [True, False, None])
def test_code_llamas_class_puts_its_first_token_before_every_prompt(tool: Path, tmp_path: Path, add: bool | None) -> None:
    write(tmp_path, convert(trained_by_sentencepiece(True), "prepended", USUAL))  # without post-processor
    names = ("prefix_token", "middle_token", "suffix_token", "eot_token", "fill_token")
    config = {"tokenizer_class": "CodeLlamaTokenizer"} | dict.fromkeys(names) | ({} if add is None else {"add_bos_token": add})
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    judge = read_by_transformers(tmp_path)
    assert judge("town").input_ids[0] == 1
    assert_same_prompts(tool, tmp_path, judge, texts(7, count=10))


def test_a_traced_prompt_has_the_tokens_of_the_model_it_was_converted_from(
    tool: Path, tmp_path: Path, shared: Path, traced: Callable[..., dict[str, Any]]
) -> None:
    transformers = pytest.importorskip("transformers")
    source = shared / "models/stories260K-hf"
    shutil.copytree(source, tmp_path, dirs_exist_ok=True)
    (tmp_path / "tokenizer.model").unlink()
    vocab, merges = from_model(source / "tokenizer.model", by_score=True)
    tokenizer = transformers.LlamaTokenizer(vocab=vocab, merges=merges, add_bos_token=True)
    tokenizer.save_pretrained(str(tmp_path))
    options = ["--prompt", "Once upon a time, Lily 😀 saw a big dog", "--subject", "Lily 😀", "--samples", "1"]
    of_model, converted = (traced("--model", folder, *options) for folder in (source, tmp_path))
    reference = load_tokenizer(tmp_path)
    assert prefix_ids(tmp_path, reference) + encode(reference, options[1]) == converted["token_ids"]
    assert [token_bytes(reference, i).hex() for i in converted["token_ids"][2:]] == converted["token_bytes"][2:]
    for record in (of_model, converted):
        del record["model"], record["run"]  # the folder's name, and times
    assert converted == of_model
