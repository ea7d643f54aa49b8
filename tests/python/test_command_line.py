"""The executable as a user meets it: exit statuses, messages, files left behind."""

import json
import os
import resource
import shutil
import signal
import struct
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from waiting import PATIENCE

MILES = ("--prompt", "Miles Davis plays the", "--subject", "Miles Davis")
QUICK = (*MILES, "--kinds", "state", "--samples", "2")
FACTS = Path(__file__).resolve().parents[2] / "share/rometrace/facts.json"


@pytest.fixture
def model(demo: Path, tmp_path: Path) -> Path:
    """A copy of the demo model that a test may damage."""
    folder = tmp_path / "model"
    shutil.copytree(demo, folder)
    return folder


@pytest.fixture
def executable(bin_dir: Path) -> Path:
    return bin_dir / "rometrace"


def refused(result: subprocess.CompletedProcess, *words: str) -> None:
    """One line on stderr that holds `words`, nothing on stdout, exit status 2."""
    assert result.returncode == 2, (result.returncode, result.stderr)
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("rometrace: ")
    for word in words:
        assert word in lines[0], (word, lines[0])


# --- what works ---------------------------------------------------------------------------------------------------


def test_json_is_the_result_when_stdout_is_piped_and_stderr_says_which_model(rometrace):
    result = rometrace(*QUICK)
    assert result.returncode == 0
    record = json.loads(result.stdout)
    assert record["answer"] == " trumpet"
    assert record["subject_range"][0] == 0
    assert result.stderr.count("\n") == 1 and "demo model" in result.stderr


def test_quiet_says_nothing_and_verbose_says_more(rometrace):
    assert rometrace(*QUICK, "-q").stderr == ""
    assert len(rometrace(*QUICK, "-v").stderr.splitlines()) > 1


WIDE = "rometrace: the default --window 10 covers more than a third of the model's 8 layers, which blurs them; "
WIDE += "--window 3 shows more\n"
# Each with how often the note is said.
WINDOWS = [
    (MILES, 1),
    ((*MILES, "--engine", "plain"), 1),
    ((*MILES, "--engine", "gradient"), 1),
    ((*MILES, "--kinds", "head,attn", "--positions", "last"), 1),
    ((*MILES, "--window", "10"), 0),
    ((*MILES, "--window", "3"), 0),
    ((*MILES, "--kinds", "state,head", "--positions", "last", "--sever", "mlp,attn"), 0),
    ((*MILES, "-q"), 0),
    (("--self-check",), 0),
    (("--facts", FACTS, "--limit", "3", "--samples", "2"), 1),
    (("--facts", FACTS, "--limit", "3", "--samples", "2", "-q"), 0),
    (("--facts", FACTS, "--limit", "3", "--samples", "2", "--kinds", "state"), 0),
    (("--facts", FACTS, "--limit", "3", "--probe"), 0),
    (("calibrate", "--facts", FACTS, "--sample", "3", "--samples", "2", "--kinds", "state,mlp"), 1),
    (("calibrate", "--facts", FACTS, "--sample", "3", "--samples", "2", "--kinds", "state,mlp", "--window", "9"), 0),
    (("calibrate", "--facts", FACTS, "--sample", "3", "--samples", "2"), 0),
]


@pytest.mark.parametrize("arguments, times", WINDOWS, ids=lambda value: " ".join(map(str, value)) if type(value) is tuple else "")
def test_a_default_window_that_is_too_wide_for_the_model_is_said_once(rometrace, arguments, times):
    result = rometrace(*arguments)
    assert result.returncode in (0, 1), result.stderr
    assert result.stderr.count(WIDE) == result.stderr.count("third of") == times, result.stderr


def test_what_is_said_of_a_window_changes_no_result(rometrace):
    said, given = rometrace(*MILES), rometrace(*MILES, "--window", "10")
    assert grids_of(said) == grids_of(given)
    assert said.stderr.removesuffix(WIDE) == given.stderr


