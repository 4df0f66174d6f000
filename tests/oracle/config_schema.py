"""Checks configs/rft.schema.json with Python's jsonschema: it is a valid schema, accepts every preset, and rejects every misspelled key.

    pip install jsonschema
    python tests/oracle/config_schema.py
"""
import json
import pathlib
import tomllib

import jsonschema

root = pathlib.Path(__file__).parents[2]
schema = json.loads((root / "configs/rft.schema.json").read_text())
validator = jsonschema.validators.validator_for(schema)
validator.check_schema(schema)
check = validator(schema)

presets = sorted((root / "configs").glob("*.toml"))
for preset in presets:
    check.validate(tomllib.loads(preset.read_text()))

rejected = 0


def misspell(section, path):
    """Checks that no key of `section` with an added letter is accepted."""
    global rejected
    for name, rule in section["properties"].items():
        value = {name + "_": 1}
        for part in reversed(path):
            value = {part: value}
        assert not check.is_valid(value), value
        rejected += 1
        if rule.get("type") == "object":
            misspell(rule, path + [name])


misspell(schema, [])
print(f"{len(presets)} presets are valid; {rejected} misspelled keys are rejected")
