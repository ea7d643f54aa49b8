"""`rometrace moments` collects what transformers' keys give by NumPy, keeps it, and goes on where it was stopped."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
import signal
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM

import make_goldens
from batches import environment, refused
from conftest import Rometrace
from reference_tracer import load_tokenizer
from test_against_transformers import write_letter_tokenizer
from waiting import PATIENCE, wait_until
from zygote import RUNNER

WORDS = ("the", "heth", "abc", "xyz", "a", "quick", "tthh", "eet", "zz")
LAST_MATRICES = ("mlp.c_proj", "mlp.fc_out", "mlp.dense_4h_to_h", "fc2", "mlp.down_proj")


def texts_of(count: int, seed: int, longest: int) -> list[str]:
    """Texts of one word or more, of many lengths; some with a space at their end."""
    draw = random.Random(seed)
    return [" ".join(draw.choice(WORDS) for _ in range(draw.randint(1, longest))) for _ in range(count)]


def write_texts(folder: Path, texts: list[str]) -> Path:
    path = folder / "texts.txt"
    path.write_text("".join(text + "\n" for text in texts))
    return path


@pytest.fixture
def moments(rometrace: Rometrace, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """moments(*arguments) runs the command with a cache of its own."""

    def run(*arguments: object, **more: str) -> subprocess.CompletedProcess[str]:
        return rometrace("moments", *arguments, **{"XDG_CACHE_HOME": str(tmp_path / "cache")} | more)

    return run


@pytest.fixture
def random_model(tmp_path: Path) -> Callable[[str], Path]:
    """random_model(case) gives a model of a golden's shape, with a tokeniser of letters."""

    def make(name: str) -> Path:
        (case,) = (case for case in make_goldens.CASES if case.name == name)
        folder = tmp_path / name
        make_goldens.save_model(replace(case, name=f"{name} moments", stored=torch.float32), folder)
        write_letter_tokenizer(folder, json.loads((folder / "config.json").read_text())["vocab_size"])
        return folder

    return make


