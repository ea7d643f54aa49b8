#!/usr/bin/env python3
"""A plain tracer of neurons over Hugging Face transformers: the judge of `rometrace trace --kinds neuron`.

A neuron is one coordinate of what the last matrix of an MLP takes: after the activation, and after the gate where there
is one. It shares no code with rometrace: of the judge of tracing it takes how a model, a corruption and a measured run
are had, of the judge of editing which matrix is the last. Every set of neurons is put back in rows of its own of a run
of the whole model, by hooks before those matrices; estimates are PyTorch's derivatives of the whole model.

Letters: N draws, T tokens of the prompt, L layers, F neurons of a layer, V vocabulary. "Chosen layers" are [b, e);
neurons of all chosen layers together are counted (layer, neuron), layer by layer.

As a program it prints what a neuron trace finds as one JSON object: the scores of the clean and the corrupted run, and
"neurons" as rometrace's records have it.

    tests/judge/reference_neurons.py --model FOLDER --prompt "Miles Davis plays the" --subject "Miles Davis" --noise 0.3
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Callable, Iterator, Sequence

import numpy as np
import torch
from transformers import PreTrainedModel

from reference_editor import matrix_of, weight_of
from reference_tracer import (
    MOST_POSITIONS,
    Install,
    TraceOptions,
    Values,
    argument_parser,
    check,
    config_of,
    corrupt,
    layout_of,
    measure,
    nulls_for_nan,
    precision_of,
    probability_of,
    read_question,
    run,
    standard_error,
    target_name,
    token_bytes,
)

RANDOM_ORDERS = 10
FIRST_SEED = 1000
"""Of random order r: seed + 1000 + r."""
TOKENS_TOLD = 10
"""That a neuron promotes, and as many that it suppresses."""
NORMS_BEHIND = {
    **{family: ("post_feedforward_layernorm", 1.0) for family in ("gemma2", "gemma3", "gemma3_text")},
    **{family: ("post_feedforward_layernorm", 0.0) for family in ("olmo2", "olmo3")},
    "glm4": ("post_mlp_layernorm", 0.0),
}
"""Families with a norm of what the MLP gives, and what is added to its weight."""


@dataclass(frozen=True)
class NeuronOptions:
    """Which neurons to trace; the defaults are rometrace's."""

    positions: tuple[int, ...]
    layers: tuple[int, int] | None = None
    """[b, e); None: all."""
    top: int = 20
    """That are run alone, of all positions together."""
    ranking: str = "gradient"
    """"gradient", "integrated:M" or "none"."""
    given: tuple[tuple[int, int], ...] = ()
    """(layer, neuron); nothing is ranked, and there are no sets."""
    sets_by_layer: bool = False


@dataclass(frozen=True)
class Cell:
    """Neurons of one position that are put together."""

    position: int
    chosen: torch.Tensor
    """Bool [layers, F], of the chosen layers."""


# --- The neurons of a run -----------------------------------------------------------------------------------------


def on_neurons(
    model: PreTrainedModel, layer: int, rows: int, change: Callable[[torch.Tensor], torch.Tensor | None]
) -> Install:
    """Hook that shows a layer's neurons [rows, positions, F] to `change` and goes on with what that gives, if anything.

    OPT's MLP works on [rows * positions, F].
    """

    def before(module: torch.nn.Module, inputs: Any) -> Any:
        value = inputs[0]
        changed = change(value.reshape(rows, -1, value.shape[-1]))
        return None if changed is None else (changed.reshape(value.shape),)

    return partial(matrix_of(model, layer).register_forward_pre_hook, before)


