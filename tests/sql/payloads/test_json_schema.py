"""The official tests of JSON Schema 2020-12: what is supported passes, the rest is refused by name."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.pg import Database

pytestmark = pytest.mark.majors(13, 18)

SUITE = Path(__file__).parents[3] / ".venv" / "json-schema" / "tests" / "draft2020-12"
#: Files about keywords that are refused when a schema is set.
UNSUPPORTED = {
    "anchor", "contains", "dependentRequired", "dependentSchemas", "dynamicRef", "if-then-else",
    "maxContains", "minContains", "patternProperties", "propertyNames", "refRemote",
    "unevaluatedItems", "unevaluatedProperties", "vocabulary",
}  # fmt: skip
#: Formats are checked, which is optional; here those that are.
FORMATS = ("date-time", "uuid", "email")
OPTIONAL = ("optional/bignum", "optional/float-overflow", "optional/non-bmp-regex")
#: Groups of the supported files whose schemas are refused, and by what.
REFUSED = {
    "additionalProperties: additionalProperties being false does not allow other properties":
        "/patternProperties",
    "additionalProperties: additionalProperties with propertyNames": "/propertyNames",
    "additionalProperties: dependentSchemas with additionalProperties": "/dependentSchemas",
    "additionalProperties: non-ASCII pattern with additionalProperties": "/patternProperties",
    "const: nul characters in strings": "a",
    "content: validation of binary-encoded media type documents with schema": "/contentSchema",
    "defs: validate definition against metaschema": "/$ref",
    "enum: nul characters in strings": "a",
    "non-bmp-regex: Proper UTF-16 surrogate pair handling: patternProperties":
        "/patternProperties",
    "not: collect annotations inside a 'not', even if collection is disabled":
        "/not/unevaluatedProperties",
    "properties: properties, patternProperties, additionalProperties interaction":
        "/patternProperties",
    "ref: $id must be resolved against nearest parent, not just immediate parent": "/$defs/x/$id",
    "ref: Recursive references between schemas": "/$defs/node/$id",
    "ref: URN base URI with URN and JSON pointer ref": "/properties/foo/$ref",
    "ref: URN base URI with URN and anchor ref": "/$defs/bar/$anchor",
    "ref: URN ref with nested pointer ref": "/$ref",
    "ref: order of evaluation: $id and $anchor and $ref": "/$ref",
    "ref: order of evaluation: $id and $ref": "/$ref",
    "ref: ref creates new scope when adjacent to keywords": "/$defs/A/unevaluatedProperties",
    "ref: ref to else": "/$ref",
    "ref: ref to if": "/if",
    "ref: ref to then": "/$ref",
    "ref: ref with absolute-path-reference": "/$ref",
    "ref: refs with relative uris and defs": "/$ref",
    "ref: relative refs with absolute uris and defs": "/$ref",
    "ref: remote ref, containing refs itself": "/$ref",
    "ref: simple URN base URI with $ref via the URN": "/properties/foo/$ref",
}  # fmt: skip
#: Cases in which the annotation "format" is expected not to be checked.
ANNOTATIONS = {
    f"{name} format: invalid {name} string is only an annotation by default" for name in FORMATS
}

#: PostgreSQL holds no NUL character: such a schema or payload is refused.
NUL = "a NUL character"
CHECK = "select graphile_worker._check_schema(%s::text::jsonb, %s::text::jsonb, '')"
PROBLEM = "select graphile_worker._schema_problem(%s::text::jsonb, %s::text::jsonb, %s::text::jsonb, '', 0)"
QUICK = "select graphile_worker._quick_check(%s::text::jsonb, %s::text::jsonb, 0)"
HOLDS = (
    "select pg_catalog.jsonb_path_exists(%s::text::jsonb, ('strict $ ? (' || %s || ')')::jsonpath,"
    " '{}', true) is true"
)


def groups() -> list[tuple[str, dict[str, Any]]]:
    files = [*sorted(SUITE.glob("*.json"))]
    files += [SUITE / f"{name}.json" for name in OPTIONAL]
    files += [SUITE / "optional" / "format" / f"{name}.json" for name in FORMATS]
    assert len(files) > 50, "run `make .venv/json-schema`"
    return [(path.stem, group) for path in files for group in json.loads(path.read_text())]


def test_every_case_of_the_supported_keywords_passes(
    db: Database, record_property: Callable[[str, object], None]
) -> None:
    refused: dict[str, str] = {}
    wrong: list[str] = []
    unsound: list[str] = []
    counted: dict[str, int] = defaultdict(int)
    for file, group in groups():
        schema = json.dumps(group["schema"])
        name = f"{file}: {group['description']}"
        problem = NUL if "\\u0000" in schema else db.value(CHECK, schema, schema)
        if problem is not None:
            refused[name] = problem
            counted["refused"] += len(group["tests"])
            continue
        quick = db.value(QUICK, schema, schema)
        for case in group["tests"]:
            data = json.dumps(case["data"])
            if "\\u0000" in data:
                continue
            said = db.value(PROBLEM, schema, schema, data)
            full = f"{name}: {case['description']}"
            annotation = f"{group['description']}: {case['description']}" in ANNOTATIONS
            if annotation or (said is None) == case["valid"]:
                counted["right"] += 1
            else:
                wrong.append(f"{full}: {said}")
            if quick is not None:
                holds = db.value(HOLDS, data, quick)
                counted["quick"] += holds
                if holds and said is not None:
                    unsound.append(full)
    record_property("official cases", dict(counted))
    assert wrong == []
    assert unsound == []
    named = {
        name: why.partition(" ")[0]
        for name, why in refused.items()
        if name.partition(":")[0] not in UNSUPPORTED
    }
    assert named == REFUSED
    assert counted["quick"] > 100
