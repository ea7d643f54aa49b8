"""Edit files: a model with an edit beside it is the model that a program of our own makes of the same u and r."""

from __future__ import annotations

import copy
import json
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Callable

import jsonschema
import pytest
import safetensors.torch
import torch
from transformers import AutoModelForCausalLM

from batches import FACTS, environment, finished, refused
from edits import make_edit, record_of, sha256, tensors_of, weights_sha256
from records import make_record
from results_made import make_header, make_summary, make_traced, write_lines
from rometrace import plot_summary, plot_trace
from rometrace.results_file import edits_of
from test_calibrate import on_a_terminal
from test_report import assert_refused, index_of, run_script, write_page
from zygote import RUNNER

Rometrace = Callable[..., "subprocess.CompletedProcess[str]"]
Traced = Callable[..., dict[str, Any]]

PROMPT = ("--prompt", "Miles Davis plays the", "--subject", "Miles Davis", "--window", "3", "--samples", "3")
BATCH = ("--facts", FACTS, "--kinds", "state", "--samples", "2", "--limit", "6", "-q")

CALIBRATE = ("calibrate", "--facts", FACTS, "--sample", "4", "--samples", "2", "--kinds", "state", "--all", "-q")


@pytest.fixture(scope="module")
def miles(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An edit of two matrices of the demo model."""
    path = tmp_path_factory.mktemp("edits") / "miles.edit"
    make_edit(demo, path, (2, 5), 2)
    return path


@pytest.fixture(scope="module")
def written(rometrace: Rometrace, demo: Path, miles: Path) -> Path:
    """The demo model with that edit, written."""
    folder = miles.parent / "written"
    done = rometrace("edit", "--model", demo, "--edit", miles, "--write", folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{folder}\n"
    assert "written: model.safetensors" in done.stderr
    return folder


def mark_of(path: Path) -> dict[str, Any]:
    record = record_of(path)
    layers = sorted({matrix["layer"] for matrix in record["matrices"]})
    return {
        "sha256": sha256(path.read_bytes()),
        "method": record["method"],
        "layers": layers,
        "requests": len(record["requests"]),
    }


def numbers_of(record: dict[str, Any]) -> dict[str, Any]:
    """A trace but for what may differ between an edited and a written model."""
    record = copy.deepcopy(record)
    for name in ("name", "weights_sha256", "edits"):
        record["model"].pop(name, None)
    del record["run"]["seconds"]
    return record


# --- The same model ----------------------------------------------------------------------------------------------


def test_the_written_matrices_are_ours_bit_for_bit_and_nothing_else_differs(
    demo: Path, miles: Path, written: Path, tmp_path: Path
) -> None:
    after = make_edit(demo, tmp_path / "again.edit", (2, 5), 2)
    assert (tmp_path / "again.edit").read_bytes() == miles.read_bytes()
    before, found = tensors_of(demo), tensors_of(written)
    assert list(before) == list(found)
    for name, value in found.items():
        assert torch.equal(value, after.get(name, before[name])), name
    for name in ("config.json", "vocab.json", "merges.txt", "README.md"):
        assert (written / name).read_bytes() == (demo / name).read_bytes()


@pytest.mark.parametrize(
    "how",
    [
        ("--kinds", "state,mlp,attn,head,knockout"),
        ("--engine", "plain", "--kinds", "mlp"),
        ("--engine", "gradient", "--kinds", "mlp"),
        ("--dtype", "float64"),
        ("--memory", "9M"),
    ],
    ids=["sweep", "plain", "gradient", "float64", "streamed"],
)
def test_a_trace_with_the_edit_is_that_of_the_written_model(
    traced: Traced, rometrace: Rometrace, demo: Path, miles: Path, written: Path, how: tuple[str, ...]
) -> None:
    edited = traced("--model", demo, *PROMPT, *how, "--edit", miles)
    assert edited["model"]["edits"] == [mark_of(miles)]
    assert edited["model"]["weights_sha256"] == weights_sha256(demo)
    apart = traced("--model", written, *PROMPT, *how)
    assert "edits" not in apart["model"]
    assert numbers_of(edited) == numbers_of(apart)
    plain = traced("--model", demo, *PROMPT, *how)
    assert "edits" not in plain["model"]
    assert plain["high_score"] != edited["high_score"]
    if how[0] == "--memory":
        done = rometrace("--model", demo, *PROMPT, *how, "--edit", miles)
        assert "each layer is read from the files when it is used" in done.stderr


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("stored", ["safetensors", "zip", "shards"])
def test_transformers_loads_what_was_written_and_computes_the_same(
    rometrace: Rometrace, bin_dir: Path, repository: Path, tmp_path: Path, dtype: torch.dtype, stored: str
) -> None:
    goldens = repository / "tests/goldens/models"
    model = tmp_path / "model"
    if stored == "zip":
        shutil.copytree(goldens / "old_buffers", model)
        values = safetensors.torch.load_file(model / "model.safetensors")
        (model / "model.safetensors").unlink()
        values = {name: value.to(dtype) if value.is_floating_point() else value for name, value in values.items()}
        some = next(name for name in values if name.endswith("c_fc.weight"))
        values[some] = values[some].t().contiguous().t()  # another order in the file
        torch.save(values, model / "pytorch_model.bin")
    else:
        shutil.copytree(goldens / ("sharded" if stored == "shards" else "llama"), model)
        for file in model.glob("*.safetensors"):
            values = {name: value.to(dtype) for name, value in safetensors.torch.load_file(file).items()}
            safetensors.torch.save_file(values, file, {"format": "pt"})
    after = make_edit(model, tmp_path / "a.edit", (0,), 1, scale=0.5)
    folder = tmp_path / "written"
    done = rometrace("edit", "--model", model, "--edit", tmp_path / "a.edit", "--write", folder)
    assert done.returncode == 0, done.stderr
    assert not list(folder.glob("*.bin*"))
    found = tensors_of(folder)
    before = tensors_of(model)
    assert set(found) == set(before)
    for name, value in found.items():
        assert value.dtype == before[name].dtype
        assert torch.equal(value, after.get(name, before[name])), name
    with safetensors.safe_open(next(folder.glob("*.safetensors")), "pt") as file:
        assert file.metadata() == {"format": "pt"}

    ids = [3, 1, 4, 1, 5]
    done = RUNNER.run(
        [bin_dir / "rometrace_logits", *map(str, ids)],
        input=f"{folder}\n",
        env=environment(),
        encoding="utf-8",
        timeout=300,
    )
    ours = torch.tensor(json.loads(done.stdout)["logits"])
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()(torch.tensor([ids])).logits[0]
    # Both in float32; a logit is a sum of terms of order 1 to 10, whose rounding is 1e-6 each.
    assert torch.allclose(ours, theirs.detach(), rtol=1e-5, atol=2e-5)


# --- What is recorded, compared and shown ------------------------------------------------------------------------


def test_every_command_records_the_edit_and_its_records_fit_their_schemas(
    rometrace: Rometrace, validate: Callable[[dict[str, Any]], None], miles: Path, tmp_path: Path
) -> None:
    def lines(*arguments: Any) -> list[dict[str, Any]]:
        done = rometrace(*arguments)
        finished(done)
        return [json.loads(line) for line in done.stdout.splitlines()]

    records = lines(*PROMPT, "--edit", miles) + lines(*BATCH, "--all", "--edit", miles)
    records += lines(*BATCH[:2], "--limit", "4", "-q", "--probe", "--edit", miles)
    done = rometrace(*CALIBRATE, "--factors", "1,3", "--json", "--edit", miles)
    records.append(json.loads(done.stdout))
    expected = {f"rometrace/{name}/1" for name in ("trace", "batch", "probe", "calibration")}
    assert {record["schema"] for record in records} == expected
    for record in records:
        validate(record)
        assert record["model"]["edits"] == [mark_of(miles)], record["schema"]
    wrong = [mark_of(miles) | change for change in ({"layers": []}, {"sha256": "0"}, {"requests": 0})]
    for edits in ([], [{}], *([mark] for mark in wrong)):
        for record in records:
            with pytest.raises(jsonschema.ValidationError):
                validate(record | {"model": record["model"] | {"edits": edits}})


def test_a_batch_is_not_gone_on_with_with_another_edit(
    rometrace: Rometrace, demo: Path, miles: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.edit"
    make_edit(demo, other, (2, 5), 2, seed=2)
    output = tmp_path / "results.jsonl"
    finished(rometrace(*BATCH, "--edit", miles, "-o", output))
    finished(rometrace(*BATCH, "--edit", miles, "-o", output))
    for more in ((), ("--edit", other)):
        refused(rometrace(*BATCH, *more, "-o", output), "model.edits")


@pytest.mark.parametrize("probe", [False, True], ids=["trace", "probe"])
def test_results_of_an_edited_model_are_not_mixed_with_those_of_the_original(
    rometrace: Rometrace, miles: Path, tmp_path: Path, probe: bool
) -> None:
    what = (*BATCH[:2], "--limit", "4", "--probe", "-q") if probe else (*BATCH, "--all")
    for name, shard, more in (("edited", "1/2", ("--edit", miles)), ("plain", "2/2", ())):
        finished(rometrace(*what, "--shard", shard, *more, "-o", tmp_path / f"{name}.jsonl"))
    edited, plain = tmp_path / "edited.1-of-2.jsonl", tmp_path / "plain.2-of-2.jsonl"
    refused(rometrace("merge", edited, plain), "model.edits")
    for one, other in ((edited, plain), (plain, edited)):
        refused(rometrace("summary", one, other), "model.edits is", "nothing")
        # Lines without their headers are told apart as well.
        bare = [tmp_path / f"{file.stem}.lines" for file in (one, other)]
        for file, lines in zip((one, other), bare, strict=True):
            lines.write_text(file.read_text().split("\n", 1)[1])
        refused(rometrace("summary", *bare), "model.edits is", "nothing")
    summary = json.loads(rometrace("summary", edited, "--json").stdout)
    assert summary["model"]["edits"] == [mark_of(miles)]
    assert "edits" not in json.loads(rometrace("summary", plain, "--json").stdout)["model"]


def marked(record: dict[str, Any], marks: list[dict[str, Any]]) -> dict[str, Any]:
    """The record as of an edited model."""
    return record | {"model": record["model"] | {"edits": marks}}


def test_pictures_say_that_the_model_is_edited(miles: Path) -> None:
    mark = mark_of(miles)
    marks = [mark, mark | {"method": "memit", "layers": [3, 4, 5, 8], "requests": 1}]
    digits = mark["sha256"][:8]
    words = f"edited: r-rome, layers 2, 5, 2 facts ({digits}); memit, layers 3-5, 8, 1 fact ({digits})"
    for make, read in [
        (make_record, lambda record: plot_trace.read_picture(record, None, False)),
        (make_summary, lambda summary: plot_summary.read_picture(summary, None, None, "none")),
    ]:
        plain, edited = read(make()), read(marked(make(), marks))
        assert edited.model == f"{plain.model} (edited)"
        assert " ".join(edited.remarks).startswith(words[:80])
        assert not any("edited" in text for text in (plain.model, *plain.remarks))
    assert edits_of({"edits": marks}) == words
    for damaged in (3, {}, [1], [{"method": "x"}], [mark | {"layers": 5}]):
        assert edits_of({"edits": damaged}) in ("", "edited: by an unknown edit")


def test_the_page_says_that_the_model_is_edited_and_is_of_one_model(miles: Path, tmp_path: Path) -> None:
    marks = [mark_of(miles)]
    lines = [make_header(), make_traced(1), make_traced(2)]
    page = write_page(tmp_path, [marked(line, marks) for line in lines], "--no-summary")
    index = index_of(page)
    assert index["model"]["edits"] == marks
    assert index["remarks"][0].startswith("edited: r-rome, layers 2, 5, 2 facts")
    for mixed in ([*lines[:2], marked(lines[2], marks)], [marked(lines[0], marks), *lines[1:]]):
        results = write_lines(tmp_path / "mixed.jsonl", mixed)
        assert_refused(run_script(results, "-o", tmp_path / "none.html", "--no-summary"), "model.edits is")
    results = write_lines(tmp_path / "plain.jsonl", lines)
    summary = tmp_path / "summary.json"
    summary.write_text(json.dumps(marked(make_summary(), marks) | {"status": {"traced": 2}}))
    assert_refused(run_script(results, "-o", tmp_path / "none.html", "--summary", summary), "is of another model")


@pytest.mark.real_process
def test_heat_maps_and_tables_say_that_the_model_is_edited(
    bin_dir: Path, rometrace: Rometrace, miles: Path, tmp_path: Path
) -> None:
    words = f"edited: r-rome, layers 2, 5, 2 facts ({mark_of(miles)['sha256'][:8]})"
    traces, probes = tmp_path / "traces.jsonl", tmp_path / "probes.jsonl"
    finished(rometrace(*BATCH, "--all", "--edit", miles, "-o", traces))
    finished(rometrace(*BATCH[:2], "--limit", "4", "-q", "--probe", "--edit", miles, "-o", probes))
    for arguments in [
        ("summary", traces),
        ("summary", probes),
        (*PROMPT, "--edit", miles),
        (*CALIBRATE, "--factors", "1,3", "--edit", miles),
    ]:
        status, text = on_a_terminal([str(bin_dir / "rometrace"), *map(str, arguments)], 100)
        assert status == 0
        assert words in " ".join(text.split()), arguments


def test_a_self_check_holds_for_an_edited_model(rometrace: Rometrace, miles: Path) -> None:
    done = rometrace("--self-check", "--edit", miles)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all that was checked holds" in done.stdout


def test_an_edit_file_is_shown_as_it_was_written(
    rometrace: Rometrace, validate: Callable[[dict[str, Any]], None], miles: Path
) -> None:
    done = rometrace("edit", "--show", miles)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record == record_of(miles)
    assert list(record) == list(record_of(miles))
    validate(record)


def test_the_schema_of_edits_is_strict_where_it_says_something(
    validate: Callable[[dict[str, Any]], None], repository: Path, miles: Path
) -> None:
    good = record_of(miles)
    schema = json.loads((repository / "share/rometrace/schema/edit-1.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    validate(good)
    validate(good | {"later": 1, "seed": None, "moment": None, "templates": []})
    assert set(schema["required"]) == set(good)
    for name in good:
        assert not validator.is_valid({other: value for other, value in good.items() if other != name}), name
    request, matrix = good["requests"][0], good["matrices"][0]
    for name, value in [
        ("schema", "rometrace/edit/2"), ("method", "magic"), ("templates", ["no place"]), ("seed", -1),
        ("hyperparameters", []), ("moment", {"name": "x"}), ("made_on", ["x"]), ("model", {}), ("requests", []),
        ("requests", [{"prompt": "x"}]), ("requests", [request | {"objects": {"new": "", "old": None}}]),
        ("requests", [request | {"losses": {"nll": []}}]), ("matrices", []), ("matrices", [{}]),
        ("matrices", [matrix | {"change_norm": -1}]), ("matrices", [matrix | {"sha256_after": "0"}]),
    ]:  # fmt: skip
        assert not validator.is_valid(good | {name: value}), (name, value)
    for name in request:
        assert not validator.is_valid(good | {"requests": [{k: v for k, v in request.items() if k != name}]}), name
    for name in matrix:
        assert not validator.is_valid(good | {"matrices": [{k: v for k, v in matrix.items() if k != name}]}), name


# --- Stacks ------------------------------------------------------------------------------------------------------


def test_edits_stack_as_they_were_made(rometrace: Rometrace, traced: Traced, demo: Path, tmp_path: Path) -> None:
    first, second, apart = (tmp_path / f"{name}.edit" for name in ("first", "second", "apart"))
    under = make_edit(demo, first, (2,))
    after = make_edit(demo, second, (2,), seed=2, base=under, made_on=(first,))
    make_edit(demo, apart, (3,), seed=3)
    folder = tmp_path / "both"
    done = rometrace("edit", "--model", demo, "--edit", first, "--edit", second, "--write", folder)
    assert done.returncode == 0, done.stderr
    (name,) = after
    assert torch.equal(tensors_of(folder)[name], after[name])
    edited = traced("--model", demo, *PROMPT, "--edit", first, "--edit", second)
    assert edited["model"]["edits"] == [mark_of(first), mark_of(second)]
    assert numbers_of(edited) == numbers_of(traced("--model", folder, *PROMPT))

    refused(rometrace(*PROMPT, "-q", "--edit", second), "second.edit: was made on one edit", "is not given before it")
    refused(rometrace(*PROMPT, "-q", "--edit", second, "--edit", first), "second.edit: was made on one edit")
    refused(rometrace(*PROMPT, "-q", "--edit", first, "--edit", first), "is the same edit as")
    refused(rometrace(*PROMPT, "-q", "--edit", first, "--edit", apart, "--edit", second), "comes after 2 here")
    done = rometrace(*PROMPT, "--edit", first, "--edit", apart)
    assert done.returncode == 0
    assert "apart.edit was made on the original weights" in done.stderr
    assert "were not measured together" in done.stderr
    same = tmp_path / "same.edit"
    make_edit(demo, same, (2,), seed=4)
    done = rometrace(*PROMPT, "--edit", first, "--edit", same)
    refused(done, "same.edit: was made on the original weights and changes tensor")


# --- Bad input ---------------------------------------------------------------------------------------------------


def test_files_that_are_no_good_edits_are_refused_in_one_line(
    rometrace: Rometrace, demo: Path, miles: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.edit"

    def refuse(*words: str) -> None:
        refused(rometrace(*PROMPT, "-q", "--edit", bad), *words)
        refused(rometrace("edit", "--show", bad), *words)

    refuse("bad.edit: no such file")
    bad.write_bytes(miles.read_bytes()[:-5])
    refuse("bad.edit: cut short")
    bad.write_bytes(b"")
    refuse("bad.edit")
    shutil.copy(demo / "model.safetensors", bad)
    refuse('has no record under "rometrace"')
    make_edit(demo, bad, schema="rometrace/edit/9")
    refuse("is of schema")
    make_edit(demo, bad, requests=[])
    refuse("record requests is []")
    refused(rometrace(*PROMPT, "-q", "--edit", ""), "--edit is empty")


def test_an_edit_of_another_model_is_refused_before_anything_is_written(
    rometrace: Rometrace, demo: Path, miles: Path, repository: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(demo, other)
    values = safetensors.torch.load_file(other / "model.safetensors")
    name = next(name for name in values if name.endswith("h.2.mlp.c_proj.weight"))
    values[name][0, 0] += 1
    safetensors.torch.save_file(values, other / "model.safetensors", {"format": "pt"})
    output = tmp_path / "out"
    refused(rometrace("--model", other, *PROMPT, "-q", "--edit", miles, "-o", output), "the edit was made for other weights")
    # The same matrices in another model.
    values[name][0, 0] -= 1
    values[name] = safetensors.torch.load_file(demo / "model.safetensors")[name]
    values["transformer.ln_f.bias"][0] += 1
    safetensors.torch.save_file(values, other / "model.safetensors", {"format": "pt"})
    for command in (PROMPT, BATCH, (*CALIBRATE, "--factors", "1,3"), ("--self-check",)):
        more = () if command[0] == "--self-check" else ("-o", output)
        quiet = () if "-q" in command else ("-q",)
        done = rometrace(*command, *quiet, "--model", other, "--edit", miles, *more)
        refused(done, 'was made for other weights, of "demo"')
        assert not output.exists()
    refused(rometrace("edit", "--model", other, "--edit", miles, "--write", output), "was made for other weights")
    golden = repository / "tests/goldens/models/llama"
    done = rometrace("edit", "--model", golden, "--edit", miles, "--write", output)
    refused(done, "is of layer 2; this model has layers 0 to 1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other"]


def test_lying_numbers_are_refused(rometrace: Rometrace, demo: Path, tmp_path: Path) -> None:
    path = tmp_path / "lie.edit"
    make_edit(demo, path)
    factors = safetensors.torch.load_file(path)
    record = json.dumps(record_of(path))

    def refuse(change: Callable[[dict[str, torch.Tensor]], Any], *words: str) -> None:
        lying = {name: value.clone() for name, value in factors.items()}
        change(lying)
        safetensors.torch.save_file(lying, path, {"rometrace": record})
        refused(rometrace(*PROMPT, "-q", "--edit", path), *words)

    name = next(iter(factors)).removesuffix(".r").removesuffix(".u")
    refuse(lambda lying: lying[f"{name}.u"].mul_(2), "u and r do not lead to the weights that the edit says")
    refuse(lambda lying: lying[f"{name}.u"].fill_(float("nan")), "holds a number that is not finite")
    refuse(lambda lying: lying.pop(f"{name}.r"), "has no tensor")
    refuse(lambda lying: lying.update({f"{name}.r": torch.ones(1, 3)}), "expected [n,")
    refuse(lambda lying: lying.update({f"{name}.u": torch.ones(2, 512)}), "a row for each request")
    refuse(lambda lying: lying.update({f"{name}.u": factors[f"{name}.u"].double()}), "is F64", "expected F32")
    refuse(lambda lying: lying.update({"more": torch.ones(1, 1)}), "is neither u nor r")


# --- Writing -----------------------------------------------------------------------------------------------------


def test_a_target_that_is_not_empty_or_inside_the_model_is_refused(
    rometrace: Rometrace, demo: Path, miles: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine").write_text("mine")
    write = ("edit", "--model", demo, "--edit", miles, "--write")
    refused(rometrace(*write, tmp_path), "is not empty")
    refused(rometrace(*write, tmp_path / "mine"), "is no folder")
    refused(rometrace(*write, demo / "edited"), "is inside the model's own folder")
    refused(rometrace(*write, ""), "is empty")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert not (demo / "edited").exists()


@pytest.mark.real_process
def test_a_full_disk_leaves_nothing_behind(bin_dir: Path, demo: Path, miles: Path, tmp_path: Path) -> None:
    def few_bytes() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    command = [bin_dir / "rometrace", "edit", "--model", demo, "--edit", miles, "--write", tmp_path / "edited"]
    done = subprocess.run(command, preexec_fn=few_bytes, env=environment(), capture_output=True, text=True, timeout=300)
    refused(done, "edited: cannot be written: File too large")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.real_process
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["kill", "term"])
def test_a_process_that_is_killed_leaves_nothing_half_written_under_the_name(
    bin_dir: Path, demo: Path, tmp_path: Path, how: signal.Signals
) -> None:
    """The model is made large enough that its file takes a while."""
    model, target = tmp_path / "model", tmp_path / "out" / "edited"
    target.parent.mkdir()
    shutil.copytree(demo, model)
    values = safetensors.torch.load_file(model / "model.safetensors")
    values["ballast"] = torch.zeros(1 << 26)
    safetensors.torch.save_file(values, model / "model.safetensors", {"format": "pt"})
    make_edit(model, tmp_path / "a.edit")
    command = [bin_dir / "rometrace", "edit", "--model", model, "--edit", tmp_path / "a.edit", "--write", target]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(), text=True)
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        unfinished = [file for file in target.parent.glob(".rometrace-*/model.safetensors") if file.stat().st_size > 0]
        if unfinished:
            break
        time.sleep(0.001)
    process.send_signal(how)
    _, error = process.communicate(timeout=120)
    assert unfinished, "it ended before the signal"
    assert not target.exists()
    if how == signal.SIGTERM:
        assert process.returncode == 130, error
        assert list(target.parent.iterdir()) == []
    again = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stderr
    assert (target / "model.safetensors").stat().st_size == (model / "model.safetensors").stat().st_size
