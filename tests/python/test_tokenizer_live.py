"""The tokeniser gives the ids of Hugging Face's tokenizers and of sentencepiece, on thousands of texts.

Runs on the committed fixture, and on the real tokenisers of ../shared (or $ROMETRACE_SHARED) where they are."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from tokenizers import AddedToken, Tokenizer, pre_tokenizers, trainers

from tokenizing import (
    END_OF_TEXT,
    assert_same_ids,
    byte_level_tokenizer,
    chunks_of_code_points,
    decoded_tokens,
    mixed_texts,
    python_sources,
    read_folder,
    tokenize,
    write_folder,
)

REPOSITORY = Path(__file__).resolve().parents[2]
FIXTURE = REPOSITORY / "tests/fixtures/bpe"
SHARED = Path(os.environ.get("ROMETRACE_SHARED", REPOSITORY.parent / "shared"))
BYTE_LEVEL_FOLDERS = ["tokenizers/gpt2", "models/gpt2-lyrics", "models/gpt2-horoscope"]
SENTENCEPIECE_MODELS = [
    "tokenizers/llama2-tokenizer.model",
    "tokenizers/rinna-japanese-gpt2.model",
    "tokenizers/hf-rinna-japanese-gpt2-dir/spiece.model",
    "models/stories260K-hf/tokenizer.model",
]


def shared(path: str) -> Path:
    if not (SHARED / path).exists():
        pytest.skip(f"{SHARED / path} is not there")
    return SHARED / path


def byte_level_folder(name: str) -> Path:
    return FIXTURE if name == "fixture" else shared(name)


@pytest.mark.parametrize("name", ["fixture", *BYTE_LEVEL_FOLDERS])
def test_ids_equal_those_of_tokenizers(tool: Path, name: str) -> None:
    folder = byte_level_folder(name)
    tokenizer = read_folder(folder)
    texts = mixed_texts(1, decoded_tokens(tokenizer)) + (python_sources(60) if name == "tokenizers/gpt2" else python_sources(20))
    assert_same_ids(tool, folder, tokenizer, texts)


def test_every_code_point_is_split_as_tokenizers_splits_it(tool: Path) -> None:
    assert_same_ids(tool, FIXTURE, read_folder(FIXTURE), chunks_of_code_points("a%1 %%"))


@pytest.mark.parametrize("name", BYTE_LEVEL_FOLDERS[1:])
def test_tokenizer_json_alone_gives_the_ids_that_tokenizers_reads_from_it(tool: Path, tmp_path: Path, name: str) -> None:
    shutil.copy(shared(name) / "tokenizer.json", tmp_path)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    special = [f"a{END_OF_TEXT}b", END_OF_TEXT * 3, f" {END_OF_TEXT} \n {END_OF_TEXT[:-1]}", f"it's  {END_OF_TEXT}  's"]
    texts = mixed_texts(2, decoded_tokens(tokenizer) + [END_OF_TEXT])[::3]
    assert_same_ids(tool, tmp_path, tokenizer, texts + special, "--parse-special")


def test_special_tokens_are_found_as_tokenizers_finds_them(tool: Path, tmp_path: Path) -> None:
    shutil.copytree(FIXTURE, tmp_path, dirs_exist_ok=True)
    added = ["<x>", "<x><y>", "><", "the river", "日 本", "<|end", " s"]
    named = {"pad_token": "<x>", "additional_special_tokens": ["><", "<|end"]}
    size = read_folder(FIXTURE).get_vocab_size()
    (tmp_path / "added_tokens.json").write_text(json.dumps({token: size + i for i, token in enumerate(added)}))
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(named))
    tokenizer = read_folder(FIXTURE)
    special = [END_OF_TEXT, "<x>", "><", "<|end"]
    tokenizer.add_tokens([AddedToken(token, special=token in special, normalized=token not in special) for token in [END_OF_TEXT, *added]])
    generator = random.Random(3)
    parts = [*added, END_OF_TEXT, "<", ">", "x", " ", "  ", "'s", "\n", "the", "日", "本", "|", "y>"]
    texts = ["".join(generator.choices(parts, k=generator.randint(1, 9))) for _ in range(4000)]
    assert_same_ids(tool, tmp_path, tokenizer, texts, "--parse-special")
    tokenizer.encode_special_tokens = True
    assert_same_ids(tool, tmp_path, tokenizer, texts)


@pytest.mark.parametrize("seed", range(30))
def test_vocabularies_with_odd_merges_give_the_same_ids(tool: Path, tmp_path: Path, seed: int) -> None:
    """Merges out of order, several that make one token, pairs listed twice, tokens that no merge makes."""
    generator = random.Random(seed)
    letters = generator.choice(["a", "ab", "abc", "abcd", "ab "])
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [letter.replace(" ", "Ġ") for letter in letters]
    merges: list[tuple[str, str]] = []
    for _ in range(generator.randint(1, 60)):
        left, right = generator.choice(tokens), generator.choice(tokens)
        if len(left + right) <= 40:
            merges.append((left, right))
            tokens += [left + right] if left + right not in tokens else []
    if seed % 3 == 1:
        generator.shuffle(merges)
    if seed % 3 == 2:
        every = [(t[:i], t[i:]) for t in tokens for i in range(1, len(t)) if t[:i] in tokens and t[i:] in tokens]
        merges = generator.sample(every, len(every) // 2) + merges[:1]
    vocab = {token: number for number, token in enumerate(dict.fromkeys(alphabet + tokens))}
    write_folder(tmp_path, vocab, merges)
    texts = ["".join(generator.choices(letters, k=generator.randint(0, 40))) for _ in range(1000)]
    assert_same_ids(tool, tmp_path, byte_level_tokenizer(vocab, merges), texts)


@pytest.mark.parametrize("size", [300, 400, 600])
def test_vocabularies_trained_on_little_text_give_the_same_ids(tool: Path, tmp_path: Path, size: int) -> None:
    tokenizer = byte_level_tokenizer({}, [])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, min_frequency=1, initial_alphabet=alphabet, show_progress=False)
    corpus = python_sources(3) + ["aaaa" * 9, "abab" * 9, "abcabcab" * 5, "-" * 77]
    tokenizer.train_from_iterator(corpus, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    write_folder(tmp_path, model["vocab"], [tuple(merge) for merge in model["merges"]])
    assert_same_ids(tool, tmp_path, tokenizer, mixed_texts(4, decoded_tokens(tokenizer))[::5] + corpus)


def assert_same_segmentation(processor: Any, found: list[int], expected: list[int], text: str) -> None:
    """Equal ids; or, where a unigram model has two best segmentations, another of the same pieces: which of them
    comes out depends on the rounding of a sum, and so on the version of sentencepiece."""
    if found != expected:
        assert not processor.is_byte(processor.piece_to_id("<0x41>")), (text, found, expected)
        assert len(found) == len(expected), (text, found, expected)
        scores = [sum(map(processor.get_score, ids)) for ids in (found, expected)]
        assert scores[0] == pytest.approx(scores[1], rel=1e-5), (text, found, expected)


@pytest.mark.parametrize("name", SENTENCEPIECE_MODELS)
def test_sentencepiece_models_give_sentencepieces_ids_and_ranges_inside_the_text(tool: Path, tmp_path: Path, name: str) -> None:
    shutil.copy(shared(name), tmp_path / "tokenizer.model")
    processor = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    pieces = [processor.id_to_piece(i).replace("▁", " ") for i in range(3, processor.get_piece_size())]
    texts = mixed_texts(5, [piece for piece in pieces if piece])[::4] + python_sources(4)
    texts += chunks_of_code_points("%")[::3] + ["", " ", "  a  b ", "ﬃ①㌔ｶﾞe\u0301", "😀", "a😀b", "<s>a</s>", "<0x41>"]
    byte_pieces = {token for token in range(processor.get_piece_size()) if processor.is_byte(token)}
    for text, answer, expected in zip(texts, tokenize(tool, tmp_path, texts), processor.encode(texts)):
        assert_same_segmentation(processor, answer["ids"], expected, text)
        assert answer["decoded"] == processor.decode(answer["ids"]), text
        encoded = text.encode()
        for token, (begin, end) in zip(answer["ids"], answer["ranges"]):
            assert 0 <= begin <= end <= len(encoded), (text, answer["ranges"])
            encoded[begin:end].decode()  # whole characters
            if token in byte_pieces:
                assert begin < end, (text, answer["ranges"])
        begins = [begin for begin, _ in answer["ranges"]]
        assert begins == sorted(begins), (text, begins)


def test_text_that_is_not_utf8_is_refused_by_the_byte_that_breaks_it(tool: Path) -> None:
    generator = random.Random(6)
    interesting = bytes.fromhex("417f808f909fa0bfc0c1c2dfe0e1ecedeeeff0f1f3f4f5ff")
    texts = [bytes(generator.choices(interesting, k=generator.randint(1, 9))) for _ in range(5000)]
    for text, answer in zip(texts, tokenize(tool, FIXTURE, texts)):
        try:
            text.decode()
            assert answer["round_trip"]
        except UnicodeDecodeError as error:
            assert answer["error"].startswith(f"text, byte {error.start}: found 0x{text[error.start]:02X}"), (text, answer)


@pytest.mark.parametrize("unit", [" ", "a", "é", "ab", "!", "a b  "])
def test_megabytes_of_one_character_are_split(tool: Path, unit: str) -> None:
    text = unit * (1_000_000 // len(unit.encode()))
    assert_same_ids(tool, FIXTURE, read_folder(FIXTURE), [text])