def done(result: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def read_file(path: Path) -> tuple[dict[str, Any], dict[int, np.ndarray]]:
    """The metadata of a moments file, and each layer's matrix."""
    with safe_open(path, "np") as file:
        facts = json.loads(file.metadata()["rometrace"])
        matrices = {}
        for layer in facts["layers"]:
            triangle = file.get_tensor(f"moment.{layer}")
            digest = bytes(file.get_tensor(f"sha256.{layer}")).decode()
            assert digest == hashlib.sha256(triangle.tobytes()).hexdigest()
            assert triangle.dtype == np.float64
            upper = np.zeros((facts["width"], facts["width"]))
            upper[np.triu_indices(facts["width"])] = triangle
            matrices[layer] = upper + np.triu(upper, 1).T
    return facts, matrices


def moments_by_transformers(folder: Path, texts: list[str]) -> tuple[list[np.ndarray], int]:
    """Of each layer the mean of k k^T, text by text in float64; and the number of tokens."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager").eval()
    tokenizer = load_tokenizer(folder)
    matrices = [module for name, module in model.named_modules() if name.endswith(LAST_MATRICES)]
    assert len(matrices) == model.config.num_hidden_layers
    sums: list[Any] = [0.0] * len(matrices)

    def take(place: int) -> Callable[..., None]:
        def hook(_: Any, inputs: tuple[torch.Tensor]) -> None:
            keys = inputs[0].reshape(-1, inputs[0].shape[-1])
            sums[place] = sums[place] + (keys.T @ keys).numpy()

        return hook

    for place, matrix in enumerate(matrices):
        matrix.register_forward_pre_hook(take(place))
    tokens = 0
    for text in texts:
        ids = tokenizer.encode(text).ids[: model.config.max_position_embeddings]
        tokens += len(ids)
        with torch.no_grad():
            model(torch.tensor([ids]))
    return [total / tokens for total in sums], tokens


# --- The numbers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "layer"), [("gpt2-lyrics", 1), ("gpt2-horoscope", 2), ("stories260K-hf", 2)], ids=lambda value: str(value)
)
def test_they_are_those_of_the_authors_own_program(
    moments: Callable[..., Any], shared: Path, tmp_path: Path, validate: Callable[[Any], None], model: str, layer: int
) -> None:
    golden = json.loads((shared / "editing/statistics.json").read_text())[f"C-{model}-{layer}.tri"]
    text, output = shared / "editing/stats-text.txt", tmp_path / "C.safetensors"
    record = done(moments("--model", shared / "models" / model, "--text", text, "--layers", layer, "-o", output))
    validate(record)
    assert (record["text"]["tokens"], record["text"]["texts"]) == (golden["tokens"], golden["texts"])
    assert record["text"]["sha256"] == hashlib.sha256(text.read_bytes()).hexdigest()
    assert record["text"]["whole"] is True
    (summary,) = record["layers"]
    assert summary["width"] == golden["size"]
    assert summary["trace"] == pytest.approx(golden["trace"], rel=1e-5)
    assert summary["frobenius"] == pytest.approx(golden["frobenius"], rel=1e-5)
    assert summary["ridge"] == 0
    condition = golden["largest_eigenvalue"] / golden["smallest_eigenvalue"]
    assert summary["condition"] == pytest.approx(condition, rel=0.02)

    width = golden["size"]
    expected = np.zeros((width, width))
    triangle = np.fromfile(shared / f"editing/C-{model}-{layer}.tri", "<f4")
    expected[np.triu_indices(width)] = triangle
    expected += np.triu(expected, 1).T
    facts, matrices = read_file(output)
    assert facts["text"] == {"sha256": record["text"]["sha256"], "texts": 2209, "tokens": golden["tokens"],
                             "cut": record["text"]["cut"]}
    assert facts["model"]["weights_sha256"] == record["model"]["weights_sha256"]
    difference = np.linalg.norm(matrices[layer] - expected) / np.linalg.norm(expected)
    assert difference < 1e-5, difference


FAMILIES = ("twelve_layers", "gptj", "gpt_neo", "gpt_neox", "opt", "opt_norm_after", "llama_grouped", "mistral",
            "qwen2_sliding", "qwen3_sliding", "gemma", "gemma2", "gemma3")


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_agrees_with_transformers(
    moments: Callable[..., Any], random_model: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    folder = random_model(name)
    texts = texts_of(60, seed=3, longest=3)
    expected, tokens = moments_by_transformers(folder, texts)
    layers = len(expected)
    output = tmp_path / "C.safetensors"
    more = ("--text", write_texts(tmp_path, texts), "--layers", f"0-{layers - 1}", "-o", output)
    # Of a float64 model transformers still has float32 angles (rotary) or a float32 softmax (GPT-Neo, OPT).
    exact = 1e-12 if name == "twelve_layers" else 1e-6
    for dtype, tolerance in (("float64", exact), ("float32", 1e-5)):
        record = done(moments("--model", folder, *more, "--dtype", dtype))
        assert record["text"]["tokens"] == tokens
        facts, matrices = read_file(output)
        assert facts["layers"] == list(range(layers)) == [layer["layer"] for layer in record["layers"]]
        for layer in range(layers):
            scale = np.linalg.norm(expected[layer])
            difference = np.linalg.norm(matrices[layer] - expected[layer]) / scale
            assert difference < tolerance, (dtype, layer, difference)
            assert record["layers"][layer]["trace"] == pytest.approx(np.trace(expected[layer]), rel=1e-5)
        relu = name.startswith("opt")
        few = tokens < 10 * record["layers"][0]["width"]
        assert (record["layers"][0]["ridge"] > 0) == (relu or few)


def test_threads_and_streamed_layers_do_not_matter(
    moments: Callable[..., Any], demo: Path, tmp_path: Path
) -> None:
    text = write_texts(tmp_path, [f"{word} plays the {other}" for word in WORDS for other in WORDS] * 8)
    found = {}
    for name, more in {
        "one": ("--threads", 1),
        "two": ("--threads", 2),
        "streamed": ("--threads", 1, "--memory", "5M"),
    }.items():
        output = tmp_path / f"{name}.safetensors"
        result = moments("--model", demo, "--text", text, "--layers", "1,3", "-o", output, *more,
                         XDG_CACHE_HOME=str(tmp_path / name))
        done(result)
        assert ("each layer is read" in result.stderr) == (name == "streamed"), result.stderr
        found[name] = read_file(output)[1]
    for layer in (1, 3):
        norm = np.linalg.norm(found["one"][layer])
        assert np.linalg.norm(found["two"][layer] - found["one"][layer]) < 1e-6 * norm
        assert (found["streamed"][layer] == found["one"][layer]).all()


# --- The text ---------------------------------------------------------------------------------------------------


def test_packed_and_piped_texts_and_those_with_other_line_ends_are_the_same(
    moments: Callable[..., Any], bin_dir: Path, demo: Path, tmp_path: Path
) -> None:
    texts = texts_of(40, seed=5, longest=6)
    plain = write_texts(tmp_path, texts)
    packed = tmp_path / "texts.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    windows = tmp_path / "windows.txt"
    windows.write_bytes(b"\xef\xbb\xbf" + b"\r\n  \t\r\n".join(text.encode() for text in texts))
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text("".join(text + "\n" for text in texts[:7]))
    second.write_text("\n".join(texts[7:]))
    records = [
        done(moments("--model", demo, "--layers", 2, "--text", *files))
        for files in ((plain,), (packed,), (windows,), (first, second))
    ]
    assert [record["layers"][0].pop("cached") for record in records] == [False, True, True, True]
    assert [record["text"].pop("files") for record in records] == ["texts.txt", "texts.gz", "windows.txt", "first, second"]
    for record in records:
        del record["run"]
        assert record == records[0]
    piped = RUNNER.run(
        [bin_dir / "rometrace", "moments", "--model", demo, "--layers", "2", "--text", "-"],
        env=environment(XDG_CACHE_HOME=str(tmp_path / "cache")), input=plain.read_text(), encoding="utf-8", timeout=300,
    )
    assert done(piped)["layers"] == [records[0]["layers"][0] | {"cached": True}]


def test_whole_texts_up_to_so_many_tokens_count_and_long_ones_are_cut(
    moments: Callable[..., Any], shared: Path, tmp_path: Path
) -> None:
    model = shared / "models/gpt2-lyrics"  # takes 64 tokens
    long = "oh " * 100
    text = write_texts(tmp_path, [long, "my love", long, "never"])
    whole = moments("--model", model, "--layers", 0, "--text", text)
    record = done(whole)
    assert (record["text"]["cut"], record["text"]["cut_texts"], record["text"]["whole"]) == (64, 2, True)
    assert "2 texts were cut to the 64 tokens that the model takes" in whole.stderr
    assert "left out" not in whole.stderr
    tokens = record["text"]["tokens"]
    part = moments("--model", model, "--layers", 0, "--text", text, "--tokens", tokens - 1)
    record = done(part)
    assert record["text"]["texts"] == 3 and record["text"]["whole"] is False
    assert record["text"]["sha256"] == hashlib.sha256("".join(text.read_text().splitlines(True)[:3]).encode()).hexdigest()
    assert "--tokens takes more" in part.stderr
    assert done(moments("--model", model, "--layers", 0, "--text", text, "--tokens", 1))["text"]["tokens"] == 64


def test_few_tokens_and_singular_moments_are_said(moments: Callable[..., Any], demo: Path, tmp_path: Path) -> None:
    text = write_texts(tmp_path, ["Miles Davis plays the trumpet"])
    result = moments("--model", demo, "--layers", 1, "--text", text)
    (layer,) = done(result)["layers"]
    assert layer["ridge"] == pytest.approx(0.01 * layer["trace"] / layer["width"])
    assert 1 <= layer["condition"] < 1e7
    assert "fewer than twice" in result.stderr


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ("is empty",)),
        (b" \n\r\n\t\n", ("has no text",)),
        (b"good\nb\xffad\n", ("line 2", "UTF-8")),
        (gzip.compress(b"a text\n" * 9000)[:-30], ("cut short",)),
        (b"PK\x03\x04" + b"0" * 80, ("zip archive",)),
    ],
    ids=("empty", "blank", "not UTF-8", "cut gzip", "zip"),
)
def test_a_text_that_is_none_is_refused(
    moments: Callable[..., Any], demo: Path, tmp_path: Path, content: bytes, words: tuple[str, ...]
) -> None:
    text = tmp_path / "bad.txt"
    text.write_bytes(content)
    refused(moments("--model", demo, "--layers", 1, "--text", text, "-q"), "bad.txt", *words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--layers", "4-2"), ("--layers", "ends before it begins")),
        (("--layers", "x"), ("--layers", "13-17")),
        (("--layers", "-1"), ("--layers",)),
        (("--layers", "7-99"), ("--layers", "no layer 99", "expected 0 to")),
        (("--layers", "1", "--tokens", "0"), ("--tokens",)),
        (("--layers", "1", "-o", "-"), ("--output", "no text for stdout")),
        (("--layers", "1", "-o", "/nowhere/C"), ("/nowhere/C",)),
        ((), ("--layers",)),
    ],
)
def test_options_that_cannot_be_are_refused(
    moments: Callable[..., Any], demo: Path, tmp_path: Path, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    text = write_texts(tmp_path, ["a text"])
    refused(moments("--model", demo, "--text", text, "-q", *arguments), *words)


# --- The cache --------------------------------------------------------------------------------------------------


def test_moments_are_kept_and_a_damaged_file_is_made_anew(
    moments: Callable[..., Any], demo: Path, tmp_path: Path
) -> None:
    text = write_texts(tmp_path, texts_of(50, seed=1, longest=5))
    first = done(moments("--model", demo, "--text", text, "--layers", "1-2"))
    files = [Path(layer["file"]) for layer in first["layers"]]
    before = [file.read_bytes() for file in files]
    kept = [path.name for path in (tmp_path / "cache/rometrace").iterdir() if path.is_file()]
    assert sorted(kept) == sorted(file.name for file in files)
    wider = done(moments("--model", demo, "--text", text, "--layers", "1-3"))
    assert [layer["cached"] for layer in wider["layers"]] == [True, True, False]

    for damaged in (before[0][:-9], before[0][:3000] + b"\0\1\2\3" + before[0][3004:], b""):
        files[0].write_bytes(damaged)
        output = tmp_path / "C.safetensors"
        done(moments("--model", demo, "--text", text, "--layers", "1-2", "-o", output))
        assert files[0].read_bytes() == before[0] and files[1].read_bytes() == before[1]
        assert (read_file(output)[1][1] == read_file(files[0])[1][1]).all()


def test_without_a_cache_a_file_is_needed(moments: Callable[..., Any], demo: Path, tmp_path: Path) -> None:
    text = write_texts(tmp_path, ["a text"])
    nowhere = {"XDG_CACHE_HOME": "", "HOME": ""}
    refused(moments("--model", demo, "--text", text, "--layers", "1", "-q", **nowhere), "-o")
    done(moments("--model", demo, "--text", text, "--layers", "1", "-o", tmp_path / "C", **nowhere))


@pytest.fixture(scope="module")
def long_run(bin_dir: Path, demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Any]]:
    """long_run(folder) is what subprocess needs for a run of some seconds, whose cache and file are in that folder."""
    texts = [f"{a} {b} {c}" for a in WORDS for b in WORDS for c in WORDS] * 20
    text = write_texts(tmp_path_factory.mktemp("text"), texts)

    def of(folder: Path) -> dict[str, Any]:
        more = ("--layers", "3,7", "--tokens", "10000000", "--threads", "1", "-o", folder / "C.safetensors")
        words = (bin_dir / "rometrace", "moments", "--model", demo, "--text", text, *more)
        return {"args": [str(word) for word in words], "env": environment(XDG_CACHE_HOME=str(folder))}

    return of


@pytest.fixture(scope="module")
def whole_run(long_run: Callable[..., dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file of a run that nothing stops."""
    folder = tmp_path_factory.mktemp("whole")
    result = subprocess.run(**long_run(folder), capture_output=True, text=True, timeout=PATIENCE)
    assert result.returncode == 0 and "earlier run" not in result.stderr, result.stderr
    return (folder / "C.safetensors").read_bytes()


@pytest.mark.real_process
@pytest.mark.parametrize("way", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "killed"])
def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(
    long_run: Callable[..., dict[str, Any]], whole_run: bytes, tmp_path: Path, way: signal.Signals
) -> None:
    run, kept = long_run(tmp_path), tmp_path / "rometrace"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(**run, **pipes) as process:
        wait_until(lambda: list(kept.glob("moment-sums-*")), process)
        process.send_signal(way)
        _, told = process.communicate()
    assert process.returncode == (130 if way == signal.SIGINT else -signal.SIGKILL)
    assert ("the same command goes on from there" in told) == (way == signal.SIGINT)
    assert not (tmp_path / "C.safetensors").exists()
    assert not list(kept.glob("second-moment-*"))

    again = subprocess.run(**run, capture_output=True, text=True, timeout=PATIENCE)
    assert again.returncode == 0, again.stderr
    assert "which an earlier run has done" in again.stderr
    assert (tmp_path / "C.safetensors").read_bytes() == whole_run
    assert len([path for path in kept.iterdir() if path.is_file()]) == 2  # the moments; what was half done is gone


