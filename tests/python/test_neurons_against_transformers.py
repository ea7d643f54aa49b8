"""The executable's neurons are those of a plain tracer over transformers, on trained models and random ones.

Both are run with the same command line; the judge is tests/judge/reference_neurons.py.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Callable

import pytest
import torch

import reference_neurons
from agreement import TOLERANCES, Live, Traced, assert_close, flatten
from test_against_transformers import HOROSCOPE, LYRICS, model_folder
from test_families_live import random_model  # noqa: F401
from test_methods import DAVIS, MILES, SUBJECT_LAST

FEW = ("--layers", "0-2", "--samples", "3")
CASES = (
    Live("the defaults", MILES, DAVIS, ("--samples", "3")),
    Live("noising, integrated", MILES, DAVIS, (*FEW, "--direction", "noising", "--rank-by", "integrated:4")),
    Live("the subject's tokens", MILES, DAVIS, (*FEW, "--positions", "subject", "--top", "30")),
    Live("each layer, last position", MILES, DAVIS, (*FEW, "--sets", "layer", "--positions", "last")),
    Live("every neuron", SUBJECT_LAST, DAVIS, ("--layers", "1-1", "--samples", "2", "--rank-by", "none")),
    Live("given neurons", MILES, DAVIS, ("--neurons", "3:117,0:127,7:511", "--positions", "0,1,3")),
    Live("an answer of three tokens", MILES, DAVIS, (*FEW, "--answer", "greedy:3")),
    Live("zero embeddings", MILES, DAVIS, ("--layers", "0-2", "--corrupt", "zero")),
    Live(
        "another subject, noising",
        MILES,
        DAVIS,
        ("--layers", "0-2", "--counter-subject", "Ray Brown", "--direction", "noising"),
    ),
    Live("targets", MILES, DAVIS, (*FEW, "--target", " trumpet", "--target", " guitar", "--target", " piano")),
    Live(
        "measures",
        MILES,
        DAVIS,
        (*FEW, "--measures", "log_probability,logit,logit_difference,rank,kl", "--foil", " guitar"),
    ),
)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@functools.lru_cache(maxsize=1)
def judged(arguments: tuple[str, ...]) -> dict[str, Any]:
    """What the judge says; both engines are compared with it, one after the other."""
    return reference_neurons.neuron_record(reference_neurons.parse_arguments(list(arguments)))


def in_order(neurons: dict[str, Any], tokens: int) -> dict[str, Any]:
    """With effects and controls ordered by place, and `tokens` for each neuron.

    Neurons of nearly the same effect stand alike then.
    """
    effects = [
        one | {name: one[name][:tokens] for name in ("promotes", "suppresses")} for one in neurons["effects"]
    ]
    effects.sort(key=lambda one: (one["position"], one["layer"], one["neuron"]))
    if "controls" not in neurons:
        return neurons | {"effects": effects}
    controls = sorted(
        neurons["controls"], key=lambda one: (one["order"], one["position"], one.get("layer", -1), one["neurons"])
    )
    return neurons | {"effects": effects, "controls": controls}


def compare(traced: Traced, model: Path, live: Live, dtype: str = "float64") -> None:
    """Runs both programs and compares all that they say of neurons."""
    arguments = ["--model", str(model), "--prompt", live.prompt, "--subject", live.subject, "--dtype", dtype]
    arguments += live.options
    record = traced(*arguments, "--kinds", "neuron")
    expected = judged(tuple(arguments))
    assert record["answer_ids"] == expected["answer_ids"]
    sizes = [abs(one["indirect_effect"]) for one in record["neurons"]["effects"]]
    assert sizes == sorted(sizes, reverse=True)
    tokens = min(len(one[name]) for one in record["neurons"]["effects"] for name in ("promotes", "suppresses"))
    assert tokens >= 5
    found, wanted = (flatten(in_order(one["neurons"], tokens)) for one in (record, expected))
    for one in (found, wanted):
        one |= {"high_score": (record if one is found else expected)["high_score"]}
    assert found.keys() == wanted.keys()
    exact = [at for at, value in wanted.items() if isinstance(value, (str, int))]
    assert {at: found[at] for at in exact} == {at: wanted[at] for at in exact}
    floats = [at for at in wanted if at not in exact]
    assert_close({at: found[at] for at in floats}, {at: wanted[at] for at in floats}, TOLERANCES[dtype])


@pytest.mark.parametrize("engine", ["sweep", "plain"])
@pytest.mark.parametrize("live", CASES, ids=lambda live: live.claim)
def test_the_demos_neurons_agree(traced: Traced, repository: Path, live: Live, engine: str) -> None:
    compare(functools.partial(with_engine, traced, engine), repository / "share/rometrace/demo", live)


def with_engine(traced: Traced, engine: str, *arguments: str) -> dict[str, Any]:
    return traced(*arguments, "--engine", engine)


@pytest.mark.parametrize(
    ("name", "live"),
    [
        ("gpt2-lyrics", Live("", LYRICS, "never ever", ("--noise", "0.5", "--samples", "3", "--layers", "0-1"))),
        ("gpt2-horoscope", Live("", HOROSCOPE, "that your", ("--noise", "1", "--samples", "2", "--layers", "1-2"))),
        ("stories260K-hf", Live("", "Once upon a time", "upon", ("--noise", "1", "--samples", "2", "--layers", "0-1"))),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_trained_models_agree(traced: Traced, shared: Path, name: str, live: Live) -> None:
    compare(traced, model_folder(shared, name), live)


NOISE = ("--noise", "1.5", "--samples", "3")


@pytest.mark.parametrize(
    ("name", "live"),
    [
        ("gptj", Live("", "ab cdef", "cd", (*NOISE, "--layers", "0-0"))),
        ("gpt_neox", Live("", "ab cdef", "cd", (*NOISE, "--direction", "noising", "--answer", "greedy:2"))),
        ("opt_norm_after", Live("", "ab cdef", "b c", (*NOISE, "--rank-by", "integrated:2"))),
        ("mistral", Live("", "abcdef gh", "ef", (*NOISE, "--direction", "noising", "--rank-by", "none"))),
        ("gemma2", Live("", "abcdef gh", "h", (*NOISE, "--sets", "layer"))),
        ("gemma3", Live("", "abcdef gh", "h", (*NOISE, "--direction", "noising", "--sets", "layer"))),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_random_models_agree(
    traced: Traced, random_model: Callable[[str], Path], name: str, live: Live  # noqa: F811
) -> None:
    compare(traced, random_model(name), live)


def test_neurons_agree_in_float32(traced: Traced, repository: Path) -> None:
    """Given ones: an order of estimates is not known to float32."""
    live = Live("", MILES, DAVIS, ("--neurons", "3:117,0:127,0:362,7:511", "--positions", "1"))
    compare(traced, repository / "share/rometrace/demo", live, "float32")
