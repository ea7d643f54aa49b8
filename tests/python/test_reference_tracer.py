"""The judge obeys the laws of causal tracing, which need no numbers from elsewhere."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable, Iterable, Sequence

import numpy as np
import pytest
import torch

from reference_tracer import (
    DIRECTIONS,
    GRID_KINDS,
    KINDS,
    MEASURES,
    SEVERED,
    NoiseRule,
    TraceOptions,
    byte_alphabet,
    draw_noise,
    encode,
    ends_word,
    find_subject,
    join,
    knockout_groups,
    load_model,
    load_tokenizer,
    moments_of,
    parse_arguments,
    read_noise,
    read_positions,
    read_prompts,
    say,
    symmetric_root,
    target_name,
    token_bytes,
    trace,
    trace_draws,
    trace_record,
    window_of,
)

TOKEN_IDS = [3, 14, 15, 9, 26]
SUBJECT = (1, 3)
OPTIONS = TraceOptions(kinds=GRID_KINDS, sigma=1.5, samples=4, window=3)
ZERO = replace(OPTIONS, method="zero")
TOKENS = replace(OPTIONS, method="tokens", counter_ids=(3, 40, 15, 22, 26))
TEXT = tuple(np.random.RandomState(0).randint(0, 53, 60).tolist())

# The same computation in rows of one batch: only the order of float64 sums may differ.
CLOSE = {"rtol": 1e-12, "atol": 1e-15}
# The same computation written differently; differences of logits lose a few digits.
NEAR = {"rtol": 1e-10, "atol": 1e-13}


@pytest.fixture(scope="module")
def model(repository: Path) -> Any:
    return load_model(repository / "tests/goldens/models/inverse_layer_scale", torch.float64)


def scores_of(traced: dict[str, Any], kind: str) -> np.ndarray:
    """[P, L], of heads [P, L, H]."""
    return np.array(traced["grids"][kind]["probability"]["values"])


def high_of(traced: dict[str, Any]) -> float:
    return traced["high"]["probability"]


def low_of(traced: dict[str, Any]) -> float:
    return traced["low"]["probability"]


# --- The model, written out -------------------------------------------------------------------------------------

Change = Callable[[str, int, torch.Tensor], torch.Tensor]


def forward_by_hand(
    model: Any,
    token_ids: Sequence[int],
    zeroed: tuple[int, int] = (0, 0),
    change: Change = lambda part, layer, value: value,
    cut: Callable[[int, int, int], bool] = lambda layer, query, key: False,
) -> torch.Tensor:
    """Logits [positions, V] of a GPT-2 with its attention written out, of one prompt without a batch.

    `zeroed` positions have embeddings of 0, `change` may change what each part of a layer gives [positions, D], and
    attention does not see where `cut` says so.
    """
    config, body = model.config, model.transformer
    positions, size = len(token_ids), config.n_embd // config.n_head
    embeddings = body.wte.weight[list(token_ids)].clone()
    embeddings[zeroed[0] : zeroed[1]] = 0
    stream = embeddings + body.wpe.weight[:positions]
    for layer, block in enumerate(body.h):
        entry = block.ln_1(stream) @ block.attn.c_attn.weight + block.attn.c_attn.bias
        queries, keys, values = entry.split(config.n_embd, dim=1)
        mixed = torch.zeros_like(stream)
        for head in range(config.n_head):
            part = slice(head * size, (head + 1) * size)
            for query in range(positions):
                seen = [key for key in range(query + 1) if not cut(layer, query, key)]
                strength = keys[seen][:, part] @ queries[query, part] / math.sqrt(size)
                if config.scale_attn_by_inverse_layer_idx:
                    strength = strength / (layer + 1)
                mixed[query, part] = torch.softmax(strength, dim=0) @ values[seen][:, part]
        mixed = change("head", layer, mixed)
        stream = stream + change("attn", layer, mixed @ block.attn.c_proj.weight + block.attn.c_proj.bias)
        stream = change("state", layer, stream + change("mlp", layer, block.mlp(block.ln_2(stream))))
    return body.ln_f(stream) @ model.lm_head.weight.T


def joint_by_hand(logits: torch.Tensor, answer_ids: Sequence[int]) -> float:
    """The answer's probability from logits [T + K - 1, V]."""
    said = torch.softmax(logits[-len(answer_ids) :], dim=-1)
    return math.prod(said[k, token].item() for k, token in enumerate(answer_ids))


Kept = dict[tuple[str, int], torch.Tensor]
"""Part and layer -> its value [positions, D]."""


