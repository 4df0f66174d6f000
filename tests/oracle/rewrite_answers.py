"""The gold answers of MATH-500, each with another way to write it, for `benches/reward.rs` and `math_verify_speed.py`.

    python tests/oracle/rewrite_answers.py math500.jsonl > tests/fixtures/rewritten.tsv

A row is a gold answer and an equivalent one. Rows take turns with the rewritings that apply.
"""

import json
import re
import sys
from fractions import Fraction

SIMPLE_FRACTION = re.compile(r"\\frac\{(-?\d+)\}\{(\d+)\}")


def decimal(gold):
    found = SIMPLE_FRACTION.fullmatch(gold)
    if not found:
        return None
    value = Fraction(int(found[1]), int(found[2]))
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return f"{float(value)}" if rest == 1 and value.denominator < 1_000 else None


def reordered(gold):
    # The order of a list without brackets does not matter.
    if re.search(r"[(\[{]", gold) or gold.count(",") != 1 or re.search(r"\d,(\\!\s*)?\d{3}", gold):
        return None
    first, second = gold.split(",")
    return f"{second.strip()}, {first.strip()}"


def under_the_root(gold):
    found = re.fullmatch(r"(\d+)\s*\\sqrt\{(\d+)\}", gold)
    return f"\\sqrt{{{int(found[1]) ** 2 * int(found[2])}}}" if found else None


def backwards(gold):
    """The terms of a polynomial in reverse order."""
    if not re.fullmatch(r"-?[\w^]+(\s*[+-]\s*[\w^]+)+", gold) or "_" in gold:
        return None
    terms = re.findall(r"[+-]?[\w^]+", gold.replace(" ", ""))
    return "".join(it if it[0] in "+-" else f"+{it}" for it in reversed(terms)).removeprefix("+")


def changed(pattern, to):
    return lambda gold: re.sub(pattern, to, gold) if re.search(pattern, gold) else None


def number(form):
    return lambda gold: form(gold) if re.fullmatch(r"-?\d+", gold) else None


def formula(form):
    return lambda gold: form(gold) if not re.search(r"[a-zA-Z]{3}", gold.replace("\\", "\\ ")) and "=" not in gold else None


REWRITINGS = [
    changed(r"\\frac", r"\\dfrac"),
    changed(r"\\frac", r"\\tfrac"),
    lambda gold: SIMPLE_FRACTION.sub(r"\1/\2", gold) if SIMPLE_FRACTION.fullmatch(gold) else None,
    changed(r"\\left|\\right", ""),
    changed(r"\s*([+=]|,(?!\\!|\d{3}))\s*", r" \1 "),
    changed(r"(?<=[\d\w}])-", " - "),
    changed(r"\\sqrt\{(\d)\}", r"\\sqrt\1"),
    changed(r"\^\{(\w)\}", r"^\1"),
    changed(r"\^(\w)", r"^{\1}"),
    changed(r"\\!\s*", ""),
    changed(r"\^\\circ", r"^{\\circ}"),
    changed(r"\\text\{([^{}]*)\}", r"\\mathrm{\1}"),
    changed(r"^\(([^()]*)\)$", r"\\left(\1\\right)"),
    decimal,
    under_the_root,
    backwards,
    reordered,
    number(lambda gold: f"{gold}.0"),
    number(lambda gold: f"x={gold}"),
    number(lambda gold: f"{int(gold):,}" if len(gold) > 3 else None),
    number(lambda gold: f"\\frac{{{2 * int(gold)}}}{{2}}"),
    number(lambda gold: f"{int(gold) - 3} + 3" if int(gold) > 3 else None),
    formula(lambda gold: f"${gold}$"),
    formula(lambda gold: f"\\left({gold}\\right)" if "," not in gold else None),
]


def rewrite(gold, turn):
    found = [it for it in (rewriting(gold) for rewriting in REWRITINGS) if it and it != gold]
    return found[turn % len(found)] if found else f"${gold}$"


def main():
    print("# Made by tests/oracle/rewrite_answers.py: a gold answer of MATH-500, and another way to write it.")
    with open(sys.argv[1], encoding="utf-8") as file:
        for turn, line in enumerate(file):
            gold = json.loads(line)["answer"]
            print(f"{gold}\t{rewrite(gold, turn)}")


main()