def test_a_default_knockout_window_is_looked_at_likewise(rometrace):
    knockout = ("--positions", "last", "--kinds", "mlp,knockout")
    both = "the defaults --window 10 and --knockout-window 9 cover more than a third of the model's 8 layers"
    assert f"{both}, which blurs them; --window 3 and --knockout-window 3 show more\n" in rometrace(*MILES, *knockout).stderr
    said = rometrace(*MILES, *knockout, "--window", "3").stderr
    assert "the default --knockout-window 9 covers" in said and said.endswith("; --knockout-window 3 shows more\n")
    assert "third of" not in rometrace(*MILES, *knockout, "--window", "3", "--knockout-window", "9").stderr


def test_the_environment_chooses_the_model_and_the_option_wins(rometrace, model, tmp_path):
    assert json.loads(rometrace(*QUICK, ROMETRACE_MODEL=str(model)).stdout)["model"]["name"] == str(model)
    chosen = rometrace(*QUICK, "--model", str(model), ROMETRACE_MODEL=str(tmp_path / "absent"))
    assert chosen.returncode == 0
    assert json.loads(rometrace(*QUICK, ROMETRACE_MODEL="").stdout)["model"]["name"] == "rometrace-demo"


def test_the_output_file_holds_what_stdout_would_and_replaces_the_old_one(rometrace, tmp_path):
    target = tmp_path / "out.json"
    target.write_text("old")
    result = rometrace(*QUICK, "-o", str(target))
    assert result.returncode == 0 and result.stdout == ""
    written, printed = json.loads(target.read_text()), json.loads(rometrace(*QUICK).stdout)
    written["run"].pop("seconds"), printed["run"].pop("seconds")
    assert written == printed
    assert os.listdir(tmp_path) == ["out.json"]


def test_json_with_an_output_file_writes_both(rometrace, tmp_path):
    result = rometrace(*QUICK, "--json", "-o", str(tmp_path / "out.json"))
    assert result.stdout == (tmp_path / "out.json").read_text()


def test_output_dash_is_stdout(rometrace):
    assert json.loads(rometrace(*QUICK, "-o", "-").stdout)["status"] == "traced"


def test_results_do_not_depend_on_threads(rometrace):
    one, two = (json.loads(rometrace(*MILES, "--threads", str(n)).stdout) for n in (1, 2))
    assert one["run"]["threads"] == 1 and two["run"]["threads"] == 2
    for kind, grid in one["grids"].items():
        # float32 products summed in another order
        np.testing.assert_allclose(grid["scores"], two["grids"][kind]["scores"], rtol=1e-5, atol=1e-7)


def test_an_answer_that_is_not_expected_is_skipped_with_status_1(rometrace):
    assert rometrace(*QUICK, "--expect", "trumpet").returncode == 0
    result = rometrace(*QUICK, "--expect", "piano")
    assert result.returncode == 1
    record = json.loads(result.stdout)
    assert record["status"] == "skipped" and "piano" in record["reason"]
    assert "grids" not in record and "low_score" not in record
    assert "skipped" in result.stderr


def test_the_fingerprint_is_what_sha256sum_prints(rometrace, demo):
    weights = demo / "model.safetensors"
    digest = subprocess.run(["sha256sum", weights], capture_output=True, text=True, check=True).stdout.split()[0]
    assert json.loads(rometrace(*QUICK).stdout)["model"]["weights_sha256"] == digest


def test_noise_facts_set_sigma(rometrace, tmp_path):
    facts = tmp_path / "facts.json"
    facts.write_text(json.dumps([{"subject": "Miles Davis"}, {"subject": "John Coltrane"}]))
    default = json.loads(rometrace(*QUICK).stdout)["run"]["noise"]
    other = json.loads(rometrace(*QUICK, "--noise-facts", str(facts)).stdout)["run"]["noise"]
    assert default["rule"] == other["rule"] == "s3" and default["sigma"] != other["sigma"]


def test_help_and_version_succeed_on_stdout(rometrace):
    for option in ("--help", "--version"):
        result = rometrace(option)
        assert result.returncode == 0 and result.stdout and not result.stderr


def grids_of(result):
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)["grids"]


