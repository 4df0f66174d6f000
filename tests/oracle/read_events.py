"""Reads a run's event files with TensorBoard's loader and compares every value with metrics.jsonl.

    pip install tensorboard
    python tests/oracle/read_events.py runs/NAME

Values in the event file are float32. Steps that are logged again after a resume must appear once.
"""

import collections
import json
import math
import pathlib
import struct
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

run = pathlib.Path(sys.argv[1])
expected = collections.defaultdict(list)
for line in (run / "metrics.jsonl").read_text().splitlines():
    record = json.loads(line)
    step = record.pop("step")
    record.pop("non_finite", None)
    for name, value in record.items():
        expected[name].append((step, math.nan if value is None else struct.unpack("f", struct.pack("f", value))[0]))

events = EventAccumulator(str(run), size_guidance={"scalars": 0})
events.Reload()
read = {name: [(event.step, event.value) for event in events.Scalars(name)] for name in events.Tags()["scalars"]}

assert read.keys() == expected.keys(), f"names differ: {sorted(read.keys() ^ expected.keys())}"
values = 0
for name, points in expected.items():
    assert len(read[name]) == len(points), f"{name}: {len(read[name])} events, {len(points)} lines"
    for (step, value), (read_step, read_value) in zip(points, read[name]):
        same = value == read_value or (math.isnan(value) and not math.isfinite(read_value))
        assert step == read_step and same, f"{name} at step {step}: {read_value} at {read_step}, not {value}"
        values += 1
print(f"{len(expected)} names, {values} values: equal")
