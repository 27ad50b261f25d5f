"""A payload that does not fit the schema of its task does not get into the queue, however it comes."""

from __future__ import annotations

import json
import random
from typing import Any

import psycopg
import pytest
from support.pg import Database

SET = "select graphile_worker.set_payload_schema(%s, %s::text::json, %s)"
MAIL = {
    "type": "object",
    "properties": {"to": {"type": "string", "format": "email"}, "n": {"type": "integer"}},
    "required": ["to"],
    "additionalProperties": False,
}
GOOD, BAD = '{"to": "ann@example.org"}', '{"to": "ann@example.org", "n": 1.5}'


def set_schema(
    db: Database, schema: Any = MAIL, task: str = "mail", on_invalid: str = "reject"
) -> Any:
    text = None if schema is None else json.dumps(schema)
    return db.value(SET, task, text, on_invalid)


ADDS = {
    "add_job": "select graphile_worker.add_job('mail', '{}')",
    "with a key": "select graphile_worker.add_job('mail', '{}', job_key => 'k')",
    "in a queue": "select graphile_worker.add_job('mail', '{}', queue_name => 'q')",
    "unsafe_dedupe": "select graphile_worker.add_job('mail', '{}', job_key => 'k',"
    " job_key_mode => 'unsafe_dedupe')",
    "add_jobs": "select graphile_worker.add_jobs(array[('other','{}',null,null,null,null,null,null),"
    "('mail', '{}', null, null, null, null, null, null)]::graphile_worker.job_spec[])",
    "add_jobs, keyed": "select graphile_worker.add_jobs(array["
    "('mail', '{}', null, null, null, 'k', null, null)]::graphile_worker.job_spec[])",
    "with modes": "select graphile_worker.add_jobs_with_modes(array["
    "('mail', '{}', null, null, null, 'k', null, null)]::graphile_worker.job_spec[], '{replace}')",
    "a cron tick": "select graphile_worker.register_crontabs('{c}');"
    " select graphile_worker.add_cron_jobs(now(), json_build_array(json_build_object("
    "'identifier', 'c', 'task', 'mail', 'payload', '{}'::json)))",
}  # fmt: skip


@pytest.mark.parametrize("how", ADDS)
@pytest.mark.parametrize("known", [True, False], ids=["known", "new"])
def test_it_is_refused_whoever_adds_it(db: Database, how: str, known: bool) -> None:
    if known:
        db.rows("select graphile_worker.add_job('mail')")
    set_schema(db)
    count = db.value("select count(*) from graphile_worker.jobs")
    *before, add = ADDS[how].split(";")
    for statement in before:
        db._main().execute(statement.encode())
    with pytest.raises(psycopg.Error) as raised:
        db._main().execute(add.replace("'{}'", f"'{BAD}'").encode())
    assert raised.value.sqlstate == "GWBPS"
    assert raised.value.diag.message_primary == (
        'Payload of task "mail" does not fit its schema: /n is of type number, not integer'
    )
    assert raised.value.diag.message_detail == "JSON pointer: /n"
    assert db.value("select count(*) from graphile_worker.jobs") == count
    db._main().execute(add.replace("'{}'", f"'{GOOD}'").encode())
    assert db.value("select count(*) from graphile_worker.jobs") > count


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (BAD, "/n is of type number, not integer"),
        ("{}", 'lacks the property "to"'),
        (None, 'lacks the property "to"'),
        ('{"to": "ann"}', "/to is no email"),
        ('{"to": "a@b.c", "a/b~c": 1}', "/a~1b~0c is an unknown property"),
        ("3", "is of type number, not object"),
        ('[{"to": "a@b.c"}, {"to": 1}]', "/1/to is of type number, not string"),
        ('{"to": "a\\u0000"}', "cannot be read: unsupported Unicode escape sequence"),
    ],
)
def test_the_pointer_and_what_is_wrong_are_named(
    db: Database, payload: str | None, said: str
) -> None:
    set_schema(db)
    with pytest.raises(psycopg.Error) as raised:
        db.rows("select graphile_worker.add_job('mail', %s::text::json)", payload)
    assert raised.value.sqlstate == "GWBPS"
    assert f"does not fit its schema: {said}" in str(raised.value)