def largest_difference(found, expected):
    return max(
        abs(a - b)
        for kind in expected
        for rows in zip(found[kind]["scores"], expected[kind]["scores"], strict=True)
        for a, b in zip(*rows, strict=True)
    )


def test_engines_memory_and_threads_change_no_score(rometrace):
    expected = grids_of(rometrace(*MILES, "--engine", "plain"))
    streamed = ("--memory", "2.9M")
    for options in ((), streamed, (*streamed, "--engine", "plain"), ("--memory", "12MiB"), ("--threads", "2")):
        assert largest_difference(grids_of(rometrace(*MILES, *options)), expected) < 1e-6, options
    gradient = ("--engine", "gradient", "--kinds", "state,mlp,attn")
    expected = grids_of(rometrace(*MILES, *gradient))
    for options in (streamed, ("--memory", "12MiB"), ("--threads", "2")):
        assert largest_difference(grids_of(rometrace(*MILES, *gradient, *options)), expected) < 1e-6, options


def test_weights_that_do_not_fit_are_streamed_and_that_is_said(rometrace):
    said = "each layer is read from the files when it is used"
    assert said in rometrace(*MILES, "--memory", "2.9M").stderr
    assert said not in rometrace(*MILES, "--memory", "12M").stderr
    assert said not in rometrace(*MILES).stderr
    assert said in rometrace(*MILES, "--memory", "2.9M", "--engine", "gradient").stderr
    for engine in ("sweep", "plain", "gradient"):
        refused(rometrace(*MILES, "-q", "--memory", "2M", "--engine", engine), "two layers", "expected more than that")


def test_a_model_checks_itself(rometrace):
    result = rometrace("--self-check")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[-1] == "all that was checked holds"
    assert sum(line.startswith("holds ") for line in lines) >= 10
    assert not any(line.startswith("FAILS") for line in lines)
    assert any("GPT-2 XL" in line and line.startswith("not checked") for line in lines)
    streamed = rometrace("--self-check", "--memory", "4M")
    assert streamed.returncode == 0, streamed.stderr
    assert "the plain engine would read all weights for each cell" in streamed.stdout


def test_a_self_check_refuses_what_it_would_leave_aside(rometrace, tmp_path):
    refused(rometrace("--self-check", "--facts", "x"), "--self-check")
    for words in (
        ("--prompt", "x"),
        ("--engine", "gradient"),
        ("--engine", "plain"),
        ("--kinds", "mlp"),
        ("--samples", "4"),
        ("--window", "3"),
        ("--json",),
        ("-o", tmp_path / "x"),
        ("-o", "/nonexistent/x"),
        ("--noise", "u0.5"),
    ):
        refused(rometrace("--self-check", *words), "--self-check", words[0].replace("-o", "--output"))
    assert not list(tmp_path.iterdir())


