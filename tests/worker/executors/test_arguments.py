"""Payloads become arguments of the annotated types; what does not fit is told by its field."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from graphile_worker import Tasks
from graphile_worker.errors import InvalidPayload, TasksError
from graphile_worker.worker.context import Context
from graphile_worker.worker.executors.arguments import (
    bind_by_name,
    bind_by_position,
    read_parameters,
)

from worker.contexts import a_context
from worker.executors import task_functions as functions
from worker.executors.task_functions import Email, Strict

if TYPE_CHECKING:
    from fractions import Fraction

    import graphile_worker.worker

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)


def named(task: Any, payload: Any) -> Any:
    bind = bind_by_name("t", read_parameters("t", task.function))
    args, kwargs = bind(payload, a_context())
    return task.function(*args, **kwargs)


def placed(function: Any, payload: Any = None) -> Any:
    bind = bind_by_position("t", read_parameters("t", function))
    args, kwargs = bind(payload, a_context())
    return function(*args, **kwargs)


def test_members_are_decoded_into_the_types_of_the_parameters() -> None:
    payload = {
        "to": "ann", "at": "2026-01-01T00:00:00Z", "plain": {"as": "it is"},
        "email": {"to": "bob", "sent_at": "2026-01-01T00:00:00Z"}, "_trace": {}, "_cron": {},
    }  # fmt: skip
    assert named(functions.send, payload) == (
        "ann", NEW_YEAR, Email("bob", NEW_YEAR), {"as": "it is"}
    )  # fmt: skip
    assert named(functions.send, {"to": "ann"}) == ("ann", None, None, None)
    row = {"id": "00000000-0000-0000-0000-000000000001", "prices": [{"amount": "1.5"}]}
    decoded = {"id": UUID(int=1), "prices": [{"amount": Decimal("1.5")}]}
    assert named(functions.rows, {"row": row, "other": [row]}) == decoded


def test_a_list_is_the_first_parameter_as_a_whole() -> None:
    assert named(functions.digest, [{"to": "a"}, {"to": "b"}]) == [Email("a"), Email("b")]
    assert named(functions.digest, {"emails": [{"to": "a"}]}) == [Email("a")]
    with pytest.raises(InvalidPayload, match=r"^payload\[1\].to: Input should be a valid string$"):
        named(functions.digest, [{"to": "a"}, {"to": 1}])


@pytest.mark.parametrize(
    ("task", "payload", "message"),
    [
        ("send", {"to": 1}, "payload.to: Input should be a valid string"),
        ("send", {}, "payload.to: it is missing, and has no default"),
        ("send", {"to": "a", "two": 1}, "payload.two: task t is an unexpected parameter"),
        ("send", {"to": "a", "email": {}}, "payload.email.to: Field required"),
        ("send", {"at": "x", "to": None}, "payload.at: Input should be a valid datetime"),
        ("rest", {"n": 0}, "payload.n: Input should be greater than or equal to 1"),
        ("rest", {"context": 1}, "payload.context: task t is an unexpected parameter"),
        ("typed_rest", {"x": "y"}, "payload.x: Input should be a valid integer"),
        ("digest", "text", "payload: Input should be a valid array"),
        ("rows", {"row": {}}, "payload.row.id: Field required"),
    ],
)
def test_a_mismatch_names_the_field(task: str, payload: Any, message: str) -> None:
    with pytest.raises(InvalidPayload) as raised:
        named(functions.tasks[task], payload)
    assert str(raised.value).startswith(message)


def test_a_list_needs_a_function_that_it_alone_suffices_for() -> None:
    tasks = Tasks()

    @tasks.task("two")
    def two(a: Any, b: Any) -> None: ...

    @tasks.task("none")
    def none() -> None: ...

    with pytest.raises(InvalidPayload, match=r"is a list, which is passed as 'a' alone.* needs b"):
        named(two, [1])
    with pytest.raises(InvalidPayload, match="is a list, but task t has no parameter"):
        named(none, [1])
    with pytest.raises(InvalidPayload, match=r"payload\.a: .*; payload\.b: .*; payload\.c"):
        named(two, {"c": 1})


def test_what_schedulers_and_producers_add_goes_where_it_is_wanted() -> None:
    added = {"_cron": {"ts": "x"}, "_trace": {}}
    assert named(functions.rest, {"n": "2", "m": 3, **added}) == (2, {"m": 3, **added}, 7)
    assert named(functions.typed_rest, {"m": "3", **added}) == {"m": 3}


def test_functions_of_a_mapping_take_the_payload_and_the_context_by_position() -> None:
    def annotated(email: Email, context: Context) -> Any:
        return email, context.job.id

    def reversed_(context: Context, payload: Any) -> Any:
        return payload, context.job.id

    def only_named(payload: Any = None, option: int = 1, *, ctx: Context | None = None) -> Any:
        return payload, option, ctx and ctx.job.id

    def checked(payload: graphile_worker.worker.Context, row: dict[str, Any]) -> Any:
        return row

    def strict(payload: Strict) -> Any:
        return payload.at

    class Callable:
        def __call__(self, email: Email) -> Any:
            return email

    assert placed(annotated, {"to": "a"}) == (Email("a"), 7)
    assert placed(reversed_, 1) == (1, 7)
    assert placed(only_named, 1) == (1, 1, 7)
    assert placed(checked, {"a": 1}) == {"a": 1}
    assert placed(strict, {"at": "2026-01-01T00:00:00Z"}) == NEW_YEAR
    assert placed(Callable(), {"to": "a"}) == Email("a")
    assert placed(lambda: "nothing", 1) == "nothing"
    assert placed(lambda payload: payload, [1]) == [1]
    assert placed(lambda payload, helpers: (payload, helpers.job.id), 1) == (1, 7)
    assert placed(lambda *both: len(both), 1) == 2
    for function, wrong in ((annotated, {}), (checked, []), (strict, {"at": 1, "kind": "c"})):
        with pytest.raises(InvalidPayload, match=r"^payload"):
            placed(function, wrong)
    with pytest.raises(InvalidPayload, match=r"payload\.kind: Input should be 'a' or 'b'"):
        placed(strict, {"at": "2026-01-01T00:00:00Z", "kind": "c"})


def test_many_mismatches_are_counted() -> None:
    with pytest.raises(InvalidPayload, match=r"payload\[4\].to: .*; and 15 more$"):
        named(functions.digest, [{}] * 20)


def test_what_can_never_be_decoded_is_told_when_it_is_loaded() -> None:
    def nowhere(payload: Fraction) -> None: ...
    def no_type(payload: 3 + 4) -> None: ...  # type: ignore[valid-type]
    def broken(payload: 1 / 0) -> None: ...  # type: ignore[valid-type]
    def too_many(payload: Any, context: Any, third: Any) -> None: ...

    class Opaque:
        pass

    def opaque(payload: Any) -> None: ...

    opaque.__annotations__["payload"] = Opaque
    for function, message in (
        (nowhere, "'Fraction' is not defined.*not below TYPE_CHECKING"),
        (no_type, "no payload can be decoded into 7"),
        (broken, "annotation of 'payload' is no type"),
        (opaque, "no payload can be decoded into Opaque"),
        (too_many, "nothing is there to pass as third"),
    ):
        with pytest.raises(TasksError, match=message):
            placed(function)


def test_without_pydantic_a_type_that_needs_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pydantic", None)

    def plain(payload: dict[str, Any], context: Context) -> Any:
        return payload

    assert placed(plain, {"a": 1}) == {"a": 1}
    with pytest.raises(
        TasksError, match=r"'to' into str .*pip install 'graphile-worker\[worker\]'"
    ):
        read_parameters("t", functions.send.function)
