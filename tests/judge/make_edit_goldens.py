#!/usr/bin/env python3
"""Makes tests/goldens/editing.json: edits of the golden models of every family, by reference_editor.py in float64.

    tests/judge/make_edit_goldens.py              writes all edits
    tests/judge/make_edit_goldens.py --only NAME  prints those of some models, and writes nothing

The models are those in tests/goldens/models. Everything is given in token ids, so no tokeniser is needed.

editing.json: {"made_by", "versions", "dtype", "moments": [..], "edits": [..]}.

"moments": {"model", "texts" [[ids]..], "tokens", "layers": [{"layer", "trace", "norm" (Frobenius), "first_row" [F]}]}:
the second moment C = mean k k^T of the keys of each layer that is edited, over all tokens of the texts.

"edits": {"about", "model", "method" ("rome", "r-rome", "memit"), "layers" [..] (one, but for memit), "ridge" (a number:
C + ridge * trace(C) / F * identity takes the place of C of the model's texts; null: no C), "lambda" (of memit, else
null), "options" (of reference_editor.EditOptions by name: "steps", "learning_rate", "decay", "clamp", "kl", "enough"),
"facts": [{"rows": [{"ids" (without the object), "lookup", "weight" (in the mean of the keys)}] (the first is the bare
prompt), "subject": {"ids", "lookup"} (of the KL divergence), "target_ids" [K]}], "results", "answers"}.

"results" of rome and r-rome: {"u" [F], "divisor", "key_ratio", "right_vector" [D], "change_norm", "original_norm",
"optima": [one]}; the change of W as [D, F] is right_vector u^T. Of memit: {"optima": [of each fact], "layers":
[{"layer", "residuals" [n][D], "adjusted_keys" [n][F], "missing_norms" [n], "change_norm", "original_norm"}]}; the
change of a layer's W as [D, F] is residuals^T adjusted_keys. An optimum is {"start_norm" (|v0|, of memit |z0|), "delta"
[D], "first_gradient" [D], "evaluations": {"nll", "kl", "decay", "total", "delta_norm"}, each a number for each
evaluation}.

"answers": [{"prompt_ids", "target_ids", "before", "after"}]: the NLL by token, on the original and on the edited model,
of each fact's object behind its prompt and last of the first fact's object behind another text.
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

from golden_cases import LAST, MIDDLE, Prompt
from golden_families import DENSE, LONG
from make_goldens import made_by, write_golden
from reference_editor import (
    EditOptions,
    Fact,
    MemitEdit,
    Optimum,
    RomeEdit,
    Row,
    before_and_after,
    memit,
    rome,
    second_moments,
    weight_of,
    with_ridge,
)
from reference_tracer import REPOSITORY, config_of, load_model

ROME = EditOptions(steps=7, decay=0.1, clamp=2)
CLAMPED = replace(ROME, clamp=0.4, decay=0.5)
FREE = EditOptions(steps=20, learning_rate=0.2, decay=0.001, clamp=40)
EARLY = EditOptions(steps=60, learning_rate=0.5, decay=0, clamp=100)
MEMIT = EditOptions(steps=6, learning_rate=0.5, decay=0.1, clamp=0.75)
STRONG_KL = replace(ROME, kl=2.0)
ONE_EVALUATION = replace(ROME, steps=1)

FIRST_TOKEN = Prompt(5, (0, 1))
PAIR = (MIDDLE, FIRST_TOKEN)
NEAR = (MIDDLE, Prompt(5, (1, 3)))
"""Subjects that a window of attention of three tokens sees from the end of the prompt."""
TEXTS, LENGTH = 24, 12
"""Of the random texts of C: more tokens than any golden model's MLP has inputs."""
LARGEST_AMPLIFICATION = 1e4
"""Of a relative change of the weights in the results, so that rounding cannot show in a test."""


@dataclass(frozen=True)
class Edit:
    """One edit to be made; what is random comes from `about`."""

    about: str
    model: str
    method: str = "rome"
    layers: tuple[int, ...] = (0,)
    prompts: tuple[Prompt, ...] = (MIDDLE,)
    """Of each fact."""
    target: int = 1
    """Tokens of the object."""
    prefixes: tuple[int, ...] = (2, 4, 3)
    """Tokens before the prompt in each further row."""
    options: EditOptions = ROME
    ridge: float | None = 0.01
    weight: float | None = None
    """lambda"""