def test_a_self_check_that_cannot_be_written_is_an_error(executable):
    with open("/dev/full", "w") as full:
        done = subprocess.run([executable, "--self-check"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert "no space left" in done.stderr


def test_the_engine_is_in_the_result_and_its_work_in_the_verbose_log(rometrace):
    result = rometrace(*MILES, "--kinds", "state", "-v")
    assert json.loads(result.stdout)["run"]["engine"] == "sweep"
    # T = 4, L = 8, b = 0: the corrupted run's rows and the clean run's first, then N L (L - 1) / 2 (4 + 3 + 2 + 1 - 1).
    assert f"{8 * (10 * 4 + 1) + 10 * 28 * 9} keys and values" in result.stderr
    assert json.loads(rometrace(*MILES, "--engine", "plain").stdout)["run"]["engine"] == "plain"


def test_bfloat16_is_near_float32_or_refused_by_a_cpu_that_is_not_made_for_it(rometrace):
    result = rometrace(*MILES, "--dtype", "bfloat16", "-q")
    flags = Path("/proc/cpuinfo").read_text().split() if Path("/proc/cpuinfo").exists() else []
    if result.returncode == 2 and not {"avx512bw", "avx512vl", "avx512dq"} <= set(flags):
        refused(result, "this CPU does not multiply in bfloat16 (it has no AVX-512); expected float32 or float64")
        return
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["run"]["dtype"] == "bfloat16"
    exact = grids_of(rometrace(*MILES))
    # Products keep 8 bits; probabilities here go up to 0.6.
    assert 1e-6 < largest_difference(grids_of(result), exact) < 0.01


def test_special_tokens_are_text_unless_asked_for(rometrace):
    prompt = ("--prompt", "<|endoftext|>Miles Davis plays the", "--subject", "Miles Davis", "--kinds", "state")
    as_text = json.loads(rometrace(*prompt, "--samples", "1").stdout)
    parsed = json.loads(rometrace(*prompt, "--samples", "1", "--special-tokens").stdout)
    assert parsed["tokens"][0] == "<|endoftext|>"
    assert as_text["tokens"][0] != "<|endoftext|>" and len(as_text["tokens"]) > len(parsed["tokens"])
    assert parsed["subject_range"][0] == 1


# --- what is refused: options ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("--prompt", "Miles Davis plays the", "--subject", "John"), ["John", "not in the prompt"]),
        (("--prompt", "Miles Davis plays the", "--subject", ""), ["subject"]),
        (("--prompt", "", "--subject", "Miles"), ["--prompt", "empty"]),
        (("--prompt", "Miles " * 200, "--subject", "Miles"), ["tokens", "64"]),
        ((*QUICK, "--frobnicate"), ["--frobnicate"]),
        ((*MILES, "--kinds", "state,foo"), ["foo", "state, mlp, attn, head, neuron or knockout"]),
        ((*QUICK, "--window", "0"), ["--window"]),
        ((*MILES, "--samples", "0"), ["--samples"]),
        ((*MILES, "--samples", "many"), ["--samples", "many"]),
        ((*QUICK, "--seed", "4294967296"), ["--seed"]),
        ((*QUICK, "--seed", "-1"), ["--seed"]),
        ((*QUICK, "--threads", "0"), ["--threads"]),
        ((*MILES, "--samples", "010x"), ["--samples", "010x"]),
        ((*MILES, "--samples", ""), ["--samples", "whole number"]),
        ((*QUICK, "--model", ""), ["--model", "empty"]),
        ((*QUICK, "--model="), ["--model", "empty"]),
        ((*QUICK, "--noise-facts", ""), ["--noise-facts", "empty"]),
        ((*QUICK, "--noise", "1e39"), ["noise", "too large"]),
        ((*QUICK, "--noise", "s1e308"), ["noise", "too large"]),
        (("--prompt", "Miles Davis plays the", "--subject", "Miles\udcff"), ["--subject", "UTF-8"]),
        ((*QUICK, "--target", "Miles\udcff"), ["--target", "UTF-8"]),
        ((*QUICK, "--noise", "z9"), ["--noise", "z9", "s<k>"]),
        ((*QUICK, "--noise", "nan"), ["--noise", "nan"]),
        ((*QUICK, "--engine", "warp"), ["--engine", "warp", "sweep, plain or gradient"]),
        ((*QUICK, "--memory", "-5"), ["--memory", "-5", "300M"]),
        ((*QUICK, "--memory", "5XB"), ["--memory", "5XB", "300M"]),
        ((*QUICK, "--memory", "much"), ["--memory", "much", "300M"]),
        ((*QUICK, "--memory", "0"), ["--memory", "300M"]),
        ((*QUICK, "--memory", "1e99"), ["--memory", "1e99"]),
        ((*QUICK, "--memory", "1K"), ["1K", "does not hold", "expected more than that"]),
        ((*QUICK, "--tf32"), ["--tf32", "--device cuda"]),
        ((*QUICK, "--dtype", "float16"), ["float16", "--device cuda"]),
        ((*QUICK, "--dtype", "int8"), ["--dtype", "int8", "float32"]),
        ((*QUICK, "--device", "tpu"), ["--device", "tpu", "cpu"]),
        ((*QUICK, "--device", "cuda:all"), ["cuda:all", "many facts", "give --device cuda or cuda:<i>"]),
        ((*QUICK, "--target", " trumpet", "--target", " trumpet player"), ["--target", "tokens", "expected one"]),
        ((*QUICK, "--target", " trumpet", "--target", " trumpet"), ["--target", "twice"]),
        ((*QUICK, "--target", " trumpet" * 80), ["80", "65"]),
        ((*QUICK, "--sever", "head"), ["--sever", "head", "mlp, attn or none"]),
        ((*QUICK, "--positions", "first"), ["--positions", "first", "subject-last"]),
        ((*QUICK, "--positions", "0,9"), ["position 9", "0 to 3"]),
        ((*QUICK, "--head-window", "3"), ["--head-window", "head among --kinds"]),
        ((*QUICK, "--direction", "sideways"), ["--direction", "sideways", "denoising, noising or both"]),
        ((*QUICK, "--corrupt", "swap"), ["--corrupt", "--facts", "--counter-subject"]),
        ((*MILES, "--corrupt", "zero", "--noise", "m"), ["--noise", "has no effect here; expected noise"]),
        ((*QUICK, "--noise", "t2"), ["--noise", "t2", "t<df>"]),
        ((*QUICK, "--noise-text", "x"), ["--noise-text", "has no effect"]),
        ((*MILES, "--counter-subject", "Louis Armstrong"), ["--counter-subject", "8 tokens", "has 4"]),
        ((*QUICK, "--measures", "logit_difference"), ["--measures", "--foil"]),
        ((*QUICK, "--foil", " guitar"), ["--foil", "has no effect"]),
        ((*QUICK, "--measures", "fame"), ["--measures", "fame", "log_probability"]),
        ((*QUICK, "--answer", "object"), ["--answer", "--facts"]),
        ((*QUICK, "--answer", "greedy:0"), ["--answer", "greedy:0", "greedy:3"]),
        ((*MILES, "--precision", "-1"), ["--precision", "-1"]),
        ((*QUICK, "--engine", "gradient", "--sever", "mlp"), ["--sever", "gradient"]),
        ((*QUICK, "--target", ""), ["--target", "empty"]),
        ((*QUICK, "--noise-facts", "/nonexistent/facts.json"), ["/nonexistent/facts.json"]),
        ((*QUICK, "--model", "/nonexistent/model"), ["/nonexistent/model"]),
        ((*QUICK, "--model", "nobody/nothing"), ["nobody/nothing", "rometrace fetch nobody/nothing"]),
        (("--subject", "Miles"), ["--prompt"]),
        (("--prompt", "Miles \udcff Davis", "--subject", "Miles"), ["UTF-8"]),
    ],
)
def test_options_that_make_no_sense_are_refused_in_one_line(rometrace, arguments, words):
    # The prompt's size and tokens are known only with the model, whose line -q leaves out.
    refused(rometrace(*arguments, "-q"), *words)