def run_by_hand(model: Any, token_ids: Sequence[int], zeroed: tuple[int, int]) -> Kept:
    """What each part of each layer gives."""
    kept: Kept = {}

    def keep(part: str, at: int, value: torch.Tensor) -> torch.Tensor:
        kept[part, at] = value
        return value

    forward_by_hand(model, token_ids, zeroed, keep)
    return kept


@torch.no_grad()
def scores_by_hand(
    model: Any, answer_ids: Sequence[int], options: TraceOptions, kind: str, cells: Iterable[tuple[int, ...]]
) -> list[float]:
    """Cells' scores under zero embeddings, from the runs written out."""
    ids = [*TOKEN_IDS, *answer_ids[:-1]]
    of_source, of_base = ((0, 0), SUBJECT) if options.direction == "denoising" else (SUBJECT, (0, 0))
    source, base = run_by_hand(model, ids, of_source), run_by_hand(model, ids, of_base)
    size = model.config.n_embd // model.config.n_head
    windows = {"mlp": options.window, "attn": options.window, "head": options.head_window}

    def score(position: int, layer: int, head: int | None = None) -> float:
        patched = window_of(layer, windows.get(kind, 1), model.config.n_layer)

        def patch(part: str, at: int, value: torch.Tensor) -> torch.Tensor:
            changed = value.clone()
            if part == ("state" if kind in SEVERED else kind) and at in patched:
                columns = slice(None) if head is None else slice(head * size, (head + 1) * size)
                changed[position, columns] = source[part, at][position, columns]
            if part == SEVERED.get(kind):
                changed[position] = base[part, at][position]
            return changed

        return joint_by_hand(forward_by_hand(model, ids, of_base, patch), answer_ids)

    return [score(*cell) for cell in cells]


@pytest.mark.parametrize("answer_ids", [(7,), (7, 21)])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_every_cell_is_that_of_a_model_written_out(model: Any, direction: str, answer_ids: tuple[int, ...]) -> None:
    options = replace(ZERO, direction=direction, answer_ids=answer_ids, head_window=2)
    traced = trace(model, TOKEN_IDS, SUBJECT, options)
    for kind in GRID_KINDS:
        scores = scores_of(traced, kind)
        by_hand = scores_by_hand(model, answer_ids, options, kind, np.ndindex(scores.shape))
        np.testing.assert_allclose(scores.ravel(), by_hand, **NEAR)


@pytest.mark.parametrize("answer_ids", [(7,), (7, 21, 30)])
@pytest.mark.parametrize("window", [1, 3])
def test_knockout_is_attention_that_leaves_positions_out(
    model: Any, window: int, answer_ids: tuple[int, ...]
) -> None:
    options = TraceOptions(kinds=("knockout",), sigma=1, knockout_window=window, answer_ids=answer_ids)
    traced = trace(model, TOKEN_IDS, SUBJECT, options)
    ids, last = [*TOKEN_IDS, *answer_ids[:-1]], len(TOKEN_IDS) - 1
    groups = {"subject": [1, 2], "before": [0], "after": [3], "last": [4]}
    assert {name: group["positions"] for name, group in traced["knockout"].items()} == groups
    for group in traced["knockout"].values():
        for layer, score in enumerate(group["scores"]):
            layers = window_of(layer, window, 4)
            with torch.no_grad():
                logits = forward_by_hand(
                    model, ids, cut=lambda at, query, key: at in layers and query >= last and key in group["positions"]
                )
            np.testing.assert_allclose(score, joint_by_hand(logits, answer_ids), **NEAR)
            assert group["relative_change"][layer] == (score - high_of(traced)) / high_of(traced)


# --- Laws of the grids ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_zero_noise_gives_the_clean_probability_everywhere(model: Any, direction: str) -> None:
    traced = trace(model, TOKEN_IDS, SUBJECT, replace(OPTIONS, direction=direction, sigma=0))
    for kind in GRID_KINDS:
        np.testing.assert_allclose(scores_of(traced, kind), high_of(traced), **CLOSE)
    np.testing.assert_allclose(low_of(traced), high_of(traced), **CLOSE)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_counter_prompt_that_is_the_prompt_changes_nothing(model: Any, direction: str) -> None:
    options = replace(TOKENS, direction=direction, counter_ids=tuple(TOKEN_IDS))
    traced = trace(model, TOKEN_IDS, SUBJECT, options)
    for kind in GRID_KINDS:
        np.testing.assert_allclose(scores_of(traced, kind), high_of(traced), **CLOSE)
    np.testing.assert_allclose(low_of(traced), high_of(traced), **CLOSE)