class Question:
    """One prompt with its two runs: the base, into which neurons are put, and the other one, where they come from.

    Denoising, the base is the corrupted run and the other one the clean; noising, the reverse.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        token_ids: Sequence[int],
        subject_range: tuple[int, int],
        answer_ids: Sequence[int],
        options: TraceOptions,
        layers: range,
    ) -> None:
        self.model, self.answer_ids, self.options, self.layers = model, answer_ids, options, layers
        self.count = options.samples if options.method == "noise" else 1
        spoken = list(answer_ids[:-1])
        clean_row = [*token_ids, *spoken]
        if options.method == "tokens":
            corrupted_rows, corruption = [[*options.counter_ids, *spoken]], []
        else:
            corrupted_rows = [clean_row] * self.count
            corruption = [corrupt(model, subject_range, replace(options, samples=self.count), 0)]
        self.clean_logits, self.clean = self._record([clean_row], [])
        corrupted_logits, self.corrupted = self._record(corrupted_rows, corruption)
        self.high = self._measured(self.clean_logits)
        self.low = self._measured(corrupted_logits)
        if options.direction == "denoising":
            self.rows, self.hooks, self.base, self.other = corrupted_rows, corruption, self.corrupted, self.clean
        else:
            self.rows, self.hooks, self.base, self.other = (
                [clean_row] * self.count,
                [],
                [value.expand(self.count, -1, -1) for value in self.clean],
                self.corrupted,
            )

    @property
    def width(self) -> int:
        """F"""
        return self.clean[0].shape[-1]

    @property
    def neurons(self) -> int:
        """Of all chosen layers."""
        return len(self.layers) * self.width

    def _record(self, rows: list[list[int]], hooks: Sequence[Install]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Logits of a run, and the neurons [rows, positions, F] of each chosen layer."""
        values: list[torch.Tensor] = []
        keep = [on_neurons(self.model, layer, len(rows), values.append) for layer in self.layers]
        return run(self.model, rows, [*hooks, *keep], len(self.answer_ids)), values

    def _measured(self, logits: torch.Tensor) -> Values:
        return measure(logits, self.clean_logits, self.answer_ids, self.options)

    def effects(self, cells: Sequence[Cell]) -> Values:
        """Every measure [cells, N] of runs in which each cell's neurons have the other run's values."""
        at_once = max(1, MOST_POSITIONS // (self.count * len(self.rows[0])))
        parts = [self._measured(self._put(cells[at : at + at_once])) for at in range(0, len(cells), at_once)]
        return {name: np.concatenate([part[name] for part in parts]).reshape(-1, self.count) for name in self.low}

    def _put(self, cells: Sequence[Cell]) -> torch.Tensor:
        def change(number: int, value: torch.Tensor) -> torch.Tensor:
            changed = value.clone()
            by_cell = changed.unflatten(0, (len(cells), -1))
            for cell, rows in zip(cells, by_cell):
                mine, theirs = rows[:, cell.position], self.other[number][:, cell.position]
                rows[:, cell.position] = torch.where(cell.chosen[number], theirs, mine)
            return changed

        rows = self.rows * len(cells)
        put = [on_neurons(self.model, layer, len(rows), partial(change, n)) for n, layer in enumerate(self.layers)]
        return run(self.model, rows, [*self.hooks, *put], len(self.answer_ids))

    def base_derivatives(self) -> list[torch.Tensor]:
        """Of the answer's probability by the neurons of each chosen layer, [N, positions, F], in the base run."""
        values: list[torch.Tensor] = []

        def keep_and_use(value: torch.Tensor) -> torch.Tensor:
            values.append(value)
            return value

        keep = [on_neurons(self.model, layer, len(self.rows), keep_and_use) for layer in self.layers]
        return list(torch.autograd.grad(self._probability([*self.hooks, *keep]).sum(), values))

    def derivatives_between(self, position: int, way: float) -> list[torch.Tensor]:
        """Likewise [N, F] at one position, where all chosen layers' neurons are set: `way` of the way to the other run.

        What is set depends on nothing: the derivative by a neuron does not pass through neurons of later layers that
        are set too.
        """
        points = [
            (base[:, position] + way * (other[:, position] - base[:, position])).detach().requires_grad_()
            for base, other in zip(self.base, self.other)
        ]

        def change(point: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
            return torch.cat([value[:, :position], point[:, None], value[:, position + 1 :]], dim=1)

        put = [
            on_neurons(self.model, layer, len(self.rows), partial(change, point))
            for layer, point in zip(self.layers, points)
        ]
        return list(torch.autograd.grad(self._probability([*self.hooks, *put]).sum(), points))

    def _probability(self, hooks: Sequence[Install]) -> torch.Tensor:
        """[N]: of the answer, with its derivatives."""
        with torch.enable_grad(), precision_of(self.model), ExitStack() as installed:
            for install in hooks:
                installed.enter_context(install())
            logits = self.model(torch.tensor(self.rows), use_cache=False, logits_to_keep=len(self.answer_ids)).logits
            return probability_of(logits.double(), self.answer_ids)

    def changes(self, position: int) -> torch.Tensor:
        """Clean value less corrupted value, [layers, N, F]."""
        return torch.stack([one[:, position] - two[:, position] for one, two in zip(self.clean, self.corrupted)])


# --- Estimates and orders -----------------------------------------------------------------------------------------


def estimates_of(question: Question, position: int, ranking: str) -> np.ndarray:
    """[layers, F]: mean over draws of (clean - corrupted) times the derivative."""
    if ranking == "gradient":
        derivative = torch.stack([one[:, position] for one in question.base_derivatives()])
    else:
        steps = steps_of(ranking)
        points = [(m - 0.5) / steps for m in range(1, steps + 1)]
        derivative = sum(torch.stack(question.derivatives_between(position, way)) for way in points) / steps
    return (question.changes(position) * derivative).mean(dim=1).detach().double().numpy()


def steps_of(ranking: str) -> int:
    """M of "integrated:M"."""
    match = re.fullmatch(r"integrated:([1-9]\d*)", ranking)
    if not match:
        raise ValueError(f'ranking is {ranking!r}, expected "gradient", "integrated:M" or "none"')
    return int(match.group(1))


def order_by(values: np.ndarray) -> np.ndarray:
    """Indices of the largest first; ties as they stand."""
    return np.argsort(-values.ravel(), kind="stable")


def random_orders(seed: int, neurons: int) -> list[np.ndarray]:
    seeds = [seed + FIRST_SEED + r for r in range(RANDOM_ORDERS)]
    return [np.argsort(np.random.RandomState(each).random_sample(neurons), kind="stable") for each in seeds]


def sizes_of(neurons: int) -> list[int]:
    """1, 2, 4, .. and all."""
    return [2**power for power in range((neurons - 1).bit_length())] + [neurons]


# --- What is told -------------------------------------------------------------------------------------------------


def rows_of(values: Values, rows: int | slice) -> Values:
    return {name: value[rows] for name, value in values.items()}


class Teller:
    """Makes records of runs."""

    def __init__(self, question: Question, measures: Sequence[str]) -> None:
        self.question = question
        self.measures = [name for name in measures if name not in ("probability", "normalised")]

    def effect_of(self, values: Values) -> float:
        score = float(values["probability"].mean())
        if self.question.options.direction == "denoising":
            return score - float(self.question.low["probability"].mean())
        return float(self.question.high["probability"].mean()) - score

    def run(self, values: Values) -> dict[str, Any]:
        """Of the draws [N] of one run's measures."""
        told = {
            "score": float(values["probability"].mean()),
            "indirect_effect": self.effect_of(values),
            "standard_error": float(standard_error(values["probability"])),
        }
        if self.measures:
            told["measures"] = {
                name: {"value": float(values[name].mean()), "standard_error": float(standard_error(values[name]))}
                for name in self.measures
            }
        if self.question.options.other_targets:
            told["other_targets"] = []
            for token in self.question.options.other_targets:
                draws = values[target_name(token)]
                errors = {"score": float(draws.mean()), "standard_error": float(standard_error(draws))}
                told["other_targets"].append({"target_ids": [token]} | errors)
        return told

    def neuron(self, position: int, number: int, neuron: int, values: Values, estimate: float | None) -> dict[str, Any]:
        """Of a neuron that was run alone; `number` counts the chosen layers."""
        question = self.question
        ends = {"clean": question.clean[number], "corrupted": question.corrupted[number]}
        layer = question.layers[number]
        return {
            "layer": layer,
            "position": position,
            "neuron": neuron,
            "estimate": estimate,
            **self.run(values),
            "value": {name: float(value[:, position, neuron].double().mean()) for name, value in ends.items()},
            **written_by(question.model, layer, neuron),
        }


def logit_scale_of(model: PreTrainedModel) -> float:
    """What the head's product is multiplied by."""
    config = config_of(model)
    if config.model_type == "granite":
        return 1 / config.logits_scaling
    return config.logit_scale if config.model_type in ("cohere", "cohere2") else 1.0


def written_by(model: PreTrainedModel, layer: int, neuron: int) -> dict[str, Any]:
    """The size of the neuron's row, and what a value of 1 adds to the logits, most and least of all."""
    row = weight_of(model, layer)[:, neuron].double()
    direction = row
    family = model.config.model_type
    if family in NORMS_BEHIND:
        block = model.get_submodule(layout_of(model).blocks)[layer]
        name, offset = NORMS_BEHIND[family]
        direction = row * (offset + block.get_submodule(name).weight.double())
    project_out = getattr(getattr(model.get_decoder(), "decoder", model.get_decoder()), "project_out", None)
    if project_out is not None:  # OPT-350m
        direction = project_out.weight.double() @ direction
    if layout_of(model).scale:
        direction = direction * getattr(config_of(model), layout_of(model).scale)
    logits = (model.get_output_embeddings().weight.double() @ direction).detach().numpy() * logit_scale_of(model)
    best, worst = order_by(logits)[:TOKENS_TOLD], order_by(-logits)[:TOKENS_TOLD]
    told = {"promotes": best, "suppresses": worst}
    return {"row_norm": float(row.norm())} | {
        name: [{"id": int(token), "logit": float(logits[token])} for token in tokens] for name, tokens in told.items()
    }


# --- Sets ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pool:
    """Neurons of one position that sets are taken from."""

    position: int
    numbers: range
    """Of the chosen layers, counted from the first."""
    ranks: np.ndarray
    """[layers, F]: the estimates, or the exact effects."""
    changes: np.ndarray
    """[layers, F]: mean over draws of |clean - corrupted|."""
    place: dict[str, int]
    """The fields that tell where."""


def set_runs(question: Question, pool: Pool, order: np.ndarray, sizes: Sequence[int]) -> Values:
    """Measures [sizes, N] of the first of an order."""
    cells = []
    for size in sizes:
        chosen = torch.zeros(len(question.layers), question.width, dtype=torch.bool)
        pool_of = chosen[pool.numbers.start : pool.numbers.stop].view(-1)
        pool_of[torch.from_numpy(order[:size])] = True
        cells.append(Cell(pool.position, chosen))
    return question.effects(cells)


def sets_of(question: Question, teller: Teller, pool: Pool) -> tuple[list[Any], list[Any], dict[str, Any]]:
    """The sets, their controls and the half."""
    total = pool.ranks.size
    sizes = sizes_of(total)
    best = order_by(pool.ranks)
    of_best = set_runs(question, pool, best, sizes)
    orders = random_orders(question.options.seed, total)
    of_random = [set_runs(question, pool, order, sizes) for order in orders]
    filled = {
        "change": set_runs(question, pool, order_by(pool.changes), sizes),
        "random": {name: np.mean([each[name] for each in of_random], axis=0) for name in question.low},
    }

    def told(values: Values) -> list[dict[str, Any]]:
        return [pool.place | {"neurons": k} | teller.run(rows_of(values, n)) for n, k in enumerate(sizes)]

    controls = [{"order": name} | each for name, values in filled.items() for each in told(values)]
    effects = [teller.effect_of(rows_of(of_best, n)) for n in range(len(sizes))]

    def effect(size: int) -> float:
        return teller.effect_of(rows_of(set_runs(question, pool, best, [size]), 0))

    half = pool.place | {"candidates": total, "neurons": least_of_half(sizes, effects, effect)}
    return told(of_best), controls, half


def least_of_half(sizes: Sequence[int], effects: Sequence[float], effect: Callable[[int], float]) -> int | None:
    """The size that has half the effect of all: between the first of `sizes` that has it and the one before."""
    if effects[-1] <= 0:
        return None
    threshold = effects[-1] / 2
    first = next(n for n, value in enumerate(effects) if value >= threshold)
    low, high = (sizes[first - 1] if first else 0), sizes[first]
    while high - low > 1:
        middle = (low + high) // 2
        if effect(middle) >= threshold:
            high = middle
        else:
            low = middle
    return high


# --- The trace ----------------------------------------------------------------------------------------------------


def all_neurons(positions: Sequence[int], layers: int, width: int) -> Iterator[tuple[int, int, int]]:
    """(position, number of the layer, neuron)"""
    return ((t, number, i) for t in positions for number in range(layers) for i in range(width))


def alone(question: Question, neurons: Sequence[tuple[int, int, int]]) -> Values:
    """Measures [neurons, N] of each neuron by itself."""
    cells = []
    for position, number, neuron in neurons:
        chosen = torch.zeros(len(question.layers), question.width, dtype=torch.bool)
        chosen[number, neuron] = True
        cells.append(Cell(position, chosen))
    return question.effects(cells)


def largest_first(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(records, key=lambda one: -abs(one["indirect_effect"]))


def trace_neurons(
    model: PreTrainedModel,
    token_ids: Sequence[int],
    subject_range: tuple[int, int],
    options: TraceOptions,
    neurons: NeuronOptions,
    measures: Sequence[str] = (),
) -> dict[str, Any]:
    """Traces the neurons of one prompt.

    "answer_ids", "high_score", "low_score", "neurons" as rometrace's records have it, without the tokens' texts, and
    "estimates" {position: [layers][F]}, None where nothing was estimated. `measures` are told of each run.
    """
    answer_ids = options.answer_ids or (int(run(model, [token_ids], [])[0, 0].argmax()),)
    check(model, token_ids, answer_ids, replace(options, positions=neurons.positions))
    if options.precision is not None:
        raise ValueError("this judge draws as often as it is told, and knows no precision")
    layers = range(*(neurons.layers or (0, config_of(model).num_hidden_layers)))
    question = Question(model, token_ids, subject_range, answer_ids, options, layers)
    teller = Teller(question, measures)
    estimates: dict[int, np.ndarray] = {}
    if not neurons.given and neurons.ranking != "none":
        estimates = {t: estimates_of(question, t, neurons.ranking) for t in neurons.positions}
    everything = list(all_neurons(neurons.positions, len(layers), question.width))
    if neurons.given:
        ran = [(t, layers.index(layer), i) for t in neurons.positions for layer, i in neurons.given]
    elif estimates:
        ranks = np.concatenate([estimates[t].ravel() for t in neurons.positions])
        ran = [everything[n] for n in order_by(abs(ranks))[: neurons.top]]
    else:
        ran = everything
    values = alone(question, ran)
    effects = []
    for n, (t, number, i) in enumerate(ran):
        estimate = float(estimates[t][number, i]) if estimates else None
        effects.append(teller.neuron(t, number, i, rows_of(values, n), estimate))
    told: dict[str, Any] = {
        "positions": list(neurons.positions),
        "layers": [layers.start, layers.stop],
        "ranked_by": "given" if neurons.given else neurons.ranking,
        "candidates": len(ran) if neurons.given else len(everything),
        "effects": largest_first(effects)[: None if neurons.given else neurons.top],
    }
    if not neurons.given:
        exact = np.array([one["indirect_effect"] for one in effects])
        ranks = estimates or dict(zip(neurons.positions, exact.reshape(len(neurons.positions), len(layers), -1)))
        told |= all_sets(question, teller, neurons, ranks)
    return nulls_for_nan(
        {
            "answer_ids": list(answer_ids),
            "high_score": float(question.high["probability"].mean()),
            "low_score": float(question.low["probability"].mean()),
            "neurons": told,
            "estimates": {t: one.tolist() for t, one in estimates.items()} or None,
        }
    )


def all_sets(question: Question, teller: Teller, neurons: NeuronOptions, ranks: dict[int, np.ndarray]) -> Any:
    """"sets", "controls" and "half" of all chosen layers together, and where asked for of each layer."""
    together = {"sets": [], "controls": [], "half": []}
    by_layer = {"sets": [], "controls": [], "half": []}

    def add(to: dict[str, list[Any]], position: int, numbers: range, place: dict[str, int]) -> None:
        part = slice(numbers.start, numbers.stop)
        changes = question.changes(position).abs().mean(dim=1).double().numpy()[part]
        pool = Pool(position, numbers, ranks[position][part], changes, place)
        sets, controls, half = sets_of(question, teller, pool)
        to["sets"] += sets
        to["controls"] += controls
        to["half"].append(half)

    for position in neurons.positions:
        add(together, position, range(len(question.layers)), {"position": position})
        for number, layer in enumerate(question.layers) if neurons.sets_by_layer else ():
            add(by_layer, position, range(number, number + 1), {"position": position, "layer": layer})
    told = {name: together[name] + (by_layer[name] if name != "sets" else []) for name in together}
    return told | ({"sets_by_layer": by_layer["sets"]} if neurons.sets_by_layer else {})


# --- The program --------------------------------------------------------------------------------------------------


def read_layers(spec: str | None) -> tuple[int, int] | None:
    """[b, e) of "A-B", B included."""
    if spec is None:
        return None
    match = re.fullmatch(r"(\d+)-(\d+)", spec)
    if not match:
        raise ValueError(f'layers are {spec!r}, expected "A-B"')
    return int(match.group(1)), int(match.group(2)) + 1


def read_neurons(spec: str | None) -> tuple[tuple[int, int], ...]:
    """(layer, neuron) of "3:117,5:9"."""
    if spec is None:
        return ()
    if not re.fullmatch(r"\d+:\d+(,\d+:\d+)*", spec):
        raise ValueError(f'neurons are {spec!r}, expected "3:117,5:9"')
    return tuple((int(one), int(two)) for one, two in (name.split(":") for name in spec.split(",")))


def neuron_record(arguments: argparse.Namespace) -> dict[str, Any]:
    """Runs what the command line asks for; promoted and suppressed tokens with their texts."""
    asked = read_question(arguments)
    options = NeuronOptions(
        positions=asked.options.positions or tuple(range(len(asked.token_ids))),
        layers=read_layers(arguments.layers),
        top=arguments.top,
        ranking=arguments.rank_by,
        given=read_neurons(arguments.neurons),
        sets_by_layer=arguments.sets == "layer",
    )
    measures = tuple(name for name in asked.measures if name != "probability")
    traced = trace_neurons(asked.model, asked.token_ids, asked.subject_range, asked.options, options, measures)
    for effect in traced["neurons"]["effects"]:
        for token in [*effect["promotes"], *effect["suppresses"]]:
            text = token_bytes(asked.tokenizer, token["id"])
            token |= {"token": text.decode(errors="replace"), "token_bytes": text.hex()}
    return traced


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The tracer's command line and the options of neurons."""
    parser = argument_parser("Traces one prompt's neurons with transformers, plainly and slowly.")
    parser.set_defaults(positions="subject-last", kinds="neuron")
    parser.add_argument("--layers", help='"A-B", B included (default: all)')
    parser.add_argument("--top", type=int, default=20, help="neurons that are run alone (default: %(default)s)")
    parser.add_argument("--rank-by", default="gradient", help='"gradient", "integrated:M" or "none"')
    parser.add_argument("--neurons", help='run these: "3:117,5:9"')
    parser.add_argument("--sets", choices=("layer",), help="sets of each layer as well")
    return parser.parse_args(arguments)


def main() -> int:
    try:
        record = neuron_record(parse_arguments())
    except (OSError, ValueError, KeyError) as error:
        print(f"reference_neurons.py: {error}", file=sys.stderr)
        return 2
    print(json.dumps(record, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