def test_cuda_is_refused_clearly_where_there_is_none(rometrace):
    result = rometrace(*QUICK, "-q", "--device", "cuda")
    if result.returncode == 0:
        assert json.loads(result.stdout)["run"]["device"].startswith("cuda")
        pytest.skip("there is a GPU")
    refused(result, "--device cuda", "use --device cpu")


# --- what is refused: model folders -------------------------------------------------------------------------------


def header_of(weights: Path) -> tuple[dict, bytes]:
    data = weights.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def write_weights(weights: Path, header: dict | str, body: bytes) -> None:
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    weights.write_bytes(struct.pack("<Q", len(text)) + text + body)


def truncate(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])


def huge_header(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(b"\xff\xff\xff\xff\xff\xff\xff\x7f" + weights.read_bytes()[8:])


def offsets_past_the_end(folder: Path) -> None:
    header, body = header_of(folder / "model.safetensors")
    header["transformer.ln_f.weight"]["data_offsets"] = [10**12, 10**12 + 512]
    write_weights(folder / "model.safetensors", header, body)


def overlapping(folder: Path) -> None:
    header, body = header_of(folder / "model.safetensors")
    header["transformer.ln_f.weight"]["data_offsets"] = header["transformer.ln_f.bias"]["data_offsets"]
    write_weights(folder / "model.safetensors", header, body)


def wrong_dtype(folder: Path) -> None:
    header, body = header_of(folder / "model.safetensors")
    header["transformer.ln_f.weight"]["dtype"] = "I32"
    write_weights(folder / "model.safetensors", header, body)


def unknown_dtype(folder: Path) -> None:
    header, body = header_of(folder / "model.safetensors")
    header["transformer.ln_f.weight"]["dtype"] = "F99"
    write_weights(folder / "model.safetensors", header, body)


def wrong_shape(folder: Path) -> None:
    header, body = header_of(folder / "model.safetensors")
    entry = header["transformer.h.0.attn.c_attn.weight"]
    entry["shape"] = entry["shape"][::-1]
    write_weights(folder / "model.safetensors", header, body)


def duplicate_names(folder: Path) -> None:
    header, body = header_of(folder / "model.safetensors")
    text = json.dumps(header)
    entry = json.dumps(header["transformer.ln_f.weight"])
    write_weights(folder / "model.safetensors", text[:-1] + f', "transformer.ln_f.weight": {entry}}}', body)


def missing_tensor(folder: Path) -> None:
    header, body = header_of(folder / "model.safetensors")
    header["spare"] = header.pop("transformer.ln_f.weight")
    write_weights(folder / "model.safetensors", header, body)


def remove(name: str):
    def damage(folder: Path) -> None:
        (folder / name).unlink()

    return damage


def rewrite(name: str, text: str):
    def damage(folder: Path) -> None:
        (folder / name).write_text(text)

    return damage


def replace_by_folder(name: str):
    def damage(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).mkdir()

    return damage


def configure(**fields):
    def damage(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | fields))

    return damage


