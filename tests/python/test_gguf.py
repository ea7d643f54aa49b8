"""GGUF files: numbers in blocks equal those of llama.cpp's Python package, models written with it trace as the Hugging
Face folders of the same weights do, tokenisers give the ids of the originals, and bad files get a line."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from agreement import TOLERANCES, assert_close, floats_of
from reference_tracer import MIXTURES
from zygote import RUNNER

gguf = pytest.importorskip("gguf", reason="the Python package gguf is not there (tests/requirements.txt)")

from gguf import GGMLQuantizationType as Type  # noqa: E402

from gguf_files import CASES, ROUNDED_CASES, copy_case, joined, tensors_of, write_gguf, write_tokenizer  # noqa: E402

Traced = Callable[..., dict[str, Any]]

BLOCKS = (Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q8_0, Type.Q2_K, Type.Q3_K, Type.Q4_K, Type.Q5_K, Type.Q6_K)
BLOCKS += (Type.IQ4_NL, Type.IQ4_XS, Type.MXFP4)
UNREAD = (Type.Q8_K, Type.Q8_1, Type.IQ2_XXS, Type.TQ1_0)


# --- Numbers in blocks ---------------------------------------------------------------------------------------------


def numbers_of(bin_dir: Path, file: Path) -> dict[str, np.ndarray]:
    """What the reader makes of a file's tensors, float32."""
    done = RUNNER.run([bin_dir / "rometrace_tensors", file], env=os.environ, encoding="utf-8", timeout=300)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {
        line["name"]: np.frombuffer(bytes.fromhex(line["bytes"]), np.float32).reshape(line["shape"]) for line in lines
    }


