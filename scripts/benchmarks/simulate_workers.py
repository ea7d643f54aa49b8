#!/usr/bin/env python3
"""How well a sweep's pieces keep many workers busy: counted over the real plans, on no machine.

    scripts/benchmarks/simulate_workers.py
    scripts/benchmarks/simulate_workers.py --workers 8,64 --tokens 6 --draws 10

For a trace of states, and of states, MLP and attention, of a prompt of T tokens whose first two are the subject, it
makes the list of segments that each layer carries (the corrupted runs, and each restored run from its admission on, as
src/trace/sweep_plan.cpp plans them), cuts them into blocks by the rule of src/trace/pass_schedule.cpp, and hands the
blocks to workers in order, each to the one that is free first. A layer lasts as long as its last worker; the head's
rows are shared likewise. Efficiency is the work over workers x time.

Assumptions: a row costs the same everywhere, whatever the size of its block; a worker runs at the same rate however
many there are (memory and caches are not shared out); meetings cost nothing; what is done between layers (admissions,
keys and values of prefixes) is not counted. So the figures are bounds from above.

Results go to stdout as Markdown. Exit status: 0.
"""

from __future__ import annotations

import argparse
import heapq
import sys
from dataclasses import dataclass
from typing import Sequence

SHAPES = {"gpt2": (12, 50257), "gpt2-xl": (48, 50257), "7B": (32, 32000)}
"""Layers and vocabulary."""
KINDS = {"states": ("state",), "states, MLP, attention": ("state", "mlp", "attn")}
SUBJECT = 0, 2
WINDOW = 10
LARGEST, LEAST = 1024, 64
"""Rows of a block."""
BLOCKS_EACH, WORTH_SEVERAL = 2, 128
"""How many blocks a worker has where these have so many rows."""


@dataclass(frozen=True)
class Segment:
    length: int
    """Positions of each draw."""
    begins: int
    """The first layer that it is carried through."""

    def rows(self, draws: int) -> int:
        return draws * self.length


def window_of(layer: int, layers: int) -> tuple[int, int]:
    return max(0, layer - WINDOW // 2), min(layers, layer + WINDOW - WINDOW // 2)


def segments_of(kinds: Sequence[str], tokens: int, layers: int) -> list[Segment]:
    """The base run's, then those of patches in the order of their admission."""
    begin = SUBJECT[0]
    segments = []
    for kind in kinds:
        for position in range(begin, tokens):
            first = position + 1 if kind == "state" and position == begin and begin < tokens - 1 else position
            histories = set()
            for layer in range(layers):
                window = (layer, layer + 1) if kind == "state" else window_of(layer, layers)
                if window in histories or (window[0] == layers - 1 and position < tokens - 1):
                    continue  # one run for windows that are cut alike; the last layer's are as the base run
                longest = not any(other[0] == window[0] and other[1] > window[1] for other in all_windows(kind, layers))
                histories.add(window)
                segments.append(Segment(tokens - first, window[0] + 1 if longest else window[1]))
    return [Segment(tokens - begin, 0), *sorted(segments, key=lambda segment: segment.begins)]


def all_windows(kind: str, layers: int) -> list[tuple[int, int]]:
    if kind == "state":
        return []
    return [window_of(layer, layers) for layer in range(layers)]


def count_of_blocks(rows: int, workers: int) -> int:
    """Of the patched runs' rows."""
    if workers == 1:
        return max(1, -(-rows // LARGEST))
    each = BLOCKS_EACH if rows >= BLOCKS_EACH * workers * WORTH_SEVERAL else 1
    each = max(each, -(-rows // (workers * LARGEST)))
    return max(1, min(workers * each, rows // LEAST))


def blocks_of(segments: Sequence[Segment], draws: int, workers: int) -> list[int]:
    """The rows of each block: the base run's are alone, those of patched runs are cut evenly between segments."""
    base, patched = segments[0], segments[1:]
    total = sum(segment.rows(draws) for segment in patched)
    each = total / count_of_blocks(total, workers)
    together = min(draws, max(1, int(max(each, LEAST)) // base.length))
    blocks = [min(together, draws - first) * base.length for first in range(0, draws, together)]
    before, last = 0, -1
    for segment in patched:
        rows = segment.rows(draws)
        index = int((before + rows / 2) / each)
        if index == last:
            blocks[-1] += rows
        else:
            blocks.append(rows)
        before, last = before + rows, index
    return blocks


def makespan(pieces: Sequence[int], workers: int) -> int:
    free = [0] * workers
    for piece in pieces:
        heapq.heapreplace(free, free[0] + piece)
    return max(free)


def efficiency(shape: str, kinds: Sequence[str], tokens: int, draws: int, workers: int) -> float:
    layers, _ = SHAPES[shape]
    segments = segments_of(kinds, tokens, layers)
    work = time = 0
    for layer in range(layers):
        blocks = blocks_of([segment for segment in segments if segment.begins <= layer], draws, workers)
        work += sum(blocks)
        time += makespan(blocks, workers)
    return work / (workers * time)


def numbers(text: str) -> list[int]:
    values = [int(part) for part in text.split(",")]
    if min(values) < 1:
        raise argparse.ArgumentTypeError("expected numbers from 1 on")
    return values


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=numbers, default=[2, 8, 32, 128])
    parser.add_argument("--tokens", type=numbers, default=[5, 10, 20], help="T, at least 3")
    parser.add_argument("--draws", type=int, default=10)
    arguments = parser.parse_args()
    print("| shape | kinds | T | " + " | ".join(f"{count} workers" for count in arguments.workers) + " |")
    print("|---" * (3 + len(arguments.workers)) + "|")
    for shape in SHAPES:
        for name, kinds in KINDS.items():
            for tokens in arguments.tokens:
                found = (
                    f"{efficiency(shape, kinds, tokens, arguments.draws, count):.0%}" for count in arguments.workers
                )
                print(f"| {shape} | {name} | {tokens} | " + " | ".join(found) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
