"""Texts at the end of a model's positions, and beyond it: what goes on, what is refused, and what is said of either."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Callable

import pytest
import torch

from test_config_fields import FAMILIES, ROUNDING, TOKEN_IDS, difference, make_model, ours
from test_against_transformers import write_letter_tokenizer

LIMIT = 6  # positions, of TOKEN_IDS' ten tokens
TABLES = ("gpt2", "gpt_neo", "gptj", "opt", "gpt_bigcode", "mpt")  # of positions, which end
SCALINGS: dict[str, dict[str, Any]] = {
    "linear": {"rope_type": "linear", "factor": 4.0},
    "llama3": {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 3},
    "dynamic": {"rope_type": "dynamic", "factor": 4.0},
}
QUICK = ("--noise", "0.5", "--kinds", "state,mlp", "--samples", "2", "--window", "1")


def limited(family: str, positions: int) -> dict[str, Any]:
    names = ("n_positions", "max_seq_len", "seq_length", "max_position_embeddings")
    return {next(name for name in names if name in FAMILIES[family]): positions}


@pytest.mark.parametrize("family", FAMILIES)
def test_positions_go_on_where_transformers_go_on(family: str, bin_dir: Path, tmp_path: Path) -> None:
    scalings = SCALINGS if family in ("llama", "qwen2") else {}
    changes = [{}, *({"rope_parameters": {"rope_theta": 100.0} | scaling} for scaling in scalings.values())]
    folders = [tmp_path / str(number) for number in range(len(changes))]
    judged = [make_model(family, limited(family, LIMIT) | change, to) for change, to in zip(changes, folders)]
    for name, judge, found in zip(["", *scalings], judged, ours(bin_dir, folders), strict=True):
        if family in TABLES or name == "dynamic":  # whose angles transformers then takes otherwise, for all tokens
            assert found == {"refused": f"the prompt has {len(TOKEN_IDS)} tokens; this model takes 1 to {LIMIT}"}, name
            assert (judge.logits is None) == (family in TABLES), judge.refusal
        else:
            assert judge.logits is not None, judge.refusal
            assert difference(torch.tensor(found["logits"]), judge.logits) < ROUNDING, name


@pytest.fixture
def short_and_long(tmp_path: Path) -> tuple[Path, Path]:
    """One Llama twice, made for 8 positions and for 64."""
    folders = tmp_path / "short", tmp_path / "long"
    for folder, positions in zip(folders, (8, 64)):
        large = {"hidden_size": 64, "intermediate_size": 1024, "num_hidden_layers": 6}  # worth streaming
        make_model("llama", limited("llama", positions) | large, folder)
        write_letter_tokenizer(folder, json.loads((folder / "config.json").read_text())["vocab_size"])
    return folders


def without_model(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in ("model", "run")}


WARNING = "tokens, and the model is made for 8 (max_position_embeddings)"


def test_a_trace_beyond_the_positions_is_that_of_a_model_made_for_them(
    rometrace: Any, short_and_long: tuple[Path, Path]
) -> None:
    cases = (
        ("abcdefgh", (), False),
        ("abcdefghi", (), True),
        ("abcdefgh", ("--answer", "greedy:2"), True),
        ("abcdefgh", ("--target", "ij"), True),
        ("abcdefgh", ("--engine", "plain"), False),
        ("abcdefghijklmnopq", ("--engine", "plain"), True),
    )
    for prompt, options, warned in cases:
        arguments = ("--prompt", prompt, "--subject", "cd", *QUICK, *options)
        short, long = (rometrace(*arguments, "--model", folder) for folder in short_and_long)
        assert short.returncode == long.returncode == 0, short.stderr + long.stderr
        assert without_model(json.loads(short.stdout)) == without_model(json.loads(long.stdout))
        assert (WARNING in short.stderr) == warned, (prompt, options, short.stderr)
        assert WARNING not in long.stderr


@pytest.mark.parametrize("options", [(), ("--answer", "word"), ("--target", "object")])
def test_so_is_a_batch_with_layers_in_memory_or_not(
    rometrace: Any, short_and_long: tuple[Path, Path], tmp_path: Path, options: tuple[str, ...]
) -> None:
    facts = tmp_path / "facts.jsonl"
    records = [{"subject": "cd", "prompt": f"a{{}}{end}", "object": "xy"} for end in ("", "efghi", "efghijklmnop")]
    facts.write_text("".join(json.dumps(record) + "\n" for record in records))
    short, long = short_and_long
    arguments = ("--facts", facts, *QUICK, *options, *(() if "object" in options else ("--all",)))
    expected = rometrace(*arguments, "--model", long)
    assert expected.returncode == 0 and WARNING not in expected.stderr, expected.stderr
    held = rometrace(*arguments, "--model", short)
    assert held.returncode == 0 and held.stderr.count(WARNING) == 1, held.stderr
    streamed = rometrace(*arguments, "--model", short, "--memory", "3M")
    assert "each layer is read from the files" in streamed.stderr, streamed.stderr
    lines = [[json.loads(line) for line in done.stdout.splitlines()[1:]] for done in (expected, held, streamed)]
    for one, other, third in zip(*lines, strict=True):
        assert without_model(one) == without_model(other)
        assert one["answer_ids"] == third["answer_ids"]
        for kind, grid in one["grids"].items():
            for row, same in zip(grid["scores"], third["grids"][kind]["scores"], strict=True):
                assert same == pytest.approx(row, rel=1e-4)


def test_a_probe_says_it_of_any_wording(rometrace: Any, short_and_long: tuple[Path, Path], tmp_path: Path) -> None:
    facts = tmp_path / "facts.json"
    for wordings, warned in ((["{}a", "bcd"], False), (["{}a", "abcdefghcd"], True)):
        facts.write_text(json.dumps([{"subject": "cd", "prompt": "{}", "paraphrase_prompts": wordings, "object": "x"}]))
        done = rometrace("--facts", facts, "--probe", "--model", short_and_long[0])
        assert json.loads(done.stdout.splitlines()[1])["status"] == "probed", done.stdout
        assert (WARNING in done.stderr) == warned


# --- the answer -------------------------------------------------------------------------------------------------------


def test_an_answer_that_does_not_fit_is_refused_and_never_cut(rometrace: Any, demo: Path, tmp_path: Path) -> None:
    """With a demo model of 64 positions that never ends its text, as another token has the name of its end."""
    model = Path(shutil.copytree(demo, tmp_path / "model"))
    vocabulary = json.loads((model / "vocab.json").read_text())
    end, other = vocabulary["<|endoftext|>"], vocabulary["~"]
    (model / "vocab.json").write_text(json.dumps(vocabulary | {"<|endoftext|>": other, "~": end}))
    arguments = (*QUICK, "--model", model)

    def trace(*options: str) -> Any:
        prompt = "Miles Davis plays" + " the" * 59
        return rometrace("--prompt", prompt, "--subject", "Miles Davis", *arguments, *options)

    for options in (("--answer", "greedy:3"), ("--target", " piano piano piano")):
        done = trace(*options)
        assert done.returncode == 0 and len(json.loads(done.stdout)["answer_ids"]) == 3, done.stderr
    words = "the prompt has 62 tokens and the answer {}; this model takes 65 together"
    for options, answer in ((("--answer", "greedy:4"), "up to 4"), (("--target", " piano" * 4), "4")):
        done = trace(*options)
        assert done.returncode == 2 and words.format(answer) in done.stderr, done.stderr

    facts = tmp_path / "facts.json"
    fact = {"subject": "Miles Davis", "prompt": "{} plays" + " the" * 59, "object": "piano piano piano piano"}
    facts.write_text(json.dumps([fact]))
    for options, answer in (
        (("--answer", "greedy:4"), "up to 4"),
        (("--answer", "object"), "up to 4"),
        (("--target", "object"), "4"),
    ):
        done = rometrace("--facts", facts, *arguments, *options)
        record = json.loads(done.stdout.splitlines()[1])
        assert record["status"] == "failed" and words.format(answer) in record["reason"], record
        assert done.returncode == 1


def test_an_answer_that_the_model_ends_says_how_long_it_was_to_be(
    rometrace: Any, validate: Callable[[dict[str, Any]], None], tmp_path: Path
) -> None:
    """The demo model says " trumpet." and its end of text."""
    facts = tmp_path / "facts.json"
    fact = {"subject": "Miles Davis", "prompt": "{} plays the", "object": "trumpet trumpet trumpet"}
    facts.write_text(json.dumps([fact]))
    for where in (("--prompt", "Miles Davis plays the", "--subject", "Miles Davis"), ("--facts", facts)):
        in_batch = where[0] == "--facts"
        more = ("--all",) if in_batch else ()
        cases = [
            (("--answer", "greedy:4", *more), " trumpet.", 4),
            (("--answer", "greedy:2", *more), " trumpet.", None),
            (("--answer", "word", *more), " trumpet", None),
        ]
        if in_batch:
            cases += [
                (("--answer", "object", *more), " trumpet.", 3),
                (("--target", "object"), " trumpet trumpet trumpet", None),
            ]
        for options, answer, asked in cases:
            done = rometrace(*where, *QUICK, *options)
            record = json.loads(done.stdout.splitlines()[-1])
            validate(record)
            assert (record["answer"], record.get("answer_asked")) == (answer, asked), options