def test_batches_and_what_is_added_on_the_way_fit(db: Database) -> None:
    set_schema(db)
    for payload in (
        '[{"to": "a@b.c"}, {"to": "d@e.f", "n": 2.0}]', "[]",
        '{"to": "a@b.c", "_trace": {"traceparent": "x"}}', '{"to": "a@b.c", "_cron": {"ts": "x"}}',
        '[{"to": "a@b.c", "_trace": {}}]',
    ):  # fmt: skip
        db.rows("select graphile_worker.add_job('mail', %s::text::json)", payload)
    assert db.value("select count(*) from graphile_worker.jobs") == 5


def test_it_can_be_but_warned_of(db: Database) -> None:
    set_schema(db, on_invalid="warn")
    notices: list[str] = []
    conn = db.connect()
    conn.add_notice_handler(
        lambda notice: notices.append(f"{notice.sqlstate} {notice.message_primary}")
    )
    conn.execute(f"select graphile_worker.add_job('mail', '{BAD}')".encode())
    assert notices == [
        'GWBPS Payload of task "mail" does not fit its schema: /n is of type number, not integer'
    ]
    assert db.value("select count(*) from graphile_worker.jobs") == 1


def test_jobs_of_before_still_run_and_are_found(db: Database) -> None:
    jobs = [
        db.value("select id from graphile_worker.add_job('mail', %s::text::json)", p)
        for p in (GOOD, BAD)
    ]
    assert set_schema(db) is None
    assert db.rows("select * from graphile_worker.find_unfit_jobs('mail')") == [
        (jobs[1], "/n is of type number, not integer")
    ]
    other = json.dumps({"required": ["n"]})
    assert db.rows(
        "select * from graphile_worker.find_unfit_jobs('mail', %s::text::json)", other
    ) == [(jobs[0], 'lacks the property "n"')]
    assert len(db.rows("select * from graphile_worker.get_jobs('w', 10)")) == 2
    assert set_schema(db, None) == MAIL
    assert db.rows("select task from graphile_worker.payload_schemas") == []
    db.rows("select graphile_worker.add_job('mail', %s::text::json)", BAD)


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"if": {}}, "/if is a keyword that is not checked here"),
        ({"properties": {"a": {"typ": "x"}}}, "/properties/a/typ is a keyword"),
        ({"type": "text"}, '/type is no type of JSON: "text"'),
        ({"type": []}, "/type is no type of JSON"),
        ({"minimum": "1"}, "/minimum is no number that can be used"),
        ({"multipleOf": 0}, "/multipleOf is no number that can be used: 0"),
        ({"minLength": -1}, "/minLength is no number from 0: -1"),
        ({"pattern": "(a"}, "/pattern is no pattern that PostgreSQL knows"),
        ({"$ref": "#/$defs/a"}, "/$ref refers to no schema in this one"),
        ({"$ref": "other.json"}, "/$ref refers to no schema in this one"),
        ({"allOf": {}}, "/allOf is no array"),
        ({"anyOf": [{"x": 1}]}, "/anyOf/0/x is a keyword"),
        ({"required": "a"}, "/required is no array of texts"),
        ({"items": 3}, "/items is neither an object nor true or false"),
        ({"$schema": "x"}, "/$schema is another version of JSON Schema"),
        (3, "is neither an object nor true or false"),
    ],
)
def test_a_schema_that_would_not_be_checked_is_refused(
    db: Database, schema: Any, said: str
) -> None:
    with pytest.raises(psycopg.Error) as raised:
        set_schema(db, schema)
    assert raised.value.sqlstate == "GWBSC"
    assert f'Schema of task "mail" cannot be used: {said}' in str(raised.value)
    with pytest.raises(psycopg.Error, match='invalid payload is unknown: "no"'):
        set_schema(db, on_invalid="no")


def test_deep_payloads_and_recursive_schemas_end(db: Database) -> None:
    tree = {"type": "object", "properties": {"next": {"$ref": "#"}}, "additionalProperties": False}
    set_schema(db, tree)

    def nested(depth: int) -> str:
        return '{"next":' * depth + "{}" + "}" * depth

    db.rows("select graphile_worker.add_job('mail', %s::text::json)", nested(40))
    with pytest.raises(psycopg.Error, match="is nested more than 100 deep"):
        db.rows("select graphile_worker.add_job('mail', %s::text::json)", nested(60))
    set_schema(db, {"$ref": "#"})
    with pytest.raises(psycopg.Error, match="is nested more than 100 deep"):
        db.rows("select graphile_worker.add_job('mail', '{}')")


