"""What the tests of the tokeniser share: the tool that is judged, texts that are hard to split, other tokenisers."""

from __future__ import annotations

import inspect
import json
import os
import random
import struct
import sysconfig
from pathlib import Path
from typing import Any, Callable, Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from zygote import RUNNER

END_OF_TEXT = "<|endoftext|>"
CODE_POINTS = [point for point in range(0x110000) if not 0xD800 <= point < 0xE000]


def tokenize(tool: Path, folder: Path, texts: Iterable[str | bytes], *options: str) -> list[dict[str, Any]]:
    encoded = [text if isinstance(text, bytes) else text.encode() for text in texts]
    message = b"".join(struct.pack("<I", len(text)) + text for text in encoded)
    done = RUNNER.run([tool, folder, *options], env=os.environ, input=message, timeout=300)
    assert done.returncode == 0 and not done.stderr, done.stderr.decode(errors="replace")
    answers = [json.loads(line) for line in done.stdout.split(b"\n") if line]
    assert len(answers) == len(encoded)
    return answers


def byte_level_tokenizer(vocab: dict[str, int], merges: list[tuple[str, str]]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def read_folder(folder: Path) -> Tokenizer:
    return byte_level_tokenizer(*models.BPE.read_file(str(folder / "vocab.json"), str(folder / "merges.txt")))


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


def assert_ranges(text: str, ranges: list[list[int]], spaces: str = "") -> None:
    """Inside the text, in order, with nothing but white space (and `spaces`) left out, which a pattern may drop."""
    encoded, at = text.encode(), 0

    def is_left_out(part: bytes) -> bool:
        return all(character.isspace() or character in spaces for character in part.decode())

    for begin, end in ranges:
        assert 0 <= begin <= end <= len(encoded), (text, ranges)
        assert begin <= at or is_left_out(encoded[at:begin]), (text, ranges)
        at = max(at, end)
    assert is_left_out(encoded[at:]), (text, ranges)
    assert [begin for begin, _ in ranges] == sorted(begin for begin, _ in ranges), (text, ranges)


def assert_same(
    tool: Path,
    folder: Path,
    texts: list[str],
    expected: list[list[int]],
    *options: str,
    check: Callable[[str, list[list[int]]], None] = assert_ranges,
) -> None:
    """Each text has the ids that another tokeniser gave it, and ranges that pass the check."""
    for text, answer, ids in zip(texts, tokenize(tool, folder, texts, *options), expected, strict=True):
        assert answer.get("ids") == ids, (text, answer, ids)
        check(text, answer["ranges"])


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