def edits_of(family: str, model: str) -> tuple[Edit, ...]:
    """Each method once, in few steps."""
    short, near = replace(ROME, steps=3), replace(MEMIT, steps=3)
    return (
        Edit(family, model, options=short),
        Edit(f"{family}, r-ROME", model, "r-rome", prompts=(FIRST_TOKEN,), prefixes=(2,), options=short),
        Edit(f"{family}, MEMIT", model, "memit", prompts=NEAR, options=near, weight=10),
    )


EDITS = (
    Edit("GPT-2, an object of two tokens", "odd_width", layers=(1,), target=2),
    Edit("GPT-2, r-ROME", "odd_width", "r-rome", layers=(1,), options=FREE),
    Edit("GPT-2, two layers of three", "odd_width", "memit", (0, 1), (*PAIR, LONG), 2, options=MEMIT, weight=20),
    Edit("GPT-2, without C", "untied_head", layers=(1,), options=CLAMPED, ridge=None),
    Edit("GPT-2, ends early", "odd_width", "r-rome", (2,), (LAST,), prefixes=(2,), options=EARLY),
    Edit("GPT-2, r-ROME, first layer", "untied_head", "r-rome", target=2, options=STRONG_KL),
    Edit("GPT-2, all layers, subjects last", "untied_head", "memit", (0, 1, 2), (LAST, LAST), options=MEMIT, weight=5),
    Edit("GPT-2, r-ROME, no step", "narrow_mlp", "r-rome", options=ONE_EVALUATION),
    Edit("GPT-2, twelve layers", "twelve_layers", layers=(5,), target=2, options=FREE),
    Edit("GPT-J", "gptj", target=2),
    Edit("GPT-J, r-ROME", "gptj", "r-rome", prompts=(FIRST_TOKEN,), options=CLAMPED),
    Edit("GPT-J, MEMIT", "gptj", "memit", prompts=PAIR, options=MEMIT, weight=10),
    Edit("GPT-Neo", "gpt_neo", options=STRONG_KL),
    Edit("GPT-Neo, r-ROME", "gpt_neo", "r-rome", target=2, options=FREE),
    Edit("GPT-Neo, MEMIT, subjects last", "gpt_neo", "memit", (0, 1), (LAST, LAST), 2, options=MEMIT, weight=1),
    Edit("GPT-NeoX", "gpt_neox", prompts=(LONG,), target=2, options=FREE),
    Edit("GPT-NeoX, r-ROME", "gpt_neox", "r-rome", ridge=None),
    Edit("GPT-NeoX, MEMIT", "gpt_neox", "memit", prompts=PAIR, target=3, options=MEMIT, weight=10),
    Edit("GPT-NeoX, ends early", "gpt_neox", layers=(1,), prompts=(LAST,), prefixes=(3,), options=EARLY),
    Edit("GPT-NeoX, sequential", "gpt_neox_sequential", options=FREE),
    Edit("GPT-NeoX, sequential, MEMIT", "gpt_neox_sequential", "memit", prompts=PAIR, options=MEMIT, weight=3),
    Edit("OPT", "opt", target=2, ridge=0.05),
    Edit("OPT, r-ROME", "opt", "r-rome", options=FREE),
    Edit("OPT, MEMIT", "opt", "memit", prompts=PAIR, target=2, options=MEMIT, ridge=0.05, weight=10),
    Edit("OPT, norms after", "opt_norm_after", target=2, options=CLAMPED),
    Edit("OPT, norms after, MEMIT", "opt_norm_after", "memit", (0, 1), (LAST, LAST), options=MEMIT, weight=10),
    Edit("Llama", "llama_grouped", prompts=(LONG,), target=3, options=FREE),
    Edit("Llama, r-ROME, last layer, subject last", "llama_grouped", "r-rome", (1,), (LAST,), options=FREE),
    Edit("Llama, MEMIT", "llama_grouped", "memit", prompts=PAIR, target=2, options=MEMIT, weight=10),
    Edit("Mistral", "mistral", layers=(1,), target=2),
    Edit("Mistral, r-ROME", "mistral", "r-rome", options=FREE),
    Edit("Mistral, MEMIT", "mistral", "memit", (0, 1), NEAR, 2, options=MEMIT, weight=2),
    Edit("Qwen 2, without C", "qwen2_sliding", target=2, options=FREE, ridge=None),
    Edit("Qwen 2, r-ROME, only the bare prompt", "qwen2_sliding", "r-rome", prefixes=(), options=CLAMPED),
    Edit("Qwen 2, MEMIT", "qwen2_sliding", "memit", prompts=NEAR, options=MEMIT, weight=10),
    Edit("Qwen 3", "qwen3", prompts=(LONG,), options=STRONG_KL),
    Edit("Qwen 3, r-ROME", "qwen3", "r-rome", target=2),
    Edit("Qwen 3, MEMIT", "qwen3", "memit", prompts=PAIR, target=2, options=MEMIT, weight=10),
    Edit("Gemma", "gemma", target=2, options=FREE),
    Edit("Gemma, r-ROME", "gemma", "r-rome", prompts=(FIRST_TOKEN,)),
    Edit("Gemma, MEMIT", "gemma", "memit", prompts=PAIR, options=MEMIT, weight=10),
    Edit("Gemma 2", "gemma2", target=2, options=FREE),
    Edit("Gemma 2, r-ROME", "gemma2", "r-rome", options=CLAMPED),
    Edit("Gemma 2, MEMIT, subjects last", "gemma2", "memit", (0, 1), (LAST, LAST), options=MEMIT, weight=3),
    Edit("Gemma 3", "gemma3", layers=(1,), target=2, options=FREE),
    Edit("Gemma 3, r-ROME", "gemma3", "r-rome", options=STRONG_KL),
    Edit("Gemma 3, MEMIT", "gemma3", "memit", (0, 1), PAIR, 2, options=MEMIT, weight=10),
    Edit("Gemma 3, sees images", "gemma3_multimodal", target=2),
    Edit("Gemma 3, sees images, r-ROME", "gemma3_multimodal", "r-rome", options=FREE, ridge=None),
    Edit("Gemma 3, sees images, MEMIT", "gemma3_multimodal", "memit", prompts=PAIR, options=MEMIT, weight=10),
    *(edit for family in DENSE for edit in edits_of(*family)),
)


