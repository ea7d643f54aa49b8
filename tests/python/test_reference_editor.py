"""The judge of edits meets the numbers of the authors' own programs, and the laws of editing in every family.

Those numbers are in the folder "editing" of the folder of models and facts; its README says what they are and how far
from them another implementation may be, with room.
"""

from __future__ import annotations

import json
import math
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Sequence

import numpy as np
import pytest
import torch

from reference_editor import (
    MATRICES,
    Case,
    EditOptions,
    Fact,
    Row,
    Texts,
    before_and_after,
    edited,
    evaluate,
    halves,
    harmonic_mean,
    keys_and_values,
    matrix_of,
    memit,
    nll,
    object_nlls,
    on_output,
    rome,
    run,
    second_moments,
    success_and_magnitude,
    summarise,
    weight_of,
    with_ridge,
)
from reference_tracer import LAYOUTS, MIXTURES, clean_logits, config_of, load_model

LAYERS = {"gpt2-lyrics": (1, 2), "gpt2-horoscope": (2,), "stories260K-hf": (2,)}
"""Of each model, those whose second moment is needed here."""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


# --- The authors' numbers ---------------------------------------------------------------------------------------


class Authors:
    """The folder of the authors' numbers, and the models and second moments that it is about."""

    def __init__(self, shared: Path) -> None:
        self._shared = shared
        self.model = cache(self.model)
        self.texts = cache(self.texts)
        self.moments = cache(self.moments)

    def read(self, name: str) -> dict[str, Any]:
        return json.loads((self._shared / "editing" / name).read_text())

    def model(self, name: str) -> Any:
        return load_model(self._shared / "models" / name).requires_grad_(False)

    def texts(self, name: str) -> Texts:
        return Texts(self._shared / "models" / name)

    def moments(self, name: str) -> tuple[dict[int, torch.Tensor], int]:
        """Of the lines of the text, and the number of their tokens."""
        lines = (self._shared / "editing/stats-text.txt").read_bytes().decode().removesuffix("\n").split("\n")
        return second_moments(self.model(name), LAYERS[name], [self.texts(name).line_ids(line) for line in lines])

    def stored_moment(self, name: str, layer: int) -> torch.Tensor:
        """C [F, F], from its upper triangle."""
        numbers = np.fromfile(self._shared / f"editing/C-{name}-{layer}.tri", "<f4").astype(float)
        size = math.isqrt(2 * len(numbers))
        upper = np.zeros((size, size))
        upper[np.triu_indices(size)] = numbers
        return torch.from_numpy(upper + np.triu(upper, 1).T)


@pytest.fixture(scope="module")
def authors(shared: Path) -> Authors:
    if not (shared / "editing").is_dir():
        pytest.skip(f"{shared / 'editing'} is not there")
    return Authors(shared)


def options_of(hparams: dict[str, Any]) -> EditOptions:
    return EditOptions(
        steps=hparams["v_num_grad_steps"],
        learning_rate=hparams["v_lr"],
        decay=hparams["v_weight_decay"],
        clamp=hparams["clamp_norm_factor"],
        kl=hparams["kl_factor"],
    )


def difference(found: torch.Tensor, expected: Any) -> float:
    """Its length, in lengths of what is expected."""
    wanted = torch.as_tensor(expected, dtype=torch.float64)
    assert found.shape == wanted.shape
    return ((found.double() - wanted).norm() / wanted.norm()).item()


def assert_close(found: torch.Tensor, expected: Any, tolerance: float, what: str) -> None:
    assert difference(found, expected) < tolerance, what


def assert_same_steps(found: Sequence[Any], expected: Sequence[dict[str, float]], where: str) -> None:
    """Each loss and its parts within 1e-4, and |delta| where it is stored, at as many evaluations."""
    assert len(found) == len(expected), where
    for number, (one, other) in enumerate(zip(found, expected)):
        parts = {"nll": one.nll, "kl": one.kl, "decay": one.decay, "loss": one.total}
        for name, value in parts.items():
            assert value == pytest.approx(other[name], abs=1e-4), f"{where}, evaluation {number}: {name}"
        if "delta_norm" in other:
            assert one.delta_norm == pytest.approx(other["delta_norm"], rel=1e-4, abs=1e-6), f"{where}, {number}"


