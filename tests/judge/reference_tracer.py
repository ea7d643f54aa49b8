#!/usr/bin/env python3
"""A plain causal tracer over Hugging Face transformers: the judge of rometrace's numbers.

It traces every family of decoders in LAYOUTS. It shares no code with rometrace and is written to be read beside the
papers (causal tracing: arXiv 2202.05262, section 2; knockout: arXiv 2304.14767): the whole model runs for every cell
of the grid, with hooks that corrupt the embeddings and put one value back. Cells are rows of one batch, which do not
see each other; nothing else is shared between them. What is put back or frozen is recorded once, in the clean and
corrupted runs.

Letters: N draws, T tokens of the prompt, K tokens of the answer, L layers, H heads, D width, V vocabulary, P positions
that are traced.

As a program it prints the trace as one JSON object of schema "rometrace/trace/1":

    tests/judge/reference_tracer.py --model FOLDER --prompt "Miles Davis plays the" --subject "Miles Davis" --noise 0.3
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import re
import sys
import time
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable, Sequence

import numpy as np
import tokenizers
import torch
import transformers
from torch.overrides import TorchFunctionMode
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

transformers.logging.set_verbosity_error()  # old checkpoints hold buffers that transformers reports and ignores
transformers.logging.disable_progress_bar()

SEVERED = {"state_mlp_severed": "mlp", "state_attn_severed": "attn"}
GRID_KINDS = ("state", "mlp", "attn", "head", *SEVERED)
KINDS = (*GRID_KINDS, "knockout")
DIRECTIONS = ("denoising", "noising")
METHODS = ("noise", "zero", "mean", "tokens")
DISTRIBUTIONS = ("gaussian", "uniform", "multivariate", "student")
MEASURES = ("probability", "log_probability", "logit", "logit_difference", "rank", "kl", "normalised")
LONGEST_WORD = 16  # tokens
MOST_POSITIONS = 512  # of all rows of one batch
REPOSITORY = Path(__file__).resolve().parents[2]
Hook = Callable[..., Any]
Install = Callable[[], Any]
"""Puts one hook in place and gives its handle."""


@dataclass(frozen=True)
class TraceOptions:
    """How to trace one prompt; the defaults are the paper's."""

    kinds: tuple[str, ...] = ("state",)
    """What is patched: "state" (block output), "mlp" or "attn" (sub-layer output), "head" (one head's part of what
    attention mixes), "state_mlp_severed" or "state_attn_severed" (state, with that sub-layer's outputs at the position
    frozen), "knockout" (attention to groups of positions cut)."""
    window: int = 10
    """Layers, for "mlp" and "attn"."""
    head_window: int = 1
    knockout_window: int = 9
    positions: tuple[int, ...] | None = None
    """Prompt positions that get rows in the grids; None: all."""
    direction: str = "denoising"
    """"denoising": clean values into the corrupted run; "noising": corrupted values into the clean run."""
    samples: int = 10
    """N, noise draws; with a precision, draws a step. Corruptions other than noise have one."""
    seed: int = 1
    """Of numpy.random.RandomState, made anew for every run."""
    method: str = "noise"
    """"noise", "zero" (the subject's embeddings), "mean" (of a text's embeddings) or "tokens" (of another prompt)."""
    distribution: str = "gaussian"
    """"gaussian", "uniform", "multivariate" or "student"; the last two have the moments of a text."""
    sigma: float | None = 0.1
    """Gaussian: the standard deviation. Uniform: the half-width. None for the others."""
    degrees_of_freedom: float | None = None
    """Of "student", above 2."""
    replace: bool = False
    """Noise in place of the token embedding instead of added to it."""
    text_ids: tuple[int, ...] | None = None
    """The text of "mean", "multivariate" and "student"."""
    counter_ids: tuple[int, ...] | None = None
    """The other prompt [T] of "tokens"."""
    answer_ids: tuple[int, ...] | None = None
    """The answer [K] to follow; None: the most probable token."""
    other_targets: tuple[int, ...] = ()
    """Tokens whose probability is followed as well."""
    foil: int | None = None
    """The token that the answer's logit is compared with."""
    precision: float | None = None
    """Draw until every standard error of the answer's probability is below it."""
    most_samples: int = 1000
    """Where a precision gives up."""


# --- The model and its text -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """Where a family of models has what is traced: paths of modules, from the model and from one block of it."""

    blocks: str
    embedding: str
    """Gives the token embeddings: scaled in Gemma, before project_in in OPT."""
    attention: str
    """Of a block: takes the mask."""
    projection: str
    """Of a block: takes the heads side by side."""
    attn: str
    """Of a block: its output is what attention adds to the stream (OPT with norms behind: to the norm's input)."""
    mlp: str
    """Of a block: likewise."""
    scale: str = ""
    """Of the config: the field with what both are multiplied by behind these modules."""


