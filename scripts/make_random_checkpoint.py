#!/usr/bin/env python3
"""Makes a GPT-2 checkpoint with random weights: a real model's shape without its download, for benchmarks and tests.

    scripts/make_random_checkpoint.py FOLDER --shape gpt2-xl --tokenizer FOLDER_WITH_VOCAB_AND_MERGES
    scripts/make_random_checkpoint.py FOLDER --layers 2 --width 64 --heads 4 --vocab 300 --positions 32 --dtype BF16

The folder is one that transformers loads: config.json, model.safetensors (or shards and their index), vocab.json,
merges.txt. Weights are drawn as for a model before training (matrices N(0, 0.02), LayerNorm gains near 1, small biases)
and depend on --seed and the shape alone, not on --dtype (but for rounding) or --shards. Tensors are drawn and written
block by block: GPT-2 XL needs some 100 MB of memory, not 6 GB. Needs NumPy only.
"""

import argparse
import json
import pathlib
import shutil
import struct
import sys
import zlib

import numpy as np

# name: layers, width, heads
SHAPES = {
    "gpt2": (12, 768, 12),
    "gpt2-medium": (24, 1024, 16),
    "gpt2-large": (36, 1280, 20),
    "gpt2-xl": (48, 1600, 25),
}
BYTES_OF_DTYPE = {"F32": 4, "F16": 2, "BF16": 2}
TORCH_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
END_OF_TEXT = "<|endoftext|>"
BLOCK = 1 << 22  # elements drawn at a time


def tensors_of(layers, width, vocab, positions):
    """(name, shape, mean, deviation) of each tensor. Matrices are [in, out], as transformers' Conv1D has them."""
    yield "transformer.wte.weight", (vocab, width), 0.0, 0.02
    yield "transformer.wpe.weight", (positions, width), 0.0, 0.01
    for layer in range(layers):
        block = f"transformer.h.{layer}"
        for norm in ("ln_1", "ln_2"):
            yield f"{block}.{norm}.weight", (width,), 1.0, 0.02
            yield f"{block}.{norm}.bias", (width,), 0.0, 0.02
        # GPT-2's own rule: what is added to the residual stream is scaled down with the depth.
        residual = 0.02 / np.sqrt(2.0 * layers)
        for name, rows, columns, deviation in (
            ("attn.c_attn", width, 3 * width, 0.02),
            ("attn.c_proj", width, width, residual),
            ("mlp.c_fc", width, 4 * width, 0.02),
            ("mlp.c_proj", 4 * width, width, residual),
        ):
            yield f"{block}.{name}.weight", (rows, columns), 0.0, deviation
            yield f"{block}.{name}.bias", (columns,), 0.0, 0.02
    yield "transformer.ln_f.weight", (width,), 1.0, 0.02
    yield "transformer.ln_f.bias", (width,), 0.0, 0.02


def encode(values, dtype):
    """float32 values as little-endian bytes of the dtype, rounded to nearest even."""
    if dtype == "F32":
        return values.astype("<f4").tobytes()
    if dtype == "F16":
        return values.astype("<f2").tobytes()
    bits = values.astype("<f4").view("<u4")  # bfloat16: the upper half of a float32
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2").tobytes()


def write_tensor(file, name, shape, mean, deviation, dtype, seed):
    # A stream of its own for each tensor, so that the order and the shards do not matter.
    generator = np.random.Generator(np.random.PCG64([seed, zlib.crc32(name.encode())]))
    left = int(np.prod(shape, dtype=np.int64))
    while left > 0:
        count = min(left, BLOCK)
        values = generator.standard_normal(count, dtype=np.float32)
        values *= np.float32(deviation)
        values += np.float32(mean)
        file.write(encode(values, dtype))
        left -= count


