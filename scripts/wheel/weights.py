"""Prints what a wheel's parts weigh, as a table in Markdown: scripts/wheel/weights.py dist/rometrace-*.whl"""

from __future__ import annotations

import re
import sys
import zipfile
from collections import Counter
from pathlib import Path


def part_of(name: str) -> str:
    """The part that a file of the wheel belongs to."""
    parts = name.split("/")
    if parts[0].endswith(".libs"):
        return re.sub(r"-[0-9a-f]{8}(?=\.)", "", parts[-1])  # auditwheel's hash
    if parts[:2] == ["rometrace", "share"]:
        return "the demo model" if "demo" in parts else "facts and schemas"
    if parts[:2] == ["rometrace", "bin"]:
        return "the program, with libcurl"
    if parts[:2] == ["rometrace", "licences"] or parts[0].endswith(".dist-info"):
        return "licences and metadata"
    return "scripts in Python"


def main() -> int:
    wheel = Path(sys.argv[1])
    packed: Counter[str] = Counter()
    unpacked: Counter[str] = Counter()
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            if entry.is_dir():
                continue
            packed[part_of(entry.filename)] += entry.compress_size
            unpacked[part_of(entry.filename)] += entry.file_size
    print("| part | MB in the wheel | MB installed |", "|---|---|---|", sep="\n")
    for part, size in packed.most_common():
        print(f"| {part} | {size / 1e6:.2f} | {unpacked[part] / 1e6:.2f} |")
    print(f"| all of {wheel.name} | {wheel.stat().st_size / 1e6:.2f} | {sum(unpacked.values()) / 1e6:.2f} |")
    return 0


sys.exit(main())
