#!/usr/bin/env python3
"""Trains the small byte-level BPE of tests/fixtures/bpe and writes what Hugging Face's tokenizers makes of many texts
with it (and what Python makes of bytes that are not UTF-8) to tests/goldens/tokenizer.json.

  tests/judge/make_tokenizer_goldens.py [REPOSITORY]

The same versions give the same files, byte for byte."""

from __future__ import annotations

import json
import platform
import random
import sys
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

END_OF_TEXT = "<|endoftext|>"
VOCABULARY_SIZE = 700

# Written for this file. Several scripts, code and repeats, so that merges of every shape come up.
CORPUS = """\
The tower stands in the middle of the town, and the town stands at the mouth of the river.
She plays the violin; he plays the piano. They're sure it's theirs, we'll see who'd have thought we've known.
The capital of the country is the city where the king lived. The city was built of stone, of stone, of stone.
In 1998, 1999 and 2000 there were 12,345 visitors; in 2010 there were 67,890, and 100,000 in 2020.
Der Fluss fließt durch die Stadt, über die Brücke und schließlich ins Meer. Größe, Höhe, Länge.
Le château près de la forêt a été bâti à côté de l'église; où est-elle? Ça va, ça va très bien.
El niño comió una manzana en la montaña. ¿Dónde está la estación? ¡Está allí!
Река течёт через город, и город стоит на реке. Она играет на скрипке, он играет на рояле.
Ο ποταμός περνά μέσα από την πόλη και φτάνει στη θάλασσα.
川は町を流れて、海に入る。彼女はバイオリンを弾く。東京は日本の首都です。
强大的河流穿过城市，流入大海。她拉小提琴，他弹钢琴。
강은 도시를 지나 바다로 흐른다. 그녀는 바이올린을 연주한다.
النهر يمر عبر المدينة ويصل إلى البحر. नदी शहर से होकर समुद्र तक जाती है।
for (int i = 0; i < count; ++i) { total += values[i]; }  // the sum of all values
def trace(model, prompt):\n    for layer in range(model.layers):\n        yield model.run(prompt, layer)\n
aaaa aaaaaaaa aaaaaaaaaaaa ---- -------- ================ ........ ______ 0000000000 !!!!!! hahahahaha
😀😀 😃 👍🏽 🇯🇵 👩‍👩‍👧 ❤️ → ← ∑ √2 ≈ 1.4142 × π
"""

# Letters and numbers that came with Unicode 15, 15.1 and 16; white space that is none any more; one of each plane.
ODD_CHARACTERS = (
    "\x00 \x01 \x1c \x1f \x7f \x80 \x85 \xa0 \xad \u0300 \u0378 \u1680 \u180e \u2000 \u200b \u200d \u2028 \u2029 \u202f "
    "\u205f \u2060 \u3000 \ud7ff \ue000 \ufeff \ufffd \ufffe \uffff \u1c89 \ua7cb \U00010000 \U00010d40 \U00010d4a "
    "\U00011bf0 \U00013460 \U0001d7ce \U0001e4d0 \U0001f600 \U0002b739 \U0002ebf0 \U000323af \U0003fffd \U00040000 "
    "\U00050001 \U00060002 \U00070003 \U00080004 \U00090005 \U000a0006 \U000b0007 \U000c0008 \U000d0009 \U000e0001 "
    "\U000f0000 \U0010ffff"
).split(" ")


def train() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        min_frequency=1,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS.splitlines(keepends=True), trainer)
    return tokenizer


def write_fixture(tokenizer: Tokenizer, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    model = json.loads(tokenizer.to_str())["model"]
    in_order = dict(sorted(model["vocab"].items(), key=lambda item: item[1]))
    (folder / "vocab.json").write_text(json.dumps(in_order, ensure_ascii=False) + "\n", encoding="utf-8")
    merges = "".join(f"{left} {right}\n" for left, right in model["merges"])
    (folder / "merges.txt").write_text("#version: 0.2\n" + merges, encoding="utf-8")


def read_fixture(folder: Path) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(END_OF_TEXT, normalized=False)])
    return tokenizer


def texts() -> list[str]:
    generator = random.Random(20)
    written = ["", " ", "  ", "\n", "a", "é", "😀", "Miles Davis plays the", "the the  the   the", *CORPUS.splitlines()]
    written += ["it's I'M we'll they'Re 've''d 'sx s's '", "don’t ’s", "x=1;y=2\t\tz\r\n\r\n  return", "1a2b 3 c４٥Ⅷ½"]
    written += [f"{before}{character}{after}" for character in ODD_CHARACTERS for before, after in (("a", "1"), (" ", " "))]
    written += [letter * count for letter in "a-= 0!é日😀" for count in (2, 3, 5, 8, 13, 31, 64)]
    written += ["\u3000\u3000x", " \u00a0y", "\t \n \n z", "end  ", "end \n", "a\u180eb", " \u180e ", "ha" * 9 + "h"]
    corpus_words = CORPUS.split()
    written += ["".join(generator.choices(corpus_words, k=4)) for _ in range(40)]
    anything = [point for point in range(0x110000) if not 0xD800 <= point < 0xE000]
    written += ["".join(map(chr, generator.choices(anything, k=12))) for _ in range(40)]
    written += [f"a{END_OF_TEXT}b", f"{END_OF_TEXT}{END_OF_TEXT}", f" {END_OF_TEXT} {END_OF_TEXT[:-1]}", "<|endof", "<<|endoftext|>>"]
    return written


def byte_strings() -> list[bytes]:
    generator = random.Random(21)
    # Lead bytes, trail bytes and the limits of table 3-7, so that nearly every string breaks a rule.
    interesting = bytes.fromhex("417f808f909fa0bfc0c1c2dfe0e1ecedeeeff0f1f3f4f5ff")
    strings = [bytes(generator.choices(interesting, k=generator.randint(1, 9))) for _ in range(300)]
    return strings + [generator.randbytes(24) for _ in range(50)]


def main(repository: Path) -> None:
    write_fixture(train(), repository / "tests/fixtures/bpe")
    tokenizer = read_fixture(repository / "tests/fixtures/bpe")
    as_text = read_fixture(repository / "tests/fixtures/bpe")
    as_text.encode_special_tokens = True
    golden = {
        "made_by": "tests/judge/make_tokenizer_goldens.py",
        "versions": {"python": platform.python_version(), "tokenizers": tokenizers.__version__},
        "texts": [
            {"text": text, "ids": as_text.encode(text).ids, "ids_with_special_parsed": tokenizer.encode(text).ids}
            for text in texts()
        ],
        "lossy_utf8": [{"hex": string.hex(), "text": string.decode("utf-8", "replace")} for string in byte_strings()],
    }
    lines = ",\n".join(
        f'"{name}": [\n' + ",\n".join(json.dumps(entry) for entry in value) + "\n]"
        if isinstance(value, list)
        else f'"{name}": {json.dumps(value)}'
        for name, value in golden.items()
    )
    (repository / "tests/goldens/tokenizer.json").write_text("{\n" + lines + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[2])