# --- What is random ---------------------------------------------------------------------------------------------


def ids_of(random: np.random.RandomState, model: PreTrainedModel, tokens: int) -> tuple[int, ...]:
    """Random ids; not the last ones, which stand for images in Gemma 3."""
    return tuple(random.randint(0, config_of(model).vocab_size - 4, tokens).tolist())


def random_texts(model: PreTrainedModel, name: str) -> list[tuple[int, ...]]:
    """The texts of C, of several lengths."""
    random = np.random.RandomState(zlib.crc32(f"texts of {name}".encode()))
    return [ids_of(random, model, LENGTH - n % 3) for n in range(TEXTS)]


def random_fact(edit: Edit, model: PreTrainedModel, prompt: Prompt, random: np.random.RandomState) -> Fact:
    """A fact about one prompt, in rows behind random prefixes; MEMIT's bare prompt weighs half."""
    begin, end = prompt.subject
    bare = ids_of(random, model, prompt.tokens)
    prefixes = [ids_of(random, model, tokens) for tokens in (0, *edit.prefixes)]
    halved = edit.method == "memit" and len(prefixes) > 1
    others = 0.5 / (len(prefixes) - 1) if halved else 1 / len(prefixes)
    return Fact(
        rows=tuple(Row((*prefix, *bare), len(prefix) + end - 1) for prefix in prefixes),
        weights=(0.5 if halved else 1 / len(prefixes), *[others] * (len(prefixes) - 1)),
        subject=Row(bare[begin:end], end - begin - 1),
        target_ids=ids_of(random, model, edit.target),
    )


# --- One edit ---------------------------------------------------------------------------------------------------


def make_edit(edit: Edit, model: PreTrainedModel, moments: dict[int, torch.Tensor], facts: list[Fact]) -> Any:
    """What the judge makes of it: a RomeEdit or a MemitEdit."""
    if edit.ridge is not None:
        moments = {layer: with_ridge(moments[layer], edit.ridge) for layer in edit.layers}
    if edit.method == "memit":
        return memit(model, edit.layers, facts, moments, edit.weight, edit.options)
    (layer,) = edit.layers
    moment = None if edit.ridge is None else moments[layer]
    return rome(model, layer, facts[0], edit.options, moment, mean_key=edit.method == "r-rome")


def optima_of(made: RomeEdit | MemitEdit) -> list[Optimum]:
    return made.optima if isinstance(made, MemitEdit) else [made.optimum]


def tensors_of(made: RomeEdit | MemitEdit) -> list[torch.Tensor]:
    """What a test compares."""
    optima = [tensor for one in optima_of(made) for tensor in (one.delta, one.first_gradient)]
    if isinstance(made, MemitEdit):
        return [*optima, *(tensor for one in made.layers for tensor in (one.residuals, one.adjusted_keys))]
    return [*optima, made.u, made.right_vector]