@pytest.mark.parametrize("answer_ids", [(7,), (7, 21)])
def test_noising_is_denoising_with_the_prompts_exchanged(model: Any, answer_ids: tuple[int, ...]) -> None:
    options = replace(TOKENS, answer_ids=answer_ids)
    one = trace(model, TOKEN_IDS, SUBJECT, options)
    exchanged = replace(options, direction="noising", counter_ids=tuple(TOKEN_IDS))
    other = trace(model, TOKENS.counter_ids, SUBJECT, exchanged)
    np.testing.assert_allclose([high_of(one), low_of(one)], [low_of(other), high_of(other)], **CLOSE)
    assert abs(high_of(one) - low_of(one)) > 0.1 * high_of(one)
    for kind in GRID_KINDS:
        np.testing.assert_allclose(scores_of(one, kind), scores_of(other, kind), **CLOSE)


def test_restoring_the_last_token_at_the_last_layer_gives_back_the_clean_probability(model: Any) -> None:
    traced = trace(model, TOKEN_IDS, SUBJECT, OPTIONS)
    scores = scores_of(traced, "state")
    np.testing.assert_allclose(scores[-1, -1], high_of(traced), **CLOSE)
    np.testing.assert_allclose(scores[:-1, -1], low_of(traced), **CLOSE)


def test_noising_the_last_token_at_the_last_layer_gives_the_corrupted_probability(model: Any) -> None:
    traced = trace(model, TOKEN_IDS, SUBJECT, replace(OPTIONS, direction="noising"))
    scores = scores_of(traced, "state")
    np.testing.assert_allclose(scores[-1, -1], low_of(traced), **CLOSE)
    np.testing.assert_allclose(scores[:-1, -1], high_of(traced), **CLOSE)


