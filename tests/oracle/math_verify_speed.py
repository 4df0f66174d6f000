"""Measures math-verify's time on the pairs of `tests/fixtures/rewritten.tsv`, and how many of them it accepts.

    pip install math-verify[antlr4_13_2]==0.9.0
    python tests/oracle/math_verify_speed.py

Each answer and its gold answer are parsed and compared, as `rft::math::check` does. The median over pairs uses the fastest
of three rounds of each pair, so that sympy's caches are warm. Prints one line of JSON.
`benches/reward.rs` measures ours; run both on the same machine, one after the other.
"""

import json
import statistics
import sys
import time
from pathlib import Path

# This folder contains another `math_verify.py`.
sys.path.pop(0)
from math_verify import parse, verify  # noqa: E402

ROUNDS = 3


def main():
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent.parent / "fixtures" / "rewritten.tsv"
    lines = path.read_text(encoding="utf-8").splitlines()
    pairs = [line.split("\t") for line in lines if not line.startswith("#")]
    times, accepted = [float("inf")] * len(pairs), 0
    # All pairs in every round: math-verify caches its last 20 parses, which does not help in a real check.
    for _ in range(ROUNDS):
        accepted = 0
        for index, (gold, answer) in enumerate(pairs):
            start = time.perf_counter()
            accepted += verify(parse(f"${gold}$"), parse(f"\\boxed{{{answer}}}"))
            times[index] = min(times[index], time.perf_counter() - start)
    report = {
        "pairs": len(pairs),
        "accepted": accepted,
        "median_us": round(statistics.median(times) * 1e6, 1),
        "mean_us": round(statistics.mean(times) * 1e6, 1),
    }
    print(json.dumps(report))


main()
