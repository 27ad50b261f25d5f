"""What a check sees of the database: everything that happens to jobs and workers, in its order."""

from __future__ import annotations

#: The tasks that a worker has to run, described in docs/conformance.md.
TASKS = ("run", "batch", "write")
ROLE = "conformance"

#: What happens to jobs and workers is written down in the transaction in which it happens. A check
#: may lock 'claim' or 'complete' to stop a transaction before it commits, or let a claim fail.
SETUP = f"""
create role {ROLE} login;
select graphile_worker.grant_access('{ROLE}', 'work');
create schema conformance;
grant usage on schema conformance to {ROLE};
create table conformance.effects (job_id bigint not null);
grant insert on conformance.effects to {ROLE};
create table conformance.history (
  id bigint generated always as identity primary key,
  event text not null, job_id bigint, worker_id text, at timestamptz not null default now()
);
create sequence conformance.failing_claims maxvalue 1000000;
create table conformance.failing (claims integer not null);
insert into conformance.failing values (0);

create function conformance.note_job() returns trigger language plpgsql security definer as $$
declare
  v_event text;
begin
  if tg_op = 'DELETE' then
    v_event := 'complete';
  elsif new.locked_by is not distinct from old.locked_by then
    return null;
  elsif new.locked_by is not null then
    v_event := 'claim';
  else
    v_event := case when new.attempts < old.attempts then 'return' else 'fail' end;
  end if;
  insert into conformance.history (event, job_id, worker_id)
  values (v_event, old.id, case v_event when 'claim' then new.locked_by else old.locked_by end);
  perform pg_advisory_xact_lock_shared(hashtext(v_event));
  return null;
end $$;
create trigger note_job after update or delete on graphile_worker._private_jobs
  for each row execute function conformance.note_job();

create function conformance.note_worker() returns trigger language plpgsql security definer as $$
begin
  insert into conformance.history (event, worker_id)
  values (
    case tg_op when 'INSERT' then 'heartbeat' else 'end' end,
    coalesce(new.worker_id, old.worker_id)
  );
  return null;
end $$;
create trigger note_worker after insert or delete on graphile_worker._private_heartbeats
  for each row execute function conformance.note_worker();

create function conformance.fail_claim() returns trigger language plpgsql security definer as $$
begin
  if new.locked_by is not null and old.locked_by is null
  and (select claims from conformance.failing) > nextval('conformance.failing_claims') then
    raise exception 'This claim fails when it commits' using errcode = 'serialization_failure';
  end if;
  return null;
end $$;
create constraint trigger fail_claim after update on graphile_worker._private_jobs
  deferrable initially deferred for each row execute function conformance.fail_claim();
"""


WAITS_BEFORE_COMMIT = """
    select exists (
      select from pg_locks join pg_database on pg_database.oid = pg_locks.database
      where locktype = 'advisory' and not granted and datname = current_database()
    )
"""
