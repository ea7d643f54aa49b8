"""What is said of mixtures of experts, and what holds of no single golden: the layout that transformers writes, memory
that holds a part of the experts only, and refusals in one line."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any, Callable

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, Mxfp4Config
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

from agreement import floats_of
from golden_families import PUBLIC_NAMES
from reference_tracer import MIXTURES
from test_against_transformers import write_letter_tokenizer
from zygote import RUNNER

Rometrace = Callable[..., Any]
PROMPT = ("--prompt", "ab cdef", "--subject", "cd", "--noise", "1.5", "--samples", "3", "-q")


@pytest.fixture
def folder_of(repository: Path, tmp_path: Path) -> Callable[[str], Path]:
    """folder_of(case) gives a copy of a golden's model with a tokeniser of letters."""

    def make(name: str) -> Path:
        folder = tmp_path / name
        shutil.copytree(repository / "tests/goldens/models" / name, folder)
        write_letter_tokenizer(folder, json.loads((folder / "config.json").read_text())["vocab_size"])
        return folder

    return make


@pytest.mark.parametrize("family", MIXTURES)
def test_what_transformers_saves_has_the_names_that_are_read(repository: Path, tmp_path: Path, family: str) -> None:
    golden = repository / "tests/goldens/models" / family
    AutoModelForCausalLM.from_pretrained(golden, dtype=torch.float32).save_pretrained(tmp_path)
    saved, read = load_file(tmp_path / "model.safetensors"), load_file(golden / "model.safetensors")
    assert {name: tensor.shape for name, tensor in saved.items()} == {name: tensor.shape for name, tensor in read.items()}
    assert all(torch.equal(saved[name], read[name].float()) for name in read)
    assert set(PUBLIC_NAMES) <= set(MIXTURES)


@pytest.mark.parametrize("name", ["qwen3_moe", "granitemoe"])
def test_memory_that_does_not_hold_the_experts_changes_no_digit_that_counts(
    rometrace: Rometrace, folder_of: Callable[[str], Path], name: str
) -> None:
    folder, traces = folder_of(name), []
    for memory in ((), ("--memory", "60K")):
        done = rometrace("--model", folder, *PROMPT, "--json", *memory)
        assert done.returncode == 0, done.stderr
        traces.append(json.loads(done.stdout)["grids"])
    held, streamed = traces
    for kind, grid in held.items():
        scores = (torch.tensor(each["scores"]) for each in (grid, streamed[kind]))
        torch.testing.assert_close(*scores, rtol=0, atol=1e-6)


QUANTISED = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"]}