# --- Files, and solving -----------------------------------------------------------------------------------------


def read_by_tool(bin_dir: Path, file: Path, layer: int = 0, **request: Any) -> subprocess.CompletedProcess[str]:
    return RUNNER.run(
        [bin_dir / "rometrace_moments", file, str(layer)],
        input=json.dumps(request) if request else "",
        env=os.environ,
        encoding="utf-8",
        timeout=300,
    )


def some_moment(width: int = 12, tokens: int = 90, seed: int = 0) -> np.ndarray:
    keys = np.random.default_rng(seed).standard_normal((tokens, width)) * np.linspace(0.1, 2, width)
    return (keys.T @ keys).astype(np.float32)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["stored", "deflated"])
@pytest.mark.parametrize("dtype", ["<f4", "<f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_the_references_statistics_are_read(
    bin_dir: Path, tmp_path: Path, save: Callable[..., None], dtype: str, order: str
) -> None:
    file, total = tmp_path / "transformer.h.17.mlp.c_proj_float32_mom2_100000.npz", some_moment()
    arrays = {
        "mom2.constructor": "util.runningstats.SecondMoment()",
        "mom2.count": 90,
        "mom2.mom2": np.asarray(total, dtype, order=order),
        "sample_size": 100,
    }
    save(file, **arrays)
    answer = done(read_by_tool(bin_dir, file, 17))
    assert (answer["layers"], answer["tokens"]) == ([17], 90)
    np.testing.assert_allclose(answer["mean"], total.astype(float) / 90, rtol=1e-6, atol=1e-9)
    refused(read_by_tool(bin_dir, file, 5), "is of layer 17; expected layer 5")
    plain = tmp_path / "statistics.npz"
    file.rename(plain)
    assert done(read_by_tool(bin_dir, plain, 5))["layers"] == [-1]


def damaged_npz(folder: Path, how: str) -> Path:
    file, total, count = folder / "bad.npz", some_moment(), 90
    arrays: dict[str, Any] = {"mom2.mom2": total, "mom2.count": count}
    if how == "no count":
        del arrays["mom2.count"]
    elif how == "count 0":
        arrays["mom2.count"] = 0
    elif how == "NaN":
        total[3, 4] = total[4, 3] = np.nan
    elif how == "not symmetric":
        total[3, 4] += 9
    elif how == "not square":
        arrays["mom2.mom2"] = total[:, :5]
    elif how == "negative":
        total[3, 3] *= -1
    elif how == "objects":
        arrays["mom2.mom2"] = np.array([["a", "b"], ["c", "d"]])
    (np.savez_compressed if how == "flipped, deflated" else np.savez)(file, **arrays)
    content = bytearray(file.read_bytes())
    if how.startswith("flipped"):
        content[300] ^= 0x40
    file.write_bytes(content[:-40] if how == "cut" else content)
    return file


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("no count", ("no mom2.count",)),
        ("count 0", ("mom2.count",)),
        ("NaN", ("not finite",)),
        ("not symmetric", ("not symmetric",)),
        ("not square", ("[12,5]", "square")),
        ("negative", ("negative",)),
        ("objects", ("mom2.mom2", "float32")),
        ("flipped", ("damaged",)),
        ("flipped, deflated", ("damaged",)),
        ("cut", ("get the file again",)),
    ],
)
def test_statistics_that_are_damaged_are_refused(bin_dir: Path, tmp_path: Path, how: str, words: tuple[str, ...]) -> None:
    refused(read_by_tool(bin_dir, damaged_npz(tmp_path, how)), "bad.npz", *words)


