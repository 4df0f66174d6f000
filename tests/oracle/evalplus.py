"""evalplus's verdicts on mutated reference solutions, and its sanitizer's results on texts that contain them.

    python3 -m venv venv && venv/bin/pip install evalplus==0.3.1
    venv/bin/python tests/oracle/evalplus.py DATA/humanevalplus-inputs.jsonl.gz verdicts.jsonl
    RFT_DATA_DIR=DATA RFT_EVALPLUS_VERDICTS=verdicts.jsonl cargo test --release -- --nocapture evalplus

Each line: task_id, kind of mutation, solution, base and plus (pass, fail or timeout), and for some of them a text and
evalplus's result for it. The programs are generated from the data, so they are not part of the repository.
"""

import ast
import copy
import gzip
import json
import random
import sys
from multiprocessing.pool import ThreadPool

sys.path.pop(0)  # this file has the same name as the package

from evalplus.eval import untrusted_check
from evalplus.gen.util import trusted_exec
from evalplus.sanitize import sanitize

MUTANTS = 3
COMPARE = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq}
OPERATE = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.FloorDiv: ast.Div, ast.Div: ast.FloorDiv}


def sites(tree):
    """All possible single changes: (kind, function that applies it to a tree)."""
    found = []
    for index, node in enumerate(ast.walk(tree)):

        def at(kind, change, index=index):
            found.append((kind, lambda tree: change(list(ast.walk(tree))[index])))

        if isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARE:
            at("comparison", lambda it: it.ops.__setitem__(0, COMPARE[type(it.ops[0])]()))
        if isinstance(node, ast.BinOp) and type(node.op) in OPERATE:
            at("operator", lambda it: setattr(it, "op", OPERATE[type(it.op)]()))
        if isinstance(node, ast.Constant) and type(node.value) in (int, float):
            at("constant", lambda it: setattr(it, "value", it.value + 1))
            at("float constant", lambda it: setattr(it, "value", float(it.value)))
        if isinstance(node, ast.If):
            at("condition", lambda it: setattr(it, "test", ast.UnaryOp(ast.Not(), it.test)))
        if isinstance(node, ast.BoolOp):
            at("logic", lambda it: setattr(it, "op", ast.Or() if isinstance(it.op, ast.And) else ast.And()))
        if isinstance(node, ast.Return) and node.value is not None:
            for kind, template in {
                "returns a tuple": "tuple(x) if isinstance(x, list) else x",
                "returns a list": "list(x) if isinstance(x, tuple) else [x]",
                "returns an iterator": "iter(x) if isinstance(x, (list, str)) else x",
                "returns another number": "x + 1e-7 if isinstance(x, (int, float)) else x",
                "returns a float": "float(x) if isinstance(x, int) else x",
                "returns one that equals all": "type('E', (), {'__eq__': lambda s, o: True})()",
                "returns a subclass": "type('S', (type(x),), {})(x) if isinstance(x, (int, str, list)) else x",
                "raises": "1 // 0",
                "ends": "__import__('sys').exit(0)",
            }.items():

                def wrap(it, template=template):
                    body = ast.parse(f"(lambda x: {template})(0)", mode="eval").body
                    body.args = [it.value]
                    it.value = body

                at(kind, wrap)
    return found


def mutants(task, draw):
    source = task["prompt"] + task["canonical_solution"]
    yield "unchanged", source
    tree = ast.parse(source)
    kinds = {}
    for kind, change in sites(tree):
        kinds.setdefault(kind, []).append(change)
    for kind in draw.sample(sorted(kinds), min(MUTANTS, len(kinds))):
        changed = copy.deepcopy(tree)
        draw.choice(kinds[kind])(changed)
        yield kind, ast.unparse(ast.fix_missing_locations(changed))


def text_around(task, solution, draw):
    """Text that a chat model might write around a program."""
    name = task["entry_point"]
    helper = "\n\ndef unused(x):\n    return x\n\ndef no_return(x):\n    print(x)\n\nLIMIT = 3\n"
    return draw.choice(
        [
            f"Here is the solution:\n```python\n{solution}\n```\nIt works because it does.",
            f"{solution}\n\nprint({name}(1))\nassert {name}(1) == 2\n",
            f"{helper}{solution}\nif __name__ == '__main__':\n    {name}()\n",
            f"Sure! First we think.\n\n{solution}\n\nThis is the end, isn't it?",
            f"@decorated\ndef first(x):\n    return x\n{solution}\n{name}.x = 1\na, b = 1, 2\n",
            f"    {solution}",
            "I cannot do that.",
        ]
    )


def main(data, out):
    tasks = [json.loads(line) for line in gzip.open(data)]
    draw = random.Random(1)

    def grade(job):
        task, expected, kind, solution = job
        row = {"task_id": task["task_id"], "kind": kind, "solution": solution}
        for part in ("base", "plus"):
            outputs, times = expected[part]
            row[part] = untrusted_check(
                "humaneval", solution, task[part + "_input"], task["entry_point"], outputs, task["atol"], times,
                fast_check=True, min_time_limit=4.0,
            )[0]
        return row

    jobs = []
    for task in tasks:
        source = task["prompt"] + task["canonical_solution"]
        expected = {
            part: trusted_exec(source, task[part + "_input"], task["entry_point"], record_time=True)
            for part in ("base", "plus")
        }
        jobs += [(task, expected, kind, solution) for kind, solution in mutants(task, draw)]
    rows = ThreadPool(4).map(grade, jobs, chunksize=1)
    with open(out, "w") as file:
        for number, (row, job) in enumerate(zip(rows, jobs)):
            if number % 3 == 0:
                row["text"] = text_around(job[0], row["solution"], draw)
                row["sanitized"] = sanitize(row["text"], job[0]["entry_point"])
            file.write(json.dumps(row) + "\n")
    print(len(rows), "programs,", sum(row["plus"] == "pass" for row in rows), "pass")


main(*sys.argv[1:])
