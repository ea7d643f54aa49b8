"""The demo model that rometrace ships is one worth tracing: checks of share/rometrace/{facts.json,demo}.

Needs torch, transformers, tokenizers and NumPy; skipped where one of them is absent. Nothing is trained here.
"""

import json
import random
import re
import sys
from pathlib import Path

import pytest

for _module in ("torch", "transformers", "tokenizers", "numpy"):
    pytest.importorskip(_module)

ROOT = Path(__file__).resolve().parents[2]

import numpy as np  # noqa: E402
import train_demo  # noqa: E402
from transformers import GPT2LMHeadModel  # noqa: E402

FACTS = ROOT / "share" / "rometrace" / "facts.json"
DEMO = ROOT / "share" / "rometrace" / "demo"
FILES = {"config.json", "model.safetensors", "vocab.json", "merges.txt", "README.md"}
MOST_BYTES = 8_000_000
MILES = "plays_instrument/miles-davis"


@pytest.fixture(scope="session", autouse=True)
def quick_memory():
    train_demo.keep_freed_memory()


@pytest.fixture(scope="session")
def document():
    return json.loads(FACTS.read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def facts_and_relations():
    return train_demo.read_facts(FACTS)


@pytest.fixture(scope="session")
def tokenizer():
    return train_demo.load_tokenizer(DEMO)


@pytest.fixture(scope="session")
def model():
    return GPT2LMHeadModel.from_pretrained(DEMO, attn_implementation="eager").eval()


@pytest.fixture(scope="session")
def answers(model, tokenizer, facts_and_relations):
    return train_demo.answer_all(model, tokenizer, *facts_and_relations)


@pytest.fixture(scope="session")
def tracer(model, tokenizer, facts_and_relations):
    subjects = [fact.subject for fact in facts_and_relations[0]]
    return train_demo.Tracer(model, tokenizer, train_demo.subject_noise_sigma(model, tokenizer, subjects))


@pytest.fixture(scope="session")
def miles(facts_and_relations):
    return next(fact for fact in facts_and_relations[0] if fact.id == MILES)


# ---------------------------------------------------------------- facts


def test_facts_have_the_schema_and_one_line_each(document):
    assert document["schema"] == "rometrace/facts/1"
    assert document["source"]
    lines = FACTS.read_text(encoding="utf-8").splitlines()
    assert sum(1 for line in lines if '"subject": ' in line) == len(document["facts"])


def test_there_are_facts_and_relations_enough(document):
    assert len(document["facts"]) >= 500
    assert len(document["relations"]) >= 6


def test_ids_are_unique_and_name_the_relation(document):
    ids = [fact["id"] for fact in document["facts"]]
    assert len(set(ids)) == len(ids)
    for fact in document["facts"]:
        assert re.fullmatch(re.escape(fact["relation"]) + r"/[a-z0-9]+(-[a-z0-9]+)*", fact["id"]), fact["id"]


def test_a_subject_has_one_object_in_a_relation(document):
    pairs = [(fact["relation"], fact["subject"]) for fact in document["facts"]]
    assert len(set(pairs)) == len(pairs)


def test_each_relation_has_wordings_of_both_sorts(document):
    for name, relation in document["relations"].items():
        texts = [wording["text"] for wording in relation["wordings"]]
        assert len(set(texts)) == len(texts), name
        assert {bool(wording.get("held_out")) for wording in relation["wordings"]} == {False, True}, name
        for text in texts:
            assert text.count("{}") == 1 and text == text.strip(), text


def test_a_prompt_contains_its_subject_first_where_the_wording_puts_it(document):
    wordings = {name: relation["wordings"] for name, relation in document["relations"].items()}
    for fact in document["facts"]:
        for wording in wordings[fact["relation"]]:
            prompt = wording["text"].format(fact["subject"])
            assert prompt.index(fact["subject"]) == wording["text"].index("{}"), prompt


def test_many_subjects_share_a_name(document):
    subjects = {fact["subject"] for fact in document["facts"]}
    words = [word for subject in subjects for word in subject.split()]
    shared = {word for word in words if words.count(word) > 1}
    assert sum(any(word in shared for word in subject.split()) for subject in subjects) > len(subjects) / 3
    assert sum("Davis" in subject.split() for subject in subjects) >= 10


def test_no_relation_has_an_object_for_half_of_its_facts(document):
    for name in document["relations"]:
        objects = [fact["object"] for fact in document["facts"] if fact["relation"] == name]
        assert max(map(objects.count, objects)) < len(objects) / 2, name


# ---------------------------------------------------------------- files


def test_the_folder_holds_the_five_files_and_is_small():
    assert {path.name for path in DEMO.iterdir()} == FILES
    assert sum(path.stat().st_size for path in DEMO.iterdir()) <= MOST_BYTES


def test_the_config_is_a_gpt2s(model):
    config = json.loads((DEMO / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["GPT2LMHeadModel"]
    assert config["model_type"] == "gpt2"
    assert config["activation_function"] == "gelu_new"
    assert all(parameter.dtype.is_floating_point and parameter.element_size() == 4 for parameter in model.parameters())


def test_vocabulary_ids_are_the_models(tokenizer, model):
    vocab = json.loads((DEMO / "vocab.json").read_text(encoding="utf-8"))
    assert sorted(vocab.values()) == list(range(model.config.vocab_size))
    assert train_demo.END_OF_TEXT in vocab


def test_each_merge_gives_a_token_of_its_own():
    vocab = json.loads((DEMO / "vocab.json").read_text(encoding="utf-8"))
    merges = (DEMO / "merges.txt").read_text(encoding="utf-8").splitlines()[1:]
    tokens = [merge.replace(" ", "") for merge in merges]
    assert len(set(tokens)) == len(tokens)
    assert len(tokens) == len(vocab) - 256 - 1  # all but the bytes and <|endoftext|>
    for merge in merges:
        assert all(part in vocab for part in (*merge.split(" "), merge.replace(" ", ""))), merge


def test_each_object_is_a_single_token_with_its_leading_space(tokenizer, document):
    for object_ in {fact["object"] for fact in document["facts"]}:
        assert len(tokenizer.encode(" " + object_).ids) == 1, object_


def test_most_subjects_are_several_tokens(tokenizer, document):
    counts = [len(tokenizer.encode(fact["subject"]).ids) for fact in document["facts"]]
    assert np.mean([count > 1 for count in counts]) > 0.95
    assert np.mean(counts) > 2.5


def test_text_survives_the_tokeniser(tokenizer, document):
    for fact in document["facts"]:
        assert tokenizer.decode(tokenizer.encode(fact["subject"]).ids) == fact["subject"]


# ---------------------------------------------------------------- answers


def test_at_least_95_percent_of_facts_are_answered_in_a_trained_wording(answers):
    facts = {answer.fact.id for answer in answers}
    known = {answer.fact.id for answer in answers if answer.right and not answer.held_out}
    assert len(known) >= 0.95 * len(facts)


def test_miles_davis_plays_the_trumpet(answers, miles):
    answer = next(a for a in answers if a.fact == miles and a.wording == "{} plays the")
    assert not answer.held_out and answer.right
    assert answer.probability > 0.5


def test_probabilities_are_short_of_certainty(answers):
    trained = [answer.probability for answer in answers if not answer.held_out]
    assert np.median(trained) < 0.99


def test_part_of_what_is_known_is_not_said_to_a_held_out_wording(answers):
    known = {answer.fact.id for answer in answers if answer.right and not answer.held_out}
    held_out = [answer.right for answer in answers if answer.held_out and answer.fact.id in known]
    assert 0.2 < np.mean(held_out) < 0.85
    for relation in {answer.fact.relation for answer in answers}:
        said = [answer.right for answer in answers if answer.held_out and answer.fact.relation == relation]
        assert 0 < np.mean(said) < 1, relation


# ---------------------------------------------------------------- traces


def test_a_corrupted_subject_loses_the_answer(tracer, facts_and_relations):
    facts, relations = facts_and_relations
    sample = random.Random(7).sample(facts, 100)
    scores = [tracer.scores_of(relations[fact.relation].trained[0].format(fact.subject), fact.subject) for fact in sample]
    high, low = np.mean(scores, axis=0)
    assert low < high / 3


def test_miles_davis_corrupted_loses_the_trumpet(tracer, miles):
    high, low = tracer.scores_of("Miles Davis plays the", miles.subject)
    assert low < high / 2


def test_the_trace_obeys_the_laws_of_restoration(tracer, miles):
    trace = tracer.trace("On the record, Miles Davis is heard on the", miles.subject)
    state = trace.scores["state"]
    assert state[-1, -1] == pytest.approx(trace.high_score, abs=1e-5)  # float32 sums in batches of another size
    assert state[:-1, -1] == pytest.approx(trace.low_score, abs=1e-5)
    for kind in train_demo.KINDS:
        assert trace.scores[kind][: trace.begin] == pytest.approx(trace.low_score, abs=1e-5)


def test_there_is_an_early_site_at_the_subject_and_a_late_one_at_the_end(tracer, facts_and_relations):
    facts, relations = facts_and_relations
    sample = random.Random(7).sample(facts, 8)
    traces = [tracer.trace(relations[fact.relation].trained[0].format(fact.subject), fact.subject) for fact in sample]
    effects = train_demo.mean_indirect_effects(traces)
    subject, last = effects["mlp"]["last subject token"], effects["attn"]["last token"]
    assert subject.max() > 0.04 and last.max() > 0.1  # a name of many tokens shares its effect among them
    assert subject.argmax() < last.argmax()