def assert_same_answers(
    model: Any, texts: Texts, objects: tuple[str, str], expected: Sequence[dict[str, Any]], where: str
) -> None:
    """NLL within 1e-3 and probability within 1e-4 of the new and the true object on each prompt."""
    for one in expected:
        found = object_nlls(model, texts, one["prompt"], objects)
        for value, name in zip(found, ("new", "true")):
            assert value == pytest.approx(one[f"nll_{name}"], abs=1e-3), f"{where}: {one['prompt']}"
            assert math.exp(-value) == pytest.approx(one[f"p_{name}"], abs=1e-4), f"{where}: {one['prompt']}"


@pytest.mark.parametrize(
    "name, layer", [("gpt2-lyrics", 1), ("gpt2-horoscope", 2), ("stories260K-hf", 2)], ids=lambda value: str(value)
)
def test_the_second_moment_of_the_text_is_the_authors(authors: Authors, name: str, layer: int) -> None:
    expected = authors.read("statistics.json")[f"C-{name}-{layer}.tri"]
    moments, tokens = authors.moments(name)
    found = moments[layer]
    assert tokens == expected["tokens"]
    assert_close(found, authors.stored_moment(name, layer), 1e-5, name)
    assert found.trace().item() == pytest.approx(expected["trace"], rel=1e-5)
    assert found.norm().item() == pytest.approx(expected["frobenius"], rel=1e-5)
    assert found[0, :4].tolist() == pytest.approx(expected["first_row_first_four"], rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("file", ["rome.json", "r-rome.json", "rome-llama.json"])
def test_single_edits_are_the_authors(authors: Authors, file: str) -> None:
    edits = authors.read(file)["edits"]
    assert len(edits) == {"rome.json": 8, "r-rome.json": 3, "rome-llama.json": 2}[file]
    for expected in edits:
        where, request, hparams = f"{file}, {expected['name']}", expected["request"], expected["hparams"]
        model, texts = authors.model(expected["model"]), authors.texts(expected["model"])
        fact = texts.fact(request["prompt"], request["subject"], request["target_new"], expected["context_templates"])
        assert list(fact.rows[0].ids) == expected["prompt_ids"], where
        assert list(fact.target_ids) == expected["target_ids"], where
        layer = expected["layer"]
        moment = authors.stored_moment(expected["model"], layer) if hparams["mom2_adjustment"] else None
        found = rome(model, layer, fact, options_of(hparams), moment, mean_key=file == "r-rome.json")
        assert found.lookups == expected["lookup_indices"], where
        assert_close(found.key_mean, expected["key_mean"], 1e-5, where)
        assert_close(found.key, expected["key_prompt"], 1e-5, where)
        assert_close(found.u, expected["u"], 1e-4, where)
        u = torch.tensor(expected["u"], dtype=torch.float64)
        assert 1 - (found.u @ u / u.norm()).item() < 1e-9, where
        assert_close(found.value, expected["output_prompt"], 1e-5, where)
        assert found.optimum.start.norm().item() == pytest.approx(expected["target_init_norm"], rel=1e-5), where
        assert_close(found.optimum.first_gradient, expected["first_gradient"], 1e-4, where)
        assert_same_steps(found.optimum.evaluations, expected["steps"], where)
        assert_close(found.optimum.delta, expected["delta"], 1e-4, where)
        assert found.divisor == pytest.approx(expected["divisor"], rel=1e-4), where
        assert_close(found.right_vector, expected["right_vector"], 1e-4, where)
        assert found.change_norm == pytest.approx(expected["change_norm"], rel=1e-4), where
        assert found.original_norm == pytest.approx(expected["original_norm"], rel=1e-5), where
        if expected["name"] == "lyrics-first-token":
            assert found.key_ratio == pytest.approx(0.22, abs=0.005), where
        objects = request["target_new"], request["target_true"]
        assert_same_answers(model, texts, objects, expected["before"], f"{where}, before")
        with edited(model, found.changes):
            assert_same_answers(model, texts, objects, expected["after"], f"{where}, after")


def test_a_batch_over_layers_is_the_authors(authors: Authors) -> None:
    (batch,) = authors.read("memit.json")["batches"]
    model, texts = authors.model(batch["model"]), authors.texts(batch["model"])
    moments, _ = authors.moments(batch["model"])
    facts = [
        texts.memit_fact(edit["prompt"], edit["subject"], edit["target_new"], batch["context_templates"])
        for edit in batch["edits"]
    ]
    assert [list(fact.target_ids) for fact in facts] == [edit["target_ids"] for edit in batch["edits"]]
    hparams = batch["hparams"]
    found = memit(model, batch["layers"], facts, moments, hparams["mom2_update_weight"], options_of(hparams))
    for optimum, target, expected in zip(found.optima, found.targets, batch["edits"], strict=True):
        where = f"memit.json, {expected['subject']}"
        assert optimum.start.norm().item() == pytest.approx(expected["target_init_norm"], rel=1e-5), where
        assert_close(optimum.first_gradient, expected["first_gradient"], 1e-4, where)
        assert_same_steps(optimum.evaluations, expected["steps"], where)
        assert_close(optimum.delta, expected["delta"], 1e-4, where)
        assert_close(target, expected["z"], 1e-4, where)
        objects = expected["target_new"], expected["target_true"]
        assert_same_answers(model, texts, objects, expected["before"], f"{where}, before")
    for layer, expected in zip(found.layers, batch["by_layer"], strict=True):
        where = expected["weight"]
        assert f".{layer.layer}." in where
        assert_close(layer.keys, expected["keys"], 1e-4, where)
        assert_close(layer.residuals, expected["residuals"], 1e-4, where)
        assert_close(layer.adjusted_keys, expected["adjusted_keys"], 1e-3, where)
        assert_close(layer.change[:, 0], expected["change_of_row_0"], 1e-3, where)
        assert layer.missing_norms == pytest.approx(expected["z_error"], rel=1e-4), where
        assert layer.change_norm == pytest.approx(expected["change_norm"], rel=1e-3), where
        assert layer.original_norm == pytest.approx(expected["original_norm"], rel=1e-5), where
    with edited(model, found.changes):
        for expected in batch["edits"]:
            objects = expected["target_new"], expected["target_true"]
            assert_same_answers(model, texts, objects, expected["after"], f"memit.json, {expected['subject']}, after")


def test_edits_in_a_row_are_the_authors(authors: Authors) -> None:
    sequence = authors.read("sequence.json")
    model, texts, layer = authors.model(sequence["model"]), authors.texts(sequence["model"]), 1
    original = weight_of(model, layer).clone()
    moment = authors.stored_moment(sequence["model"], layer)
    for expected in sequence["edits"]:
        objects = expected["new"], expected["true"]
        assert_same_answers(model, texts, objects, expected["before"], f"before all, {expected['subject']}")
    with ExitStack() as changed:
        for expected in sequence["edits"]:
            where = f"sequence.json, {expected['subject']}"
            prompt = expected["prompt"], expected["subject"], expected["new"]
            fact = texts.fact(*prompt, sequence["context_templates"])
            found = rome(model, layer, fact, options_of(sequence["hparams"]), moment)
            assert_close(found.u, expected["u"], 1e-4, where)
            assert_close(found.optimum.first_gradient, expected["first_gradient"], 1e-4, where)
            losses = [one.total for one in found.optimum.evaluations]
            assert losses == pytest.approx(expected["losses"], abs=1e-4), where
            assert_close(found.optimum.delta, expected["delta"], 1e-4, where)
            assert_close(found.right_vector, expected["right_vector"], 1e-4, where)
            changed.enter_context(edited(model, found.changes))
        change = (weight_of(model, layer) - original).norm().item()
        assert change == pytest.approx(sequence["change_norm"], rel=1e-4)
        for expected in sequence["edits"]:
            objects = expected["new"], expected["true"]
            assert_same_answers(model, texts, objects, expected["after_all"], f"after all, {expected['subject']}")
    assert torch.equal(weight_of(model, layer), original)


def test_an_evaluated_case_has_the_measures_of_the_authors_probabilities(authors: Authors) -> None:
    edits = authors.read("rome.json")["edits"]
    for expected in (edits[0], edits[3]):
        prompts, request = [one["prompt"] for one in expected["before"]], expected["request"]
        case = Case(prompts[0], request["target_new"], request["target_true"], prompts[1:2], prompts[2:])
        found = evaluate(authors.model(expected["model"]), authors.texts(expected["model"]), case)
        margins = [one["p_new"] - one["p_true"] for one in expected["before"]]
        assert found["EM"] == pytest.approx(margins[0], abs=1e-4)
        assert found["PM"] == pytest.approx(margins[1], abs=1e-4)
        assert found["NM"] == pytest.approx(-(margins[2] + margins[3]) / 2, abs=1e-4)
        assert found["ES"] == float(margins[0] > 0)
        assert found["PS"] == float(margins[1] > 0)
        assert found["NS"] == ((margins[2] < 0) + (margins[3] < 0)) / 2


def test_the_authors_score_is_the_harmonic_mean_of_their_rates(authors: Authors) -> None:
    summary = authors.read("sequence.json")["summary"]["authors"]
    for when in ("pre", "post"):
        rates = [summary[f"{when}_{kind}_success"][0] for kind in ("rewrite", "paraphrase", "neighborhood")]
        assert harmonic_mean(rates) == pytest.approx(summary[f"{when}_score"][0], abs=0.01)  # of rounded rates


def test_the_authors_summary_has_room_for_the_cases_that_are_known(authors: Authors) -> None:
    """Of its 21 cases 8 are in rome.json; the others add at most 1 each to a sum of rates."""
    summary = authors.read("sequence.json")["summary"]
    known = [edit for edit in authors.read("rome.json")["edits"] if edit["name"] in summary["cases"]]
    assert len(known) == 8
    for when, name in (("pre", "before"), ("post", "after")):
        cases = []
        for edit in known:
            new, true = ([one[f"nll_{which}"] for one in edit[name]] for which in ("new", "true"))
            pairs = {"ES": (new[:1], true[:1]), "PS": (new[1:2], true[1:2]), "NS": (true[2:], new[2:])}
            cases.append({kind: success_and_magnitude(*pair)[0] for kind, pair in pairs.items()})
        ours = summarise(cases)
        for kind, word in (("ES", "rewrite"), ("PS", "paraphrase"), ("NS", "neighborhood")):
            mean, deviation = (value / 100 for value in summary["authors"][f"{when}_{word}_success"])
            others = len(summary["cases"]) - len(known)
            sum_of_others = len(summary["cases"]) * mean - len(known) * ours[kind][0] / 100
            squares = len(known) * ((ours[kind][1] / 100) ** 2 + (ours[kind][0] / 100) ** 2)
            squares_of_others = len(summary["cases"]) * (deviation**2 + mean**2) - squares
            assert -0.01 < sum_of_others < others + 0.01, (when, kind)
            assert -0.01 < squares_of_others < sum_of_others + 0.01, (when, kind)  # rates are at most 1


# --- Texts and measures -----------------------------------------------------------------------------------------


def test_the_facts_token_is_counted_in_the_whole_text(demo: Path) -> None:
    texts = Texts(demo)
    fact = texts.fact("The mother tongue of {} is", "Danielle Darrieux", "French", ["{}", "He said {} and"])
    bare, second = fact.rows
    assert bare.ids == texts.ids("The mother tongue of Danielle Darrieux is")
    assert bare.ids[: bare.lookup + 1] == texts.ids("The mother tongue of Danielle Darrieux")
    assert second.ids == texts.ids("He said The mother tongue of Danielle Darrieux is and")
    assert second.ids[: second.lookup + 1] == texts.ids("He said The mother tongue of Danielle Darrieux")
    assert fact.subject == Row(texts.ids("Danielle Darrieux"), len(texts.ids("Danielle Darrieux")) - 1)
    assert bare.ids + fact.target_ids == texts.ids("The mother tongue of Danielle Darrieux is French")
    assert fact.weights == (0.5, 0.5)
    assert fact == texts.fact("The mother tongue of {} is", "Danielle Darrieux", " French", ["{}", "He said {} and"])


def test_half_of_memits_key_is_the_bare_prompts(demo: Path) -> None:
    kinds = [["{}"], ["One. {}", "Two. {}", "Three. {}", "Four. {}", "Five. {}"]]
    assert Texts(demo).memit_fact("{} is in", "Rome", "Spain", kinds).weights == pytest.approx([0.5, *[0.1] * 5])


def test_facts_that_cannot_be_edited_are_refused(demo: Path) -> None:
    texts = Texts(demo)
    with pytest.raises(ValueError, match="expected .* for the first"):
        texts.fact("{} is in", "Rome", "Spain", ["One. {}", "{}"])
    with pytest.raises(ValueError, match='expected one "{}" in it'):
        texts.fact("Rome is in", "Rome", "Spain")
    with pytest.raises(ValueError, match="is empty"):
        texts.fact("{} is in", "", "Spain")
    with pytest.raises(ValueError, match="is empty"):
        texts.fact("{} is in", "Rome", " ")
    assert halves("a {} b") == ("a ", " b")


def test_the_end_of_gpt2s_texts_is_one_token_of_a_line_and_text_in_a_prompt(demo: Path) -> None:
    texts = Texts(demo)
    assert texts.line_ids("The end.<|endoftext|>")[:-1] == texts.ids("The end.")
    assert len(texts.ids("The end.<|endoftext|>")) > len(texts.ids("The end.")) + 1


def test_measures_of_cases_are_means_and_deviations_in_percent() -> None:
    # A tie is no success: p 0.5 against 0.25, 0.25 and 0.5.
    half, quarter = -math.log(0.5), -math.log(0.25)
    success, magnitude = success_and_magnitude([half, quarter, quarter], [quarter, quarter, half])
    assert (success, magnitude) == (pytest.approx(1 / 3), pytest.approx(0, abs=1e-15))
    cases = [{"ES": 1.0, "PS": 1.0, "NS": 0.5, "EM": 0.5}, {"ES": 0.0, "PS": 1.0, "NS": 0.5, "EM": -0.1}]
    summary = summarise(cases)
    assert summary["ES"] == (50, 50)  # of the population: the sample's deviation is 70.7
    assert summary["EM"] == (pytest.approx(20), pytest.approx(30))
    assert summary["S"] == pytest.approx(3 / (1 / 50 + 1 / 100 + 1 / 50))
    assert harmonic_mean([0, 50, 100]) == 0


# --- The laws, in every family ----------------------------------------------------------------------------------

NAMES = (
    "odd_width gptj gpt_neo gpt_neox gpt_neox_sequential opt opt_norm_after llama_grouped mistral qwen2_sliding qwen3"
    " gemma gemma2 gemma3 gemma3_multimodal"
).split()
FACT = Fact(
    rows=(Row((3, 14, 15, 9, 26), 2), Row((31, 7, 3, 14, 15, 9, 26), 4), Row((8, 3, 14, 15, 9, 26), 3)),
    weights=(0.5, 0.25, 0.25),
    subject=Row((14, 15), 1),
    target_ids=(40, 5),
)
TEXT = [np.random.RandomState(n).randint(0, 44, 16).tolist() for n in range(30)]
OPTIONS = EditOptions(steps=4)


@pytest.fixture(scope="module", params=NAMES)
def model(request: pytest.FixtureRequest, repository: Path) -> Any:
    return load_model(repository / "tests/goldens/models" / request.param, torch.float64).requires_grad_(False)


def moment_of(model: Any, layer: int = 0) -> torch.Tensor:
    return with_ridge(second_moments(model, [layer], TEXT)[0][layer], 0.01)


def test_every_family_has_its_matrix() -> None:
    assert MATRICES.keys() == LAYOUTS.keys() - set(MIXTURES)


def test_rows_that_run_together_are_as_each_alone(model: Any) -> None:
    together = run(model, [row.ids for row in FACT.rows])
    for row, logits in zip(FACT.rows, together):
        torch.testing.assert_close(logits[: len(row.ids)], clean_logits(model, row.ids), rtol=1e-11, atol=1e-11)


def test_keys_and_values_belong_to_the_matrix(model: Any) -> None:
    keys, values = keys_and_values(model, 0, FACT.rows)
    assert keys.shape == (3, weight_of(model, 0).shape[1])
    bias = getattr(matrix_of(model, 0), "bias", None)
    expected = keys @ weight_of(model, 0).T + (0 if bias is None else bias)
    torch.testing.assert_close(values, expected, rtol=1e-11, atol=1e-11)


def test_rome_gives_the_bare_key_its_value_and_r_rome_the_mean_key(model: Any) -> None:
    moment = moment_of(model)
    for mean_key in (False, True):
        found = rome(model, 0, FACT, OPTIONS, moment, mean_key=mean_key)
        assert len(found.optimum.evaluations) == 4 and found.lookups == [2, 4, 3, 1]
        key = found.key_mean if mean_key else found.bare_key
        wanted = found.optimum.start + found.optimum.delta
        torch.testing.assert_close(found.value + found.change @ key, wanted, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(moment @ found.u, found.key_mean * (moment @ found.u).norm() / found.key_mean.norm())
        assert found.change_norm == pytest.approx(found.right_vector.norm().item())
        if not mean_key:
            with edited(model, found.changes):
                torch.testing.assert_close(keys_and_values(model, 0, FACT.rows)[1][0], wanted, rtol=1e-10, atol=1e-10)


def loss_at(model: Any, site: str, delta: torch.Tensor, start: torch.Tensor) -> float:
    """The loss, row by row and without gradients."""

    def said(ids: Sequence[int], lookup: int, by: torch.Tensor) -> torch.Tensor:
        def add(value: torch.Tensor) -> torch.Tensor:
            changed = value.clone()
            changed[0, lookup] += by
            return changed

        with torch.no_grad():
            return run(model, [ids], [on_output(model, site, 0, 1, add)])[0].log_softmax(-1)

    total = 0.0
    for row in FACT.rows:
        logs = said([*row.ids, *FACT.target_ids[:-1]], row.lookup, delta)[len(row.ids) - 1 :]
        total -= sum(logs[k, token].item() for k, token in enumerate(FACT.target_ids)) / len(FACT.target_ids)
    subject = [said(FACT.subject.ids, FACT.subject.lookup, by)[-1] for by in (delta, torch.zeros_like(delta))]
    divergence = (subject[0].exp() * (subject[0] - subject[1])).sum().item()
    decay = OPTIONS.decay * delta.norm().item() / start.norm().item() ** 2
    return total / len(FACT.rows) + OPTIONS.kl * divergence + decay


@pytest.mark.parametrize("site", ["mlp", "block"])
def test_losses_and_the_first_gradient_are_those_of_single_rows(model: Any, site: str) -> None:
    moment = moment_of(model)
    if site == "mlp":
        optimum = rome(model, 0, FACT, OPTIONS, moment).optimum
    else:
        (optimum,) = memit(model, [0], [FACT], {0: moment}, 20, OPTIONS).optima
    start = keys_and_values(model, 0, FACT.rows[:1], site)[1][0]
    torch.testing.assert_close(optimum.start, start, rtol=1e-11, atol=1e-11)
    zero = torch.zeros_like(start)
    assert optimum.evaluations[0].total == pytest.approx(loss_at(model, site, zero, start), rel=1e-11)
    assert optimum.evaluations[-1].total == pytest.approx(loss_at(model, site, optimum.delta, start), rel=1e-10)
    # The decay, whose norm has no derivative at 0, is the same on both sides.
    step, direction = 1e-6, optimum.first_gradient / optimum.first_gradient.norm()
    above, below = (loss_at(model, site, sign * step * direction, start) for sign in (1, -1))
    slope = (above - below) / (2 * step)
    assert slope == pytest.approx(optimum.first_gradient.norm().item(), rel=1e-6)


def test_the_first_step_goes_by_the_learning_rate_and_a_clamp_holds(model: Any) -> None:
    one_step = rome(model, 0, FACT, replace(OPTIONS, steps=2, clamp=1e9)).optimum
    expected = -OPTIONS.learning_rate * one_step.first_gradient.sign()
    seen = one_step.first_gradient.abs() > 1e-4  # where eps of Adam is not seen
    assert seen.any()
    torch.testing.assert_close(one_step.delta[seen], expected[seen], rtol=1e-3, atol=0)
    clamped = rome(model, 0, FACT, replace(OPTIONS, clamp=0.1)).optimum
    assert clamped.delta.norm().item() <= 0.1 * clamped.start.norm().item() * (1 + 1e-12)
    enough = rome(model, 0, FACT, replace(OPTIONS, enough=1e9)).optimum
    assert len(enough.evaluations) == 1 and enough.delta.norm() == 0


def test_memit_solves_its_normal_equations_and_leaves_the_model(model: Any) -> None:
    last = config_of(model).num_hidden_layers - 1
    # At the last layer only a fact whose subject ends the prompt can be learnt.
    facts = [Fact((Row((3, 14, 15), 2), Row((7, 3, 14, 15), 3)), (0.5, 0.5), Row((14, 15), 1), (40,))]
    facts.append(Fact((Row((9, 26), 1), Row((7, 9, 26), 2)), (0.5, 0.5), Row((26,), 0), (5, 11)))
    moments = second_moments(model, [0, last], TEXT)[0]
    moments = {layer: with_ridge(moment, 0.01) for layer, moment in moments.items()}
    before = [weight_of(model, layer).clone() for layer in (0, last)]
    found = memit(model, [0, last], facts, moments, 2, replace(OPTIONS, clamp=0.75))
    assert all(torch.equal(weight_of(model, layer), old) for layer, old in zip((0, last), before))
    for share, layer in zip((2, 1), found.layers):
        keys, moment = layer.keys, moments[layer.layer]
        left = layer.change @ (2 * moment + keys.T @ keys)
        torch.testing.assert_close(left, layer.residuals.T @ keys, rtol=1e-9, atol=1e-9)
        assert layer.missing_norms == pytest.approx([share * one.norm().item() for one in layer.residuals])
    assert sum(found.layers[1].missing_norms) < sum(found.layers[0].missing_norms)
    # Without a price for other keys, one layer of as many inputs as facts or more says what is wanted of it.
    exact = memit(model, [0], facts, moments, 1e-9, replace(OPTIONS, clamp=0.75))
    (layer,) = exact.layers
    torch.testing.assert_close(layer.change @ layer.keys.T, layer.residuals.T, rtol=1e-4, atol=1e-4)


def test_questions_are_asked_before_and_after(model: Any) -> None:
    found = rome(model, 0, FACT, OPTIONS, moment_of(model))
    prompt = FACT.rows[0].ids
    (answer,) = before_and_after(model, found.changes, [(prompt, FACT.target_ids)])
    assert answer.before == pytest.approx(nll(model, prompt, FACT.target_ids))
    logs = [clean_logits(model, (*prompt, *FACT.target_ids[:k]))[-1].log_softmax(-1) for k in range(2)]
    assert answer.before == pytest.approx(-(logs[0][40] + logs[1][5]).item() / 2)
    changed = deepcopy(model)
    weight_of(changed, 0).add_(found.change)
    assert answer.after == nll(changed, prompt, FACT.target_ids) != answer.before


def test_the_second_moment_is_that_of_each_token_alone(model: Any) -> None:
    texts = [[3, 14, 15, 9], [26, 5], [1, 2, 3, 4], [7]]
    keys = [keys_and_values(model, 0, [Row(tuple(text), n) for n in range(len(text))])[0] for text in texts]
    together = torch.cat(keys)
    moments, tokens = second_moments(model, [0], texts, batch=1)
    assert tokens == len(together) == 11
    torch.testing.assert_close(moments[0], together.T @ together / 11, rtol=1e-11, atol=1e-12)


def test_a_text_is_cut_to_the_positions_of_the_model(repository: Path) -> None:
    model = load_model(repository / "tests/goldens/models/full_context", torch.float64)
    long = list(range(10))
    (moments, tokens), (cut, _) = (second_moments(model, [1], [text]) for text in (long, long[:7]))
    assert tokens == 7
    assert torch.equal(moments[1], cut[1])
    with pytest.raises(ValueError, match="a row has 10 tokens, and the model has 7 positions"):
        nll(model, long, [1])


def test_a_singular_second_moment_is_refused(repository: Path) -> None:
    model = load_model(repository / "tests/goldens/models/odd_width", torch.float64)
    moments, _ = second_moments(model, [0], [[1, 2, 3]])
    with pytest.raises(ValueError, match="singular"):
        rome(model, 0, FACT, OPTIONS, moments[0])
