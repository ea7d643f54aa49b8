#!/usr/bin/env python3
"""Makes tests/goldens/neurons.json: neurons of the golden models of every family, by reference_neurons.py in float64.

    tests/judge/make_neuron_goldens.py               writes all traces
    tests/judge/make_neuron_goldens.py --only ABOUT  prints what some show, and writes nothing

The models are those in tests/goldens/models. Everything is given in token ids, so no tokeniser is needed.

neurons.json: {"made_by", "versions", "dtype", "traces": [..]}, each {"about", "model", "token_ids", "subject_range",
"options" (of reference_tracer.TraceOptions by name, and "measures"), "neurons" (of reference_neurons.NeuronOptions by
name; "layers" [b, e) or null), "results"}. "results": {"answer_ids", "high_score", "low_score", "neurons" (as
rometrace's records have it, without the tokens' texts, two tokens promoted and two suppressed), "estimates"
{position: [layers][F]} (null where nothing was estimated)}.

Prompts are random, and the first that tells something is taken: the corruption and the neurons matter, and no order
and no half hangs on the last digits.
"""

from __future__ import annotations

import argparse
import sys
import zlib
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Iterable

import numpy as np
import torch
from transformers import PreTrainedModel

from golden_cases import FIRST, LAST, MIDDLE, ONE, Prompt
from golden_families import DENSE, LONG
from make_goldens import LONG_TEXT, Method, made_by, method_options, write_golden
from reference_neurons import NeuronOptions, Question, alone, all_neurons, trace_neurons
from reference_tracer import REPOSITORY, TraceOptions, clean_logits, config_of, load_model

TOKENS_TOLD = 2
LEAST_GAP = 1e-7
"""Between neighbours in an order, as a part of the largest."""


@dataclass(frozen=True)
class Case:
    """One trace to be made."""

    method: Method
    neurons: NeuronOptions
    hindered: bool = False
    """All neurons of some layer together take from the answer."""

    @property
    def about(self) -> str:
        return self.method.about


def case(
    about: str,
    model: str,
    prompt: Prompt,
    positions: tuple[int, ...],
    options: dict[str, Any] | None = None,
    neurons: dict[str, Any] | None = None,
    hindered: bool = False,
    **method: Any,
) -> Case:
    """A case; `method` is what make_goldens.Method says of corruption, answer and measures."""
    traced = TraceOptions(**{"kinds": (), "samples": 4} | (options or {}))
    asked = NeuronOptions(positions, **{"top": 4} | (neurons or {}))
    return Case(Method(about, model, prompt, traced, **method), asked, hindered)


NOISING = {"direction": "noising"}
INTEGRATED = {"ranking": "integrated:3"}


def cases_of(family: str, model: str) -> tuple[Case, ...]:
    """A family in both directions, with few neurons told."""
    few = {"top": 2}
    return (
        case(family, model, MIDDLE, (4,), {"samples": 2}, few),
        case(f"{family}, noising", model, FIRST, (1,), NOISING | {"samples": 2}, few | INTEGRATED),
    )


