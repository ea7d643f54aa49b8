"""Options that could change nothing where they stand are refused in one line, and work where they stand well."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from batches import FACTS, refused
from conftest import Rometrace

ONE = ("--prompt", "Miles Davis plays the", "--subject", "Miles Davis")
SHIPPED = ("--facts", FACTS, "--limit", "2")
KNOCKOUT = (*ONE, "--kinds", "knockout")
NEURON = (*ONE, "--kinds", "neuron")
OF_NEURONS = (("--layers", "0-3"), ("--rank-by", "gradient"), ("--top", "20"), ("--sets", "layer"))
PROBE = (*SHIPPED, "--probe")
SWAP = (*SHIPPED, "--corrupt", "swap")
A_TRACE = "expected a trace; --probe makes none"

IDLE: list[tuple[tuple[Any, ...], tuple[str, ...], str]] = [
    ((*ONE, "--kinds", "state"), ("--window", "10"), "expected mlp or attn among --kinds"),
    ((*ONE, "--kinds", "head,knockout", "--sever", "mlp"), ("--window", "3"), "expected mlp or attn among --kinds"),
    (ONE, ("--head-window", "1"), "expected head among --kinds"),
    (ONE, ("--knockout-window", "9"), "expected knockout among --kinds"),
    (KNOCKOUT, ("--positions", "all"), "expected a kind other than knockout among --kinds"),
    (KNOCKOUT, ("--direction", "denoising"), "expected a kind other than knockout among --kinds"),
    *((ONE, option, "expected neuron among --kinds") for option in (*OF_NEURONS, ("--neurons", "3:117"))),
    *(((*NEURON, "--neurons", "3:117"), option, "expected neurons that are ranked, not those of --neurons") for option in OF_NEURONS),
    (NEURON, ("--window", "3"), "expected mlp or attn among --kinds"),
    (NEURON, ("--head-window", "1"), "expected head among --kinds"),
    ((*NEURON, "--neurons", "3:117", "--corrupt", "zero"), ("--seed", "1"), "nothing else here is drawn"),
    *(
        ((*ONE, *corruption), option, "expected noise, which is not what corrupts here")
        for corruption in (("--corrupt", "zero"), ("--corrupt", "mean"), ("--counter-subject", "Ray Brown"))
        for option in (("--samples", "2"), ("--noise", "s3"), ("--replace",), ("--precision", "0.1"), ("--noise-facts", str(FACTS)))
    ),
    ((*ONE, "--corrupt", "zero"), ("--seed", "1"), "expected noise or --corrupt swap; nothing else here is drawn"),
    ((*ONE, "--corrupt", "mean"), ("--seed", "2"), "nothing else here is drawn"),
    ((*ONE, "--counter-subject", "Ray Brown"), ("--seed", "2"), "nothing else here is drawn"),
    ((*SHIPPED, "--corrupt", "zero"), ("--seed", "2"), "nothing else here is drawn"),
    (SWAP, ("--samples", "2"), "expected noise"),
    ((*ONE, "--noise", "0.1"), ("--noise-facts", str(FACTS)), "expected --noise s or s<k>"),
    ((*ONE, "--noise", "u1"), ("--noise-facts", str(FACTS)), "expected --noise s or s<k>"),
    (ONE, ("--noise-text", "x"), "expected --noise m, --noise t<df> or --corrupt mean"),
    ((*ONE, "--corrupt", "zero"), ("--noise-text", "x"), "expected --noise m"),
    (ONE, ("--most-samples", "20"), "expected --precision beside it"),
    (ONE, ("--foil", " guitar"), "expected --measures logit_difference or normalised"),
    ((*ONE, "--measures", "rank"), ("--foil", " guitar"), "expected --measures logit_difference or normalised"),
    ((*SHIPPED, "--target", "object"), ("--all",), "expected the model's own answer, not --target object"),
    ((*SHIPPED, "--engine", "plain"), ("--facts-per-sweep", "2"), "expected --engine sweep"),
    ((*SHIPPED, "--engine", "gradient"), ("--facts-per-sweep", "2"), "expected --engine sweep"),
    (ONE, ("--tf32",), "expected a GPU; give --device cuda beside it"),
    ((*ONE, "--device", "cuda", "--dtype", "float64"), ("--tf32",), "expected products in float32"),
    *((PROBE, option, A_TRACE) for option in (
        ("--kinds", "state"), ("--sever", "mlp"), ("--positions", "all"), ("--window", "3"), ("--direction", "noising"),
        *OF_NEURONS, ("--neurons", "3:117"),
        ("--engine", "sweep"), ("--corrupt", "noise"), ("--samples", "10"), ("--precision", "0.1"), ("--seed", "1"), ("--noise", "s3"),
        ("--noise-facts", str(FACTS)), ("--replace",), ("--target", "object"), ("--answer", "word"), ("--measures", "rank"),
        ("--all",), ("--facts-per-sweep", "2"),
    )),
    (("calibrate", "--facts", FACTS), ("--window", "3"), "expected mlp or attn among --kinds"),
    (("calibrate", "--facts", FACTS), ("--tf32",), "expected a GPU"),
    (("summary", "any.jsonl", "--bootstrap", "0"), ("--seed", "1"), "expected a bootstrap, not --bootstrap 0"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "option", "words"), IDLE, ids=lambda value: " ".join(map(str, value[-4:])) if isinstance(value, tuple) else "")
def test_an_option_that_can_change_nothing_is_refused(rometrace: Rometrace, arguments: tuple, option: tuple, words: str) -> None:
    refused(rometrace(*arguments, *option), f"rometrace: {option[0]}: has no effect here; expected ", words)


@pytest.mark.parametrize(
    "arguments",
    [
        (*ONE, "--kinds", "attn", "--window", "3"),
        (*ONE, "--kinds", "head,knockout", "--head-window", "1", "--knockout-window", "3", "--positions", "last", "--direction", "noising"),
        (*NEURON, *chain(*OF_NEURONS), "--positions", "last", "--direction", "noising"),
        (*ONE, "--kinds", "knockout,neuron", "--positions", "last", "--direction", "noising", "--corrupt", "zero", "--seed", "2"),
        (*ONE, "--kinds", "mlp,neuron", "--window", "3", "--neurons", "3:117,5:9"),
        (*ONE, "--kinds", "state", "--corrupt", "mean", "--noise-text", str(FACTS)),
        (*ONE, "--kinds", "state", "--noise", "s2", "--noise-facts", str(FACTS), "--samples", "2", "--seed", "4", "--replace"),
        (*ONE, "--kinds", "state", "--samples", "2", "--precision", "0.5", "--most-samples", "4"),
        (*ONE, "--kinds", "state", "--measures", "normalised", "--foil", " guitar"),
        (*SWAP, "--kinds", "state", "--seed", "2", "--facts-per-sweep", "1", "--all"),
        (*PROBE, "--known-by", "said:1", "--memory", "1G", "--special-tokens"),
        (*SHIPPED, "--target", "object", "--kinds", "state", "--only", "known"),
        ("--self-check", "--noise", "0.3", "--noise-facts", str(FACTS)),
    ],
    ids=lambda value: " ".join(value[2:]),
)
def test_the_same_options_stand_well_elsewhere(rometrace: Rometrace, arguments: tuple) -> None:
    done = rometrace(*arguments, "-q")
    assert done.returncode == 0, done.stderr


def test_a_folder_is_not_downloaded(rometrace: Rometrace, demo: Path) -> None:
    refused(rometrace(*ONE, "--model", demo, "--download"), f"--download: {demo} is a folder, which is there already", "the name of a model")
    refused(rometrace(*ONE, "--download", "-q"), "--download: no model is named; expected the name of a model")
    refused(rometrace(*ONE, "--revision", "main", "-q"), "--revision main: no model is named")


def test_a_probes_summary_takes_no_options_of_averages(rometrace: Rometrace, tmp_path: Path) -> None:
    file = tmp_path / "probe.jsonl"
    assert rometrace(*PROBE, "-q", "-o", file).returncode == 0
    for option in (("--by", "relation"), ("--bootstrap", "10"), ("--seed", "2")):
        refused(rometrace("summary", file, *option), f"{option[0]}: has no effect here; expected results of traces")
    assert json.loads(rometrace("summary", file, "--json").stdout)["records"] == 2


def test_no_option_of_a_trace_is_left_out_of_the_table(rometrace: Rometrace, repository: Path) -> None:
    """An option of the methods that is new has a line for --probe, or is not refused there in silence."""
    method = (repository / "src/cli/options/method_options.cpp").read_text()
    names = {line.split('"')[1] for line in method.splitlines() if line.strip().startswith(("value(", "number(", "app.add_flag(")) and '"--' in line}
    assert {"--kinds", "--seed", "--replace", "--foil"} <= names
    table = (repository / "src/cli/options/idle_options.cpp").read_text()
    # These two are refused beside --facts at all.
    assert {name for name in names if f'{{"{name}", &traces' not in table} == {"--counter-subject", "--counter-prompt"}