def larger_vocabulary(folder: Path) -> None:
    vocabulary = json.loads((folder / "vocab.json").read_text())
    size = len(vocabulary)
    shifted = {token: size * 10 + i if len(token) > 1 else i for token, i in vocabulary.items()}
    (folder / "vocab.json").write_text(json.dumps(shifted))


def not_a_number(folder: Path) -> None:
    header, body = header_of(folder / "model.safetensors")
    begin, _ = header["transformer.h.7.mlp.c_proj.bias"]["data_offsets"]
    write_weights(folder / "model.safetensors", header, body[:begin] + struct.pack("<f", float("nan")) + body[begin + 4 :])


def vocabulary_without_the_space(folder: Path) -> None:
    vocabulary = json.loads((folder / "vocab.json").read_text())
    vocabulary["unknown"] = vocabulary.pop("Ġ")
    (folder / "vocab.json").write_text(json.dumps(vocabulary))


@pytest.mark.parametrize(
    "damage, words",
    [
        (truncate, ["model.safetensors"]),
        (huge_header, ["model.safetensors", "header"]),
        (offsets_past_the_end, ["model.safetensors", "data begin at"]),
        (overlapping, ["model.safetensors", "transformer.ln_f"]),
        (not_a_number, ["NaN", "weights"]),
        (wrong_dtype, ["transformer.ln_f.weight", "I32"]),
        (unknown_dtype, ["transformer.ln_f.weight", "F99"]),
        (wrong_shape, ["transformer.h.0.attn.c_attn.weight"]),
        (duplicate_names, ["transformer.ln_f.weight"]),
        (missing_tensor, ["transformer.ln_f.weight"]),
        (remove("model.safetensors"), ["model.safetensors"]),
        (rewrite("model.safetensors", ""), ["model.safetensors"]),
        (rewrite("model.safetensors", "version https://git-lfs.github.com/spec/v1\n"), ["model.safetensors"]),
        (replace_by_folder("model.safetensors"), ["model.safetensors"]),
        (remove("config.json"), ["config.json"]),
        (replace_by_folder("config.json"), ["config.json"]),
        (rewrite("config.json", "{"), ["config.json"]),
        (rewrite("config.json", "[]"), ["config.json"]),
        (configure(activation_function="swiglu"), ["activation_function", "swiglu"]),
        (configure(n_head=7), ["n_head", "7"]),
        (configure(n_layer="8"), ["n_layer"]),
        (configure(model_type="bert"), ["bert", "encoder"]),
        (configure(model_type="deepseek_v3"), ["deepseek_v3", "mixture of experts"]),
        (configure(vocab_size=10), ["wte"]),
        (remove("vocab.json"), ["vocab.json"]),
        (rewrite("vocab.json", "{}"), ["vocab.json"]),
        (rewrite("vocab.json", "not json"), ["vocab.json"]),
        (rewrite("merges.txt", "#version: 0.2\nfoo bar baz\n"), ["merges.txt"]),
        (larger_vocabulary, ["vocab"]),
        (vocabulary_without_the_space, ["vocab.json"]),
    ],
)
def test_a_damaged_model_folder_is_refused_in_one_line(rometrace, model, tmp_path, damage, words):
    damage(model)
    target = tmp_path / "out.json"
    target.write_text("old")
    refused(rometrace(*QUICK, "--model", str(model), "-o", str(target)), *words)
    assert target.read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["model", "out.json"]


