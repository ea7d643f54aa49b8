"""`rometrace show`: what a terminal showed of a trace or a summary comes again from its file, to the character."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import struct
import subprocess
import termios
from pathlib import Path
from typing import Any

import pytest

from batches import command, environment, refused, run
from conftest import Rometrace
from records import make_neuron_record, make_record, make_skipped_record

PROMPT = ("--prompt", "Miles Davis plays the", "--subject", "Miles Davis", "-q")


def on_a_terminal(*command: Any, columns: int = 100) -> str:
    """What the command writes to a terminal of so many columns, in colour."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    colours = environment(TERM="xterm-256color", COLORTERM="truecolor", LC_ALL="C.UTF-8")
    with subprocess.Popen(list(map(str, command)), stdin=theirs, stdout=theirs, stderr=theirs, env=colours) as process:
        os.close(theirs)
        text = b""
        try:
            while some := os.read(ours, 65536):
                text += some
        except OSError:  # the terminal's other end is closed
            pass
        os.close(ours)
        assert process.wait() == 0, text.decode()
    return text.decode().replace("\r\n", "\n")


def write_lines(path: Path, *records: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture(scope="module")
def batch(bin_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight facts."""
    path = tmp_path_factory.mktemp("show") / "results.jsonl"
    assert run(command(bin_dir / "rometrace", path, limit=8)).returncode == 0
    return path


@pytest.mark.parametrize(
    "options",
    [
        ("--window", "3"),
        ("--kinds", "state,head,knockout", "--measures", "rank,normalised"),
        ("--kinds", "mlp,attn", "--direction", "noising", "--target", " trumpet", "--target", " guitar"),
        ("--kinds", "state,head", "--direction", "both"),
        ("--kinds", "neuron", "--top", "4"),
        ("--sever", "mlp,attn", "--kinds", "state", "--positions", "1,3", "--precision", "0.05"),
        ("--corrupt", "zero", "--kinds", "state", "--answer", "greedy:2"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("columns", [60, 100])
def test_the_maps_of_a_trace_are_those_that_its_run_showed(bin_dir, tmp_path, options, columns):
    path = tmp_path / "trace.json"
    shown = on_a_terminal(bin_dir / "rometrace", *PROMPT, *options, "-o", path, columns=columns)
    assert "\x1b[" in shown and "layer" in shown
    assert on_a_terminal(bin_dir / "rometrace", "show", path, columns=columns) == shown


def test_the_table_of_a_summary_is_that_which_summary_showed(bin_dir, batch, tmp_path):
    path = tmp_path / "summary.json"
    shown = on_a_terminal(bin_dir / "rometrace", "summary", batch, "--by", "relation", "-q", "-o", path)
    assert "total effect (ATE)" in shown
    assert on_a_terminal(bin_dir / "rometrace", "show", path) == shown


def test_a_batch_is_a_table_and_a_fact_of_it_its_maps(rometrace: Rometrace, bin_dir, batch):
    done = rometrace("show", batch)
    assert (done.returncode, done.stderr) == (0, "")
    records = [json.loads(line) for line in batch.read_text().splitlines()[1:]]
    lines = done.stdout.splitlines()
    assert lines[0] == "8 records: 8 traced, 0 skipped, 0 failed. Probabilities in percent; --id ID draws one."
    assert lines[2].split() == "fact subject answer clean corrupted total strongest state layer effect".split()
    assert len(lines) == 3 + len(records)
    for line, record in zip(lines[3:], records):
        words = line.split()
        assert words[0] == record["fact"]["id"] and record["subject"] in line and f'"{record["answer"]}"' in line
        assert f"{100 * record['high_score']:.2f}" in words and f"{100 * record['total_effect']:.2f}" in words
        rows = record["grids"]["state"]["scores"][:-1]
        assert f"{100 * (max(map(max, rows)) - record['low_score']):.2f}" == words[-1]
    one = records[3]["fact"]["id"]
    maps = rometrace("show", batch, "--id", one)
    assert maps.returncode == 0 and maps.stdout.startswith(f'Probability of "{records[3]["answer"]}"')
    assert max(map(len, maps.stdout.splitlines())) <= 80
    two = rometrace("show", batch, "--id", records[5]["fact"]["id"], "--id", one, "--id", one)
    assert two.stdout.startswith(records[5]["fact"]["id"] + "\n")
    assert two.stdout.endswith(f"\n\n{one}\n" + maps.stdout)
    wide, narrow = (on_a_terminal(bin_dir / "rometrace", "show", batch, columns=n) for n in (200, 50))
    assert wide == done.stdout
    assert max(map(len, narrow.splitlines())) <= 50 and len(narrow.splitlines()) >= 11


def test_one_record_alone_is_drawn_whatever_holds_it(rometrace, bin_dir, batch, tmp_path):
    header, first, *_ = batch.read_text().splitlines(keepends=True)
    whole = rometrace("show", batch, "--id", json.loads(first)["fact"]["id"]).stdout
    (tmp_path / "one.jsonl").write_text(header + first)
    assert rometrace("show", tmp_path / "one.jsonl").stdout == whole
    (tmp_path / "pretty.json").write_text(json.dumps(json.loads(first), indent=2))
    assert rometrace("show", tmp_path / "pretty.json").stdout == whole
    done = subprocess.run([bin_dir / "rometrace", "show", "-"], input=first, capture_output=True, encoding="utf-8")
    assert done.stdout == whole
    (tmp_path / "none.jsonl").write_text(header)
    assert rometrace("show", tmp_path / "none.jsonl").stdout == "no records\n"


def test_what_was_not_traced_says_why(rometrace, tmp_path):
    skipped = make_skipped_record() | {"cause": "other_answer"}
    done = rometrace("show", write_lines(tmp_path / "skipped.json", skipped))
    assert (done.returncode, done.stdout) == (0, 'skipped: the model predicts " trumpet", expected "piano"\n')
    done = rometrace("show", write_lines(tmp_path / "two.jsonl", make_neuron_record(), skipped))
    lines = done.stdout.splitlines()
    assert lines[0].startswith("2 records: 1 traced, 1 skipped")
    assert "strongest neuron" in lines[2] and "5:3" in lines[3] and lines[4].endswith('expected "piano"')


def test_an_id_that_is_not_there_gets_the_nearest(rometrace, batch, tmp_path):
    ids = [json.loads(line)["fact"]["id"] for line in batch.read_text().splitlines()[1:]]
    refused(rometrace("show", batch, "--id", ids[2][:-1] + "x"), "no record has the id", f'there is "{ids[2]}"')
    part = ids[4].partition("/")[2]
    refused(rometrace("show", batch, "--id", part), f'there is "{ids[4]}"')
    refused(rometrace("show", batch, "--id", "qq"), f'it has "{ids[0]}", "{ids[1]}", "{ids[2]}" and 5 more')
    refused(rometrace("show", batch, "--id", ids[0], "--id", "qq"), 'no record has the id "qq"')
    single = write_lines(tmp_path / "one.json", make_record())
    refused(rometrace("show", single, "--id", "qq"), "no record of it has one")


def test_a_torn_end_is_told(rometrace, batch, tmp_path):
    text = batch.read_text()
    (tmp_path / "torn.jsonl").write_text(text[:-100])
    done = rometrace("show", tmp_path / "torn.jsonl")
    assert done.returncode == 0 and done.stdout.startswith("7 records")
    assert "torn.jsonl: line 9 is cut short; it was left out" in done.stderr


def test_other_files_are_refused_by_name(rometrace, bin_dir, batch, tmp_path):
    path = tmp_path / "file"
    for schema, words in {
        "probe": "rometrace summary shows what is said and known",
        "edited-fact": "rometrace summary averages them",
        "edit-summary": "a summary of edits",
        "probe-summary": "a summary of a probe",
        "calibration": "rometrace calibrate shows it again",
        "trace": "of another version",
    }.items():
        path.write_text(json.dumps({"schema": f"rometrace/{schema}/{2 if schema == 'trace' else 1}"}))
        refused(rometrace("show", path), words)
    path.write_text("no JSON")
    refused(rometrace("show", path), "not JSON")
    refused(rometrace("show", tmp_path / "none"), "none")
    refused(rometrace("show"), "file is required")
    summary = tmp_path / "summary.json"
    assert rometrace("summary", batch, "-o", summary, "--bootstrap", 0).returncode == 0
    refused(rometrace("show", summary, "--id", "x"), "--id: a summary has no facts of its own")
    damaged = json.loads(summary.read_text())
    del damaged["overall"]["kinds"]
    path.write_text(json.dumps(damaged, indent=1))
    refused(rometrace("show", path), "overall.kinds is missing; expected a summary as rometrace writes it")
