"""The executable gives the numbers of a plain tracer over transformers for a random model of every family, and for a
trained Llama with SentencePiece.

The models have the shapes of the goldens and other weights; tests/python/agreement.py says how the two are compared.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable

import pytest
import torch
from transformers import AutoModelForCausalLM

import make_goldens
from agreement import Live, Traced, compare
from reference_tracer import load_tokenizer, prefix_ids
from test_against_transformers import model_folder, write_letter_tokenizer

Rometrace = Callable[..., Any]

EVERYTHING = ("--window", "2", "--kinds", "state,mlp,attn,head,knockout")
EVERYTHING += ("--sever", "mlp,attn", "--knockout-window", "1", "--measures", "log_probability,kl,rank")
ALL = ("--noise", "1.5", "--samples", "3", *EVERYTHING)
CASES = (
    ("gptj", Live("", "ab cdef", "cd", ALL)),
    ("gpt_neo", Live("", "abcdef gh", "ef", (*ALL, "--direction", "noising"))),
    ("gpt_neox", Live("", "ab cdef", "cd", (*ALL, "--answer", "greedy:2"))),
    ("gpt_neox_sequential", Live("", "xyz abc", "z a", ALL)),
    ("opt", Live("", "the tower", "the", (*ALL, "--answer", "greedy:3"))),
    ("opt_norm_after", Live("", "ab cdef", "b c", (*ALL, "--direction", "noising"))),
    ("llama_grouped", Live("", "abc abd", "c a", (*ALL, "--answer", "greedy:2"))),
    ("llama_llama3", Live("", "ab cdef", "ab", (*EVERYTHING, "--counter-subject", "xy"))),
    ("llama_yarn", Live("", "ab cdef", "f", (*EVERYTHING, "--corrupt", "zero"))),
    ("mistral", Live("", "abcdef gh", "ef", ALL)),
    ("qwen2_sliding", Live("", "abcdef gh", "bc", (*ALL, "--direction", "noising"))),
    ("qwen3_sliding", Live("", "abcdef gh", "bc", (*ALL, "--answer", "greedy:2"))),
    ("gemma", Live("", "ab cdef", "cd", (*ALL, "--replace"))),
    ("gemma2", Live("", "abcdef gh", "bc", (*ALL, "--answer", "greedy:2"))),
    ("gemma3", Live("", "abcdef gh", "bc", (*ALL, "--direction", "noising"))),
    ("gpt_bigcode", Live("", "ab cdef", "cd", (*ALL, "--answer", "greedy:2"))),
    ("gpt_bigcode_multi_head", Live("", "xyz abc", "z a", ALL)),
    ("bloom", Live("", "ab cdef", "cd", ALL)),
    ("bloom_three_heads", Live("", "abcdef gh", "bc", (*ALL, "--direction", "noising"))),
    ("mpt_clipped", Live("", "abcdef gh", "bc", (*ALL, "--answer", "greedy:2"))),
    ("falcon", Live("", "ab cdef", "cd", (*ALL, "--direction", "noising"))),
    ("falcon_grouped", Live("", "abc abd", "c a", (*EVERYTHING, "--counter-subject", "x y"))),
    ("falcon_alibi", Live("", "abcdef gh", "bc", (*ALL, "--target", "xy"))),
    ("phi", Live("", "ab cdef", "cd", ALL)),
    ("phi_norms_of_heads", Live("", "abcdef gh", "ef", (*ALL, "--direction", "noising"))),
    ("phi3", Live("", "abcdef gh", "bc", ALL)),
    ("phi4_mini", Live("", "ab cdef", "f", (*EVERYTHING, "--corrupt", "zero"))),
    ("olmo_clipped", Live("", "xyz abc", "z a", ALL)),
    ("olmo2_grouped", Live("", "ab cdef", "cd", (*ALL, "--answer", "greedy:2"))),
    ("olmo3", Live("", "abcdef gh", "bc", (*ALL, "--direction", "noising"))),
    ("stablelm_parallel", Live("", "ab cdef", "cd", ALL)),
    ("starcoder2", Live("", "abcdef gh", "bc", (*ALL, "--answer", "greedy:2"))),
    ("smollm3_sliding", Live("", "abcdef gh", "bc", ALL)),
    ("granite", Live("", "ab cdef", "cd", (*ALL, "--answer", "greedy:2"))),
    ("granite_biases", Live("", "xyz abc", "z a", (*ALL, "--direction", "noising"))),
    ("cohere_norms_of_heads", Live("", "ab cdef", "cd", ALL)),
    ("cohere2", Live("", "abcdef gh", "bc", (*ALL, "--direction", "noising"))),
    ("glm4", Live("", "ab cdef", "cd", (*ALL, "--replace"))),
    ("nemotron", Live("", "abc abd", "c a", (*ALL, "--answer", "greedy:2"))),
    ("mixtral", Live("", "ab cdef", "cd", ALL)),
    ("mixtral_sliding", Live("", "abcdef gh", "bc", (*ALL, "--direction", "noising"))),
    ("qwen2_moe", Live("", "abc abd", "c a", (*ALL, "--answer", "greedy:2"))),
    ("qwen2_moe_dense_layers", Live("", "abcdef gh", "bc", ALL)),
    ("qwen3_moe", Live("", "ab cdef", "cd", (*ALL, "--direction", "noising"))),
    ("olmoe", Live("", "xyz abc", "z a", ALL)),
    ("granitemoe", Live("", "ab cdef", "cd", (*ALL, "--answer", "greedy:2"))),
    ("phimoe", Live("", "abcdef gh", "bc", ALL)),
    ("gpt_oss", Live("", "abcdef gh", "bc", (*ALL, "--direction", "noising"))),
    ("gpt_oss_grouped", Live("", "ab cdef", "f", (*EVERYTHING, "--corrupt", "zero"))),
)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def random_model(tmp_path: Path) -> Callable[[str], Path]:
    """random_model(case) gives a model of a golden's shape, with weights of its own and a tokeniser of letters."""

    def make(name: str) -> Path:
        (case,) = (case for case in make_goldens.CASES if case.name == name)
        folder = tmp_path / name
        make_goldens.save_model(replace(case, name=f"{name} live", stored=torch.float32), folder)
        write_letter_tokenizer(folder, json.loads((folder / "config.json").read_text())["vocab_size"])
        return folder

    return make


