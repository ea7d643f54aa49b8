"""Files and texts as people have them: packed, wrapped, padded, not fetched."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any, Callable

import pytest
import torch
from safetensors.torch import load_file, save_file

PROMPT = ("--prompt", "Miles Davis plays the", "--subject", "Miles Davis")
QUICK = ("--noise", "0.25", "--kinds", "state", "--samples", "2")
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 643187\n"
FACTS = [
    {"case_id": 0, "subject": "Miles Davis", "prompt": "{} plays the", "object": "trumpet"},
    {"case_id": 1, "subject": "John Coltrane", "prompt": "{} plays the", "object": "saxophone"},
]


@pytest.fixture
def model(demo: Path, tmp_path: Path) -> Path:
    """A copy of the demo model, to be changed."""
    return Path(shutil.copytree(demo, tmp_path / "model"))


def change_weights(model: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    weights = {name: tensor.clone() for name, tensor in change(load_file(model / "model.safetensors")).items()}
    save_file(weights, model / "model.safetensors")


def same_grids(record: dict[str, Any], expected: dict[str, Any]) -> bool:
    return record["grids"] == expected["grids"] and record["high_score"] == expected["high_score"]


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_orig_mod.module.", "_fsdp_wrapped_module."])
def test_weights_that_pytorch_wrapped_are_the_same(rometrace: Any, traced: Any, model: Path, prefix: str) -> None:
    expected = traced(*PROMPT, *QUICK)
    change_weights(model, lambda weights: {prefix + name: tensor for name, tensor in weights.items()})
    assert same_grids(traced(*PROMPT, *QUICK, "--model", model), expected)


def pad_vocabulary(model: Path) -> int:
    """Gives the model one token more than its tokeniser has, which it likes best; returns its id."""
    config = json.loads((model / "config.json").read_text())
    token = config["vocab_size"]
    (model / "config.json").write_text(json.dumps(config | {"vocab_size": token + 1}))

    def pad(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        for name, tensor in weights.items():
            if tensor.dim() == 2 and tensor.shape[0] == token:
                weights[name] = torch.cat([tensor, 3 * tensor[437:438]])  # " trumpet"
        return weights

    change_weights(model, pad)
    return token


def test_an_answer_that_the_tokeniser_does_not_have_stops_only_who_follows_it(
    rometrace: Any, traced: Any, model: Path, tmp_path: Path
) -> None:
    token = pad_vocabulary(model)
    words = f"the model's answer is token {token}, which its tokeniser does not have (0 to {token - 1}); --target"
    for options in ([], ["--answer", "greedy:2"]):
        done = rometrace(*PROMPT, *QUICK, "--model", model, *options)
        assert done.returncode == 2 and words in done.stderr, done.stderr
    facts = tmp_path / "facts.json"
    facts.write_text(json.dumps(FACTS[:1]))
    done = rometrace("--facts", facts, *QUICK, "--model", model)
    record = json.loads(done.stdout.splitlines()[1])
    assert record["status"] == "failed" and words in record["reason"]

    alone = traced(*PROMPT, *QUICK, "--model", model, "--target", " trumpet")
    done = rometrace("--facts", facts, *QUICK, "--model", model, "--target", "object")
    together = json.loads(done.stdout.splitlines()[1])
    for record in (alone, together):
        assert (record["status"], record["answer"]) == ("traced", " trumpet")
        assert (record["prediction"], record["prediction_bytes"], record["prediction_id"]) == ("", "", token)
    assert same_grids(together, alone)


@pytest.mark.parametrize(
    "name", ["config.json", "vocab.json", "merges.txt", "model.safetensors", "tokenizer_config.json"]
)
def test_every_file_of_a_model_is_told_from_a_git_lfs_pointer(rometrace: Any, model: Path, name: str) -> None:
    (model / name).write_text(POINTER)
    done = rometrace(*PROMPT, *QUICK, "--model", model)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert f"{name}: is a Git LFS pointer, not the file itself; run `git lfs pull` in that folder" in done.stderr


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "tokenizer.model", "special_tokens_map.json", "model.safetensors.index.json"]
)
def test_files_that_stand_beside_others_are_told_from_pointers_too(rometrace: Any, model: Path, name: str) -> None:
    (model / name).write_text(POINTER)
    instead_of = {"tokenizer.model": "vocab.json", "model.safetensors.index.json": "model.safetensors"}
    if name in instead_of:
        (model / instead_of[name]).unlink()
    done = rometrace(*PROMPT, *QUICK, "--model", model)
    assert done.returncode == 2 and f"{name}: is a Git LFS pointer" in done.stderr, done.stderr


def test_rotary_positions_go_on_beyond_those_of_the_config(
    rometrace: Any, traced: Any, shared: Path, tmp_path: Path
) -> None:
    """With the numbers of a model that is made for as many."""
    source, short = shared / "models/stories260K-hf", tmp_path / "short"
    shutil.copytree(source, short)
    question = ("--prompt", "Once upon a time, there was a little girl named Lily.", "--subject", "Lily", *QUICK)
    config = json.loads((source / "config.json").read_text())
    (short / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 8}))
    done = rometrace(*question, "--model", short)
    assert "tokens, and the model is made for 8 (max_position_embeddings)" in done.stderr
    assert same_grids(json.loads(done.stdout), traced(*question, "--model", source))
    scaling = {"rope_type": "dynamic", "factor": 2.0}
    (short / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 8, "rope_scaling": scaling}))
    done = rometrace(*question, "--model", short)
    assert done.returncode == 2 and "this model takes 1 to 8" in done.stderr


def test_packed_facts_give_the_same_records(rometrace: Any, tmp_path: Path) -> None:
    text = "".join(json.dumps(fact) + "\n" for fact in FACTS)
    plain, packed = tmp_path / "facts.jsonl", tmp_path / "facts.jsonl.gz"
    plain.write_text(text)
    packed.write_bytes(gzip.compress(text.encode()))
    lines = [rometrace("--facts", file, *QUICK).stdout.splitlines() for file in (plain, packed)]
    assert json.loads(lines[1][0])["facts"]["files"][0]["name"] == "facts.jsonl.gz"
    for one, other in zip(lines[0][1:], lines[1][1:], strict=True):
        assert same_grids(json.loads(one), json.loads(other))


def test_files_that_number_their_records_alike_go_together(rometrace: Any, tmp_path: Path) -> None:
    for name in ("train.json", "test.json"):
        (tmp_path / name).write_text(json.dumps(FACTS))
    done = rometrace("--facts", tmp_path / "train.json", tmp_path / "test.json", *QUICK)
    records = [json.loads(line)["fact"] for line in done.stdout.splitlines()[1:]]
    assert [fact["id"] for fact in records] == [0, 1, "test.json/0", "test.json/1"]
    assert 'test.json: has ids of a file before it; its own have its name in front, as "test.json/0"' in done.stderr


def test_a_subject_that_only_looks_like_the_prompts_is_told_by_code_points(rometrace: Any) -> None:
    done = rometrace("--prompt", "Miles\u00a0Davis plays the", "--subject", "Miles Davis")
    assert done.returncode == 2
    assert "whose code point 6 is U+00A0 NO-BREAK SPACE, not U+0020 SPACE" in done.stderr
