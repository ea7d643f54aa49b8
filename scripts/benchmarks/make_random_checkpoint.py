#!/usr/bin/env python3
"""Makes a checkpoint with random weights: a real model's shape without its download, for benchmarks and tests.

    scripts/benchmarks/make_random_checkpoint.py FOLDER --shape gpt2-xl --tokenizer FOLDER_WITH_VOCAB_AND_MERGES
    scripts/benchmarks/make_random_checkpoint.py FOLDER --shape llama-3-8b --layers 4 --dtype BF16 --shards 2
    scripts/benchmarks/make_random_checkpoint.py FOLDER --shape pythia-160m --format bin
    scripts/benchmarks/make_random_checkpoint.py FOLDER --layers 2 --width 64 --heads 4 --vocab 300 --positions 32 --dtype BF16

The folder is one that transformers loads: config.json, model.safetensors (or shards and their index), the tokeniser's
files. Weights are drawn as for a model before training (matrices N(0, 0.02), gains of norms near 1, small biases) and
depend on --seed and the shape alone, not on --dtype (but for rounding), --shards or --format. Tensors are drawn and
written block by block: GPT-2 XL needs some 100 MB of memory, not 6 GB, and so does GPT-NeoX 20B. `--format bin` writes
what torch.save does, pytorch_model.bin. Needs NumPy only.
"""

import argparse
import json
import pathlib
import pickle
import shutil
import struct
import sys
import zipfile
import zlib

import numpy as np

from checkpoint_shapes import NAMES_OF_SIZES, SHAPES, field_of, tensors_of, with_size

BYTES_OF_DTYPE = {"F32": 4, "F16": 2, "BF16": 2}
TORCH_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
STORAGES = {"F32": "FloatStorage", "F16": "HalfStorage", "BF16": "BFloat16Storage"}
END_OF_TEXT = "<|endoftext|>"
BLOCK = 1 << 22  # elements drawn at a time


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


# --- What torch.save writes -------------------------------------------------------------------------------------


class Global:
    """A name of PyTorch's in a pickle, which is written without importing it."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class TensorPickler(pickle._Pickler):  # the one in Python, whose opcodes can be written one by one
    """Pickles tensors as torch.save does: each refers to a file of numbers beside the pickle."""

    def save_global_name(self, value):
        self.write(pickle.GLOBAL + f"{value.module}\n{value.name}\n".encode())

    def save_stored(self, stored):
        """A tensor: a call of PyTorch's function that puts it together."""
        stride, strides = 1, []
        for size in reversed(stored.shape):
            strides.insert(0, stride)
            stride *= size
        self.save_global_name(Global("torch._utils", "_rebuild_tensor_v2"))
        self.write(pickle.MARK)
        self.write(pickle.MARK)
        self.save("storage")
        self.save_global_name(Global("torch", stored.storage))
        for value in (stored.file, "cpu", stride):
            self.save(value)
        self.write(pickle.TUPLE + pickle.BINPERSID)
        for value in (0, tuple(stored.shape), tuple(strides), False):
            self.save(value)
        self.save_global_name(Global("collections", "OrderedDict"))
        self.write(pickle.EMPTY_TUPLE + pickle.REDUCE)  # no backward hooks
        self.write(pickle.TUPLE + pickle.REDUCE)

    def dump_state(self, entries):
        """An ordered dictionary of the (name, Stored)."""
        self.write(pickle.PROTO + bytes([2]))
        self.save_global_name(Global("collections", "OrderedDict"))
        self.write(pickle.EMPTY_TUPLE + pickle.REDUCE + pickle.MARK)
        for name, stored in entries:
            self.save(name)
            self.save_stored(stored)
        self.write(pickle.SETITEMS + pickle.STOP)


class Stored:
    """Where a tensor's numbers are."""

    def __init__(self, shape, storage, file):
        self.shape, self.storage, self.file = shape, storage, file


def open_aligned(archive, name):
    """A file in the archive whose bytes begin at a multiple of 64, as in those of torch.save."""
    entry = zipfile.ZipInfo(name)
    header = 30 + len(name) + 20 + 4  # of the entry, of its size in 64 bits, and of the padding itself
    padding = -(archive.fp.tell() + header) % 64
    entry.extra = struct.pack("<HH", 0x4246, padding) + b"Z" * padding
    return archive.open(entry, "w", force_zip64=True)


def write_bin(path, tensors, dtype, seed):
    partial = path.with_name(path.name + ".partial")
    root = path.stem
    with zipfile.ZipFile(partial, "w") as archive:
        with open_aligned(archive, f"{root}/data.pkl") as file:
            names = [(name, Stored(shape, STORAGES[dtype], str(n))) for n, (name, shape, _, _) in enumerate(tensors)]
            TensorPickler(file, protocol=2).dump_state(names)
        with open_aligned(archive, f"{root}/byteorder") as file:
            file.write(b"little")
        for number, (name, shape, mean, deviation) in enumerate(tensors):
            with open_aligned(archive, f"{root}/data/{number}") as file:
                write_tensor(file, name, shape, mean, deviation, dtype, seed)
        with open_aligned(archive, f"{root}/version") as file:
            file.write(b"3\n")
    partial.replace(path)
    return sum(int(np.prod(shape, dtype=np.int64)) for _, shape, _, _ in tensors) * BYTES_OF_DTYPE[dtype]