def test_noising_all_that_the_corruption_touched_gives_the_corrupted_probability(model: Any) -> None:
    last = (len(TOKEN_IDS) - 1, len(TOKEN_IDS))
    traced = trace(model, TOKEN_IDS, last, replace(OPTIONS, direction="noising"))
    np.testing.assert_allclose(scores_of(traced, "state")[-1], low_of(traced), **CLOSE)
    assert abs(high_of(traced) - low_of(traced)) > 0.1 * high_of(traced)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_patching_before_the_subject_changes_nothing(model: Any, direction: str) -> None:
    traced = trace(model, TOKEN_IDS, SUBJECT, replace(OPTIONS, direction=direction))
    for kind in GRID_KINDS:
        grid = traced["grids"][kind]["probability"]
        base = low_of(traced) if direction == "denoising" else high_of(traced)
        np.testing.assert_allclose(grid["values"][0], base, **CLOSE)
        error = traced["low_standard_error"]["probability"] if direction == "denoising" else 0
        np.testing.assert_allclose(grid["standard_error"][0], error, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_severing_nothing_that_follows_is_the_state(model: Any, direction: str) -> None:
    traced = trace(model, TOKEN_IDS, SUBJECT, replace(OPTIONS, direction=direction))
    for kind in SEVERED:
        severed, state = scores_of(traced, kind), scores_of(traced, "state")
        np.testing.assert_allclose(severed[:, -1], state[:, -1], **CLOSE)
        assert np.abs(severed[1:, :-1] - state[1:, :-1]).max() > 1e-3


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_only_head_is_all_that_attention_adds_but_its_bias(repository: Path, direction: str) -> None:
    model = load_model(repository / "tests/goldens/models/one_head", torch.float64)
    traced = trace(model, TOKEN_IDS, SUBJECT, replace(OPTIONS, direction=direction, head_window=3))
    np.testing.assert_allclose(scores_of(traced, "head")[..., 0], scores_of(traced, "attn"), **CLOSE)


def test_positions_are_rows_of_the_whole_grid(model: Any) -> None:
    whole = trace(model, TOKEN_IDS, SUBJECT, OPTIONS)
    some = trace(model, TOKEN_IDS, SUBJECT, replace(OPTIONS, positions=(1, 4)))
    assert some["positions"] == [1, 4] and whole["positions"] == [0, 1, 2, 3, 4]
    for kind in GRID_KINDS:
        np.testing.assert_allclose(scores_of(some, kind), scores_of(whole, kind)[[1, 4]], **CLOSE)


def test_a_single_draw_has_no_standard_error(model: Any) -> None:
    for options in (replace(OPTIONS, samples=1), ZERO, TOKENS):
        traced = trace(model, TOKEN_IDS, SUBJECT, options)
        assert traced["samples"] == 1
        assert np.isnan(traced["low_standard_error"]["probability"])
        assert np.isnan(traced["grids"]["head"]["probability"]["standard_error"]).all()


def test_no_hook_is_left_behind(model: Any) -> None:
    options = replace(OPTIONS, kinds=KINDS)
    before = trace(model, TOKEN_IDS, SUBJECT, options)
    assert trace(model, TOKEN_IDS, SUBJECT, options) == before
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_windows_are_cut_at_both_ends() -> None:
    assert [list(window_of(layer, 3, 4)) for layer in range(4)] == [[0, 1], [0, 1, 2], [1, 2, 3], [2, 3]]
    assert window_of(20, 10, 48) == range(15, 25)
    assert window_of(2, 1, 4) == range(2, 3)


def test_groups_are_disjoint_and_leave_something_to_look_at() -> None:
    assert knockout_groups(5, (3, 5)) == {"subject": [3], "before": [0, 1, 2], "last": [4]}
    assert knockout_groups(5, (4, 5)) == {"before": [0, 1, 2, 3], "last": [4]}
    assert knockout_groups(4, (0, 1)) == {"subject": [0], "after": [1, 2], "last": [3]}
    assert knockout_groups(1, (0, 1)) == {}


# --- Answers and measures ---------------------------------------------------------------------------------------


def test_a_target_is_followed_and_the_prediction_still_told(model: Any) -> None:
    top = trace(model, TOKEN_IDS, SUBJECT, OPTIONS)
    (answer,) = top["answer_ids"]
    other = trace(model, TOKEN_IDS, SUBJECT, replace(OPTIONS, answer_ids=((answer + 1) % 50,)))
    assert other["prediction_id"] == answer
    assert other["prediction_score"] == high_of(top)
    assert high_of(other) < high_of(top)


@pytest.mark.parametrize("options", [ZERO, TOKENS], ids=["zero", "tokens"])
def test_an_answers_probability_is_the_product_of_its_tokens(model: Any, options: TraceOptions) -> None:
    answer = (7, 21, 30)
    joint = trace(model, TOKEN_IDS, SUBJECT, replace(options, answer_ids=answer))
    parts = []
    for k in range(3):
        counter = options.counter_ids and (*options.counter_ids, *answer[:k])
        one = replace(options, answer_ids=answer[k : k + 1], counter_ids=counter, positions=tuple(range(5)))
        parts.append(trace(model, [*TOKEN_IDS, *answer[:k]], SUBJECT, one))
    for value in (high_of, low_of, *(lambda traced, kind=kind: scores_of(traced, kind) for kind in GRID_KINDS)):
        product = value(parts[0]) * value(parts[1]) * value(parts[2])
        np.testing.assert_allclose(value(joint), product, **CLOSE)


@torch.no_grad()
def test_measures_are_those_of_the_logits(model: Any) -> None:
    answer, foil, other = (7, 21), 9, 11
    options = replace(ZERO, kinds=("state",), answer_ids=answer, foil=foil, other_targets=(other,))
    traced = trace(model, TOKEN_IDS, SUBJECT, options)
    ids, last = [*TOKEN_IDS, 7], len(TOKEN_IDS) - 1
    clean = forward_by_hand(model, ids).numpy()
    for end, logits in (("high", clean), ("low", forward_by_hand(model, ids, SUBJECT).numpy())):
        p, q = (np.exp(row) / np.exp(row).sum() for row in (clean[last], logits[last]))
        after = np.exp(logits[last + 1]) / np.exp(logits[last + 1]).sum()
        expected = {
            "probability": q[7] * after[21],
            "log_probability": math.log(q[7] * after[21]),
            "logit": logits[last, 7],
            "logit_difference": logits[last, 7] - logits[last, foil],
            "rank": 1 + sum(logit > logits[last, 7] for logit in logits[last]),
            "kl": (p * np.log(p / q)).sum(),
            target_name(other): q[other],
            "normalised": 1 if end == "high" else 0,
        }
        assert set(traced[end]) == set(expected) == {*MEASURES, target_name(other)}
        for name, value in expected.items():
            np.testing.assert_allclose(traced[end][name], value, err_msg=name, **NEAR)
    assert traced["high"]["rank"] > 1 and traced["low"]["kl"] > 0.01


@pytest.mark.parametrize("foil", [None, 9])
def test_normalised_is_0_as_corrupted_and_1_as_clean(model: Any, foil: int | None) -> None:
    traced = trace(model, TOKEN_IDS, SUBJECT, replace(OPTIONS, foil=foil))
    assert traced["normalised_of"] == ("probability" if foil is None else "logit_difference")
    grid = traced["grids"]["state"]["normalised"]
    np.testing.assert_allclose(np.array(grid["values"])[-1, -1], 1, rtol=1e-9)
    np.testing.assert_allclose(np.array(grid["values"])[:-1, -1], 0, atol=1e-9)
    assert grid["standard_error"] is None


def test_another_target_is_the_trace_of_it(model: Any) -> None:
    one = trace(model, TOKEN_IDS, SUBJECT, replace(OPTIONS, other_targets=(9, 11)))
    for token in (9, 11):
        other = trace(model, TOKEN_IDS, SUBJECT, replace(OPTIONS, answer_ids=(token,)))
        name = target_name(token)
        assert (one["high"][name], one["low"][name]) == (high_of(other), low_of(other))
        for kind in GRID_KINDS:
            assert one["grids"][kind][name] == other["grids"][kind]["probability"]


def test_measures_are_means_over_draws_with_their_errors(model: Any) -> None:
    options = replace(OPTIONS, kinds=("head",), positions=(2,))
    prediction = trace(model, TOKEN_IDS, SUBJECT, options)["prediction_id"]
    draws = trace_draws(model, TOKEN_IDS, SUBJECT, (prediction,), options, 0)
    traced = trace(model, TOKEN_IDS, SUBJECT, options)
    for name in ("rank", "kl", "logit"):
        values = draws.grids["head"][name][0, 3, 1]
        grid = traced["grids"]["head"][name]
        np.testing.assert_allclose(grid["values"][0][3][1], sum(values) / 4, **CLOSE)
        error = math.sqrt(sum((values - sum(values) / 4) ** 2) / 3 / 4)
        np.testing.assert_allclose(grid["standard_error"][0][3][1], error, rtol=1e-9, atol=1e-15)


# --- Corruptions ------------------------------------------------------------------------------------------------


def assert_same_trace(one: dict[str, Any], other: dict[str, Any]) -> None:
    np.testing.assert_allclose(low_of(one), low_of(other), **CLOSE)
    for kind in GRID_KINDS:
        np.testing.assert_allclose(scores_of(one, kind), scores_of(other, kind), **CLOSE)


def test_the_corrupted_run_replaces_when_the_cells_do(model: Any) -> None:
    added = trace(model, TOKEN_IDS, SUBJECT, OPTIONS)
    replaced = trace(model, TOKEN_IDS, SUBJECT, replace(OPTIONS, replace=True))
    assert abs(low_of(added) - low_of(replaced)) > 1e-3
    np.testing.assert_allclose(scores_of(replaced, "state")[0], low_of(replaced), **CLOSE)


def test_zero_embeddings_are_no_noise_in_place(model: Any) -> None:
    no_noise = replace(OPTIONS, sigma=0, replace=True, samples=1)
    assert_same_trace(trace(model, TOKEN_IDS, SUBJECT, ZERO), trace(model, TOKEN_IDS, SUBJECT, no_noise))


def test_the_mean_of_one_token_is_that_token(model: Any) -> None:
    mean = replace(OPTIONS, method="mean", text_ids=(40, 40))
    token = replace(OPTIONS, method="tokens", counter_ids=(3, 40, 40, 9, 26))
    assert_same_trace(trace(model, TOKEN_IDS, SUBJECT, mean), trace(model, TOKEN_IDS, SUBJECT, token))


def test_multivariate_noise_of_one_repeated_token_in_place_is_that_token(model: Any) -> None:
    noise = replace(OPTIONS, distribution="multivariate", text_ids=(40, 40), replace=True, samples=1)
    token = replace(OPTIONS, method="tokens", counter_ids=(3, 40, 40, 9, 26))
    assert_same_trace(trace(model, TOKEN_IDS, SUBJECT, noise), trace(model, TOKEN_IDS, SUBJECT, token))


def test_moments_are_numpys_with_repeats(model: Any) -> None:
    embeddings = model.transformer.wte.weight.detach().numpy()[list(TEXT)]
    mean, covariance = moments_of(model, TEXT)
    np.testing.assert_allclose(mean, embeddings.mean(axis=0), **CLOSE)
    np.testing.assert_allclose(covariance, np.cov(embeddings, rowvar=False), rtol=1e-10, atol=1e-13)


def test_the_root_is_symmetric_and_squares_to_the_covariance_of_any_rank() -> None:
    factor = np.random.RandomState(3).randn(6, 6)
    for covariance in (factor @ factor.T, factor[:, :2] @ factor[:, :2].T, np.zeros((6, 6))):
        root = symmetric_root(covariance)
        np.testing.assert_allclose(root, root.T, atol=1e-14)
        np.testing.assert_allclose(root @ root, covariance, atol=1e-13)
        assert np.linalg.matrix_rank(root, tol=1e-9) == np.linalg.matrix_rank(covariance, tol=1e-9)


def test_noise_is_the_first_draws_of_a_fresh_generator_in_c_order() -> None:
    options = TraceOptions(seed=5, samples=3, sigma=2)
    expected = np.random.RandomState(5).randn(3 * 2 * 4) * 2
    assert draw_noise(options, 2, 4).ravel().tolist() == expected.tolist()
    uniform = draw_noise(replace(options, distribution="uniform"), 2, 4)
    assert np.abs(uniform).max() <= 2 and uniform.min() < 0 < uniform.max()


@pytest.mark.parametrize(
    "options",
    [
        TraceOptions(samples=100_000, distribution="multivariate"),
        TraceOptions(samples=100_000, distribution="student", degrees_of_freedom=12),
    ],
    ids=lambda options: options.distribution,
)
def test_noise_of_a_text_has_its_moments(options: TraceOptions) -> None:
    factor = np.random.RandomState(4).randn(3, 3)
    covariance, mean = factor @ factor.T, np.array([1.0, 0, -2])
    centred = draw_noise(options, 2, 3, (np.zeros(3), covariance)).reshape(-1, 3)
    # 200,000 draws tell moments to about 1 in 300.
    np.testing.assert_allclose(np.cov(centred, rowvar=False), covariance, atol=0.02 * covariance.max())
    np.testing.assert_allclose(centred.mean(axis=0), 0, atol=0.02)
    assert abs(np.corrcoef(centred[0::2, 0], centred[1::2, 0])[0, 1]) < 0.01  # tokens are drawn apart
    moved = draw_noise(options, 2, 3, (mean, covariance)).reshape(-1, 3)
    df = options.degrees_of_freedom
    # E sqrt((df - 2) / u) of a chi-square u.
    shrink = math.sqrt((df - 2) / 2) * math.gamma((df - 1) / 2) / math.gamma(df / 2) if df else 1
    np.testing.assert_allclose(moved.mean(axis=0), shrink * mean, atol=0.02)
    tail = np.mean((centred / centred.std(axis=0)) ** 4)  # kurtosis: 3 of a normal, 3 + 6 / (df - 4) of a Student
    np.testing.assert_allclose(tail, 3 + 6 / (df - 4) if df else 3, atol=0.2)


def test_a_students_scale_is_one_a_token_row_of_a_generator_of_its_own() -> None:
    options = TraceOptions(samples=3, distribution="student", degrees_of_freedom=2.5)
    moments = (np.array([1.0, 2.0]), np.diag([4.0, 9.0]))
    normal = draw_noise(replace(options, distribution="multivariate"), 5, 2, moments)
    ratios = draw_noise(options, 5, 2, moments) / normal
    expected = np.sqrt(0.5 / np.random.RandomState(2).chisquare(2.5, 15)).reshape(3, 5)
    np.testing.assert_allclose(ratios, np.stack([expected, expected], axis=-1), **CLOSE)


@pytest.mark.parametrize("distribution", ["gaussian", "uniform", "multivariate", "student"])
def test_more_draws_go_on_where_the_first_ended(model: Any, distribution: str) -> None:
    options = replace(
        OPTIONS, kinds=("state", "head"), positions=(2,), samples=9, distribution=distribution, degrees_of_freedom=3
    )
    options = replace(options, text_ids=TEXT)

    def draw(first: int, count: int) -> Any:
        return trace_draws(model, TOKEN_IDS, SUBJECT, (7,), replace(options, samples=count), first)

    at_once, in_steps = draw(0, 9), join(draw(0, 5), draw(5, 4))
    found, expected = ({"low": draws.low} | draws.grids for draws in (in_steps, at_once))
    for part, measures in expected.items():
        for name, values in measures.items():
            np.testing.assert_allclose(found[part][name], values, rtol=1e-11, atol=1e-13)
    assert len(set(at_once.low["probability"])) == 9


def test_a_precision_is_reached_by_the_draws_that_it_needs(model: Any) -> None:
    asked = replace(OPTIONS, kinds=("state", "mlp"), precision=0.03, most_samples=500)
    traced = trace(model, TOKEN_IDS, SUBJECT, asked)
    used = traced["samples"]
    assert used % 4 == 0 and 8 <= used < 500
    errors = [traced["low_standard_error"]["probability"]]
    errors += [np.max(grid["probability"]["standard_error"]) for grid in traced["grids"].values()]
    assert max(errors) == traced["largest_error"] < 0.03
    at_once = trace(model, TOKEN_IDS, SUBJECT, replace(asked, precision=None, samples=used))
    for kind in asked.kinds:
        np.testing.assert_allclose(scores_of(traced, kind), scores_of(at_once, kind), rtol=1e-11)
    one_step_less = trace(model, TOKEN_IDS, SUBJECT, replace(asked, precision=None, samples=used - 4))
    assert one_step_less["largest_error"] >= 0.03


def test_a_precision_gives_up_at_the_cap(model: Any) -> None:
    asked = replace(OPTIONS, kinds=("state",), precision=1e-9, most_samples=10)
    assert trace(model, TOKEN_IDS, SUBJECT, asked)["samples"] == 10
    with pytest.raises(ValueError, match="zero has one draw"):
        trace(model, TOKEN_IDS, SUBJECT, replace(ZERO, precision=0.1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kinds": ("heads",)}, "kind is 'heads'"),
        ({"direction": "up"}, "direction is 'up'"),
        ({"positions": (1, 5)}, "position 5 is not in the prompt of 5 tokens"),
        ({"method": "tokens", "counter_ids": (1, 2)}, "has 2 tokens, expected 5"),
        ({"distribution": "student", "degrees_of_freedom": 2.0}, "expected a number above 2"),
        ({"answer_ids": (1,) * 13}, "need 17 positions, and the model has 16"),
    ],
)
def test_options_without_a_meaning_are_refused(model: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trace(model, TOKEN_IDS, SUBJECT, replace(OPTIONS, **changes))


# --- Texts ------------------------------------------------------------------------------------------------------


def test_a_subject_is_found_by_bytes_where_a_character_is_split_over_tokens() -> None:
    pieces = ["I ".encode(), "東".encode()[:2], "東".encode()[2:] + "京".encode()[:1], "京".encode()[1:], b"!"]
    prompt = b"".join(pieces).decode()
    assert find_subject(pieces, prompt, "東") == (1, 3)
    assert find_subject(pieces, prompt, "京") == (2, 4)
    assert find_subject(pieces, prompt, "I") == (0, 1)
    with pytest.raises(ValueError, match="not in the prompt"):
        find_subject(pieces, prompt, "大")


def test_the_byte_alphabet_holds_every_byte_once() -> None:
    alphabet = byte_alphabet()
    assert sorted(alphabet.values()) == list(range(256))
    assert alphabet["Ġ"] == ord(" ") and alphabet["Ċ"] == ord("\n") and alphabet["A"] == ord("A")


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("0.1", NoiseRule("gaussian", 0.1)),
        ("s", NoiseRule("gaussian", 1, of_subjects=True)),
        ("s3", NoiseRule("gaussian", 3, of_subjects=True)),
        ("u0.5", NoiseRule("uniform", 0.5)),
        ("m", NoiseRule("multivariate")),
        ("t2.5", NoiseRule("student", degrees_of_freedom=2.5)),
    ],
)
def test_noise_rules_are_read(rule: str, expected: NoiseRule) -> None:
    assert read_noise(rule) == expected


