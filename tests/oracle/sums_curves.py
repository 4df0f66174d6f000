"""Draws the reward curves of TRL's runs and ours, and prints whether ours are inside TRL's prediction intervals.

    python tests/oracle/sums_curves.py tests/fixtures/trl_sums.json RUN_DIRECTORY... --svg docs/img/learning-parity.svg

The interval of a block of ten steps contains one more TRL run with a probability of 95 %: the mean of TRL's seeds, plus or
minus t(n - 1) s sqrt(1 + 1/n), where s is the standard deviation between the seeds.
Only the standard library is needed.
"""

import json
import math
import sys
from pathlib import Path
from statistics import mean, stdev

BLOCK = 10
# Quantile 0.975 of Student's t, by degrees of freedom.
T = {2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
COLORS = {"TRL": "#0072b2", "rft": "#d55e00"}
KEYS = {"reward": "reward", "accuracy": "rewards/accuracy/mean", "format": "rewards/format/mean", "mean_length": "completions/mean_length"}


def our_run(folder: str) -> dict[str, list[float]]:
    rows = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in rows if "reward" in row]
    return {key: [row[name] for row in rows] for key, name in KEYS.items()}


def blocks(series: list[float]) -> list[float]:
    return [mean(series[at : at + BLOCK]) for at in range(0, len(series), BLOCK)]


def prediction(values: list[float]) -> tuple[float, float]:
    n = len(values)
    half = T[n - 1] * stdev(values) * math.sqrt(1 + 1 / n)
    return mean(values) - half, mean(values) + half


def difference(ours: list[float], theirs: list[float]) -> tuple[float, float]:
    """Welch's interval for the difference of two means: the difference and the half width."""
    a, b = stdev(ours) ** 2 / len(ours), stdev(theirs) ** 2 / len(theirs)
    freedom = (a + b) ** 2 / (a**2 / (len(ours) - 1) + b**2 / (len(theirs) - 1))
    return mean(ours) - mean(theirs), T[max(2, int(freedom))] * math.sqrt(a + b)


def report(ours: list[dict], theirs: list[dict]) -> None:
    for key in KEYS:
        print(f"\n| {key}, steps | TRL, {len(theirs)} seeds | prediction interval | rft, {len(ours)} seeds | inside |")
        print("|---|---|---|---|---|")
        their_blocks, our_blocks = ([blocks(run[key]) for run in runs] for runs in (theirs, ours))
        for index, (them, us) in enumerate(zip(zip(*their_blocks), zip(*our_blocks))):
            low, high = prediction(them)
            inside = sum(low <= value <= high for value in us)
            seeds = lambda values: ", ".join(f"{value:.3f}" for value in values)
            first = index * BLOCK + 1
            print(f"| {first} to {first + BLOCK - 1} | {seeds(them)} | {low:.3f} to {high:.3f} | {seeds(us)} | {inside} of {len(us)} |")
        us, them = ([mean(run[key]) for run in runs] for runs in (ours, theirs))
        d, half = difference(us, them)
        print(f"\nMean of all steps: TRL {mean(them):.3f}, rft {mean(us):.3f}; difference {d:+.3f} [{d - half:+.3f}, {d + half:+.3f}].")


def draw(ours: list[dict], theirs: list[dict]) -> str:
    width, height, left, top, right, bottom = 640, 360, 56, 24, 96, 48
    steps = len(theirs[0]["reward"])
    x = lambda step: left + (width - left - right) * (step - 1) / (steps - 1)
    y = lambda reward: top + (height - top - bottom) * (1 - reward)
    rolling = lambda series: [mean(series[max(0, at - BLOCK + 1) : at + 1]) for at in range(steps)]
    path = lambda values: "M" + "L".join(f"{x(at + 1):.1f},{y(value):.1f}" for at, value in enumerate(values))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12" role="img">',
        "<title>Mean reward by training step, TRL and rft, three seeds each</title>",
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for tick in (0, 0.25, 0.5, 0.75, 1):
        parts.append(f'<path d="M{left},{y(tick)}H{width - right}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 8}" y="{y(tick) + 4}" text-anchor="end">{tick:g}</text>')
    for step in range(10, steps + 1, 10):
        parts.append(f'<text x="{x(step):.1f}" y="{height - bottom + 18}" text-anchor="middle">{step}</text>')
    parts.append(f'<text x="{(left + width - right) / 2}" y="{height - 10}" text-anchor="middle">step (8 completions each)</text>')
    parts.append(f'<text x="16" y="{top + 150}" transform="rotate(-90 16 {top + 150})" text-anchor="middle">reward, mean of 10 steps</text>')
    for name, runs in (("TRL", theirs), ("rft", ours)):
        curves = [rolling(run["reward"]) for run in runs]
        center = [mean(values) for values in zip(*curves)]
        edge = "L".join(f"{x(at + 1):.1f},{y(max(values)):.1f}" for at, values in enumerate(zip(*curves)))
        back = "L".join(f"{x(at + 1):.1f},{y(min(values)):.1f}" for at, values in reversed(list(enumerate(zip(*curves)))))
        parts.append(f'<path d="M{edge}L{back}Z" fill="{COLORS[name]}" fill-opacity="0.15"/>')
        for curve in curves:
            parts.append(f'<path d="{path(curve)}" fill="none" stroke="{COLORS[name]}" stroke-opacity="0.35"/>')
        parts.append(f'<path d="{path(center)}" fill="none" stroke="{COLORS[name]}" stroke-width="2.5"/>')
        nudge = -6 if (name == "TRL") == (center[-1] > mean(rolling(run["reward"])[-1] for run in (ours if name == "TRL" else theirs))) else 12
        parts.append(f'<text x="{width - right + 8}" y="{y(center[-1]) + nudge:.1f}" fill="{COLORS[name]}" font-weight="bold">{name}</text>')
    return "\n".join(parts + ["</svg>"]) + "\n"


def main() -> None:
    arguments = sys.argv[1:]
    svg = None
    if "--svg" in arguments:
        at = arguments.index("--svg")
        svg = Path(arguments[at + 1])
        del arguments[at : at + 2]
    if len(arguments) < 3:
        sys.exit(__doc__)
    theirs = json.loads(Path(arguments[0]).read_text())["runs"]
    ours = [our_run(folder) for folder in arguments[1:]]
    report(ours, theirs)
    if svg:
        svg.parent.mkdir(parents=True, exist_ok=True)
        svg.write_text(draw(ours, theirs))


if __name__ == "__main__":
    main()