def write_safetensors(path, tensors, dtype, seed):
    header = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape, _, _ in tensors:
        begin, end = end, end + int(np.prod(shape, dtype=np.int64)) * BYTES_OF_DTYPE[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data begin at a multiple of 8
    partial = path.with_name(path.name + ".partial")
    with open(partial, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape, mean, deviation in tensors:
            write_tensor(file, name, shape, mean, deviation, dtype, seed)
    partial.replace(path)
    return end


def split(tensors, shards):
    """The tensors in order, in `shards` runs of about the same number of elements, none of them empty."""
    sizes = [int(np.prod(shape, dtype=np.int64)) for _, shape, _, _ in tensors]
    total = sum(sizes)
    runs = [[] for _ in range(shards)]
    run = done = 0
    for index, (tensor, size) in enumerate(zip(tensors, sizes)):
        is_full = runs[run] and done + size / 2 > total * (run + 1) / shards
        must_move = runs[run] and len(tensors) - index <= shards - 1 - run
        if run < shards - 1 and (is_full or must_move):
            run += 1
        runs[run].append(tensor)
        done += size
    return runs


def write_weights(folder, tensors, dtype, shards, seed):
    for old in [*folder.glob("model*.safetensors"), *folder.glob("model.safetensors.index.json")]:
        old.unlink()  # a single file left beside an index would be the one that is read
    if shards == 1:
        return write_safetensors(folder / "model.safetensors", tensors, dtype, seed)
    weight_map, total = {}, 0
    for number, run in enumerate(split(tensors, shards), start=1):
        file = f"model-{number:05}-of-{shards:05}.safetensors"
        total += write_safetensors(folder / file, run, dtype, seed)
        weight_map.update({name: file for name, _, _, _ in run})
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
    return total


def byte_alphabet():
    """GPT-2's printable character for each byte, in the order of its vocabulary."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(others))]


def read_vocabulary(source):
    """Token -> id of the source's vocab.json; without a source, the 256 bytes and <|endoftext|>."""
    if source is None:
        return {token: index for index, token in enumerate([*byte_alphabet(), END_OF_TEXT])}
    return json.loads((source / "vocab.json").read_text(encoding="utf-8"))


def write_tokenizer(folder, source):
    if source is not None:
        for name in ("vocab.json", "merges.txt"):
            shutil.copyfile(source / name, folder / name)
        return
    text = json.dumps(read_vocabulary(None), ensure_ascii=False)
    (folder / "vocab.json").write_text(text, encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n")


def config_of(layers, width, heads, vocab, positions, dtype, end_of_text):
    return {
        "activation_function": "gelu_new",
        "architectures": ["GPT2LMHeadModel"],
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "layer_norm_epsilon": 1e-05,
        "model_type": "gpt2",
        "n_embd": width,
        "n_head": heads,
        "n_inner": None,
        "n_layer": layers,
        "n_positions": positions,
        "tie_word_embeddings": True,
        "torch_dtype": TORCH_DTYPES[dtype],
        "vocab_size": vocab,
    }


def parse_arguments():
    def positive(text):
        value = int(text)
        if value < 1:
            raise argparse.ArgumentTypeError("expected 1 or more")
        return value

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=pathlib.Path, help="made if it is not there; weights in it are replaced")
    parser.add_argument("--shape", choices=SHAPES, default="gpt2", help="a real model's shape (default: gpt2)")
    parser.add_argument("--layers", type=positive, help="instead of the shape's")
    parser.add_argument("--width", type=positive, help="instead of the shape's")
    parser.add_argument("--heads", type=positive, help="instead of the shape's")
    parser.add_argument("--vocab", type=positive, default=50257, help="tokens (default: 50257)")
    parser.add_argument("--positions", type=positive, default=1024, help="longest prompt in tokens (default: 1024)")
    parser.add_argument("--dtype", choices=BYTES_OF_DTYPE, default="F32")
    parser.add_argument("--shards", type=positive, default=1, help="number of weight files (default: 1)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tokenizer", type=pathlib.Path, help="folder whose vocab.json and merges.txt are copied")
    arguments = parser.parse_args()

    layers, width, heads = SHAPES[arguments.shape]
    arguments.layers = arguments.layers or layers
    arguments.width = arguments.width or width
    arguments.heads = arguments.heads or heads
    if arguments.width % arguments.heads != 0:
        parser.error(f"--heads {arguments.heads} does not divide the width {arguments.width}")
    if arguments.seed < 0:
        parser.error("--seed: expected 0 or more")
    if arguments.shards > 12 * arguments.layers + 4:
        parser.error(f"--shards {arguments.shards}: the model has {12 * arguments.layers + 4} tensors")
    for name in ("vocab.json", "merges.txt") if arguments.tokenizer else ():
        if not (arguments.tokenizer / name).is_file():
            parser.error(f"--tokenizer: {arguments.tokenizer / name}: no such file")
    arguments.vocabulary = read_vocabulary(arguments.tokenizer)
    needed = max(arguments.vocabulary.values()) + 1
    if needed > arguments.vocab:
        parser.error(f"--vocab {arguments.vocab}: the tokeniser has {needed} tokens")
    return arguments


def main():
    arguments = parse_arguments()
    layers, width, vocab, positions = arguments.layers, arguments.width, arguments.vocab, arguments.positions
    arguments.folder.mkdir(parents=True, exist_ok=True)
    end_of_text = arguments.vocabulary.get(END_OF_TEXT)
    config = config_of(layers, width, arguments.heads, vocab, positions, arguments.dtype, end_of_text)
    (arguments.folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    write_tokenizer(arguments.folder, arguments.tokenizer)
    tensors = list(tensors_of(layers, width, vocab, positions))
    size = write_weights(arguments.folder, tensors, arguments.dtype, arguments.shards, arguments.seed)
    print(f"{arguments.folder}: {len(tensors)} tensors, {size / 1e6:.1f} MB of {arguments.dtype}", file=sys.stderr)


if __name__ == "__main__":
    main()