@pytest.mark.parametrize("rule", ["", "u", "x", "s3x", "-1", "t", "t2", "t-3", "m3"])
def test_other_noise_rules_are_refused(rule: str) -> None:
    with pytest.raises(ValueError, match="noise is"):
        read_noise(rule)


def test_positions_are_read() -> None:
    read = {spec: read_positions(spec, 6, (1, 3)) for spec in ("all", "subject", "subject-last", "last", "4,0,4")}
    assert list(read.values()) == [None, (1, 2), (2,), (5,), (0, 4)]
    for spec in ("", "first", "1,", "-1", "1-3"):
        with pytest.raises(ValueError, match="positions are"):
            read_positions(spec, 6, (1, 3))


def test_a_word_ends_before_ascii_that_is_neither_letter_nor_digit() -> None:
    assert [ends_word(piece) for piece in (b"ing", b"7th", "é".encode(), b"\xa9")] == [False] * 4
    assert [ends_word(piece) for piece in (b" of", b"-", b".", b"\n", b"'s", b"_")] == [True] * 6


# --- The program, on the demo model -----------------------------------------------------------------------------

PROMPT, DEMO_SUBJECT = "Miles Davis plays the", "Miles Davis"


@pytest.fixture(scope="module")
def demo_tracer(repository: Path) -> Any:
    """The demo model and its tokeniser."""
    folder = repository / "share/rometrace/demo"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    return SimpleNamespace(folder=folder, model=load_model(folder), tokenizer=load_tokenizer(folder))


