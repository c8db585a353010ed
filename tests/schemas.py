"""The JSON Schemas in docs/, as others use them."""

import json
from functools import cache
from pathlib import Path

from jsonschema import Draft202012Validator

DOCS = Path(__file__).resolve().parent.parent / "docs"


@cache
def validator(name: str) -> Draft202012Validator:
    """Of `docs/<name>.schema.json`."""
    schema = json.loads((DOCS / f"{name}.schema.json").read_text())
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def problems(name: str, payload: bytes) -> list[str]:
    """What is wrong with a message; empty: nothing."""
    return [error.message for error in validator(name).iter_errors(json.loads(payload))]