CASES = (
    case("GPT-2", "narrow_mlp", MIDDLE, (4,)),
    case("GPT-2, noising", "narrow_mlp", MIDDLE, (4,), NOISING),
    case("GPT-2, two positions, every neuron", "narrow_mlp", FIRST, (1, 3), {}, {"top": 16, "ranking": "none"}),
    case("GPT-2, noising, every neuron", "narrow_mlp", ONE, (1,), NOISING, {"ranking": "none"}),
    case(
        "GPT-2, three positions, measures",
        "narrow_mlp",
        MIDDLE,
        (2, 4, 6),
        {},
        INTEGRATED | {"layers": (1, 3), "top": 8},
        others=2,
        foil=True,
        measures=("log_probability", "logit", "logit_difference", "rank", "kl"),
    ),
    case(
        "GPT-2, noising, each layer, an answer of two tokens",
        "narrow_mlp",
        LAST,
        (5,),
        NOISING,
        {"ranking": "integrated:1", "sets_by_layer": True, "top": 3},
        answer=2,
    ),
    case(
        "GPT-2, given neurons, measures",
        "narrow_mlp",
        MIDDLE,
        (0, 2, 5),
        {},
        {"given": ((2, 19), (0, 0), (1, 7))},
        answer=2,
        others=1,
        measures=("kl",),
    ),
    case("GPT-2, noising, given neurons", "narrow_mlp", FIRST, (1,), NOISING, {"given": ((0, 3), (2, 5))}),
    case("GPT-2, zero embeddings", "narrow_mlp", ONE, (2,), {"method": "zero"}),
    case("GPT-2, mean embeddings, noising", "narrow_mlp", MIDDLE, (4,), NOISING | {"method": "mean"}, text=9),
    case("GPT-2, other tokens", "narrow_mlp", MIDDLE, (4,), {"method": "tokens"}, INTEGRATED, differing=(2, 4)),
    case(
        "GPT-2, other tokens, noising, measures",
        "narrow_mlp",
        MIDDLE,
        (6,),
        NOISING | {"method": "tokens"},
        {"top": 3},
        differing=(1, 4),
        measures=("log_probability",),
    ),
    case(
        "GPT-2, uniform noise in place, another seed, twelve layers",
        "twelve_layers",
        FIRST,
        (1,),
        {"distribution": "uniform", "replace": True, "seed": 7, "samples": 3},
        {"layers": (3, 5), "top": 5},
    ),
    case(
        "GPT-2, Student noise in place, a single draw, one layer, noising",
        "narrow_mlp",
        MIDDLE,
        (4,),
        NOISING | {"distribution": "student", "degrees_of_freedom": 3, "replace": True, "samples": 1},
        {"layers": (0, 1)},
        text=LONG_TEXT,
    ),
    case("GPT-J", "gptj", MIDDLE, (4,), {}, INTEGRATED | {"layers": (0, 1)}, answer=2),
    case("GPT-J, noising", "gptj", FIRST, (1,), NOISING),
    case("GPT-Neo", "gpt_neo_old_buffers", MIDDLE, (4,), {}),
    case("GPT-Neo, noising", "gpt_neo_old_buffers", LONG, (6,), NOISING, INTEGRATED | {}, answer=2),
    case("GPT-NeoX", "gpt_neox", LAST, (5,), {}, INTEGRATED | {"sets_by_layer": True, "top": 3}, hindered=True),
    case("GPT-NeoX, noising", "gpt_neox", FIRST, (1,), NOISING),
    case("GPT-NeoX, sequential", "gpt_neox_sequential", LONG, (2,), answer=2),
    case("GPT-NeoX, sequential, noising", "gpt_neox_sequential", MIDDLE, (4,), NOISING, INTEGRATED),
    case("OPT", "opt", MIDDLE, (4,), {}, {"top": 8}, answer=3),
    case("OPT, noising", "opt", LAST, (5,), NOISING, INTEGRATED),
    case("OPT, norms after", "opt_norm_after", LAST, (5,), {}, INTEGRATED | {"sets_by_layer": True}),
    case("OPT, norms after, noising", "opt_norm_after", ONE, (1, 2), NOISING),
    case("Llama", "llama_grouped", LONG, (2,), answer=2),
    case("Llama, noising, biases", "llama_biases", FIRST, (1,), NOISING, INTEGRATED),
    case("Mistral", "mistral", MIDDLE, (4,), {}, INTEGRATED),
    case("Mistral, noising", "mistral", MIDDLE, (5,), NOISING),
    case("Qwen 2", "qwen2", MIDDLE, (4,), {}),
    case("Qwen 2, noising", "qwen2_sliding", MIDDLE, (5,), NOISING, INTEGRATED | {}, answer=2),
    case("Qwen 3", "qwen3", FIRST, (1,), {}, INTEGRATED | {}, answer=2),
    case("Qwen 3, noising", "qwen3", LONG, (2,), NOISING),
    case("Gemma", "gemma", MIDDLE, (4,), answer=2),
    case("Gemma, noising", "gemma", LAST, (5,), NOISING, INTEGRATED),
    case("Gemma 2", "gemma2", LAST, (5,), {}, INTEGRATED | {"sets_by_layer": True}),
    case("Gemma 2, noising", "gemma2", MIDDLE, (5,), NOISING, {}, answer=2),
    case("Gemma 3", "gemma3", MIDDLE, (4,), answer=2),
    case("Gemma 3, noising", "gemma3", FIRST, (1, 2), NOISING, INTEGRATED),
    case("Gemma 3, sees images", "gemma3_multimodal", MIDDLE, (4,), {}, {"ranking": "none"}),
    case("Gemma 3, sees images, noising", "gemma3_multimodal", ONE, (1,), NOISING),
    *(each for family in DENSE for each in cases_of(*family)),
)


