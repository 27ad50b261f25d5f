from pg import Database


def test_add_job_answers_the_row_with_the_defaults(db: Database) -> None:
    job = db.row("select max_attempts, priority, payload::text, key, flags, is_available, attempts from graphile_worker.add_job('t')")
    assert job == (25, 0, "{}", None, None, True, 0)