@pytest.fixture
def moments_file(moments: Callable[..., Any], demo: Path, tmp_path: Path) -> Path:
    output = tmp_path / "C.safetensors"
    text = write_texts(tmp_path, texts_of(50, seed=2, longest=5))
    done(moments("--model", demo, "--text", text, "--layers", "1,2", "-o", output))
    return output


def edited(content: bytes, old: bytes, new: bytes) -> bytes:
    assert content.count(old) == 1 and len(old) == len(new)
    return content.replace(old, new)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: content[:-1], ("cut short",)),
        (lambda content: content[:-5000] + b"\1" + content[-4999:], ("layer 2", "damaged")),
        (lambda content: edited(content, b"moments-file/1", b"moments-file/2"), ("schema",)),
        (lambda content: edited(content, b'\\"layers\\":[1,2]', b'\\"layers\\":[1,3]'), ("has no tensor", "moment.3")),
        (lambda content: edited(content, b'\\"layers\\":[1,2]', b'\\"layers\\":[2,1]'), ("layers", "ascending")),
        (lambda content: edited(content, b'\\"tokens\\":', b'\\"tokenz\\":'), ("no text.tokens",)),
        (lambda content: edited(content, b'"rometrace":"', b'"sometrace":"'), ("is no file of second moments",)),
    ],
)
def test_a_file_that_is_damaged_or_lies_is_refused(
    bin_dir: Path, moments_file: Path, change: Callable[[bytes], bytes], words: tuple[str, ...]
) -> None:
    assert done(read_by_tool(bin_dir, moments_file, 2))["layers"] == [1, 2]
    refused(read_by_tool(bin_dir, moments_file, 7), "is of layers 1, 2; expected layer 7")
    moments_file.write_bytes(change(moments_file.read_bytes()))
    refused(read_by_tool(bin_dir, moments_file, 2), "C.safetensors", *words)


