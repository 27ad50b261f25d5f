"""Jobs in Procrastinate, as an application would have left them."""

from __future__ import annotations

import datetime
import sys

import procrastinate

app = procrastinate.App(connector=procrastinate.SyncPsycopgConnector(conninfo=sys.argv[1]))


@app.task(name="send_email")
def send_email(to: str) -> None: ...


@app.task(name="resize", queue="images", lock="disk")
def resize(n: int) -> None: ...


if __name__ == "__main__":
    with app.open():
        app.schema_manager.apply_schema()
        send_email.configure(priority=5, queueing_lock="welcome ann").defer(to="ann")
        later = datetime.datetime(2100, 1, 1, tzinfo=datetime.UTC)
        send_email.configure(schedule_at=later).defer(to="bob")
        resize.defer(n=1)
        resize.defer(n=2)
        running = send_email.defer(to="at work")
        for n in range(int(sys.argv[2])):
            send_email.defer(to=str(n))
    print(running)
