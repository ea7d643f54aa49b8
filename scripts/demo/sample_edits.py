#!/usr/bin/env python3
"""Samples facts of the demo model, each with another object of its relation, for `rometrace edit --facts FILE --each`.

    scripts/demo/sample_edits.py 100 >demo-edits.jsonl

The prompt is the relation's first wording, the paraphrases are its others that are not held out, the neighbours up to
five subjects with the same object.
"""

from __future__ import annotations

import json
import random
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

FACTS = Path(__file__).resolve().parents[2] / "share/rometrace/facts.json"
SEED = 7
NEIGHBOURS = 5


def sampled(count: int) -> list[dict[str, Any]]:
    content = json.loads(FACTS.read_text(encoding="utf-8"))
    wordings = {
        name: [each["text"] for each in relation["wordings"] if not each.get("held_out")]
        for name, relation in content["relations"].items()
    }
    objects, subjects = defaultdict(set), defaultdict(list)
    for fact in content["facts"]:
        objects[fact["relation"]].add(fact["object"])
        subjects[fact["relation"], fact["object"]].append(fact["subject"])
    generator = random.Random(SEED)
    records = []
    for fact in generator.sample(content["facts"], count):
        relation, old = fact["relation"], fact["object"]
        first, *others = wordings[relation]
        same = [subject for subject in subjects[relation, old] if subject != fact["subject"]]
        records.append(
            {
                **fact,
                "object_new": generator.choice(sorted(objects[relation] - {old})),
                "prompt": first,
                "paraphrases": others,
                "neighbours": [first.replace("{}", subject) for subject in same[:NEIGHBOURS]],
            }
        )
    return records


def main() -> int:
    if len(sys.argv) != 2 or not sys.argv[1].isdigit():
        print("sample_edits.py: expected the number of facts, as in: sample_edits.py 100", file=sys.stderr)
        return 2
    for record in sampled(int(sys.argv[1])):
        print(json.dumps(record, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
