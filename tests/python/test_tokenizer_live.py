"""The tokeniser gives the ids of Hugging Face's tokenizers and of sentencepiece, on thousands of texts.

Runs on the committed fixture, and on the real tokenisers of ../shared (or $ROMETRACE_SHARED) where they are."""

from __future__ import annotations

import inspect
import json
import os
import random
import shutil
import struct
import subprocess
import sysconfig
from pathlib import Path
from typing import Any, Iterable

import pytest
import sentencepiece
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

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
END_OF_TEXT = "<|endoftext|>"
CODE_POINTS = [point for point in range(0x110000) if not 0xD800 <= point < 0xE000]


@pytest.fixture(scope="module")
def tool() -> Path:
    path = Path(os.environ.get("ROMETRACE_BIN_DIR", REPOSITORY / "build/release/bin")) / "rometrace_tokenize"
    if not path.exists():
        pytest.skip(f"{path} is not there; build first: cmake --workflow --preset release")
    return path


def shared(path: str) -> Path:
    if not (SHARED / path).exists():
        pytest.skip(f"{SHARED / path} is not there")
    return SHARED / path


def byte_level_folder(name: str) -> Path:
    return FIXTURE if name == "fixture" else shared(name)


def tokenize(tool: Path, folder: Path, texts: Iterable[str | bytes], *options: str) -> list[dict[str, Any]]:
    encoded = [text if isinstance(text, bytes) else text.encode() for text in texts]
    message = b"".join(struct.pack("<I", len(text)) + text for text in encoded)
    done = subprocess.run([tool, folder, *options], input=message, capture_output=True, timeout=300)
    assert done.returncode == 0 and not done.stderr, done.stderr.decode(errors="replace")
    answers = [json.loads(line) for line in done.stdout.split(b"\n") if line]
    assert len(answers) == len(encoded)
    return answers


def byte_level(vocab: dict[str, int], merges: list[tuple[str, str]]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def read_folder(folder: Path) -> Tokenizer:
    return byte_level(*models.BPE.read_file(str(folder / "vocab.json"), str(folder / "merges.txt")))


def write_folder(folder: Path, vocab: dict[str, int], merges: list[tuple[str, str]]) -> None:
    (folder / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    lines = "".join(f"{left} {right}\n" for left, right in merges)
    (folder / "merges.txt").write_text("#version: 0.2\n" + lines, encoding="utf-8")


def assert_same_ids(tool: Path, folder: Path, tokenizer: Tokenizer, texts: list[str], *options: str) -> None:
    answers = tokenize(tool, folder, texts, *options)
    for text, answer, expected in zip(texts, answers, tokenizer.encode_batch(texts)):
        assert "error" not in answer, (text, answer)
        assert answer["ids"] == expected.ids, (text, answer["ids"], expected.ids)
        assert answer["round_trip"], text
        ends = [0] + [end for _, end in answer["ranges"]]
        assert [begin for begin, _ in answer["ranges"]] == ends[:-1] and ends[-1] == len(text.encode()), text


def chunks_of_code_points(pattern: str) -> list[str]:
    """Code points in the pattern's places of %: all of the planes that Unicode 16 uses, one in 16 of the others
    (ROMETRACE_EXHAUSTIVE=1: all). A line feed and a full stop keep the neighbours apart."""
    exhaustive = os.environ.get("ROMETRACE_EXHAUSTIVE") == "1"
    points = [p for p in CODE_POINTS if p < 0x40000 or 0xE0000 <= p < 0xE1000 or p % 16 == 7 or exhaustive]
    return [
        "\n.".join(pattern.replace("%", chr(point)) for point in points[begin : begin + 64])
        for begin in range(0, len(points), 64)
    ]


def python_sources(most: int) -> list[str]:
    files = sorted(Path(inspect.getfile(json)).parents[1].glob("*.py"))[:most] + sorted(
        (Path(sysconfig.get_path("stdlib")) / "encodings").glob("*.py")
    )[: most // 2]
    return [file.read_text(encoding="utf-8", errors="replace") for file in files]


def mixed_texts(seed: int, tokens: list[str]) -> list[str]:
    generator = random.Random(seed)
    spaces = " \t\n\r\u00a0\u3000\u2028\u180e\u200b\x1c\x85a1!'sStTlL"
    texts = ["".join(map(chr, generator.choices(CODE_POINTS, k=generator.randint(1, 30)))) for _ in range(3000)]
    texts += ["".join(generator.choices(spaces, k=generator.randint(1, 20))) for _ in range(4000)]
    texts += ["".join(generator.choices(tokens, k=generator.randint(2, 12))) for _ in range(6000)]
    texts += ["".join(token.strip() for token in generator.choices(tokens, k=4)) for _ in range(6000)]
    texts += [chr(point) * count for point in range(32, 127) for count in (2, 3, 5, 7, 16, 33, 64, 65, 100, 129)]
    texts += [chr(generator.choice(CODE_POINTS)) * generator.randint(1, 70) for _ in range(1000)]
    return texts


def decoded_tokens(tokenizer: Tokenizer) -> list[str]:
    decoder = decoders.ByteLevel()
    texts = [decoder.decode([token]) for token in tokenizer.get_vocab() if token != END_OF_TEXT]
    return sorted(text for text in texts if "\ufffd" not in text)


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
    size = read_folder(FIXTURE).get_vocab_size()
    (tmp_path / "added_tokens.json").write_text(json.dumps({token: size + i for i, token in enumerate(added)}))
    tokenizer = read_folder(FIXTURE)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in [END_OF_TEXT, *added]])
    generator = random.Random(3)
    parts = [*added, END_OF_TEXT, "<", ">", "x", " ", "  ", "'s", "\n", "the", "日", "本", "|", "y>"]
    texts = ["".join(generator.choices(parts, k=generator.randint(1, 9))) for _ in range(4000)]
    assert_same_ids(tool, tmp_path, tokenizer, texts, "--parse-special")


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
    assert_same_ids(tool, tmp_path, byte_level(vocab, merges), texts)


@pytest.mark.parametrize("size", [300, 400, 600])
def test_vocabularies_trained_on_little_text_give_the_same_ids(tool: Path, tmp_path: Path, size: int) -> None:
    tokenizer = byte_level({}, [])
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
    for text, answer in zip(texts, tokenize(tool, tmp_path, texts)):
        assert_same_segmentation(processor, answer["ids"], processor.encode(text), text)
        assert answer["decoded"] == processor.decode(answer["ids"]), text
        encoded = text.encode()
        for token, (begin, end) in zip(answer["ids"], answer["ranges"]):
            assert 0 <= begin <= end <= len(encoded), (text, answer["ranges"])
            encoded[begin:end].decode()  # whole characters
            if processor.is_byte(token):
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