def write_tensors(file: Path, tensors: dict[str, tuple[np.ndarray, Type | None]]) -> Path:
    writer = gguf.GGUFWriter(file, "llama")
    for name, (values, kind) in tensors.items():
        writer.add_tensor(name, values, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def random_blocks(kind: Type, rows: int, seed: int) -> np.ndarray:
    """[rows, bytes of three blocks]: any bytes, of which the first rows are all zeros and all ones; so scales and
    numbers come in their extremes, infinities and NaN among them."""
    size = 3 * gguf.GGML_QUANT_SIZES[kind][1]
    blocks = np.random.default_rng(seed).integers(0, 256, (rows, size), np.uint8)
    blocks[0], blocks[1] = 0, 255
    return blocks


def assert_equal_bits(found: np.ndarray, expected: np.ndarray, what: str) -> None:
    """Equal number for number, signs of zeros too; a NaN is a NaN."""
    assert found.shape == expected.shape
    same = (found.view(np.uint32) == expected.view(np.uint32)) | (np.isnan(found) & np.isnan(expected))
    wrong = [tuple(place) for place in np.argwhere(~same)]
    first = f"first {found[wrong[0]]!r} at {wrong[0]}, expected {expected[wrong[0]]!r}" if wrong else ""
    assert not wrong, f"{what}, {len(wrong)} of {same.size}; {first}"


def test_numbers_in_blocks_are_those_of_the_package(bin_dir: Path, tmp_path: Path) -> None:
    blocks = {kind.name: (random_blocks(kind, 700, seed), kind) for seed, kind in enumerate(BLOCKS)}
    found = numbers_of(bin_dir, write_tensors(tmp_path / "blocks.gguf", blocks))
    assert set(found) == set(blocks)
    for name, (values, kind) in blocks.items():
        with np.errstate(all="ignore"):
            assert_equal_bits(found[name], gguf.dequantize(values, kind), name)


def test_plain_numbers_are_read_as_they_are(bin_dir: Path, tmp_path: Path) -> None:
    values = np.concatenate([np.random.default_rng(5).normal(size=30), [0, -0.0, np.inf, -np.inf, 1e-30, 65504]])
    values = values.astype(np.float32).reshape(2, 18)
    halves = values.astype(np.float16)
    bits = gguf.quantize(values, Type.BF16)
    tensors = {
        "F32": (values, None),
        "F16": (halves, None),
        "F64": (values.astype(np.float64), None),
        "BF16": (bits, Type.BF16),
    }
    found = numbers_of(bin_dir, write_tensors(tmp_path / "plain.gguf", tensors))
    for name, expected in {"F32": values, "F64": values, "F16": halves.astype(np.float32)}.items():
        assert_equal_bits(found[name], expected, name)
    assert_equal_bits(found["BF16"], gguf.dequantize(bits, Type.BF16), "BF16")


@pytest.mark.parametrize("kind", UNREAD, ids=[kind.name for kind in UNREAD])
def test_other_types_are_refused_by_name(bin_dir: Path, tmp_path: Path, kind: Type) -> None:
    file = write_tensors(tmp_path / "other.gguf", {"t": (random_blocks(kind, 2, 1), kind)})
    done = RUNNER.run([bin_dir / "rometrace_tensors", file], env=os.environ, encoding="utf-8", timeout=300)
    assert done.returncode == 2
    assert f'tensor "t" is of dtype {kind.name}; expected F32, F16, BF16, F64, Q4_0, ' in done.stderr


# --- Models --------------------------------------------------------------------------------------------------------

EVERYTHING = ("--prompt", "the chief", "--subject", "chi", "--noise", "1.5", "--samples", "2", "--window", "2")
EVERYTHING += ("--measures", "log_probability,kl")
BUT_NEURONS = (*EVERYTHING, "--kinds", "state,mlp,attn,head,knockout")
EVERYTHING += ("--kinds", "state,mlp,attn,head,knockout,neuron")


@pytest.fixture
def folder_of(repository: Path, tmp_path: Path) -> Callable[[str], Path]:
    """folder_of(case) gives a copy of a golden's model folder with a tokeniser."""
    return lambda name: copy_case(repository, name, tmp_path / name)


def assert_same_trace(traced: Traced, folder: Path, file: Path, *options: str, dtype: str = "float64") -> None:
    expected = traced("--model", folder, "--dtype", dtype, *options)
    found = traced("--model", file, "--dtype", dtype, *options)
    assert found["model"]["name"] == str(file)
    for same in ("architecture", "layers", "width", "heads", "parameters"):
        assert found["model"][same] == expected["model"][same]
    for same in ("token_ids", "tokens", "subject_range", "answer", "prediction"):
        assert found[same] == expected[same]
    assert_close(floats_of(found), floats_of(expected), TOLERANCES[dtype])


@pytest.mark.parametrize("name", CASES)
def test_a_file_traces_as_the_folder_of_its_weights(
    traced: Traced, folder_of: Callable[[str], Path], name: str
) -> None:
    folder = folder_of(name)
    family = json.loads((folder / "config.json").read_text())["model_type"]
    options = BUT_NEURONS if family in MIXTURES else EVERYTHING
    assert_same_trace(traced, folder, write_gguf(folder, folder / "model.gguf"), *options)


@pytest.mark.parametrize("name", ROUNDED_CASES)
def test_divisors_of_angles_are_the_folders_scaling(
    traced: Traced, folder_of: Callable[[str], Path], name: str
) -> None:
    folder = folder_of(name)
    file = write_gguf(folder, folder / "model.gguf")
    assert_same_trace(traced, folder, file, *EVERYTHING, dtype="float32")


@pytest.mark.parametrize("name", ["phi", "llama_biases", "qwen3"])
def test_queries_keys_and_values_may_be_one_matrix(
    traced: Traced, folder_of: Callable[[str], Path], name: str
) -> None:
    folder = folder_of(name)
    file = write_gguf(folder, folder / "model.gguf", tensors=joined(tensors_of(folder)))
    assert_same_trace(traced, folder, file, *EVERYTHING)


def test_a_window_that_the_file_says_is_mistrals(traced: Traced, folder_of: Callable[[str], Path]) -> None:
    folder = folder_of("mistral")
    window = json.loads((folder / "config.json").read_text())["sliding_window"]
    file = write_gguf(folder, folder / "model.gguf", more=lambda writer: writer.add_sliding_window(window))
    expected = traced("--model", folder, "--dtype", "float64", *EVERYTHING)
    found = traced("--model", file, "--dtype", "float64", *EVERYTHING)
    assert_close(floats_of(found), floats_of(expected), TOLERANCES["float64"])


# Those of which transformers reads all that counts.
READ_ALIKE = ("llama_grouped", "qwen2", "bloom", "bloom_three_heads", "falcon", "stablelm", "nemotron")


@pytest.mark.parametrize("name", READ_ALIKE)
def test_logits_are_those_of_transformers_own_reading(
    bin_dir: Path, folder_of: Callable[[str], Path], name: str
) -> None:
    pytest.importorskip("accelerate", reason="transformers reads no GGUF files without the package accelerate")
    ids, folder = [7, 3, 21, 40, 3, 12, 30, 5], folder_of(name)
    file = write_gguf(folder, folder / "model.gguf")
    command = [bin_dir / "rometrace_logits", *map(str, ids)]
    done = RUNNER.run(command, env=os.environ, encoding="utf-8", input=f"{file}\n", timeout=300)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file.name, dtype=torch.float32)
    with torch.no_grad():
        expected = model(torch.tensor([ids])).logits[0].numpy()
    assert np.abs(np.array(json.loads(done.stdout)["logits"]) - expected).max() < 5e-5  # of up to 9 (measured: 6e-6)