# --- Folders ----------------------------------------------------------------------------------------------------

# Name of the files, their ending, and what writes one.
FORMATS = {
    "safetensors": ("model", "safetensors", write_safetensors),
    "bin": ("pytorch_model", "bin", write_bin),
}


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


def write_weights(folder, tensors, file_format, dtype, shards, seed):
    for stem, ending, _ in FORMATS.values():
        for old in [*folder.glob(f"{stem}*.{ending}"), *folder.glob(f"{stem}.{ending}.index.json")]:
            old.unlink()  # a single file left beside an index would be the one that is read
    stem, ending, write = FORMATS[file_format]
    if shards == 1:
        return write(folder / f"{stem}.{ending}", tensors, dtype, seed)
    weight_map, total = {}, 0
    for number, run in enumerate(split(tensors, shards), start=1):
        file = f"{stem}-{number:05}-of-{shards:05}.{ending}"
        total += write(folder / file, run, dtype, seed)
        weight_map.update({name: file for name, _, _, _ in run})
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / f"{stem}.{ending}.index.json").write_text(json.dumps(index, indent=2) + "\n")
    return total


def byte_alphabet():
    """GPT-2's printable character for each byte, in the order of its vocabulary."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(others))]


TOKENIZER_FILES = (
    "vocab.json",
    "merges.txt",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
)


def read_vocabulary(source):
    """Token -> id of the source's vocab.json, None if it has another kind of tokeniser; without a source, the 256 bytes
    and <|endoftext|>."""
    if source is None:
        return {token: index for index, token in enumerate([*byte_alphabet(), END_OF_TEXT])}
    path = source / "vocab.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def write_tokenizer(folder, source):
    if source is not None:
        for name in TOKENIZER_FILES:
            if (source / name).is_file():
                shutil.copyfile(source / name, folder / name)
        return
    text = json.dumps(read_vocabulary(None), ensure_ascii=False)
    (folder / "vocab.json").write_text(text, encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n")


def config_of(arguments):
    """config.json of the shape, with the sizes that are asked for."""
    config = SHAPES[arguments.shape]
    for size in NAMES_OF_SIZES:
        value = getattr(arguments, size)
        if value is not None:
            config = with_size(config, size, value)
    if config["model_type"] == "gpt2" and arguments.vocabulary:
        end_of_text = arguments.vocabulary.get(END_OF_TEXT)
        config = config | {"bos_token_id": end_of_text, "eos_token_id": end_of_text}
    return config | {"torch_dtype": TORCH_DTYPES[arguments.dtype]}


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
    parser.add_argument("--width", type=positive, help="instead of the shape's, of GPT-2's shapes")
    parser.add_argument("--heads", type=positive, help="instead of the shape's, of GPT-2's shapes")
    parser.add_argument("--vocab", type=positive, help="tokens, instead of the shape's")
    parser.add_argument("--positions", type=positive, help="longest prompt in tokens, instead of the shape's")
    parser.add_argument("--dtype", choices=BYTES_OF_DTYPE, default="F32")
    parser.add_argument("--format", choices=FORMATS, default="safetensors")
    parser.add_argument("--shards", type=positive, default=1, help="number of weight files (default: 1)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tokenizer", type=pathlib.Path, help="folder whose tokeniser is copied")
    arguments = parser.parse_args()

    if SHAPES[arguments.shape]["model_type"] != "gpt2" and (arguments.width or arguments.heads):
        parser.error(f"--width and --heads are for the shapes of GPT-2, and --shape is {arguments.shape}")
    if arguments.seed < 0:
        parser.error("--seed: expected 0 or more")
    if arguments.tokenizer and not any((arguments.tokenizer / name).is_file() for name in TOKENIZER_FILES):
        parser.error(f"--tokenizer: {arguments.tokenizer} has none of {', '.join(TOKENIZER_FILES)}")
    if arguments.tokenizer and (arguments.tokenizer / "vocab.json").is_file():
        if not (arguments.tokenizer / "merges.txt").is_file():
            parser.error(f"--tokenizer: {arguments.tokenizer / 'merges.txt'}: no such file")
    arguments.vocabulary = read_vocabulary(arguments.tokenizer)
    arguments.config = config_of(arguments)
    arguments.tensors = tensors_of(arguments.config)
    width, heads, vocab = (arguments.config[field_of(arguments.config, size)] for size in ("width", "heads", "vocab"))
    if SHAPES[arguments.shape]["model_type"] == "gpt2" and width % heads != 0:
        parser.error(f"--heads {heads} does not divide the width {width}")
    if arguments.shards > len(arguments.tensors):
        parser.error(f"--shards {arguments.shards}: the model has {len(arguments.tensors)} tensors")
    needed = max(arguments.vocabulary.values()) + 1 if arguments.vocabulary else 0
    if needed > vocab:
        parser.error(f"--vocab {vocab}: the tokeniser has {needed} tokens")
    return arguments


def main():
    arguments = parse_arguments()
    folder, tensors = arguments.folder, arguments.tensors
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(arguments.config, indent=2) + "\n")
    write_tokenizer(folder, arguments.tokenizer)
    size = write_weights(folder, tensors, arguments.format, arguments.dtype, arguments.shards, arguments.seed)
    print(f"{folder}: {len(tensors)} tensors, {size / 1e6:.1f} MB of {arguments.dtype}", file=sys.stderr)


if __name__ == "__main__":
    main()