def difference(one: RomeEdit | MemitEdit, other: RomeEdit | MemitEdit) -> float:
    """The largest of the tensors' differences, in their lengths; infinite if the optimisation ends elsewhere."""
    if [len(optimum.evaluations) for optimum in optima_of(one)] != [len(o.evaluations) for o in optima_of(other)]:
        return float("inf")
    pairs = zip(tensors_of(one), tensors_of(other))
    return max(((a - b).norm() / a.norm().clamp(min=1e-12)).item() for a, b in pairs)


def is_steady(
    edit: Edit, made: RomeEdit | MemitEdit, folder: Path, texts: list[tuple[int, ...]], facts: list[Fact]
) -> bool:
    """Whether rounding errors stay small: weights that differ by 1e-12 of themselves give nearly the same results."""
    model = load_golden_model(folder)
    random = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.mul_(1 + 1e-12 * torch.randn(parameter.shape, dtype=parameter.dtype, generator=random))
    moments, _ = second_moments(model, edit.layers, texts)
    return difference(made, make_edit(edit, model, moments, facts)) < 1e-12 * LARGEST_AMPLIFICATION


def is_telling(made: RomeEdit | MemitEdit, answers: list[dict[str, Any]], options: EditOptions) -> bool:
    """Whether the edit does something, and no decision in it is close."""
    for optimum in optima_of(made):
        gradient = optimum.first_gradient.abs()
        if gradient.min() < 1e-4 * gradient.max():
            return False  # Adam's first step goes by each number's sign
        if any(abs(one.total - options.enough) < 1e-6 for one in optimum.evaluations):
            return False
        if options == EARLY and len(optimum.evaluations) == options.steps:
            return False
        if len(optimum.evaluations) > 1 and optimum.evaluations[-1].nll > 0.9 * optimum.evaluations[0].nll:
            return False
    if isinstance(made, RomeEdit) and not 0.25 < made.key_ratio < 4:
        return False
    return all(abs(answer["after"] - answer["before"]) > 1e-3 for answer in answers) or options.steps == 1


def load_golden_model(folder: Path) -> PreTrainedModel:
    return load_model(folder, torch.float64).requires_grad_(False)


# --- The records ------------------------------------------------------------------------------------------------


def fact_of(record: dict[str, Any]) -> Fact:
    """The fact of such a record."""
    return Fact(
        rows=tuple(Row(tuple(row["ids"]), row["lookup"]) for row in record["rows"]),
        weights=tuple(row["weight"] for row in record["rows"]),
        subject=Row(tuple(record["subject"]["ids"]), record["subject"]["lookup"]),
        target_ids=tuple(record["target_ids"]),
    )


def fact_record(fact: Fact) -> dict[str, Any]:
    rows = [{**asdict(row), "weight": weight} for row, weight in zip(fact.rows, fact.weights)]
    return {"rows": rows, "subject": asdict(fact.subject), "target_ids": fact.target_ids}


def optimum_record(optimum: Optimum) -> dict[str, Any]:
    columns = [asdict(one) for one in optimum.evaluations]
    return {
        "start_norm": optimum.start.norm().item(),
        "delta": optimum.delta.tolist(),
        "first_gradient": optimum.first_gradient.tolist(),
        "evaluations": {name: [column[name] for column in columns] for name in columns[0]},
    }


def results_of(made: RomeEdit | MemitEdit) -> dict[str, Any]:
    optima = [optimum_record(optimum) for optimum in optima_of(made)]
    if isinstance(made, RomeEdit):
        numbers = {name: getattr(made, name) for name in ("divisor", "key_ratio", "change_norm", "original_norm")}
        return {"u": made.u.tolist(), "right_vector": made.right_vector.tolist(), **numbers, "optima": optima}
    layers = []
    for one in made.layers:
        tensors = {name: getattr(one, name).tolist() for name in ("residuals", "adjusted_keys")}
        numbers = {name: getattr(one, name) for name in ("missing_norms", "change_norm", "original_norm")}
        layers.append({"layer": one.layer, **tensors, **numbers})
    return {"optima": optima, "layers": layers}


def answer_records(
    model: PreTrainedModel, made: RomeEdit | MemitEdit, facts: list[Fact], other: tuple[int, ...]
) -> list[dict[str, Any]]:
    """Of each fact's object behind its prompt, and of the first one's behind another text."""
    questions = [(fact.rows[0].ids, fact.target_ids) for fact in facts] + [(other, facts[0].target_ids)]
    answers = before_and_after(model, made.changes, questions)
    return [
        {"prompt_ids": prompt, "target_ids": target, **asdict(answer)}
        for (prompt, target), answer in zip(questions, answers)
    ]