# --- What tells something ---------------------------------------------------------------------------------------


def is_steady(values: Iterable[float]) -> bool:
    """Whether rounding cannot change an order by these; neurons without any value may tie."""
    values = np.sort(np.array(list(values)))
    gaps = np.diff(values)
    close = gaps < LEAST_GAP * abs(values).max()
    return not (close & ~((values[1:] == 0) & (values[:-1] == 0))).any()


def orders_of(
    case: Case, model: PreTrainedModel, entry: dict[str, Any], options: TraceOptions, traced: dict[str, Any]
) -> list[np.ndarray]:
    """The values that anything is ordered by."""
    neurons = case.neurons
    orders = [np.abs([one["indirect_effect"] for one in traced["neurons"]["effects"]])]
    if neurons.given:
        return orders
    layers = range(*traced["neurons"]["layers"])
    arguments = model, entry["token_ids"], entry["subject_range"], traced["answer_ids"], options, layers
    question = Question(*arguments)
    if traced["estimates"]:
        ranks = [np.array(traced["estimates"][t]) for t in neurons.positions]
        orders.append(np.abs(ranks).ravel())
    else:
        everything = list(all_neurons(neurons.positions, len(layers), question.width))
        scores = alone(question, everything)["probability"].mean(axis=-1)
        end = traced["low_score" if options.direction == "denoising" else "high_score"]
        orders.append(abs(scores - end))
        ranks = list((scores - end).reshape(len(neurons.positions), len(layers), -1))
    changes = [question.changes(t).abs().mean(dim=1).numpy() for t in neurons.positions]
    for values in (*ranks, *changes):
        orders.append(values.ravel())
        orders += list(values) if neurons.sets_by_layer else []
    return orders


def is_telling(traced: dict[str, Any]) -> bool:
    """Whether the corruption matters, some neuron or set does, and every set of all brings something back."""
    high, low = traced["high_score"], traced["low_score"]
    if not (high > 0.02 and abs(high - low) > 0.1 * high):
        return False
    told = traced["neurons"]
    effects = [abs(one["indirect_effect"]) for one in told["effects"]]
    if "sets" not in told:
        return max(effects) > 1e-3 * high
    every = [one for one in (*told["sets"], *told.get("sets_by_layer", ()))]
    last = [one["indirect_effect"] for one in every]
    halves = [one["neurons"] for one in told["half"] if "layer" not in one]
    return max(effects) > 1e-3 * high and max(last) > 0.03 * high and None not in halves and max(halves) > 2


def is_half_steady(told: dict[str, Any]) -> bool:
    """Whether the sets' effects stay away from the half of all, and that from 0."""
    for half in told.get("half", ()):
        sets = told["sets_by_layer" if "layer" in half else "sets"]
        effects = [
            one["indirect_effect"]
            for one in sets
            if one["position"] == half["position"] and one.get("layer") == half.get("layer")
        ]
        if abs(effects[-1]) < 1e-6 or any(abs(effect - effects[-1] / 2) < 1e-7 for effect in effects):
            return False
    return True


# --- The records ------------------------------------------------------------------------------------------------


def shortened(traced: dict[str, Any]) -> dict[str, Any]:
    """With a few tokens for each neuron."""
    effects = [
        one | {name: one[name][:TOKENS_TOLD] for name in ("promotes", "suppresses")}
        for one in traced["neurons"]["effects"]
    ]
    return traced | {"neurons": traced["neurons"] | {"effects": effects}}


