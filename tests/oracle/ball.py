"""Elementary functions at 100 and 1,300 digits, for the tests of `src/math/ball`.

    python tests/oracle/ball.py > tests/fixtures/balls.tsv

Needs mpmath. A row is a function with its index or exponent, the exact argument, and the value rounded to that many digits.
"""

import random
from fractions import Fraction

import mpmath
from mpmath import mp

SHORT, LONG = 100, 1_300


def value(function, argument, digits):
    # Enough for the cancellation in the sine of a large argument and in the logarithm of an argument close to 1.
    mp.dps = digits + 350
    x = mp.mpf(argument.numerator) / argument.denominator
    name, *index = function.split()
    if name == "nth_root":
        n = int(index[0])
        found = mp.sign(x) * mp.root(abs(x), n)
    elif name == "pow_int":
        found = mp.power(x, int(index[0]))
    elif name in ("pi", "e"):
        found = +getattr(mp, name)
    else:
        found = getattr(mp, name)(x)
    return mpmath.nstr(found, digits, min_fixed=1, max_fixed=0, strip_zeros=False)


def rows():
    draw = random.Random(7)
    any_size = [Fraction(draw.randint(1, 10**k), draw.randint(1, 10**9)) for k in range(1, 19)]
    plain = [Fraction(*it) for it in [(1, 1), (2, 1), (3, 1), (1, 2), (2, 3), (10, 1), (7, 5), (99, 100), (355, 113)]]
    tiny = [Fraction(1, 10**9), Fraction(3, 2**100), Fraction(1, 10**60), Fraction(5, 2**700)]
    close_to_one = [1 + Fraction(1, 2**k) for k in (5, 30, 63, 120)] + [1 - Fraction(3, 2**k) for k in (5, 30, 63, 120)]
    huge = [Fraction(10**12), Fraction(10**11 + 7, 3), Fraction(2**39 + 1, 5)]
    inside = [Fraction(draw.randint(1, 10**9), 10**9) for _ in range(8)]

    def both(some):
        return [sign * it for it in some for sign in (1, -1)]

    yield "pi", [Fraction(0)]
    yield "e", [Fraction(0)]
    yield "exp", both(plain + tiny + any_size[:14])
    yield "ln", plain[1:] + tiny + close_to_one + any_size + [Fraction(10**90), Fraction(1, 7**100)]
    yield "sin", both(plain + tiny + any_size[:20:2] + huge)
    yield "cos", both(plain + tiny + any_size[1:20:2] + huge)
    yield "atan", both(plain + tiny + close_to_one + any_size + huge)
    yield "asin", both(inside + tiny + close_to_one[4:] + plain[:1])
    yield "acos", both(inside + tiny + close_to_one[4:7]) + [Fraction(-1)]
    for n in (2, 3, 4, 5, 6, 7, 11, 12, 30, 97):
        yield f"nth_root {n}", plain[1:] + tiny[:3] + any_size[::3]
    yield "nth_root 3", [-it for it in plain[1:]]
    yield "nth_root 11", [-it for it in plain[1:]]
    for n in (-1, 2, 3, 17, -100, 12_345):
        yield f"pow_int {n}", both(plain[1:] + tiny[:1] + close_to_one[:2] + any_size[::5])


def main():
    print("# Made by tests/oracle/ball.py: function, argument, value.")
    for function, arguments in rows():
        for argument in arguments:
            print(f"{function}\t{argument}\t{value(function, argument, SHORT)}")
    for function in "pi e exp ln sin cos atan asin acos".split() + ["nth_root 2", "nth_root 7", "nth_root 13", "pow_int 99"]:
        argument = Fraction(0) if function in ("pi", "e") else Fraction(5, 7)
        print(f"{function}\t{argument}\t{value(function, argument, LONG)}")


main()
