"""A batch that is killed, interrupted, cut or short of space goes on with the same command and loses nothing."""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from batches import FACTS, command, environment, finished, orders, refused, run, without_times
from waiting import PATIENCE, wait_until

pytestmark = pytest.mark.real_process

KILLS = 100


@pytest.fixture(scope="module")
def executable(bin_dir: Path) -> Path:
    return bin_dir / "rometrace"


class Whole:
    """An uninterrupted run."""

    def __init__(self, executable: Path, output: Path):
        start = time.monotonic()
        finished(run(command(executable, output)))
        self.seconds = time.monotonic() - start
        self.bytes = output.read_bytes()
        self.text = without_times(self.bytes)


@pytest.fixture(scope="module")
def whole(executable: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    output = tmp_path_factory.mktemp("whole") / "results.jsonl"
    Whole(executable, output)  # the first start reads the libraries from the disk
    output.unlink()
    return Whole(executable, output)


def start(arguments: list[str]) -> subprocess.Popen:
    return subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment(), text=True)


def wait_for_lines(process: subprocess.Popen, output: Path, lines: int) -> None:
    wait_until(lambda: output.exists() and output.read_bytes().count(b"\n") >= lines, process)


# --- SIGKILL ------------------------------------------------------------------------------------------------------


def kill_often(executable: Path, whole: Whole, folder: Path, seed: int, kills: int) -> tuple[int, int, int]:
    """Kills batches at `kills` random moments of their run, and lets each go on until it is done. Gives the numbers of
    kills, of those that came after new lines, and of files that came to their end."""
    moments = random.Random(seed)
    output = folder / f"results-{seed}.jsonl"
    done = progresses = files = 0

    def lines() -> int:
        return output.read_bytes().count(b"\n") if output.exists() else 0

    def size() -> int:
        return output.stat().st_size if output.exists() else 0

    while done < kills or output.exists():
        before = lines()
        process = start(command(executable, output))
        if done < kills and done % 3 == 0:  # at any time, so mostly before the first fact
            time.sleep(moments.uniform(0, whole.seconds))
        elif done < kills:  # among the facts
            enough = size() + moments.randrange(len(whole.bytes) // 20)
            while process.poll() is None and size() <= enough:
                time.sleep(0.001)
            time.sleep(moments.uniform(0, 0.01))
        if done < kills:
            process.kill()
        error = process.communicate(timeout=PATIENCE)[1]
        if process.returncode == -signal.SIGKILL:
            done += 1
            progresses += lines() > max(before, 1)  # the header is none
            continue
        assert process.returncode in (0, 1), error
        assert without_times(output.read_bytes()) == whole.text
        output.unlink()
        files += 1
    return done, progresses, files


def test_a_batch_killed_at_a_hundred_moments_ends_as_if_nothing_had_been(executable, whole, tmp_path):
    # Two at a time, since the wait of one is the other's time.
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda seed: kill_often(executable, whole, tmp_path, seed, KILLS // 2), (1, 2)))
    kills, progresses, files = map(sum, zip(*both))
    print(f"{kills} kills, {progresses} of them after new lines; {files} files finished")
    assert kills >= KILLS
    assert progresses >= KILLS // 4 and files >= 2
    assert os.listdir(tmp_path) == []


# --- torn ends ----------------------------------------------------------------------------------------------------


def test_a_file_cut_anywhere_goes_on(executable, whole, tmp_path):
    data = whole.bytes
    ends = [i + 1 for i, byte in enumerate(data) if byte == ord("\n")]
    last, before = ends[-1], ends[-2]
    cuts = {
        "nothing": 0,
        "in the header": ends[0] // 2,
        "header without its newline": ends[0] - 1,
        "header": ends[0],
        "first bytes of a line": ends[0] + 1,
        "head of a line": ends[0] + 60,
        "middle of a line": (ends[3] + ends[4]) // 2,
        "whole lines": ends[9],
        "line without its newline": last - 1,
        "line without its end": last - 2,
        "last line": before,
        "all": last,
    }

    def go_on(name: str) -> None:
        output = tmp_path / f"{name}.jsonl"
        output.write_bytes(data[: cuts[name]])
        finished(run(command(executable, output)))
        assert without_times(output.read_bytes()) == whole.text, name
        kept = data[: max((end for end in ends if end <= cuts[name]), default=0)]
        assert output.read_bytes().startswith(kept), name  # nothing is traced twice

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(go_on, cuts))


def test_what_a_power_cut_leaves_is_dropped(executable, whole, tmp_path):
    lines = whole.bytes.splitlines(keepends=True)
    torn = lines[10][:200] + bytes(3000) + lines[10][3200:]
    for tail in (bytes(4096), torn, torn + lines[11][:50], torn + torn + bytes(100), b"}\n", b"\n"):
        output = tmp_path / "results.jsonl"
        output.write_bytes(b"".join(lines[:10]) + tail)
        finished(run(command(executable, output)))
        assert without_times(output.read_bytes()) == whole.text


def test_damage_in_the_middle_is_refused(executable, whole, tmp_path):
    lines = whole.bytes.splitlines(keepends=True)
    output = tmp_path / "results.jsonl"
    output.write_bytes(b"".join([*lines[:5], lines[5][:100] + b"\n", *lines[6:]]))
    before = output.read_bytes()
    refused(run(command(executable, output)), "line 6 is damaged")
    assert output.read_bytes() == before


# --- Ctrl-C and two at once -----------------------------------------------------------------------------------------


def test_ctrl_c_leaves_whole_lines_and_says_how_to_go_on(executable, whole, tmp_path):
    output = tmp_path / "results.jsonl"
    process = start(command(executable, output, limit=400))
    wait_for_lines(process, output, 4)
    process.send_signal(signal.SIGINT)
    error = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 130, error
    # -q keeps what is no error away.
    assert "the same command goes on from there" in error and str(output) in error
    found = orders(output.read_bytes())
    assert found == list(range(1, len(found) + 1))
    assert 3 <= len(found) < 400


def test_a_second_process_on_one_file_is_refused_while_the_first_runs(executable, whole, tmp_path):
    output = tmp_path / "results.jsonl"
    (tmp_path / "link").symlink_to(output)
    process = start(command(executable, output, limit=400))
    wait_for_lines(process, output, 2)
    words = f"another rometrace (process {process.pid}) is writing it"
    for name in (output, tmp_path / "link"):
        refused(run(command(executable, name, "--model", "/nonexistent/model", limit=400)), words)  # none is loaded
    refused(run([str(executable), "merge", str(output), "-o", str(tmp_path / "merged")]), words)
    process.kill()
    process.communicate()
    found = len(orders(output.read_bytes().rpartition(b"\n")[0] + b"\n"))
    # The lock went with the process.
    process = start(command(executable, output, limit=400))
    wait_for_lines(process, output, found + 3)
    process.kill()
    process.communicate()


# --- what is refused ------------------------------------------------------------------------------------------------


def test_other_settings_are_refused_with_the_difference_named(executable, whole, demo, tmp_path):
    output = tmp_path / "results.jsonl"
    output.write_bytes(b"".join(whole.bytes.splitlines(keepends=True)[:4]))
    before = output.read_bytes()
    model = tmp_path / "model"
    shutil.copytree(demo, model)
    weights = bytearray((model / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (model / "model.safetensors").write_bytes(weights)
    other_facts = tmp_path / "facts.json"
    other_facts.write_text(FACTS.read_text() + "\n")
    samples = [word if word != "2" else "3" for word in command(executable, output)]
    cases = [
        (samples, ["run.samples 2, this run has 3"]),
        (command(executable, output, "--noise", "0.2"), ['noise.rule "s3", this run has "0.2"', "run.noise.sigma 0."]),
        (command(executable, output, "--seed", "7"), ["run.seed 1, this run has 7"]),
        (command(executable, output, "--all"), ["all false, this run has true"]),
        (command(executable, output, limit=26), ["facts.selection.limit 25, this run has 26"]),
        (command(executable, output, "--model", model), ["model.weights_sha256"]),
        (command(executable, output, facts=other_facts), ["facts.files[0].sha256"]),
    ]
    for arguments, words in cases:
        refused(run(arguments), str(output), *words, "give another -o, or delete the file to start again")
        assert output.read_bytes() == before
    finished(run(command(executable, output)))
    assert without_times(output.read_bytes()) == whole.text


def test_a_file_that_is_not_ours_is_never_overwritten(executable, whole, tmp_path):
    output = tmp_path / "results.jsonl"
    noise = random.Random(1).randbytes(100000)
    for content in (b"my notes\n", b"\n", b"{}\n", noise, whole.bytes.splitlines(keepends=True)[1], bytes(10**6)):
        output.write_bytes(content)
        refused(run(command(executable, output)), str(output), "expected the header of a batch's results")
        assert output.read_bytes() == content


def test_a_run_that_fails_before_its_first_line_leaves_no_file(executable, tmp_path):
    output = tmp_path / "results.jsonl"
    refused(run(command(executable, output, "--model", "/nonexistent/model")), "/nonexistent/model")
    assert os.listdir(tmp_path) == []


# --- a full disk ----------------------------------------------------------------------------------------------------


def test_a_file_that_may_not_grow_goes_on_when_it_may(executable, whole, tmp_path):
    output = tmp_path / "results.jsonl"
    limit = len(whole.bytes) // 2

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    refused(run(command(executable, output), preexec_fn=small_files), str(output), "run the same command again")
    part = output.read_bytes()
    assert 0 < len(orders(part)) < len(orders(whole.bytes)) and len(part) <= limit
    finished(run(command(executable, output)))
    assert output.read_bytes().startswith(part)
    assert without_times(output.read_bytes()) == whole.text


def test_a_full_disk_loses_nothing(executable, whole, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    size = len(whole.bytes) + 65536
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("no permission to mount a small disk")
    try:
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(len(whole.bytes) // 2 + 65536))
        output = disk / "results.jsonl"
        full = "no space left; free some and run the same command again"
        refused(run(command(executable, output)), str(output), full)
        orders(output.read_bytes())
        ballast.unlink()
        finished(run(command(executable, output)))
        assert without_times(output.read_bytes()) == whole.text
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# --- streams --------------------------------------------------------------------------------------------------------


def test_standard_output_gets_the_same_lines(executable, whole):
    result = run(command(executable, "-"))
    finished(result)
    assert without_times(result.stdout) == whole.text
    assert [json.loads(line)["schema"] for line in result.stdout.splitlines()[:2]] == [
        "rometrace/batch/1",
        "rometrace/trace/1",
    ]
