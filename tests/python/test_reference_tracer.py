"""The judge obeys the laws of causal tracing, which need no numbers from elsewhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reference_tracer import (
    KINDS,
    TraceOptions,
    byte_alphabet,
    draw_noise,
    find_subject,
    load_model,
    read_noise,
    trace,
    window_of,
)

TOKEN_IDS = [3, 14, 15, 9, 26]
SUBJECT = (1, 3)
OPTIONS = TraceOptions(sigma=1.5, samples=4, window=3)

# The same computation in rows of one batch: only the order of float64 sums may differ.
CLOSE = {"rtol": 1e-12, "atol": 1e-15}


@pytest.fixture(scope="module")
def model(repository: Path) -> Any:
    return load_model(repository / "tests/goldens/models/inverse_layer_scale", torch.float64)


@pytest.mark.parametrize("kind", KINDS)
def test_zero_noise_gives_the_clean_probability_everywhere(model: Any, kind: str) -> None:
    traced = trace(model, TOKEN_IDS, SUBJECT, replace(OPTIONS, kind=kind, sigma=0))
    np.testing.assert_allclose(traced["scores"], traced["high_score"], **CLOSE)
    np.testing.assert_allclose(traced["low_score"], traced["high_score"], **CLOSE)


def test_restoring_the_last_token_at_the_last_layer_gives_back_the_clean_probability(model: Any) -> None:
    traced = trace(model, TOKEN_IDS, SUBJECT, OPTIONS)
    np.testing.assert_allclose(traced["scores"][-1][-1], traced["high_score"], **CLOSE)
    np.testing.assert_allclose(np.array(traced["scores"])[:-1, -1], traced["low_score"], **CLOSE)


@pytest.mark.parametrize("kind", KINDS)
def test_restoring_before_the_subject_changes_nothing(model: Any, kind: str) -> None:
    traced = trace(model, TOKEN_IDS, SUBJECT, replace(OPTIONS, kind=kind))
    np.testing.assert_allclose(traced["scores"][0], traced["low_score"], **CLOSE)
    np.testing.assert_allclose(traced["standard_error"][0], traced["low_standard_error"], rtol=1e-9)


def test_the_corrupted_run_replaces_when_the_cells_do(model: Any) -> None:
    added = trace(model, TOKEN_IDS, SUBJECT, OPTIONS)
    replaced = trace(model, TOKEN_IDS, SUBJECT, replace(OPTIONS, replace=True))
    assert abs(added["low_score"] - replaced["low_score"]) > 1e-3
    np.testing.assert_allclose(replaced["scores"][0], replaced["low_score"], **CLOSE)


def test_a_target_is_followed_and_the_prediction_still_told(model: Any) -> None:
    top = trace(model, TOKEN_IDS, SUBJECT, OPTIONS)
    other = trace(model, TOKEN_IDS, SUBJECT, replace(OPTIONS, target=(top["answer_id"] + 1) % 50))
    assert other["prediction_id"] == top["answer_id"]
    assert other["prediction_score"] == top["high_score"]
    assert other["high_score"] < top["high_score"]


def test_a_single_draw_has_no_standard_error(model: Any) -> None:
    traced = trace(model, TOKEN_IDS, SUBJECT, replace(OPTIONS, samples=1))
    assert np.isnan(traced["low_standard_error"]) and np.isnan(traced["standard_error"]).all()


def test_no_hook_is_left_behind(model: Any) -> None:
    before = trace(model, TOKEN_IDS, SUBJECT, OPTIONS)
    assert trace(model, TOKEN_IDS, SUBJECT, OPTIONS) == before
    assert not any(module._forward_hooks for module in model.modules())


def test_windows_are_cut_at_both_ends() -> None:
    assert [list(window_of(layer, 3, 4)) for layer in range(4)] == [[0, 1], [0, 1, 2], [1, 2, 3], [2, 3]]
    assert window_of(20, 10, 48) == range(15, 25)
    assert window_of(2, 1, 4) == range(2, 3)


def test_noise_is_the_first_draws_of_a_fresh_generator_in_c_order() -> None:
    options = TraceOptions(seed=5, samples=3, sigma=2)
    expected = np.random.RandomState(5).randn(3 * 2 * 4) * 2
    assert draw_noise(options, 2, 4).ravel().tolist() == expected.tolist()
    uniform = draw_noise(replace(options, distribution="uniform"), 2, 4)
    assert np.abs(uniform).max() <= 2 and uniform.min() < 0 < uniform.max()


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
        ("0.1", ("gaussian", 0.1, False)),
        ("s", ("gaussian", 1, True)),
        ("s3", ("gaussian", 3, True)),
        ("u0.5", ("uniform", 0.5, False)),
    ],
)
def test_noise_rules_are_read(rule: str, expected: tuple[str, float, bool]) -> None:
    assert read_noise(rule) == expected


@pytest.mark.parametrize("rule", ["", "u", "x", "s3x", "-1"])
def test_other_noise_rules_are_refused(rule: str) -> None:
    with pytest.raises(ValueError, match="noise is"):
        read_noise(rule)
