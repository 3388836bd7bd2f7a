"""Trace every packaged program of the memory-mapping family and write it to ``envs/memmap/data``.

Usage:
    python experiments/data/build_memmap_programs.py [--out FOLDER] [NAME ...]

Without names, all programs are written. The same version of torch gives the same bytes.
"""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path

from schedrl.atomic import replacing
from schedrl.envs.memmap.programs import PROGRAMS, build_program

DATA = Path(__file__).resolve().parents[2] / "envs" / "memmap" / "data"


def main() -> None:
    """Trace and write the programs asked for, and report their sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="such as resnet50-train")
    parser.add_argument("--out", type=Path, default=DATA)
    options = parser.parse_args()
    for name in options.names or PROGRAMS:
        if name not in PROGRAMS:
            parser.error(f"unknown program {name!r}; choose from {', '.join(PROGRAMS)}")
        program = build_program(PROGRAMS[name])
        text = json.dumps(program, separators=(",", ":"))
        with replacing(options.out / f"{name}.mmap.json.gz") as path:
            path.write_bytes(gzip.compress(text.encode(), mtime=0))
        print(f"{name}: {len(program['ops'])} operations, {len(program['buffers'])} buffers")


if __name__ == "__main__":
    main()