def test_every_family_has_its_case() -> None:
    families = {case.name: case.family for case in make_goldens.FAMILY_CASES}
    assert {families[name] for name, _ in CASES} == set(families.values()) - {"gemma3"}  # its text is gemma3_text


@pytest.mark.parametrize(("name", "live"), CASES, ids=[name for name, _ in CASES])
def test_each_family_agrees_in_float64(
    traced: Traced, random_model: Callable[[str], Path], name: str, live: Live
) -> None:
    compare(traced, random_model(name), live, "float64")


@pytest.mark.parametrize(("name", "live"), CASES[::4], ids=[name for name, _ in CASES[::4]])
def test_families_agree_with_transformers_own_float32(
    traced: Traced, random_model: Callable[[str], Path], name: str, live: Live
) -> None:
    compare(traced, random_model(name), live, "float32")


# --- A trained Llama whose tokeniser is a SentencePiece model ---------------------------------------------------

STORY = "Once upon a time, there was a little girl named"
FEW = ("--samples", "3", "--window", "2")
STORY_CASES = (
    Live("the subject in the middle", STORY, "little girl", ("--noise", "0.5", *FEW)),
    Live("the subject behind the beginning of the text", STORY, "Once", ("--noise", "1", "--kinds", "state", *FEW[:2])),
    Live("the subject in bytes that are no piece", "cat 東京 saw", "東", ("--noise", "1", "--kinds", "mlp", *FEW)),
    Live("heads and knockout", STORY, "girl", (*FEW[:2], "--kinds", "head,knockout", "--positions", "subject-last")),
    Live("another subject in its place", STORY, "little girl", ("--counter-subject", "little boy", "--window", "2")),
    Live("sigma of the facts", STORY, "little girl", ("--kinds", "state", "--positions", "last")),
)


@pytest.mark.parametrize("live", STORY_CASES, ids=lambda live: live.claim)
def test_stories_agree_in_float64(traced: Traced, shared: Path, live: Live) -> None:
    compare(traced, model_folder(shared, "stories260K-hf"), live, "float64")


def test_stories_agree_with_transformers_own_float32(traced: Traced, shared: Path) -> None:
    compare(traced, model_folder(shared, "stories260K-hf"), STORY_CASES[0], "float32")


def test_stories_are_probed_behind_the_begin_of_text_token(rometrace: Rometrace, shared: Path, tmp_path: Path) -> None:
    folder = model_folder(shared, "stories260K-hf")
    texts = ("Once upon a time, there was a {}", "The {}", "{} saw a")
    relation = {"name": "goes on", "prompt_templates": list(texts), "samples": [{"subject": "little girl", "object": "named"}]}
    facts = tmp_path / "facts.json"
    facts.write_text(json.dumps(relation))
    output = tmp_path / "probe.jsonl"
    done = rometrace("--model", folder, "--facts", facts, "--probe", "-o", output)
    assert done.returncode == 0, done.stderr
    _, line = (json.loads(text) for text in output.read_text().splitlines())
    tokenizer, model = load_tokenizer(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
    beginning = prefix_ids(folder, tokenizer)
    assert beginning == [model.config.bos_token_id]
    assert [wording["prompt"] for wording in line["wordings"]] == [text.format("little girl") for text in texts]
    for wording in line["wordings"]:
        ids = beginning + tokenizer.encode(wording["prompt"]).ids
        with torch.inference_mode():
            p = model(torch.tensor([ids])).logits[0, -1].double().softmax(-1)
        assert wording["probability"] == pytest.approx(p[line["object_token_id"]].item(), abs=1e-5)
        assert wording["answer_id"] == p.argmax().item()