def test_a_folder_without_a_model_is_refused(rometrace, tmp_path):
    refused(rometrace(*QUICK, "--model", str(tmp_path)), str(tmp_path))


def test_a_file_in_place_of_the_model_folder_is_refused(rometrace, model):
    refused(rometrace(*QUICK, "--model", str(model / "model.safetensors")), "model.safetensors")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_refused(rometrace, model):
    (model / "model.safetensors").chmod(0)
    refused(rometrace(*QUICK, "--model", str(model)), "model.safetensors")


def test_a_dangling_link_is_refused(rometrace, model):
    (model / "model.safetensors").unlink()
    (model / "model.safetensors").symlink_to("nowhere")
    refused(rometrace(*QUICK, "--model", str(model)), "model.safetensors")


# --- what surrounds the program --------------------------------------------------------------------------------------


def limited(limit: int, value: int):
    """For subprocess: sets a resource limit in the child."""
    return lambda: resource.setrlimit(limit, (value, value))


def test_numbers_are_decimal_even_with_leading_zeros(rometrace):
    assert json.loads(rometrace(*MILES, "--kinds", "state", "--samples", "010").stdout)["run"]["samples"] == 10


def test_an_empty_value_after_an_equals_sign_does_not_swallow_the_next_word(rometrace):
    result = rometrace(*QUICK, "--expect=", "--json")
    assert result.returncode == 1
    assert json.loads(result.stdout)["reason"].endswith('not ""')


def test_running_out_of_memory_is_one_line(executable):
    # libsentencepiece used to overwrite libtorch's flags, and an allocation that failed ended in abort().
    command = [executable, *MILES, "-q", "--threads", "1", "--samples", "1000000", "--kinds", "mlp"]
    limit = limited(resource.RLIMIT_AS, 3 << 30)
    refused(subprocess.run(command, capture_output=True, text=True, preexec_fn=limit, check=False), "memory")


def test_closed_descriptors_do_not_leak_messages_into_the_output_file(executable, tmp_path):
    target = tmp_path / "out.json"
    for closed in ("2>&-", ">&-", ">&- 2>&-", "<&-"):
        command = f'exec "$0" "$@" {closed}'
        done = subprocess.run(["bash", "-c", command, executable, *QUICK, "-o", target], check=False, capture_output=True)
        assert done.returncode == 0, closed
        assert len(target.read_text().splitlines()) == 1
        assert json.loads(target.read_text())["status"] == "traced"


