"""What scripts/benchmarks/benchmark_editing.py measures is one edit made twice, and the same one."""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import benchmark_editing
import make_random_checkpoint
from benchmark import BenchmarkError, Checkpoint, ScoresDiffer
from benchmark_editing import PROMPT, SUBJECT, TARGET, Edit, Edited, Measured, Round

LAYER, WIDTH = 1, 32


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A small random GPT-2 whose tokens are bytes."""
    folder = tmp_path_factory.mktemp("editing")
    sizes = {"layers": 3, "width": WIDTH, "heads": 2, "vocab": 257, "positions": 128}
    options = [word for name, value in sizes.items() for word in (f"--{name}", str(value))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["make_random_checkpoint.py", str(folder), *options])
        make_random_checkpoint.main()
    return Checkpoint("small", folder, 3, WIDTH, 257, (folder / "model.safetensors").stat().st_size)


@pytest.fixture(scope="module")
def edit(checkpoint: Checkpoint) -> Edit:
    moment = benchmark_editing.make_moment(checkpoint.folder, LAYER, 4 * WIDTH)
    templates = benchmark_editing.make_templates()
    return Edit(checkpoint.folder, LAYER, [*templates[:3], templates[-1]], moment, steps=5, clamp=4)


def test_prefixes_have_the_tokens_that_they_say(shared: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    folder = shared / "tokenizers/gpt2"
    templates = benchmark_editing.make_templates(json.loads((folder / "vocab.json").read_text(encoding="utf-8")))
    tokenizer = tokenizers.ByteLevelBPETokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    prefixes = [template.removesuffix(". {}") for template in templates[1:]]
    assert templates[0] == "{}" and len(set(prefixes)) == 20
    assert [len(tokenizer.encode(prefix).ids) for prefix in prefixes] == [4] * 10 + [9] * 10


def test_another_vocabulary_is_refused() -> None:
    with pytest.raises(BenchmarkError, match='no token "The", expected GPT-2\'s'):
        benchmark_editing.make_templates({"a": 0})


def test_the_program_over_transformers_makes_the_edit_of_the_judge(checkpoint: Checkpoint, edit: Edit) -> None:
    np = pytest.importorskip("numpy")
    torch = pytest.importorskip("torch")
    from benchmark_editing_transformers import Editor  # transformers with it
    from reference_editor import EditOptions, Texts, rome
    from reference_tracer import load_model

    editor = Editor()
    editor.load({"folder": str(checkpoint.folder), "device": "cpu", "threads": 1})
    before = {name: value.clone() for name, value in editor.model.state_dict().items()}
    made = editor.edit(edit.request())
    assert all(torch.equal(value, before[name]) for name, value in editor.model.state_dict().items())
    assert all(seconds > 0 for seconds in made["seconds"].values())

    with np.load(edit.moment) as stored:
        moment = torch.from_numpy(stored["mom2.mom2"]).double() / int(stored["mom2.count"])
    fact = Texts(checkpoint.folder).fact(PROMPT.replace(SUBJECT, "{}"), SUBJECT, TARGET, edit.templates)
    model = load_model(checkpoint.folder, torch.float64)
    judged = rome(model, LAYER, fact, EditOptions(steps=edit.steps, clamp=edit.clamp), moment)
    losses = [one.total for one in judged.optimum.evaluations]
    assert made["losses"] == pytest.approx(losses, rel=1e-4)
    assert benchmark_editing.distance(made["u"], judged.u.tolist()) < 1e-5
    assert benchmark_editing.distance(made["r"], judged.right_vector.tolist()) < 1e-3


def test_the_moment_is_positive_definite_and_its_file_names_the_layer(edit: Edit) -> None:
    np = pytest.importorskip("numpy")
    assert edit.moment.name.startswith(f"transformer.h.{LAYER}.mlp.c_proj_float32_mom2_")
    with np.load(edit.moment) as stored:
        mean = stored["mom2.mom2"] / stored["mom2.count"]
    assert mean.shape == (4 * WIDTH, 4 * WIDTH)
    values = np.linalg.eigvalsh(mean.astype(np.float64))
    assert 0 < values[0] and values[-1] / values[0] < 1e5


def test_a_row_of_the_table_compares_two_programs_that_agree(
    checkpoint: Checkpoint, edit: Edit, bin_dir: Path
) -> None:
    arguments = argparse.Namespace(bin_dir=bin_dir, threads=1)
    plan = benchmark_editing.Plan(layer=LAYER, clamp=4, rounds=2, bar=None)
    row = benchmark_editing.measure_edit(checkpoint, edit, plan, 2, arguments)
    assert row.evaluations == edit.steps and len(row.rounds) == 2
    for one in row.rounds:
        assert one.differences["u"] < 1e-5 and one.differences["loss"] < 1e-4
        assert one.whole_seconds > sum(one.rometrace.values()) > 0 and "measures" not in one.rometrace
    assert len(benchmark_editing.cells_of(row)) == len(benchmark_editing.COLUMNS)


# --- What is computed -------------------------------------------------------------------------------------------


def made(**changes: Any) -> Edited:
    return replace(Edited({"moments": 1.0, "value": 3.0}, [3.0, 2.0], [0.6, 0.8], [1.0, 2.0]), **changes)


def test_what_differs_is_relative() -> None:
    differences = benchmark_editing.compare("small", made(u=[0.6, 0.80001], losses=[3.0, 2.0002]), made())
    assert differences == {"u": pytest.approx(1e-5), "r": 0.0, "loss": pytest.approx(1e-4)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"losses": [3.0]}, "small: rometrace made 1 evaluations, transformers 2"),
        ({"u": [0.6, 0.81]}, "small: u differs by 1.0e-02, expected at most 1e-04"),
        ({"r": [1.0, 2.1]}, "small: r differs by 4.5e-02, expected at most 1e-02"),
        ({"losses": [3.0, 2.1]}, "small: loss differs by 5.0e-02, expected at most 1e-03"),
        ({"losses": [3.0, math.nan]}, "small: loss differs by nan"),
    ],
)
def test_two_edits_that_differ_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ScoresDiffer) as raised:
        benchmark_editing.compare("small", made(**changes), made())
    assert str(raised.value).startswith(message) and raised.value.status == 1


def a_round(seconds: float, transformers: float, peak: int = 100) -> Round:
    return Round({"moments": seconds / 2, "value": seconds / 2}, {"value": transformers}, 9.0, peak, {})


def test_the_ratio_is_the_median_of_the_rounds_and_bars_are_held_against_it() -> None:
    rounds = [a_round(1, 10), a_round(2, 8), a_round(4, 8, peak=160)]
    row = Measured("gpt2-medium", 8, 20, weights_bytes=100, bar=4, transformers_peak_bytes=1, rounds=rounds)
    assert row.ratio() == 4 and row.memory() == 1.6 and row.misses() == []
    slow = replace(row, bar=5)
    assert slow.misses() == ["gpt2-medium: 4.00 times as fast as transformers, expected 5"]
    assert replace(row, weights_bytes=80).misses() == ["gpt2-medium: peak memory is 2.00 x the weights, expected 1.75"]
    assert replace(row, bar=None, weights_bytes=80).misses() == []


def test_a_program_that_fails_is_told_with_its_last_line(tmp_path: Path) -> None:
    program = tmp_path / "rometrace"
    program.write_text("#!/bin/sh\necho first >&2\necho 'no such model' >&2\nexit 2\n")
    program.chmod(0o755)
    with pytest.raises(BenchmarkError, match=r"rometrace failed with exit status 2 \(no such model\)"):
        benchmark_editing.run_measured([str(program)])