def test_a_file_with_a_matrix_that_is_no_moment_is_refused(bin_dir: Path, moments_file: Path) -> None:
    content = bytearray(moments_file.read_bytes())
    with safe_open(moments_file, "np") as file:
        size = file.get_tensor("moment.1").size
        head = len(content) - 2 * (8 * size + 64)
    content[head : head + 8] = np.array([np.nan]).tobytes()
    content[head + 8 * size : head + 8 * size + 64] = hashlib.sha256(content[head : head + 8 * size]).hexdigest().encode()
    moments_file.write_bytes(content)
    refused(read_by_tool(bin_dir, moments_file, 1), "not finite")


def test_another_safetensors_file_is_refused(bin_dir: Path, demo: Path) -> None:
    refused(read_by_tool(bin_dir, demo / "model.safetensors"), "is no file of second moments")


def save_statistics(folder: Path, total: np.ndarray, tokens: int) -> Path:
    np.savez(folder / "C.npz", **{"mom2.mom2": total, "mom2.count": tokens})
    return folder / "C.npz"


@pytest.mark.parametrize("ridge", [0, 0.3])
@pytest.mark.parametrize("count", [1, 5, 30])
def test_solving_is_numpys(bin_dir: Path, tmp_path: Path, ridge: float, count: int) -> None:
    width, weight = 12, 7.0
    file = save_statistics(tmp_path, some_moment(width), 90)
    keys = np.random.default_rng(4).standard_normal((count, width))
    answer = done(read_by_tool(bin_dir, file, ridge=ridge, keys=keys.tolist(), **{"lambda": weight}))
    mean = np.array(answer["mean"])
    matrix = mean + ridge * np.eye(width)
    expected = np.linalg.solve(matrix, keys.T).T
    np.testing.assert_allclose(answer["solved"], expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(answer["solved_side_by_side"], expected, rtol=1e-9, atol=1e-12)
    with_keys = np.linalg.solve(weight * matrix + keys.T @ keys, keys.T).T
    np.testing.assert_allclose(answer["solved_with_keys"], with_keys, rtol=1e-9, atol=1e-12)
    assert answer["condition"] == pytest.approx(np.linalg.cond(matrix), rel=1e-6)
    assert answer["default_ridge"] == pytest.approx(0.01 * np.trace(mean) / width)  # 90 tokens are fewer than 120
    assert answer["default_ridge_of_relu"] == answer["default_ridge"]


def test_with_tokens_enough_only_relu_needs_a_ridge(bin_dir: Path, tmp_path: Path) -> None:
    file = save_statistics(tmp_path, some_moment(12), 120)
    answer = done(read_by_tool(bin_dir, file, ridge=0, keys=[[1.0] * 12], **{"lambda": 1.0}))
    assert answer["default_ridge"] == 0
    assert answer["default_ridge_of_relu"] == pytest.approx(0.01 * np.trace(answer["mean"]) / 12)


def test_a_singular_moment_is_refused_with_what_to_do(bin_dir: Path, tmp_path: Path) -> None:
    total = some_moment(12)
    total[5, :] = total[:, 5] = 0  # a dead unit
    file = save_statistics(tmp_path, total, 500)
    request = {"keys": [[1.0] * 12], "lambda": 1.0}
    refused(read_by_tool(bin_dir, file, ridge=0, **request), "singular", "500 tokens", "more text", "--no-moment")
    assert read_by_tool(bin_dir, file, ridge=0.1, **request).returncode == 0
