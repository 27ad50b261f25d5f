"""The queue at work: a private server, jobs from SQL, a trigger and Python, and the worker.

Run it with `make quickstart`. It leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import logging
import sys

import psycopg
from graphile_worker import Tasks
from graphile_worker.testing.embedded import Server
from graphile_worker.worker import context, run_once

tasks = Tasks()

TRIGGER = """
create table users (id int generated always as identity primary key, email text not null);

create function welcome_user() returns trigger language plpgsql as $$
begin
  perform graphile_worker.add_job('send_email', json_build_object('to', new.email), 'emails');
  return new;
end;
$$;

create trigger welcome after insert on users for each row execute function welcome_user();
"""


def say(line: str) -> None:
    print(line, flush=True)


@tasks.task("send_email", max_attempts=3)
async def send_email(to: str) -> None:
    if "@" not in to:
        raise ValueError(f"{to!r} is not an address")
    say(f"   job {context().job.id}: an email to {to}")


def main() -> None:
    logging.basicConfig(stream=sys.stdout, format="   %(message)s")
    say("1. a private PostgreSQL starts")
    with Server() as server, psycopg.connect(server.dsn(), autocommit=True) as connection:
        (version,) = connection.execute("show server_version").fetchone() or ("?",)
        say(f"   PostgreSQL {version} listens on 127.0.0.1:{server.port}")

        say("2. create extension graphile_worker")
        connection.execute("create extension graphile_worker")

        say("3. SQL adds a job")
        connection.execute(
            """select graphile_worker.add_job('send_email', '{"to": "ann@example.org"}')"""
        )

        say("4. a trigger adds a job for each new user, one at a time in the queue emails")
        connection.execute(TRIGGER)
        connection.execute("insert into users (email) values ('bob@example.org'), ('carol')")

        say("5. Python adds a job in its own transaction")
        with connection.transaction():
            send_email.with_options(conn=connection).add(to="dave@example.org")
        with connection.transaction() as rolled_back:
            send_email.with_options(conn=connection).add(to="nobody@example.org")
            raise psycopg.Rollback(rolled_back)

        say("6. a worker fetches the jobs and runs them")
        asyncio.run(run_once(tasks, dsn=server.dsn()))

        say("7. what is left, from the view jobs")
        for job, task, attempts, error in connection.execute(
            "select id, task_identifier, attempts, split_part(last_error, e'\\n', 1)"
            " from graphile_worker.jobs"
        ):
            say(f"   job {job}: {task}, {attempts} attempt, {error}; it will be retried")
    say("8. the server is gone, and so is its data")


if __name__ == "__main__":
    main()