def record_of(demo_tracer: Any, *options: str) -> dict[str, Any]:
    arguments = ["--model", str(demo_tracer.folder), "--prompt", PROMPT, "--subject", DEMO_SUBJECT, *options]
    return trace_record(parse_arguments([*arguments, "--samples", "2"]))


def test_the_greedy_answer_is_what_transformers_generates(demo_tracer: Any) -> None:
    token_ids = encode(demo_tracer.tokenizer, PROMPT)
    found = say(demo_tracer.model, demo_tracer.tokenizer, token_ids, most=8, whole_word=False)
    mask = torch.ones(1, len(token_ids))
    generated = demo_tracer.model.generate(
        torch.tensor([token_ids]), max_new_tokens=8, do_sample=False, pad_token_id=0, attention_mask=mask
    )[0, len(token_ids) :].tolist()
    end = demo_tracer.model.config.eos_token_id
    assert list(found) == (generated[: generated.index(end)] if end in generated else generated)
    assert len(found) > 1


def test_a_word_is_the_greedy_answer_up_to_where_it_ends(demo_tracer: Any) -> None:
    for prompt in (PROMPT, "The Colosseum is a landmark of", "The author of Hamlet is", "Miles Da"):
        token_ids = encode(demo_tracer.tokenizer, prompt)
        greedy = say(demo_tracer.model, demo_tracer.tokenizer, token_ids, most=16, whole_word=False)
        pieces = [token_bytes(demo_tracer.tokenizer, token) for token in greedy]
        length = next((k for k in range(1, len(greedy)) if ends_word(pieces[k])), len(greedy))
        word = say(demo_tracer.model, demo_tracer.tokenizer, token_ids, most=16, whole_word=True)
        assert word == greedy[:length], prompt


