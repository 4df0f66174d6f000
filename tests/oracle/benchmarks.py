"""Grades tests/fixtures/benchmarks with the graders of the benchmarks' maintainers, and prints every verdict that is not expected.

    git clone https://github.com/eth-sri/matharena clones/matharena                       # e927660, 2026-05-15
    git clone https://github.com/Kaffaljidhmah2/MATH-Perturb clones/MATH-Perturb          # df4840f, 2025-05-31
    git clone https://github.com/meituan-longcat/AMO-Bench clones/AMO-Bench               # 52e1f37, 2026-02-06
    git clone https://github.com/RUCAIBox/OlymMATH clones/OlymMATH                        # 94e19ff, 2025-06-01
    pip install math-verify==0.9.0 loguru lark regex numpy antlr4-python3-runtime==4.13.2 timeout-function-decorator openai
    python tests/oracle/benchmarks.py clones

BeyondAIME has no grader of its own: its answers are integers, and MathArena's grader is used. For GSM-Symbolic it is the
extraction in its README: the last number, as a float.
"""

import contextlib
import importlib.util
import io
import json
import re
import sys
import types
from pathlib import Path

CLONES = Path(sys.argv[1])
FIXTURES = Path(__file__).parent.parent / "fixtures" / "benchmarks"
sys.path.pop(0)  # this folder contains another math_verify
sys.path.insert(0, str(CLONES / "MATH-Perturb"))

import evaluate  # noqa: E402
from loguru import logger  # noqa: E402
from math_verify import parse, verify  # noqa: E402

logger.remove()


def load(name: str, path: Path) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


# The package itself imports much that is not needed here.
package = types.ModuleType("matharena")
package.__path__ = [str(CLONES / "matharena" / "src" / "matharena")]
sys.modules["matharena"] = package
PARSER = load("matharena.parser", CLONES / "matharena" / "src" / "matharena" / "parser.py")
AMO = load("amo_bench_utils", CLONES / "AMO-Bench" / "utils.py")


def matharena(row: dict, answer: str) -> bool:
    gold = str(row["answer"])
    is_list = "," in gold
    found, _ = PARSER.extract_answer(boxed(answer), strict_parsing=False, parse=True, list_answer=is_list)
    expected, _ = PARSER.parse_answer(gold, list_answer=is_list)
    return bool(PARSER.check_answers(found, expected))


def math_perturb(row: dict, answer: str) -> bool:
    with contextlib.redirect_stdout(io.StringIO()):
        return bool(evaluate.answer_check(row["problem"], boxed(answer), row["answer"], "perturb"))


def gsm_symbolic(row: dict, answer: str) -> bool:
    numbers = re.findall(r"-?\d+\.?\d*", boxed(answer).replace(",", ""))
    return float(numbers[-1]) == float(row["answer"].rsplit("####")[-1])


def amo_bench(row: dict, answer: str) -> bool:
    info = dict(row, try_list=[f"n={n}" for n in range(1, 21)])
    found = AMO.pred_extractor(f"### The final answer is: $\\boxed{{{answer}}}$", row["answer_type"])
    if row["answer_type"] == "variable":
        return bool(AMO.verify_variable_answer(found, info))
    return bool(AMO.verify_number_set_answer(found, info))


def olymmath(row: dict, answer: str) -> bool:
    return bool(verify(parse(f"${row['answer']}$"), parse(f"${answer}$")))


def boxed(answer: str) -> str:
    return f"So \\boxed{{{answer}}}."


GRADERS = {"math-perturb": math_perturb, "gsm-symbolic": gsm_symbolic, "amo-bench": amo_bench, "olymmath": olymmath}

checked = differ = 0
for line in (FIXTURES / "answers.tsv").read_text().splitlines():
    if line.startswith("#"):
        continue
    name, number, right, wrong = line.split("\t")
    row = json.loads((FIXTURES / f"{name}.jsonl").read_text().splitlines()[int(number)])
    grade = next((grader for start, grader in GRADERS.items() if name.startswith(start)), matharena)
    for answer, expected in ((right, True), (wrong, False)):
        checked += 1
        if grade(row, answer) != expected:
            differ += 1
            print(f"{name}, row {number}: {answer} for {row['answer']}: expected {expected}")
print(f"{checked} verdicts, {differ} not as expected")
