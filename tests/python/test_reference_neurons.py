"""The judge of neurons obeys the laws that need no numbers from elsewhere, in every family."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agreement import Tolerance, assert_close, flatten
from reference_editor import matrix_of
from reference_neurons import (
    Cell,
    NeuronOptions,
    Question,
    alone,
    estimates_of,
    least_of_half,
    random_orders,
    sizes_of,
    trace_neurons,
    written_by,
)
from reference_tracer import DIRECTIONS, TraceOptions, config_of, load_model, trace
from test_reference_families import NAMES, OPTIONS, SUBJECT, TOKEN_IDS

# The same computation in rows of one batch: only the order of float64 sums may differ.
CLOSE = {"rtol": 1e-12, "atol": 1e-14}
POSITION = 4
ANSWER = (5,)
OPTIONS = replace(OPTIONS, kinds=(), samples=3, answer_ids=ANSWER)
SMALL = "narrow_mlp"


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module", params=NAMES)
def model(request: pytest.FixtureRequest, repository: Path) -> Any:
    return load_model(repository / "tests/goldens/models" / request.param, torch.float64)


@pytest.fixture(scope="module")
def small(repository: Path) -> Any:
    return load_model(repository / "tests/goldens/models" / SMALL, torch.float64)


def layers_of(model: Any) -> int:
    return config_of(model).num_hidden_layers


def question_of(model: Any, options: TraceOptions) -> Question:
    return Question(model, TOKEN_IDS, SUBJECT, ANSWER, options, range(layers_of(model)))


def assert_same(found: Any, expected: Any) -> None:
    """All fields of two records."""
    texts = [{at: one for at, one in flatten(each).items() if isinstance(one, str)} for each in (found, expected)]
    numbers = [{at: one for at, one in flatten(each).items() if at not in texts[0]} for each in (found, expected)]
    assert texts[0] == texts[1]
    assert_close(*numbers, Tolerance(relative=1e-11, absolute=1e-14))


def scores_of(question: Question, masks: list[torch.Tensor]) -> np.ndarray:
    cells = [Cell(POSITION, mask) for mask in masks]
    return question.effects(cells)["probability"].mean(axis=-1)


def nothing(question: Question) -> torch.Tensor:
    return torch.zeros(len(question.layers), question.width, dtype=torch.bool)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_all_neurons_of_a_layer_are_its_mlp(model: Any, direction: str) -> None:
    options = replace(OPTIONS, direction=direction)
    question = question_of(model, options)
    masks = []
    for layer in question.layers:
        masks.append(nothing(question))
        masks[-1][layer] = True
    masks.append(torch.ones_like(masks[0]))
    found = scores_of(question, masks)

    def mlp(window: int) -> list[float]:
        asked = replace(options, kinds=("mlp",), window=window, positions=(POSITION,))
        return trace(model, TOKEN_IDS, SUBJECT, asked)["grids"]["mlp"]["probability"]["values"][0]

    np.testing.assert_allclose(found[:-1], mlp(1), **CLOSE)
    np.testing.assert_allclose(found[-1:].repeat(layers_of(model)), mlp(2 * layers_of(model)), **CLOSE)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_neuron_is_its_share_of_the_mlps_output(model: Any, direction: str) -> None:
    question = question_of(model, replace(OPTIONS, direction=direction))
    layer, neuron = layers_of(model) - 1, 3
    values = alone(question, [(POSITION, layer, neuron)])["probability"][0]
    matrix = matrix_of(model, layer)
    column = matrix.weight[:, neuron] if isinstance(matrix, torch.nn.Linear) else matrix.weight[neuron]
    change = (question.other[layer] - question.base[layer])[:, POSITION, neuron]

    def add(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        result = output.reshape(question.count, -1, output.shape[-1]).clone()
        result[:, POSITION] += change[:, None] * column
        return result.reshape(output.shape)

    def install() -> Any:
        return matrix.register_forward_hook(add)

    found = question._probability([*question.hooks, install]).detach().numpy()
    np.testing.assert_allclose(values, found, **CLOSE)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_gradient_is_that_of_small_changes(model: Any, direction: str) -> None:
    question = question_of(model, replace(OPTIONS, direction=direction))
    estimates = estimates_of(question, POSITION, "gradient")
    effect = {}
    for step in (1e-4, -1e-4):
        way = question_of(model, replace(OPTIONS, direction=direction))
        way.other = [base + step * (other - base) for base, other in zip(question.base, question.other)]
        neurons = [(POSITION, layer, i) for layer in way.layers for i in range(way.width)]
        effect[step] = alone(way, neurons)["probability"].mean(axis=-1)
    slopes = (effect[1e-4] - effect[-1e-4]) / 2e-4
    slopes = slopes if direction == "denoising" else -slopes
    np.testing.assert_allclose(estimates.ravel(), slopes, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_integrated_estimates_add_up_to_the_effect_of_all(model: Any, direction: str) -> None:
    """The theorem that gives integrated gradients their name; the sum over M points misses little."""
    question = question_of(model, replace(OPTIONS, direction=direction))
    score = scores_of(question, [torch.ones_like(nothing(question))])[0]
    low, high = question.low["probability"].mean(), question.high["probability"].mean()
    effect = score - low if direction == "denoising" else high - score
    found = [estimates_of(question, POSITION, f"integrated:{steps}").sum() for steps in (2, 64)]
    assert abs(found[1] - effect) <= 1e-3 * max(abs(effect), 0.05), (found, effect)
    assert found[0] != found[1] or abs(effect) < 1e-15  # where neurons do nothing at all


def test_with_one_step_nothing_but_the_middle_is_seen(small: Any) -> None:
    question = question_of(small, OPTIONS)
    middle = torch.stack(question.derivatives_between(POSITION, 0.5))
    expected = (question.changes(POSITION) * middle).mean(dim=1)
    np.testing.assert_array_equal(estimates_of(question, POSITION, "integrated:1"), expected)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_zero_noise_gives_the_clean_score_everywhere(small: Any, direction: str) -> None:
    options = replace(OPTIONS, sigma=0.0, direction=direction)
    traced = trace_neurons(small, TOKEN_IDS, SUBJECT, options, NeuronOptions((POSITION,), top=5))
    told = traced["neurons"]
    for one in (*told["effects"], *told["sets"], *told["controls"]):
        assert one["score"] == pytest.approx(traced["high_score"], rel=1e-12)
        assert one["indirect_effect"] == pytest.approx(0, abs=1e-14)
    assert np.abs(traced["estimates"][POSITION]).max() < 1e-14


def test_a_neuron_before_the_subject_has_no_effect(small: Any) -> None:
    traced = trace_neurons(small, TOKEN_IDS, SUBJECT, OPTIONS, NeuronOptions((0,), top=60, ranking="none"))
    effects = traced["neurons"]["effects"]
    assert len(effects) == traced["neurons"]["candidates"] == 60
    assert max(abs(one["indirect_effect"]) for one in effects) < 1e-14
    assert traced["neurons"]["half"][0]["neurons"] is None


def test_sets_are_filled_by_the_signed_estimate(small: Any) -> None:
    traced = trace_neurons(small, TOKEN_IDS, SUBJECT, OPTIONS, NeuronOptions((POSITION,), (1, 3), top=40))
    told, estimates = traced["neurons"], np.array(traced["estimates"][POSITION])
    assert [one["neurons"] for one in told["sets"]] == [1, 2, 4, 8, 16, 32, 40]
    assert told["candidates"] == 40
    layer, neuron = np.unravel_index(estimates.argmax(), estimates.shape)
    (best,) = (one for one in told["effects"] if (one["layer"], one["neuron"]) == (layer + 1, neuron))
    assert told["sets"][0]["score"] == pytest.approx(best["score"], rel=1e-12)
    last = [one["score"] for one in (*told["sets"], *told["controls"]) if one["neurons"] == 40]
    np.testing.assert_allclose(last, last[0], **CLOSE)
    assert len(last) == 3


def test_sets_of_a_layer_are_those_of_a_trace_of_it(small: Any) -> None:
    layered = NeuronOptions((POSITION,), top=1, sets_by_layer=True)
    told = trace_neurons(small, TOKEN_IDS, SUBJECT, OPTIONS, layered)["neurons"]
    for layer in range(layers_of(small)):
        alone = NeuronOptions((POSITION,), (layer, layer + 1), top=1)
        expected = trace_neurons(small, TOKEN_IDS, SUBJECT, OPTIONS, alone)["neurons"]
        for name, of_layer in (("sets", "sets_by_layer"), ("controls", "controls"), ("half", "half")):
            found = [one for one in told[of_layer] if one.get("layer") == layer]
            assert len(found) == len(expected[name])
            for one, other in zip(found, expected[name]):
                assert_same(one, {"layer": layer} | other)


def test_given_neurons_are_run_and_nothing_is_ranked(small: Any) -> None:
    given = NeuronOptions((1, POSITION), given=((2, 7), (0, 3)))
    told = trace_neurons(small, TOKEN_IDS, SUBJECT, OPTIONS, given)["neurons"]
    assert told.keys() == {"positions", "layers", "ranked_by", "candidates", "effects"}
    found = sorted((one["position"], one["layer"], one["neuron"]) for one in told["effects"])
    assert found == [(1, 0, 3), (1, 2, 7), (4, 0, 3), (4, 2, 7)]
    assert all(one["estimate"] is None for one in told["effects"])
    ranked = NeuronOptions((1, POSITION), top=120)
    effects = trace_neurons(small, TOKEN_IDS, SUBJECT, OPTIONS, ranked)["neurons"]["effects"]
    for one in told["effects"]:
        same = [each for each in effects if all(each[name] == one[name] for name in ("layer", "position", "neuron"))]
        assert_same(one, same[0] | {"estimate": None})


@pytest.mark.parametrize("least", range(1, 41))
def test_the_half_is_the_least_of_a_curve_that_rises(least: int) -> None:
    sizes = sizes_of(40)
    curve = {size: 0.1 * (size >= least) + 0.1 for size in range(1, 41)}
    curve |= {size: 0.01 for size in range(1, least)}
    assert least_of_half(sizes, [curve[size] for size in sizes], curve.__getitem__) == least
    assert least_of_half(sizes, [-curve[size] for size in sizes], curve.__getitem__) is None


def test_sizes_double_up_to_all() -> None:
    assert [sizes_of(n) for n in (1, 2, 3, 8, 9)] == [[1], [1, 2], [1, 2, 3], [1, 2, 4, 8], [1, 2, 4, 8, 9]]


def test_random_orders_are_numpys() -> None:
    orders = random_orders(7, 50)
    assert len(orders) == 10
    assert all(sorted(order) == list(range(50)) for order in orders)
    drawn = np.random.RandomState(1009).random_sample(50)
    assert all(np.diff(drawn[orders[2]]) > 0)


def test_what_a_neuron_writes_is_what_the_last_layer_hands_to_the_unembedding(model: Any) -> None:
    """By the modules themselves: a value of 1 through the last matrix, the norm's weight behind, and the head."""
    layer, neuron = 1, 2
    told = written_by(model, layer, neuron)
    matrix = matrix_of(model, layer)
    inputs = torch.zeros(2, matrix.weight.numel() // config_of(model).hidden_size, dtype=torch.float64)
    inputs[1, neuron] = 1
    with torch.no_grad():
        off, on = matrix(inputs)
        row = on - off
        assert told["row_norm"] == pytest.approx(row.norm().item(), rel=1e-12)
        for name, module in model.named_modules():
            if name.endswith((f"layers.{layer}.post_feedforward_layernorm", f"layers.{layer}.post_mlp_layernorm")):
                row = row * (module.weight + type(module).__name__.startswith("Gemma"))
            if name.endswith("project_out"):
                row = module(row)
        config = config_of(model)
        row = row * getattr(config, "residual_multiplier", 1)
        head = model.get_output_embeddings()
        logits = (head(row) - head(torch.zeros_like(row))) * (getattr(config, "logit_scale", None) or 1)
        logits = logits / getattr(config, "logits_scaling", 1)
    best = logits.topk(10).values.tolist()
    assert [one["logit"] for one in told["promotes"]] == pytest.approx(best, rel=1e-10)
    worst = (-logits).topk(10).values.neg().tolist()
    assert [one["logit"] for one in told["suppresses"]] == pytest.approx(worst, rel=1e-10)
    for one in (*told["promotes"], *told["suppresses"]):
        assert one["logit"] == pytest.approx(logits[one["id"]].item(), rel=1e-10)
