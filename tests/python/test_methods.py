"""Every kind, direction, corruption, answer and measure of the command line, against a plain tracer over transformers
on the model that rometrace ships."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from agreement import Live, Traced, compare

MILES, DAVIS = "Miles Davis plays the", "Miles Davis"
SUBJECT_LAST = "The instrument of Miles Davis"
EVERYTHING = ("--kinds", "state,mlp,attn,head,knockout", "--sever", "mlp,attn", "--window", "3", "--samples", "3")
MEASURES = "log_probability,logit,logit_difference,normalised,rank,kl"

CASES = (
    Live("everything", MILES, DAVIS, EVERYTHING),
    Live("everything, noising", MILES, DAVIS, (*EVERYTHING, "--direction", "noising")),
    Live("everything, subject last", SUBJECT_LAST, DAVIS, EVERYTHING),
    Live("windows", MILES, DAVIS, (*EVERYTHING, "--head-window", "4", "--knockout-window", "2")),
    Live("the last subject token", MILES, DAVIS, (*EVERYTHING, "--positions", "subject-last")),
    Live("the subject's tokens", MILES, DAVIS, (*EVERYTHING, "--positions", "subject", "--direction", "noising")),
    Live("listed positions", MILES, DAVIS, (*EVERYTHING, "--positions", "3,1")),
    Live("zero embeddings", MILES, DAVIS, ("--corrupt", "zero", "--window", "3")),
    Live("the mean embedding of the shipped prompts", MILES, DAVIS, ("--corrupt", "mean", "--window", "3")),
    Live("multivariate noise", MILES, DAVIS, ("--noise", "m", "--window", "3")),
    Live("Student noise in place", MILES, DAVIS, ("--noise", "t3", "--replace", "--window", "3")),
    Live("another subject", MILES, DAVIS, ("--counter-subject", "Ray Brown", "--window", "3")),
    Live("another prompt", MILES, DAVIS, ("--counter-prompt", "Ray Brown plays a", *EVERYTHING[:-2])),
    Live("an answer of three tokens", MILES, DAVIS, (*EVERYTHING, "--answer", "greedy:3")),
    Live("an answer of a word", MILES, DAVIS, (*EVERYTHING, "--answer", "word")),
    Live("a target of several tokens", MILES, DAVIS, ("--target", " piano and", "--window", "3")),
    Live("several targets", MILES, DAVIS, ("--target", " trumpet", "--target", " guitar", "--target", " piano")),
    Live("measures", MILES, DAVIS, ("--measures", MEASURES, "--foil", " guitar", "--window", "3")),
    Live("measures of two tokens", MILES, DAVIS, ("--measures", "rank,kl,normalised", "--answer", "greedy:2")),
    Live("draws until precise", MILES, DAVIS, ("--precision", "0.03", "--kinds", "state", "--samples", "7")),
    Live("draws up to a cap", MILES, DAVIS, ("--precision", "0.001", "--most-samples", "25", "--kinds", "state")),
)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("engine", ["sweep", "plain"])
@pytest.mark.parametrize("live", CASES, ids=lambda live: live.claim)
def test_the_method_agrees(traced: Traced, repository: Path, live: Live, engine: str) -> None:
    def with_engine(*arguments: str) -> dict:
        return traced(*arguments, "--engine", engine)

    compare(with_engine, repository / "share/rometrace/demo", live, "float64")


def test_the_method_agrees_in_float32(traced: Traced, repository: Path) -> None:
    live = Live("", MILES, DAVIS, (*EVERYTHING, "--measures", "log_probability,logit"))
    compare(traced, repository / "share/rometrace/demo", live, "float32")


def test_a_text_of_ones_own_sets_the_moments(traced: Traced, repository: Path, tmp_path: Path) -> None:
    text = tmp_path / "corpus.txt"
    facts = json.loads((repository / "share/rometrace/facts.json").read_text())["facts"]
    text.write_text("\n".join(fact["subject"] for fact in facts), encoding="utf-8")
    live = Live("", MILES, DAVIS, ("--noise", "m", "--noise-text", str(text), "--kinds", "state"))
    compare(traced, repository / "share/rometrace/demo", live, "float64")
