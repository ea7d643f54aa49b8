"""The schema of our own facts layout describes the facts that are shipped, and what rometrace reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable

import jsonschema
import pytest


@pytest.fixture(scope="module")
def validator(repository: Path) -> jsonschema.Draft202012Validator:
    schema = json.loads((repository / "share/rometrace/schema/facts-1.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.fixture(scope="module")
def shipped(repository: Path) -> dict[str, Any]:
    return json.loads((repository / "share/rometrace/facts.json").read_text(encoding="utf-8"))


def small() -> dict[str, Any]:
    """A file that uses every field."""
    return {
        "schema": "rometrace/facts/1",
        "source": "a test",
        "relations": {
            "plays": {
                "description": "the instrument",
                "wordings": [{"text": "{} plays the"}, {"text": "What {} plays is the", "held_out": True}],
            }
        },
        "facts": [
            {"id": "a", "subject": "Miles Davis", "relation": "plays", "object": "trumpet"},
            {"id": 2, "subject": "Chet", "relation": "plays", "prompt": "Chet sang and played the"},
            {
                "subject": "Dizzy",
                "relation": "plays",
                "object": "trumpet",
                "object_new": "piano",
                "paraphrases": ["We heard {} on the", "He was great on the"],
                "neighbours": "Chet plays the",
            },
        ],
    }


def test_the_shipped_facts_are_valid(validator: jsonschema.Draft202012Validator, shipped: dict[str, Any]) -> None:
    validator.validate(shipped)


def test_what_a_schema_cannot_say_holds_for_the_shipped_facts(shipped: dict[str, Any]) -> None:
    facts = shipped["facts"]
    assert len({str(fact["id"]) for fact in facts}) == len(facts)
    assert {fact["relation"] for fact in facts} == set(shipped["relations"])
    for relation in shipped["relations"].values():
        texts = [wording["text"] for wording in relation["wordings"]]
        assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("relation", ["{} plays", ["{} plays"], {"prompt": "{} plays"}, {"wordings": ["{}\nplays"]}])
def test_the_short_forms_of_a_relation_are_valid(validator: jsonschema.Draft202012Validator, relation: Any) -> None:
    validator.validate(small() | {"relations": {"plays": relation}})


WRONG: list[tuple[str, Callable[[dict[str, Any]], Any]]] = [
    ("another schema", lambda file: file.update(schema="rometrace/facts/2")),
    ("no facts", lambda file: file.pop("facts")),
    ("an empty list of facts", lambda file: file.update(facts=[])),
    ("relations as a list", lambda file: file.update(relations=[])),
    ("a relation without wordings", lambda file: file["relations"].update(plays={"description": "x"})),
    ("an empty list of wordings", lambda file: file["relations"]["plays"].update(wordings=[])),
    ("a wording without {}", lambda file: file["relations"]["plays"]["wordings"][0].update(text="plays")),
    ("a wording with {} twice", lambda file: file["relations"]["plays"]["wordings"][0].update(text="{} and\n{}")),
    ("a wording without text", lambda file: file["relations"]["plays"]["wordings"][0].pop("text")),
    ("held_out as a number", lambda file: file["relations"]["plays"]["wordings"][0].update(held_out=1)),
    ("a fact that is a text", lambda file: file["facts"].append("x")),
    ("no subject", lambda file: file["facts"][0].pop("subject")),
    ("a blank subject", lambda file: file["facts"][0].update(subject=" \n")),
    ("a subject with a zero byte", lambda file: file["facts"][0].update(subject="a\0")),
    ("neither relation nor prompt", lambda file: file["facts"][0].pop("relation")),
    ("an empty object", lambda file: file["facts"][0].update(object="")),
    ("an object that is a number", lambda file: file["facts"][0].update(object=1809)),
    ("an id that is a fraction", lambda file: file["facts"][0].update(id=1.5)),
    ("an empty id", lambda file: file["facts"][0].update(id="")),
    ("a prompt with {} twice", lambda file: file["facts"][1].update(prompt="{} or {}")),
    ("a new object that is a number", lambda file: file["facts"][2].update(object_new=1809)),
    ("an empty new object", lambda file: file["facts"][2].update(object_new=" ")),
    ("a paraphrase with {} twice", lambda file: file["facts"][2]["paraphrases"].append("{} or {}")),
    ("an empty neighbour", lambda file: file["facts"][2].update(neighbours=[""])),
    ("neighbours as an object", lambda file: file["facts"][2].update(neighbours={"a": "b"})),
]


@pytest.mark.parametrize("spoil", [spoil for _, spoil in WRONG], ids=[name for name, _ in WRONG])
def test_a_wrong_file_is_refused(validator: jsonschema.Draft202012Validator, spoil: Callable[..., Any]) -> None:
    validator.validate(small())
    wrong = small()
    spoil(wrong)
    assert not validator.is_valid(wrong)