GPT_BLOCKS = ("transformer.h", "transformer.wte")
LLAMA_BLOCKS = ("model.layers", "model.embed_tokens")
LLAMA = Layout(*LLAMA_BLOCKS, "self_attn", "self_attn.o_proj", "self_attn", "mlp")
SANDWICH = ("self_attn", "self_attn.o_proj", "post_attention_layernorm", "post_feedforward_layernorm")
GLM4 = ("self_attn", "self_attn.o_proj", "post_self_attn_layernorm", "post_mlp_layernorm")
BLOOM_BLOCKS = ("transformer.h", "transformer.word_embeddings", "self_attention", "self_attention.dense")
GEMMAS = ("gemma", "gemma2", "gemma3", "gemma3_text")
MIXTURES = ("mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "granitemoe", "phimoe", "gpt_oss")
LAYOUTS = {
    "gpt2": Layout(*GPT_BLOCKS, "attn", "attn.c_proj", "attn", "mlp"),
    "gptj": Layout(*GPT_BLOCKS, "attn", "attn.out_proj", "attn", "mlp"),
    "gpt_neo": Layout(*GPT_BLOCKS, "attn", "attn.attention.out_proj", "attn", "mlp"),
    "gpt_neox": Layout("gpt_neox.layers", "gpt_neox.embed_in", "attention", "attention.dense", "attention", "mlp"),
    "gpt_bigcode": Layout(*GPT_BLOCKS, "attn", "attn.c_proj", "attn", "mlp"),
    # BLOOM's modules for attention and MLP add to the stream themselves.
    "bloom": Layout(*BLOOM_BLOCKS, "self_attention.dense", "mlp.dense_4h_to_h"),
    "mpt": Layout("transformer.blocks", "transformer.wte", "attn", "attn.out_proj", "attn", "ffn.down_proj"),
    "falcon": Layout(*BLOOM_BLOCKS, "self_attention", "mlp"),
    "opt": Layout(
        "model.decoder.layers", "model.decoder.embed_tokens", "self_attn", "self_attn.out_proj", "self_attn", "fc2"
    ),
    **{family: LLAMA for family in ("llama", "mistral", "qwen2", "qwen3", "gemma")},
    **{family: LLAMA for family in ("phi3", "olmo", "stablelm", "starcoder2", "smollm3")},
    **{family: LLAMA for family in ("cohere", "cohere2", "nemotron")},
    **{family: Layout(*LLAMA_BLOCKS, *SANDWICH) for family in ("gemma2", "gemma3_text", "olmo2", "olmo3")},
    "phi": Layout(*LLAMA_BLOCKS, "self_attn", "self_attn.dense", "self_attn", "mlp"),
    "granite": replace(LLAMA, scale="residual_multiplier"),
    "glm4": Layout(*LLAMA_BLOCKS, *GLM4),
    **{family: LLAMA for family in MIXTURES if family != "granitemoe"},
    "granitemoe": replace(LLAMA, mlp="block_sparse_moe", scale="residual_multiplier"),
    "gemma3": Layout("model.language_model.layers", "model.language_model.embed_tokens", *SANDWICH),
}


def layout_of(model: PreTrainedModel) -> Layout:
    """The layout of the model's family."""
    family = model.config.model_type
    if family not in LAYOUTS:
        raise ValueError(f"model_type is {family!r}, expected one of {', '.join(LAYOUTS)}")
    return LAYOUTS[family]


def config_of(model: PreTrainedModel) -> Any:
    """The config of the text decoder, where the model has more than that."""
    return model.config.get_text_config()


def room_of(model: PreTrainedModel) -> int:
    """Tokens of the longest text that the config says; BLOOM's says none."""
    config = config_of(model)
    names = ("max_position_embeddings", "max_seq_len")
    return next((getattr(config, name) for name in names if hasattr(config, name)), 2048)


def embedding_of(model: PreTrainedModel) -> torch.nn.Module:
    """The module whose output is the token embeddings."""
    return model.get_submodule(layout_of(model).embedding)


def embeddings_of(model: PreTrainedModel, token_ids: Sequence[int] | None = None) -> torch.Tensor:
    """Token embeddings [n, D] as the model reads them; without ids, of the whole vocabulary."""
    module = embedding_of(model)
    with torch.no_grad():
        return module(torch.tensor(range(module.num_embeddings) if token_ids is None else list(token_ids)))


def load_model(folder: Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """The model in `folder`, weights converted to `dtype`, in evaluation mode.

    GPT-2's reorder_and_upcast_attn is switched off: it asks for float32 attention inside half-precision models, so it
    changes nothing in a float32 model, and in a float64 model it would throw precision away.
    """
    config = AutoConfig.from_pretrained(folder)
    if config.model_type == "gpt2":
        config.reorder_and_upcast_attn = False
    # With ALiBi Falcon's eager attention adds the biases twice, unlike its default and what it was trained with.
    attention = "sdpa" if config.model_type == "falcon" and config.alibi else "eager"
    # Experts one after another, in the model's own dtype.
    experts = {"experts_implementation": "eager"} if config.model_type in MIXTURES else {}
    model = AutoModelForCausalLM.from_pretrained(
        folder, config=config, dtype=dtype, attn_implementation=attention, **experts
    )
    if config.model_type == "gptj" and dtype == torch.float64:
        sharpen_rotary_table(model)
    if config.model_type == "phimoe":
        keep_rotary_frequencies(model)
    return model.eval()


def rotary_tables_of(model: PreTrainedModel) -> list[torch.nn.Module]:
    """What holds GPT-J's sines and cosines: each attention or, since transformers 5.24, one module for all."""
    return [module for module in model.modules() if hasattr(module, "embed_positions")]


def sharpen_rotary_table(model: PreTrainedModel) -> None:
    """GPT-J's sines and cosines in float64: transformers makes its table in float32, for every dtype of the model.

    The frequencies stay those of float32, as in the other families.
    """
    dims = model.config.rotary_dim or model.config.n_embd
    frequencies = 1.0 / (10000 ** (torch.arange(0, dims, 2).float() / dims))
    angles = torch.arange(model.config.n_positions).double()[:, None] * frequencies.double()
    table = torch.cat([angles.sin(), angles.cos()], dim=1)
    for module in rotary_tables_of(model):
        module.embed_positions = table


def keep_rotary_frequencies(model: PreTrainedModel) -> None:
    """Phi-3.5-MoE's rotary frequencies as float32 gives them, once: transformers computes them again in each run."""
    module = model.model.rotary_emb
    frequencies = module.rope_init_fn(model.config)
    module.rope_init_fn = lambda config: frequencies


class NoFloat32(TorchFunctionMode):
    """Makes the conversions to float32 that transformers' modules ask for go to float64.

    RMSNorm, the angles of rotary embeddings and the softmax of attention are computed in float32 whatever the model's
    dtype: it helps half precision, and in a float64 model it leaves eight digits of sixteen. What a model holds is not
    touched, so rotary frequencies keep the values that float32 gives them.
    """

    def __torch_function__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        named = dict(named or {})
        if function is torch.Tensor.float:
            return arguments[0].double()
        if function in (torch.Tensor.to, torch.nn.functional.softmax):
            arguments = tuple(torch.float64 if value is torch.float32 else value for value in arguments)
            named = {name: torch.float64 if value is torch.float32 else value for name, value in named.items()}
        return function(*arguments, **named)


def precision_of(model: PreTrainedModel) -> Any:
    """A context in which a float64 model computes in float64 throughout; GPT-2 does so by itself."""
    needed = model.dtype == torch.float64 and model.config.model_type != "gpt2"
    return NoFloat32() if needed else nullcontext()


SENTENCEPIECE_NAMES = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")


def bytes_of_piece(piece: str, is_byte: bool) -> bytes:
    """What a piece stands for inside a text; one byte is spelt <0x0A>."""
    return bytes([int(piece[3:-1], 16)]) if is_byte else piece.replace("\N{LOWER ONE EIGHTH BLOCK}", " ").encode()


class SentencePieces:
    """A SentencePiece model as sentencepiece itself reads it, behind the part of tokenizers' interface used here."""

    def __init__(self, path: Path) -> None:
        # Only models of this kind need the library.
        import sentencepiece

        self._model = sentencepiece.SentencePieceProcessor(model_file=str(path))

    def encode(self, text: str, add_special_tokens: bool = False) -> Any:
        assert not add_special_tokens
        return SimpleNamespace(ids=self._model.encode(text))

    def bytes_of(self, token_id: int) -> bytes:
        """The bytes that one token stands for inside a text; of a control piece, its name."""
        return bytes_of_piece(self._model.id_to_piece(token_id), self._model.is_byte(token_id))


class ConvertedPieces:
    """A tokenizer.json that was converted from SentencePiece, behind the same."""

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._added = tokenizer.get_added_tokens_decoder()

    def encode(self, text: str, add_special_tokens: bool = False) -> Any:
        return self._tokenizer.encode(text, add_special_tokens=add_special_tokens)

    def bytes_of(self, token_id: int) -> bytes:
        if token_id in self._added:
            return self._added[token_id].content.encode()
        piece = self._tokenizer.id_to_token(token_id)
        return bytes_of_piece(piece, re.fullmatch("<0x[0-9A-F]{2}>", piece) is not None)


def load_tokenizer(folder: Path) -> Any:
    """The tokeniser of `folder`: vocab.json + merges.txt, else a SentencePiece model, else tokenizer.json.

    Special tokens that a text spells are read as text, except from tokenizer.json.
    """
    if (folder / "vocab.json").exists():
        return tokenizers.ByteLevelBPETokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    for name in SENTENCEPIECE_NAMES:
        if (folder / name).exists():
            return SentencePieces(folder / name)
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    converted = getattr(tokenizer.model, "byte_fallback", False)
    return ConvertedPieces(tokenizer) if converted else tokenizer


def prefix_ids(folder: Path, tokenizer: Any) -> list[int]:
    """The tokens that the tokeniser puts before every prompt: none, or that of the beginning of a text."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    settings_json = folder / "tokenizer_config.json"
    settings = json.loads(settings_json.read_text(encoding="utf-8")) if settings_json.exists() else {}
    if isinstance(tokenizer, SentencePieces):
        # Those of transformers' LlamaTokenizer and GemmaTokenizer, which need protobuf to read these files.
        begins = settings.get("add_bos_token", config["model_type"] in ("llama", "mistral", *GEMMAS))
        # A config names only what differs from its class: Gemma 3's has no bos_token_id at all.
        return [AutoConfig.from_pretrained(folder).get_text_config().bos_token_id] if begins else []
    if not (settings or (folder / "tokenizer.json").exists()):
        return []
    whole = AutoTokenizer.from_pretrained(folder)
    bare = whole("a", add_special_tokens=False).input_ids
    ids = whole("a").input_ids
    return ids[: next(n for n in range(len(ids)) if ids[n : n + len(bare)] == bare)]


@cache
def byte_alphabet() -> dict[str, int]:
    """GPT-2's printable character for each byte -> that byte: itself where it is printable Latin-1, else U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + n): byte for n, byte in enumerate(others)}


def token_bytes(tokenizer: Any, token_id: int) -> bytes:
    """The bytes that one token stands for inside a text; of a special token, its name."""
    if isinstance(tokenizer, (SentencePieces, ConvertedPieces)):
        return tokenizer.bytes_of(token_id)
    if isinstance(tokenizer, tokenizers.Tokenizer):
        added = tokenizer.get_added_tokens_decoder().get(token_id)
        if added is not None:
            return added.content.encode()
    alphabet = byte_alphabet()
    return bytes(alphabet[character] for character in tokenizer.id_to_token(token_id))


def encode(tokenizer: Any, text: str) -> list[int]:
    """Token ids of `text`; checked to give the text back, so that byte positions can be trusted."""
    token_ids = tokenizer.encode(text, add_special_tokens=False).ids
    decoded = b"".join(pieces_of(tokenizer, token_ids, text))
    if decoded != text.encode():
        raise ValueError(f"the tokenizer loses text: {text!r} comes back as {decoded!r}")
    return token_ids


def pieces_of(tokenizer: Any, token_ids: Sequence[int], text: str) -> list[bytes]:
    """The bytes of `text` that each of its tokens covers: a space that SentencePiece puts before it is none of them."""
    pieces = [token_bytes(tokenizer, token_id) for token_id in token_ids]
    if isinstance(tokenizer, (SentencePieces, ConvertedPieces)) and b"".join(pieces) == b" " + text.encode():
        pieces[0] = pieces[0][1:]
    return pieces


def find_subject(pieces: Sequence[bytes], prompt: str, subject: str) -> tuple[int, int]:
    """Tokens [b, e) that share a byte with the first occurrence of `subject`; `pieces` are the tokens' bytes."""
    first = prompt.encode().find(subject.encode()) if subject else -1
    if first < 0:
        raise ValueError(f"subject {subject!r} is not in the prompt {prompt!r}")
    last = first + len(subject.encode())
    ends = np.cumsum([len(piece) for piece in pieces])
    starts = ends - [len(piece) for piece in pieces]
    overlapping = [t for t in range(len(pieces)) if starts[t] < last and ends[t] > first]
    return overlapping[0], overlapping[-1] + 1


def sigma_of_subjects(model: PreTrainedModel, tokenizer: Any, subjects: Sequence[str], factor: float) -> float:
    """`factor` times the standard deviation (unbiased, float32) of all subjects' token embeddings, repeats included."""
    token_ids = [token_id for subject in subjects for token_id in encode(tokenizer, subject)]
    return factor * embeddings_of(model, token_ids).float().std().item()


# --- What is corrupted ------------------------------------------------------------------------------------------


def moments_of(model: PreTrainedModel, text_ids: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Mean [D] and covariance [D, D] (divisor n - 1) of the embeddings of a text's n tokens, repeats included."""
    embeddings = embeddings_of(model, text_ids).double().numpy()
    mean = embeddings.mean(axis=0)
    deviations = embeddings - mean
    return mean, deviations.T @ deviations / max(len(text_ids) - 1, 1)


def symmetric_root(covariance: np.ndarray) -> np.ndarray:
    """R = R^T with R R = covariance. Eigenvalues that rounding cannot tell from 0 are 0, so that R is known well."""
    eigenvalues, vectors = np.linalg.eigh(covariance)
    smallest = len(eigenvalues) * np.finfo(np.float64).eps * eigenvalues.max()
    roots = np.sqrt(np.where(eigenvalues > smallest, eigenvalues, 0))
    return (vectors * roots) @ vectors.T


def draw_noise(
    options: TraceOptions,
    tokens: int,
    width: int,
    moments: tuple[np.ndarray, np.ndarray] | None = None,
    first: int = 0,
) -> np.ndarray:
    """Float64 [N, tokens, D]: draws first, first + 1, ... of generators made anew, so that every run sees the same.

    "multivariate" and "student" need the `moments`. A longer run's draws continue the same streams.
    """
    generator = np.random.RandomState(options.seed)
    shape = (first + options.samples, tokens, width)
    if options.distribution == "gaussian":
        return generator.randn(*shape)[first:] * options.sigma
    if options.distribution == "uniform":
        return generator.uniform(-1, 1, shape)[first:] * options.sigma
    if options.distribution not in DISTRIBUTIONS:
        raise ValueError(f"distribution is {options.distribution!r}, expected one of {', '.join(DISTRIBUTIONS)}")
    mean, covariance = moments
    noise = generator.randn(*shape) @ symmetric_root(covariance) + mean
    if options.distribution == "student":
        df = options.degrees_of_freedom
        noise *= np.sqrt((df - 2) / np.random.RandomState(2).chisquare(df, shape[:2]))[..., None]
    return noise[first:]


def corrupt(model: PreTrainedModel, subject_range: tuple[int, int], options: TraceOptions, first: int) -> Install:
    """Hook on the token embedding: corrupts the subject's in rows [cells * N] of a batch. Rounded once, from double."""
    begin, end = subject_range
    moments = moments_of(model, options.text_ids) if options.text_ids is not None else None

    def hook(module: torch.nn.Module, inputs: Any, embeddings: torch.Tensor) -> torch.Tensor:
        clean = embeddings[:, begin:end].double()
        if options.method == "zero":
            corrupted = torch.zeros_like(clean)
        elif options.method == "mean":
            corrupted = torch.from_numpy(moments[0]).expand_as(clean)
        else:
            draws = torch.from_numpy(draw_noise(options, end - begin, clean.shape[-1], moments, first))
            noise = draws.repeat(len(clean) // options.samples, 1, 1)  # every cell sees the same
            corrupted = noise if options.replace else clean + noise
        result = embeddings.clone()
        result[:, begin:end] = corrupted.to(embeddings.dtype)
        return result

    return partial(embedding_of(model).register_forward_hook, hook)


# --- What is patched --------------------------------------------------------------------------------------------


def on_value(
    model: PreTrainedModel, part: str, layer: int, change: Callable[[torch.Tensor], torch.Tensor | None]
) -> Install:
    """Hook that shows a layer's value [rows, positions, D] to `change` and goes on with what that gives, if anything.

    Parts: "state" (the block's output), "mlp", "attn" (what the sub-layer adds) and "head" (the heads side by side,
    which the output projection takes).
    """
    layout = layout_of(model)
    block = model.get_submodule(layout.blocks)[layer]

    def before(module: torch.nn.Module, inputs: Any) -> Any:
        changed = change(inputs[0])
        return None if changed is None else (changed,)

    scale = getattr(config_of(model), layout.scale) if layout.scale and part in ("mlp", "attn") else 1

    def change_scaled(value: torch.Tensor) -> torch.Tensor | None:
        changed = change(value * scale) if scale != 1 else change(value)
        return changed / scale if changed is not None and scale != 1 else changed

    def after(module: torch.nn.Module, inputs: Any, output: Any) -> Any:
        if not isinstance(output, tuple):
            return change_scaled(output)
        changed = change_scaled(output[0])  # attention gives (output, weights)
        return None if changed is None else (changed, *output[1:])

    if part == "head":
        return partial(block.get_submodule(layout.projection).register_forward_pre_hook, before)
    if part == "mlp" and model.config.model_type == "opt":
        return partial(OnFlatOutput, block, block.get_submodule(layout.mlp), change)
    module = block if part == "state" else block.get_submodule(getattr(layout, part))
    return partial(module.register_forward_hook, after)


class OnFlatOutput:
    """Hook for a module of a block that works on [rows * positions, D], as OPT's MLP does."""

    def __init__(
        self,
        block: torch.nn.Module,
        module: torch.nn.Module,
        change: Callable[[torch.Tensor], torch.Tensor | None],
    ) -> None:
        rows = 0

        def look(block: torch.nn.Module, inputs: Any) -> None:
            nonlocal rows
            rows = inputs[0].shape[0]

        def after(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor | None:
            changed = change(output.unflatten(0, (rows, -1)))
            return None if changed is None else changed.flatten(0, 1)

        self._handles = block.register_forward_pre_hook(look), module.register_forward_hook(after)

    def __enter__(self) -> OnFlatOutput:
        return self

    def __exit__(self, *exception: Any) -> None:
        for handle in self._handles:
            handle.remove()


@dataclass(frozen=True)
class Patch:
    """What a cell puts in place of a layer's value at one position."""

    part: str
    """As on_value names it."""
    layer: int
    position: int
    columns: slice
    values: torch.Tensor
    """[1 or N, columns]."""


def put(model: PreTrainedModel, cells: Sequence[Sequence[Patch]]) -> list[Install]:
    """Hooks that put the patches of each cell into its own rows of a batch [cells * N, positions, D]."""
    places: dict[tuple[str, int], list[tuple[int, Patch]]] = {}
    for number, patches in enumerate(cells):
        for patch in patches:
            places.setdefault((patch.part, patch.layer), []).append((number, patch))

    def change(patches: list[tuple[int, Patch]], value: torch.Tensor) -> torch.Tensor:
        changed = value.clone()
        by_cell = changed.unflatten(0, (len(cells), -1))
        for number, patch in patches:
            by_cell[number, :, patch.position, patch.columns] = patch.values
        return changed

    return [on_value(model, *place, partial(change, patches)) for place, patches in places.items()]


def cut(model: PreTrainedModel, layer: int, queries: Sequence[int], keys_of_rows: Sequence[Sequence[int]]) -> Install:
    """Hook that adds -inf to the attention's mask where a position of `queries` looks at one of its row's keys."""

    def hook(module: torch.nn.Module, inputs: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        mask = named["attention_mask"]  # [1 or rows, 1, positions, positions], additive
        mask = mask.expand(len(keys_of_rows), -1, -1, -1).clone()
        for row, keys in enumerate(keys_of_rows):
            for query in queries:
                mask[row, :, query, list(keys)] = -math.inf
        return inputs, named | {"attention_mask": mask}

    layout = layout_of(model)
    attention = model.get_submodule(layout.blocks)[layer].get_submodule(layout.attention)
    return partial(attention.register_forward_pre_hook, hook, with_kwargs=True)


def window_of(layer: int, window: int, layers: int) -> range:
    """The layers patched for the cell at `layer`: max(0, l - w/2) up to but not including min(L, l + ceil(w/2))."""
    return range(max(0, layer - window // 2), min(layers, layer - (-window // 2)))


def window_for(kind: str, options: TraceOptions) -> int:
    """Layers that a cell of this kind patches."""
    windows = {"mlp": options.window, "attn": options.window, "head": options.head_window}
    return (windows | {"knockout": options.knockout_window}).get(kind, 1)


def knockout_groups(tokens: int, subject_range: tuple[int, int]) -> dict[str, list[int]]:
    """The groups of positions that attention is cut from; without empty ones and without what would leave nothing."""
    begin, end = subject_range
    last = tokens - 1
    groups = {
        "subject": [t for t in range(begin, end) if t != last],
        "before": list(range(begin)),
        "after": list(range(end, last)),
        "last": [last] if tokens > 1 else [],
    }
    return {name: positions for name, positions in groups.items() if positions}


# --- One run ----------------------------------------------------------------------------------------------------


def run(
    model: PreTrainedModel, rows: Sequence[Sequence[int]], hooks: Sequence[Install], answer_tokens: int = 1
) -> torch.Tensor:
    """Logits float64 [rows, K, V] of the last K positions, which say the answer's K tokens, with the hooks in place."""
    with torch.no_grad(), precision_of(model), ExitStack() as installed:
        for install in hooks:
            installed.enter_context(install())
        batch = torch.tensor([list(row) for row in rows])
        return model(batch, use_cache=False, logits_to_keep=answer_tokens).logits.double()


def clean_logits(model: PreTrainedModel, token_ids: Sequence[int]) -> torch.Tensor:
    """Logits of the clean run at every position, [T, V]."""
    with torch.no_grad(), precision_of(model):
        return model(torch.tensor([list(token_ids)]), use_cache=False).logits[0]


def probability_of(logits: torch.Tensor, answer_ids: Sequence[int]) -> torch.Tensor:
    """[rows]: the probability of the whole answer, from logits [rows, K, V]."""
    probabilities = torch.softmax(logits, dim=-1)
    return torch.stack([probabilities[:, k, token] for k, token in enumerate(answer_ids)]).prod(dim=0)


def target_name(token: int) -> str:
    """The name of another target's probability among the measures."""
    return f"probability of {token}"


def measure(
    logits: torch.Tensor, clean: torch.Tensor, answer_ids: Sequence[int], options: TraceOptions
) -> dict[str, np.ndarray]:
    """Every measure of each row, [rows], from its logits [rows, K, V] and the clean run's [1, K, V]."""
    first = logits[:, 0]
    answer = first[:, answer_ids[0]]
    said, clean_said = torch.log_softmax(first, dim=-1), torch.log_softmax(clean[:, 0], dim=-1)
    logs = torch.log_softmax(logits, dim=-1)
    measures = {
        "probability": probability_of(logits, answer_ids),
        "log_probability": sum(logs[:, k, token] for k, token in enumerate(answer_ids)),
        "logit": answer,
        "rank": 1 + (first > answer[:, None]).sum(dim=-1),
        "kl": (clean_said.exp() * (clean_said - said)).sum(dim=-1),
    }
    if options.foil is not None:
        measures["logit_difference"] = answer - first[:, options.foil]
    measures |= {target_name(token): probability_of(logits, (token,)) for token in options.other_targets}
    return {name: values.double().numpy() for name, values in measures.items()}


# --- The trace --------------------------------------------------------------------------------------------------

Values = dict[str, np.ndarray]
"""Measure -> its values, draws last."""
Recorded = dict[str, list[torch.Tensor]]
"""Part -> its value in each layer, [1 or N, positions, D]."""


@dataclass(frozen=True)
class Draws:
    """What some draws gave."""

    low: Values
    """[N], of the corrupted run."""
    grids: dict[str, Values]
    """Kind -> [P, L, N]; of "head" [P, L, H, N]."""


def check(
    model: PreTrainedModel, token_ids: Sequence[int], answer_ids: Sequence[int], options: TraceOptions
) -> None:
    """Refuses options that have no meaning."""
    for name, value, known in (
        *(("kind", kind, KINDS) for kind in options.kinds),
        ("direction", options.direction, DIRECTIONS),
        ("method", options.method, METHODS),
        ("distribution", options.distribution, DISTRIBUTIONS),
    ):
        if value not in known:
            raise ValueError(f"{name} is {value!r}, expected one of {', '.join(known)}")
    if options.precision is not None and options.method != "noise":
        raise ValueError(f"the corruption {options.method} has one draw, so a precision cannot be asked of it")
    if options.distribution == "student" and not (options.degrees_of_freedom or 0) > 2:
        raise ValueError(f"degrees_of_freedom is {options.degrees_of_freedom}, expected a number above 2")
    if options.method == "tokens" and len(options.counter_ids) != len(token_ids):
        raise ValueError(f"the other prompt has {len(options.counter_ids)} tokens, expected {len(token_ids)}")
    outside = [t for t in options.positions or () if not 0 <= t < len(token_ids)]
    if outside:
        raise ValueError(f"position {outside[0]} is not in the prompt of {len(token_ids)} tokens")
    needed, room = len(token_ids) + len(answer_ids) - 1, room_of(model)
    if needed > room:
        raise ValueError(f"prompt and answer need {needed} positions, and the model has {room}")


def trace_draws(
    model: PreTrainedModel,
    token_ids: Sequence[int],
    subject_range: tuple[int, int],
    answer_ids: Sequence[int],
    options: TraceOptions,
    first: int,
) -> Draws:
    """Draws first..first + N - 1 of every cell, each in rows of its own of a run of the whole model.

    The base run, into which values are put, is the corrupted one when denoising and the clean one when noising; the
    source run, from which they are taken, is the other.
    """
    config = config_of(model)
    layers, heads = config.num_hidden_layers, config.num_attention_heads
    count = options.samples if options.method == "noise" else 1
    positions = range(len(token_ids)) if options.positions is None else options.positions
    spoken = list(answer_ids[:-1])
    clean_row = [*token_ids, *spoken]
    clean_rows = [clean_row] * count
    if options.method == "tokens":
        corrupted_rows, corruption = [[*options.counter_ids, *spoken]], []
    else:
        corrupted_rows, corruption = clean_rows, [corrupt(model, subject_range, options, first)]

    def record(rows: Sequence[Sequence[int]], hooks: Sequence[Install]) -> tuple[torch.Tensor, Recorded]:
        """Logits of a run, and the values of all parts of all layers."""
        values: Recorded = {part: [] for part in ("state", "mlp", "attn", "head")}

        def keeper(part: str) -> Callable[[torch.Tensor], None]:
            # A copy: Falcon adds to the MLP's output in place.
            return lambda value: values[part].append(value.clone())

        keep = [on_value(model, part, layer, keeper(part)) for part in values for layer in range(layers)]
        return run(model, rows, [*hooks, *keep], len(answer_ids)), values

    clean, clean_values = record([clean_row], [])
    corrupted, corrupted_values = record(corrupted_rows, corruption)
    low = measure(corrupted, clean, answer_ids, options)

    if options.direction == "denoising":
        base_rows, base_hooks, base, source = corrupted_rows, corruption, corrupted_values, clean_values
    else:
        base_rows, base_hooks, base, source = clean_rows, [], clean_values, corrupted_values

    def patches_of(kind: str, position: int, layer: int, head: int | None = None) -> list[Patch]:
        """What a cell puts into its rows."""
        part = "state" if kind in SEVERED else kind
        width = source[part][layer].shape[-1]
        columns = slice(None) if head is None else slice(head * width // heads, (head + 1) * width // heads)
        patches = [
            Patch(part, at, position, columns, source[part][at][:, position, columns])
            for at in window_of(layer, window_for(kind, options), layers)
        ]
        if kind in SEVERED:
            frozen = SEVERED[kind]
            patches += [Patch(frozen, at, position, columns, base[frozen][at][:, position]) for at in range(layers)]
        return patches

    def grid(kind: str) -> Values:
        shape = (len(positions), layers, heads) if kind == "head" else (len(positions), layers)
        cells = [patches_of(kind, positions[p], *rest) for p, *rest in np.ndindex(shape)]
        at_once = max(1, MOST_POSITIONS // (count * len(clean_row)))
        parts = []
        for begin in range(0, len(cells), at_once):
            some = cells[begin : begin + at_once]
            logits = run(model, base_rows * len(some), [*base_hooks, *put(model, some)], len(answer_ids))
            parts.append(measure(logits, clean, answer_ids, options))
        return {name: np.concatenate([part[name] for part in parts]).reshape(*shape, count) for name in low}

    return Draws(low, {kind: grid(kind) for kind in options.kinds if kind != "knockout"})


def join(some: Draws, more: Draws) -> Draws:
    """All draws of both."""

    def joined(one: Values, other: Values) -> Values:
        return {name: np.concatenate([one[name], other[name]], axis=-1) for name in one}

    return Draws(joined(some.low, more.low), {kind: joined(some.grids[kind], more.grids[kind]) for kind in some.grids})


def standard_error(values: np.ndarray) -> np.ndarray:
    """Of the mean over draws, which come last: std(ddof=1) / sqrt(N); NaN for a single draw."""
    draws = values.shape[-1]
    if draws == 1:
        return np.full(values.shape[:-1], math.nan)
    return values.std(axis=-1, ddof=1) / math.sqrt(draws)


def largest_error(draws: Draws) -> float:
    """The largest standard error of the answer's probability."""
    errors = [standard_error(values["probability"]) for values in (draws.low, *draws.grids.values())]
    return float(max(error.max(initial=0) if not np.isnan(error).any() else math.nan for error in errors))


def normalised(values: np.ndarray, high: float, low: float) -> np.ndarray:
    """0 as the corrupted run, 1 as the clean one; NaN where these are equal."""
    return (values - low) / (high - low) if high != low else np.full(np.shape(values), math.nan)


def knock_out(
    model: PreTrainedModel,
    token_ids: Sequence[int],
    subject_range: tuple[int, int],
    answer_ids: Sequence[int],
    options: TraceOptions,
    high: float,
) -> dict[str, dict[str, list[float]]]:
    """Group -> "positions", "scores" [L] and "relative_change" [L] of clean runs that cannot look at the group."""
    layers = config_of(model).num_hidden_layers
    row = [*token_ids, *answer_ids[:-1]]
    queries = range(len(token_ids) - 1, len(row))
    result = {}
    for name, keys in knockout_groups(len(token_ids), subject_range).items():
        windows = [window_of(layer, options.knockout_window, layers) for layer in range(layers)]
        hooks = [cut(model, at, queries, [keys if at in window else [] for window in windows]) for at in range(layers)]
        logits = run(model, [row] * layers, hooks, len(answer_ids))  # a row for each window
        scores = probability_of(logits, answer_ids).tolist()
        change = [(value - high) / high if high else math.nan for value in scores]
        result[name] = {"positions": keys, "scores": scores, "relative_change": change}
    return result


def trace(
    model: PreTrainedModel, token_ids: Sequence[int], subject_range: tuple[int, int], options: TraceOptions
) -> dict[str, Any]:
    """Traces one prompt.

    "high", "low" and "low_standard_error" map each measure to its value in the clean and the corrupted run; "grids"
    maps kind and measure to "values" and "standard_error", lists [P][L], of "head" [P][L][H]. Values are means over
    draws; a single draw has NaN for its standard error, "normalised" None. "knockout" is that of knock_out, if asked for.
    low is measured with the same corruption as the cells, `replace` included.
    """
    prompt_logits = run(model, [token_ids], [])
    prediction = int(prompt_logits[0, 0].argmax())
    answer_ids = (prediction,) if options.answer_ids is None else options.answer_ids
    check(model, token_ids, answer_ids, options)
    clean = run(model, [[*token_ids, *answer_ids[:-1]]], [], len(answer_ids))
    high = {name: float(values[0]) for name, values in measure(clean, clean, answer_ids, options).items()}

    def more(first: int, count: int) -> Draws:
        return trace_draws(model, token_ids, subject_range, answer_ids, replace(options, samples=count), first)

    cap = options.samples if options.precision is None else options.most_samples
    draws = more(0, min(options.samples, cap))
    drawn = draws.low["probability"].shape[-1]
    while options.precision is not None and drawn < cap and not largest_error(draws) < options.precision:
        step = min(options.samples, cap - drawn)
        draws = join(draws, more(drawn, step))
        drawn += step

    low = {name: float(values.mean()) for name, values in draws.low.items()}
    low_error = {name: float(standard_error(values)) for name, values in draws.low.items()}
    grids: dict[str, dict[str, Any]] = {}
    of = "probability" if options.foil is None else "logit_difference"
    for kind, measures in draws.grids.items():
        grids[kind] = {
            name: {"values": values.mean(axis=-1).tolist(), "standard_error": standard_error(values).tolist()}
            for name, values in measures.items()
        }
        relative = normalised(measures[of].mean(axis=-1), high[of], low[of]).tolist()
        grids[kind]["normalised"] = {"values": relative, "standard_error": None}
    ends = {"high": high, "low": low}
    normal = {name: float(normalised(np.array(end[of]), high[of], low[of])) for name, end in ends.items()}
    traced = {
        "answer_ids": list(answer_ids),
        "prediction_id": prediction,
        "prediction_score": probability_of(prompt_logits, (prediction,)).item(),
        "samples": drawn,
        "largest_error": largest_error(draws),
        "positions": list(range(len(token_ids)) if options.positions is None else options.positions),
        "normalised_of": of,
        "high": high | {"normalised": normal["high"]},
        "low": low | {"normalised": normal["low"]},
        "low_standard_error": low_error | {"normalised": None},
        "grids": grids,
    }
    if "knockout" in options.kinds:
        traced["knockout"] = knock_out(model, token_ids, subject_range, answer_ids, options, high["probability"])
    return traced


# --- The program ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NoiseRule:
    """`--noise`, read."""

    distribution: str
    scale: float | None = None
    """Sigma, or a factor of the subjects' standard deviation."""
    of_subjects: bool = False
    degrees_of_freedom: float | None = None


def read_noise(rule: str) -> NoiseRule:
    """The rule that `--noise` names."""
    number = r"(\d+\.?\d*(?:e-?\d+)?|\.\d+(?:e-?\d+)?)"
    if rule == "m":
        return NoiseRule("multivariate")
    if rule == "s":
        return NoiseRule("gaussian", 1, of_subjects=True)
    match = re.fullmatch(rf"([sut]?){number}", rule)
    if not match:
        raise ValueError(f'noise is {rule!r}, expected a number, "s", "s3", "u0.5", "m" or "t3"')
    letter, value = match.group(1), float(match.group(2))
    if letter == "t":
        if value <= 2:
            raise ValueError(f"noise is {rule!r}, expected more than 2 degrees of freedom")
        return NoiseRule("student", degrees_of_freedom=value)
    return NoiseRule("uniform" if letter == "u" else "gaussian", value, letter == "s")


def read_subjects(facts_json: Path) -> list[str]:
    """The subjects of a facts file, in order, with repeats: a list of records, or an object with "facts"."""
    facts = json.loads(facts_json.read_text(encoding="utf-8"))
    return [fact["subject"] for fact in (facts["facts"] if isinstance(facts, dict) else facts)]


def read_prompts(facts_json: Path) -> list[str]:
    """Each fact's prompts in every wording of its relation, in the order of a facts file of rometrace's layout."""
    data = json.loads(facts_json.read_text(encoding="utf-8"))
    prompts = []
    for fact in data["facts"]:
        wordings = data["relations"][fact["relation"]]["wordings"]
        ordered = sorted(wordings, key=lambda wording: wording.get("held_out", False))
        prompts += dict.fromkeys(wording["text"].replace("{}", fact["subject"]) for wording in ordered)
    return prompts


def read_moments_text(tokenizer: Any, text: Path | None, facts_json: Path) -> tuple[list[int], dict[str, Any]]:
    """Token ids of the text that gives the moments (none: of the facts' prompts), and how the result names it."""
    source = text or facts_json
    texts = [source.read_bytes().decode()] if text else read_prompts(source)
    token_ids = [token_id for one in texts for token_id in encode(tokenizer, one)]
    sha256 = hashlib.sha256(source.read_bytes()).hexdigest()
    return token_ids, {"name": source.name, "sha256": sha256, "tokens": len(token_ids)}


def nulls_for_nan(value: Any) -> Any:
    """`value` with NaN replaced by None, at any depth: JSON has no NaN."""
    if isinstance(value, dict):
        return {name: nulls_for_nan(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [nulls_for_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def weights_sha256(folder: Path) -> str:
    """One weight file: its SHA-256. Several: the SHA-256 of what `sha256sum` prints for them, in order of name."""
    files = sorted(folder.glob("*.safetensors"))
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    if len(digests) == 1:
        return digests[0]
    listing = "".join(f"{digest}  {path.name}\n" for digest, path in zip(digests, files))
    return hashlib.sha256(listing.encode()).hexdigest()


def model_record(model: PreTrainedModel, folder: Path) -> dict[str, Any]:
    """The "model" object of the result."""
    config = config_of(model)
    return {
        "name": folder.name,
        "architecture": (model.config.architectures or [type(model).__name__])[0],
        "layers": config.num_hidden_layers,
        "width": config.hidden_size,
        "heads": config.num_attention_heads,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "weights_sha256": weights_sha256(folder),
    }


def grid_record(model: PreTrainedModel, traced: dict[str, Any], kind: str, options: TraceOptions) -> dict[str, Any]:
    """One kind's object under "grids"."""
    grid = traced["grids"][kind]["probability"]
    scores = np.array(grid["values"])
    low, high = traced["low"]["probability"], traced["high"]["probability"]
    return {
        "window": window_for(kind, options),
        "positions": traced["positions"],
        **({"heads": config_of(model).num_attention_heads} if kind == "head" else {}),
        "scores": grid["values"],
        "indirect_effect": (scores - low if options.direction == "denoising" else high - scores).tolist(),
        "standard_error": grid["standard_error"],
    }


def measure_records(traced: dict[str, Any], measures: Sequence[str]) -> dict[str, Any]:
    """The object "measures": those named, but for the probability, which has the grids' scores."""
    records = {}
    for name in measures:
        if name == "probability":
            continue
        records[name] = {"of": traced["normalised_of"]} if name == "normalised" else {}
        records[name] |= {end: traced[end][name] for end in ("high", "low", "low_standard_error")}
        records[name]["grids"] = {kind: grid[name] for kind, grid in traced["grids"].items()}
    return records


def target_records(traced: dict[str, Any], targets: Sequence[int]) -> list[dict[str, Any]]:
    """The list "other_targets", without the targets' texts."""
    records = []
    for token in targets:
        name = target_name(token)
        grids = {
            kind: {"scores": grid[name]["values"], "standard_error": grid[name]["standard_error"]}
            for kind, grid in traced["grids"].items()
        }
        ends = {f"{end}_score": traced[end][name] for end in ("high", "low")}
        error = traced["low_standard_error"][name]
        records.append({"target_ids": [token], **ends, "low_standard_error": error, "grids": grids})
    return records


def read_token(tokenizer: Any, what: str, text: str) -> int:
    """The one token that `text` is."""
    token_ids = encode(tokenizer, text)
    if len(token_ids) != 1:
        raise ValueError(f"{what} {text!r} is {len(token_ids)} tokens, expected one (mind the leading space)")
    return token_ids[0]


def ends_word(piece: bytes) -> bool:
    """Whether a token that begins so is no part of the word before it: ASCII that is neither letter nor digit."""
    return piece[0] < 0x80 and not piece[:1].isalnum()


def say(
    model: PreTrainedModel, tokenizer: Any, token_ids: Sequence[int], *, most: int, whole_word: bool
) -> tuple[int, ...]:
    """What the model itself says, the most probable token at a time.

    It has `most` tokens unless the model says its end of text, a word ends or the context is full. The first token
    always belongs to it.
    """
    ends = config_of(model).eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    answer: list[int] = []
    while len(answer) < most and len(token_ids) + len(answer) <= room_of(model):
        token = int(clean_logits(model, [*token_ids, *answer])[-1].argmax())
        if answer and (token in ends or whole_word and ends_word(token_bytes(tokenizer, token))):
            break
        answer.append(token)
    return tuple(answer)


def read_answer(
    arguments: argparse.Namespace, model: PreTrainedModel, tokenizer: Any, token_ids: Sequence[int]
) -> tuple[tuple[int, ...] | None, tuple[int, ...]]:
    """What --target and --answer ask for: the answer's ids (None: the prediction) and the other targets."""
    targets = arguments.target or []
    if targets and arguments.answer != "token":
        raise ValueError("--target and --answer both name the answer; give one")
    if len(targets) > 1:
        first, *others = (read_token(tokenizer, "target", text) for text in targets)
        return (first,), tuple(others)
    if targets:
        return tuple(encode(tokenizer, targets[0])), ()
    if arguments.answer == "token":
        return None, ()
    if arguments.answer == "word":
        return say(model, tokenizer, token_ids, most=LONGEST_WORD, whole_word=True), ()
    match = re.fullmatch(r"greedy:([1-9]\d*)", arguments.answer)
    if not match:
        raise ValueError(f'answer is {arguments.answer!r}, expected "token", "word" or "greedy:K"')
    return say(model, tokenizer, token_ids, most=int(match.group(1)), whole_word=False), ()


def read_counter(
    arguments: argparse.Namespace, tokenizer: Any, prefix: Sequence[int], pieces: Sequence[bytes]
) -> tuple[list[int], dict[str, Any]] | None:
    """The other prompt's token ids [T] and the object "counter", if one is named."""
    if arguments.counter_subject is None and arguments.counter_prompt is None:
        return None
    if arguments.counter_prompt is None:
        prompt = arguments.prompt.replace(arguments.subject, arguments.counter_subject, 1)
    else:
        prompt = arguments.counter_prompt
    token_ids = [*prefix, *encode(tokenizer, prompt)]
    counter_pieces = [token_bytes(tokenizer, token_id) for token_id in token_ids]
    if len(token_ids) != len(pieces):
        raise ValueError(
            f"the prompt has {len(pieces)} tokens, {list(pieces)}, and the counter prompt {len(token_ids)}, "
            f"{counter_pieces}; expected as many"
        )
    tokens = [piece.decode(errors="replace") for piece in counter_pieces]
    record = {"prompt": prompt, "subject": arguments.counter_subject, "token_ids": token_ids, "tokens": tokens}
    return token_ids, record


def read_positions(spec: str, tokens: int, subject_range: tuple[int, int]) -> tuple[int, ...] | None:
    """The positions that `--positions` names; None: all."""
    begin, end = subject_range
    named = {"all": None, "subject": tuple(range(begin, end)), "subject-last": (end - 1,), "last": (tokens - 1,)}
    if spec in named:
        return named[spec]
    if not re.fullmatch(r"\d+(,\d+)*", spec):
        raise ValueError(f'positions are {spec!r}, expected "all", "subject", "subject-last", "last" or "0,3,5"')
    return tuple(sorted({int(number) for number in spec.split(",")}))


def read_kinds(arguments: argparse.Namespace) -> tuple[str, ...]:
    """The kinds of --kinds and --sever."""
    kinds = arguments.kinds.split(",")
    for part in arguments.sever.split(",") if arguments.sever else ():
        if part not in ("mlp", "attn", "none"):
            raise ValueError(f'sever is {part!r}, expected "mlp", "attn" or "none"')
        kinds.append("state" if part == "none" else f"state_{part}_severed")
    return tuple(dict.fromkeys(kinds))


def read_measures(arguments: argparse.Namespace) -> tuple[str, ...]:
    """The measures of --measures."""
    measures = tuple(dict.fromkeys(arguments.measures.split(",")))
    for name in measures:
        if name not in MEASURES:
            raise ValueError(f"measure is {name!r}, expected one of {', '.join(MEASURES)}")
    if "logit_difference" in measures and arguments.foil is None:
        raise ValueError("the measure logit_difference needs a --foil to compare the answer with")
    return measures


def text_fields(tokenizer: Any, name: str, token_ids: Sequence[int]) -> dict[str, str]:
    """The fields that tell a few tokens' text: `name` and its bytes."""
    text = b"".join(token_bytes(tokenizer, token_id) for token_id in token_ids)
    return {name: text.decode(errors="replace"), f"{name}_bytes": text.hex()}


@dataclass(frozen=True)
class Question:
    """What the command line asks."""

    model: PreTrainedModel
    tokenizer: Any
    token_ids: list[int]
    pieces: list[bytes]
    subject_range: tuple[int, int]
    options: TraceOptions
    measures: tuple[str, ...]
    rule: str
    """Of the noise, as results spell it."""
    counter: dict[str, Any] | None
    """The object "counter", if another prompt is named."""
    text: Any
    """Of moments: what results say of it, if there is one."""


def read_question(arguments: argparse.Namespace) -> Question:
    """Loads the model and makes of the command line what `trace` takes."""
    folder: Path = arguments.model
    model = load_model(folder, getattr(torch, arguments.dtype))
    tokenizer = load_tokenizer(folder)
    prefix = prefix_ids(folder, tokenizer)
    prompt_ids = encode(tokenizer, arguments.prompt)
    covered = [b"" for _ in prefix] + pieces_of(tokenizer, prompt_ids, arguments.prompt)
    subject_range = find_subject(covered, arguments.prompt, arguments.subject)
    token_ids = [*prefix, *prompt_ids]
    pieces = [token_bytes(tokenizer, token_id) for token_id in token_ids]

    measures = read_measures(arguments)
    counter = read_counter(arguments, tokenizer, prefix, pieces)
    method = "tokens" if counter else arguments.corrupt
    rule = read_noise(arguments.noise) if method == "noise" else NoiseRule("gaussian")
    rule_text = "s1" if arguments.noise == "s" else arguments.noise  # as results spell it
    sigma = rule.scale
    if rule.of_subjects:
        sigma = sigma_of_subjects(model, tokenizer, read_subjects(arguments.noise_facts), rule.scale)
    text = None
    if method == "mean" or rule.distribution in ("multivariate", "student"):
        text = read_moments_text(tokenizer, arguments.noise_text, REPOSITORY / "share/rometrace/facts.json")
    answer_ids, other_targets = read_answer(arguments, model, tokenizer, token_ids)
    options = TraceOptions(
        kinds=() if arguments.kinds == "neuron" else read_kinds(arguments),
        window=arguments.window,
        head_window=arguments.head_window,
        knockout_window=arguments.knockout_window,
        positions=read_positions(arguments.positions, len(token_ids), subject_range),
        direction=arguments.direction,
        samples=arguments.samples,
        seed=arguments.seed,
        method=method,
        distribution=rule.distribution,
        sigma=sigma,
        degrees_of_freedom=rule.degrees_of_freedom,
        replace=arguments.replace,
        text_ids=tuple(text[0]) if text else None,
        counter_ids=tuple(counter[0]) if counter else None,
        answer_ids=answer_ids,
        other_targets=other_targets,
        foil=read_token(tokenizer, "foil", arguments.foil) if arguments.foil is not None else None,
        precision=arguments.precision,
        most_samples=arguments.most_samples,
    )
    return Question(
        model=model,
        tokenizer=tokenizer,
        token_ids=token_ids,
        pieces=pieces,
        subject_range=subject_range,
        options=options,
        measures=measures,
        rule=rule_text,
        counter=counter[1] if counter else None,
        text=text[1] if text else None,
    )


def trace_record(arguments: argparse.Namespace) -> dict[str, Any]:
    """Runs what the command line asks for and gives the whole result."""
    asked = read_question(arguments)
    model, tokenizer, options, measures = asked.model, asked.tokenizer, asked.options, asked.measures
    start = time.perf_counter()
    traced = trace(model, asked.token_ids, asked.subject_range, options)
    method = options.method
    run_fields = {
        "device": "cpu",
        "dtype": arguments.dtype,
        "threads": torch.get_num_threads(),
        "engine": "transformers",
        "approximate": False,
        "direction": options.direction,
        "seed": options.seed,
        "samples": traced["samples"],
        "corruption": {"method": method, **({"text": asked.text} if asked.text else {})},
        "noise": (
            {"rule": asked.rule, "sigma": options.sigma, "replace": options.replace} if method == "noise" else None
        ),
        "seconds": time.perf_counter() - start,
    }
    if options.precision is not None:
        reached = {"asked": options.precision, "reached": traced["largest_error"]}
        run_fields["precision"] = reached | {"most_samples": options.most_samples}
    record = {
        "schema": "rometrace/trace/1",
        "rometrace": "0.1.0",
        "status": "traced",
        "model": model_record(model, arguments.model),
        "run": run_fields,
        "prompt": arguments.prompt,
        "subject": arguments.subject,
        "tokens": [piece.decode(errors="replace") for piece in asked.pieces],
        "token_bytes": [piece.hex() for piece in asked.pieces],
        "token_ids": asked.token_ids,
        "subject_range": list(asked.subject_range),
        **({"counter": asked.counter} if asked.counter else {}),
        **text_fields(tokenizer, "answer", traced["answer_ids"]),
        "answer_id": traced["answer_ids"][0],
        "answer_ids": traced["answer_ids"],
        **text_fields(tokenizer, "prediction", [traced["prediction_id"]]),
        "prediction_id": traced["prediction_id"],
        "prediction_score": traced["prediction_score"],
        "high_score": traced["high"]["probability"],
        "low_score": traced["low"]["probability"],
        "low_standard_error": traced["low_standard_error"]["probability"],
        "total_effect": traced["high"]["probability"] - traced["low"]["probability"],
        "grids": {kind: grid_record(model, traced, kind, options) for kind in traced["grids"]},
    }
    if "knockout" in traced:
        record["knockout"] = {"window": options.knockout_window, "groups": traced["knockout"]}
    if set(measures) - {"probability"}:
        record["measures"] = measure_records(traced, measures)
    for name in {"logit_difference", "normalised"} & set(measures):
        if options.foil is not None:
            record["measures"][name] |= text_fields(tokenizer, "foil", [options.foil]) | {"foil_id": options.foil}
    if options.other_targets:
        record["other_targets"] = [
            text_fields(tokenizer, "target", entry["target_ids"]) | entry
            for entry in target_records(traced, options.other_targets)
        ]
    return nulls_for_nan(record)


def argument_parser(description: str) -> argparse.ArgumentParser:
    """The command line: rometrace's own options, as far as a judge needs them."""
    parser = argparse.ArgumentParser(description=description)
    facts = REPOSITORY / "share/rometrace/facts.json"
    parser.add_argument("--model", type=Path, required=True, help="folder with config.json, weights and tokenizer")
    parser.add_argument("--prompt", required=True)
    parser.add_argument("--subject", required=True)
    parser.add_argument(
        "--kinds", default="state,mlp,attn", help=f"comma-separated, of {', '.join(KINDS)} (default: %(default)s)"
    )
    parser.add_argument("--sever", help='adds severed kinds: "mlp", "attn", "none" (plain state), comma-separated')
    parser.add_argument("--positions", default="all", help='"all", "subject", "subject-last", "last" or "0,3,5"')
    parser.add_argument("--window", type=int, default=10, help="layers, for mlp and attn (default: %(default)s)")
    parser.add_argument("--head-window", type=int, default=1, help="layers (default: %(default)s)")
    parser.add_argument("--knockout-window", type=int, default=9, help="layers (default: %(default)s)")
    parser.add_argument("--direction", choices=DIRECTIONS, default="denoising")
    parser.add_argument("--samples", type=int, default=10, help="noise draws (default: %(default)s)")
    parser.add_argument("--precision", type=float, help="draw until every standard error is below it")
    parser.add_argument("--most-samples", type=int, default=1000, help="draws at most (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--corrupt", choices=("noise", "zero", "mean"), default="noise")
    parser.add_argument("--counter-subject", help="corrupt by the prompt of another subject of as many tokens")
    parser.add_argument("--counter-prompt", help="corrupt by another prompt of as many tokens")
    parser.add_argument(
        "--noise", default="s3", help='a number, "s", "s3", "u0.5", "m" or "t3" (default: %(default)s)'
    )
    parser.add_argument("--noise-facts", type=Path, default=facts, help='facts whose subjects "s3" measures')
    parser.add_argument("--noise-text", type=Path, help='text of "m", "t3" and "mean" (default: the shipped facts)')
    parser.add_argument("--replace", action="store_true", help="noise in place of the embedding")
    parser.add_argument("--target", action="append", help="follow this text instead of the most probable token")
    parser.add_argument("--answer", default="token", help='"token", "word" or "greedy:K" (default: %(default)s)')
    parser.add_argument("--measures", default="probability", help=f"comma-separated, of {', '.join(MEASURES)}")
    parser.add_argument("--foil", help="the token that the answer's logit is compared with")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    return parser


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    return argument_parser("Traces one prompt with transformers, plainly and slowly.").parse_args(arguments)


def main() -> int:
    try:
        record = trace_record(parse_arguments())
    except (OSError, ValueError, KeyError) as error:
        print(f"reference_tracer.py: {error}", file=sys.stderr)
        return 2
    print(json.dumps(record, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