def edit_record(edit: Edit, folder: Path, model: PreTrainedModel, moments: dict[int, torch.Tensor]) -> dict[str, Any]:
    """The entry of the first random facts that tell something."""
    texts = random_texts(model, edit.model)
    for draw in range(300):
        random = np.random.RandomState(zlib.crc32(f"{edit.about} {draw}".encode()))
        facts = [random_fact(edit, model, prompt, random) for prompt in edit.prompts]
        other = ids_of(random, model, 5)
        made = make_edit(edit, model, moments, facts)
        answers = answer_records(model, made, facts, other)
        if not is_telling(made, answers, edit.options) or not is_steady(edit, made, folder, texts, facts):
            continue
        return {
            "about": edit.about,
            "model": edit.model,
            "method": edit.method,
            "layers": edit.layers,
            "ridge": edit.ridge,
            "lambda": edit.weight,
            "options": asdict(edit.options),
            "facts": [fact_record(fact) for fact in facts],
            "results": results_of(made),
            "answers": answers,
        }
    raise ValueError(f"no facts of 300 give a telling edit for {edit.about!r}")


def moment_record(
    name: str, texts: list[tuple[int, ...]], moments: dict[int, torch.Tensor], tokens: int
) -> dict[str, Any]:
    layers = [
        {"layer": layer, "trace": one.trace().item(), "norm": one.norm().item(), "first_row": one[0].tolist()}
        for layer, one in moments.items()
    ]
    return {"model": name, "texts": texts, "tokens": tokens, "layers": layers}


def spread_of(entries: list[dict[str, Any]]) -> Counter[str]:
    """How often each thing occurs that an editor can get wrong."""
    counts: Counter[str] = Counter()
    for entry in entries:
        counts[entry["method"]] += 1
        counts["without C"] += entry["ridge"] is None
        counts["several layers"] += len(entry["layers"]) > 1
        counts["several facts"] += len(entry["facts"]) > 1
        for fact, optimum in zip(entry["facts"], entry["results"]["optima"]):
            evaluations, bare = optimum["evaluations"], fact["rows"][0]
            counts["object of several tokens"] += len(fact["target_ids"]) > 1
            counts["subject last"] += bare["lookup"] == len(bare["ids"]) - 1
            counts["subject is the first token"] += bare["lookup"] == 0
            counts["ends early"] += len(evaluations["total"]) < entry["options"]["steps"]
            most = entry["options"]["clamp"] * optimum["start_norm"]
            counts["clamped"] += evaluations["delta_norm"][-1] > (1 - 1e-9) * most
            counts["never clamped"] += max(evaluations["delta_norm"]) < (1 - 1e-9) * most
    return counts


def make_edits(models: Path, only: Iterable[str] = ()) -> dict[str, Any]:
    """The golden: of all models, or of those named."""
    golden = made_by() | {"made_by": "tests/judge/make_edit_goldens.py", "dtype": "float64", "moments": [], "edits": []}
    names = list(dict.fromkeys(edit.model for edit in EDITS if not only or edit.model in only))
    for name in names:
        model = load_golden_model(models / name)
        edits = [edit for edit in EDITS if edit.model == name]
        layers = sorted({layer for edit in edits for layer in edit.layers})
        texts = random_texts(model, name)
        moments, tokens = second_moments(model, layers, texts)
        assert tokens > max(weight_of(model, layer).shape[1] for layer in layers)
        golden["moments"].append(moment_record(name, texts, moments, tokens))
        for edit in edits:
            golden["edits"].append(edit_record(edit, models / name, model, moments))
            nlls = [f"{answer['before']:.3f} > {answer['after']:.3f}" for answer in golden["edits"][-1]["answers"]]
            print(f"{edit.about}: {', '.join(nlls)}", flush=True)
    return golden


def main() -> int:
    parser = argparse.ArgumentParser(description="Makes tests/goldens/editing.json from Hugging Face transformers.")
    parser.add_argument("--models", type=Path, default=REPOSITORY / "tests/goldens/models")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "tests/goldens/editing.json")
    parser.add_argument("--only", nargs="+", default=[], metavar="MODEL", help="make these models' only, write nothing")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # sums in one order on every machine
    try:
        golden = make_edits(arguments.models, arguments.only)
        print(", ".join(f"{name}: {count}" for name, count in sorted(spread_of(golden["edits"]).items())))
        if not arguments.only:
            write_golden(golden, arguments.output)
            size = arguments.output.stat().st_size / 1e3
            print(f"{len(golden['edits'])} edits, {arguments.output.name} of {size:.0f} kB")
    except (OSError, ValueError, KeyError) as error:
        print(f"make_edit_goldens.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