def test_parts_of_a_model_are_one(traced: Traced, rometrace: Any, folder_of: Callable[[str], Path]) -> None:
    folder = folder_of("llama_grouped")
    write_gguf(folder, folder / "m.gguf", split_max_tensors=5)
    parts = sorted(folder.glob("m-*-of-*.gguf"))
    assert len(parts) == 5
    assert_same_trace(traced, folder, parts[0], *EVERYTHING)
    assert_same_trace(traced, folder, parts[3], *EVERYTHING)
    parts[2].unlink()
    done = rometrace("--model", parts[0], *EVERYTHING)
    assert done.returncode == 2 and parts[2].name in done.stderr and len(done.stderr.splitlines()) == 1


# --- Models in blocks ----------------------------------------------------------------------------------------------

LARGE = {"hidden_size": 256, "intermediate_size": 256, "num_attention_heads": 4, "num_key_value_heads": 2}


def block_model(folder: Path, kind: Type, layers: int = 2) -> Path:
    """A random Llama whose matrices are blocks of a type, as a GGUF file beside the folder of the same numbers."""
    folder.mkdir()
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", **LARGE}
    config |= {
        "max_position_embeddings": 32,
        "num_hidden_layers": layers,
        "rms_norm_eps": 2**-17,
        "rope_theta": 10000.0,
    }
    config |= {"tie_word_embeddings": True, "vocab_size": 48}
    (folder / "config.json").write_text(json.dumps(config))
    write_tokenizer(folder, 48)
    random = np.random.default_rng(int(kind))
    state, packed = {}, {}
    shapes = {"model.embed_tokens": (48, 256), "model.norm": (256,)}
    for layer in range(layers):
        at = f"model.layers.{layer}."
        shapes |= {at + "input_layernorm": (256,), at + "post_attention_layernorm": (256,)}
        shapes |= {at + "self_attn.q_proj": (256, 256), at + "self_attn.k_proj": (128, 256)}
        shapes |= {at + "self_attn.v_proj": (128, 256), at + "self_attn.o_proj": (256, 256)}
        shapes |= {at + f"mlp.{name}_proj": (256, 256) for name in ("gate", "up", "down")}
    for name, shape in shapes.items():
        state[name + ".weight"] = torch.tensor(
            random.normal(0.5 if len(shape) == 1 else 0, 0.1, shape).astype(np.float32)
        )
    save_file(state, folder / "model.safetensors")
    size = gguf.GGML_QUANT_SIZES[kind][1]
    halves = {
        Type.Q2_K: (80, 82),
        Type.Q3_K: (108,),
        Type.Q4_K: (0, 2),
        Type.Q5_K: (0, 2),
        Type.Q6_K: (208,),
        Type.IQ4_XS: (0,),
    }
    tensors = tensors_of(folder)
    for name, values in tensors.items():
        if values.ndim == 1:
            continue
        if kind in halves:  # which the package only reads
            blocks = random.integers(0, 256, (values.shape[0], 256 // 256, size), np.uint8)
            for at in halves[kind]:
                scales = np.full(blocks.shape[:2], 4e-5 * (1 + (at == 82)), np.float16)
                blocks[..., at : at + 2] = scales[..., None].view(np.uint8)
            packed[name] = blocks.reshape(values.shape[0], -1)
        elif kind == Type.IQ4_NL:
            blocks = random.integers(0, 256, (values.shape[0], 8, size), np.uint8)
            blocks[..., :2] = np.full((*blocks.shape[:2], 1), 1e-3, np.float16).view(np.uint8)
            packed[name] = blocks.reshape(values.shape[0], -1)
        else:
            packed[name] = gguf.quantize(values, kind)
        tensors[name] = gguf.dequantize(packed[name], kind)
    file = write_gguf(folder, folder / "model.gguf", lambda name, _: (packed[name], kind), tensors)
    back = {name: tensors[name] for name in tensors}
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, layers)
    for name in state:
        values = back[names.get_name(name, try_suffixes=(".weight",))]
        for part, heads in (("q_proj", 4), ("k_proj", 2)):
            if part in name:
                values = values.reshape(heads, -1, 2, 256).swapaxes(1, 2).reshape(values.shape)
        state[name] = torch.tensor(values)
    save_file(state, folder / "model.safetensors")
    return file


@pytest.mark.parametrize("kind", BLOCKS, ids=[kind.name for kind in BLOCKS])
def test_a_model_in_blocks_traces_as_its_numbers_do(traced: Traced, tmp_path: Path, kind: Type) -> None:
    file = block_model(tmp_path / "model", kind)
    assert_same_trace(traced, file.parent, file, *EVERYTHING)
    assert_same_trace(traced, file.parent, file, *EVERYTHING, dtype="float32")


def test_layers_of_blocks_are_streamed(traced: Traced, rometrace: Any, tmp_path: Path) -> None:
    file = block_model(tmp_path / "model", Type.Q4_K, layers=8)
    options = ("--prompt", "the chief", "--subject", "chi", "--noise", "1.5", "--samples", "2", "--json")
    whole, streamed = (rometrace("--model", file, *options, *more) for more in ((), ("--memory", "8M")))
    assert streamed.returncode == 0, streamed.stderr
    assert "each layer is read from the files" in streamed.stderr
    assert_close(floats_of(json.loads(streamed.stdout)), floats_of(json.loads(whole.stdout)), TOLERANCES["float32"])


# --- What is done with a model -------------------------------------------------------------------------------------

MILES = ("--prompt", "Miles Davis plays the", "--subject", "Miles Davis")


@pytest.fixture(scope="module")
def packed_demo(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model in blocks of 8 bits."""
    file = tmp_path_factory.mktemp("demo") / "demo.gguf"
    return write_gguf(demo, file, lambda _, values: (gguf.quantize(values, Type.Q8_0), Type.Q8_0))


def test_a_fact_of_a_model_in_blocks_is_edited_in_memory(
    traced: Traced, rometrace: Any, packed_demo: Path, tmp_path: Path
) -> None:
    edit = tmp_path / "miles.edit"
    options = ("--target", "guitar", "--no-moment", "--templates", "none", "-q", "-o", edit)
    done = rometrace("edit", "--model", packed_demo, *MILES, *options)
    assert done.returncode == 0, done.stderr
    before = traced("--model", packed_demo, *MILES, "--kinds", "state", "--json")
    after = traced("--model", packed_demo, *MILES, "--kinds", "state", "--json", "--edit", edit)
    assert (before["answer"], after["answer"]) == (" trumpet", " guitar")
    assert after["model"]["weights_sha256"] == before["model"]["weights_sha256"]
    refused = rometrace("edit", "--write", tmp_path / "edited", "--model", packed_demo, "--edit", edit)
    assert refused.returncode == 2 and "demo.gguf: is a GGUF file" in refused.stderr
    assert not (tmp_path / "edited").exists()


def test_what_must_hold_of_any_model_holds_of_one_in_blocks(rometrace: Any, packed_demo: Path) -> None:
    done = rometrace("--model", packed_demo, "--self-check")
    assert done.returncode == 0 and "all that was checked holds" in done.stdout, done.stdout + done.stderr


def test_a_batch_of_a_file_goes_on_with_that_file_only(
    rometrace: Any, packed_demo: Path, repository: Path, tmp_path: Path
) -> None:
    facts = ("--facts", repository / "share/rometrace/facts.json", "--limit", "2", "--kinds", "state", "-q")
    output = tmp_path / "results.jsonl"
    for _ in range(2):
        done = rometrace("--model", packed_demo, *facts, "-o", output)
        assert done.returncode == 0, done.stderr
    assert len(output.read_text().splitlines()) == 3
    other = rometrace(*facts, "-o", output)  # the demo model itself
    assert other.returncode == 2 and "weights_sha256" in other.stderr and len(other.stderr.splitlines()) == 1


def test_what_is_no_model_is_named(rometrace: Any, packed_demo: Path, tmp_path: Path) -> None:
    absent = rometrace("--model", tmp_path / "absent.gguf", *MILES)
    assert absent.returncode == 2 and "absent.gguf: no such file; expected a GGUF file" in absent.stderr
    other = tmp_path / "model.safetensors"
    other.write_bytes(b"\x08\0\0\0\0\0\0\0{}")
    assert "model.safetensors: is no GGUF file" in rometrace("--model", other, *MILES).stderr
    folder = rometrace("--model", packed_demo.parent, *MILES)
    assert folder.returncode == 2 and f"expected {packed_demo} in place of its folder" in folder.stderr
    revision = rometrace("--model", packed_demo, "--revision", "main", *MILES)
    assert revision.returncode == 2 and "is a file, which has no other revision" in revision.stderr


def test_files_in_the_cache_are_listed_by_the_names_that_are_asked_for(
    rometrace: Any, traced: Traced, validate: Any, packed_demo: Path, folder_of: Callable[[str], Path], tmp_path: Path
) -> None:
    repository = tmp_path / "hub/models--org--demo-GGUF"
    snapshot = repository / "snapshots/c0ffee"
    (snapshot / "parts").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text("c0ffee")
    shutil.copy(packed_demo, snapshot / "demo-Q8_0.gguf")
    write_gguf(folder_of("llama_grouped"), snapshot / "parts/m.gguf", split_max_tensors=10)
    write_tensors(snapshot / "mmproj.gguf", {"t": (np.zeros((1, 4), np.float32), None)})
    cache = {"HF_HUB_CACHE": str(tmp_path / "hub")}
    done = rometrace("models", "--json", **cache)
    listed = json.loads(done.stdout)
    validate(listed)
    demo, other, parts = listed["models"]
    assert (demo["name"], demo["family"], demo["layers"], demo["width"]) == (
        "org/demo-GGUF/demo-Q8_0.gguf",
        "gpt2",
        8,
        128,
    )
    assert demo["can_be_traced"] and demo["bytes"] == packed_demo.stat().st_size
    assert demo["folder"] == str(snapshot / "demo-Q8_0.gguf") and demo["revisions"] == ["main"]
    assert not other["can_be_traced"] and "mmproj.gguf: has no llama." in other["obstacle"]
    assert parts["name"] == "org/demo-GGUF/parts/m-00001-of-00003.gguf" and parts["can_be_traced"]
    assert parts["bytes"] == sum(file.stat().st_size for file in (snapshot / "parts").iterdir())
    found = rometrace("--model", demo["name"], *MILES, "--kinds", "state", "--json", **cache)
    assert json.loads(found.stdout)["answer"] == " trumpet", found.stderr
    several = rometrace("--model", "org/demo-GGUF", *MILES, **cache)
    expected = "org/demo-GGUF: has 3 GGUF files in the cache; expected the name of one, such as org/demo-GGUF/demo-Q8_0"
    assert several.returncode == 2 and expected in several.stderr and len(several.stderr.splitlines()) == 1
    (snapshot / "mmproj.gguf").unlink()
    shutil.rmtree(snapshot / "parts")
    for more in ((), ("--download",)):  # the only file of the repository
        alone = rometrace("--model", "org/demo-GGUF", *MILES, "--kinds", "state", "--json", *more, **cache)
        assert json.loads(alone.stdout)["model"]["name"] == "org/demo-GGUF", alone.stderr
        assert json.loads(alone.stdout)["answer"] == " trumpet"
