"""Fuzz every reader for hours if need be: `fuzz_readers.py [MUTATIONS] [SEED]`, 20,000 mutations by default.

Each mutation of a packed or real file must end in scans that keep the invariant, or in `InputError`. Prints how many
were read, how many refused, the slowest and the largest memory; exits with 1 and the file's bytes on anything else.
"""

from __future__ import annotations

import collections
import resource
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from reader_mutations import check, corpus, mutated, outcome
from xrdz.errors import InputError


def main() -> int:
    total = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    warnings.simplefilter("error")
    files = corpus()
    names = list(files)
    counts: collections.Counter[str] = collections.Counter()
    slowest, slowest_name = 0.0, ""
    begun = time.monotonic()
    for number in range(total):
        generator = np.random.default_rng([seed, number])
        name = names[number % len(names)]
        data = mutated(files[name], generator)
        start = time.process_time()
        try:
            result = outcome(name, data)
            if isinstance(result, InputError):
                assert name in str(result), f"the message does not name the file: {result}"
            else:
                check(result)
        except BaseException:  # noqa: BLE001 - whatever it is, it is what is looked for
            broken = Path(tempfile.gettempdir()) / f"fuzz-failure-{seed}-{number}-{Path(name).name}"
            broken.write_bytes(data)
            sys.stdout.write(f"mutation {number} of {name}, kept as {broken}\n{traceback.format_exc()}\n")
            counts["FAILED"] += 1
            if counts["FAILED"] >= 20:
                break
            continue
        spent = time.process_time() - start
        if spent > slowest:
            slowest, slowest_name = spent, f"{name} mutation {number}"
        flagged = not isinstance(result, InputError) and any(scan.findings for scan in result)
        counts["refused" if isinstance(result, InputError) else "read with findings" if flagged else "read"] += 1
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sys.stdout.write(
        f"{sum(counts.values())} mutations of {len(files)} files, seed {seed}, {time.monotonic() - begun:.0f} s: "
        f"{dict(counts)}; slowest {slowest:.2f} s ({slowest_name}); largest memory {memory:.0f} MB\n"
    )
    return 1 if counts["FAILED"] else 0


if __name__ == "__main__":
    sys.exit(main())