@pytest.fixture
def microscaled(folder_of: Callable[[str], Path]) -> tuple[Path, Path]:
    """A GPT-OSS whose experts are in MXFP4, in two files, and one of the same numbers as transformers has them."""
    folder = folder_of("gpt_oss")
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_size": 32, "intermediate_size": 64, "head_dim": 16, "rope_scaling": {"rope_type": "default"}}
    torch.manual_seed(5)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))
    plain = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    packed = dict(plain)
    for name in [name for name in plain if name.endswith(("gate_up_proj", "down_proj"))]:
        experts, columns, rows = plain[name].shape  # [in, out]
        blocks = torch.randint(0, 256, (experts, rows, columns // 32, 16), dtype=torch.uint8)
        scales = torch.randint(121, 126, (experts, rows, columns // 32), dtype=torch.uint8)
        plain[name] = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32).contiguous()
        assert plain[name].shape == (experts, columns, rows)
        packed |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
        del packed[name]
    other = folder.parent / "plain"
    shutil.copytree(folder, other)
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": QUANTISED}))
    (other / "config.json").write_text(json.dumps(config))
    save_file(plain, other / "model.safetensors", {"format": "pt"})
    (folder / "model.safetensors").unlink()
    halves = {"a": {}, "b": {}}
    for name, tensor in packed.items():
        halves["b" if name.endswith("_scales") else "a"][name] = tensor
    for half, tensors in halves.items():
        save_file(tensors, folder / f"model-{half}.safetensors", {"format": "pt"})
    index = {name: f"model-{half}.safetensors" for half, tensors in halves.items() for name in tensors}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return folder, other


@pytest.mark.parametrize("memory", [(), ("--memory", "300K")], ids=["held", "streamed"])
def test_experts_in_mxfp4_are_the_numbers_that_transformers_makes_of_them(
    rometrace: Rometrace, microscaled: tuple[Path, Path], memory: tuple[str, ...]
) -> None:
    packed, plain = (
        rometrace("--model", folder, *PROMPT, "--json", "--kinds", "state,mlp,attn", *memory) for folder in microscaled
    )
    assert packed.returncode == plain.returncode == 0, packed.stderr + plain.stderr
    packed, plain = json.loads(packed.stdout), json.loads(plain.stdout)
    assert floats_of(packed) == floats_of(plain)
    assert packed["model"]["parameters"] == plain["model"]["parameters"]


def test_logits_of_experts_in_mxfp4_are_those_of_transformers(bin_dir: Path, microscaled: tuple[Path, Path]) -> None:
    folder, ids = microscaled[0], [7, 3, 21, 40, 3, 12, 30, 5]
    done = RUNNER.run(
        [bin_dir / "rometrace_logits", *map(str, ids)],
        env=os.environ,
        encoding="utf-8",
        input=f"{folder}\n",
        timeout=300,
    )
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, quantization_config=Mxfp4Config(dequantize=True)
    )
    with torch.no_grad():
        expected = model.float()(torch.tensor([ids])).logits[0]
    torch.testing.assert_close(torch.tensor(json.loads(done.stdout)["logits"]), expected, rtol=0, atol=5e-6)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda t: t.pop("model.layers.1.mlp.experts.down_proj_scales"), 'no tensor "model.layers.1.mlp.experts.down_proj"'),
        (
            lambda t: t.update({"model.layers.1.mlp.experts.down_proj_scales": torch.zeros(4, 32, 3, dtype=torch.uint8)}),
            'down_proj_blocks" has shape [4,32,2,16]; expected that of',
        ),
        (
            lambda t: t.update({"model.layers.1.mlp.experts.down_proj_scales": torch.zeros(4, 32, 2)}),
            'down_proj_scales" is of dtype F32; expected U8',
        ),
    ],
    ids=["missing", "shape", "dtype"],
)
def test_scales_that_do_not_belong_to_their_blocks_are_refused(
    rometrace: Rometrace, microscaled: tuple[Path, Path], change: Callable[[dict[str, Any]], Any], expected: str
) -> None:
    folder = microscaled[0]
    scales = load_file(folder / "model-b.safetensors")
    change(scales)
    save_file(scales, folder / "model-b.safetensors")
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    index = {name: file for name, file in index.items() if file.endswith("a.safetensors") or name in scales}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    done = rometrace("--model", folder, *PROMPT)
    assert done.returncode == 2 and expected in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


def test_another_quantisation_is_refused(rometrace: Rometrace, microscaled: tuple[Path, Path]) -> None:
    config = microscaled[0] / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"quantization_config": {"quant_method": "fp8"}}))
    done = rometrace("--model", microscaled[0], *PROMPT)
    assert done.returncode == 2 and 'quantization_config is {"quant_method":"fp8"}; expected none' in done.stderr


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ((*PROMPT, "--kinds", "neuron"), "neurons are"),
        (("edit", "--prompt", "ab cdef", "--subject", "cd", "--target", "x"), "edits are"),
        (("moments", "--layers", "0", "--text", "TEXT"), "second moments are"),
    ],
    ids=["neuron", "edit", "moments"],
)
def test_what_a_mixture_has_not_is_refused_in_one_line(
    rometrace: Rometrace, folder_of: Callable[[str], Path], tmp_path: Path, arguments: tuple[str, ...], what: str
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("ab cdef " * 50)
    folder = folder_of("mixtral")
    arguments = tuple(str(text) if each == "TEXT" else each for each in arguments)
    command, rest = (arguments[:1], arguments[1:]) if arguments[0] in ("edit", "moments") else ((), arguments)
    done = rometrace(*command, "--model", folder, *rest)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if "not to be had" in line]
    assert line.startswith(f"rometrace: {what} not to be had of mixtral")
    assert done.stdout == ""
