"""math-verify's verdicts on our table of answers, and their differences from ours.

    venv/bin/python tests/oracle/math_verify.py [--jsonl FILE] [--verdicts FILE] [--list] [TABLE]

The default table is tests/fixtures/answers.tsv. A JSONL file has `gold` and `answer`, and `verdict` if it is known. Each
side is put in a box and parsed with math-verify's defaults, gold first. A check runs in a separate process that is killed
after `--limit` seconds, because math-verify's own time limit cannot stop a large power; a killed check counts as
rejected.
"""

import argparse
import collections
import json
import logging
import multiprocessing
import os
import pathlib
import sys
import time

TABLE = pathlib.Path(__file__).parents[1] / "fixtures" / "answers.tsv"


def read_table(path):
    """Rows of gold, answer, verdict, category and the reason for a different verdict."""
    category = ""
    for line in path.read_text(encoding="utf-8").splitlines()[1:]:
        if line.startswith("# "):
            category = line[2:]
            continue
        gold, answer, verdict, *reason = line.split("\t")
        yield gold, answer, verdict, category, (reason or [""])[0]


def read_jsonl(path):
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        yield row["gold"], row["answer"], row.get("verdict", ""), row.get("category", ""), ""


def judge(pipe):
    """Answers (gold, answer) with `accept`, `reject` or `unread gold`, until the pipe closes."""
    logging.disable(logging.CRITICAL)
    # The package has the same name as this script, whose folder would be searched first.
    here = pathlib.Path(__file__).resolve().parent
    sys.path[:] = [path for path in sys.path if pathlib.Path(path or ".").resolve() != here]
    from math_verify import parse, verify

    while True:
        try:
            gold, answer = pipe.recv()
        except EOFError:
            return
        start = time.perf_counter()
        try:
            parsed = parse(f"\\boxed{{{gold}}}")
            if parsed:
                outcome = "accept" if verify(parsed, parse(f"\\boxed{{{answer}}}")) else "reject"
            else:
                outcome = "unread gold"
        except Exception as error:  # If the grader raises an exception, the answer is not accepted.
            outcome = f"error {type(error).__name__}"
        pipe.send((outcome, time.perf_counter() - start))


class Judge:
    """A process that checks answers, replaced when it hangs."""

    def __init__(self, limit):
        self.limit = limit
        self.start()

    def start(self):
        self.pipe, far = multiprocessing.Pipe()
        self.process = multiprocessing.Process(target=judge, args=(far,), daemon=True)
        self.process.start()
        far.close()

    def __call__(self, gold, answer):
        self.pipe.send((gold, answer))
        try:
            if self.pipe.poll(self.limit):
                return self.pipe.recv()
            outcome = "hang"
        except (EOFError, ConnectionResetError):
            outcome = "crash"
        self.process.kill()
        self.process.join()
        self.start()
        return outcome, self.limit


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", nargs="?", type=pathlib.Path, default=TABLE)
    parser.add_argument("--jsonl", type=pathlib.Path, help="read rows of gold and answer from this file instead of the table")
    parser.add_argument("--verdicts", type=pathlib.Path, help="write gold, answer and math-verify's outcome here")
    parser.add_argument("--limit", type=float, default=20, help="maximum seconds per check (default 20)")
    parser.add_argument("--list", action="store_true", help="list every row on which the two differ")
    options = parser.parse_args()

    rows = list(read_jsonl(options.jsonl) if options.jsonl else read_table(options.table))
    ask, outcomes, times = Judge(options.limit), [], []
    ask("1", "1")  # The first check includes the imports.
    for gold, answer, *_ in rows:
        outcome, seconds = ask(gold, answer)
        outcomes.append(outcome)
        times.append(seconds)

    if options.verdicts:
        lines = (f"{row[0]}\t{row[1]}\t{outcome}\n" for row, outcome in zip(rows, outcomes))
        options.verdicts.write_text("".join(lines), encoding="utf-8")

    # correct, wrong and undecided are our verdicts; accepted is math-verify's.
    tally = collections.defaultdict(collections.Counter)
    for (gold, answer, verdict, category, reason), outcome in zip(rows, outcomes):
        accepted = outcome == "accept"
        kind = {
            ("correct", True): "right",
            ("wrong", False): "right",
            ("undecided", False): "right",
            ("correct", False): "false rejects",
            ("wrong", True): "false accepts",
            ("undecided", True): "accepted though undecided",
        }.get((verdict, accepted), outcome)
        for name in (category, "all"):
            tally[name][kind] += 1
            tally[name]["rows"] += 1
        if options.list and kind != "right":
            print(f"{kind}\t{outcome}\t{gold}\t{answer}\t{reason}")

    kinds = ["rows", "right", "false accepts", "false rejects", "accepted though undecided"]
    print("\t".join(["category", *kinds]))
    for name, count in tally.items():
        if name != "all":
            print("\t".join([name, *(str(count[kind]) for kind in kinds)]))
    print("\t".join(["all", *(str(tally["all"][kind]) for kind in kinds)]))
    others = {kind: n for kind, n in collections.Counter(outcomes).items() if kind not in ("accept", "reject")}
    times.sort()
    print(f"other outcomes {others}; median {times[len(times) // 2] * 1e3:.1f} ms, maximum {times[-1]:.1f} s per check")


if __name__ == "__main__":
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    multiprocessing.set_start_method("spawn")
    main()