def test_the_record_has_all_that_was_asked_for(demo_tracer: Any) -> None:
    options = "--kinds head,knockout --sever mlp,none --positions subject-last --noise t3".split()
    options += "--measures kl,logit_difference,normalised".split()
    record = record_of(demo_tracer, *options, "--foil", " piano", "--target", " trumpet", "--target", " piano")
    assert record["run"]["noise"] == {"rule": "t3", "sigma": None, "replace": False}
    assert record["run"]["corruption"]["text"]["name"] == "facts.json"
    assert set(record["grids"]) == {"head", "state", "state_mlp_severed"}
    heads = record["grids"]["head"]
    config = demo_tracer.model.config
    assert (heads["heads"], heads["window"], heads["positions"]) == (config.n_head, 1, [1])
    assert np.shape(heads["scores"]) == np.shape(heads["indirect_effect"]) == (1, config.n_layer, config.n_head)
    assert record["knockout"]["window"] == 9 and list(record["knockout"]["groups"]) == ["subject", "after", "last"]
    assert list(record["measures"]) == ["kl", "logit_difference", "normalised"]
    assert record["measures"]["logit_difference"]["foil"] == " piano"
    assert record["measures"]["normalised"]["of"] == "logit_difference"
    (target,) = record["other_targets"]
    assert target["target"] == " piano" and set(target["grids"]) == set(record["grids"])


