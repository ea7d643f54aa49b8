"""A batch over facts of many shapes does not keep what it made ready for each of them."""

from __future__ import annotations

import json
import random
import string
import subprocess
import time
from pathlib import Path

import pytest

from batches import environment
from test_against_transformers import write_letter_tokenizer
from test_config_fields import make_model

pytestmark = [
    pytest.mark.real_process,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from /proc"),
]

SHAPES = 2000
VARIABLE = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"


def write_facts(path: Path) -> None:
    """One fact for each shape: a length of the prompt, a place and a length of the subject."""
    draw = random.Random(1)
    shapes = [(T, begin, width) for T in range(10, 100) for begin in range(0, T - 4, 3) for width in (1, 2, 3)]
    with path.open("w") as file:
        for T, begin, width in draw.sample(shapes, SHAPES):
            text = "".join(draw.choices(string.ascii_lowercase, k=T))
            end = begin + width
            fact = {"subject": text[begin:end], "prompt": f"{text[:begin]}{{}}{text[end:]}"}
            file.write(json.dumps(fact) + "\n")


def test_memory_does_not_grow_with_the_shapes_of_facts(bin_dir: Path, tmp_path: Path) -> None:
    make_model("gpt2", {"n_positions": 128}, tmp_path / "model")
    vocabulary = json.loads((tmp_path / "model/config.json").read_text())["vocab_size"]
    write_letter_tokenizer(tmp_path / "model", vocabulary)
    write_facts(tmp_path / "facts.jsonl")
    command = [bin_dir / "rometrace", "--model", "model", "--facts", "facts.jsonl", "-q", "-o", "results.jsonl"]
    command += ["--noise", "0.5", "--samples", "1", "--kinds", "state", "--positions", "subject-last"]

    def peak(capacity: int | None) -> int:
        """MB, at the most."""
        (tmp_path / "results.jsonl").unlink(missing_ok=True)
        setting = {} if capacity is None else {VARIABLE: str(capacity)}
        base = {name: value for name, value in environment().items() if "PRIMITIVE_CACHE" not in name}
        process = subprocess.Popen(list(map(str, command)), cwd=tmp_path, env=base | setting)
        status = Path(f"/proc/{process.pid}/status")
        largest = 0  # not wait4()'s: that counts this process too, of which the other one is a fork at first
        while process.poll() is None:
            text = status.read_text()
            if "VmHWM" in text and "rometrace" in text:
                largest = int(text.partition("VmHWM:")[2].split()[0])
            time.sleep(0.02)
        assert process.returncode == 0
        assert (tmp_path / "results.jsonl").read_bytes().count(b"\n") == SHAPES + 1
        return largest // 1024

    bounded, unbounded = peak(None), peak(1024)  # 1024 is oneDNN's own
    print(f"{bounded} MB, with oneDNN's own bound {unbounded} MB")
    # Measured: 108 MB less. What a shape takes is a matter of the processor, so only that it is felt is asked for.
    assert bounded < unbounded - 50
