#!/usr/bin/env python3
"""Writes what llama.cpp makes of the GGUF files of the tests to tests/goldens/llama_cpp.json: logits of small models of
each architecture, and tokens of texts by the names of splits. For architectures that transformers does not read from
GGUF it is the only judge besides the weights' own folder, which is our own way to write them.

  tests/judge/make_llama_cpp_goldens.py REPOSITORY [GPT2_TOKENIZER]

Needs llama-cpp-python, built from source (pip install --no-binary llama-cpp-python llama-cpp-python), beside what
tests/requirements.txt has. GPT2_TOKENIZER: a folder with GPT-2's vocab.json and merges.txt; without it the tokens that
are there already are kept. The tests write the same files again and compare (tests/python/test_gguf_llama_cpp.py)."""

from __future__ import annotations

import json
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

REPOSITORY = Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
sys.path.insert(0, str(REPOSITORY / "tests/python"))

import gguf  # noqa: E402
import llama_cpp  # noqa: E402

from gguf_llama_cpp import LOGIT_CASES, POSITIONS, PRES, TEXTS, TOKEN_IDS, write_case, write_vocabulary  # noqa: E402

DIGITS = 7


def logits_of(file: Path) -> list[list[float]]:
    """[POSITIONS, V]: in float32 all the way, keys and values too. The ends of YaRN's ramp are given, which llama.cpp
    does not read from files of these architectures."""
    scaling = json.loads((file.parent / "config.json").read_text()).get("rope_scaling") or {}
    model = llama_cpp.Llama(
        str(file),
        n_ctx=32,
        n_threads=1,
        n_threads_batch=1,
        logits_all=True,
        type_k=llama_cpp.GGML_TYPE_F32,
        type_v=llama_cpp.GGML_TYPE_F32,
        yarn_beta_fast=scaling.get("beta_fast", -1.0),
        yarn_beta_slow=scaling.get("beta_slow", -1.0),
        verbose=False,
    )
    model.eval(TOKEN_IDS)
    rows = model.scores[POSITIONS]
    model.close()
    return [[float(f"{value:.{DIGITS}g}") for value in row] for row in rows]


def tokens_of(file: Path) -> list[list[int]]:
    model = llama_cpp.Llama(str(file), vocab_only=True, verbose=False)
    ids = [model.tokenize(text.encode(), add_bos=False, special=False) for text in TEXTS]
    model.close()
    return ids


def main() -> None:
    target = REPOSITORY / "tests/goldens/llama_cpp.json"
    goldens: dict[str, Any] = {"versions": {"llama-cpp-python": llama_cpp.__version__, "gguf": version("gguf")}}
    goldens["logits"], goldens["tokens"] = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name in LOGIT_CASES:
            goldens["logits"][name] = logits_of(write_case(REPOSITORY, name, Path(folder) / name))
            print(name)
        if len(sys.argv) > 2:
            for pre in PRES:
                file = write_vocabulary(Path(sys.argv[2]), Path(folder) / f"{pre}.gguf", pre)
                goldens["tokens"][pre] = tokens_of(file)
        else:
            goldens["tokens"] = json.loads(target.read_text())["tokens"]
    lines = [f'"versions": {json.dumps(goldens["versions"])}']
    for part in ("logits", "tokens"):
        of_part = ",\n".join(f"  {json.dumps(name)}: {json.dumps(rows)}" for name, rows in goldens[part].items())
        lines.append(f'"{part}": {{\n{of_part}\n }}')
    target.write_text("{\n " + ",\n ".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