def make_trace(case: Case, model: PreTrainedModel) -> dict[str, Any]:
    """The entry of the first random prompt that tells something."""
    method = case.method
    for draw in range(500):
        random = np.random.RandomState(zlib.crc32(f"neurons: {case.about} {draw}".encode()))
        token_ids = random.randint(0, config_of(model).vocab_size - 4, method.prompt.tokens).tolist()
        options = method_options(method, model, token_ids, random)
        best = clean_logits(model, token_ids)[-1].softmax(-1).topk(2).values.tolist()
        if best[0] < best[1] + 0.01:
            continue
        entry = {
            "about": case.about,
            "model": method.model,
            "token_ids": token_ids,
            "subject_range": list(method.prompt.subject),
            "options": {**asdict(options), "measures": method.measures},
            "neurons": asdict(case.neurons),
        }
        quick = replace(case.neurons, given=((case.neurons.layers[0] if case.neurons.layers else 0, 0),))
        found = trace_neurons(model, token_ids, method.prompt.subject, options, quick)
        if abs(found["high_score"] - found["low_score"]) < 0.1 * found["high_score"]:
            continue
        traced = trace_neurons(model, token_ids, method.prompt.subject, options, case.neurons, method.measures)
        if case.hindered and not any(one["neurons"] is None for one in traced["neurons"]["half"]):
            continue
        if not is_telling(traced) or not is_half_steady(traced["neurons"]):
            continue
        if not all(is_steady(values) for values in orders_of(case, model, entry, options, traced)):
            continue
        return entry | {"results": shortened(traced)}
    raise ValueError(f"no prompt of 500 gives a telling trace for {case.about!r}")


def spread_of(entries: list[dict[str, Any]]) -> Counter[str]:
    """How often each thing occurs that a tracer of neurons can get wrong."""
    counts: Counter[str] = Counter()
    for entry in entries:
        options, neurons, told = entry["options"], entry["neurons"], entry["results"]["neurons"]
        counts[told["ranked_by"].partition(":")[0]] += 1
        counts[options["direction"]] += 1
        counts[f"corrupted by {options['method']}"] += 1
        counts["several positions"] += len(neurons["positions"]) > 1
        counts["some layers"] += neurons["layers"] is not None
        counts["sets by layer"] += neurons["sets_by_layer"]
        counts["an answer of several tokens"] += len(entry["results"]["answer_ids"]) > 1
        counts["measures"] += bool(options["measures"])
        counts["other targets"] += bool(options["other_targets"])
        counts["the last position"] += len(entry["token_ids"]) - 1 in neurons["positions"]
        counts["a layer that brings nothing back"] += any(one["neurons"] is None for one in told.get("half", ()))
        sizes = [2**power for power in range(10)]
        counts["a half between two sizes"] += any(one["neurons"] not in (None, *sizes) for one in told.get("half", ()))
        signs = [one["indirect_effect"] < 0 for one in told["effects"]]
        counts["a neuron against the answer among the best"] += any(signs)
    return counts


def make_traces(models: Path, only: Iterable[str] = ()) -> dict[str, Any]:
    """The golden: of all cases, or of those whose `about` is named."""
    golden = made_by() | {"made_by": "tests/judge/make_neuron_goldens.py", "dtype": "float64", "traces": []}
    for case in CASES:
        if only and case.about not in only:
            continue
        entry = make_trace(case, load_model(models / case.method.model, torch.float64))
        golden["traces"].append(entry)
        results = entry["results"]
        halves = [(one["neurons"], one["candidates"]) for one in results["neurons"].get("half", ())]
        print(f"{case.about}: {results['high_score']:.3f} > {results['low_score']:.3f}, half {halves}", flush=True)
    return golden


def main() -> int:
    parser = argparse.ArgumentParser(description="Makes tests/goldens/neurons.json from Hugging Face transformers.")
    parser.add_argument("--models", type=Path, default=REPOSITORY / "tests/goldens/models")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "tests/goldens/neurons.json")
    parser.add_argument("--only", nargs="+", default=[], metavar="ABOUT", help="make these only, write nothing")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # sums in one order on every machine
    try:
        golden = make_traces(arguments.models, arguments.only)
        print(", ".join(f"{name}: {count}" for name, count in sorted(spread_of(golden["traces"]).items())))
        if not arguments.only:
            write_golden(golden, arguments.output)
            size = arguments.output.stat().st_size / 1e3
            print(f"{len(golden['traces'])} traces, {arguments.output.name} of {size:.0f} kB")
    except (OSError, ValueError, KeyError) as error:
        print(f"make_neuron_goldens.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