def some_schema(draw: random.Random, depth: int = 0) -> Any:
    """A schema of all keywords that there is a quick condition for."""
    kind = draw.choice(["string", "integer", "number", "boolean", "null", "array", "object", None])
    if depth > 2 and kind in ("array", "object"):
        kind = "string"
    schema: dict[str, Any] = {} if kind is None else {"type": kind}
    if draw.random() < 0.1:
        schema["type"] = ["string", "null", "integer"]
    options: list[tuple[str, Any]] = [
        ("minimum", draw.randint(-3, 3)), ("exclusiveMaximum", draw.randint(0, 6)),
        ("multipleOf", draw.choice([1, 2, 0.5])), ("minLength", draw.randint(0, 3)),
        ("maxLength", draw.randint(0, 4)), ("pattern", draw.choice(["^a", "b$", "a.c", "\\d"])),
        ("format", draw.choice(["uuid", "email", "date-time", "other"])),
        ("enum", [draw.choice(VALUES) for _ in range(3)]), ("const", draw.choice(VALUES)),
        ("minItems", draw.randint(0, 2)), ("maxItems", draw.randint(0, 3)),
    ]  # fmt: skip
    schema.update(draw.sample(options, draw.choice([0, 0, 1, 1, 2])))
    if depth <= 2:
        if draw.random() < 0.3:
            schema["items"] = some_schema(draw, depth + 1)
        if draw.random() < 0.5:
            schema["properties"] = {k: some_schema(draw, depth + 1) for k in draw.sample("abc", 2)}
            schema["required"] = draw.sample("abcd", draw.randint(0, 2))
            schema["additionalProperties"] = draw.choice(
                [True, False, some_schema(draw, depth + 1)]
            )
        for keyword in ("anyOf", "allOf"):
            if draw.random() < 0.15:
                schema[keyword] = [some_schema(draw, depth + 1) for _ in range(2)]
    return schema


VALUES: list[Any] = [
    None, True, False, 0, 1, 2.5, -1, 4, "", "a", "abc", "a\nc", "b", "12", "ab12b", "a@b.c",
    "2024-02-29T00:00:00Z", "2023-02-29T00:00:00Z", "123e4567-e89b-12d3-a456-426614174000", [], {},
]  # fmt: skip


def some_value(draw: random.Random, depth: int = 0) -> Any:
    dice = draw.random()
    if dice < 0.3 and depth < 3:
        return [some_value(draw, depth + 1) for _ in range(draw.randint(0, 3))]
    if dice < 0.7 and depth < 3:
        names = draw.sample("abcd", draw.randint(0, 3))
        return {name: some_value(draw, depth + 1) for name in names}
    return draw.choice(VALUES)


@pytest.mark.majors(13, 18)
def test_the_quick_check_lets_through_only_what_fits(db: Database) -> None:
    """Drawn schemas and values: whatever the quick condition accepts, the thorough one does, too."""
    seed = random.randrange(10**6)
    draw, accepted, fits = random.Random(seed), 0, 0
    for _ in range(300):
        schema = json.dumps(some_schema(draw))
        quick = db.value(
            "select graphile_worker._quick_check(s, s, 0) from (values (%s::text::jsonb)) as t (s)",
            schema,
        )
        if quick is None:
            continue
        values = json.dumps([some_value(draw) for _ in range(20)])
        rows = db.rows(
            "select v.value::text, graphile_worker._schema_problem(s, s, v.value, '', 0),"
            " pg_catalog.jsonb_path_exists(v.value, ('strict $ ? (' || %s || ')')::jsonpath, '{}', true)"
            " from (values (%s::text::jsonb)) as t (s), jsonb_array_elements(%s::text::jsonb) as v",
            quick, schema, values,
        )  # fmt: skip
        for value, problem, holds in rows:
            accepted += bool(holds)
            fits += problem is None
            assert not (holds and problem), (seed, schema, value, problem)
    assert accepted > 0.7 * fits > 100, (seed, accepted, fits)