def test_a_closed_stdout_is_an_error_when_the_result_goes_there(executable):
    done = subprocess.run(["bash", "-c", 'exec "$0" "$@" >&-', executable, *QUICK, "-q"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "standard output" in done.stderr


def test_a_limit_on_file_sizes_is_one_line(executable, tmp_path):
    command = [executable, *QUICK, "-q", "-o", tmp_path / "out.json"]
    limit = limited(resource.RLIMIT_FSIZE, 100)
    refused(subprocess.run(command, capture_output=True, text=True, preexec_fn=limit, check=False), "out.json")
    assert os.listdir(tmp_path) == []


# --- what is refused: outputs ---------------------------------------------------------------------------------------


def test_an_absent_output_folder_is_refused_before_any_work(rometrace, tmp_path):
    refused(rometrace(*QUICK, "-q", "-o", str(tmp_path / "absent/out.json")), "absent")
    refused(rometrace(*QUICK, "-q", "-o", str(tmp_path)), str(tmp_path))
    assert os.listdir(tmp_path) == []


def test_a_full_device_is_an_error_and_stays_a_device(rometrace):
    refused(rometrace(*QUICK, "-q", "-o", "/dev/full"), "/dev/full")
    assert not Path("/dev/full").is_file()


def test_a_full_stdout_is_an_error(executable):
    with open("/dev/full", "w") as full:
        result = subprocess.run([executable, *QUICK, "-q"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert result.returncode == 2 and "standard output" in result.stderr


def test_a_pipe_is_written_to_not_replaced(executable, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen([executable, *QUICK, "-q", "-o", pipe]) as process:
        record = json.loads(pipe.read_text())
        assert process.wait() == 0
    assert record["status"] == "traced" and pipe.is_fifo()


def test_a_closed_pipe_is_one_line(executable):
    read_end, write_end = os.pipe()
    os.close(read_end)
    result = subprocess.run([executable, *QUICK, "-q"], stdout=write_end, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write_end)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1 and "standard output" in result.stderr


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_nothing_behind_and_exits_130(executable, tmp_path, signal_number):
    target = tmp_path / "out.json"
    target.write_text("old")
    arguments = [executable, *MILES, "--samples", "20000", "--threads", "1", "-v", "-o", target]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as process:
        while "sigma" not in process.stderr.readline():  # the trace comes next
            assert process.poll() is None, "the trace was over before the signal"
        time.sleep(0.2)
        process.send_signal(signal_number)
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "rometrace: interrupted before anything was written"
    assert target.read_text() == "old" and os.listdir(tmp_path) == ["out.json"]


def test_being_killed_leaves_the_old_file_whole(executable, tmp_path):
    target = tmp_path / "out.json"
    target.write_text("old")
    arguments = [executable, *MILES, "--samples", "20000", "--threads", "1", "-v", "-o", target]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as process:
        while "sigma" not in process.stderr.readline():
            assert process.poll() is None, "the trace was over before it was killed"
        process.kill()
    assert target.read_text() == "old"


# --- which of the subject's places ----------------------------------------------------------------------------------

TWICE = ("--prompt", "Miles Davis and Miles Davis plays the", "--subject", "Miles Davis", "--kinds", "state", "--samples", "1")


def test_a_subject_that_occurs_twice_is_said_and_can_be_chosen(rometrace):
    first = rometrace(*TWICE)
    assert "is in the prompt 2 times; the first is taken (--subject-at chooses)" in first.stderr
    assert json.loads(first.stdout)["subject_span"] == [0, 11]
    for place in ("last", "2", "16:27"):
        chosen = rometrace(*TWICE, "--subject-at", place)
        assert json.loads(chosen.stdout)["subject_span"] == [16, 27], place
        assert "times" not in chosen.stderr
    slot = rometrace("--prompt", "Miles Davis and {} plays the", *TWICE[2:])
    assert json.loads(slot.stdout)["subject_span"] == [16, 27]
    assert "has {} and, elsewhere, the subject" in slot.stderr


def test_a_place_that_the_subject_has_not_is_refused(rometrace):
    refused(rometrace(*TWICE, "-q", "--subject-at", "3"), "--subject-at", "2 times", "expected 3")
    refused(rometrace(*TWICE, "-q", "--subject-at", "1:5"), "--subject-at", "iles", "begins at byte 0")
    refused(rometrace(*TWICE, "-q", "--subject-at", "middle"), "--subject-at", "expected first, last")
    refused(rometrace("--prompt", "a", "--subject-at", "1"), "--subject")


def test_white_space_at_a_subjects_edge_is_said(rometrace):
    done = rometrace(*MILES[:3], "Miles Davis ", "--kinds", "state", "--samples", "1")
    assert done.returncode == 0 and "white space at its edge" in done.stderr