def test_effects_are_what_a_patch_gives_back_or_takes_away(demo_tracer: Any) -> None:
    for direction in DIRECTIONS:
        record = record_of(
            demo_tracer, "--kinds", "state", "--direction", direction, "--counter-prompt", "Miles Davis is the"
        )
        grid = record["grids"]["state"]
        np.testing.assert_allclose(grid["indirect_effect"][-1][-1], record["total_effect"], rtol=1e-5)
        assert record["counter"]["subject"] is None and record["counter"]["token_ids"] != record["token_ids"]
        assert record["run"]["noise"] is None and record["run"]["corruption"] == {"method": "tokens"}


def test_an_answer_of_several_tokens_is_told_whole(demo_tracer: Any) -> None:
    record = record_of(demo_tracer, "--kinds", "state", "--noise", "1", "--target", " trumpet.")
    assert record["answer"] == " trumpet." and record["answer_bytes"] == b" trumpet.".hex()
    assert record["answer_ids"] == encode(demo_tracer.tokenizer, " trumpet.")
    assert record["answer_id"] == record["answer_ids"][0] == record["prediction_id"]
    assert record["high_score"] < record["prediction_score"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--counter-subject", "Louis Armstrong"), "the prompt has 4 tokens.*the counter prompt 8"),
        (("--target", " trumpet.", "--target", " piano"), "target ' trumpet.' is 2 tokens, expected one"),
        (("--target", " piano", "--answer", "word"), "give one"),
        (("--measures", "logit_difference"), "needs a --foil"),
        (("--measures", "loss"), "measure is 'loss'"),
        (("--answer", "greedy:0"), "answer is 'greedy:0'"),
        (("--sever", "state"), "sever is 'state'"),
        (("--corrupt", "mean", "--precision", "0.1"), "mean has one draw"),
    ],
)
def test_a_command_line_without_a_meaning_is_refused(demo_tracer: Any, options: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        record_of(demo_tracer, *options)


def test_the_facts_prompts_are_those_of_every_wording(repository: Path) -> None:
    prompts = read_prompts(repository / "share/rometrace/facts.json")
    assert prompts[:2] == [PROMPT, "Miles Davis is a master of the"]
    assert len(prompts) == 8 * 1029
