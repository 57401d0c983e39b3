"""Random calls with paths in great numbers: `make path-calls CALLS=1000000 MODE=traced`.

The calls of fresh seeds are compared with those in a root directory of chroot(2), see test_path_calls.py. `stops` is
mode `traced` where the kernel hands no calls over. In both, a fifth as many calls are made while another process swaps
names with links that lead out of the tree, and must reach nothing there. Prints what was done so far, and the fewest
calls of each seed that differs; the exit status is 1 if something was found.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from builda.isolation import begun
from tests.support.pathcalls import (
    NO_NOTIFICATIONS,
    child_without,
    compiled,
    first_difference,
    in_chroot,
    in_single,
    in_traced,
    made_before,
    outside_of_trees,
    reproduction,
    runs,
    state,
)
from tests.unit.isolation.conftest import boxes

_SEEDS = 20
"""Seeds of a batch, which has a root directory of its own."""
_OF_SEED = 1000
_RACES = 4
"""Seeds of a batch whose calls are made once more while links are swapped."""


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m tests.fuzz.many_path_calls")
    options.add_argument("--mode", choices=("traced", "stops", "single"), default="traced")
    options.add_argument("--calls", type=int, default=100_000, help="how many calls are compared")
    options.add_argument("--first", type=int, help="the first seed; by chance without it")
    options.add_argument("--jobs", type=int, default=os.cpu_count(), help="batches at a time")
    given = options.parse_args()
    first = random.randrange(10**6, 10**8) if given.first is None else given.first
    began, found = time.monotonic(), 0
    firsts = range(first, first + -(-given.calls // _OF_SEED), _SEEDS)
    with tempfile.TemporaryDirectory() as directory, ProcessPoolExecutor(given.jobs) as pool:
        program = compiled("pathcalls", Path(directory))
        print(f"mode {given.mode}, seeds {first} to {firsts[-1] + _SEEDS - 1}, {_OF_SEED} calls of each", flush=True)
        for done, reports in enumerate(pool.map(partial(_batch, given.mode, program), firsts), 1):
            found += len(reports)
            print(*reports, sep="\n", end="\n" * bool(reports))
            races = f", {done * _RACES * _OF_SEED} with swapped links" if given.mode != "single" else ""
            seconds = time.monotonic() - began
            print(f"{done * _SEEDS * _OF_SEED} calls compared{races}, {found} found, {seconds:.0f} s", flush=True)
    return int(found > 0)


def _batch(mode: str, program: Path, first: int) -> list[str]:
    """What differs or reaches something outside, of the seeds from the first one on."""
    with tempfile.TemporaryDirectory() as directory, boxes(Path(directory)) as new_box:
        place = Path(directory)
        if mode == "stops":
            begun._CHILD = child_without(NO_NOTIFICATIONS, place)

        def both(words: list[str]) -> tuple[str, str]:
            found = in_single(program, place, *words) if mode == "single" else in_traced(program, new_box, *words)
            return in_chroot(program, place / "chroot", *words), found

        reports = []
        seeds = [f"{'o' if mode == 'single' else ''}{seed}" for seed in range(first, first + _SEEDS)]
        expected, got = (runs(output) for output in both([f"{seed}:{_OF_SEED}" for seed in seeds]))
        for seed, *pair in zip(seeds, expected, got, strict=True):
            at = first_difference(*pair)
            if at is not None:
                reports.append(reproduction(both, seed, made_before(pair[0], at)))
        if mode != "single":
            outside = outside_of_trees(place)
            before = state(outside)
            words = ("race", str(first + _SEEDS), str(_RACES), str(_OF_SEED), str(outside))
            output = "".join(filter(_is_finding, in_traced(program, new_box, *words).splitlines(keepends=True)))
            if output or state(outside) != before:
                reports.append(f"pathcalls {' '.join(words)}\n{output}")
        return reports


def _is_finding(line: str) -> bool:
    """Whether a line that a race prints is one of the program's: it may damage its own file, and builda names that."""
    return not line.startswith("builda: a program for another architecture")


if __name__ == "__main__":
    raise SystemExit(main())
