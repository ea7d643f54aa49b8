"""The executable gives the numbers of a plain tracer over transformers, on trained models and random ones.

Both are run with the same command line; the judge is tests/judge/reference_tracer.py.
"""

from __future__ import annotations

import json
import shutil
import string
from pathlib import Path
from typing import Any, Callable

import pytest
import torch

from agreement import TOLERANCES, Live, Traced, assert_close, compare, flatten

LYRICS = "We are never ever getting back"
HOROSCOPE = "You may find that your love life"


LYRICS_CASES = (
    Live("the defaults", LYRICS, "never ever", ("--noise", "0.5")),
    Live("the subject first", LYRICS, "We are", ("--noise", "1", "--window", "2")),
    Live("the subject last", LYRICS, "getting back", ("--noise", "1", "--window", "3")),
    Live("the subject a single token", LYRICS, " getting", ("--noise", "1", "--window", "1")),
    Live("the subject part of a token", LYRICS, "ever", ("--noise", "1", "--window", "1")),
    Live("the subject the whole prompt", LYRICS, LYRICS, ("--noise", "0.3")),
    Live("the subject in characters split over tokens", "I love 東京 and", "京", ("--noise", "1", "--window", "2")),
    Live("a prompt of one token", "We", "We", ("--noise", "1", "--window", "2")),
    Live("spaces, lines and quotes", "I said\n\n  \"don't go\"  and", "don't go", ("--noise", "1")),
    Live("text that spells a special token", "Oh <|endoftext|> my", "<|endoftext|>", ("--noise", "1")),
    Live("--replace", LYRICS, "never ever", ("--noise", "0.5", "--replace", "--window", "2")),
    Live("uniform noise", LYRICS, "never ever", ("--noise", "u1.5", "--window", "2")),
    Live("uniform noise with --replace", LYRICS, "We are", ("--noise", "u0.3", "--replace")),
    Live("no noise", LYRICS, "never ever", ("--noise", "0", "--window", "2")),
    Live("a target", LYRICS, "never ever", ("--noise", "1", "--target", " up", "--window", "2")),
    Live("a single draw", LYRICS, "never ever", ("--noise", "1", "--samples", "1", "--window", "2")),
    Live("many draws", LYRICS, "never ever", ("--noise", "1", "--samples", "33", "--window", "2")),
    Live("another seed", LYRICS, "never ever", ("--noise", "1", "--seed", "4294967295", "--kinds", "state")),
    Live("one kind", LYRICS, "never ever", ("--noise", "1", "--kinds", "attn", "--window", "100")),
)

HOROSCOPE_CASES = (
    Live("the subject first", HOROSCOPE, "You may", ("--noise", "0.5", "--window", "2")),
    Live("the subject in the middle", HOROSCOPE, "that your", ("--noise", "u1", "--replace", "--window", "3")),
    Live("the subject last", HOROSCOPE, "love life", ("--noise", "1", "--samples", "1")),
)


def model_folder(shared: Path, name: str) -> Path:
    """A trained model beside the repository; skips if absent."""
    folder = shared / "models" / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    return folder


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("live", LYRICS_CASES, ids=lambda live: live.claim)
def test_lyrics_agrees(traced: Traced, shared: Path, live: Live, dtype: str) -> None:
    compare(traced, model_folder(shared, "gpt2-lyrics"), live, dtype)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("live", HOROSCOPE_CASES, ids=lambda live: live.claim)
def test_horoscope_agrees(traced: Traced, shared: Path, live: Live, dtype: str) -> None:
    compare(traced, model_folder(shared, "gpt2-horoscope"), live, dtype)


def test_a_prompt_that_fills_the_context_agrees(traced: Traced, shared: Path) -> None:
    live = Live("64 tokens", "oh " * 31 + "my love", "my love", ("--noise", "1", "--samples", "2", "--kinds", "state"))
    model = model_folder(shared, "gpt2-lyrics")
    compare(traced, model, live, "float32")


@pytest.mark.parametrize("rule", ["s3", "s", "s0.5"])
def test_sigma_of_a_facts_file_agrees(traced: Traced, shared: Path, rule: str) -> None:
    facts = shared / "facts/known_1000.json"
    live = Live("sigma", LYRICS, "never ever", ("--noise", rule, "--noise-facts", str(facts), "--kinds", "state"))
    compare(traced, model_folder(shared, "gpt2-lyrics"), live, "float32")


# --- Random models, which have no tokeniser: they are lent one of single letters ---------------------------------


def write_letter_tokenizer(folder: Path, vocabulary: int) -> None:
    """A byte-level BPE of `vocabulary` tokens: space, letters, other printable ASCII, then merges of two letters."""
    symbols = ["Ġ", *string.ascii_letters, *string.digits, *string.punctuation]
    merges = [(first, second) for first in "the" for second in "the"][: max(0, vocabulary - len(symbols))]
    tokens = [*symbols[: vocabulary - len(merges)], *("".join(merge) for merge in merges)]
    assert len(tokens) == vocabulary
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))


@pytest.fixture
def golden_model(repository: Path, tmp_path: Path) -> Callable[[str], Path]:
    """golden_model(case) gives a copy of a golden's model folder with a tokeniser."""

    def make(name: str) -> Path:
        folder = tmp_path / name
        shutil.copytree(repository / "tests/goldens/models" / name, folder)
        write_letter_tokenizer(folder, json.loads((folder / "config.json").read_text())["vocab_size"])
        return folder

    return make


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(
    ("name", "live"),
    [
        ("odd_width", Live("", "the heth", "th", ("--noise", "1.5", "--window", "3"))),
        ("twelve_layers", Live("", "ab cd ef", "cd", ("--noise", "1.5"))),
        ("untied_head", Live("", "xyz", "z", ("--noise", "u2", "--replace", "--window", "1"))),
        ("sharded", Live("", "xyz", "x", ("--noise", "2", "--samples", "1"))),
        ("stored_f64", Live("", "ab cd", "b c", ("--noise", "2", "--window", "2", "--target", "Q"))),
        ("full_context", Live("", "ab cdef", "f", ("--noise", "2", "--window", "2"))),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_random_models_agree(
    traced: Traced, golden_model: Callable[[str], Path], name: str, live: Live, dtype: str
) -> None:
    compare(traced, golden_model(name), live, dtype)


# --- The demo model ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_the_demo_agrees_with_its_golden(traced: Traced, repository: Path, dtype: str) -> None:
    path = repository / "tests/goldens/demo.json"
    if not path.exists():
        pytest.skip(f"{path} is not there; tests/judge/make_goldens.py --demo writes it")
    golden = json.loads(path.read_text())
    for fact in golden["facts"]:
        by_kind = {entry["kind"]: entry for entry in fact["traces"]}
        window = by_kind["mlp"]["window"]
        found = traced("--prompt", fact["prompt"], "--subject", fact["subject"], "--window", window, "--dtype", dtype)
        assert found["token_ids"] == fact["token_ids"]
        assert found["model"]["weights_sha256"] == golden["model_sha256"]
        assert found["run"]["noise"]["sigma"] == golden["noise"]["sigma"]
        for kind, entry in by_kind.items():
            assert (found["answer_id"], found["grids"][kind]["window"]) == (entry["answer_id"], entry["window"])
            names = ("high_score", "low_score", "low_standard_error")
            grid = {name: found["grids"][kind][name] for name in ("scores", "standard_error")}
            assert_close(
                flatten({name: found[name] for name in names} | grid),
                flatten({name: entry[name] for name in (*names, *grid)}),
                TOLERANCES[dtype],
            )
