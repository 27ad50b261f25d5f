\echo Use "CREATE EXTENSION graphile_worker" to load this file. \quit

-- graphile_worker 1.1.0: a job queue inside PostgreSQL.
--
-- This file is rendered from templates/; edit those and run `make sql`.
--
-- _private_jobs            one row a job that is waiting, running, or has failed for good
-- _private_tasks           the name of each task, once; a job points to it by number
-- _private_job_queues      the named queues; a row is locked while one of its jobs runs
-- _private_known_crontabs  the last tick of each recurring job, so that each fires once
-- _private_heartbeats      the workers that say that they run
-- _private_ended_workers   the workers that ended or were presumed dead within the last day
-- _private_crashes         the jobs whose worker died while it ran them, and how often
-- _private_settings        at most one row: when a worker is presumed dead
-- _private_pauses          the tasks and queues whose jobs wait
-- _private_limits          how many jobs of a task or queue may run, or start in a time
-- _private_limit_states    the jobs that these limits count
-- _private_schedules       the recurring jobs that clients have set in the database
-- _private_cancellations   the running jobs that were cancelled
-- migrations               the schema revisions that Node's graphile-worker looks for
--
-- One job's life. add_job inserts the row and, if it is due, sends a notification that leaves with
-- the caller's commit. A worker calls get_jobs: the first due jobs that no other call claims are
-- locked in the worker's name (locked_at, locked_by), each counts one attempt, and a job of a named
-- queue locks its queue as well, so that a queue never has two jobs in flight. After the task ran,
-- finish_jobs deletes the row, fail_jobs puts it back for later with its error, or return_jobs
-- gives it back untouched; all three unlock the queue and touch only what is still locked in this
-- worker's name. A job is "available" while it is unlocked and has attempts left; after the last
-- attempt it stays, unavailable, until somebody reschedules or completes it.
--
-- A worker that calls heartbeat and then falls silent is ended by recover_dead_workers, which frees
-- its jobs and queues; others (Node's) are presumed dead when their locks are 4 hours old.
--
-- Lock order. Heartbeats, crontabs and schedules come first, then the states of limits, by scope
-- and name, and the queues of a fetch. Job rows are locked by key, then by id; queues come after
-- jobs, by id. Where the order cannot be kept (a key changes meanwhile, Node locks in no order), a
-- call waits for a moment only, lets go of all its locks, and begins again.

set local search_path = pg_catalog, pg_temp;

-- Refuses a schema in which others could run code of theirs with the installer's rights: one that
-- belongs to another role, or holds its functions. And one that Node's graphile-worker has made.
do $$
declare
  v_owner oid;
  v_other text;
begin
  if exists (
    select from pg_catalog.pg_class as tables
    where tables.relnamespace = '@extschema@'::pg_catalog.regnamespace
    and tables.relname in ('_private_jobs', 'job_queues', 'migrations')
  ) then
    raise exception 'The schema % holds the tables of Node''s graphile-worker already',
      '@extschema@'::pg_catalog.regnamespace
      using errcode = 'GWBIN',
        hint = 'Run "gw-install adopt": it makes them ours, with every row as it is.';
  end if;
  select
    case when roles.rolname = 'pg_database_owner' then databases.datdba else schemas.nspowner end
  into v_owner
  from pg_catalog.pg_namespace as schemas
  join pg_catalog.pg_roles as roles on roles.oid = schemas.nspowner
  join pg_catalog.pg_database as databases on databases.datname = pg_catalog.current_database()
  where schemas.oid = '@extschema@'::pg_catalog.regnamespace;
  select objects.identity into v_other
  from (
    select 'the schema itself', v_owner
    union all
    select functions.oid::pg_catalog.regprocedure::text, functions.proowner
    from pg_catalog.pg_proc as functions
    where functions.pronamespace = '@extschema@'::pg_catalog.regnamespace
    union all
    select operators.oid::pg_catalog.regoperator::text, operators.oprowner
    from pg_catalog.pg_operator as operators
    where operators.oprnamespace = '@extschema@'::pg_catalog.regnamespace
    union all
    select relations.oid::pg_catalog.regclass::text, relations.relowner
    from pg_catalog.pg_class as relations
    where relations.relnamespace = '@extschema@'::pg_catalog.regnamespace
  ) as objects (identity, owner)
  join pg_catalog.pg_roles as roles on roles.oid = objects.owner
  where roles.rolname <> current_user and not roles.rolsuper
  limit 1;
  if v_other is not null and not exists (
        select from pg_catalog.pg_settings as settings
        where settings.name = 'xmloption' and settings.source = 'session'
      ) then
    raise exception 'The schema % is not yours alone: % belongs to another role',
      '@extschema@'::pg_catalog.regnamespace, v_other
      using errcode = 'GWBIN',
        hint = 'That role could run code as you. Drop the schema, or install as its owner.';
  end if;
end;
$$;

-- The tables. Columns, their order and types are shared with Node's graphile-worker, and so are the
-- names of keys and sequences, odd as some are; the indexes and the tables from
-- _private_heartbeats on are ours.

create table @extschema@._private_tasks (
  id integer generated always as identity (sequence name @extschema@.tasks_id_seq),
  identifier text not null,
  constraint tasks_pkey primary key (id),
  constraint tasks_identifier_key unique (identifier),
  constraint tasks_identifier_check check (pg_catalog.length(identifier) <= 128)
);
alter table @extschema@._private_tasks enable row level security;

-- The transaction in which names were last deleted. A sequence, since it shows its value to
-- transactions whose snapshot is older; it goes with its table.
create sequence @extschema@.names_deleted_seq owned by @extschema@._private_tasks.id;

create table @extschema@._private_job_queues (
  id integer generated always as identity (sequence name @extschema@.job_queues_id_seq),
  queue_name text not null,
  locked_at timestamptz,
  locked_by text,
  is_available boolean not null generated always as (locked_at is null) stored,
  constraint job_queues_pkey1 primary key (id),
  constraint job_queues_queue_name_key unique (queue_name),
  constraint job_queues_queue_name_check check (pg_catalog.length(queue_name) <= 128)
);
alter table @extschema@._private_job_queues enable row level security;
-- A queue's row is changed twice for each of its jobs: with room on its page, its indexes are not.
alter table @extschema@._private_job_queues set (fillfactor = 30);

create table @extschema@._private_jobs (
  id bigint generated always as identity (sequence name @extschema@.jobs_id_seq1),
  job_queue_id integer,
  task_id integer not null,
  payload json not null default '{}'::json,
  priority smallint not null default 0,
  run_at timestamptz not null default pg_catalog.now(),
  attempts smallint not null default 0,
  max_attempts smallint not null default 25,
  last_error text,
  created_at timestamptz not null default pg_catalog.now(),
  updated_at timestamptz not null default pg_catalog.now(),
  key text,
  locked_at timestamptz,
  locked_by text,
  revision integer not null default 0,
  flags jsonb,
  is_available boolean not null
    generated always as (locked_at is null and attempts < max_attempts) stored,
  constraint jobs_pkey1 primary key (id),
  constraint jobs_key_check check (pg_catalog.length(key) > 0 and pg_catalog.length(key) <= 512),
  constraint jobs_max_attempts_check check (max_attempts >= 1)
);
alter table @extschema@._private_jobs enable row level security;

-- Most jobs have no key and need no entry here.
create unique index jobs_key_key1 on @extschema@._private_jobs (key) where key is not null;

-- The order in which jobs are taken, by our get_jobs and by Node's workers.
create index jobs_order_idx on @extschema@._private_jobs (priority, run_at, id)
  where is_available;

-- A partition is one task in one queue (queue 0: none): either all of its jobs can run or none can.
-- When the head of the order is full of jobs that cannot, get_jobs steps from partition to
-- partition.
create index jobs_task_queue_idx on @extschema@._private_jobs (
  ((coalesce(job_queue_id, 0)::bigint << 32) | task_id), priority, run_at, id
) where is_available;

create table @extschema@._private_known_crontabs (
  identifier text not null,
  known_since timestamptz not null,
  last_execution timestamptz,
  constraint known_crontabs_pkey primary key (identifier)
);
alter table @extschema@._private_known_crontabs enable row level security;

-- Who runs: Node's workers have no row here, and nothing is ever concluded from that.
create table @extschema@._private_heartbeats (
  worker_id text not null,
  started_at timestamptz not null,
  heartbeat_at timestamptz not null,
  alive_since timestamptz not null,
  refreshed_at timestamptz not null,
  task_identifiers text[],
  details json,
  is_busy boolean not null default false,
  constraint heartbeats_pkey primary key (worker_id)
);
alter table @extschema@._private_heartbeats enable row level security;

-- The ids of workers that ended or were presumed dead, for a day, so that none of them gets a job
-- any more. open_transactions: the transactions that were open then, and may still lock jobs in its
-- name; empty: they have not been listed yet; null: there are none left.
create table @extschema@._private_ended_workers (
  worker_id text not null,
  ended_at timestamptz not null,
  open_transactions text[] default '{}'::text[],
  constraint ended_workers_pkey primary key (worker_id)
);
alter table @extschema@._private_ended_workers enable row level security;

create table @extschema@._private_crashes (
  job_id bigint not null,
  crashes integer not null,
  crashed_at timestamptz not null,
  constraint crashes_pkey primary key (job_id)
);
alter table @extschema@._private_crashes enable row level security;

-- At most one row: without it the defaults hold.
create table @extschema@._private_settings (
  id boolean not null default true,
  dead_after interval not null,
  max_crashes integer not null,
  keep_failed interval,
  failed_deleted_at timestamptz,
  swept_to bigint not null default 0,
  constraint settings_pkey primary key (id),
  constraint settings_id_check check (id)
);
alter table @extschema@._private_settings enable row level security;

-- When workers without a heartbeat, such as Node's, looked for jobs: a row in five minutes, for ten
-- minutes. Without a key, so that no one waits to write one.
create table @extschema@._private_unreported_claims (
  claimed_at timestamptz not null
);
alter table @extschema@._private_unreported_claims enable row level security;

-- What is paused, and what is limited. A name may stand for many: it begins like them and ends in
-- an asterisk. The scope all, with the name *, is everything.
create table @extschema@._private_pauses (
  scope text not null,
  name text not null,
  until timestamptz not null,
  reason text,
  paused_at timestamptz not null,
  paused_by text not null,
  constraint pauses_pkey primary key (scope, name),
  constraint pauses_scope_check check (scope in ('all', 'task', 'queue'))
);
alter table @extschema@._private_pauses enable row level security;

create index pauses_pattern_idx on @extschema@._private_pauses (scope)
  where pg_catalog.right(name, 1) = '*';

create table @extschema@._private_limits (
  scope text not null,
  name text not null,
  max_running integer,
  rate integer,
  per interval,
  burst integer,
  spacing bigint,
  constraint limits_pkey primary key (scope, name),
  constraint limits_scope_check check (scope in ('task', 'queue'))
);
alter table @extschema@._private_limits enable row level security;

create index limits_pattern_idx on @extschema@._private_limits (scope)
  where pg_catalog.right(name, 1) = '*';

-- One row a task or queue that jobs were claimed of under a limit. Whoever claims more locks it.
-- job_ids may name jobs that have ended: those that are still claimed count, by the table of jobs.
-- While anything is paused there is a row of the scope pause, and while anything is limited one of
-- the scope limit, so that get_jobs has to look at one table only.
create table @extschema@._private_limit_states (
  scope text not null,
  name text not null,
  job_ids bigint[] not null default '{}'::bigint[],
  started_at timestamptz,
  next_start_at timestamptz,
  wait_until timestamptz,
  is_full boolean not null default false,
  is_wanted boolean not null default false,
  constraint limit_states_pkey primary key (scope, name)
);
alter table @extschema@._private_limit_states enable row level security;
alter table @extschema@._private_limit_states set (fillfactor = 30);
alter table @extschema@._private_limit_states alter column job_ids set storage external;

-- The running jobs that were cancelled, until they are gone.
create table @extschema@._private_cancellations (
  job_id bigint not null,
  reason text,
  cancelled_by text not null,
  cancelled_at timestamptz not null,
  constraint cancellations_pkey primary key (job_id)
);
alter table @extschema@._private_cancellations enable row level security;

-- The schedules that clients have set. One that was unscheduled stays for a while, so that it can
-- be set again without a run lost or doubled.
create table @extschema@._private_schedules (
  name text not null,
  task text not null,
  cron text not null,
  tz text not null,
  payload json not null default '{}'::json,
  queue_name text,
  priority integer,
  max_attempts integer,
  job_key text,
  flags text[],
  catch_up interval not null default interval '0',
  overlap text not null default 'allow',
  is_paused boolean not null default false,
  next_runs timestamptz[] not null default '{}'::timestamptz[],
  last_run_at timestamptz,
  last_job_id bigint,
  last_error text,
  unscheduled_at timestamptz,
  constraint schedules_pkey primary key (name),
  constraint schedules_overlap_check check (overlap in ('allow', 'skip', 'replace'))
);
alter table @extschema@._private_schedules enable row level security;

-- Of which tasks history is kept; the task * is all that have no row of their own.
create table @extschema@._private_histories (
  task text not null,
  keep interval not null,
  results boolean not null,
  payloads boolean not null,
  max_bytes integer not null,
  is_kept boolean not null default true,
  constraint histories_pkey primary key (task)
);
alter table @extschema@._private_histories enable row level security;

-- The jobs that ended. Its partitions are made and dropped as time goes by, and have their indexes
-- each for itself: a dump restores them into a table that the extension has made already, whose own
-- indexes would be there twice.
create table @extschema@._private_history (
  job_id bigint not null,
  state text not null,
  task_identifier text not null,
  queue_name text,
  key text,
  priority smallint not null,
  flags jsonb,
  attempts smallint not null,
  max_attempts smallint not null,
  run_at timestamptz not null,
  created_at timestamptz not null,
  started_at timestamptz,
  finished_at timestamptz not null,
  duration interval,
  worker_id text,
  error text,
  earlier_attempts jsonb,
  result json,
  result_problem text,
  payload json
) partition by range (finished_at);
alter table @extschema@._private_history enable row level security;

create table @extschema@._private_history_partitions (
  name text not null,
  starts_at timestamptz not null,
  ends_at timestamptz not null,
  constraint history_partitions_pkey primary key (ends_at)
);
alter table @extschema@._private_history_partitions enable row level security;

-- The attempts of jobs that have not ended, or failed for good, where their history is kept.
create table @extschema@._private_attempts (
  job_id bigint not null,
  ended_at timestamptz not null,
  attempt smallint not null,
  started_at timestamptz,
  worker_id text,
  outcome text not null,
  error text,
  constraint attempts_pkey primary key (job_id, ended_at)
);
alter table @extschema@._private_attempts enable row level security;

-- How far running jobs say that they are.
create table @extschema@._private_progress (
  job_id bigint not null,
  progress real,
  message text,
  reported_at timestamptz not null,
  constraint progress_pkey primary key (job_id)
);
alter table @extschema@._private_progress enable row level security;
alter table @extschema@._private_progress set (fillfactor = 50);

-- Who waits for results at the moment, and so is notified.
create table @extschema@._private_result_waits (
  waiter text not null,
  until timestamptz not null,
  constraint result_waits_pkey primary key (waiter)
);
alter table @extschema@._private_result_waits enable row level security;

-- The tasks of jobs that are added when one of a task fails for good; the task * is any.
create table @extschema@._private_dead_letters (
  failed_task text not null,
  task text not null,
  constraint dead_letters_pkey primary key (failed_task)
);
alter table @extschema@._private_dead_letters enable row level security;

-- What payloads have to fit, by task. Quick is a condition that holds for most that do; known are
-- the members that an object may have, where it may have no others.
create table @extschema@._private_payload_schemas (
  task text not null,
  schema json not null,
  on_invalid text not null,
  quick jsonpath,
  known text[],
  set_at timestamptz not null,
  set_by text not null,
  constraint payload_schemas_pkey primary key (task),
  constraint payload_schemas_on_invalid_check check (on_invalid in ('reject', 'warn'))
);
alter table @extschema@._private_payload_schemas enable row level security;

-- The schema revisions that Node's graphile-worker keeps here. It migrates when its own revision is
-- higher than the highest id, and refuses to run when its own is below the highest breaking one.

create table @extschema@.migrations (
  id integer not null,
  ts timestamptz not null default pg_catalog.now(),
  breaking boolean not null default false,
  constraint migrations_pkey primary key (id)
);

insert into @extschema@.migrations (id, breaking)
select revision.id, revision.id in (1, 3, 11, 13, 14, 16, 19)
from pg_catalog.generate_series(1, 20) as revision (id);

-- What add_jobs takes, one element a job. Null attributes mean the defaults of add_job.
create type @extschema@.job_spec as (
  identifier text,
  payload json,
  queue_name text,
  run_at timestamptz,
  max_attempts smallint,
  job_key text,
  priority smallint,
  flags text[]
);

-- What get_jobs returns: the job with the names that a worker needs instead of their numbers.
create type @extschema@.claimed_job as (
  id bigint,
  task_identifier text,
  payload json,
  queue_name text,
  priority smallint,
  run_at timestamptz,
  attempts smallint,
  max_attempts smallint,
  last_error text,
  created_at timestamptz,
  updated_at timestamptz,
  key text,
  locked_at timestamptz,
  locked_by text,
  revision integer,
  flags jsonb
);

-- The state of each task and queue: its limit, the best of those that cover its name; how many of
-- the jobs noted for it are still claimed; how many more may be claimed now (slots), at least:
-- where that is a thousand or more, noted jobs are taken for claimed ones, since to look costs
-- time; when the last one was; and how long the rate makes the next one wait (wait, in
-- microseconds). Without a limit a queue runs one job at a time, a task any number. To be read by
-- scope and id or name, for one row: in a lateral subquery with limit 1, since a join would compute
-- the states of all names.
--
-- The rate: each start moves next_start_at on by the spacing, from now at the earliest; it may lie
-- less than burst spacings ahead. Where it lies further ahead than any start can have put it, the
-- clock was set back.
create view @extschema@._private_control_states as
select
  'task' as scope, names.id, names.identifier as name, limits.name as limit_name,
  limits.max_running, limits.spacing, limits.burst, states.started_at,
  (
    select pg_catalog.count(*)
    from @extschema@._private_jobs as jobs
    where jobs.id = any (states.job_ids) and jobs.locked_at is not null
  ) as running,
  case
    when exists (
      select from (
        select pauses.*
        from @extschema@._private_pauses as pauses
        where pauses.scope = 'task' and pauses.name = names.identifier
        union all
        select pauses.*
        from @extschema@._private_pauses as pauses
        where pauses.scope = 'task'
        and pg_catalog.right(pauses.name, 1) = '*'
        and pauses.name <> names.identifier
        and pg_catalog.starts_with(names.identifier, pg_catalog.left(pauses.name, -1))
      ) as pauses
      where pauses.until > pg_catalog.statement_timestamp()
    )
      then 0
    else greatest(0, least(
      case
        when coalesce(pg_catalog.cardinality(states.job_ids), 0) <= limits.max_running - 1000
          then limits.max_running - coalesce(pg_catalog.cardinality(states.job_ids), 0)
        else coalesce(limits.max_running, 2147483647) - (
          select pg_catalog.count(*)
          from @extschema@._private_jobs as jobs
          where jobs.id = any (states.job_ids) and jobs.locked_at is not null
        )
      end,
      (limits.burst * limits.spacing - rates.ahead) / limits.spacing
    ))::integer
  end as slots,
  greatest(rates.ahead - (limits.burst - 1) * limits.spacing, 0) as wait
from @extschema@._private_tasks as names
left join lateral (
  select covering.name, covering.max_running, covering.spacing, covering.burst
  from (
    select limits.*
    from @extschema@._private_limits as limits
    where limits.scope = 'task' and limits.name = names.identifier
    union all
    select limits.*
    from @extschema@._private_limits as limits
    where limits.scope = 'task'
    and pg_catalog.right(limits.name, 1) = '*'
    and limits.name <> names.identifier
    and pg_catalog.starts_with(names.identifier, pg_catalog.left(limits.name, -1))
  ) as covering
  order by covering.name = names.identifier desc, pg_catalog.length(covering.name) desc
  limit 1
) as limits on true
left join lateral (
  select states.job_ids, states.started_at, states.next_start_at
  from @extschema@._private_limit_states as states
  where states.scope = 'task' and states.name = names.identifier
  limit 1
) as states on true
cross join lateral (
  select coalesce(greatest(0, least(
    extract(epoch from states.next_start_at - pg_catalog.statement_timestamp()) * 1000000,
    case when states.next_start_at is not null then limits.burst * limits.spacing end
  )), 0)::bigint as ahead
) as rates
union all
select
  'queue' as scope, names.id, names.queue_name as name, limits.name as limit_name,
  limits.max_running, limits.spacing, limits.burst, states.started_at,
  (
    select pg_catalog.count(*)
    from @extschema@._private_jobs as jobs
    where jobs.id = any (states.job_ids) and jobs.locked_at is not null
  ) as running,
  case
    when exists (
      select from (
        select pauses.*
        from @extschema@._private_pauses as pauses
        where pauses.scope = 'queue' and pauses.name = names.queue_name
        union all
        select pauses.*
        from @extschema@._private_pauses as pauses
        where pauses.scope = 'queue'
        and pg_catalog.right(pauses.name, 1) = '*'
        and pauses.name <> names.queue_name
        and pg_catalog.starts_with(names.queue_name, pg_catalog.left(pauses.name, -1))
      ) as pauses
      where pauses.until > pg_catalog.statement_timestamp()
    )
      then 0
    else greatest(0, least(
      case
        when coalesce(pg_catalog.cardinality(states.job_ids), 0) <= limits.max_running - 1000
          then limits.max_running - coalesce(pg_catalog.cardinality(states.job_ids), 0)
        else coalesce(limits.max_running, 1) - (
          select pg_catalog.count(*)
          from @extschema@._private_jobs as jobs
          where jobs.id = any (states.job_ids) and jobs.locked_at is not null
        )
      end,
      (limits.burst * limits.spacing - rates.ahead) / limits.spacing
    ))::integer
  end as slots,
  greatest(rates.ahead - (limits.burst - 1) * limits.spacing, 0) as wait
from @extschema@._private_job_queues as names
left join lateral (
  select covering.name, covering.max_running, covering.spacing, covering.burst
  from (
    select limits.*
    from @extschema@._private_limits as limits
    where limits.scope = 'queue' and limits.name = names.queue_name
    union all
    select limits.*
    from @extschema@._private_limits as limits
    where limits.scope = 'queue'
    and pg_catalog.right(limits.name, 1) = '*'
    and limits.name <> names.queue_name
    and pg_catalog.starts_with(names.queue_name, pg_catalog.left(limits.name, -1))
  ) as covering
  order by covering.name = names.queue_name desc, pg_catalog.length(covering.name) desc
  limit 1
) as limits on true
left join lateral (
  select states.job_ids, states.started_at, states.next_start_at
  from @extschema@._private_limit_states as states
  where states.scope = 'queue' and states.name = names.queue_name
  limit 1
) as states on true
cross join lateral (
  select coalesce(greatest(0, least(
    extract(epoch from states.next_start_at - pg_catalog.statement_timestamp()) * 1000000,
    case when states.next_start_at is not null then limits.burst * limits.spacing end
  )), 0)::bigint as ahead
) as rates;

-- The stable ways to read the queue. They run with their owner's rights, so that a role which was
-- granted select sees every row, whatever row level security says about the tables below.
create view @extschema@.jobs as
select
  jobs.id,
  job_queues.queue_name,
  tasks.identifier as task_identifier,
  jobs.priority,
  jobs.run_at,
  jobs.attempts,
  jobs.max_attempts,
  jobs.last_error,
  jobs.created_at,
  jobs.updated_at,
  jobs.key,
  jobs.locked_at,
  jobs.locked_by,
  jobs.revision,
  jobs.flags
from @extschema@._private_jobs as jobs
join @extschema@._private_tasks as tasks on tasks.id = jobs.task_id
left join @extschema@._private_job_queues as job_queues on job_queues.id = jobs.job_queue_id;

-- Workers that say so; Node's do not, and are known by what they hold only.
create view @extschema@.workers as
select
  heartbeats.worker_id,
  heartbeats.started_at,
  heartbeats.heartbeat_at,
  greatest(heartbeats.heartbeat_at, pg_catalog.pg_postmaster_start_time())
    >= pg_catalog.clock_timestamp() - coalesce(
      (select settings.dead_after from @extschema@._private_settings as settings),
      interval '30 seconds'
    ) as is_alive,
  heartbeats.task_identifiers,
  heartbeats.details,
  heartbeats.is_busy
from @extschema@._private_heartbeats as heartbeats;

-- The ids of workers that have ended, or were presumed dead, within the last day. What is locked by
-- one of them is about to be freed.
create view @extschema@.ended_workers as
select ended.worker_id, ended.ended_at
from @extschema@._private_ended_workers as ended;

create view @extschema@.queues as
select queues.id, queues.queue_name, queues.locked_at, queues.locked_by
from @extschema@._private_job_queues as queues;

create view @extschema@.crontabs as
select crontabs.identifier, crontabs.known_since, crontabs.last_execution
from @extschema@._private_known_crontabs as crontabs;

-- What is paused now. A pause that has no end lasts until it is resumed.
create view @extschema@.pauses as
select
  pauses.scope,
  pauses.name,
  nullif(pauses.until, 'infinity') as until,
  pauses.reason,
  pauses.paused_at,
  pauses.paused_by
from @extschema@._private_pauses as pauses
where pauses.until > pg_catalog.clock_timestamp();

-- Each task and queue that jobs were claimed of lately under a limit: which one decides, how many
-- of its jobs run, how many more may start now, and when the rate allows the next one.
create view @extschema@.limit_states as
select
  noted.scope,
  noted.name,
  states.limit_name,
  states.max_running,
  states.running,
  states.slots,
  noted.started_at,
  pg_catalog.clock_timestamp() + states.wait * interval '1 microsecond' as next_start_at
from @extschema@._private_limit_states as noted
cross join lateral (
  select states.*
  from @extschema@._private_control_states as states
  where states.scope = noted.scope and states.name = noted.name
  limit 1
) as states;

-- The limits that are set, and how many jobs run that each of them counts.
create view @extschema@.limits as
select
  limits.scope,
  limits.name,
  limits.max_running,
  limits.rate,
  limits.per,
  limits.burst,
  coalesce(uses.running, 0)::bigint as running
from @extschema@._private_limits as limits
left join (
  select states.scope, states.limit_name, pg_catalog.sum(states.running) as running
  from @extschema@.limit_states as states
  group by states.scope, states.limit_name
) as uses on uses.scope = limits.scope and uses.limit_name = limits.name;

-- The schedules that clients have set, with their next runs.
create view @extschema@.schedules as
select
  schedules.name,
  schedules.task,
  schedules.cron,
  schedules.tz,
  schedules.payload,
  schedules.queue_name,
  schedules.priority,
  schedules.max_attempts,
  schedules.job_key,
  schedules.flags,
  schedules.catch_up,
  schedules.overlap,
  schedules.is_paused,
  schedules.next_runs,
  schedules.last_run_at,
  schedules.last_job_id,
  schedules.last_error
from @extschema@._private_schedules as schedules
where schedules.unscheduled_at is null;

-- Of which tasks history is kept; the task * is all that have no row of their own.
create view @extschema@.histories as
select
  histories.task,
  histories.keep,
  histories.results,
  histories.payloads,
  histories.max_bytes,
  histories.is_kept
from @extschema@._private_histories as histories;

-- The jobs that ended, where their history is kept; payloads are read by get_job.
create view @extschema@.job_history as
select
  history.job_id,
  history.state,
  history.task_identifier,
  history.queue_name,
  history.key,
  history.priority,
  history.flags,
  history.attempts,
  history.max_attempts,
  history.run_at,
  history.created_at,
  history.started_at,
  history.finished_at,
  history.duration,
  history.worker_id,
  history.error,
  history.result,
  history.result_problem,
  coalesce(history.earlier_attempts, '[]') || case
      when history.started_at is null then '[]'::jsonb
      else pg_catalog.jsonb_build_array(pg_catalog.jsonb_build_object(
        'attempt', history.attempts,
        'started_at', history.started_at,
        'ended_at', history.finished_at,
        'worker_id', history.worker_id,
        'outcome', history.state,
        'error', history.error
      ))
    end as attempt_log
from @extschema@._private_history as history;

-- The jobs that failed for good, and all their attempts, where their history is kept.
create view @extschema@.failed_jobs as
select
  jobs.id,
  (
      select queues.queue_name
      from @extschema@._private_job_queues as queues
      where queues.id = jobs.job_queue_id
    ) as queue_name,
  (
        select tasks.identifier
        from @extschema@._private_tasks as tasks
        where tasks.id = jobs.task_id
      ) as task_identifier,
  jobs.priority,
  jobs.run_at,
  jobs.attempts,
  jobs.max_attempts,
  jobs.last_error,
  jobs.created_at,
  jobs.updated_at as failed_at,
  jobs.key,
  jobs.flags,
  (
    select pg_catalog.jsonb_agg(
        pg_catalog.jsonb_build_object(
          'attempt', attempts.attempt,
          'started_at', attempts.started_at,
          'ended_at', attempts.ended_at,
          'worker_id', attempts.worker_id,
          'outcome', attempts.outcome,
          'error', attempts.error
        )
        order by attempts.ended_at
      )
    from @extschema@._private_attempts as attempts
    where attempts.job_id = jobs.id
  ) as attempt_log
from @extschema@._private_jobs as jobs
where jobs.locked_at is null and jobs.attempts >= jobs.max_attempts;

-- How far running jobs say that they are.
create view @extschema@.job_progress as
select progress.job_id, progress.progress, progress.message, progress.reported_at
from @extschema@._private_progress as progress
join @extschema@._private_jobs as jobs on jobs.id = progress.job_id
where jobs.locked_at is not null;

-- The tasks of jobs that are added when one of a task fails for good; the task * is any.
create view @extschema@.dead_letters as
select letters.failed_task, letters.task
from @extschema@._private_dead_letters as letters;

-- What payloads have to fit, by task.
create view @extschema@.payload_schemas as
select schemas.task, schemas.schema, schemas.on_invalid, schemas.set_at, schemas.set_by
from @extschema@._private_payload_schemas as schemas;

-- Some of the jobs, picked by chance page by page: all of them while the table has at most 500
-- pages. Each stands for `weight` jobs, so that counts of millions of jobs take milliseconds.
create view @extschema@.job_sample as
select
  jobs.id,
  queues.queue_name,
  tasks.identifier as task_identifier,
  case
    when jobs.locked_at is not null then 'running'
    when jobs.attempts >= jobs.max_attempts then 'failed'
    when jobs.run_at > pg_catalog.now() then 'scheduled'
    else 'ready'
  end as state,
  100 / sampled.percent as weight
from @extschema@._private_jobs as jobs tablesample system (least(
    100,
    50000.0 * pg_catalog.current_setting('block_size')::integer / greatest(
      pg_catalog.pg_relation_size('@extschema@._private_jobs'::pg_catalog.regclass), 1
    )
  )::float8)
cross join (select least(
    100,
    50000.0 * pg_catalog.current_setting('block_size')::integer / greatest(
      pg_catalog.pg_relation_size('@extschema@._private_jobs'::pg_catalog.regclass), 1
    )
  )::float8 as percent offset 0) as sampled
join @extschema@._private_tasks as tasks on tasks.id = jobs.task_id
left join @extschema@._private_job_queues as queues on queues.id = jobs.job_queue_id;

-- The next job of each priority that has jobs which wait.
create view @extschema@.next_jobs as
with recursive step (priority, run_at, id) as (
    (
      select jobs.priority, jobs.run_at, jobs.id
      from @extschema@._private_jobs as jobs
      where jobs.is_available
      order by jobs.priority, jobs.run_at, jobs.id
      limit 1
    )
    union all
    select further.priority, further.run_at, further.id
    from step
    cross join lateral (
      select jobs.priority, jobs.run_at, jobs.id
      from @extschema@._private_jobs as jobs
      where jobs.is_available and jobs.priority > step.priority
      order by jobs.priority, jobs.run_at, jobs.id
      limit 1
    ) as further
  )
select step.priority, step.run_at, step.id
from step;

-- Raises the error that names what is wrong with a job to be added, and how to mend it. Called only
-- when something is wrong, so that good calls pay for one condition.
create function @extschema@._reject_job(
  identifier text,
  queue_name text,
  max_attempts integer,
  job_key text,
  priority integer,
  flags text[]
)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if identifier is null then
    raise exception 'Task identifier is null'
      using errcode = 'GWBID', hint = 'Pass the name of the task, for example ''send_email''.';
  elsif identifier = '' then
    raise exception 'Task identifier is empty'
      using errcode = 'GWBID', hint = 'Pass the name of the task, for example ''send_email''.';
  elsif pg_catalog.length(identifier) > 128 then
    raise exception 'Task identifier is too long: % characters, starting with "%"',
      pg_catalog.length(identifier), pg_catalog.left(identifier, 40)
      using errcode = 'GWBID', hint = 'Use at most 128 characters.';
  elsif pg_catalog.length(queue_name) > 128 then
    raise exception 'Queue name is too long: % characters, starting with "%"',
      pg_catalog.length(queue_name), pg_catalog.left(queue_name, 40)
      using errcode = 'GWBQN', hint = 'Use at most 128 characters, or a digest of the long name.';
  elsif job_key = '' then
    raise exception 'Job key is empty'
      using errcode = 'GWBJK', hint = 'Pass null for a job without a key.';
  elsif pg_catalog.length(job_key) > 512 then
    raise exception 'Job key is too long: % characters, starting with "%"',
      pg_catalog.length(job_key), pg_catalog.left(job_key, 40)
      using errcode = 'GWBJK', hint = 'Use at most 512 characters, or a digest of the long key.';
  elsif max_attempts not between 1 and 32767 then
    raise exception 'Max attempts is out of range: %', max_attempts
      using errcode = 'GWBMA', hint = 'Use 1 to 32767, or null for the default of 25.';
  elsif priority not between -32768 and 32767 then
    raise exception 'Priority is out of range: %', priority
      using errcode = 'GWBPR', hint = 'Use -32768 to 32767; lower numbers run first.';
  elsif pg_catalog.array_ndims(flags) > 1 then
    raise exception 'Flags have % dimensions: %', pg_catalog.array_ndims(flags), flags
      using errcode = 'GWBFL', hint = 'Pass a plain list, for example array[''slow'', ''eu''].';
  elsif pg_catalog.array_position(flags, null) is not null then
    raise exception 'Flags hold a null element: %', flags
      using errcode = 'GWBFL', hint = 'Leave the element out.';
  end if;
end;
$$;

-- Raises the error for a job key mode that does not exist.
create function @extschema@._reject_mode(
  job_key_mode text
)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception 'Job key mode is unknown: "%"', job_key_mode
    using errcode = 'GWBKM', hint = 'Use replace, preserve_run_at or unsafe_dedupe.';
end;
$$;

-- The payload of a keyed job that is added again: two arrays are joined, old elements first,
-- anything else is replaced. Works on the text, so that key order and duplicate keys stay as they
-- were sent.
create function @extschema@._merge_payloads(
  old_payload json,
  new_payload json
)
returns json
language sql
immutable
parallel safe
as $$
  select case
    when pg_catalog.json_typeof(old_payload) operator(pg_catalog.<>) 'array'
      or pg_catalog.json_typeof(new_payload) operator(pg_catalog.<>) 'array'
      or pg_catalog.json_array_length(old_payload) operator(pg_catalog.=) 0
      then new_payload
    when pg_catalog.json_array_length(new_payload) operator(pg_catalog.=) 0
      then old_payload
    else pg_catalog.concat(
      pg_catalog.left(pg_catalog.rtrim(old_payload::pg_catalog.text, e' \t\n\r'), -1),
      ',',
      pg_catalog.substr(pg_catalog.ltrim(new_payload::pg_catalog.text, e' \t\n\r'), 2)
    )::pg_catalog.json
  end
$$;

-- Makes sure that the names have a row each. A name that is known costs no sequence value; the
-- names are inserted in order, so that two sessions which bring the same new ones do not deadlock.
create function @extschema@._ensure_names(
  identifiers text[],
  queue_names text[]
)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into @extschema@._private_tasks (identifier)
  select distinct wanted.identifier
  from pg_catalog.unnest(identifiers) as wanted (identifier)
  where not exists (
    select from @extschema@._private_tasks as tasks where tasks.identifier = wanted.identifier
  )
  order by wanted.identifier
  on conflict do nothing;

  insert into @extschema@._private_job_queues (queue_name)
  select distinct wanted.queue_name
  from pg_catalog.unnest(queue_names) as wanted (queue_name)
  where wanted.queue_name is not null
  and not exists (
    select from @extschema@._private_job_queues as queues
    where queues.queue_name = wanted.queue_name
  )
  order by wanted.queue_name
  on conflict do nothing;
end;
$$;

-- Inserts a job, or applies it to the job that holds its key, and always returns a row. A job that
-- cannot be updated any more (it runs, or has failed for good) gives up its key and will not run
-- again; the new job takes its place. Whoever changes the keyed row at the same moment is waited
-- for, and the loop looks again, so no request is lost. The arguments are valid already, but for
-- the payload.
create function @extschema@._upsert_job(
  id bigint,
  identifier text,
  payload json,
  queue_name text,
  run_at timestamptz,
  max_attempts integer,
  job_key text,
  priority integer,
  flags jsonb,
  job_key_mode text
)
returns @extschema@._private_jobs
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_job @extschema@._private_jobs;
  v_is_checked boolean := false;
begin
  loop
    insert into @extschema@._private_jobs as jobs (
      id, task_id, job_queue_id, payload, run_at, max_attempts, key, priority, flags
    )
    overriding system value
    select
      coalesce(_upsert_job.id, pg_catalog.nextval('@extschema@.jobs_id_seq1')),
      tasks.id,
      queues.id,
      coalesce(_upsert_job.payload, '{}'::json),
      coalesce(_upsert_job.run_at, pg_catalog.now()),
      coalesce(_upsert_job.max_attempts, 25)::smallint,
      _upsert_job.job_key,
      coalesce(_upsert_job.priority, 0)::smallint,
      _upsert_job.flags
    from @extschema@._private_tasks as tasks
    left join @extschema@._private_job_queues as queues
      on queues.queue_name = _upsert_job.queue_name
    where tasks.identifier = _upsert_job.identifier
    and (_upsert_job.queue_name is null or queues.id is not null)
    and (v_is_checked or not exists (
      select from @extschema@._private_payload_schemas as schemas
      where schemas.task = tasks.identifier
      and case
        -- What jsonb cannot hold is told of, with words of ours, by the thorough check.
        when pg_catalog.strpos(_upsert_job.payload::text, e'\\u0000') > 0 then false
        else pg_catalog.jsonb_path_exists(
          coalesce(_upsert_job.payload, '{}')::jsonb, schemas.quick, '{}', true
        )
        and (
          schemas.known is null
          or coalesce(_upsert_job.payload, '{}')::jsonb - schemas.known = '{}'
          or pg_catalog.json_typeof(_upsert_job.payload) = 'array'
        )
      end is not true
    ))
    on conflict (key) where key is not null do update set
      task_id = case when job_key_mode = 'unsafe_dedupe' then jobs.task_id else excluded.task_id end,
      job_queue_id = case when job_key_mode = 'unsafe_dedupe' then jobs.job_queue_id
        else excluded.job_queue_id end,
      payload = case when job_key_mode = 'unsafe_dedupe' then jobs.payload
        else @extschema@._merge_payloads(jobs.payload, excluded.payload) end,
      run_at = case when job_key_mode = 'unsafe_dedupe'
        or (job_key_mode = 'preserve_run_at' and jobs.attempts = 0) then jobs.run_at
        else excluded.run_at end,
      max_attempts = case when job_key_mode = 'unsafe_dedupe' then jobs.max_attempts
        else excluded.max_attempts end,
      priority = case when job_key_mode = 'unsafe_dedupe' then jobs.priority
        else excluded.priority end,
      flags = case when job_key_mode = 'unsafe_dedupe' then jobs.flags else excluded.flags end,
      attempts = case when job_key_mode = 'unsafe_dedupe' then jobs.attempts else 0 end,
      last_error = case when job_key_mode = 'unsafe_dedupe' then jobs.last_error end,
      revision = least(jobs.revision, 2147483646) + 1,
      updated_at = pg_catalog.now()
    where jobs.is_available or job_key_mode = 'unsafe_dedupe'
    returning * into v_job;
    exit when found;

    if not v_is_checked then
      perform @extschema@._check_payload(identifier, payload);
      v_is_checked := true;
    end if;
    perform @extschema@._ensure_names(array[identifier], array[queue_name]);
    update @extschema@._private_jobs as jobs
    set
      key = null, attempts = jobs.max_attempts,
      updated_at = greatest(pg_catalog.now(), jobs.locked_at + interval '1 microsecond')
    where jobs.key = job_key and not jobs.is_available and job_key_mode <> 'unsafe_dedupe';
  end loop;
  return v_job;
end;
$$;

-- Called when a lock was not had in time and all locks of the attempt were let go: waits for a
-- moment, with empty hands, or raises where the caller does not want to wait any longer.
create function @extschema@._before_lock_retry(
  lock_timeout text,
  started timestamptz,
  max_wait interval
)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if lock_timeout <> '0' then
    max_wait := least(max_wait, lock_timeout::interval);
  end if;
  if pg_catalog.clock_timestamp() - started > max_wait then
    raise exception 'Another transaction has held a job for %', max_wait
      using errcode = 'lock_not_available',
        hint = 'Nothing was changed. Repeat the call, or find a long transaction in pg_stat_activity.';
  end if;
  perform pg_catalog.pg_sleep(0.02 * pg_catalog.random());
end;
$$;

-- The row that add_job returns of a job that was there already, for a caller who may not read what
-- others wrote: the content only where it is what the caller passed.
create function @extschema@._without_content(
  job @extschema@._private_jobs,
  given_payload json,
  job_key_mode text
)
returns @extschema@._private_jobs
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if job.revision > 0 then
    job.last_error := null;
    if job_key_mode = 'unsafe_dedupe' then
      job.payload := null;
      job.flags := null;
    elsif job.payload::text <> coalesce(given_payload, '{}'::json)::text then
      job.payload := null;
    end if;
  end if;
  return job;
end;
$$;

-- Adds one job in the caller's transaction and returns its row; null arguments mean the defaults.
-- A due job notifies the workers when the transaction commits. Of a job that was there already, a
-- caller below the level observe gets no content but its own: no payload that others wrote.
create function @extschema@.add_job(
  identifier text,
  payload json = null,
  queue_name text = null,
  run_at timestamptz = null,
  max_attempts integer = null,
  job_key text = null,
  priority integer = null,
  flags text[] = null,
  job_key_mode text = 'replace'
)
returns @extschema@._private_jobs
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_job @extschema@._private_jobs;
begin
  -- The common case, a job without key, queue and flags for a known task, is this one condition and
  -- one statement: each expression costs a new transaction time.
  if pg_catalog.length(identifier) between 1 and 128
    and pg_catalog.num_nulls(queue_name, job_key, flags) = 3
    and coalesce(max_attempts, 1) between 1 and 32767
    and coalesce(priority, 0) between -32768 and 32767
    and job_key_mode = 'replace'
    and pg_catalog.current_setting('transaction_isolation') = 'read committed'
  then
    insert into @extschema@._private_jobs (task_id, payload, run_at, max_attempts, priority)
    select
      tasks.id,
      coalesce(add_job.payload, '{}'::json),
      coalesce(add_job.run_at, pg_catalog.now()),
      coalesce(add_job.max_attempts, 25)::smallint,
      coalesce(add_job.priority, 0)::smallint
    from @extschema@._private_tasks as tasks
    where tasks.identifier = add_job.identifier
    and not exists (
      select from @extschema@._private_payload_schemas as schemas
      where schemas.task = tasks.identifier
      and case
        -- What jsonb cannot hold is told of, with words of ours, by the thorough check.
        when pg_catalog.strpos(add_job.payload::text, e'\\u0000') > 0 then false
        else pg_catalog.jsonb_path_exists(
          coalesce(add_job.payload, '{}')::jsonb, schemas.quick, '{}', true
        )
        and (
          schemas.known is null
          or coalesce(add_job.payload, '{}')::jsonb - schemas.known = '{}'
          or pg_catalog.json_typeof(add_job.payload) = 'array'
        )
      end is not true
    )
    returning * into v_job;
    if found then
      if coalesce(run_at <= pg_catalog.now(), true) and coalesce(pg_catalog.current_setting('graphile_worker.notify', true), 'on')
            not in ('off', 'false', 'no', '0') then
        -- Without a call, which costs more than the question.
        if pg_catalog.current_setting('graphile_worker.notify', true) in ('on', 'true', 'yes', '1')
          or exists (select from @extschema@._private_heartbeats as workers where not workers.is_busy)
          or not exists (select from @extschema@._private_heartbeats)
          or exists (select from @extschema@._private_unreported_claims)
        then
          perform pg_catalog.pg_notify(
            'jobs:insert',
            '{"r":' || pg_catalog.random() || ',"count":' || 1 || '}'
          )
          where pg_catalog.current_setting('application_name') not like 'citus_internal%';
        end if;
      end if;
      return v_job;
    end if;
  end if;

  if add_job.identifier is null
    or pg_catalog.length(add_job.identifier) not between 1 and 128
    or pg_catalog.length(add_job.queue_name) > 128
    or pg_catalog.length(add_job.job_key) not between 1 and 512
    or add_job.max_attempts not between 1 and 32767
    or add_job.priority not between -32768 and 32767
    or pg_catalog.array_ndims(add_job.flags) > 1
    or pg_catalog.array_position(add_job.flags, null) is not null
  then
    perform @extschema@._reject_job(
      identifier, queue_name, max_attempts, job_key, priority, flags
    );
  end if;
  if job_key_mode not in ('replace', 'preserve_run_at', 'unsafe_dedupe') then
    perform @extschema@._reject_mode(job_key_mode);
  end if;
  if pg_catalog.current_setting('transaction_isolation') in ('repeatable read', 'serializable') then
    perform @extschema@._reject_old_snapshot();
  end if;

  v_job := @extschema@._upsert_job(
    null, identifier, payload, queue_name, run_at, max_attempts, job_key, priority,
    (select pg_catalog.jsonb_object_agg(flag, true) from pg_catalog.unnest(add_job.flags) as flag), coalesce(job_key_mode, 'replace')
  );

  if v_job.run_at <= pg_catalog.now()
    and (v_job.revision = 0 or job_key_mode is distinct from 'unsafe_dedupe')
    and coalesce(pg_catalog.current_setting('graphile_worker.notify', true), 'on')
    not in ('off', 'false', 'no', '0')
    and (pg_catalog.current_setting('graphile_worker.notify', true) in ('on', 'true', 'yes', '1')
      or @extschema@._any_worker_idle())
  then
    perform pg_catalog.pg_notify(
      'jobs:insert',
      '{"r":' || pg_catalog.random() || ',"count":' || 1 || '}'
    )
    where pg_catalog.current_setting('application_name') not like 'citus_internal%';
  end if;
  if v_job.revision > 0
    and (
      job_key_mode = 'unsafe_dedupe'
      or v_job.payload::text <> coalesce(add_job.payload, '{}'::json)::text
    )
    and not pg_catalog.has_table_privilege(
    coalesce(nullif(pg_catalog.current_setting('role'), 'none'), session_user),
    '@extschema@.jobs',
    'select'
  )
  then
    v_job := @extschema@._without_content(v_job, payload, coalesce(job_key_mode, 'replace'));
  end if;
  return v_job;
end;
$$;

-- Refuses the first bad spec, makes sure that all names have a row, and counts the specs with a key
-- and those that are due.
create function @extschema@._prepare_specs(
  specs @extschema@.job_spec[],
  out keyed bigint,
  out due bigint
)
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_invalid bigint;
  v_unknown bigint;
  v_doubtful bigint;
begin
  -- Until this transaction ends, no name that it has seen is deleted.
  lock table @extschema@._private_jobs in row exclusive mode;
  if pg_catalog.current_setting('transaction_isolation') in ('repeatable read', 'serializable') then
    perform @extschema@._reject_old_snapshot();
  end if;
  select
    pg_catalog.count(*) filter (where s.job_key is not null),
    pg_catalog.count(*) filter (where s.run_at is null or s.run_at <= pg_catalog.now()),
    pg_catalog.min(s.place) filter (where s.identifier is null
    or pg_catalog.length(s.identifier) not between 1 and 128
    or pg_catalog.length(s.queue_name) > 128
    or pg_catalog.length(s.job_key) not between 1 and 512
    or s.max_attempts not between 1 and 32767
    or s.priority not between -32768 and 32767
    or pg_catalog.array_ndims(s.flags) > 1
    or pg_catalog.array_position(s.flags, null) is not null),
    pg_catalog.count(*) filter (
      where tasks.id is null or (queues.id is null and s.queue_name is not null)
    ),
    pg_catalog.count(*) filter (where case
      when exists (select from @extschema@._private_payload_schemas)
        then exists (
          select from @extschema@._private_payload_schemas as schemas
          where schemas.task = s.identifier
          and case
            -- What jsonb cannot hold is told of, with words of ours, by the thorough check.
            when pg_catalog.strpos(s.payload::text, e'\\u0000') > 0 then false
            else pg_catalog.jsonb_path_exists(
              coalesce(s.payload, '{}')::jsonb, schemas.quick, '{}', true
            )
            and (
              schemas.known is null
              or coalesce(s.payload, '{}')::jsonb - schemas.known = '{}'
              or pg_catalog.json_typeof(s.payload) = 'array'
            )
          end is not true
        )
    end)
  into keyed, due, v_invalid, v_unknown, v_doubtful
  from rows from (pg_catalog.unnest(specs)) with ordinality as s (
      identifier, payload, queue_name, run_at, max_attempts, job_key, priority, flags, place
    )
  left join @extschema@._private_tasks as tasks on tasks.identifier = s.identifier
  left join @extschema@._private_job_queues as queues on queues.queue_name = s.queue_name;
  if v_invalid is not null then
    perform @extschema@._reject_job(
      s.identifier, s.queue_name, s.max_attempts, s.job_key, s.priority, s.flags
    )
    from rows from (pg_catalog.unnest(specs)) with ordinality as s (
      identifier, payload, queue_name, run_at, max_attempts, job_key, priority, flags, place
    )
    where s.place = v_invalid;
  end if;
  if v_doubtful > 0 then
    perform @extschema@._check_payload(s.identifier, s.payload)
    from rows from (pg_catalog.unnest(specs)) with ordinality as s (
      identifier, payload, queue_name, run_at, max_attempts, job_key, priority, flags, place
    )
    where exists (
      select from @extschema@._private_payload_schemas as schemas
      where schemas.task = s.identifier
      and case
        -- What jsonb cannot hold is told of, with words of ours, by the thorough check.
        when pg_catalog.strpos(s.payload::text, e'\\u0000') > 0 then false
        else pg_catalog.jsonb_path_exists(
          coalesce(s.payload, '{}')::jsonb, schemas.quick, '{}', true
        )
        and (
          schemas.known is null
          or coalesce(s.payload, '{}')::jsonb - schemas.known = '{}'
          or pg_catalog.json_typeof(s.payload) = 'array'
        )
      end is not true
    )
    order by s.place;
  end if;
  if v_unknown > 0 then
    perform @extschema@._ensure_names(
      pg_catalog.array_agg(distinct s.identifier), pg_catalog.array_agg(distinct s.queue_name)
    )
    from rows from (pg_catalog.unnest(specs)) with ordinality as s (
      identifier, payload, queue_name, run_at, max_attempts, job_key, priority, flags, place
    );
  end if;
end;
$$;

-- Adds the specs that have no id in `added`, one by one in the order of their keys, and returns all
-- rows: those of `jobs`, as they were before, with theirs.
create function @extschema@._upsert_jobs(
  specs @extschema@.job_spec[],
  ids bigint[],
  job_key_modes text[],
  added bigint[],
  jobs @extschema@._private_jobs[]
)
returns @extschema@._private_jobs[]
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  r record;
begin
  for r in
    select s.*
    from rows from (
      pg_catalog.unnest(specs), pg_catalog.unnest(ids), pg_catalog.unnest(job_key_modes),
      pg_catalog.unnest(added)
    ) with ordinality as s (
      identifier, payload, queue_name, run_at, max_attempts, job_key, priority, flags,
      id, job_key_mode, added, place
    )
    where s.added is null
    order by s.job_key collate "C", s.place
  loop
    jobs[r.place] := @extschema@._upsert_job(
      r.id, r.identifier, r.payload, r.queue_name, r.run_at, r.max_attempts, r.job_key,
      r.priority, (select pg_catalog.jsonb_object_agg(flag, true) from pg_catalog.unnest(r.flags) as flag), coalesce(r.job_key_mode, 'replace')
    );
  end loop;
  return jobs;
end;
$$;

-- The rows that add_jobs returns, in order: without what others wrote if the caller may not read
-- that.
create function @extschema@._visible_rows(
  jobs @extschema@._private_jobs[],
  specs @extschema@.job_spec[],
  job_key_modes text[]
)
returns setof @extschema@._private_jobs
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if pg_catalog.has_table_privilege(
    coalesce(nullif(pg_catalog.current_setting('role'), 'none'), session_user),
    '@extschema@.jobs',
    'select'
  ) then
    return query select (pg_catalog.unnest(jobs)).*;
    return;
  end if;
  return query
  select visible.*
  from rows from (pg_catalog.unnest(specs)) with ordinality as s (
      identifier, payload, queue_name, run_at, max_attempts, job_key, priority, flags, place
    )
  cross join lateral @extschema@._without_content(
    jobs[s.place], s.payload, coalesce(job_key_modes[s.place], 'replace')
  ) as visible
  order by s.place;
end;
$$;

-- Whether no key comes twice, and none is that of a job already. A plan that was made while the
-- table was empty would read all of it for each key, and is not allowed to.
create function @extschema@._keys_are_new(
  specs @extschema@.job_spec[]
)
returns boolean
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
begin
  return (
    select pg_catalog.count(s.job_key) = pg_catalog.count(distinct s.job_key collate "C")
    from rows from (pg_catalog.unnest(specs)) with ordinality as s (
      identifier, payload, queue_name, run_at, max_attempts, job_key, priority, flags, place
    )
  ) and not exists (
    select from rows from (pg_catalog.unnest(specs)) with ordinality as s (
      identifier, payload, queue_name, run_at, max_attempts, job_key, priority, flags, place
    )
    join @extschema@._private_jobs as jobs on jobs.key = s.job_key
  );
end;
$$;

-- Adds jobs of which some have keys, as if one by one in the given order; the mode at a place
-- belongs to the spec at that place, null modes mean replace. Keyed rows are written in the order
-- of their keys, so that two sessions with the same keys in opposite orders do not deadlock; ids
-- are handed out beforehand, so that jobs due at the same moment still run in the order given. One
-- statement adds the first spec of each key; what is left after it (the job with the key runs, the
-- key comes again, modes are mixed) goes one by one, under the row locks that the statement took.
create function @extschema@._add_keyed_jobs(
  specs @extschema@.job_spec[],
  job_key_modes text[]
)
returns setof @extschema@._private_jobs
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_lock_timeout text;
  v_lock_set text;
  v_lock_started timestamptz;
  v_mode text := coalesce(job_key_modes[1], 'replace');
  v_ids bigint[];
  v_jobs @extschema@._private_jobs[];
  v_added bigint[];
  v_is_done boolean := false;
begin
  -- The common case, keys that are all new, needs nothing of what follows.
  if @extschema@._keys_are_new(specs) then
  v_lock_timeout := pg_catalog.current_setting('lock_timeout');
  v_lock_started := pg_catalog.clock_timestamp();
  loop
    begin
      -- Assigned, since that is evaluated without a query.
      v_lock_set := pg_catalog.set_config('lock_timeout', '100ms', true);
      begin
          return query
          with added as (
            insert into @extschema@._private_jobs as jobs (id, key, task_id, job_queue_id, payload, run_at, max_attempts, priority, flags)
            overriding system value
            select
              s.id,
              s.job_key,
              tasks.id,
          queues.id,
          coalesce(s.payload, '{}'::json),
          coalesce(s.run_at, pg_catalog.now()),
          coalesce(s.max_attempts, 25)::smallint,
          coalesce(s.priority, 0::smallint),
          case when s.flags is not null then (select pg_catalog.jsonb_object_agg(flag, true) from pg_catalog.unnest(s.flags) as flag) end
            from (
              select s.*, pg_catalog.nextval('@extschema@.jobs_id_seq1') as id
              from rows from (pg_catalog.unnest(specs)) with ordinality as s (
          identifier, payload, queue_name, run_at, max_attempts, job_key, priority, flags, place
        )
            ) as s
            join @extschema@._private_tasks as tasks on tasks.identifier = s.identifier
            left join @extschema@._private_job_queues as queues on queues.queue_name = s.queue_name
            order by s.job_key collate "C", s.place
            returning *
          )
          select * from added order by added.id;
          v_is_done := true;
        exception when unique_violation then
          null;  -- Another transaction has added one meanwhile.
        end;
      v_lock_set := pg_catalog.set_config('lock_timeout', v_lock_timeout, true);
      exit;
    exception when lock_not_available then
      perform @extschema@._before_lock_retry(v_lock_timeout, v_lock_started, null);
    end;
  end loop;
    if v_is_done then
      return;
    end if;
  end if;

  select pg_catalog.array_agg(pg_catalog.nextval('@extschema@.jobs_id_seq1')) into v_ids
  from pg_catalog.generate_series(1, pg_catalog.cardinality(specs));

  v_lock_timeout := pg_catalog.current_setting('lock_timeout');
  v_lock_started := pg_catalog.clock_timestamp();
  loop
    begin
      -- Assigned, since that is evaluated without a query.
      v_lock_set := pg_catalog.set_config('lock_timeout', '100ms', true);
      v_jobs := null;
      if exists (
        select from pg_catalog.unnest(job_key_modes) as given (job_key_mode)
        where coalesce(given.job_key_mode, 'replace') <> v_mode
      ) then
        v_added := pg_catalog.array_fill(null::bigint, array[pg_catalog.cardinality(specs)]);
      else
        with spec as materialized (
          select
            s.*,
            v_ids[s.place] as id,
            s.job_key is null
              or pg_catalog.row_number() over (partition by s.job_key collate "C" order by s.place) = 1 as is_first
          from rows from (pg_catalog.unnest(specs)) with ordinality as s (
          identifier, payload, queue_name, run_at, max_attempts, job_key, priority, flags, place
        )
        ),
        added as (
          insert into @extschema@._private_jobs as jobs (id, key, task_id, job_queue_id, payload, run_at, max_attempts, priority, flags)
          overriding system value
          select
            s.id,
            s.job_key,
            tasks.id,
          queues.id,
          coalesce(s.payload, '{}'::json),
          coalesce(s.run_at, pg_catalog.now()),
          coalesce(s.max_attempts, 25)::smallint,
          coalesce(s.priority, 0::smallint),
          case when s.flags is not null then (select pg_catalog.jsonb_object_agg(flag, true) from pg_catalog.unnest(s.flags) as flag) end
          from spec as s
          join @extschema@._private_tasks as tasks on tasks.identifier = s.identifier
          left join @extschema@._private_job_queues as queues on queues.queue_name = s.queue_name
          where s.is_first and (s.queue_name is null or queues.id is not null)
          order by s.job_key collate "C", s.place
          on conflict (key) where key is not null do update set
          task_id = case when v_mode = 'unsafe_dedupe' then jobs.task_id else excluded.task_id end,
          job_queue_id = case when v_mode = 'unsafe_dedupe' then jobs.job_queue_id
            else excluded.job_queue_id end,
          payload = case when v_mode = 'unsafe_dedupe' then jobs.payload
            else @extschema@._merge_payloads(jobs.payload, excluded.payload) end,
          run_at = case when v_mode = 'unsafe_dedupe'
            or (v_mode = 'preserve_run_at' and jobs.attempts = 0) then jobs.run_at
            else excluded.run_at end,
          max_attempts = case when v_mode = 'unsafe_dedupe' then jobs.max_attempts
            else excluded.max_attempts end,
          priority = case when v_mode = 'unsafe_dedupe' then jobs.priority
            else excluded.priority end,
          flags = case when v_mode = 'unsafe_dedupe' then jobs.flags else excluded.flags end,
          attempts = case when v_mode = 'unsafe_dedupe' then jobs.attempts else 0 end,
          last_error = case when v_mode = 'unsafe_dedupe' then jobs.last_error end,
          revision = least(jobs.revision, 2147483646) + 1,
          updated_at = pg_catalog.now()
        where jobs.is_available or v_mode = 'unsafe_dedupe'
          returning jobs.id, jobs.key
        )
        select pg_catalog.array_agg(coalesce(plain.id, keyed.id) order by spec.place)
        into v_added
        from spec
        left join added as plain on plain.id = spec.id and spec.job_key is null
        left join added as keyed on keyed.key = spec.job_key and spec.is_first;
      end if;

      if pg_catalog.array_position(v_added, null) is not null or not pg_catalog.has_table_privilege(
        coalesce(nullif(pg_catalog.current_setting('role'), 'none'), session_user),
        '@extschema@.jobs',
        'select'
      ) then
        -- The rows as they are now, before later specs of the same keys change them.
        select pg_catalog.array_agg(jobs order by added.place)
        into v_jobs
        from pg_catalog.unnest(v_added) with ordinality as added (id, place)
        left join @extschema@._private_jobs as jobs on jobs.id = added.id;
        v_jobs := @extschema@._upsert_jobs(specs, v_ids, job_key_modes, v_added, v_jobs);
      end if;
      v_lock_set := pg_catalog.set_config('lock_timeout', v_lock_timeout, true);
      exit;
    exception when lock_not_available then
      perform @extschema@._before_lock_retry(v_lock_timeout, v_lock_started, null);
    end;
  end loop;

  if v_jobs is not null then
    return query select * from @extschema@._visible_rows(v_jobs, specs, job_key_modes);
    return;
  end if;
  return query
  select jobs.*
  from pg_catalog.unnest(v_added) with ordinality as added (id, place)
  join @extschema@._private_jobs as jobs on jobs.id = added.id
  order by added.place;
end;
$$;

-- Adds many jobs in one call and with one notification; returns a row for each spec, in their
-- order. A key may occur twice: the later spec then applies to the earlier, as with add_job.
create function @extschema@.add_jobs(
  specs @extschema@.job_spec[],
  job_key_preserve_run_at boolean = false
)
returns setof @extschema@._private_jobs
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_keyed bigint;
  v_due bigint;
  v_added bigint;
begin
  select keyed, due into v_keyed, v_due from @extschema@._prepare_specs(specs);
  if v_keyed > 0 then
    return query select * from @extschema@._add_keyed_jobs(
      specs,
      pg_catalog.array_fill(
        case when job_key_preserve_run_at then 'preserve_run_at' else 'replace' end,
        array[pg_catalog.cardinality(specs)]
      )
    );
  else
    return query
    insert into @extschema@._private_jobs (task_id, job_queue_id, payload, run_at, max_attempts, priority, flags)
    select
      tasks.id,
      queues.id,
      coalesce(s.payload, '{}'::json),
      coalesce(s.run_at, pg_catalog.now()),
      coalesce(s.max_attempts, 25)::smallint,
      coalesce(s.priority, 0::smallint),
      case when s.flags is not null then (select pg_catalog.jsonb_object_agg(flag, true) from pg_catalog.unnest(s.flags) as flag) end
    from rows from (pg_catalog.unnest(specs)) with ordinality as s (
      identifier, payload, queue_name, run_at, max_attempts, job_key, priority, flags, place
    )
    join @extschema@._private_tasks as tasks on tasks.identifier = s.identifier
    left join @extschema@._private_job_queues as queues on queues.queue_name = s.queue_name
    where s.queue_name is null or queues.id is not null
    order by s.place
    returning *;
    get diagnostics v_added = row_count;
    if v_added <> coalesce(pg_catalog.cardinality(specs), 0) then
      raise exception 'A task or queue name was removed while its jobs were being added'
        using errcode = 'serialization_failure', hint = 'Repeat the call.';
    end if;
  end if;
  if v_due > 0
    and coalesce(pg_catalog.current_setting('graphile_worker.notify', true), 'on')
    not in ('off', 'false', 'no', '0')
    and (pg_catalog.current_setting('graphile_worker.notify', true) in ('on', 'true', 'yes', '1')
      or @extschema@._any_worker_idle())
  then
    perform pg_catalog.pg_notify(
      'jobs:insert',
      '{"r":' || pg_catalog.random() || ',"count":' || v_due || '}'
    )
    where pg_catalog.current_setting('application_name') not like 'citus_internal%';
  end if;
end;
$$;

-- add_jobs with a job key mode for each spec, or one mode for all of them; null means replace.
create function @extschema@.add_jobs_with_modes(
  specs @extschema@.job_spec[],
  job_key_modes text[]
)
returns setof @extschema@._private_jobs
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_specs integer := coalesce(pg_catalog.cardinality(specs), 0);
  v_modes integer := coalesce(pg_catalog.cardinality(job_key_modes), 0);
  v_due bigint;
begin
  perform @extschema@._reject_mode(given.job_key_mode)
  from pg_catalog.unnest(job_key_modes) as given (job_key_mode)
  where given.job_key_mode not in ('replace', 'preserve_run_at', 'unsafe_dedupe');
  if v_modes not in (1, v_specs) then
    raise exception 'There are % job key modes for % specs', v_modes, v_specs
      using errcode = 'GWBKM', hint = 'Pass one mode for each spec, or a single one for all.';
  end if;
  if v_specs = 0 then
    return;
  end if;
  if not exists (select from pg_catalog.unnest(specs) as s where s.job_key is not null) then
    return query select * from @extschema@.add_jobs(specs);
    return;
  end if;
  select due into v_due from @extschema@._prepare_specs(specs);
  return query select * from @extschema@._add_keyed_jobs(
    specs,
    case when v_modes = v_specs then job_key_modes
      else pg_catalog.array_fill(job_key_modes[1], array[v_specs]) end
  );
  if v_due > 0
    and coalesce(pg_catalog.current_setting('graphile_worker.notify', true), 'on')
    not in ('off', 'false', 'no', '0')
    and (pg_catalog.current_setting('graphile_worker.notify', true) in ('on', 'true', 'yes', '1')
      or @extschema@._any_worker_idle())
  then
    perform pg_catalog.pg_notify(
      'jobs:insert',
      '{"r":' || pg_catalog.random() || ',"count":' || v_due || '}'
    )
    where pg_catalog.current_setting('application_name') not like 'citus_internal%';
  end if;
end;
$$;

-- Raises the error for a route whose node is not this one. The table of routes and the functions of
-- Citus are only there on a cluster, so the question is a text.
create function @extschema@._check_route(
  route text
)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_routes regclass := (
    select relations.oid
    from pg_catalog.pg_class as relations
    join pg_catalog.pg_type as types on types.typnamespace = relations.relnamespace
    where relations.relname = 'citus_routes'
    and types.oid = pg_catalog.pg_typeof(null::@extschema@.job_spec)
  );
  v_is_here boolean;
begin
  if route is null or pg_catalog.length(route) not between 1 and 512 then
    raise exception 'Route has % characters', coalesce(pg_catalog.length(route), 0)
      using errcode = 'GWBRT',
        hint = 'Pass the key whose node shall run the job, for example ''customer:42''.';
  elsif pg_catalog.to_regclass('pg_catalog.pg_dist_local_group') is null then
    return;  -- There is one node alone.
  elsif v_routes is null then
    raise exception 'Routes are not set up on this Citus cluster'
      using errcode = 'GWBRT', hint = 'Run `gw-install citus` on the coordinator.';
  end if;
  execute '
    select placements.groupid = here.groupid
    from pg_catalog.pg_dist_placement as placements, pg_catalog.pg_dist_local_group as here
    where placements.shardid = pg_catalog.get_shard_id_for_distribution_column($1, $2)'
  into v_is_here
  using v_routes, route;
  if v_is_here then
    return;
  elsif pg_catalog.current_setting('application_name') like 'citus_internal%' then
    raise exception 'The route "%" has moved to another node', route
      using errcode = 'serialization_failure', hint = 'Retry the transaction.';
  else
    raise exception 'The call was not carried to the node of route "%"', route
      using errcode = 'GWBRT',
        hint = 'Citus carries only a call that is the whole statement: '
          'select add_job_to_route(...), with constants or parameters.';
  end if;
end;
$$;

-- Adds a job to the queue of the node that holds the route, and returns its id. On a Citus cluster
-- on which `gw-install citus` has run, Citus carries the call there, and it commits with the rest
-- of the caller's transaction; keys, queues and limits then hold among the jobs of a route. Without
-- Citus it is add_job.
create function @extschema@.add_job_to_route(
  route text,
  identifier text,
  payload json = null,
  queue_name text = null,
  run_at timestamptz = null,
  max_attempts integer = null,
  job_key text = null,
  priority integer = null,
  flags text[] = null,
  job_key_mode text = 'replace'
)
returns bigint
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform @extschema@._check_route(route);
  return (
    @extschema@.add_job(
      identifier, payload, queue_name, run_at, max_attempts, job_key, priority, flags, job_key_mode
    )
  ).id;
end;
$$;

-- Adds jobs to the queue of the node that holds the route, as add_job_to_route, and returns their
-- ids in the order given. jobs is a JSON array of objects with the fields of job_spec,
-- job_key_mode, and delay, an interval from now instead of run_at.
create function @extschema@.add_jobs_to_route(
  route text,
  jobs json
)
returns bigint[]
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_specs @extschema@.job_spec[];
  v_modes text[];
begin
  perform @extschema@._check_route(route);
  select
    pg_catalog.array_agg(row(
      given.identifier, given.payload, given.queue_name,
      coalesce(given.run_at, pg_catalog.now() + given.delay), given.max_attempts, given.job_key,
      given.priority, given.flags
    )::@extschema@.job_spec order by given.place),
    pg_catalog.array_agg(given.job_key_mode order by given.place)
  into v_specs, v_modes
  from rows from (pg_catalog.json_to_recordset(jobs) as (
    identifier text, payload json, queue_name text, run_at timestamptz, delay interval,
    max_attempts smallint, job_key text, job_key_mode text, priority smallint, flags text[]
  )) with ordinality as given (
    identifier, payload, queue_name, run_at, delay, max_attempts, job_key, job_key_mode, priority,
    flags, place
  );
  return array(
    select added.id
    from rows from (@extschema@.add_jobs_with_modes(
      coalesce(v_specs, '{}'), coalesce(v_modes, '{}')
    ))
      with ordinality as added (
        id, job_queue_id, task_id, payload, priority, run_at, attempts, max_attempts, last_error,
        created_at, updated_at, key, locked_at, locked_by, revision, flags, is_available, place
      )
    order by added.place
  );
end;
$$;

-- What is wrong with a value, by JSON Schema 2020-12: a JSON pointer, a space and words; null where
-- nothing is. The schema has been checked by _check_schema. Recursive schemas are followed to a
-- depth of 100.
create function @extschema@._schema_problem(
  root jsonb,
  schema jsonb,
  value jsonb,
  pointer text,
  depth integer
)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_kind text := pg_catalog.jsonb_typeof(value);
  v_problem text;
begin
  if schema = 'true' then
    return null;
  elsif schema = 'false' then
    return pointer || ' is not allowed';
  elsif depth > 100 then
    return pointer || ' is nested more than 100 deep';
  end if;
  if schema ? '$ref' then
    v_problem := @extschema@._schema_problem(
      root, @extschema@._schema_target(root, schema ->> '$ref'), value, pointer, depth + 1
    );
    if v_problem is not null then
      return v_problem;
    end if;
  end if;
  if schema ? 'type' and not @extschema@._is_of_type(value, schema -> 'type') then
    return pg_catalog.format(
      '%s is of type %s, not %s', pointer, v_kind,
      pg_catalog.translate((schema -> 'type')::text, '"[]', '')
    );
  end if;
  if schema ? 'enum' and not exists (
    select from pg_catalog.jsonb_array_elements(schema -> 'enum') as allowed
    where allowed.value = _schema_problem.value
  ) then
    return pg_catalog.format(
      '%s is none of %s', pointer, pg_catalog.left((schema -> 'enum')::text, 200)
    );
  end if;
  if schema ? 'const' and schema -> 'const' <> value then
    return pg_catalog.format(
      '%s is not %s', pointer, pg_catalog.left((schema -> 'const')::text, 200)
    );
  end if;
  v_problem := case v_kind
    when 'number' then @extschema@._number_problem(schema, value::numeric)
    when 'string' then @extschema@._string_problem(schema, value #>> '{}')
  end;
  if v_problem is not null then
    return pg_catalog.concat(pointer, ' ', v_problem);
  end if;
  if v_kind = 'object' then
    v_problem := @extschema@._object_problem(root, schema, value, pointer, depth);
  elsif v_kind = 'array' then
    v_problem := @extschema@._array_problem(root, schema, value, pointer, depth);
  end if;
  return coalesce(
    v_problem, @extschema@._combined_problem(root, schema, value, pointer, depth)
  );
end;
$$;

-- Whether a value is of a type, or of one of several. A number without a fraction is an integer.
create function @extschema@._is_of_type(
  value jsonb,
  types jsonb
)
returns boolean
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_kind text := pg_catalog.jsonb_typeof(value);
begin
  if pg_catalog.jsonb_typeof(types) = 'string' then
    types := pg_catalog.jsonb_build_array(types);
  end if;
  return types ? v_kind
    or v_kind = 'number' and types ? 'integer'
      and value::numeric = pg_catalog.trunc(value::numeric);
end;
$$;

-- What is wrong with a number.
create function @extschema@._number_problem(
  schema jsonb,
  value numeric
)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return case
    when value < (schema ->> 'minimum')::numeric
      then pg_catalog.format('is %s, less than %s', value, schema ->> 'minimum')
    when value > (schema ->> 'maximum')::numeric
      then pg_catalog.format('is %s, more than %s', value, schema ->> 'maximum')
    when value <= (schema ->> 'exclusiveMinimum')::numeric
      then pg_catalog.format('is %s, not more than %s', value, schema ->> 'exclusiveMinimum')
    when value >= (schema ->> 'exclusiveMaximum')::numeric
      then pg_catalog.format('is %s, not less than %s', value, schema ->> 'exclusiveMaximum')
    when pg_catalog.mod(value, (schema ->> 'multipleOf')::numeric) <> 0
      then pg_catalog.format('is %s, not a multiple of %s', value, schema ->> 'multipleOf')
  end;
end;
$$;

-- What is wrong with a text.
create function @extschema@._string_problem(
  schema jsonb,
  value text
)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if pg_catalog.length(value) < (schema ->> 'minLength')::numeric then
    return pg_catalog.format('is shorter than %s characters', schema ->> 'minLength');
  elsif pg_catalog.length(value) > (schema ->> 'maxLength')::numeric then
    return pg_catalog.format('is longer than %s characters', schema ->> 'maxLength');
  elsif value !~ ('(?p)' || (schema ->> 'pattern')) then
    return pg_catalog.format('does not match the pattern %s', schema ->> 'pattern');
  elsif not @extschema@._has_format(value, schema ->> 'format') then
    return pg_catalog.format('is no %s', schema ->> 'format');
  end if;
  return null;
end;
$$;

-- Whether a text has a format: those of date-time, uuid and email are known, others hold always.
create function @extschema@._has_format(
  value text,
  format text
)
returns boolean
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_parts text[];
  v_year integer;
  v_month integer;
  v_minutes integer;
begin
  if format = 'uuid' then
    return value ~ '^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$';
  elsif format = 'email' then
    return value ~ (
      '^([A-Za-z0-9!#$%&''*+/=?^_`{|}~-]+([.][A-Za-z0-9!#$%&''*+/=?^_`{|}~-]+)*'
      -- A backslash is written as an escape: a session may read one in other ways.
      || e'|"([ !#-[^-~]|[]]|\\x5c[ -~])*")@'
      || '([A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?([.][A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*'
      || '|[[]((25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])([.](25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])){3}'
      || '|IPv6:[0-9A-Fa-f:.]+)[]])$'
    );
  elsif format = 'date-time' then
    v_parts := pg_catalog.regexp_match(
      value,
      '^([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:[.][0-9]+)?'
      || '(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))$'
    );
    if v_parts is null then
      return false;
    end if;
    v_year := v_parts[1]::integer;
    v_month := v_parts[2]::integer;
    if v_month not between 1 and 12
      or v_parts[3]::integer not between 1 and (case
        when v_month in (4, 6, 9, 11) then 30
        when v_month <> 2 then 31
        when v_year % 4 = 0 and (v_year % 100 <> 0 or v_year % 400 = 0) then 29
        else 28
      end)
      or v_parts[4]::integer > 23 or v_parts[5]::integer > 59 or v_parts[6]::integer > 60
      or v_parts[8]::integer > 23 or v_parts[9]::integer > 59
    then
      return false;
    end if;
    -- A leap second is the last one of a day of UTC.
    v_minutes := v_parts[4]::integer * 60 + v_parts[5]::integer
      - coalesce((v_parts[7] || '1')::integer * (v_parts[8]::integer * 60 + v_parts[9]::integer), 0);
    return v_parts[6] <> '60' or (v_minutes + 1440) % 1440 = 1439;
  end if;
  return true;
end;
$$;

-- What is wrong with an object.
create function @extschema@._object_problem(
  root jsonb,
  schema jsonb,
  value jsonb,
  pointer text,
  depth integer
)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_size bigint;
  v_problem text;
  r record;
begin
  select name into r
  from pg_catalog.jsonb_array_elements_text(schema -> 'required') as required (name)
  where not value ? required.name
  limit 1;
  if found then
    return pg_catalog.format('%s lacks the property "%s"', pointer, r.name);
  end if;
  if schema ? 'minProperties' or schema ? 'maxProperties' then
    select pg_catalog.count(*) into v_size from pg_catalog.jsonb_object_keys(value);
    if v_size < (schema ->> 'minProperties')::numeric then
      return pg_catalog.format(
        '%s has less than %s properties', pointer, schema ->> 'minProperties'
      );
    elsif v_size > (schema ->> 'maxProperties')::numeric then
      return pg_catalog.format(
        '%s has more than %s properties', pointer, schema ->> 'maxProperties'
      );
    end if;
  end if;
  for r in
    select
      members.key,
      members.value,
      coalesce(schema -> 'properties' -> members.key, schema -> 'additionalProperties') as schema,
      schema -> 'properties' ? members.key as is_named
    from pg_catalog.jsonb_each(value) as members
  loop
    continue when r.schema is null;
    if r.schema = 'false' and r.is_named is not true then
      return pg_catalog.format(
        '%s/%s is an unknown property', pointer, @extschema@._pointer_part(r.key)
      );
    end if;
    v_problem := @extschema@._schema_problem(
      root, r.schema, r.value, pointer || '/' || @extschema@._pointer_part(r.key), depth + 1
    );
    if v_problem is not null then
      return v_problem;
    end if;
  end loop;
  return null;
end;
$$;

-- A key as a part of a JSON pointer.
create function @extschema@._pointer_part(
  key text
)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return pg_catalog.replace(pg_catalog.replace(key, '~', '~0'), '/', '~1');
end;
$$;

-- What is wrong with an array.
create function @extschema@._array_problem(
  root jsonb,
  schema jsonb,
  value jsonb,
  pointer text,
  depth integer
)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_size integer := pg_catalog.jsonb_array_length(value);
  v_fixed integer := coalesce(pg_catalog.jsonb_array_length(schema -> 'prefixItems'), 0);
  v_problem text;
begin
  if v_size < (schema ->> 'minItems')::numeric then
    return pg_catalog.format('%s has less than %s items', pointer, schema ->> 'minItems');
  elsif v_size > (schema ->> 'maxItems')::numeric then
    return pg_catalog.format('%s has more than %s items', pointer, schema ->> 'maxItems');
  elsif schema -> 'uniqueItems' = 'true' and v_size > (
    select pg_catalog.count(distinct items.value)
    from pg_catalog.jsonb_array_elements(value) as items
  ) then
    return pg_catalog.format('%s has an item twice', pointer);
  end if;
  for i in 0 .. v_size - 1 loop
    continue when i >= v_fixed and not schema ? 'items';
    v_problem := @extschema@._schema_problem(
      root, case when i < v_fixed then schema -> 'prefixItems' -> i else schema -> 'items' end,
      value -> i, pg_catalog.concat(pointer, '/', i), depth + 1
    );
    if v_problem is not null then
      return v_problem;
    end if;
  end loop;
  return null;
end;
$$;

-- What is wrong with a value by allOf, anyOf, oneOf and not.
create function @extschema@._combined_problem(
  root jsonb,
  schema jsonb,
  value jsonb,
  pointer text,
  depth integer
)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_problem text;
  v_fits integer;
begin
  if schema ? 'allOf' then
    for i in 0 .. pg_catalog.jsonb_array_length(schema -> 'allOf') - 1 loop
      v_problem := @extschema@._schema_problem(
        root, schema -> 'allOf' -> i, value, pointer, depth + 1
      );
      if v_problem is not null then
        return v_problem;
      end if;
    end loop;
  end if;
  if schema ? 'anyOf' then
    select @extschema@._schema_problem(
      root, part.value, _combined_problem.value, pointer, depth + 1
    )
    into v_problem
    from pg_catalog.jsonb_array_elements(schema -> 'anyOf') with ordinality as part (value, place)
    order by
      @extschema@._schema_problem(
      root, part.value, _combined_problem.value, pointer, depth + 1
    ) is not null,
      part.place
    limit 1;
    if v_problem is not null then
      return pg_catalog.format('%s fits none of anyOf; of the first: %s', pointer, v_problem);
    end if;
  end if;
  if schema ? 'oneOf' then
    select pg_catalog.count(*) into v_fits
    from pg_catalog.jsonb_array_elements(schema -> 'oneOf') as one
    where @extschema@._schema_problem(
      root, one.value, _combined_problem.value, pointer, depth + 1
    ) is null;
    if v_fits <> 1 then
      return pg_catalog.format('%s fits %s of oneOf, not one', pointer, v_fits);
    end if;
  end if;
  if schema ? 'not'
    and @extschema@._schema_problem(root, schema -> 'not', value, pointer, depth + 1) is null
  then
    return pg_catalog.format('%s fits what it must not', pointer);
  end if;
  return null;
end;
$$;

-- The part of a schema that a reference such as #/$defs/address names; null where there is none.
create function @extschema@._schema_target(
  root jsonb,
  reference text
)
returns jsonb
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_found jsonb := root;
  v_part text;
  v_bytes bytea;
begin
  if reference = '#' then
    return root;
  elsif reference not like '#/%' then
    return null;
  end if;
  -- What is written as %20 is a space.
  while reference ~ '%[0-9a-fA-F]{2}' loop
    v_bytes := pg_catalog.decode(
      pg_catalog.substr(pg_catalog.substring(reference, '%[0-9a-fA-F]{2}'), 2), 'hex'
    );
    exit when pg_catalog.get_byte(v_bytes, 0) > 127 or pg_catalog.get_byte(v_bytes, 0) in (0, 37);
    reference := pg_catalog.replace(
      reference, pg_catalog.substring(reference, '%[0-9a-fA-F]{2}'),
      pg_catalog.chr(pg_catalog.get_byte(v_bytes, 0))
    );
  end loop;
  reference := pg_catalog.replace(reference, '%25', '%');
  foreach v_part in array (pg_catalog.string_to_array(reference, '/'))[2:] loop
    v_part := pg_catalog.replace(pg_catalog.replace(v_part, '~1', '/'), '~0', '~');
    v_found := case pg_catalog.jsonb_typeof(v_found)
      when 'object' then v_found -> v_part
      when 'array' then case when v_part ~ '^[0-9]{1,6}$' then v_found -> v_part::integer end
    end;
  end loop;
  return v_found;
end;
$$;

-- What is wrong with a JSON Schema: a JSON pointer, a space and words; null where nothing is. A
-- keyword that is not known here is wrong: it would be believed to be checked.
create function @extschema@._check_schema(
  root jsonb,
  schema jsonb,
  pointer text
)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_problem text;
  r record;
begin
  if pg_catalog.jsonb_typeof(schema) = 'boolean' then
    return null;
  elsif pg_catalog.jsonb_typeof(schema) <> 'object' then
    return pointer || ' is neither an object nor true or false';
  end if;
  for r in select keywords.key, keywords.value from pg_catalog.jsonb_each(schema) as keywords loop
    v_problem := @extschema@._check_keyword(
      root, r.key, r.value, pointer || '/' || @extschema@._pointer_part(r.key)
    );
    if v_problem is not null then
      return v_problem;
    end if;
  end loop;
  return null;
end;
$$;

-- What is wrong with a keyword of a JSON Schema.
create function @extschema@._check_keyword(
  root jsonb,
  keyword text,
  value jsonb,
  pointer text
)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_kind text := pg_catalog.jsonb_typeof(value);
  v_problem text;
begin
  case
    when keyword in (
      'title', 'description', 'default', 'example', 'examples', 'deprecated', 'readOnly',
      'writeOnly', 'discriminator', 'contentEncoding', 'contentMediaType', '$comment'
    ) then
      null;
    when keyword = '$schema' then
      if value #>> '{}' !~ '^https?://json-schema[.]org/draft/2020-12/schema#?$' then
        return pg_catalog.format('%s is another version of JSON Schema: %s', pointer, value);
      end if;
    when keyword = '$id' and pointer = '/$id' then
      null;
    when keyword in ('items', 'not') or keyword = 'additionalProperties' then
      return @extschema@._check_schema(root, value, pointer);
    when keyword in ('properties', '$defs', 'definitions') then
      if v_kind <> 'object' then
        return pointer || ' is no object';
      end if;
      select @extschema@._check_schema(
        root, named.value, pointer || '/' || @extschema@._pointer_part(named.key)
      ) into v_problem
      from pg_catalog.jsonb_each(value) as named
      order by 1
      limit 1;
      return v_problem;
    when keyword in ('allOf', 'anyOf', 'oneOf', 'prefixItems') then
      if v_kind <> 'array' then
        return pointer || ' is no array';
      end if;
      select @extschema@._check_schema(
        root, part.value, pg_catalog.concat(pointer, '/', part.place - 1)
      ) into v_problem
      from pg_catalog.jsonb_array_elements(value) with ordinality as part (value, place)
      order by 1
      limit 1;
      return v_problem;
    when keyword = '$ref' then
      -- Only to where schemas are checked.
      if v_kind <> 'string' or value #>> '{}' !~ (
        '^#(/(properties|[$]defs|definitions)/[^/]*|/(items|additionalProperties|not)'
        || '|/(allOf|anyOf|oneOf|prefixItems)/[0-9]+)*$'
      ) or @extschema@._schema_target(root, value #>> '{}') is null then
        return pg_catalog.format('%s refers to no schema in this one: %s', pointer, value);
      end if;
    when keyword = 'type' then
      if v_kind not in ('string', 'array') or value = '[]' or exists (
        select from pg_catalog.jsonb_array_elements(
          case when v_kind = 'array' then value else pg_catalog.jsonb_build_array(value) end
        ) as types
        where types.value not in (
          '"string"', '"number"', '"integer"', '"object"', '"array"', '"boolean"', '"null"'
        )
      ) then
        return pg_catalog.format('%s is no type of JSON: %s', pointer, value);
      end if;
    when keyword = 'enum' then
      if v_kind <> 'array' then
        return pointer || ' is no array';
      end if;
    when keyword = 'required' then
      if v_kind <> 'array'
        or pg_catalog.jsonb_path_exists(value, '$[*] ? (@.type() != "string")')
      then
        return pointer || ' is no array of texts';
      end if;
    else
      return @extschema@._check_limit(keyword, value, pointer);
  end case;
  return null;
end;
$$;

-- What is wrong with a keyword of a JSON Schema that is a number, a text or true or false.
create function @extschema@._check_limit(
  keyword text,
  value jsonb,
  pointer text
)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_kind text := pg_catalog.jsonb_typeof(value);
begin
  case
    when keyword = 'const' then
      null;
    when keyword in ('minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum', 'multipleOf')
    then
      if v_kind <> 'number' or keyword = 'multipleOf' and value <= '0' then
        return pg_catalog.format('%s is no number that can be used: %s', pointer, value);
      end if;
    when keyword in (
      'minLength', 'maxLength', 'minItems', 'maxItems', 'minProperties', 'maxProperties'
    ) then
      if v_kind <> 'number' or value < '0' or not @extschema@._is_of_type(value, '"integer"') then
        return pg_catalog.format('%s is no number from 0: %s', pointer, value);
      end if;
    when keyword = 'uniqueItems' then
      if v_kind <> 'boolean' then
        return pointer || ' is neither true nor false';
      end if;
    when keyword = 'format' then
      if v_kind <> 'string' then
        return pointer || ' is no text';
      end if;
    when keyword = 'pattern' then
      if v_kind <> 'string' then
        return pointer || ' is no text';
      end if;
      begin
        perform '' ~ ('(?p)' || (value #>> '{}'));
      exception when invalid_regular_expression then
        return pg_catalog.format('%s is no pattern that PostgreSQL knows: %s', pointer, value);
      end;
    else
      return pg_catalog.format('%s is a keyword that is not checked here', pointer);
  end case;
  return null;
end;
$$;

-- A schema as a condition of jsonpath on @, so that most payloads are checked by one expression
-- instead of a function a part. It holds only for what fits; it may not hold for what fits as well,
-- which is then looked at closely. Null where there is none. Each part of a value is asked for
-- within exists(), which is true or false; a condition that is neither would be taken for false
-- where it is negated.
create function @extschema@._quick_check(
  root jsonb,
  schema jsonb,
  depth integer
)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_conditions text[] := '{}';
  v_parts text[];
begin
  if schema = 'true' or schema = '{}' then
    return '1 == 1';
  elsif pg_catalog.jsonb_typeof(schema) <> 'object' or depth > 12 or schema ?| array[
    'not', 'oneOf', 'uniqueItems', 'prefixItems', 'minProperties', 'maxProperties'
  ] then
    return null;
  end if;
  if schema ? '$ref' then
    v_conditions := v_conditions || @extschema@._quick_check(
      root, @extschema@._schema_target(root, schema ->> '$ref'), depth + 1
    );
  end if;
  if schema ? 'type' then
    select v_conditions || ('(' || pg_catalog.string_agg(
      case types.name
        when 'integer' then '(@.type() == "number" && @.floor() == @)'
        else pg_catalog.format('@.type() == "%s"', types.name)
      end, ' || '
    ) || ')') into v_conditions
    from pg_catalog.jsonb_array_elements_text(
      case when pg_catalog.jsonb_typeof(schema -> 'type') = 'array' then schema -> 'type'
        else pg_catalog.jsonb_build_array(schema -> 'type') end
    ) as types (name);
  end if;
  if schema ? 'enum' or schema ? 'const' then
    v_parts := array(
      select case when pg_catalog.jsonb_typeof(allowed.value) not in ('object', 'array')
        then '@ == ' || allowed.value::text end
      from pg_catalog.jsonb_array_elements(
        coalesce(schema -> 'enum', pg_catalog.jsonb_build_array(schema -> 'const'))
      ) as allowed
    );
    if schema ? 'enum' and schema ? 'const' or v_parts = '{}'
      or pg_catalog.array_position(v_parts, null) is not null
    then
      return null;
    end if;
    v_conditions := v_conditions || ('(' || pg_catalog.array_to_string(v_parts, ' || ') || ')');
  end if;
  v_conditions := v_conditions || @extschema@._quick_scalars(schema);
  if schema ?| array['properties', 'required', 'additionalProperties'] then
    v_conditions := v_conditions || @extschema@._quick_object(root, schema, depth);
  end if;
  if schema ? 'items' then
    v_conditions := v_conditions || @extschema@._of_kind(
      schema, 'array', '!exists(@[*] ? (!exists(@ ? ('
        || @extschema@._quick_check(root, schema -> 'items', depth + 1) || '))))'
    );
  end if;
  if schema ? 'allOf' or schema ? 'anyOf' then
    select
      v_conditions
      || case when schema ? 'allOf' then '(' || pg_catalog.string_agg(
        'exists(@ ? (' || parts.condition || '))', ' && '
      ) filter (where parts.keyword = 'allOf') || ')' else '1 == 1' end
      || case when schema ? 'anyOf' then '(' || pg_catalog.string_agg(
        'exists(@ ? (' || parts.condition || '))', ' || '
      ) filter (where parts.keyword = 'anyOf') || ')' else '1 == 1' end
      || case when pg_catalog.bool_or(parts.condition is null and parts.keyword = 'allOf')
        then null else '1 == 1' end
    into v_conditions
    from (
      select keywords.name as keyword,
        @extschema@._quick_check(root, part.value, depth + 1) as condition
      from pg_catalog.unnest(array['allOf', 'anyOf']) as keywords (name)
      cross join lateral pg_catalog.jsonb_array_elements(schema -> keywords.name) as part
    ) as parts;
  end if;
  if pg_catalog.array_position(v_conditions, null) is not null then
    return null;
  end if;
  return coalesce(nullif(pg_catalog.array_to_string(v_conditions, ' && '), ''), '1 == 1');
end;
$$;

-- A condition for values of one kind. Where the schema asks for that kind, others fail already.
create function @extschema@._of_kind(
  schema jsonb,
  kind text,
  condition text
)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if schema ->> 'type' = kind or schema ->> 'type' = 'integer' and kind = 'number' then
    return condition;
  end if;
  return '(@.type() != "' || kind || '" || ' || condition || ')';
end;
$$;

-- The conditions for numbers, texts and sizes of arrays; one of them is null where there is none.
create function @extschema@._quick_scalars(
  schema jsonb
)
returns text[]
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_least integer := case when (schema ->> 'minLength')::numeric <= 2000
    then (schema ->> 'minLength')::numeric::integer end;
  v_most integer := case when (schema ->> 'maxLength')::numeric <= 2000
    then (schema ->> 'maxLength')::numeric::integer end;
  v_format text;
begin
  if schema ? 'minLength' and v_least is null or schema ? 'maxLength' and v_most is null then
    return array[null::text];
  end if;
  v_format := case schema ->> 'format'
    when 'uuid' then
      '^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$'
    when 'email' then
      '^[A-Za-z0-9_+-]+([.][A-Za-z0-9_+-]+)*@[A-Za-z0-9]+(-+[A-Za-z0-9]+)*'
      || '([.][A-Za-z0-9]+(-+[A-Za-z0-9]+)*)*$'
    when 'date-time' then
      '^[0-9]{4}-((0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])|(0[13-9]|1[0-2])-(29|30)'
      || '|(0[13578]|1[02])-31)'
      || '[Tt]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]+)?'
      || '([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$'
  end;
  return array(
    select @extschema@._of_kind(
      schema,
      case
        when keywords.key in ('minItems', 'maxItems') then 'array'
        when keywords.key in ('pattern', 'minLength', 'maxLength', 'format') then 'string'
        else 'number'
      end,
      case keywords.key
        when 'minimum' then '@ >= ' || keywords.value::text
        when 'maximum' then '@ <= ' || keywords.value::text
        when 'exclusiveMinimum' then '@ > ' || keywords.value::text
        when 'exclusiveMaximum' then '@ < ' || keywords.value::text
        when 'multipleOf' then '@ % ' || keywords.value::text || ' == 0'
        when 'minItems' then '@.size() >= ' || keywords.value::text
        when 'maxItems' then '@.size() <= ' || keywords.value::text
        when 'pattern' then '@ like_regex ' || keywords.value::text
        when 'minLength' then @extschema@._quick_length(v_least)
        -- That a text is long is seen at once for most that are not.
        when 'maxLength' then '!(' || @extschema@._quick_length(v_most + 1) || ')'
        else '@ like_regex ' || pg_catalog.to_jsonb(v_format)::text
      end
    )
    from pg_catalog.jsonb_each(schema) as keywords
    where keywords.key in (
      'minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum', 'multipleOf', 'minItems',
      'maxItems', 'pattern', 'minLength', 'maxLength'
    )
    or keywords.key = 'format' and v_format is not null
  );
end;
$$;

-- The condition that a text has at least so many characters. A regular expression counts to 255.
create function @extschema@._quick_length(
  characters integer
)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return case
    when characters = 0 then '1 == 1'
    when characters = 1 then '@ != ""'
    else pg_catalog.concat(
      '@ like_regex "^', '(.{250})' || nullif(pg_catalog.concat('{', characters / 250, '}'), '{0}'),
      '.{', characters % 250, '}" flag "s"'
    )
  end;
end;
$$;

-- The condition for the members of an object. In strict mode it is an error to ask for one that is
-- not there, which within exists() makes that false. Members without a name are looked for among
-- all of them.
create function @extschema@._quick_object(
  root jsonb,
  schema jsonb,
  depth integer
)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_required jsonb := coalesce(schema -> 'required', '[]');
  v_conditions text[] := '{}';
  v_known text;
  v_rest text;
  v_condition text;
  r record;
begin
  for r in
    select
      names.name,
      pg_catalog.to_jsonb(names.name)::text as quoted,
      coalesce(schema -> 'properties' -> names.name, 'true') as schema
    from (
      select pg_catalog.jsonb_object_keys(schema -> 'properties')
      union
      select pg_catalog.jsonb_array_elements_text(v_required)
    ) as names (name)
  loop
    v_condition := @extschema@._quick_check(root, r.schema, depth + 1);
    if v_condition is null then
      return null;
    end if;
    v_conditions := v_conditions || case
      when v_required ? r.name then 'exists(@.' || r.quoted || ' ? (' || v_condition || '))'
      else '(exists(@ ? (exists(@.' || r.quoted || ' ? (' || v_condition || ')))) || '
        || '!exists(@ ? (exists(@.' || r.quoted || '))))'
    end;
  end loop;
  if coalesce(schema -> 'additionalProperties', 'true') not in ('true', '{}') then
    v_rest := @extschema@._quick_check(root, schema -> 'additionalProperties', depth + 1);
    if schema -> 'additionalProperties' <> 'false' and v_rest is null then
      return null;
    end if;
    select coalesce(pg_catalog.string_agg(
      '@.key == ' || pg_catalog.to_jsonb(named.name)::text || ' || ', ''
    ), '') into v_known
    from pg_catalog.jsonb_object_keys(schema -> 'properties') as named (name);
    v_conditions := v_conditions || (
      '!exists(@.keyvalue() ? (!(' || v_known
      || coalesce('exists(@.value ? (' || v_rest || '))', '1 == 0') || ')))'
    );
  end if;
  return @extschema@._of_kind(
    schema, 'object',
    coalesce('(' || nullif(pg_catalog.array_to_string(v_conditions, ' && '), '') || ')', '1 == 1')
  );
end;
$$;

-- Checks the payloads of a task where they enter: add_job and add_jobs refuse one that does not fit
-- the JSON Schema, or (on_invalid is 'warn') warn of it. Of a payload that is an array, each
-- element is checked; the members _cron and _trace, which are added on the way, are left out. Jobs
-- that are in the queue are not looked at. A null schema ends it. Returns the schema that was set
-- before.
create function @extschema@.set_payload_schema(
  task text,
  schema json,
  on_invalid text = 'reject'
)
returns json
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_schema jsonb;
  v_problem text;
  v_condition text;
  v_object text;
  v_known text[];
  v_quick jsonpath;
  v_before json;
begin
  if task is null or pg_catalog.length(task) not between 1 and 128 then
    perform @extschema@._reject_job(task, null, null, null, null, null);
  elsif on_invalid is null or on_invalid not in ('reject', 'warn') then
    raise exception 'What to do with an invalid payload is unknown: "%"', on_invalid
      using errcode = 'GWBSC', hint = 'Use reject or warn.';
  end if;
  select schemas.schema into v_before
  from @extschema@._private_payload_schemas as schemas
  where schemas.task = set_payload_schema.task;
  if schema is null then
    delete from @extschema@._private_payload_schemas as schemas
    where schemas.task = set_payload_schema.task;
    return v_before;
  end if;
  begin
    v_schema := schema::jsonb;
    v_problem := @extschema@._check_schema(v_schema, v_schema, '');
  exception when untranslatable_character or invalid_text_representation
    or numeric_value_out_of_range or statement_too_complex
  then
    v_problem := ' cannot be read: ' || sqlerrm;
  end;
  if v_problem is not null then
    raise exception 'Schema of task "%" cannot be used: %', task, pg_catalog.ltrim(v_problem)
      using errcode = 'GWBSC',
        hint = 'Use the keywords of JSON Schema 2020-12 that docs/payload-schemas.md lists.';
  end if;
  v_condition := @extschema@._quick_check(v_schema, v_schema, 0);
  v_object := v_condition;
  if v_schema -> 'additionalProperties' = 'false' then
    -- That an object has no others is seen faster by taking the known ones away.
    v_known := array(
      select pg_catalog.jsonb_object_keys(v_schema -> 'properties')
      union all
      select pg_catalog.unnest(array['_cron', '_trace'])
    );
    v_object := @extschema@._quick_check(v_schema, v_schema - 'additionalProperties', 0);
  end if;
  begin
    v_quick := pg_catalog.format(
      'strict $ ? ((@.type() != "array" && (%2$s)) || (@.type() == "array" && '
      || '!exists(@[*] ? (!exists(@ ? (%1$s))))))',
      v_condition, v_object
    )::jsonpath;
  exception when syntax_error or invalid_regular_expression then
    v_quick := null;  -- jsonpath knows less than the other way
  end;
  if v_condition is null then
    v_quick := null;
  end if;
  insert into @extschema@._private_payload_schemas as schemas (
    task, schema, on_invalid, quick, known, set_at, set_by
  )
  values (
    task, schema, on_invalid, v_quick, v_known, pg_catalog.clock_timestamp(), coalesce(nullif(pg_catalog.current_setting('role'), 'none'), session_user)
  )
  on conflict on constraint payload_schemas_pkey do update set
    schema = excluded.schema,
    on_invalid = excluded.on_invalid,
    quick = excluded.quick,
    known = excluded.known,
    set_at = excluded.set_at,
    set_by = excluded.set_by;
  return v_before;
end;
$$;

-- What is wrong with a payload of a task: a JSON pointer, a space and words; null where it fits.
create function @extschema@._payload_problem(
  task_schema jsonb,
  payload json
)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_payload jsonb;
  v_problem text;
begin
  begin
    v_payload := coalesce(payload, '{}')::jsonb;
  exception when untranslatable_character or invalid_text_representation
    or numeric_value_out_of_range
  then
    return ' cannot be read: ' || sqlerrm;
  end;
  for i in 0 .. case when pg_catalog.jsonb_typeof(v_payload) = 'array'
    then pg_catalog.jsonb_array_length(v_payload) else 1 end - 1
  loop
    v_problem := case when pg_catalog.jsonb_typeof(v_payload) = 'array' then
      @extschema@._schema_problem(
        task_schema, task_schema, @extschema@._without_added(v_payload -> i), '/' || i, 0
      )
    else
      @extschema@._schema_problem(
        task_schema, task_schema, @extschema@._without_added(v_payload), '', 0
      )
    end;
    exit when v_problem is not null;
  end loop;
  return v_problem;
end;
$$;

-- A payload without the members that are added to it on the way.
create function @extschema@._without_added(
  payload jsonb
)
returns jsonb
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return case when pg_catalog.jsonb_typeof(payload) = 'object'
    then payload - array['_cron', '_trace'] else payload end;
end;
$$;

-- Raises an error for a payload that does not fit the schema of its task, or warns of it.
create function @extschema@._check_payload(
  task text,
  payload json
)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_schema record;
  v_problem text;
begin
  select schemas.schema, schemas.on_invalid into v_schema
  from @extschema@._private_payload_schemas as schemas
  where schemas.task = _check_payload.task;
  if not found then
    return;
  end if;
  v_problem := @extschema@._payload_problem(v_schema.schema::jsonb, payload);
  if v_problem is null then
    return;
  elsif v_schema.on_invalid = 'warn' then
    raise warning 'Payload of task "%" does not fit its schema: %', task,
      pg_catalog.ltrim(v_problem)
      using errcode = 'GWBPS';
    return;
  end if;
  raise exception 'Payload of task "%" does not fit its schema: %',
    task, pg_catalog.ltrim(v_problem)
    using errcode = 'GWBPS', detail = 'JSON pointer: ' || pg_catalog.split_part(v_problem, ' ', 1),
      hint = 'Mend the payload, or the schema: see the view payload_schemas.';
end;
$$;

-- The jobs that wait, at most max_jobs, whose payloads do not fit a schema, by id from after_id on,
-- with what is wrong: what would have been refused. Without a schema, that of the task.
create function @extschema@.find_unfit_jobs(
  task text,
  schema json = null,
  after_id bigint = null,
  max_jobs integer = 100
)
returns table (job_id bigint, problem text)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_schema jsonb := coalesce(schema, (
    select schemas.schema
    from @extschema@._private_payload_schemas as schemas
    where schemas.task = find_unfit_jobs.task
  ));
  v_problem text := @extschema@._check_schema(v_schema, v_schema, '');
begin
  if v_problem is not null then
    raise exception 'Schema of task "%" cannot be used: %', task, pg_catalog.ltrim(v_problem)
      using errcode = 'GWBSC',
        hint = 'Use the keywords of JSON Schema 2020-12 that docs/payload-schemas.md lists.';
  elsif max_jobs is null or max_jobs not between 1 and 10000 then
    raise exception 'Max jobs is out of range: %', max_jobs
      using errcode = 'GWBMJ', hint = 'Ask for 1 to 10000 jobs, and for more with after_id.';
  end if;
  return query
  select unfit.id, pg_catalog.ltrim(unfit.problem)
  from (
    select jobs.id, @extschema@._payload_problem(v_schema, jobs.payload) as problem
    from @extschema@._private_jobs as jobs
    where jobs.task_id = (
      select tasks.id
      from @extschema@._private_tasks as tasks
      where tasks.identifier = find_unfit_jobs.task
    )
    and jobs.attempts < jobs.max_attempts
    and jobs.id > coalesce(after_id, 0)
    order by jobs.id
    offset 0
  ) as unfit
  where unfit.problem is not null
  limit max_jobs;
end;
$$;

-- Keeps the history of a task's jobs, or (without a task) of all tasks that have no setting of
-- their own: each job that ends is recorded for as long as `keep`, with its attempts and their
-- errors; its result, if `results`; its payload, if `payloads`. A result or error of more than
-- max_bytes is left out or cut. Whoever may add jobs may read the results. Replaces what was set.
--
-- Jobs that Node's workers complete are not recorded: they delete them without a call.
create function @extschema@.keep_history(
  task text = null,
  keep interval = '30 days',
  results boolean = true,
  payloads boolean = false,
  max_bytes integer = 65536
)
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if pg_catalog.length(task) not between 1 and 128 then
    raise exception 'Task name has % characters, starting with "%"',
      pg_catalog.length(task), pg_catalog.left(task, 40)
      using errcode = 'GWBHI', hint = 'Use 1 to 128 characters, or null for all tasks.';
  elsif keep is null or not pg_catalog.isfinite(pg_catalog.now() + keep)
    or extract(epoch from keep) not between 60 and 100 * 366 * 86400.0
  then
    raise exception 'Time to keep history for is out of range: %', keep
      using errcode = 'GWBHI', hint = 'Use 1 minute to 100 years; stop_history ends it.';
  elsif max_bytes is null or max_bytes not between 0 and 100000000 then
    raise exception 'Max bytes is out of range: %', max_bytes
      using errcode = 'GWBHI', hint = 'Use 0 to 100000000.';
  elsif results is null or payloads is null then
    raise exception 'Results % and payloads % are not both true or false', results, payloads
      using errcode = 'GWBHI', hint = 'Use true or false.';
  end if;
  insert into @extschema@._private_histories as histories (
    task, keep, results, payloads, max_bytes
  )
  values (coalesce(keep_history.task, '*'), keep, results, payloads, max_bytes)
  on conflict on constraint histories_pkey do update set
    keep = excluded.keep,
    results = excluded.results,
    payloads = excluded.payloads,
    max_bytes = excluded.max_bytes,
    is_kept = true;
  perform @extschema@._add_history_partitions(pg_catalog.clock_timestamp() + interval '1 hour');
end;
$$;

-- Records no more jobs of a task, even while all others' are; without a task, none at all. What is
-- recorded stays for as long as it was to be kept. Returns whether anything was kept.
create function @extschema@.stop_history(
  task text = null
)
returns boolean
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_stopped boolean;
begin
  if task is null then
    update @extschema@._private_histories as histories
    set is_kept = false
    where histories.is_kept;
    return found;
  end if;
  select histories.is_kept into v_stopped
  from @extschema@._private_histories as histories
  where histories.task in (stop_history.task, '*')
  order by histories.task = '*'
  limit 1;
  update @extschema@._private_histories as histories
  set is_kept = false
  where histories.task = stop_history.task;
  if not found then
    insert into @extschema@._private_histories (task, keep, results, payloads, max_bytes, is_kept)
    select stop_history.task, histories.keep, false, false, histories.max_bytes, false
    from @extschema@._private_histories as histories
    where histories.task = '*'
    on conflict do nothing;
  end if;
  return coalesce(v_stopped, false);
end;
$$;

-- Deletes jobs that failed for good after this time, as workers do once an hour; null, as at first:
-- never. Returns what was set before.
create function @extschema@.keep_failed_jobs(
  keep interval = null
)
returns interval
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_before interval;
begin
  if extract(epoch from keep) < 60 or not pg_catalog.isfinite(pg_catalog.now() - keep) then
    raise exception 'Time to keep failed jobs for is out of range: %', keep
      using errcode = 'GWBHI', hint = 'Use 1 minute or more, or null to keep them for good.';
  end if;
  select settings.keep_failed into v_before from @extschema@._private_settings as settings;
  insert into @extschema@._private_settings as settings (dead_after, max_crashes, keep_failed)
  values (coalesce(
      (select settings.dead_after from @extschema@._private_settings as settings),
      interval '30 seconds'
    ), coalesce(
      (select settings.max_crashes from @extschema@._private_settings as settings), 3
    ), keep)
  on conflict on constraint settings_pkey do update set keep_failed = excluded.keep_failed;
  return v_before;
end;
$$;

-- The time to record the end of a job at: now, or the start of the first partition after now, where
-- the clock was set back. Adds a partition if there is none.
create function @extschema@._history_time()
returns timestamptz
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz := pg_catalog.clock_timestamp();
  v_start timestamptz := (
    select partitions.starts_at
    from @extschema@._private_history_partitions as partitions
    where partitions.ends_at > pg_catalog.clock_timestamp()
    order by partitions.ends_at
    limit 1
  );
begin
  if v_start is null then
    perform @extschema@._add_history_partitions(v_now);
    v_start := (
      select partitions.starts_at
      from @extschema@._private_history_partitions as partitions
      where partitions.ends_at > pg_catalog.clock_timestamp()
      order by partitions.ends_at
      limit 1
    );
  end if;
  return greatest(v_now, v_start);
end;
$$;

-- Adds partitions until there is one for the given time: of an hour, a day, a week or a month, so
-- that there are never many. It attaches tables, for which no one who reads or records has to wait;
-- others that add partitions do. In a transaction whose snapshot is older than a partition, that
-- one is not listed, but takes rows.
create function @extschema@._add_history_partitions(
  until timestamptz
)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_last timestamptz;
  v_width text;
  v_start timestamptz;
  v_end timestamptz;
  v_name text;
  r record;
begin
  lock table @extschema@._private_history in share update exclusive mode;
  select case
    when pg_catalog.max(histories.keep) <= interval '1 day' then 'hour'
    when pg_catalog.max(histories.keep) <= interval '40 days' then 'day'
    when pg_catalog.max(histories.keep) <= interval '1 year' then 'week'
    else 'month'
  end
  into v_width
  from @extschema@._private_histories as histories;
  loop
    select pg_catalog.max(partitions.ends_at) into v_last
    from @extschema@._private_history_partitions as partitions;
    exit when v_last > until;
    v_start := greatest(
      v_last,
      pg_catalog.date_trunc(v_width, pg_catalog.clock_timestamp() at time zone 'UTC')
        at time zone 'UTC'
    );
    v_end := (
      pg_catalog.date_trunc(v_width, v_start at time zone 'UTC') + ('1 ' || v_width)::interval
    ) at time zone 'UTC';
    v_name := '_private_history_'
      || pg_catalog.to_char(v_start at time zone 'UTC', 'YYYYMMDD"_"HH24');
    exit when pg_catalog.to_regclass('@extschema@.' || v_name) is not null;
    execute pg_catalog.format(
      'create table %1$s.%2$I (like %1$s._private_history including defaults)',
      '@extschema@', v_name
    );
    execute pg_catalog.format(
      'alter table %s.%I enable row level security', '@extschema@', v_name
    );
    -- Default privileges of the database may have given rights to other roles.
    for r in
      select distinct
        coalesce(pg_catalog.quote_ident(roles.rolname), 'public') as grantee
      from pg_catalog.pg_class as tables
      cross join lateral pg_catalog.aclexplode(tables.relacl) as rights
      left join pg_catalog.pg_roles as roles on roles.oid = rights.grantee
      where tables.oid = pg_catalog.to_regclass('@extschema@.' || v_name)
      and rights.grantee <> tables.relowner
    loop
      execute pg_catalog.format(
        'revoke all on %s.%I from %s', '@extschema@', v_name, r.grantee
      );
    end loop;
    execute pg_catalog.format(
      'create index on %s.%I (job_id)', '@extschema@', v_name
    );
    execute pg_catalog.format(
      'create index on %s.%I (finished_at)', '@extschema@', v_name
    );
    execute pg_catalog.format(
      'create index on %s.%I (task_identifier, finished_at)', '@extschema@', v_name
    );
    execute pg_catalog.format(
      'create index on %s.%I (finished_at) where state <> ''completed''',
      '@extschema@', v_name
    );
    execute pg_catalog.format(
      'alter table %1$s._private_history attach partition %1$s.%2$I for values from (%3$L) to (%4$L)',
      '@extschema@', v_name,
      -- Whatever style of dates and time zone the session has.
      pg_catalog.to_char(v_start at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS"+00"'),
      pg_catalog.to_char(v_end at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS"+00"')
    );
    insert into @extschema@._private_history_partitions (name, starts_at, ends_at)
    values (v_name, v_start, v_end);
  end loop;
end;
$$;

-- Drops the partitions whose rows are all older than they were to be kept, and returns how many. It
-- locks the history, and nothing else, if it gets that lock within a tenth of a second.
create function @extschema@._drop_history_partitions()
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_lock_timeout text := pg_catalog.current_setting('lock_timeout');
  v_longest interval;
  v_dropped integer := 0;
  r record;
begin
  select pg_catalog.max(histories.keep) into v_longest
  from @extschema@._private_histories as histories;
  for r in
    select partitions.name
    from @extschema@._private_history_partitions as partitions
    where partitions.ends_at < pg_catalog.clock_timestamp() - v_longest
    order by partitions.ends_at
  loop
    begin
      perform pg_catalog.set_config('lock_timeout', '100ms', true);
      lock table @extschema@._private_history in access exclusive mode;
      execute pg_catalog.format('drop table if exists %s.%I', '@extschema@', r.name);
      delete from @extschema@._private_history_partitions as partitions
      where partitions.name = r.name;
      v_dropped := v_dropped + 1;
    exception when lock_not_available then
      exit;
    end;
  end loop;
  perform pg_catalog.set_config('lock_timeout', v_lock_timeout, true);
  return v_dropped;
end;
$$;

-- Deletes the records of tasks whose history is kept for less time than others', and returns how
-- many: at most 100,000 of each setting.
create function @extschema@._delete_old_history()
returns bigint
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_longest interval;
  v_deleted bigint;
  v_all bigint := 0;
  r record;
begin
  select pg_catalog.max(histories.keep) into v_longest
  from @extschema@._private_histories as histories;
  for r in
    select histories.task, histories.keep
    from @extschema@._private_histories as histories
    where histories.keep < v_longest
  loop
    delete from @extschema@._private_history as old
    where old.finished_at < pg_catalog.clock_timestamp() - r.keep
    and (old.job_id, old.finished_at) in (
      select history.job_id, history.finished_at
      from @extschema@._private_history as history
      where history.finished_at < pg_catalog.clock_timestamp() - r.keep
      and case
        when r.task <> '*' then history.task_identifier = r.task
        else not exists (
          select from @extschema@._private_histories as others
          where others.task = history.task_identifier
        )
      end
      limit 100000
    );
    get diagnostics v_deleted = row_count;
    v_all := v_all + v_deleted;
  end loop;
  return v_all;
end;
$$;

-- Looks after the records, as workers do once a minute: adds the next partition of the history,
-- drops the old ones, deletes old rows of tasks whose history is kept for less time, what running
-- jobs left behind, and failed jobs that are to be kept no longer. One caller does so at a time;
-- the others return at once.
create function @extschema@.maintain_history(
  out dropped_partitions integer,
  out deleted_rows bigint,
  out deleted_failed_jobs bigint
)
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_settings @extschema@._private_settings;
  v_last bigint;
begin
  dropped_partitions := 0;
  deleted_rows := 0;
  deleted_failed_jobs := 0;
  -- The first number is any that others are not likely to use.
  if not pg_catalog.pg_try_advisory_xact_lock(
    1735878456, '@extschema@._private_history'::pg_catalog.regclass::oid::integer
  ) then
    return;
  end if;
  if exists (select from @extschema@._private_histories as histories where histories.is_kept) then
    perform @extschema@._add_history_partitions(
      pg_catalog.clock_timestamp() + interval '1 hour'
    );
  end if;
  dropped_partitions := @extschema@._drop_history_partitions();

  deleted_rows := @extschema@._delete_old_history();

  with gone as materialized (
    select progress.job_id
    from @extschema@._private_progress as progress
    where not exists (
      select from @extschema@._private_jobs as jobs
      where jobs.id = progress.job_id and jobs.locked_at is not null
    )
    and progress.reported_at < pg_catalog.clock_timestamp() - interval '1 minute'
    for update skip locked
  )
  delete from @extschema@._private_progress as progress
  using gone
  where progress.job_id = gone.job_id;
  delete from @extschema@._private_result_waits as waits
  where waits.until < pg_catalog.clock_timestamp();

  select * into v_settings from @extschema@._private_settings as settings;
  if exists (select from @extschema@._private_attempts) then
    -- Some of them each time: there may be many, of failed jobs.
    with chunk as materialized (
      select attempts.job_id
      from @extschema@._private_attempts as attempts
      where attempts.job_id > coalesce(v_settings.swept_to, 0)
      order by attempts.job_id
      limit 10000
    ),
    deleted as (
      delete from @extschema@._private_attempts as attempts
      using chunk
      where attempts.job_id = chunk.job_id
      and not exists (
        select from @extschema@._private_jobs as jobs where jobs.id = chunk.job_id
      )
    )
    select case when pg_catalog.count(*) = 10000 then pg_catalog.max(chunk.job_id) else 0 end
    into v_last
    from chunk;
    insert into @extschema@._private_settings as settings (dead_after, max_crashes, swept_to)
    values (coalesce(
        (select settings.dead_after from @extschema@._private_settings as settings),
        interval '30 seconds'
      ), coalesce(
        (select settings.max_crashes from @extschema@._private_settings as settings), 3
      ), v_last)
    on conflict on constraint settings_pkey do update set swept_to = excluded.swept_to;
  end if;

  if v_settings.keep_failed is not null
    and coalesce(v_settings.failed_deleted_at, '-infinity')
      < pg_catalog.clock_timestamp() - interval '1 hour'
  then
    deleted_failed_jobs := @extschema@.delete_failed_jobs(
      pg_catalog.now() - v_settings.keep_failed, 100000
    );
    if deleted_failed_jobs < 100000 then
      insert into @extschema@._private_settings as settings (dead_after, max_crashes, failed_deleted_at)
      values (coalesce(
          (select settings.dead_after from @extschema@._private_settings as settings),
          interval '30 seconds'
        ), coalesce(
          (select settings.max_crashes from @extschema@._private_settings as settings), 3
        ), pg_catalog.clock_timestamp())
      on conflict on constraint settings_pkey do update set failed_deleted_at = excluded.failed_deleted_at;
    end if;
  end if;
end;
$$;

-- Says for some seconds that somebody waits for results, and so is to be notified of jobs that end
-- on the channel jobs:result. The waiter is a text that no other one uses. Zero seconds end it.
create function @extschema@.watch_results(
  waiter text,
  seconds integer = 60
)
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if coalesce(pg_catalog.length(waiter), 0) not between 1 and 200
    or coalesce(seconds, -1) not between 0 and 3600
  then
    raise exception 'Waiter or seconds is out of range: "%", %',
      pg_catalog.left(waiter, 40), seconds
      using errcode = 'GWBHI', hint = 'Pass 1 to 200 characters, and 0 to 3600 seconds.';
  end if;
  if seconds = 0 then
    delete from @extschema@._private_result_waits as waits
    where waits.waiter = watch_results.waiter;
    return;
  end if;
  insert into @extschema@._private_result_waits as waits (waiter, until)
  values (waiter, pg_catalog.clock_timestamp() + seconds * interval '1 second')
  on conflict on constraint result_waits_pkey do update set until = excluded.until;
end;
$$;

-- Notifies those who wait for results of jobs that ended, if anybody does. Too many ids for one
-- notification are left out: whoever waits then looks at once for all.
create function @extschema@._notify_waiters(
  job_ids bigint[]
)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if exists (
    select from @extschema@._private_result_waits as waits
    where waits.until > pg_catalog.clock_timestamp()
  ) then
    perform pg_catalog.pg_notify(
      'jobs:result',
      case when pg_catalog.cardinality(job_ids) <= 300 then pg_catalog.to_json(job_ids)::text
        else '[]' end
    );
  end if;
end;
$$;

-- Tells how jobs stand, in the order given, for those who wait for their results. The state is that
-- of list_jobs, or completed, failed, cancelled or discarded; null where there is neither a job nor
-- a record. Whether results are kept is told of jobs that are in the queue. Whoever may add jobs
-- may call it: no payload is shown, and no error unless history is kept.
create function @extschema@.get_results(
  job_ids bigint[]
)
returns table (
  job_id bigint,
  state text,
  result json,
  result_problem text,
  error text,
  results_are_kept boolean
)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select
    given.id,
    coalesce(jobs.state, ended.state),
    case when jobs.state is null then ended.result end,
    case when jobs.state is null then ended.result_problem end,
    case
      when jobs.state is null then ended.error
      when jobs.state = 'failed' and jobs.is_kept then jobs.last_error
    end,
    jobs.results_are_kept
  from pg_catalog.unnest(job_ids) with ordinality as given (id, place)
  left join lateral (
    select
      case
      when jobs.locked_at is not null then 'running'
      when jobs.attempts >= jobs.max_attempts then 'failed'
      when jobs.run_at > pg_catalog.now() then 'scheduled'
      else 'ready'
    end as state,
      jobs.last_error,
      setting.results is not null as is_kept,
      coalesce(setting.results, false) as results_are_kept
    from @extschema@._private_jobs as jobs
    left join lateral (
      select histories.results, histories.payloads, histories.max_bytes
      from (
        select histories.*
        from @extschema@._private_histories as histories
        where histories.task in ((
            select tasks.identifier
            from @extschema@._private_tasks as tasks
            where tasks.id = jobs.task_id
          ), '*')
        order by histories.task = '*'
        limit 1
      ) as histories
      where histories.is_kept
    ) as setting on true
    where jobs.id = given.id
  ) as jobs on true
  left join lateral (
    select history.state, history.result, history.result_problem, history.error
    from @extschema@._private_history as history
    where history.job_id = given.id and jobs.state is null
    order by history.finished_at desc
    limit 1
  ) as ended on true
  order by given.place;
end;
$$;

-- Finds a job, waiting, running, failed or ended, and returns what is known of it; no row where
-- there is neither a job nor a record.
create function @extschema@.get_job(
  job_id bigint
)
returns table (
  id bigint,
  state text,
  task_identifier text,
  queue_name text,
  key text,
  priority smallint,
  flags jsonb,
  payload json,
  run_at timestamptz,
  created_at timestamptz,
  attempts smallint,
  max_attempts smallint,
  started_at timestamptz,
  finished_at timestamptz,
  duration interval,
  worker_id text,
  error text,
  result json,
  result_problem text,
  progress real,
  progress_message text,
  attempt_log jsonb
)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select
    jobs.id, case
      when jobs.locked_at is not null then 'running'
      when jobs.attempts >= jobs.max_attempts then 'failed'
      when jobs.run_at > pg_catalog.now() then 'scheduled'
      else 'ready'
    end, (
        select tasks.identifier
        from @extschema@._private_tasks as tasks
        where tasks.id = jobs.task_id
      ),
    (
      select queues.queue_name
      from @extschema@._private_job_queues as queues
      where queues.id = jobs.job_queue_id
    ),
    jobs.key, jobs.priority, jobs.flags, jobs.payload, jobs.run_at, jobs.created_at, jobs.attempts,
    jobs.max_attempts, jobs.locked_at,
    case when jobs.locked_at is null and jobs.attempts >= jobs.max_attempts then greatest(
      jobs.updated_at,
      (
        select pg_catalog.max(attempts.ended_at)
        from @extschema@._private_attempts as attempts
        where attempts.job_id = jobs.id
      )
    ) end,
    pg_catalog.clock_timestamp() - jobs.locked_at,
    jobs.locked_by, jobs.last_error, null::json, null::text,
    progress.progress, progress.message,
    (
      select pg_catalog.jsonb_agg(
        pg_catalog.jsonb_build_object(
          'attempt', attempts.attempt,
          'started_at', attempts.started_at,
          'ended_at', attempts.ended_at,
          'worker_id', attempts.worker_id,
          'outcome', attempts.outcome,
          'error', attempts.error
        )
        order by attempts.ended_at
      )
      from @extschema@._private_attempts as attempts
      where attempts.job_id = jobs.id
    )
  from @extschema@._private_jobs as jobs
  left join @extschema@._private_progress as progress
    on progress.job_id = jobs.id and jobs.locked_at is not null
  where jobs.id = get_job.job_id;
  if found then
    return;
  end if;
  return query
  select
    history.job_id, history.state, history.task_identifier, history.queue_name, history.key,
    history.priority, history.flags, history.payload, history.run_at, history.created_at,
    history.attempts, history.max_attempts, history.started_at, history.finished_at,
    history.duration, history.worker_id, history.error, history.result, history.result_problem,
    null::real, null::text,
    coalesce(history.earlier_attempts, '[]') || case
      when history.started_at is null then '[]'::jsonb
      else pg_catalog.jsonb_build_array(pg_catalog.jsonb_build_object(
        'attempt', history.attempts,
        'started_at', history.started_at,
        'ended_at', history.finished_at,
        'worker_id', history.worker_id,
        'outcome', history.state,
        'error', history.error
      ))
    end
  from @extschema@._private_history as history
  where history.job_id = get_job.job_id
  order by history.finished_at desc
  limit 1;
end;
$$;

-- Tells how far a running job of the worker is: a fraction of 0 to 1, if that is known, and a text.
-- No row of a job is written. Returns whether the job is the worker's.
create function @extschema@.report_progress(
  worker_id text,
  job_id bigint,
  progress real,
  message text = null
)
returns boolean
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if not (progress between 0 and 1) then
    raise exception 'Progress is out of range: %', progress
      using errcode = 'GWBHI', hint = 'Use 0 to 1, or null if it is not known.';
  end if;
  insert into @extschema@._private_progress as reports (job_id, progress, message, reported_at)
  select jobs.id, report_progress.progress, pg_catalog.left(report_progress.message, 1000),
    pg_catalog.clock_timestamp()
  from @extschema@._private_jobs as jobs
  where jobs.id = report_progress.job_id and jobs.locked_by = report_progress.worker_id
  on conflict on constraint progress_pkey do update set
    progress = excluded.progress,
    message = excluded.message,
    reported_at = excluded.reported_at;
  return found;
end;
$$;

-- Deletes jobs that the worker has done, as finish_jobs does, and records those whose history is
-- kept, in one statement: a result is visible as soon as its job is gone. The first partition that
-- takes rows from now on starts at history_start; null: there is none.
create function @extschema@._finish_and_record(
  worker_id text,
  job_ids bigint[],
  results json[],
  seconds double precision[],
  problems text[],
  history_start timestamptz,
  out done bigint[],
  out queue_ids integer[]
)
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
declare
  v_now timestamptz := greatest(pg_catalog.clock_timestamp(), history_start);
  v_retried bigint[];
  v_is_awaited boolean;
begin
  if history_start is null then
    v_now := @extschema@._history_time();
  end if;
  select pg_catalog.array_agg(attempts.job_id) into v_retried
  from @extschema@._private_attempts as attempts
  where attempts.job_id = any (job_ids);
  with deleted as (
    delete from @extschema@._private_jobs as jobs
    where jobs.id = any (job_ids) and jobs.locked_by = _finish_and_record.worker_id
    returning jobs.*
  ),
  given as materialized (
    select distinct on (given.id) given.id, given.result, given.seconds, given.problem
    from rows from (
      pg_catalog.unnest(job_ids), pg_catalog.unnest(results), pg_catalog.unnest(seconds),
      pg_catalog.unnest(problems)
    ) as given (id, result, seconds, problem)
  ),
  kept as materialized (
    select tasks.id, tasks.identifier, setting.results, setting.payloads, setting.max_bytes
    from (select distinct deleted.task_id from deleted) as ended
    join @extschema@._private_tasks as tasks on tasks.id = ended.task_id
    cross join lateral (
      select histories.results, histories.payloads, histories.max_bytes
      from (
        select histories.*
        from @extschema@._private_histories as histories
        where histories.task in (tasks.identifier, '*')
        order by histories.task = '*'
        limit 1
      ) as histories
      where histories.is_kept
    ) as setting
  ),
  recorded as (
    insert into @extschema@._private_history (job_id, state, task_identifier, queue_name, key, priority, flags, attempts, max_attempts,
    run_at, created_at, started_at, finished_at, duration, worker_id, error, earlier_attempts,
    result, result_problem, payload)
    select
      deleted.id, 'completed', kept.identifier,
      case when deleted.job_queue_id is not null then (
      select queues.queue_name
      from @extschema@._private_job_queues as queues
      where queues.id = deleted.job_queue_id
    ) end,
      deleted.key, deleted.priority, deleted.flags, deleted.attempts, deleted.max_attempts,
      deleted.run_at, deleted.created_at,
      coalesce(v_now - given.seconds * interval '1 second', deleted.locked_at),
      v_now,
      coalesce(given.seconds * interval '1 second', v_now - deleted.locked_at),
      deleted.locked_by, null,
      case when deleted.id = any (v_retried) then (
        select pg_catalog.jsonb_agg(
        pg_catalog.jsonb_build_object(
          'attempt', attempts.attempt,
          'started_at', attempts.started_at,
          'ended_at', attempts.ended_at,
          'worker_id', attempts.worker_id,
          'outcome', attempts.outcome,
          'error', attempts.error
        )
        order by attempts.ended_at
      )
        from @extschema@._private_attempts as attempts
        where attempts.job_id = deleted.id
      ) end,
      case when kept.results and pg_catalog.octet_length(given.result::text) <= kept.max_bytes
        then given.result end,
      case
        when given.result is null then case when kept.results then given.problem end
        when not kept.results then 'Results are not kept: see keep_history'
        when pg_catalog.octet_length(given.result::text) > kept.max_bytes then pg_catalog.format(
          'The result has %s bytes, and max_bytes of keep_history is %s',
          pg_catalog.octet_length(given.result::text), kept.max_bytes
        )
      end,
      case when kept.payloads then deleted.payload end
    from deleted
    join kept on kept.id = deleted.task_id
    left join given on given.id = deleted.id
  )
  select
    pg_catalog.array_agg(deleted.id),
    pg_catalog.array_agg(deleted.job_queue_id) filter (where deleted.job_queue_id is not null),
    exists (
      select from @extschema@._private_result_waits as waits
      where waits.until > pg_catalog.clock_timestamp()
    )
  into done, queue_ids, v_is_awaited
  from deleted;
  if v_retried is not null then
    delete from @extschema@._private_attempts as attempts
    where attempts.job_id = any (v_retried) and attempts.job_id = any (done);
  end if;
  if v_is_awaited and done is not null then
    perform @extschema@._notify_waiters(done);
  end if;
end;
$$;

-- Those of the jobs that are the worker's and whose history is kept: they are to be finished with
-- their results.
create function @extschema@._jobs_with_history(
  worker_id text,
  job_ids bigint[]
)
returns bigint[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return array(
    select jobs.id
    from @extschema@._private_jobs as jobs
    where jobs.id = any (job_ids)
    and jobs.locked_by = worker_id
    and exists (
      select histories.results, histories.payloads, histories.max_bytes
      from (
        select histories.*
        from @extschema@._private_histories as histories
        where histories.task in ((
            select tasks.identifier
            from @extschema@._private_tasks as tasks
            where tasks.id = jobs.task_id
          ), '*')
        order by histories.task = '*'
        limit 1
      ) as histories
      where histories.is_kept
    )
  );
end;
$$;

-- Records jobs that were deleted without being run: as completed or cancelled, and why.
create function @extschema@._record_removed(
  jobs @extschema@._private_jobs[],
  state text,
  error text
)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz;
begin
  if not exists (select from @extschema@._private_histories as histories where histories.is_kept) or coalesce(pg_catalog.cardinality(jobs), 0) = 0 then
    return;
  end if;
  v_now := @extschema@._history_time();
  insert into @extschema@._private_history (job_id, state, task_identifier, queue_name, key, priority, flags, attempts, max_attempts,
    run_at, created_at, started_at, finished_at, duration, worker_id, error, earlier_attempts,
    result, result_problem, payload)
  select
    removed.id, state, named.task_identifier,
    (
      select queues.queue_name
      from @extschema@._private_job_queues as queues
      where queues.id = removed.job_queue_id
    ),
    removed.key, removed.priority, removed.flags, removed.attempts, removed.max_attempts,
    removed.run_at, removed.created_at, null, v_now, null, null,
    pg_catalog.left(error, setting.max_bytes),
    (
      select pg_catalog.jsonb_agg(
        pg_catalog.jsonb_build_object(
          'attempt', attempts.attempt,
          'started_at', attempts.started_at,
          'ended_at', attempts.ended_at,
          'worker_id', attempts.worker_id,
          'outcome', attempts.outcome,
          'error', attempts.error
        )
        order by attempts.ended_at
      )
      from @extschema@._private_attempts as attempts
      where attempts.job_id = removed.id
    ),
    null, null,
    case when setting.payloads then removed.payload end
  from pg_catalog.unnest(jobs) as removed
  cross join lateral (select (
        select tasks.identifier
        from @extschema@._private_tasks as tasks
        where tasks.id = removed.task_id
      ) as task_identifier) as named
  cross join lateral (
    select histories.results, histories.payloads, histories.max_bytes
    from (
      select histories.*
      from @extschema@._private_histories as histories
      where histories.task in (named.task_identifier, '*')
      order by histories.task = '*'
      limit 1
    ) as histories
    where histories.is_kept
  ) as setting;
  delete from @extschema@._private_attempts as attempts
  where attempts.job_id in (select removed.id from pg_catalog.unnest(jobs) as removed);
  perform @extschema@._notify_waiters(array(
    select removed.id from pg_catalog.unnest(jobs) as removed
  ));
end;
$$;

-- Notes how the attempts of some of the worker's jobs ended, where their history is kept: those of
-- fail_jobs, before it frees the jobs.
create function @extschema@._note_failures(
  worker_id text,
  failures json
)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz := pg_catalog.clock_timestamp();
begin
  insert into @extschema@._private_attempts (
    job_id, ended_at, attempt, started_at, worker_id, outcome, error
  )
  select
    jobs.id, v_now, jobs.attempts,
    coalesce(v_now - f.seconds * interval '1 second', jobs.locked_at),
    jobs.locked_by,
    case when f.discarded or f.final and jobs.attempts < jobs.max_attempts
      then 'discarded' else 'failed' end,
    pg_catalog.left(coalesce(f.error, 'Failed without a message'), setting.max_bytes)
  from (
    select distinct on ((f.value ->> 'id')::bigint)
      (f.value ->> 'id')::bigint as id,
      f.value ->> 'error' as error,
      (f.value ->> 'final')::boolean as final,
      (f.value ->> 'discarded')::boolean as discarded,
      (f.value ->> 'seconds')::double precision as seconds
    from pg_catalog.json_array_elements(failures) with ordinality as f (value, place)
    order by (f.value ->> 'id')::bigint, f.place desc
  ) as f
  join @extschema@._private_jobs as jobs
    on jobs.id = f.id and jobs.locked_by = _note_failures.worker_id
  cross join lateral (
    select histories.results, histories.payloads, histories.max_bytes
      from (
        select histories.*
        from @extschema@._private_histories as histories
        where histories.task in ((
            select tasks.identifier
            from @extschema@._private_tasks as tasks
            where tasks.id = jobs.task_id
          ), '*')
        order by histories.task = '*'
        limit 1
      ) as histories
      where histories.is_kept
  ) as setting
  on conflict on constraint attempts_pkey do nothing;
end;
$$;

-- Notes the attempts of jobs whose workers died, before they are freed, where their history is
-- kept. Jobs that somebody else holds at the moment are skipped, as they are then.
create function @extschema@._note_crashes(
  worker_ids text[]
)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  with theirs as materialized (
    select jobs.id
    from @extschema@._private_jobs as jobs
    where jobs.locked_by = any (worker_ids)
    order by jobs.key, jobs.id
    for update skip locked
  )
  insert into @extschema@._private_attempts (
    job_id, ended_at, attempt, started_at, worker_id, outcome, error
  )
  select
    jobs.id, pg_catalog.clock_timestamp(), jobs.attempts, jobs.locked_at, jobs.locked_by,
    'crashed', 'Its worker died while it ran the job'
  from theirs
  join @extschema@._private_jobs as jobs on jobs.id = theirs.id
  cross join lateral (
    select histories.results, histories.payloads, histories.max_bytes
      from (
        select histories.*
        from @extschema@._private_histories as histories
        where histories.task in ((
            select tasks.identifier
            from @extschema@._private_tasks as tasks
            where tasks.id = jobs.task_id
          ), '*')
        order by histories.task = '*'
        limit 1
      ) as histories
      where histories.is_kept
  ) as setting
  on conflict on constraint attempts_pkey do nothing;
end;
$$;

-- The trigger's: notes that a job failed for good, whoever says so. Where its history is kept, the
-- end is recorded; one that was cancelled while it ran is then deleted, since the record tells of
-- it. And a job is added for the dead letter, if one is to be.
create function @extschema@._note_failed_job()
returns trigger
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_task text;
  v_setting record;
  v_last @extschema@._private_attempts;
  v_cancelled boolean := old.key is null
          and old.attempts >= old.max_attempts
          and old.updated_at > old.locked_at
    and exists (
      select from @extschema@._private_cancellations as cancellations
      where cancellations.job_id = new.id
    );
begin
  if exists (select from @extschema@._private_histories as histories where histories.is_kept) then
    select tasks.identifier into v_task
    from @extschema@._private_tasks as tasks
    where tasks.id = new.task_id;
    select setting.* into v_setting
    from (
      select histories.results, histories.payloads, histories.max_bytes
      from (
        select histories.*
        from @extschema@._private_histories as histories
        where histories.task in (v_task, '*')
        order by histories.task = '*'
        limit 1
      ) as histories
      where histories.is_kept
    ) as setting;
    if found then
      select * into v_last
      from @extschema@._private_attempts as attempts
      where attempts.job_id = new.id and attempts.ended_at >= pg_catalog.now()
      order by attempts.ended_at desc
      limit 1;
      if not found and old.locked_at is not null then
        -- By those who do not note their attempts: Node's workers.
        insert into @extschema@._private_attempts (
          job_id, ended_at, attempt, started_at, worker_id, outcome, error
        )
        values (
          new.id, pg_catalog.clock_timestamp(), new.attempts, old.locked_at, old.locked_by,
          'failed', pg_catalog.left(new.last_error, v_setting.max_bytes)
        )
        on conflict on constraint attempts_pkey do nothing
        returning * into v_last;
      end if;
      perform @extschema@._record_failed(
        new,
        case
          when v_cancelled then 'cancelled'
          when v_last.outcome = 'discarded' then 'discarded'
          else 'failed'
        end,
        v_last, v_task, v_setting.payloads, v_setting.max_bytes
      );
      if v_cancelled then
        delete from @extschema@._private_jobs as jobs where jobs.id = new.id;
        delete from @extschema@._private_attempts as attempts where attempts.job_id = new.id;
      end if;
    end if;
  end if;
  if not v_cancelled and exists (select from @extschema@._private_dead_letters) then
    perform @extschema@._add_dead_letter(new);
  end if;
  return null;
end;
$$;

-- Records that a job failed for good, with its last attempt, if it was running.
create function @extschema@._record_failed(
  job @extschema@._private_jobs,
  state text,
  last_attempt @extschema@._private_attempts,
  task_identifier text,
  with_payload boolean,
  max_bytes integer
)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz := @extschema@._history_time();
begin
  insert into @extschema@._private_history (job_id, state, task_identifier, queue_name, key, priority, flags, attempts, max_attempts,
    run_at, created_at, started_at, finished_at, duration, worker_id, error, earlier_attempts,
    result, result_problem, payload)
  values (
    job.id, state, task_identifier,
    (
      select queues.queue_name
      from @extschema@._private_job_queues as queues
      where queues.id = job.job_queue_id
    ),
    job.key, job.priority, job.flags,
    -- One that was given up has used up its attempts, but not by running.
    coalesce(last_attempt.attempt, job.attempts), job.max_attempts, job.run_at, job.created_at,
    last_attempt.started_at, v_now, last_attempt.ended_at - last_attempt.started_at,
    last_attempt.worker_id,
    pg_catalog.left(
      coalesce(job.last_error, 'It was replaced or removed while it ran'), max_bytes
    ),
    (
      select pg_catalog.jsonb_agg(
        pg_catalog.jsonb_build_object(
          'attempt', attempts.attempt,
          'started_at', attempts.started_at,
          'ended_at', attempts.ended_at,
          'worker_id', attempts.worker_id,
          'outcome', attempts.outcome,
          'error', attempts.error
        )
        order by attempts.ended_at
      )
      from @extschema@._private_attempts as attempts
      where attempts.job_id = job.id
      and attempts.ended_at is distinct from last_attempt.ended_at
    ),
    null, null,
    case when with_payload then job.payload end
  );
  perform @extschema@._notify_waiters(array[job.id]);
end;
$$;

-- Lets a job of the task be added whenever a job of failed_task (or, without it, of any task) fails
-- for good, in the very transaction in which it does. Its payload is an object: job_id, task,
-- queue_name, job_key, payload, error, attempts, max_attempts, created_at and failed_at. A setting
-- for a task goes before that for any. No job is added for one of the task itself. A null task
-- ends it. Returns the task that was set before.
create function @extschema@.on_dead_letter(
  task text,
  failed_task text = null
)
returns text
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_before text;
begin
  if pg_catalog.length(task) not between 1 and 128
    or pg_catalog.length(failed_task) not between 1 and 128
  then
    raise exception 'Task identifier is empty or too long: "%"',
      pg_catalog.left(case when pg_catalog.length(task) between 1 and 128 then failed_task
        else task end, 40)
      using errcode = 'GWBID', hint = 'Use 1 to 128 characters.';
  end if;
  select letters.task into v_before
  from @extschema@._private_dead_letters as letters
  where letters.failed_task = coalesce(on_dead_letter.failed_task, '*');
  if task is null then
    delete from @extschema@._private_dead_letters as letters
    where letters.failed_task = coalesce(on_dead_letter.failed_task, '*');
  else
    insert into @extschema@._private_dead_letters as letters (failed_task, task)
    values (coalesce(on_dead_letter.failed_task, '*'), on_dead_letter.task)
    on conflict on constraint dead_letters_pkey do update set task = excluded.task;
  end if;
  return v_before;
end;
$$;

-- Adds the job for one that has failed for good, if one is to be. That one fails all the same where
-- the job is refused, with a warning.
create function @extschema@._add_dead_letter(
  job @extschema@._private_jobs
)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_failed text;
  v_queue text;
  v_task text;
begin
  select tasks.identifier into v_failed
  from @extschema@._private_tasks as tasks
  where tasks.id = job.task_id;
  select letters.task into v_task
  from @extschema@._private_dead_letters as letters
  where letters.failed_task in (v_failed, '*')
  order by letters.failed_task = '*'
  limit 1;
  if v_task is null or v_task = v_failed then
    return;
  end if;
  select queues.queue_name into v_queue
  from @extschema@._private_job_queues as queues
  where queues.id = job.job_queue_id;
  begin
    perform @extschema@.add_job(v_task, pg_catalog.json_build_object(
      'job_id', job.id,
      'task', v_failed,
      'queue_name', v_queue,
      'job_key', job.key,
      'payload', job.payload,
      'error', job.last_error,
      'attempts', job.attempts,
      'max_attempts', job.max_attempts,
      'created_at', job.created_at,
      'failed_at', pg_catalog.clock_timestamp()
    ));
  exception when others then
    -- Locks that were not had and the like let the whole call be repeated.
    if sqlstate not like 'GWB%' then
      raise;
    end if;
    raise warning 'No job of task "%" was added for the dead job %: %', v_task, job.id, sqlerrm;
  end;
end;
$$;

-- Deletes jobs that have failed for good, which are then recorded as discarded where their history
-- is kept. Returns those that were; others are left out.
create function @extschema@.discard_jobs(
  job_ids bigint[],
  reason text = null
)
returns setof @extschema@._private_jobs
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_lock_timeout text;
  v_lock_set text;
  v_lock_started timestamptz;
  v_jobs @extschema@._private_jobs[];
begin
  v_lock_timeout := pg_catalog.current_setting('lock_timeout');
  v_lock_started := pg_catalog.clock_timestamp();
  loop
    begin
      -- Assigned, since that is evaluated without a query.
      v_lock_set := pg_catalog.set_config('lock_timeout', '100ms', true);
      with failed as materialized (
        select jobs.id
        from @extschema@._private_jobs as jobs
        where jobs.id = any (job_ids)
        and jobs.locked_at is null
        and jobs.attempts >= jobs.max_attempts
        order by jobs.key, jobs.id
        for update
      ),
      deleted as (
        delete from @extschema@._private_jobs as jobs
        using failed
        where jobs.id = failed.id
        returning jobs.*
      )
      select pg_catalog.array_agg(deleted::@extschema@._private_jobs order by deleted.id) into v_jobs
      from deleted;
      perform @extschema@._record_removed(
        v_jobs, 'discarded',
        pg_catalog.concat('Discarded by ', coalesce(nullif(pg_catalog.current_setting('role'), 'none'), session_user), ': ' || reason)
      );
      v_lock_set := pg_catalog.set_config('lock_timeout', v_lock_timeout, true);
      exit;
    exception when lock_not_available then
      perform @extschema@._before_lock_retry(v_lock_timeout, v_lock_started, null);
    end;
  end loop;
  return query select (pg_catalog.unnest(v_jobs)).*;
end;
$$;

create trigger failed_permanently
  after update on @extschema@._private_jobs
  for each row
  when (
    new.locked_at is null
    and new.attempts >= new.max_attempts
    and (old.locked_at is not null or old.attempts < old.max_attempts)
  )
  execute function @extschema@._note_failed_job();
comment on trigger failed_permanently on @extschema@._private_jobs
  is 'Notes permanently failed jobs in the history, and adds the jobs of on_dead_letter.';

-- Looking after jobs from outside a worker. None of these touches a job that runs: one that is
-- locked counts as running for 4 hours, because a Node worker gives no other sign of life.
-- Removes the job with the key. A running job cannot be removed: it loses its key and its remaining
-- attempts, so that it will not be tried again. Returns the job, or a null row where no job has the
-- key.
create function @extschema@.remove_job(
  job_key text
)
returns @extschema@._private_jobs
language plpgsql
volatile
strict
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_job @extschema@._private_jobs;
begin
  select * into v_job from @extschema@._private_jobs as jobs where jobs.key = job_key for update;
  if not found then
    return null;
  end if;
  delete from @extschema@._private_jobs as jobs
  where jobs.id = v_job.id and (jobs.locked_at is null or jobs.locked_at < pg_catalog.now() - interval '4 hours')
  returning * into v_job;
  if not found then
    update @extschema@._private_jobs as jobs
    set
      key = null, attempts = jobs.max_attempts,
      updated_at = greatest(pg_catalog.now(), jobs.locked_at + interval '1 microsecond')
    where jobs.key = job_key
    returning * into v_job;
  else
    perform @extschema@._record_removed(
      array[v_job], 'cancelled', pg_catalog.concat('Removed by ', coalesce(nullif(pg_catalog.current_setting('role'), 'none'), session_user))
    );
  end if;
  if coalesce(pg_catalog.current_setting('graphile_worker.notify', true), 'on')
    not in ('off', 'false', 'no', '0') then
    perform pg_catalog.pg_notify(
      'jobs:insert',
      '{"r":' || pg_catalog.random() || ',"count":' || -1 || '}'
    )
    where pg_catalog.current_setting('application_name') not like 'citus_internal%';
  end if;
  return v_job;
end;
$$;

-- Deletes the jobs as if they had been done. Returns those that were; running ones are left out.
create function @extschema@.complete_jobs(
  job_ids bigint[]
)
returns setof @extschema@._private_jobs
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_lock_timeout text;
  v_lock_set text;
  v_lock_started timestamptz;
  v_jobs @extschema@._private_jobs[];
begin
  v_lock_timeout := pg_catalog.current_setting('lock_timeout');
  v_lock_started := pg_catalog.clock_timestamp();
  loop
    begin
      -- Assigned, since that is evaluated without a query.
      v_lock_set := pg_catalog.set_config('lock_timeout', '100ms', true);
      with idle as materialized (
        select jobs.id
        from @extschema@._private_jobs as jobs
        where jobs.id = any (job_ids) and (jobs.locked_at is null or jobs.locked_at < pg_catalog.now() - interval '4 hours')
        order by jobs.key, jobs.id
        for update
      ),
      deleted as (
        delete from @extschema@._private_jobs as jobs
        using idle
        where jobs.id = idle.id
        returning jobs.*
      )
      select pg_catalog.array_agg(deleted::@extschema@._private_jobs order by deleted.id) into v_jobs
      from deleted;
      perform @extschema@._record_removed(v_jobs, 'completed', null);
      v_lock_set := pg_catalog.set_config('lock_timeout', v_lock_timeout, true);
      exit;
    exception when lock_not_available then
      perform @extschema@._before_lock_retry(v_lock_timeout, v_lock_started, null);
    end;
  end loop;
  return query select (pg_catalog.unnest(v_jobs)).*;
end;
$$;

-- Lets the jobs fail for good, with the message as their last error. Running ones are left out.
create function @extschema@.permanently_fail_jobs(
  job_ids bigint[],
  error_message text = null
)
returns setof @extschema@._private_jobs
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_lock_timeout text;
  v_lock_set text;
  v_lock_started timestamptz;
  v_jobs @extschema@._private_jobs[];
begin
  v_lock_timeout := pg_catalog.current_setting('lock_timeout');
  v_lock_started := pg_catalog.clock_timestamp();
  loop
    begin
      -- Assigned, since that is evaluated without a query.
      v_lock_set := pg_catalog.set_config('lock_timeout', '100ms', true);
      with idle as materialized (
        select jobs.id
        from @extschema@._private_jobs as jobs
        where jobs.id = any (job_ids) and (jobs.locked_at is null or jobs.locked_at < pg_catalog.now() - interval '4 hours')
        order by jobs.key, jobs.id
        for update
      ),
      failed as (
        update @extschema@._private_jobs as jobs
        set
          last_error = coalesce(error_message, 'Manually marked as failed'),
          attempts = jobs.max_attempts,
          updated_at = pg_catalog.now()
        from idle
        where jobs.id = idle.id
        returning jobs.*
      )
      select pg_catalog.array_agg(failed::@extschema@._private_jobs order by failed.id) into v_jobs
      from failed;
      v_lock_set := pg_catalog.set_config('lock_timeout', v_lock_timeout, true);
      exit;
    exception when lock_not_available then
      perform @extschema@._before_lock_retry(v_lock_timeout, v_lock_started, null);
    end;
  end loop;
  return query select (pg_catalog.unnest(v_jobs)).*;
end;
$$;

-- Changes when, and how often, the jobs run; a null argument leaves its column alone. Running jobs
-- are left out. Jobs that are due now wake the workers.
create function @extschema@.reschedule_jobs(
  job_ids bigint[],
  run_at timestamptz = null,
  priority integer = null,
  attempts integer = null,
  max_attempts integer = null
)
returns setof @extschema@._private_jobs
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_lock_timeout text;
  v_lock_set text;
  v_lock_started timestamptz;
  v_jobs @extschema@._private_jobs[];
  v_due bigint;
begin
  if attempts not between 0 and 32767 then
    raise exception 'Attempts is out of range: %', attempts
      using errcode = 'GWBMA', hint = 'Use 0 to 32767, or null to leave it alone.';
  end if;
  if max_attempts not between 1 and 32767 or priority not between -32768 and 32767 then
    perform @extschema@._reject_job('reschedule_jobs', null, max_attempts, null, priority, null);
  end if;
  v_lock_timeout := pg_catalog.current_setting('lock_timeout');
  v_lock_started := pg_catalog.clock_timestamp();
  loop
    begin
      -- Assigned, since that is evaluated without a query.
      v_lock_set := pg_catalog.set_config('lock_timeout', '100ms', true);
      with idle as materialized (
        select jobs.id
        from @extschema@._private_jobs as jobs
        where jobs.id = any (job_ids) and (jobs.locked_at is null or jobs.locked_at < pg_catalog.now() - interval '4 hours')
        order by jobs.key, jobs.id
        for update
      ),
      changed as (
        update @extschema@._private_jobs as jobs
        set
          run_at = coalesce(reschedule_jobs.run_at, jobs.run_at),
          priority = coalesce(reschedule_jobs.priority, jobs.priority),
          attempts = coalesce(reschedule_jobs.attempts, jobs.attempts),
          max_attempts = coalesce(reschedule_jobs.max_attempts, jobs.max_attempts),
          updated_at = pg_catalog.now()
        from idle
        where jobs.id = idle.id
        returning jobs.*
      )
      select
        pg_catalog.array_agg(changed::@extschema@._private_jobs order by changed.id),
        pg_catalog.count(*) filter (where changed.run_at <= pg_catalog.now() and changed.is_available)
      into v_jobs, v_due
      from changed;
      v_lock_set := pg_catalog.set_config('lock_timeout', v_lock_timeout, true);
      exit;
    exception when lock_not_available then
      perform @extschema@._before_lock_retry(v_lock_timeout, v_lock_started, null);
    end;
  end loop;
  if v_due > 0 and coalesce(pg_catalog.current_setting('graphile_worker.notify', true), 'on')
    not in ('off', 'false', 'no', '0') then
    perform pg_catalog.pg_notify(
      'jobs:insert',
      '{"r":' || pg_catalog.random() || ',"count":' || v_due || '}'
    )
    where pg_catalog.current_setting('application_name') not like 'citus_internal%';
  end if;
  return query select (pg_catalog.unnest(v_jobs)).*;
end;
$$;

-- Deletes jobs that have failed for good, those that failed before the given time only, at most
-- max_jobs of them, and returns how many. Jobs that others hold at the moment are left out.
create function @extschema@.delete_failed_jobs(
  failed_before timestamptz = null,
  max_jobs integer = null
)
returns bigint
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_deleted bigint;
begin
  if max_jobs < 1 then
    raise exception 'Max jobs is out of range: %', max_jobs
      using errcode = 'GWBMJ', hint = 'Use 1 or more, or null for all of them.';
  end if;
  with failed as materialized (
    select jobs.id
    from @extschema@._private_jobs as jobs
    where jobs.attempts >= jobs.max_attempts
    and jobs.locked_at is null
    and (failed_before is null or jobs.updated_at < failed_before)
    order by jobs.key, jobs.id
    limit max_jobs
    for update skip locked
  )
  delete from @extschema@._private_jobs as jobs
  using failed
  where jobs.id = failed.id;
  get diagnostics v_deleted = row_count;
  return v_deleted;
end;
$$;

-- Unlocks every job and queue that is locked by one of these worker pools. Only for pools that are
-- known to be dead: what they still run would run twice.
create function @extschema@.force_unlock_workers(
  worker_ids text[]
)
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_lock_timeout text;
  v_lock_set text;
  v_lock_started timestamptz;
begin
  v_lock_timeout := pg_catalog.current_setting('lock_timeout');
  v_lock_started := pg_catalog.clock_timestamp();
  loop
    begin
      -- Assigned, since that is evaluated without a query.
      v_lock_set := pg_catalog.set_config('lock_timeout', '100ms', true);
      with theirs as materialized (
        select jobs.id
        from @extschema@._private_jobs as jobs
        where jobs.locked_by = any (worker_ids)
        order by jobs.key, jobs.id
        for update
      )
      update @extschema@._private_jobs as jobs
      set locked_at = null, locked_by = null
      from theirs
      where jobs.id = theirs.id;
      perform @extschema@._unlock_queues_of(worker_ids, true);
      v_lock_set := pg_catalog.set_config('lock_timeout', v_lock_timeout, true);
      exit;
    exception when lock_not_available then
      perform @extschema@._before_lock_retry(v_lock_timeout, v_lock_started, null);
    end;
  end loop;
end;
$$;

-- Reads jobs with their payload, by id from after_id on, at most max_jobs. Each filter that is
-- given must hold. A job is in one state: ready (due, or as soon as its queue is free), scheduled
-- (for later), running, or failed (for good).
create function @extschema@.list_jobs(
  job_ids bigint[] = null,
  job_keys text[] = null,
  task_identifiers text[] = null,
  queue_names text[] = null,
  states text[] = null,
  after_id bigint = null,
  max_jobs integer = 100
)
returns setof @extschema@._private_jobs
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
as $$
declare
  v_state text;
begin
  if max_jobs is null or max_jobs not between 1 and 10000 then
    raise exception 'Max jobs is out of range: %', max_jobs
      using errcode = 'GWBMJ', hint = 'Ask for 1 to 10000 jobs, and for more with after_id.';
  end if;
  foreach v_state in array coalesce(states, '{}') loop
    if v_state is null or v_state not in ('ready', 'scheduled', 'running', 'failed') then
      raise exception 'Job state is unknown: "%"', v_state
        using errcode = 'GWBST', hint = 'Use ready, scheduled, running or failed.';
    end if;
  end loop;
  return query
  select jobs.*
  from @extschema@._private_jobs as jobs
  where (job_ids is null or jobs.id = any (job_ids))
  and (job_keys is null or jobs.key = any (job_keys))
  and (task_identifiers is null or jobs.task_id in (
    select tasks.id
    from @extschema@._private_tasks as tasks
    where tasks.identifier = any (task_identifiers)
  ))
  and (queue_names is null or jobs.job_queue_id in (
    select queues.id
    from @extschema@._private_job_queues as queues
    where queues.queue_name = any (queue_names)
  ))
  and (states is null or case
    when jobs.locked_at is not null then 'running'
    when jobs.attempts >= jobs.max_attempts then 'failed'
    when jobs.run_at > pg_catalog.now() then 'scheduled'
    else 'ready'
  end = any (states))
  and (after_id is null or jobs.id > after_id)
  order by jobs.id
  limit max_jobs;
end;
$$;

-- Deletes the names of tasks and queues that no job uses. Jobs refer to names by id.
--
-- Only a lock keeps a name from being deleted while a job that needs it is being added: add_job
-- looks names up under its row exclusive lock on the table of jobs, and these functions lock that
-- out.
-- The names of a job's task and queue; null where there is none, and for callers below the level
-- observe, who may not list them. Volatile, so that it sees those which the same statement made.
create function @extschema@.job_names(
  task_id integer,
  job_queue_id integer,
  out task_identifier text,
  out queue_name text
)
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if not pg_catalog.has_table_privilege(
    coalesce(nullif(pg_catalog.current_setting('role'), 'none'), session_user),
    '@extschema@.jobs',
    'select'
  ) then
    return;
  end if;
  select tasks.identifier into task_identifier
  from @extschema@._private_tasks as tasks
  where tasks.id = job_names.task_id;
  if job_queue_id is not null then
    select queues.queue_name into queue_name
    from @extschema@._private_job_queues as queues
    where queues.id = job_names.job_queue_id;
  end if;
end;
$$;

-- Refuses to go on in a transaction that keeps its first snapshot, where names were deleted or a
-- limit was set since: it would add a job for a name that is gone, or claim one beyond the limit.
-- Those who change that follow one another, so that who sees the last one's work sees everybody's.
-- A number that no transaction here has had yet came with the tables from elsewhere.
create function @extschema@._reject_old_snapshot()
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_deleted_in xid8;
begin
  lock table @extschema@._private_jobs in row exclusive mode;
  select deleted.last_value::text::xid8 into v_deleted_in
  from @extschema@.names_deleted_seq as deleted;
  if not pg_catalog.pg_visible_in_snapshot(v_deleted_in, pg_catalog.pg_current_snapshot()) then
    begin
      perform pg_catalog.pg_xact_status(v_deleted_in);
    exception when invalid_parameter_value then
      return;
    end;
    raise exception 'Names were deleted, or a limit was set, since this transaction began'
      using errcode = 'serialization_failure', hint = 'Repeat the transaction.';
  end if;
end;
$$;

-- Waits for transactions that add, claim or change jobs, and keeps new ones out until this one
-- ends. Waits for a moment at a time, since everybody else would queue up behind the request.
create function @extschema@._block_enqueues()
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
set lock_timeout = '50ms'
as $$
declare
  v_tries integer := 0;
begin
  if pg_catalog.current_setting('transaction_isolation') in ('repeatable read', 'serializable') then
    raise exception 'Names cannot be deleted, nor limits set, at the isolation level %',
      pg_catalog.current_setting('transaction_isolation')
      using errcode = 'GWBTI', hint = 'Call it in a transaction that is read committed.';
  end if;
  loop
    begin
      lock table @extschema@._private_jobs in share row exclusive mode;
      return;
    exception when lock_not_available then
      v_tries := v_tries + 1;
      if v_tries = 40 then
        raise exception 'Transactions that add or fetch jobs left no gap'
          using errcode = 'lock_not_available',
            hint = 'Repeat the call, or look for a long transaction in pg_stat_activity.';
      end if;
    end;
    perform pg_catalog.pg_sleep(0.2 * pg_catalog.random());
  end loop;
end;
$$;

-- Removes the names of queues that no job is in and returns how many. Adding and taking waits for
-- one scan of the jobs where there is something to remove.
create function @extschema@.delete_unused_queues()
returns bigint
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_unused integer[];
  v_deleted bigint;
begin
  select pg_catalog.array_agg(names.id) into v_unused
  from @extschema@._private_job_queues as names
  where names.locked_at is null
  and not exists (
    select from @extschema@._private_jobs as jobs where jobs.job_queue_id = names.id
  );
  if v_unused is null then
    return 0;
  end if;
  perform @extschema@._block_enqueues();
  -- A name that somebody else holds is in use.
  with unused as materialized (
    select names.id
    from @extschema@._private_job_queues as names
    where names.id = any (v_unused)
    and names.locked_at is null
    and not exists (
      select from @extschema@._private_jobs as jobs where jobs.job_queue_id = names.id
    )
    for update skip locked
  )
  delete from @extschema@._private_job_queues as names
  using unused
  where names.id = unused.id;
  get diagnostics v_deleted = row_count;
  if v_deleted > 0 then
    perform pg_catalog.setval(
      '@extschema@.names_deleted_seq', pg_catalog.pg_current_xact_id()::text::bigint
    );
  end if;
  return v_deleted;
end;
$$;

-- Removes the names of tasks that no job is for, other than those to keep, and returns how many. A
-- Node worker knows its tasks by number: keep those that one runs, or restart it afterwards.
create function @extschema@.delete_unused_tasks(
  keep_identifiers text[] = null
)
returns bigint
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_unused integer[];
  v_deleted bigint;
begin
  select pg_catalog.array_agg(names.id) into v_unused
  from @extschema@._private_tasks as names
  where names.identifier <> all (coalesce(keep_identifiers, '{}'))
  and not exists (
    select from @extschema@._private_jobs as jobs where jobs.task_id = names.id
  );
  if v_unused is null then
    return 0;
  end if;
  perform @extschema@._block_enqueues();
  -- A name that somebody else holds is in use.
  with unused as materialized (
    select names.id
    from @extschema@._private_tasks as names
    where names.id = any (v_unused)
    and names.identifier <> all (coalesce(keep_identifiers, '{}'))
    and not exists (
      select from @extschema@._private_jobs as jobs where jobs.task_id = names.id
    )
    for update skip locked
  )
  delete from @extschema@._private_tasks as names
  using unused
  where names.id = unused.id;
  get diagnostics v_deleted = row_count;
  if v_deleted > 0 then
    perform pg_catalog.setval(
      '@extschema@.names_deleted_seq', pg_catalog.pg_current_xact_id()::text::bigint
    );
  end if;
  return v_deleted;
end;
$$;

-- Raises the error for a scope or a name that cannot be paused or limited.
create function @extschema@._reject_control(
  scope text,
  name text
)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if scope is null or scope not in ('task', 'queue') then
    raise exception 'Scope is unknown: "%"', scope
      using errcode = 'GWBCO', hint = 'Use task or queue.';
  elsif name is null or name = '' then
    raise exception 'Name of the % is null or empty', scope
      using errcode = 'GWBCO',
        hint = 'Pass a name, or the beginning of names with an asterisk, such as ''tenant-*''.';
  elsif pg_catalog.length(name) > 129 then
    raise exception 'Name of the % is too long: % characters, starting with "%"',
      scope, pg_catalog.length(name), pg_catalog.left(name, 40)
      using errcode = 'GWBCO', hint = 'Use at most 128 characters and an asterisk.';
  end if;
end;
$$;

-- Tells the workers that something about the jobs which they hold has changed.
create function @extschema@._notify_workers()
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pg_catalog.pg_notify('jobs:control', '{"r":' || pg_catalog.random() || '}')
  where pg_catalog.current_setting('application_name') not like 'citus_internal%';
end;
$$;

-- Pauses: jobs of a paused task or queue are not claimed; those that run go on. A pause is a row by
-- name, so that it holds for queues and tasks which come later, too.
-- Writes a pause, and tells the workers, which may have prefetched jobs.
create function @extschema@._pause(
  scope text,
  name text,
  until timestamptz,
  reason text
)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if until <= pg_catalog.clock_timestamp() then
    raise exception 'Pause would end before it begins: %', until
      using errcode = 'GWBCO', hint = 'Pass a time in the future, or null until it is resumed.';
  end if;
  insert into @extschema@._private_pauses as pauses (
    scope, name, until, reason, paused_at, paused_by
  )
  values (
    _pause.scope, _pause.name, coalesce(_pause.until, 'infinity'), _pause.reason,
    pg_catalog.clock_timestamp(), coalesce(nullif(pg_catalog.current_setting('role'), 'none'), session_user)
  )
  on conflict on constraint pauses_pkey do update set
    until = excluded.until,
    reason = excluded.reason,
    paused_at = excluded.paused_at,
    paused_by = excluded.paused_by;
  insert into @extschema@._private_limit_states (scope, name)
  values ('pause', '')
  on conflict do nothing;
  perform @extschema@._notify_workers();
end;
$$;

-- Deletes a pause, and wakes the workers.
create function @extschema@._resume(
  scope text,
  name text
)
returns boolean
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_until timestamptz;
begin
  delete from @extschema@._private_pauses as pauses
  where pauses.scope = _resume.scope and pauses.name = _resume.name
  returning pauses.until into v_until;
  if v_until > pg_catalog.clock_timestamp() and coalesce(pg_catalog.current_setting('graphile_worker.notify', true), 'on')
    not in ('off', 'false', 'no', '0') then
    perform pg_catalog.pg_notify(
      'jobs:insert',
      '{"r":' || pg_catalog.random() || ',"count":' || 1 || '}'
    )
    where pg_catalog.current_setting('application_name') not like 'citus_internal%';
  end if;
  return coalesce(v_until > pg_catalog.clock_timestamp(), false);
end;
$$;

-- Pauses a queue until a time, or until it is resumed. Pausing it again replaces the time and
-- the reason. A name that ends in an asterisk stands for all that begin so.
create function @extschema@.pause_queue(
  name text,
  until timestamptz = null,
  reason text = null
)
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform @extschema@._reject_control('queue', name);
  perform @extschema@._pause('queue', name, until, reason);
end;
$$;

-- Resumes a queue. Returns whether there was such a pause; what another pause covers as well
-- stays paused.
create function @extschema@.resume_queue(
  name text
)
returns boolean
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform @extschema@._reject_control('queue', name);
  return @extschema@._resume('queue', name);
end;
$$;

-- Pauses a task until a time, or until it is resumed. Pausing it again replaces the time and
-- the reason. A name that ends in an asterisk stands for all that begin so.
create function @extschema@.pause_task(
  name text,
  until timestamptz = null,
  reason text = null
)
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform @extschema@._reject_control('task', name);
  perform @extschema@._pause('task', name, until, reason);
end;
$$;

-- Resumes a task. Returns whether there was such a pause; what another pause covers as well
-- stays paused.
create function @extschema@.resume_task(
  name text
)
returns boolean
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform @extschema@._reject_control('task', name);
  return @extschema@._resume('task', name);
end;
$$;

-- Pauses everything until a time, or until it is resumed. Pausing it again replaces the time and
-- the reason.
create function @extschema@.pause_all(
  until timestamptz = null,
  reason text = null
)
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform @extschema@._pause('all', '*', until, reason);
end;
$$;

-- Resumes everything. Returns whether there was such a pause; what another pause covers as well
-- stays paused.
create function @extschema@.resume_all(
)
returns boolean
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return @extschema@._resume('all', '*');
end;
$$;

-- Whether a task or queue is paused. The pause of everything is not looked at here.
create function @extschema@._is_paused(
  scope text,
  name text
)
returns boolean
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  return exists (
    select from (
      select pauses.*
      from @extschema@._private_pauses as pauses
      where pauses.scope = _is_paused.scope and pauses.name = _is_paused.name
      union all
      select pauses.*
      from @extschema@._private_pauses as pauses
      where pauses.scope = _is_paused.scope
      and pg_catalog.right(pauses.name, 1) = '*'
      and pauses.name <> _is_paused.name
      and pg_catalog.starts_with(_is_paused.name, pg_catalog.left(pauses.name, -1))
    ) as pauses
    where pauses.until > pg_catalog.statement_timestamp()
  );
end;
$$;

-- Gives back a job that the worker holds, without using up the attempt, and pauses its queue or
-- task meanwhile: what it calls has said "not now". A pause that ends later stays. Returns as
-- return_jobs does; a job that is not this worker's any more pauses nothing.
create function @extschema@.return_and_pause(
  worker_id text,
  job_id bigint,
  scope text,
  until timestamptz,
  reason text = null
)
returns boolean
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_name text;
begin
  perform @extschema@._reject_control(scope, '*');
  if until is null or not pg_catalog.isfinite(until) then
    raise exception 'Pause from a job has no end: %', until
      using errcode = 'GWBCO', hint = 'Pass the time at which the job may be tried again.';
  end if;
  select case scope when 'task' then tasks.identifier else queues.queue_name end into v_name
  from @extschema@._private_jobs as jobs
  join @extschema@._private_tasks as tasks on tasks.id = jobs.task_id
  left join @extschema@._private_job_queues as queues on queues.id = jobs.job_queue_id
  where jobs.id = job_id and jobs.locked_by = worker_id;
  if not found then
    return false;
  elsif v_name is null then
    raise exception 'Job % has no queue that could be paused', job_id
      using errcode = 'GWBCO', hint = 'Add it with a queue_name, or pause its task.';
  end if;
  if until > pg_catalog.clock_timestamp() and not exists (
    select from @extschema@._private_pauses as pauses
    where pauses.scope = return_and_pause.scope and pauses.name = v_name
    and pauses.until >= return_and_pause.until
  ) then
    perform @extschema@._pause(scope, v_name, until, reason);
  end if;
  return (select returned.done from @extschema@.return_jobs(worker_id, array[job_id]) as returned);
end;
$$;

-- Forgets pauses that are over, schedules that were ended, cancelled jobs that run no more, and the
-- states of limits that say nothing any more.
create function @extschema@._forget_controls()
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  with over as materialized (
    select pauses.scope, pauses.name
    from @extschema@._private_pauses as pauses
    where pauses.until <= pg_catalog.clock_timestamp()
    for update skip locked
  )
  delete from @extschema@._private_pauses as pauses
  using over
  where pauses.scope = over.scope and pauses.name = over.name;

  with ended as materialized (
    select schedules.name
    from @extschema@._private_schedules as schedules
    where schedules.unscheduled_at < pg_catalog.clock_timestamp() - interval '1 day'
    for update skip locked
  )
  delete from @extschema@._private_schedules as schedules
  using ended
  where schedules.name = ended.name;

  with gone as materialized (
    select cancellations.job_id
    from @extschema@._private_cancellations as cancellations
    where not exists (
      select from @extschema@._private_jobs as jobs
      where jobs.id = cancellations.job_id and jobs.locked_at is not null
    )
    for update skip locked
  )
  delete from @extschema@._private_cancellations as cancellations
  using gone
  where cancellations.job_id = gone.job_id;

  with unused as materialized (
    select states.scope, states.name
    from @extschema@._private_limit_states as states
    where states.scope in ('task', 'queue')
    and coalesce(states.next_start_at <= pg_catalog.clock_timestamp(), true)
    and coalesce(states.started_at < pg_catalog.clock_timestamp() - interval '10 minutes', true)
    and not exists (
      select from @extschema@._private_jobs as jobs
      where jobs.id = any (states.job_ids) and jobs.locked_at is not null
    )
    for update skip locked
  )
  delete from @extschema@._private_limit_states as states
  using unused
  where states.scope = unused.scope and states.name = unused.name;

  -- Whoever pauses or limits just now has written that first: then the lock is not to be had.
  begin
    lock table @extschema@._private_pauses, @extschema@._private_limits in share mode nowait;
    delete from @extschema@._private_limit_states as states
    where states.scope = 'pause' and not exists (select from @extschema@._private_pauses)
    or states.scope = 'limit' and not exists (select from @extschema@._private_limits);
  exception when lock_not_available then
    null;
  end;
end;
$$;

-- Limits: at most so many jobs at once, and so many starts in a time, for each task or queue that
-- the name covers. How many run is counted among the claimed jobs themselves, so that no slot can
-- leak; get_jobs locks the row of the task or queue while it counts and claims.

-- Sets the limit of a task or queue, or of every one that begins like a name with an asterisk, each
-- on its own. The longest name that covers a queue decides. Replaces what was set for the name.
--
-- Where it limits how many run, it waits for transactions that are claiming jobs, for some seconds,
-- and notes the jobs that run already, so that the limit is exact from the start.
create function @extschema@.set_limit(
  scope text,
  name text,
  max_running integer = null,
  rate integer = null,
  per interval = null,
  burst integer = null
)
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_seconds numeric := extract(epoch from per);
  v_burst integer := burst;
begin
  perform @extschema@._reject_control(scope, name);
  if max_running is null and rate is null then
    raise exception 'Limit of the % "%" limits nothing', scope, name
      using errcode = 'GWBLI', hint = 'Pass max_running, or rate and per, or both.';
  elsif max_running not between 1 and 100000 then
    raise exception 'Max running is out of range: %', max_running
      using errcode = 'GWBLI', hint = 'Use 1 to 100000; pause_task and pause_queue stop all.';
  elsif (rate is null) <> (per is null) or rate is null and burst is not null then
    raise exception 'Rate %, per % and burst % do not go together', rate, per, burst
      using errcode = 'GWBLI',
        hint = 'Pass a rate and per, for example rate => 100, per => ''1 minute'', or neither.';
  elsif rate not between 1 and 1000000 or burst not between 1 and 1000000 then
    raise exception 'Rate or burst is out of range: %, %', rate, burst
      using errcode = 'GWBLI', hint = 'Use 1 to 1000000.';
  elsif not pg_catalog.isfinite(pg_catalog.now() + per)
    or v_seconds not between 0.001 and 366 * 86400 or v_seconds * 1000000 < rate
  then
    raise exception 'Period of the rate is out of range: % in %', rate, per
      using errcode = 'GWBLI',
        hint = 'Use a period of 1 millisecond to 366 days, and at most one start a microsecond.';
  end if;
  if rate is not null then
    -- Workers wake a little late: what falls due within a twentieth of a second may come together.
    v_burst := coalesce(burst, greatest(1, pg_catalog.ceil(rate * 0.05 / v_seconds)));
    if v_burst * v_seconds / rate > 10 * 366 * 86400 then
      raise exception 'Burst takes too long to come back: % at % in %', v_burst, rate, per
        using errcode = 'GWBLI', hint = 'Use a burst that the rate allows within ten years.';
    end if;
  end if;
  if max_running is not null then
    perform @extschema@._block_enqueues();
  end if;
  insert into @extschema@._private_limits as limits (
    scope, name, max_running, rate, per, burst, spacing
  )
  values (
    set_limit.scope, set_limit.name, set_limit.max_running, set_limit.rate, set_limit.per,
    v_burst, pg_catalog.ceil(v_seconds * 1000000 / rate)
  )
  on conflict on constraint limits_pkey do update set
    max_running = excluded.max_running,
    rate = excluded.rate,
    per = excluded.per,
    burst = excluded.burst,
    spacing = excluded.spacing;
  insert into @extschema@._private_limit_states (scope, name)
  values ('limit', '')
  on conflict do nothing;
  if max_running is not null then
    perform @extschema@._note_running_jobs(scope, name);
    perform pg_catalog.setval(
      '@extschema@.names_deleted_seq', pg_catalog.pg_current_xact_id()::text::bigint
    );
  end if;
  if coalesce(pg_catalog.current_setting('graphile_worker.notify', true), 'on')
    not in ('off', 'false', 'no', '0') then
    perform pg_catalog.pg_notify(
      'jobs:insert',
      '{"r":' || pg_catalog.random() || ',"count":' || 1 || '}'
    )
    where pg_catalog.current_setting('application_name') not like 'citus_internal%';
  end if;
end;
$$;

-- Removes the limit that was set for a name. Returns whether there was one. A queue of which more
-- than one job runs goes back to one at a time when these have ended.
create function @extschema@.remove_limit(
  scope text,
  name text
)
returns boolean
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform @extschema@._reject_control(scope, name);
  delete from @extschema@._private_limits as limits
  where limits.scope = remove_limit.scope and limits.name = remove_limit.name;
  if not found then
    return false;
  end if;
  if coalesce(pg_catalog.current_setting('graphile_worker.notify', true), 'on')
    not in ('off', 'false', 'no', '0') then
    perform pg_catalog.pg_notify(
      'jobs:insert',
      '{"r":' || pg_catalog.random() || ',"count":' || 1 || '}'
    )
    where pg_catalog.current_setting('application_name') not like 'citus_internal%';
  end if;
  return true;
end;
$$;

-- Notes the jobs that run, of each task or queue that the name covers, for the limit to count. The
-- caller keeps others from claiming meanwhile. Reads the whole table.
create function @extschema@._note_running_jobs(
  scope text,
  name text
)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into @extschema@._private_limit_states as states (scope, name, job_ids)
  select
    _note_running_jobs.scope,
    names.name,
    pg_catalog.array_agg(names.job_id)
  from (
    select
      case _note_running_jobs.scope
        when 'task' then tasks.identifier else queues.queue_name
      end as name,
      jobs.id as job_id
    from @extschema@._private_jobs as jobs
    join @extschema@._private_tasks as tasks on tasks.id = jobs.task_id
    left join @extschema@._private_job_queues as queues on queues.id = jobs.job_queue_id
    where jobs.locked_at is not null
  ) as names
  where (_note_running_jobs.name = names.name
    or pg_catalog.right(_note_running_jobs.name, 1) = '*'
    and pg_catalog.starts_with(names.name, pg_catalog.left(_note_running_jobs.name, -1)))
  group by names.name
  order by names.name
  on conflict on constraint limit_states_pkey do update set job_ids = array(
    select pg_catalog.unnest(states.job_ids)
    union
    select pg_catalog.unnest(excluded.job_ids)
  );
end;
$$;

-- What get_jobs has to heed now. Of the tasks given (null: all) it leaves those of which a job may
-- be claimed; null still means all. is_limited: a limit holds for some task or queue.
create function @extschema@._find_controls(
  inout task_ids integer[],
  out is_limited boolean,
  out has_pauses boolean,
  out has_queue_limits boolean
)
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_has_task_pauses boolean;
begin
  select
    pg_catalog.count(*) > 0,
    coalesce(pg_catalog.bool_or(pauses.scope = 'task'), false),
    case when pg_catalog.bool_or(pauses.scope = 'all') then '{}' else _find_controls.task_ids end
  into has_pauses, v_has_task_pauses, task_ids
  from @extschema@._private_pauses as pauses
  where pauses.until > pg_catalog.clock_timestamp();
  has_queue_limits := exists (
    select from @extschema@._private_limits as limits where limits.scope = 'queue'
  ) or exists (
    select from @extschema@._private_limit_states as states where states.scope = 'queue'
  );
  is_limited := exists (
    select from @extschema@._private_limit_states as states where states.scope <> 'pause'
  );
  if (v_has_task_pauses or is_limited) and task_ids is distinct from '{}' then
    select case
      when _find_controls.task_ids is null and pg_catalog.bool_and(states.slots > 0) then null
      else coalesce(pg_catalog.array_agg(states.id) filter (where states.slots > 0), '{}')
    end
    into task_ids
    from @extschema@._private_control_states as states
    where states.scope = 'task'
    and (_find_controls.task_ids is null or states.id = any (_find_controls.task_ids));
  end if;
end;
$$;

-- Tells the worker, by the setting graphile_worker.more, how long it is until a rate allows another
-- start or a pause is over (in seconds), or that a task or queue runs as many jobs as its limit
-- allows. The end of the next job of such a queue wakes the workers. What ended since the statement
-- began may still have been in the way.
create function @extschema@._wait_for_controls()
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_began timestamptz := pg_catalog.statement_timestamp();
  v_seconds numeric;
  v_is_full boolean;
begin
  if pg_catalog.current_setting('graphile_worker.more', true) = 'true' then
    return;
  end if;
  -- That the last slot was taken may be long ago: fifty of these are checked in each call, and
  -- what is not checked may be full.
  with full_once as materialized (
    select states.scope, states.name
    from @extschema@._private_limit_states as states
    where states.is_full
    limit 50
    for update skip locked
  ),
  checked as materialized (
    select
      full_once.scope, full_once.name,
      coalesce(states.running >= states.max_running, false) as is_full
    from full_once
    cross join lateral (
      select states.running, states.max_running
      from @extschema@._private_control_states as states
      where states.scope = full_once.scope and states.name = full_once.name
      limit 1
    ) as states
  ),
  noted as (
    update @extschema@._private_limit_states as states
    set
      is_full = checked.is_full,
      is_wanted = states.is_wanted or checked.is_full and states.scope = 'queue'
    from checked
    where states.scope = checked.scope and states.name = checked.name
    and (not checked.is_full or states.scope = 'queue' and not states.is_wanted)
  )
  select
    extract(epoch from least(
      pg_catalog.min(states.wait_until) filter (where states.wait_until > v_began),
      (
        select pg_catalog.min(pauses.until)
        from @extschema@._private_pauses as pauses
        where pauses.until > v_began and pauses.until < 'infinity'
      )
    ) - pg_catalog.clock_timestamp()),
    pg_catalog.count(*) filter (where states.is_full)
        > (select pg_catalog.count(*) from checked)
      or coalesce((select pg_catalog.bool_or(checked.is_full) from checked), false)
  into v_seconds, v_is_full
  from @extschema@._private_limit_states as states;
  if v_seconds is not null then
    perform pg_catalog.set_config(
      'graphile_worker.more', pg_catalog.round(greatest(v_seconds, 0.001), 6)::text, false
    );
  elsif v_is_full then
    perform pg_catalog.set_config('graphile_worker.more', 'limited', false);
  end if;
end;
$$;

-- Wakes the workers where jobs ended that a limit had others wait for.
create function @extschema@._wake_limited(
  job_ids bigint[]
)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  with wanted as materialized (
    select states.scope, states.name
    from @extschema@._private_limit_states as states
    where states.is_wanted and states.job_ids && _wake_limited.job_ids
    order by states.scope, states.name
    for update skip locked
  )
  update @extschema@._private_limit_states as states
  set is_wanted = false
  from wanted
  where states.scope = wanted.scope and states.name = wanted.name;
  if found and coalesce(pg_catalog.current_setting('graphile_worker.notify', true), 'on')
    not in ('off', 'false', 'no', '0') then
    perform pg_catalog.pg_notify(
      'jobs:insert',
      '{"r":' || pg_catalog.random() || ',"count":' || pg_catalog.cardinality(job_ids) || '}'
    )
    where pg_catalog.current_setting('application_name') not like 'citus_internal%';
  end if;
end;
$$;

-- Cancels jobs, for a reason that people will read. Returns what became of each, in the order given:
--   cancelled        it was waiting, and is deleted
--   cancelling       it runs: it loses its key and its remaining attempts, and its worker is told to
--                    stop it; if it ends before, that counts
--   not_cancellable  it runs in a worker that cannot be told (Node's), and was not touched
--   failed           it had failed for good, and was not touched
--   missing          there is no such job
create function @extschema@.cancel_jobs(
  job_ids bigint[],
  reason text = null
)
returns table (job_id bigint, outcome text)
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_lock_timeout text;
  v_lock_set text;
  v_lock_started timestamptz;
  v_by text := coalesce(nullif(pg_catalog.current_setting('role'), 'none'), session_user);
  v_deleted @extschema@._private_jobs[];
  v_stopped bigint[];
  v_running bigint[];
  v_failed bigint[];
begin
  v_lock_timeout := pg_catalog.current_setting('lock_timeout');
  v_lock_started := pg_catalog.clock_timestamp();
  loop
    begin
      -- Assigned, since that is evaluated without a query.
      v_lock_set := pg_catalog.set_config('lock_timeout', '100ms', true);
      with chosen as materialized (
        select jobs.id, jobs.locked_at is not null as is_running, jobs.is_available
        from @extschema@._private_jobs as jobs
        where jobs.id = any (job_ids)
        order by jobs.key, jobs.id
        for update
      ),
      deleted as (
        delete from @extschema@._private_jobs as jobs
        using chosen
        where jobs.id = chosen.id and jobs.is_available
        returning jobs.*
      ),
      stopped as (
        update @extschema@._private_jobs as jobs
        set
          last_error = pg_catalog.concat('Cancelled by ', v_by, ': ' || reason),
          key = null, attempts = jobs.max_attempts,
          updated_at = greatest(pg_catalog.now(), jobs.locked_at + interval '1 microsecond')
        from chosen
        where jobs.id = chosen.id
        and jobs.locked_at is not null
        and (
          exists (
            select from @extschema@._private_heartbeats as heartbeats
            where heartbeats.worker_id = jobs.locked_by
          )
          or exists (
            select from @extschema@._private_ended_workers as ended
            where ended.worker_id = jobs.locked_by
          )
        )
        returning jobs.id
      ),
      noted as (
        insert into @extschema@._private_cancellations as cancellations (
          job_id, reason, cancelled_by, cancelled_at
        )
        select stopped.id, reason, v_by, pg_catalog.clock_timestamp()
        from stopped
        on conflict on constraint cancellations_pkey do update set
          reason = excluded.reason,
          cancelled_by = excluded.cancelled_by,
          cancelled_at = excluded.cancelled_at
      )
      select
        array(select deleted::@extschema@._private_jobs from deleted),
        array(select stopped.id from stopped),
        array(select chosen.id from chosen where chosen.is_running),
        array(select chosen.id from chosen where not (chosen.is_running or chosen.is_available))
      into v_deleted, v_stopped, v_running, v_failed;
      perform @extschema@._record_removed(
        v_deleted, 'cancelled', pg_catalog.concat('Cancelled by ', v_by, ': ' || reason)
      );
      v_lock_set := pg_catalog.set_config('lock_timeout', v_lock_timeout, true);
      exit;
    exception when lock_not_available then
      perform @extschema@._before_lock_retry(v_lock_timeout, v_lock_started, null);
    end;
  end loop;
  if v_stopped <> '{}' then
    perform @extschema@._notify_workers();
  end if;
  return query
  select given.id, case
    when given.id in (select deleted.id from pg_catalog.unnest(v_deleted) as deleted)
      then 'cancelled'
    when given.id = any (v_stopped) then 'cancelling'
    when given.id = any (v_running) then 'not_cancellable'
    when given.id = any (v_failed) then 'failed'
    else 'missing'
  end
  from pg_catalog.unnest(job_ids) with ordinality as given (id, place)
  order by given.place;
end;
$$;

-- What a worker has to know of the jobs that it holds: those to stop, since they were cancelled,
-- with the reason and by whom; and of those that it has prefetched, which are given, those to
-- return, since their task or queue or everything is paused. Call it when a notification comes on
-- the channel jobs:control, and with each heartbeat while jobs are held.
create function @extschema@.review_jobs(
  worker_id text,
  prefetched_ids bigint[] = null
)
returns table (job_id bigint, verdict text, reason text, requested_by text)
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select jobs.id, 'cancelled', cancellations.reason, cancellations.cancelled_by
  from @extschema@._private_cancellations as cancellations
  join @extschema@._private_jobs as jobs on jobs.id = cancellations.job_id
  where jobs.locked_by = review_jobs.worker_id
  and jobs.key is null
          and jobs.attempts >= jobs.max_attempts
          and jobs.updated_at > jobs.locked_at;
  return query
  select distinct on (jobs.id) jobs.id, 'paused', pauses.reason, pauses.paused_by
  from @extschema@._private_jobs as jobs
  join @extschema@._private_tasks as tasks on tasks.id = jobs.task_id
  left join @extschema@._private_job_queues as queues on queues.id = jobs.job_queue_id
  join @extschema@._private_pauses as pauses
    on pauses.until > pg_catalog.clock_timestamp()
    and case pauses.scope
      when 'task' then (pauses.name = tasks.identifier
        or pg_catalog.right(pauses.name, 1) = '*'
        and pg_catalog.starts_with(tasks.identifier, pg_catalog.left(pauses.name, -1)))
      when 'queue' then (pauses.name = queues.queue_name
        or pg_catalog.right(pauses.name, 1) = '*'
        and pg_catalog.starts_with(queues.queue_name, pg_catalog.left(pauses.name, -1)))
      else true
    end
  where jobs.id = any (prefetched_ids) and jobs.locked_by = review_jobs.worker_id;
end;
$$;

-- Strategy 1 of get_jobs: claim the first few jobs, in one statement.
--
-- Assumes nothing. Claims jobs only if the first 16 available jobs decide the call: one job is
-- wanted, or there are fewer than 16 and all of them that can run are wanted; and none of them has
-- a queue. Returns no row otherwise. Locks the jobs that it claims. A worker that waits for work is
-- served in half the time this way.
create function @extschema@._claim_first_jobs(
  worker_id text,
  max_jobs integer,
  task_ids integer[],
  forbidden_flags text[]
)
returns setof @extschema@.claimed_job
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  c_first constant integer := 16;
begin
  return query
  with seen as materialized (
    select
      jobs.ctid as place, jobs.id, jobs.job_queue_id,
      jobs.run_at <= pg_catalog.now()
        and (task_ids is null or jobs.task_id = any (task_ids))
        and (
          forbidden_flags is null or jobs.flags is null or not jobs.flags ?| forbidden_flags
        )
        as can_run
    from @extschema@._private_jobs as jobs
    where jobs.is_available
    order by jobs.priority, jobs.run_at, jobs.id
    limit c_first
  ),
  picked as materialized (
    select seen.place
    from seen
    where seen.can_run
    and (
      select pg_catalog.count(every.job_queue_id) = 0 and (
        max_jobs = 1 or (
          pg_catalog.count(*) < c_first
          and pg_catalog.count(*) filter (where every.can_run) <= max_jobs
        )
      )
      from seen as every
    )
    limit max_jobs
  ),
  locked as materialized (
    select jobs.ctid as place
    from @extschema@._private_jobs as jobs
    where jobs.ctid = any (array(select picked.place from picked))
    and jobs.locked_at is null
    and jobs.attempts < jobs.max_attempts
    and jobs.run_at <= pg_catalog.now()
    and not exists (
      select from @extschema@._private_limit_states as states where states.scope <> 'pause'
    )
    and jobs.job_queue_id is null
    and (task_ids is null or jobs.task_id = any (task_ids))
    and (
      forbidden_flags is null or jobs.flags is null or not jobs.flags ?| forbidden_flags
    )
    order by jobs.key, jobs.id
    for update of jobs skip locked
  ),
  claimed as (
    update @extschema@._private_jobs as jobs
    set attempts = jobs.attempts + 1, locked_at = pg_catalog.now(), locked_by = worker_id
    where jobs.ctid = any (array(select locked.place from locked))
    returning jobs.*
  )select
    claimed.id, tasks.identifier, claimed.payload,
    null::text,
    claimed.priority, claimed.run_at, claimed.attempts, claimed.max_attempts, claimed.last_error,
    claimed.created_at, claimed.updated_at, claimed.key, claimed.locked_at, claimed.locked_by,
    claimed.revision, claimed.flags
  from claimed
  join @extschema@._private_tasks as tasks on tasks.id = claimed.task_id
  order by claimed.priority, claimed.run_at, claimed.id;
end;
$$;

-- Strategy 2 of get_jobs: pick jobs from the next window of one priority, in order of run_at and
-- id.
--
-- Assumes that jobs before (after_run_at, after_id) need no look. Locks nothing: what it picks must
-- be checked again when it is claimed. Picks at most `wanted` jobs that can run, one of each queue
-- that is free and not paused. Returns how many jobs it saw and the first of them, and where the
-- next window begins; null when this was the last window of the priority. With is_plain it first
-- tries one pass without a look at the queues (each is read by its id: a join would read a table of
-- queues that has just grown whole); is_plain is false from the first window on that has a job
-- which cannot run or has a queue.
--
-- Of the queues in passed_queue_ids it picks none, and adds those of the jobs that it goes past: a
-- queue that was not free a moment ago may be free now, but its first job lies behind.
create function @extschema@._pick_from_window(
  of_priority smallint,
  after_run_at timestamptz,
  after_id bigint,
  size integer,
  wanted integer,
  task_ids integer[],
  forbidden_flags text[],
  inout is_plain boolean,
  has_pauses boolean = false,
  inout passed_queue_ids integer[] = '{}',
  out seen integer,
  out first_run_at timestamptz,
  out first_id bigint,
  out next_run_at timestamptz,
  out next_id bigint,
  out ids bigint[],
  out places tid[],
  out queue_ids integer[],
  out picked_task_ids integer[],
  out has_key boolean
)
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_queue_ids integer[];
begin
  if is_plain then
    select
      pg_catalog.count(*),
      coalesce(
        pg_catalog.bool_and(
          due.job_queue_id is null
          and (task_ids is null or due.task_id = any (task_ids))
          and (
            forbidden_flags is null or due.flags is null or not due.flags ?| forbidden_flags
          )
        ),
        true
      ),
      pg_catalog.bool_or(due.key is not null), pg_catalog.min(due.run_at),
      case when pg_catalog.count(*) = size then pg_catalog.max(due.run_at) end,
      pg_catalog.array_agg(due.id), pg_catalog.array_agg(due.place),
      pg_catalog.array_agg(due.task_id)
    into seen, is_plain, has_key, first_run_at, next_run_at, ids, places, picked_task_ids
    from (
      select
        jobs.ctid as place, jobs.id, jobs.job_queue_id, jobs.task_id, jobs.run_at, jobs.flags,
        jobs.key
      from @extschema@._private_jobs as jobs
      where jobs.is_available
      and jobs.priority = of_priority
      and jobs.run_at <= pg_catalog.now()
      and (jobs.run_at, jobs.id) > (after_run_at, after_id)
      order by jobs.priority, jobs.run_at, jobs.id
      limit size
    ) as due;
    first_id := ids[1];
    next_id := ids[size];
  end if;
  if not is_plain then
    with due as materialized (
      select
        jobs.ctid as place, jobs.id, jobs.job_queue_id, jobs.task_id, jobs.run_at, jobs.flags,
        jobs.key
      from @extschema@._private_jobs as jobs
      where jobs.is_available
      and jobs.priority = of_priority
      and jobs.run_at <= pg_catalog.now()
      and (jobs.run_at, jobs.id) > (after_run_at, after_id)
      order by jobs.priority, jobs.run_at, jobs.id
      limit size
    ),
    runnable as materialized (
      select due.place, due.id, due.job_queue_id, due.task_id, due.run_at
      from due
      where (task_ids is null or due.task_id = any (task_ids))
      and (
        forbidden_flags is null or due.flags is null or not due.flags ?| forbidden_flags
      )
    ),
    picked as (
      select runnable.* from runnable where runnable.job_queue_id is null
      union all
      (
        select firsts.*
        from (
          select distinct on (runnable.job_queue_id) runnable.*
          from runnable
          where runnable.job_queue_id is not null
          and runnable.job_queue_id <> all (passed_queue_ids)
          order by runnable.job_queue_id, runnable.run_at, runnable.id
        ) as firsts
        where (
          select queues.is_available
            and not (has_pauses and @extschema@._is_paused('queue', queues.queue_name))
          from @extschema@._private_job_queues as queues
          where queues.id = firsts.job_queue_id
        )
      )
      order by run_at, id
      limit wanted
    )
    select
      counted.jobs, counted.has_key, head.run_at, head.id,
      coalesce(picks.last_run_at, tail.run_at), coalesce(picks.ids[wanted], tail.id),
      picks.ids, picks.places, picks.queue_ids, picks.task_ids,
      array(
        select distinct runnable.job_queue_id
        from runnable
        where runnable.job_queue_id is not null
        and (
          picks.last_run_at is null
          or (runnable.run_at, runnable.id) <= (picks.last_run_at, picks.ids[wanted])
        )
      )
    into
      seen, has_key, first_run_at, first_id, next_run_at, next_id, ids, places, queue_ids,
      picked_task_ids, v_queue_ids
    from (
      select pg_catalog.count(*) as jobs, pg_catalog.bool_or(due.key is not null) as has_key
      from due
    ) as counted
    left join (select due.run_at, due.id from due limit 1) as head on true
    left join (select due.run_at, due.id from due offset size - 1 limit 1) as tail on true
    cross join (
      select
        pg_catalog.array_agg(picked.id order by picked.run_at, picked.id) as ids,
        pg_catalog.array_agg(picked.place order by picked.run_at, picked.id) as places,
        pg_catalog.array_agg(picked.job_queue_id order by picked.run_at, picked.id) as queue_ids,
        pg_catalog.array_agg(picked.task_id order by picked.run_at, picked.id) as task_ids,
        case when pg_catalog.count(*) = wanted then pg_catalog.max(picked.run_at) end as last_run_at
      from picked
    ) as picks;
    passed_queue_ids := passed_queue_ids || v_queue_ids;
  end if;
end;
$$;

-- Finds partitions that have a job to run. A partition is one task in one queue (or in none):
-- either all of its due jobs can run or none can, forbidden flags aside.
--
-- Locks nothing. A step in the index passes a whole partition, or a whole queue if that is locked
-- or was tried, however many jobs it holds. Gives up after 500 steps through the jobs without a
-- queue, and 500 from a random queue on: a call stays cheap, and each queue gets its turn. is_all
-- tells that no partition was left out. Returns the best at_most partitions; null: all that it
-- found. With limits, also how many jobs of each queue may be claimed and when the last one was: a
-- queue takes its turn by that, if it is later than its job was due, so that none with a long
-- backlog keeps the others waiting.
create function @extschema@._find_partitions(
  task_ids integer[],
  tried_queue_ids integer[],
  every_priority boolean,
  at_most integer,
  has_pauses boolean = false,
  has_queue_limits boolean = false,
  out queue_ids integer[],
  out partition_task_ids integer[],
  out priorities smallint[],
  out slots integer[],
  out started_ats timestamptz[],
  out is_all boolean
)
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  c_steps constant integer := 500;
  v_start bigint := (1 + pg_catalog.floor(pg_catalog.random() * (
    select coalesce(pg_catalog.max(queues.id), 0) from @extschema@._private_job_queues as queues
  )))::bigint << 32;
begin
  with recursive step (
    partition, priority, until, depth, id, queue_id, task_id, at, run_at, slots, started_at
  ) as (
    select
      seed.partition, 32767::smallint, seed.until, 0, null::bigint, null::integer, null::integer,
      null::smallint, null::timestamptz, null::integer, null::timestamptz
    from (values
      (0::bigint, 1::bigint << 32),
      (v_start - 1, 9223372036854775807),
      ((1::bigint << 32) - 1, v_start)
    ) as seed (partition, until)
    union all
    -- Past the queue if it is not free; past the partition if it is of another task, or has shown
    -- the one job that can run; else to its next priority.
    select
      case when head.is_free then head.partition else ((head.partition >> 32) + 1 << 32) - 1 end,
      case
        when head.is_free and head.is_known
          and not (head.is_due and head.queue_id is not null and not every_priority)
          then head.priority
        else 32767::smallint
      end,
      step.until, step.depth + 1,
      case when head.is_free and head.is_known and head.is_due then head.id end,
      head.queue_id, head.task_id, head.priority, head.run_at, head.slots, head.started_at
    from step
    cross join lateral (
      select
        first.id, first.partition, first.queue_id, first.task_id, first.priority, first.run_at,
        first.run_at <= pg_catalog.now() as is_due,
        task_ids is null or first.task_id = any (task_ids) as is_known,
        first.queue_id is null or coalesce(queues.id <> all (tried_queue_ids) and case
          when has_queue_limits
            then state.slots > 0 and (state.max_running > 1 or queues.is_available)
          else queues.is_available and not (
            has_pauses and @extschema@._is_paused('queue', queues.queue_name)
          )
        end, false) as is_free,
        coalesce(state.slots, 1) as slots, state.started_at
      from (
        select
          jobs.id, ((coalesce(jobs.job_queue_id, 0)::bigint << 32) | jobs.task_id) as partition,
          jobs.job_queue_id as queue_id, jobs.task_id, jobs.priority, jobs.run_at
        from @extschema@._private_jobs as jobs
        where jobs.is_available
        and (((coalesce(jobs.job_queue_id, 0)::bigint << 32) | jobs.task_id), jobs.priority)
          > (step.partition, step.priority)
        order by ((coalesce(jobs.job_queue_id, 0)::bigint << 32) | jobs.task_id), jobs.priority, jobs.run_at, jobs.id
        limit 1
      ) as first
      left join @extschema@._private_job_queues as queues on queues.id = first.queue_id
      left join lateral (
        select states.slots, states.max_running, states.started_at
        from @extschema@._private_control_states as states
        where has_queue_limits and states.scope = 'queue' and states.id = first.queue_id
        limit 1
      ) as state on true
    ) as head
    where step.depth < c_steps and head.partition < step.until
  )
  select
    pg_catalog.array_agg(found.queue_id), pg_catalog.array_agg(found.task_id),
    pg_catalog.array_agg(found.at), pg_catalog.array_agg(found.slots),
    pg_catalog.array_agg(found.started_at), (select pg_catalog.max(step.depth) from step) < c_steps
  into queue_ids, partition_task_ids, priorities, slots, started_ats, is_all
  from (
    select step.queue_id, step.task_id, step.at, step.slots, step.started_at
    from step
    where step.id is not null
    order by step.at, greatest(step.run_at, step.started_at), step.id
    limit at_most
  ) as found;
end;
$$;

-- Strategy 3 of get_jobs: pick jobs from partition to partition, which passes any number of jobs
-- that cannot run. Used when the windows of strategy 2 are full of these.
--
-- Locks nothing: what it picks must be checked again when it is claimed. Leaves out what was tried.
-- It may overlook jobs if there are very many partitions; is_all tells that it picked all there
-- are, is_complete that it overlooked none.
create function @extschema@._pick_from_partitions(
  wanted integer,
  task_ids integer[],
  forbidden_flags text[],
  tried_ids bigint[],
  tried_queue_ids integer[],
  has_pauses boolean = false,
  has_queue_limits boolean = false,
  out ids bigint[],
  out places tid[],
  out queue_ids integer[],
  out picked_task_ids integer[],
  out has_key boolean,
  out is_all boolean,
  out is_complete boolean
)
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_found record;
begin
  v_found := @extschema@._find_partitions(
    task_ids, tried_queue_ids, forbidden_flags is not null,
    case when forbidden_flags is null and tried_ids = '{}' then wanted end,
    has_pauses, has_queue_limits
  );
  with runnable as (
    select
      jobs.place, jobs.id, jobs.job_queue_id, found.task_id, jobs.key, jobs.priority,
      greatest(jobs.run_at, found.started_at) as run_at, found.slots
    from rows from (
      pg_catalog.unnest(v_found.queue_ids), pg_catalog.unnest(v_found.partition_task_ids),
      pg_catalog.unnest(v_found.priorities), pg_catalog.unnest(v_found.slots),
      pg_catalog.unnest(v_found.started_ats)
    ) as found (job_queue_id, task_id, priority, slots, started_at)
    cross join lateral (
      select
        jobs.ctid as place, jobs.id, jobs.job_queue_id, jobs.key, jobs.priority, jobs.run_at
      from @extschema@._private_jobs as jobs
      where jobs.is_available
      and (((coalesce(jobs.job_queue_id, 0)::bigint << 32) | jobs.task_id), jobs.priority)
        >= (((coalesce(found.job_queue_id, 0)::bigint << 32) | found.task_id), found.priority)
      and (((coalesce(jobs.job_queue_id, 0)::bigint << 32) | jobs.task_id), jobs.priority, jobs.run_at)
        <= (((coalesce(found.job_queue_id, 0)::bigint << 32) | found.task_id), found.priority, pg_catalog.now())
      and jobs.id <> all (tried_ids)
      and (forbidden_flags is null or jobs.flags is null or not jobs.flags ?| forbidden_flags)
      order by ((coalesce(jobs.job_queue_id, 0)::bigint << 32) | jobs.task_id), jobs.priority, jobs.run_at, jobs.id
      limit case when found.job_queue_id is null then wanted else found.slots end
    ) as jobs
  ),
  picked as (
    select runnable.*
    from runnable
    where runnable.job_queue_id is null
    union all
    select
      ranked.place, ranked.id, ranked.job_queue_id, ranked.task_id, ranked.key, ranked.priority,
      ranked.run_at, ranked.slots
    from (
      select
        runnable.*,
        pg_catalog.row_number() over (
          partition by runnable.job_queue_id
          order by runnable.priority, runnable.run_at, runnable.id
        ) as nth
      from runnable
      where runnable.job_queue_id is not null
    ) as ranked
    where ranked.nth <= ranked.slots
    order by priority, run_at, id
    limit wanted
  )
  select
    pg_catalog.array_agg(picked.id order by picked.priority, picked.run_at, picked.id),
    pg_catalog.array_agg(picked.place order by picked.priority, picked.run_at, picked.id),
    pg_catalog.array_agg(picked.job_queue_id order by picked.priority, picked.run_at, picked.id),
    pg_catalog.array_agg(picked.task_id order by picked.priority, picked.run_at, picked.id),
    pg_catalog.bool_or(picked.key is not null),
    pg_catalog.count(*) < wanted and v_found.is_all
  into ids, places, queue_ids, picked_task_ids, has_key, is_all
  from picked;
  is_complete := v_found.is_all;
end;
$$;

-- Claims picked jobs: locks each where it was seen, checks it again under the lock, and marks it as
-- claimed by the worker. The one place that claims jobs of queues.
--
-- Assumes nothing of the jobs: one that changed since it was picked is left for the next call.
-- Locks the table, then the queues in order of id, then the jobs in order of key and id. Skips rows
-- that others have locked; it may still wait where a row was updated a moment ago and is being
-- updated again, so the caller has to set a lock_timeout and catch lock_not_available.
create function @extschema@._claim_jobs(
  worker_id text,
  places tid[],
  queue_ids integer[],
  task_ids integer[],
  forbidden_flags text[]
)
returns setof @extschema@.claimed_job
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_free_queue_ids integer[];
begin
  -- Whoever deletes unused names locks the table and then the queues: in the same order.
  lock table @extschema@._private_jobs in row exclusive mode;
  select pg_catalog.array_agg(free.id) into v_free_queue_ids
  from (
    select queues.id
    from @extschema@._private_job_queues as queues
    where queues.id = any (queue_ids) and queues.is_available
    order by queues.id
    for update skip locked
  ) as free;
  return query
  with locked as materialized (
    select jobs.ctid as place
    from @extschema@._private_jobs as jobs
    where jobs.ctid = any (places)
    and jobs.locked_at is null
    and jobs.attempts < jobs.max_attempts
    and jobs.run_at <= pg_catalog.now()
    and not exists (
      select from @extschema@._private_limit_states as states where states.scope <> 'pause'
    )
    and (
      jobs.job_queue_id is null
      or jobs.job_queue_id in (select pg_catalog.unnest(v_free_queue_ids))
    )
    and (task_ids is null or jobs.task_id = any (task_ids))
    and (
      forbidden_flags is null or jobs.flags is null or not jobs.flags ?| forbidden_flags
    )
    order by jobs.key, jobs.id
    for update of jobs skip locked
  ),
  claimed as (
    update @extschema@._private_jobs as jobs
    set attempts = jobs.attempts + 1, locked_at = pg_catalog.now(), locked_by = worker_id
    where jobs.ctid = any (array(select locked.place from locked))
    returning jobs.*
  ),
  claimed_queues as (
    update @extschema@._private_job_queues as queues
    set locked_at = pg_catalog.now(), locked_by = worker_id
    from claimed
    where claimed.job_queue_id = any (v_free_queue_ids) and queues.id = claimed.job_queue_id
  )select
    claimed.id, tasks.identifier, claimed.payload,
    case
      when claimed.job_queue_id is not null then (
        select queues.queue_name
        from @extschema@._private_job_queues as queues
        where queues.id = claimed.job_queue_id
      )
    end,
    claimed.priority, claimed.run_at, claimed.attempts, claimed.max_attempts, claimed.last_error,
    claimed.created_at, claimed.updated_at, claimed.key, claimed.locked_at, claimed.locked_by,
    claimed.revision, claimed.flags
  from claimed
  join @extschema@._private_tasks as tasks on tasks.id = claimed.task_id
  order by claimed.priority, claimed.run_at, claimed.id;
end;
$$;

-- Locks the states of the limits that hold for these tasks and queues, and returns them with how
-- many jobs of each may be claimed: the held arrays go together. Whoever else wants to claim jobs
-- of them waits or leaves them alone until the caller's transaction ends, so that none is claimed
-- beyond a limit.
--
-- Locks the table, then the states in order of scope and name. With may_wait it waits for those
-- that others hold (for the lock_timeout); the caller must hold no lock yet. Without it, no job of
-- theirs may be claimed. With may_insert it makes the states that are missing, and may wait for
-- somebody who makes the same ones.
create function @extschema@._lock_limits(
  task_ids integer[],
  queue_ids integer[],
  may_wait boolean,
  may_insert boolean,
  out held_scopes text[],
  out held_names text[],
  out held_name_ids integer[],
  out held_places tid[],
  out held_slots integer[],
  out held_is_counted boolean[],
  out held_spacings bigint[],
  out held_bursts integer[],
  out parallel_queue_ids integer[]
)
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_locked bigint[];
  v_places tid[];
begin
  -- Whoever sets a limit locks the table, too: what is seen from here on stays true.
  lock table @extschema@._private_jobs in row exclusive mode;
  select
    pg_catalog.array_agg(named.scope order by named.scope, named.name),
    pg_catalog.array_agg(named.name order by named.scope, named.name),
    pg_catalog.array_agg(named.id order by named.scope, named.name)
  into held_scopes, held_names, held_name_ids
  from (
    select 'task' as scope, tasks.identifier as name, tasks.id
    from @extschema@._private_tasks as tasks
    where tasks.id = any (task_ids)
    union all
    select 'queue', queues.queue_name, queues.id
    from @extschema@._private_job_queues as queues
    where queues.id = any (queue_ids)
  ) as named
  where exists (
    select limits.*
    from @extschema@._private_limits as limits
    where limits.scope = named.scope and limits.name = named.name
    union all
    select limits.*
    from @extschema@._private_limits as limits
    where limits.scope = named.scope
    and pg_catalog.right(limits.name, 1) = '*'
    and limits.name <> named.name
    and pg_catalog.starts_with(named.name, pg_catalog.left(limits.name, -1))
  )
  or named.scope = 'queue' and exists (
    select from @extschema@._private_limit_states as states
    where states.scope = 'queue' and states.name = named.name
  );

  insert into @extschema@._private_limit_states (scope, name)
  select held.scope, held.name
  from rows from (
    pg_catalog.unnest(held_scopes), pg_catalog.unnest(held_names)
  ) as held (scope, name)
  where may_insert and not exists (
    select from @extschema@._private_limit_states as states
    where states.scope = held.scope and states.name = held.name
  )
  order by held.scope, held.name
  on conflict do nothing;
  if may_wait then
    select pg_catalog.array_agg(held.place), pg_catalog.array_agg(locked.place)
    into v_locked, v_places
    from rows from (
      pg_catalog.unnest(held_scopes), pg_catalog.unnest(held_names)
    ) with ordinality as held (scope, name, place)
    cross join lateral (
      select states.ctid as place
      from @extschema@._private_limit_states as states
      where states.scope = held.scope and states.name = held.name
      for update
    ) as locked;
  else
    select pg_catalog.array_agg(held.place), pg_catalog.array_agg(locked.place)
    into v_locked, v_places
    from rows from (
      pg_catalog.unnest(held_scopes), pg_catalog.unnest(held_names)
    ) with ordinality as held (scope, name, place)
    cross join lateral (
      select states.ctid as place
      from @extschema@._private_limit_states as states
      where states.scope = held.scope and states.name = held.name
      for update skip locked
    ) as locked;
  end if;

  -- In a statement of its own: what others have committed before the locks were free counts.
  select
    pg_catalog.array_agg(locked.place order by held.place),
    pg_catalog.array_agg(
      case when locked.place is not null then states.slots else 0 end order by held.place
    ),
    pg_catalog.array_agg(states.max_running is not null order by held.place),
    pg_catalog.array_agg(states.spacing order by held.place),
    pg_catalog.array_agg(states.burst order by held.place),
    pg_catalog.array_agg(held.name_id)
      filter (where held.scope = 'queue' and states.max_running > 1)
  into held_places, held_slots, held_is_counted, held_spacings, held_bursts, parallel_queue_ids
  from rows from (
    pg_catalog.unnest(held_scopes), pg_catalog.unnest(held_name_ids)
  ) with ordinality as held (scope, name_id, place)
  left join rows from (
    pg_catalog.unnest(v_locked), pg_catalog.unnest(v_places)
  ) as locked (nth, place) on locked.nth = held.place
  cross join lateral (
    select states.max_running, states.slots, states.spacing, states.burst
    from @extschema@._private_control_states as states
    where states.scope = held.scope and states.id = held.name_id
    limit 1
  ) as states;
end;
$$;

-- Leaves, of the jobs given, those that may be claimed, in that order: as many of each task and
-- queue as are held for it, and one of a queue that has no limit. The arrays go together.
create function @extschema@._count_within_limits(
  held_scopes text[],
  held_name_ids integer[],
  held_slots integer[],
  inout ids bigint[],
  inout places tid[],
  inout task_ids integer[],
  inout queue_ids integer[]
)
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Mostly there is room for all.
  if (
    select pg_catalog.bool_and(wanted.jobs <= coalesce(held.slots, wanted.most))
    from (
      select 'task' as scope, given.id, pg_catalog.count(*) as jobs, 2147483647 as most
      from pg_catalog.unnest(task_ids) as given (id)
      group by given.id
      union all
      select 'queue', given.id, pg_catalog.count(*), 1
      from pg_catalog.unnest(queue_ids) as given (id)
      where given.id is not null
      group by given.id
    ) as wanted
    left join rows from (
      pg_catalog.unnest(held_scopes), pg_catalog.unnest(held_name_ids), pg_catalog.unnest(held_slots)
    ) as held (scope, name_id, slots) on held.scope = wanted.scope and held.name_id = wanted.id
  ) then
    return;
  end if;
  with of_queues as (
    select
      given.*,
      pg_catalog.row_number() over (partition by given.queue_id order by given.nth) as in_queue
    from rows from (
      pg_catalog.unnest(ids), pg_catalog.unnest(places), pg_catalog.unnest(task_ids),
      pg_catalog.unnest(queue_ids)
    ) with ordinality as given (id, place, task_id, queue_id, nth)
  ),
  of_tasks as (
    select
      of_queues.*,
      pg_catalog.row_number()
        over (partition by of_queues.task_id order by of_queues.nth) as of_task
    from of_queues
    left join rows from (
      pg_catalog.unnest(held_scopes), pg_catalog.unnest(held_name_ids), pg_catalog.unnest(held_slots)
    ) as held (scope, name_id, slots) on held.scope = 'queue' and held.name_id = of_queues.queue_id
    where of_queues.queue_id is null or of_queues.in_queue <= coalesce(held.slots, 1)
  )
  select
    pg_catalog.array_agg(of_tasks.id order by of_tasks.nth),
    pg_catalog.array_agg(of_tasks.place order by of_tasks.nth),
    pg_catalog.array_agg(of_tasks.task_id order by of_tasks.nth),
    pg_catalog.array_agg(of_tasks.queue_id order by of_tasks.nth)
  into ids, places, task_ids, queue_ids
  from of_tasks
  left join rows from (
    pg_catalog.unnest(held_scopes), pg_catalog.unnest(held_name_ids), pg_catalog.unnest(held_slots)
  ) as held (scope, name_id, slots) on held.scope = 'task' and held.name_id = of_tasks.task_id
  where held.slots is null or of_tasks.of_task <= held.slots;
end;
$$;

-- The jobs noted for a limit after these were claimed: those that have ended are left out, now and
-- then if they are many and do no harm.
create function @extschema@._noted_jobs(
  noted_ids bigint[],
  claimed_ids bigint[],
  is_counted boolean,
  slots integer
)
returns bigint[]
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if not is_counted then
    return noted_ids;
  elsif pg_catalog.cardinality(noted_ids) < 1500 and slots >= 2000 then
    return noted_ids || claimed_ids;
  end if;
  return array(
    select jobs.id
    from @extschema@._private_jobs as jobs
    where jobs.id = any (noted_ids) and jobs.locked_at is not null
  ) || claimed_ids;
end;
$$;

-- Where next_start_at stands after so many more starts now, and when it allows another; null
-- without a rate.
create function @extschema@._next_start(
  inout next_start_at timestamptz,
  spacing bigint,
  burst integer,
  starts integer,
  out wait_until timestamptz
)
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz := pg_catalog.clock_timestamp();
begin
  next_start_at := greatest(v_now, least(
    coalesce(next_start_at, '-infinity'), v_now + burst * spacing * interval '1 microsecond'
  )) + starts * spacing * interval '1 microsecond';
  wait_until := next_start_at - (burst - 1) * spacing * interval '1 microsecond';
end;
$$;

-- Claims picked jobs as _claim_jobs does, as many of them as the limits of their tasks and queues
-- allow, and notes them there. A queue with a limit above one is not locked, and one that is locked
-- by a job from before the limit is no obstacle: its jobs are counted.
--
-- Locks the table, the states of the limits, then the queues and jobs as _claim_jobs.
create function @extschema@._claim_within_limits(
  worker_id text,
  picked_ids bigint[],
  picked_places tid[],
  picked_task_ids integer[],
  picked_queue_ids integer[],
  may_wait boolean,
  task_ids integer[],
  forbidden_flags text[]
)
returns setof @extschema@.claimed_job
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_held record;
  v_counted record;
  v_free_queue_ids integer[];
begin
  begin
    v_held := @extschema@._lock_limits(picked_task_ids, picked_queue_ids, may_wait, true);
  exception when lock_not_available then
    v_held := @extschema@._lock_limits(picked_task_ids, picked_queue_ids, false, false);
  end;
  v_counted := @extschema@._count_within_limits(
    v_held.held_scopes, v_held.held_name_ids, v_held.held_slots,
    picked_ids, picked_places, picked_task_ids, picked_queue_ids
  );
  select pg_catalog.array_agg(free.id) into v_free_queue_ids
  from (
    select queues.id
    from @extschema@._private_job_queues as queues
    where queues.id = any (v_counted.queue_ids)
    and queues.id <> all (coalesce(v_held.parallel_queue_ids, '{}'))
    and queues.is_available
    order by queues.id
    for update skip locked
  ) as free;
  return query
  with locked as materialized (
    select jobs.ctid as place
    from @extschema@._private_jobs as jobs
    where jobs.ctid = any (v_counted.places)
    and jobs.locked_at is null
    and jobs.attempts < jobs.max_attempts
    and jobs.run_at <= pg_catalog.now()
    and (jobs.id, jobs.task_id, coalesce(jobs.job_queue_id, 0)) in (
      select counted.id, counted.task_id, coalesce(counted.queue_id, 0)
      from rows from (
        pg_catalog.unnest(v_counted.ids), pg_catalog.unnest(v_counted.task_ids),
        pg_catalog.unnest(v_counted.queue_ids)
      ) as counted (id, task_id, queue_id)
    )
    and (
      jobs.job_queue_id is null
      or jobs.job_queue_id = any (v_held.parallel_queue_ids)
      or jobs.job_queue_id in (select pg_catalog.unnest(v_free_queue_ids))
    )
    and (task_ids is null or jobs.task_id = any (task_ids))
    and (
      forbidden_flags is null or jobs.flags is null or not jobs.flags ?| forbidden_flags
    )
    order by jobs.key, jobs.id
    for update of jobs skip locked
  ),
  claimed as (
    update @extschema@._private_jobs as jobs
    set attempts = jobs.attempts + 1, locked_at = pg_catalog.now(), locked_by = worker_id
    where jobs.ctid = any (array(select locked.place from locked))
    returning jobs.*
  ),
  claimed_queues as (
    update @extschema@._private_job_queues as queues
    set locked_at = pg_catalog.now(), locked_by = worker_id
    from claimed
    where claimed.job_queue_id = any (v_free_queue_ids) and queues.id = claimed.job_queue_id
  ),
  of_states as (
    select 'task' as scope, claimed.task_id as name_id, pg_catalog.array_agg(claimed.id) as ids
    from claimed group by claimed.task_id
    union all
    select 'queue', claimed.job_queue_id, pg_catalog.array_agg(claimed.id)
    from claimed where claimed.job_queue_id is not null group by claimed.job_queue_id
  ),
  noted as (
    update @extschema@._private_limit_states as states
    set
      job_ids = @extschema@._noted_jobs(states.job_ids, of_states.ids, held.is_counted, held.slots),
      started_at = pg_catalog.clock_timestamp(),
      (next_start_at, wait_until) = (
        select starts.next_start_at, starts.wait_until from @extschema@._next_start(
          states.next_start_at, held.spacing, held.burst, pg_catalog.cardinality(of_states.ids)
        ) as starts
      ),
      is_full = held.slots <= pg_catalog.cardinality(of_states.ids)
    from of_states
    join rows from (
      pg_catalog.unnest(v_held.held_scopes), pg_catalog.unnest(v_held.held_name_ids),
      pg_catalog.unnest(v_held.held_places), pg_catalog.unnest(v_held.held_slots),
      pg_catalog.unnest(v_held.held_is_counted), pg_catalog.unnest(v_held.held_spacings),
      pg_catalog.unnest(v_held.held_bursts)
    ) as held (scope, name_id, place, slots, is_counted, spacing, burst)
      on held.scope = of_states.scope and held.name_id = of_states.name_id
    where states.ctid = held.place
  )select
    claimed.id, tasks.identifier, claimed.payload,
    case
      when claimed.job_queue_id is not null then (
        select queues.queue_name
        from @extschema@._private_job_queues as queues
        where queues.id = claimed.job_queue_id
      )
    end,
    claimed.priority, claimed.run_at, claimed.attempts, claimed.max_attempts, claimed.last_error,
    claimed.created_at, claimed.updated_at, claimed.key, claimed.locked_at, claimed.locked_by,
    claimed.revision, claimed.flags
  from claimed
  join @extschema@._private_tasks as tasks on tasks.id = claimed.task_id
  order by claimed.priority, claimed.run_at, claimed.id;
end;
$$;

-- Strategy 4 of get_jobs: where to begin in each priority that has due jobs.
--
-- Claimed and deleted jobs leave dead index entries at the head of the order until vacuum removes
-- them, which it cannot while an old transaction is open. Each scan from the head reads them again.
-- When that takes longer than a millisecond, the session remembers the head of each priority in the
-- setting graphile_worker.cursors, for as long as 20 such scans take and 10 seconds at most.
--
-- Locks nothing. Anybody may have put anything into the setting: what cannot be read is ignored. A
-- job that is added before a remembered head waits until the cursors expire, or until get_jobs
-- finds no other job. valid_until is null if the heads are not worth remembering.
create function @extschema@._skip_ahead_cursors(
  cursors text,
  out priorities smallint[],
  out run_ats timestamptz[],
  out ids bigint[],
  out valid_until timestamptz,
  out is_remembered boolean
)
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_started timestamptz := pg_catalog.clock_timestamp();
  v_cursors json;
begin
  is_remembered := false;
  if cursors not in ('', 'null') then
    begin
      v_cursors := cursors;
      if v_cursors ->> 0 = pg_catalog.pg_typeof(null::@extschema@._private_jobs)::oid::text then
        valid_until := v_cursors ->> 1;
      end if;
      is_remembered := coalesce(
        v_started >= valid_until - interval '10 seconds' and v_started < valid_until, false
      );
      if is_remembered then
        priorities := array(select pg_catalog.json_array_elements_text(v_cursors -> 2));
        run_ats := array(select pg_catalog.json_array_elements_text(v_cursors -> 3));
        ids := array(select pg_catalog.json_array_elements_text(v_cursors -> 4));
        return;
      end if;
    exception when data_exception then
      is_remembered := false;
    end;
  end if;
  with recursive step (priority, run_at, id) as (
    (
      select jobs.priority, jobs.run_at, jobs.id
      from @extschema@._private_jobs as jobs
      where jobs.is_available
      order by jobs.priority, jobs.run_at, jobs.id
      limit 1
    )
    union all
    select further.priority, further.run_at, further.id
    from step
    cross join lateral (
      select jobs.priority, jobs.run_at, jobs.id
      from @extschema@._private_jobs as jobs
      where jobs.is_available and jobs.priority > step.priority
      order by jobs.priority, jobs.run_at, jobs.id
      limit 1
    ) as further
  )
  select
    pg_catalog.array_agg(step.priority order by step.priority),
    pg_catalog.array_agg(step.run_at order by step.priority),
    pg_catalog.array_agg(step.id order by step.priority)
  into priorities, run_ats, ids
  from step
  where step.run_at <= pg_catalog.now();
  valid_until := v_started + least(
    20 * (pg_catalog.clock_timestamp() - v_started), interval '10 seconds'
  );
  -- The first call of a session takes its time to plan.
  if cursors is null or valid_until < v_started + interval '20 milliseconds' then
    valid_until := null;
  end if;
end;
$$;

-- Where to begin after a call that had to pass jobs of what is paused: with the first job that was
-- picked in each priority, for as long as 50 such calls take and a second at most. Nothing can run
-- before it but a job that was added, or resumed, since; that one waits for that time at most.
create function @extschema@._skip_to_picked(
  inout priorities smallint[],
  inout run_ats timestamptz[],
  inout ids bigint[],
  picked_ids bigint[],
  started_at timestamptz,
  out valid_until timestamptz,
  out is_remembered boolean
)
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  with picked as (
    select distinct on (jobs.priority) jobs.priority, jobs.run_at, jobs.id
    from @extschema@._private_jobs as jobs
    where jobs.id = any (picked_ids)
    order by jobs.priority, jobs.run_at, jobs.id
  )
  select
    pg_catalog.array_agg(coalesce(picked.run_at, heads.run_at) order by heads.place),
    pg_catalog.array_agg(coalesce(picked.id, heads.id) order by heads.place)
  into run_ats, ids
  from rows from (
    pg_catalog.unnest(priorities), pg_catalog.unnest(run_ats), pg_catalog.unnest(ids)
  ) with ordinality as heads (priority, run_at, id, place)
  left join picked on picked.priority = heads.priority;
  is_remembered := false;
  valid_until := pg_catalog.clock_timestamp()
    + least(50 * (pg_catalog.clock_timestamp() - started_at), interval '1 second');
end;
$$;

-- Remembers the heads of the order for the next call, if they are worth it (see above): in the
-- setting graphile_worker.cursors. is_useless: not enough was found behind those that were
-- remembered. may_be_more: the caller should call get_jobs again. Returns the setting where it
-- changed it: a function whose result is assigned is called without a query.
create function @extschema@._remember_cursors(
  cursors text,
  is_useless boolean,
  may_be_more boolean,
  valid_until timestamptz,
  priorities smallint[],
  run_ats timestamptz[],
  ids bigint[]
)
returns text
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if may_be_more then
    perform pg_catalog.set_config('graphile_worker.more', 'true', false);
  end if;
  return case
    when is_useless then pg_catalog.set_config('graphile_worker.cursors', 'null', false)
    when valid_until is not null and ids is not null then pg_catalog.set_config(
      'graphile_worker.cursors',
      pg_catalog.json_build_array(
        pg_catalog.pg_typeof(null::@extschema@._private_jobs)::oid::text, valid_until,
        priorities, run_ats, ids
      )::text,
      false
    )
    when valid_until is null and cursors is distinct from ''
      then pg_catalog.set_config('graphile_worker.cursors', '', false)
  end;
end;
$$;

-- Claims due jobs in order of priority, run_at and id: picks from one window after another, and
-- from partition to partition once the windows are full of jobs that cannot run; claims what it
-- picked.
--
-- Assumes that the worker may fetch, and that task_ids are tasks that it may claim jobs of. With
-- is_limited each round claims within the limits; with has_queue_limits it goes from partition to
-- partition from the start, so that each queue gets its turn. Locks what it claims. No second round
-- starts while one holds locks that others may wait for in another order: a round that claimed
-- nothing is undone, and one that claimed keyed jobs is the last, since their rows are locked in
-- order of key, as by add_jobs. Ends when it has what is wanted; when there is no more; when others
-- fetch the same jobs, since it is better to begin with what they left than to compete for more; or
-- after eight tries from partition to partition. If it claimed fewer than wanted and there may be
-- more, it sets graphile_worker.more to true. Past jobs of what is paused it remembers where the
-- others begin, as with cursors. If it claimed nothing with remembered cursors, it forgets them and
-- sets graphile_worker.cursors to null: look again without them.
create function @extschema@._claim_in_order(
  worker_id text,
  max_jobs integer,
  task_ids integer[],
  forbidden_flags text[],
  cursors text,
  is_limited boolean = false,
  has_pauses boolean = false,
  has_queue_limits boolean = false
)
returns setof @extschema@.claimed_job
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  c_walk constant integer := greatest(256, 2 * max_jobs);
  v_started timestamptz := pg_catalog.clock_timestamp();
  v_begin record;
  v_run_ats timestamptz[];
  v_ids bigint[];
  v_at integer := 1;
  v_after_run_at timestamptz;
  v_after_id bigint;
  v_is_plain boolean := true;
  v_size integer := max_jobs;
  v_walked integer := 0;
  v_by_partition boolean := has_queue_limits;
  v_tries integer := 0;
  v_tried_ids bigint[] := '{}';
  v_tried_queue_ids integer[] := '{}';
  v_passed_queue_ids integer[] := '{}';
  v_picked record;
  v_count integer;
  v_wanted integer := max_jobs;
  v_claimed integer;
  v_is_all boolean := false;
  v_is_shared boolean := false;
begin
  v_begin := @extschema@._skip_ahead_cursors(cursors);
  v_run_ats := v_begin.run_ats;
  v_ids := v_begin.ids;
  while v_at <= pg_catalog.cardinality(v_ids) and v_wanted > 0
    and not (v_is_all or v_is_shared)
  loop
    if v_by_partition then
      v_tries := v_tries + 1;
      exit when v_tries = 8;
      v_picked := @extschema@._pick_from_partitions(
        v_wanted, task_ids, forbidden_flags, v_tried_ids, v_tried_queue_ids,
        has_pauses, has_queue_limits
      );
      v_is_all := v_picked.is_all;
      v_tried_ids := v_tried_ids || v_picked.ids;
      v_tried_queue_ids := v_tried_queue_ids || pg_catalog.array_remove(v_picked.queue_ids, null);
      if has_pauses and v_picked.is_complete then
        v_begin := @extschema@._skip_to_picked(
          v_begin.priorities, v_run_ats, v_ids, v_picked.ids, v_started
        );
        v_run_ats := v_begin.run_ats;
        v_ids := v_begin.ids;
      end if;
    else
      v_size := case when v_is_plain then v_wanted else v_size end;
      v_picked := @extschema@._pick_from_window(
        v_begin.priorities[v_at], coalesce(v_after_run_at, v_run_ats[v_at]),
        coalesce(v_after_id, v_ids[v_at] - 1), v_size, v_wanted, task_ids, forbidden_flags,
        v_is_plain, has_pauses, v_passed_queue_ids
      );
      v_is_plain := v_picked.is_plain;
      v_passed_queue_ids := v_picked.passed_queue_ids;
      if v_after_id is null and v_picked.seen > 0 then
        v_run_ats[v_at] := v_picked.first_run_at;
        v_ids[v_at] := v_picked.first_id;
      end if;
      v_after_run_at := v_picked.next_run_at;
      v_after_id := v_picked.next_id;
      v_at := v_at + (v_after_id is null)::integer;
      v_count := coalesce(pg_catalog.cardinality(v_picked.ids), 0);
      if v_count < v_wanted then
        v_walked := v_walked + v_picked.seen - v_count;
        v_size := least(4 * v_size, c_walk);
        v_by_partition := v_walked >= c_walk or (v_count = 0 and v_picked.seen >= 256);
      end if;
    end if;
    continue when v_picked.ids is null;
    v_claimed := 0;
    begin
      if is_limited then
        return query
        select * from @extschema@._claim_within_limits(
          worker_id, v_picked.ids, v_picked.places, v_picked.picked_task_ids,
          v_picked.queue_ids, v_wanted = max_jobs, task_ids, forbidden_flags
        );
      else
        return query
        select * from @extschema@._claim_jobs(
          worker_id, v_picked.places, v_picked.queue_ids, task_ids, forbidden_flags
        );
      end if;
      get diagnostics v_claimed = row_count;
      if v_claimed = 0 and (v_picked.has_key or is_limited) then
        raise sqlstate 'GWRTY' using message = 'Nothing was claimed', hint = 'Caught below.';
      end if;
    exception when sqlstate 'GWRTY' or lock_not_available then
      null;
    end;
    v_wanted := v_wanted - v_claimed;
    v_is_shared := v_claimed > 0
      and (v_picked.has_key or not is_limited and v_claimed < pg_catalog.cardinality(v_picked.ids));
    if is_limited and v_wanted > 0 and not v_is_shared then
      task_ids := (@extschema@._find_controls(task_ids)).task_ids;
    end if;
  end loop;

  cursors := @extschema@._remember_cursors(
    cursors, v_begin.is_remembered and (v_wanted = max_jobs or has_pauses and v_wanted > 0),
    v_wanted between 1 and max_jobs - 1 and (
      not v_is_all and v_at <= pg_catalog.cardinality(v_ids) or has_pauses and v_begin.is_remembered
    ),
    v_begin.valid_until, v_begin.priorities, v_run_ats, v_ids
  );
end;
$$;

-- Raises the error for a wrong argument of get_jobs.
create function @extschema@._reject_fetch(
  worker_id text,
  max_jobs integer
)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if worker_id is null or worker_id = '' then
    raise exception 'Worker id is null or empty'
      using errcode = 'GWBWI', hint = 'Pass a text that no other worker uses.';
  end if;
  raise exception 'Max jobs is out of range: %', max_jobs
    using errcode = 'GWBMJ', hint = 'Ask for 1 to 100000 jobs.';
end;
$$;

-- Raises the error for a worker that has ended or was presumed dead; what get_jobs has just claimed
-- for it is undone.
--
-- By now the table of jobs is locked, so whoever ends the worker later waits for this transaction.
-- A snapshot from before does not show that it ended, nor that a limit was set; but then the row of
-- its heartbeat is gone, and locking that fails.
create function @extschema@._refuse_ended_worker(
  worker_id text
)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if pg_catalog.current_setting('transaction_isolation') in ('repeatable read', 'serializable') then
    perform @extschema@._reject_old_snapshot();
    perform from @extschema@._private_heartbeats as heartbeats
    where heartbeats.worker_id = _refuse_ended_worker.worker_id
    for key share;
  end if;
  if exists (
    select from @extschema@._private_ended_workers as ended
    where ended.worker_id = _refuse_ended_worker.worker_id
  ) then
    raise exception 'Worker "%" has ended or was presumed dead', worker_id
      using errcode = 'GWBWE',
        hint = 'Its jobs were given to others. Go on under a new id, and call heartbeat first.';
  end if;
end;
$$;

-- Claims up to max_jobs due jobs for a worker, in order of priority, run_at and id. Null tasks mean
-- every task; a job that carries one of the forbidden flags is left alone. Of a named queue it
-- claims one job, and only while no other job of the queue is claimed.
--
-- It never waits, locks only what it claims, and goes on behind rows that other workers hold, so
-- that workers do not starve each other. When it returns fewer jobs than are due, since others
-- fetch at the same time or there are very many partitions, it sets graphile_worker.more to true:
-- call it again.
--
-- Jobs of what is paused, or at its limit, are left alone. Where that may be why it returns fewer
-- than wanted, graphile_worker.more is "limited", or the number of seconds until more may start.
--
-- Four strategies, each with its contract in a file of its own: the first few jobs in one
-- statement; windows along the order; partitions, when the windows are full of jobs that cannot
-- run; and cursors that skip dead index entries.
--
-- A queue grows from nothing to millions between two runs of analyze, so the planner's numbers
-- cannot be trusted: the settings leave it no plan but to follow the indexes in their order.
create function @extschema@.get_jobs(
  worker_id text,
  max_jobs integer = 1,
  task_identifiers text[] = null,
  forbidden_flags text[] = null
)
returns setof @extschema@.claimed_job
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_sort = off
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
set lock_timeout = '100ms'
as $$
declare
  v_cursors text := pg_catalog.current_setting('graphile_worker.cursors', true);
  v_task_ids integer[];
  v_is_controlled boolean;
  v_is_limited boolean := false;
  v_has_pauses boolean := false;
  v_has_queue_limits boolean := false;
  v_started timestamptz := pg_catalog.clock_timestamp();
  v_claimed integer := 0;
  v_is_unreported boolean;
begin
  if coalesce(worker_id, '') = '' or (max_jobs between 1 and 100000) is not true then
    perform @extschema@._reject_fetch(worker_id, max_jobs);
  end if;
  if pg_catalog.current_setting('graphile_worker.more', true) <> '' then
    perform pg_catalog.set_config('graphile_worker.more', '', false);
  end if;
  if task_identifiers is null then
    v_is_controlled := exists (select from @extschema@._private_limit_states);
  else
    select pg_catalog.array_agg(tasks.id), exists (select from @extschema@._private_limit_states)
    into v_task_ids, v_is_controlled
    from @extschema@._private_tasks as tasks
    where tasks.identifier = any (task_identifiers);
    if v_task_ids is null then
      return;
    end if;
  end if;
  if v_is_controlled then
    select * into v_task_ids, v_is_limited, v_has_pauses, v_has_queue_limits
    from @extschema@._find_controls(v_task_ids);
  end if;

  if coalesce(v_cursors, '') = '' and not v_is_limited then
    begin
      return query
      select *
      from @extschema@._claim_first_jobs(worker_id, max_jobs, v_task_ids, forbidden_flags);
      get diagnostics v_claimed = row_count;
      if v_claimed = 0 then
        raise sqlstate 'GWRTY' using message = 'Nothing was claimed', hint = 'Caught below.';
      elsif v_cursors is null then
        perform pg_catalog.set_config('graphile_worker.cursors', '', false);
      elsif pg_catalog.clock_timestamp() > v_started + interval '1 millisecond' then
        -- The next call finds out whether cursors are worth it.
        perform pg_catalog.set_config('graphile_worker.cursors', 'null', false);
      end if;
    exception when sqlstate 'GWRTY' or lock_not_available then
      v_claimed := 0;
    end;
  end if;
  if v_claimed = 0 then
    return query
    select * from @extschema@._claim_in_order(
      worker_id, max_jobs, v_task_ids, forbidden_flags, v_cursors,
      v_is_limited, v_has_pauses, v_has_queue_limits
    );
    get diagnostics v_claimed = row_count;
    if v_claimed = 0 and v_cursors <> 'null'
      and pg_catalog.current_setting('graphile_worker.cursors') = 'null'
    then
      return query
      select * from @extschema@._claim_in_order(
        worker_id, max_jobs, v_task_ids, forbidden_flags, 'null',
        v_is_limited, v_has_pauses, v_has_queue_limits
      );
      get diagnostics v_claimed = row_count;
      if v_claimed = 0 and pg_catalog.current_setting('graphile_worker.cursors') <> '' then
        -- Nothing is due, and it took long to see: the next job will come behind the cursors.
        perform pg_catalog.set_config('graphile_worker.cursors', v_cursors, false);
      end if;
    end if;
    if v_claimed = max_jobs and max_jobs > 1
      and pg_catalog.current_setting('graphile_worker.cursors') = ''
    then
      -- There is a backlog: the first few jobs will not decide the next call either.
      perform pg_catalog.set_config('graphile_worker.cursors', 'null', false);
    end if;
  end if;
  if v_is_controlled and v_claimed < max_jobs then
    perform @extschema@._wait_for_controls();
  end if;
  if v_claimed > 0 then
    v_is_unreported := not exists (
      select from @extschema@._private_heartbeats as heartbeats
      where heartbeats.worker_id = get_jobs.worker_id
    );
    if v_is_unreported or pg_catalog.current_setting('transaction_isolation') in ('repeatable read', 'serializable') then
      perform @extschema@._refuse_ended_worker(worker_id);
    end if;
    if v_is_unreported then
      insert into @extschema@._private_unreported_claims (claimed_at)
        select pg_catalog.clock_timestamp()
        where not exists (
          select from @extschema@._private_unreported_claims as claims
          where claims.claimed_at > pg_catalog.clock_timestamp() - interval '5 minutes'
        );
    end if;
  end if;
end;
$$;

-- Deletes jobs that the worker has done and unlocks their queues. Returns a row for each id given,
-- in that order: done is false where the job is not this worker's any more, and nothing was
-- touched.
create function @extschema@.finish_jobs(
  worker_id text,
  job_ids bigint[]
)
returns table (job_id bigint, done boolean)
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_lock_timeout text;
  v_lock_set text;
  v_lock_started timestamptz;
  v_is_kept boolean;
  v_start timestamptz;
  v_keyed bigint;
  v_done bigint[];
  v_queue_ids integer[];
begin
  v_lock_timeout := pg_catalog.current_setting('lock_timeout');
  v_lock_started := pg_catalog.clock_timestamp();
  loop
    begin
      -- Assigned, since that is evaluated without a query.
      v_lock_set := pg_catalog.set_config('lock_timeout', '100ms', true);
      with keyed as materialized (
        select jobs.id
        from @extschema@._private_jobs as jobs
        where jobs.id = any (job_ids) and jobs.key is not null
        order by jobs.key
        for update
      )
      select
        exists (select from @extschema@._private_histories as histories where histories.is_kept),
        case when exists (select from @extschema@._private_histories as histories where histories.is_kept) then (
          select partitions.starts_at
          from @extschema@._private_history_partitions as partitions
          where partitions.ends_at > pg_catalog.clock_timestamp()
          order by partitions.ends_at
          limit 1
        ) end,
        pg_catalog.count(*)
      into v_is_kept, v_start, v_keyed
      from keyed;
      if v_is_kept then
        select finished.done, finished.queue_ids into v_done, v_queue_ids
        from @extschema@._finish_and_record(
          worker_id, job_ids,
          null, null, null, v_start
        ) as finished;
      else
        with deleted as (
          delete from @extschema@._private_jobs as jobs
          where jobs.id = any (job_ids) and jobs.locked_by = worker_id
          returning jobs.id, jobs.job_queue_id
        )
        select
          pg_catalog.array_agg(deleted.id),
          pg_catalog.array_agg(deleted.job_queue_id) filter (where deleted.job_queue_id is not null)
        into v_done, v_queue_ids
        from deleted;
      end if;
      if v_queue_ids is not null then
        with locked as materialized (
          select queues.id
          from @extschema@._private_job_queues as queues
          where queues.id = any (v_queue_ids) and queues.locked_by = worker_id
          order by queues.id
          for update
        )
        update @extschema@._private_job_queues as queues
        set locked_at = null, locked_by = null
        from locked
        where queues.id = locked.id;
        if exists (select from @extschema@._private_limit_states as states where states.is_wanted) then
          perform @extschema@._wake_limited(v_done);
        end if;
      end if;
      v_lock_set := pg_catalog.set_config('lock_timeout', v_lock_timeout, true);
      exit;
    exception when lock_not_available then
      perform @extschema@._before_lock_retry(v_lock_timeout, v_lock_started, interval '1 second');
    end;
  end loop;
  return query
  select given.id, finished.id is not null
  from pg_catalog.unnest(job_ids) with ordinality as given (id, place)
  left join pg_catalog.unnest(v_done) as finished (id) on finished.id = given.id
  order by given.place;
end;
$$;

-- As finish_jobs, with the result of each job (null: it has none), for how many seconds its task
-- ran (null: since it was claimed), and why there is no result, if that is a problem. They are
-- recorded where the job's history is kept. A worker that does not know whether results are wanted
-- passes no array of them: then done is null for the jobs that are to be finished with theirs, and
-- these were not touched.
create function @extschema@.finish_jobs_with_results(
  worker_id text,
  job_ids bigint[],
  results json[],
  seconds double precision[] = null,
  problems text[] = null
)
returns table (job_id bigint, done boolean)
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_lock_timeout text;
  v_lock_set text;
  v_lock_started timestamptz;
  v_is_kept boolean;
  v_start timestamptz;
  v_keyed bigint;
  v_ids bigint[];
  v_asked bigint[];
  v_done bigint[];
  v_queue_ids integer[];
begin
  v_lock_timeout := pg_catalog.current_setting('lock_timeout');
  v_lock_started := pg_catalog.clock_timestamp();
  loop
    begin
      -- Assigned, since that is evaluated without a query.
      v_lock_set := pg_catalog.set_config('lock_timeout', '100ms', true);
      with keyed as materialized (
        select jobs.id
        from @extschema@._private_jobs as jobs
        where jobs.id = any (job_ids) and jobs.key is not null
        order by jobs.key
        for update
      )
      select
        exists (select from @extschema@._private_histories as histories where histories.is_kept),
        case when exists (select from @extschema@._private_histories as histories where histories.is_kept) then (
          select partitions.starts_at
          from @extschema@._private_history_partitions as partitions
          where partitions.ends_at > pg_catalog.clock_timestamp()
          order by partitions.ends_at
          limit 1
        ) end,
        pg_catalog.count(*)
      into v_is_kept, v_start, v_keyed
      from keyed;
      if v_is_kept then
        v_ids := job_ids;
        if results is null then
          v_asked := @extschema@._jobs_with_history(worker_id, job_ids);
          v_ids := array(
            select given.id from pg_catalog.unnest(job_ids) as given (id)
            where given.id <> all (v_asked)
          );
        end if;
        select finished.done, finished.queue_ids into v_done, v_queue_ids
        from @extschema@._finish_and_record(
          worker_id, v_ids,
          results, seconds, problems, v_start
        ) as finished;
      else
        with deleted as (
          delete from @extschema@._private_jobs as jobs
          where jobs.id = any (job_ids) and jobs.locked_by = worker_id
          returning jobs.id, jobs.job_queue_id
        )
        select
          pg_catalog.array_agg(deleted.id),
          pg_catalog.array_agg(deleted.job_queue_id) filter (where deleted.job_queue_id is not null)
        into v_done, v_queue_ids
        from deleted;
      end if;
      if v_queue_ids is not null then
        with locked as materialized (
          select queues.id
          from @extschema@._private_job_queues as queues
          where queues.id = any (v_queue_ids) and queues.locked_by = worker_id
          order by queues.id
          for update
        )
        update @extschema@._private_job_queues as queues
        set locked_at = null, locked_by = null
        from locked
        where queues.id = locked.id;
        if exists (select from @extschema@._private_limit_states as states where states.is_wanted) then
          perform @extschema@._wake_limited(v_done);
        end if;
      end if;
      v_lock_set := pg_catalog.set_config('lock_timeout', v_lock_timeout, true);
      exit;
    exception when lock_not_available then
      perform @extschema@._before_lock_retry(v_lock_timeout, v_lock_started, interval '1 second');
    end;
  end loop;
  return query
  select given.id, case when given.id = any (v_asked) then null else finished.id is not null end
  from pg_catalog.unnest(job_ids) with ordinality as given (id, place)
  left join pg_catalog.unnest(v_done) as finished (id) on finished.id = given.id
  order by given.place;
end;
$$;

-- Puts failed jobs back for later and unlocks their queues. One json object a job:
--   {"id": 1, "error": "what went wrong", "payload": [...], "run_at": "...", "final": true,
--    "discarded": true, "seconds": 1.5}
-- payload replaces the job's (a batch that succeeded in part); run_at replaces the growing delay;
-- final uses up the attempts. History records whether the task gave the job up (discarded), and for
-- how many seconds it ran. Only id is required. Returns as finish_jobs does.
create function @extschema@.fail_jobs(
  worker_id text,
  failures json
)
returns table (job_id bigint, done boolean)
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_lock_timeout text;
  v_lock_set text;
  v_lock_started timestamptz;
  v_failures json := coalesce(failures, '[]');
  v_bad text;
  v_ids bigint[];
  v_done bigint[];
  v_queue_ids integer[];
begin
  if pg_catalog.json_typeof(v_failures) <> 'array' then
    raise exception 'Failures are not a json array but: %', pg_catalog.json_typeof(v_failures)
      using errcode = 'GWBFA', hint = 'Pass an array of objects with id and error.';
  end if;
  begin
    perform f.value ->> 'id' from pg_catalog.json_array_elements(v_failures) as f;
  exception when untranslatable_character or invalid_text_representation then
    -- NUL or half a surrogate pair, which PostgreSQL cannot hold, must not keep the job locked for
    -- ever: such escapes are kept as they are written.
    v_failures := pg_catalog.regexp_replace(v_failures::text,
      '(?<!\\)((?:\\\\)*)\\(u0000|u[dD][89a-fA-F][0-9a-fA-F]{2})', '\1\\\\\2', 'g');
  end;
  select
    pg_catalog.array_agg((f.value ->> 'id')::bigint order by f.place),
    pg_catalog.min(f.value::text) filter (where f.value ->> 'id' is null)
  into v_ids, v_bad
  from pg_catalog.json_array_elements(v_failures) with ordinality as f (value, place);
  if v_bad is not null then
    raise exception 'A failure has no id: %', pg_catalog.left(v_bad, 100)
      using errcode = 'GWBFA', hint = 'Give each failure the id of its job.';
  end if;

  v_lock_timeout := pg_catalog.current_setting('lock_timeout');
  v_lock_started := pg_catalog.clock_timestamp();
  loop
    begin
      -- Assigned, since that is evaluated without a query.
      v_lock_set := pg_catalog.set_config('lock_timeout', '100ms', true);
      perform from @extschema@._private_jobs as jobs
      where jobs.id = any (v_ids) and jobs.key is not null
      order by jobs.key
      for update;
      if exists (select from @extschema@._private_histories as histories where histories.is_kept) then
        perform @extschema@._note_failures(worker_id, v_failures);
      end if;
      with failed as (
        update @extschema@._private_jobs as jobs
        set
          last_error = coalesce(f.error, 'Failed without a message'),
          payload = coalesce(f.payload, jobs.payload),
          attempts = case when f.final then jobs.max_attempts else jobs.attempts end,
          run_at = coalesce(
            f.run_at,
            case
              when jobs.run_at > timestamptz '200000-01-01 00:00:00+00' then jobs.run_at
              else greatest(pg_catalog.now(), jobs.run_at)
                + pg_catalog.exp(greatest(least(jobs.attempts, 10), 0)) * interval '1 second'
            end
          ),
          locked_at = null,
          locked_by = null,
          updated_at = pg_catalog.now()
        from (
          select distinct on ((f.value ->> 'id')::bigint)
            (f.value ->> 'id')::bigint as id,
            f.value ->> 'error' as error,
            case when f.value ->> 'payload' is not null then f.value -> 'payload' end as payload,
            (f.value ->> 'run_at')::timestamptz as run_at,
            (f.value ->> 'final')::boolean as final
          from pg_catalog.json_array_elements(v_failures) with ordinality as f (value, place)
          order by (f.value ->> 'id')::bigint, f.place desc
        ) as f
        where jobs.id = f.id and jobs.locked_by = worker_id
        returning jobs.id, jobs.job_queue_id
      )
      select
        pg_catalog.array_agg(failed.id),
        pg_catalog.array_agg(failed.job_queue_id) filter (where failed.job_queue_id is not null)
      into v_done, v_queue_ids
      from failed;
      if v_queue_ids is not null then
        with locked as materialized (
          select queues.id
          from @extschema@._private_job_queues as queues
          where queues.id = any (v_queue_ids) and queues.locked_by = worker_id
          order by queues.id
          for update
        )
        update @extschema@._private_job_queues as queues
        set locked_at = null, locked_by = null
        from locked
        where queues.id = locked.id;
        if exists (select from @extschema@._private_limit_states as states where states.is_wanted) then
          perform @extschema@._wake_limited(v_done);
        end if;
      end if;
      v_lock_set := pg_catalog.set_config('lock_timeout', v_lock_timeout, true);
      exit;
    exception when lock_not_available then
      perform @extschema@._before_lock_retry(v_lock_timeout, v_lock_started, interval '1 second');
    end;
  end loop;
  return query
  select given.id, failed.id is not null
  from pg_catalog.unnest(v_ids) with ordinality as given (id, place)
  left join pg_catalog.unnest(v_done) as failed (id) on failed.id = given.id
  order by given.place;
end;
$$;

-- Gives back jobs that the worker took but will not run, without using up the attempt, and unlocks
-- their queues; other workers are woken. With run_at the job waits until then. Returns as
-- finish_jobs.
create function @extschema@.return_jobs(
  worker_id text,
  job_ids bigint[],
  run_at timestamptz = null
)
returns table (job_id bigint, done boolean)
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_lock_timeout text;
  v_lock_set text;
  v_lock_started timestamptz;
  v_done bigint[];
  v_queue_ids integer[];
begin
  v_lock_timeout := pg_catalog.current_setting('lock_timeout');
  v_lock_started := pg_catalog.clock_timestamp();
  loop
    begin
      -- Assigned, since that is evaluated without a query.
      v_lock_set := pg_catalog.set_config('lock_timeout', '100ms', true);
      perform from @extschema@._private_jobs as jobs
      where jobs.id = any (job_ids) and jobs.key is not null
      order by jobs.key
      for update;
      with returned as (
        update @extschema@._private_jobs as jobs
        set
          attempts = case
            when jobs.key is null
              and jobs.attempts >= jobs.max_attempts
              and jobs.updated_at > jobs.locked_at
              then jobs.attempts
            else greatest(jobs.attempts - 1, 0)
          end,
          run_at = coalesce(return_jobs.run_at, jobs.run_at),
          locked_at = null,
          locked_by = null,
          updated_at = pg_catalog.now()
        where jobs.id = any (job_ids) and jobs.locked_by = worker_id
        returning jobs.id, jobs.job_queue_id
      )
      select
        pg_catalog.array_agg(returned.id),
        pg_catalog.array_agg(returned.job_queue_id) filter (where returned.job_queue_id is not null)
      into v_done, v_queue_ids
      from returned;
      if v_queue_ids is not null then
        with locked as materialized (
          select queues.id
          from @extschema@._private_job_queues as queues
          where queues.id = any (v_queue_ids) and queues.locked_by = worker_id
          order by queues.id
          for update
        )
        update @extschema@._private_job_queues as queues
        set locked_at = null, locked_by = null
        from locked
        where queues.id = locked.id;
        if exists (select from @extschema@._private_limit_states as states where states.is_wanted) then
          perform @extschema@._wake_limited(v_done);
        end if;
      end if;
      v_lock_set := pg_catalog.set_config('lock_timeout', v_lock_timeout, true);
      exit;
    exception when lock_not_available then
      perform @extschema@._before_lock_retry(v_lock_timeout, v_lock_started, interval '1 second');
    end;
  end loop;
  if v_done is not null
    and coalesce(run_at <= pg_catalog.now(), true)
    and coalesce(pg_catalog.current_setting('graphile_worker.notify', true), 'on')
    not in ('off', 'false', 'no', '0')
  then
    perform pg_catalog.pg_notify(
      'jobs:insert',
      '{"r":' || pg_catalog.random() || ',"count":' || pg_catalog.cardinality(v_done) || '}'
    )
    where pg_catalog.current_setting('application_name') not like 'citus_internal%';
  end if;
  return query
  select given.id, returned.id is not null
  from pg_catalog.unnest(job_ids) with ordinality as given (id, place)
  left join pg_catalog.unnest(v_done) as returned (id) on returned.id = given.id
  order by given.place;
end;
$$;

-- The payload of a job that the worker has taken: for one that was not asked for its payload then,
-- since it is large. Null where the job is not this worker's any more.
create function @extschema@.get_payload(
  worker_id text,
  job_id bigint
)
returns json
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select jobs.payload
    from @extschema@._private_jobs as jobs
    where jobs.id = job_id and jobs.locked_by = worker_id
  );
end;
$$;

-- Unlocks jobs and queues whose lock is older than 4 hours: their worker died, unless it was heard
-- of lately. Call it every eight minutes or so; several callers do not disturb each other, and rows
-- in use are skipped.
create function @extschema@.release_stale_locks()
returns table (released_jobs bigint, released_queues bigint)
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_dead_after interval := coalesce(
    (select settings.dead_after from @extschema@._private_settings as settings),
    interval '30 seconds'
  );
begin
  with stale as materialized (
    select jobs.id
    from @extschema@._private_jobs as jobs
    where jobs.locked_at < pg_catalog.now() - interval '4 hours'
    and not exists (
      select from @extschema@._private_heartbeats as heartbeats
      where heartbeats.worker_id = jobs.locked_by
      and greatest(heartbeats.heartbeat_at, pg_catalog.pg_postmaster_start_time()) >= pg_catalog.clock_timestamp() - v_dead_after
    )
    order by jobs.key, jobs.id
    for update skip locked
  )
  update @extschema@._private_jobs as jobs
  set locked_at = null, locked_by = null, updated_at = pg_catalog.now()
  from stale
  where jobs.id = stale.id;
  get diagnostics released_jobs = row_count;

  with stale as materialized (
    select queues.id
    from @extschema@._private_job_queues as queues
    where queues.locked_at < pg_catalog.now() - interval '4 hours'
    and not exists (
      select from @extschema@._private_heartbeats as heartbeats
      where heartbeats.worker_id = queues.locked_by
      and greatest(heartbeats.heartbeat_at, pg_catalog.pg_postmaster_start_time()) >= pg_catalog.clock_timestamp() - v_dead_after
    )
    order by queues.id
    for update skip locked
  )
  update @extschema@._private_job_queues as queues
  set locked_at = null, locked_by = null
  from stale
  where queues.id = stale.id;
  get diagnostics released_queues = row_count;

  perform @extschema@._forget_controls();
  if released_jobs > 0 and coalesce(pg_catalog.current_setting('graphile_worker.notify', true), 'on')
    not in ('off', 'false', 'no', '0') then
    perform pg_catalog.pg_notify(
      'jobs:insert',
      '{"r":' || pg_catalog.random() || ',"count":' || released_jobs || '}'
    )
    where pg_catalog.current_setting('application_name') not like 'citus_internal%';
  end if;
  return next;
end;
$$;

-- Workers that say that they run, so that what they hold can be freed soon after they fall silent.
-- Whether an available job is due, and the time until the first one of the future is; null: there
-- is none. Two steps in the index for each priority there is, with the settings of get_jobs, for
-- the same reason.
create function @extschema@._next_due(out is_due boolean, out next_job_in interval)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_sort = off
set enable_incremental_sort = off
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
declare
  v_run_at timestamptz;
begin
  with recursive step (priority, run_at, id) as (
    (
      select jobs.priority, jobs.run_at, jobs.id
      from @extschema@._private_jobs as jobs
      where jobs.is_available
      order by jobs.priority, jobs.run_at, jobs.id
      limit 1
    )
    union all
    select further.priority, further.run_at, further.id
    from step
    cross join lateral (
      select jobs.priority, jobs.run_at, jobs.id
      from @extschema@._private_jobs as jobs
      where jobs.is_available and jobs.priority > step.priority
      order by jobs.priority, jobs.run_at, jobs.id
      limit 1
    ) as further
  )
  select
    coalesce(pg_catalog.bool_or(step.run_at <= pg_catalog.now()), false),
    pg_catalog.min(first.run_at)
  into is_due, v_run_at
  from step
  left join lateral (
    select jobs.run_at
    from @extschema@._private_jobs as jobs
    where jobs.is_available
    and jobs.priority = step.priority
    and jobs.run_at > pg_catalog.now()
    order by jobs.priority, jobs.run_at, jobs.id
    limit 1
  ) as first on true;
  -- An infinite time is no job to wait for, and cannot be subtracted before PostgreSQL 17.
  if pg_catalog.isfinite(v_run_at) then
    next_job_in := greatest(v_run_at - pg_catalog.clock_timestamp(), interval '0');
  end if;
end;
$$;

-- Whether a worker may be idle, so that new jobs need a notification.
create function @extschema@._any_worker_idle()
returns boolean
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  return pg_catalog.current_setting('transaction_isolation') in ('repeatable read', 'serializable')
    or exists (select from @extschema@._private_heartbeats as workers where not workers.is_busy)
      or not exists (select from @extschema@._private_heartbeats)
      or exists (select from @extschema@._private_unreported_claims);
end;
$$;

-- Notes that a worker without a heartbeat looks for jobs.
create function @extschema@._note_unreported_claim()
returns trigger
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into @extschema@._private_unreported_claims (claimed_at)
  select pg_catalog.clock_timestamp()
  where not exists (
    select from @extschema@._private_unreported_claims as claims
    where claims.claimed_at > pg_catalog.clock_timestamp() - interval '5 minutes'
  );
  return null;
end;
$$;

-- How many live workers that run these tasks are idle: so many a notification wakes at once.
create function @extschema@.count_idle_workers(
  task_identifiers text[]
)
returns integer
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select pg_catalog.count(*)
    from @extschema@._private_heartbeats as heartbeats
    where heartbeats.task_identifiers is not distinct from count_idle_workers.task_identifiers
    and not heartbeats.is_busy
    and heartbeats.heartbeat_at
      >= pg_catalog.clock_timestamp() - coalesce(
        (select settings.dead_after from @extschema@._private_settings as settings),
        interval '30 seconds'
      )
  );
end;
$$;

-- The transactions that may have written jobs and are open, by virtual ids, other than the
-- caller's; given some, those of them that are still open.
create function @extschema@.writing_transactions(
  among text[] = null
)
returns text[]
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return array(
    select distinct locks.virtualtransaction
    from pg_catalog.pg_locks as locks
    join pg_catalog.pg_database as databases on databases.oid = locks.database
    where databases.datname = pg_catalog.current_database()
    and locks.relation = '@extschema@._private_jobs'::pg_catalog.regclass
    and locks.mode = 'RowExclusiveLock'
    and locks.granted
    and locks.pid is distinct from pg_catalog.pg_backend_pid()
    and (among is null or locks.virtualtransaction = any (among))
  );
end;
$$;

-- Reports that the worker runs; call it more than twice within dead_after. Returns is_known:
-- false for the first time, and where it was presumed dead meanwhile, and its jobs were given to
-- others. Its times are those of the clock, since the transaction may have waited.
--
-- A worker that is_busy looks for jobs all the time and need not be woken.
--
-- Locks of the worker that are older than an hour are made younger, once an hour: whoever goes by
-- their age alone, as Node's workers do, does not run a long job a second time.
create function @extschema@.heartbeat(
  worker_id text,
  task_identifiers text[] = null,
  details json = null,
  is_busy boolean = false
)
returns table (is_known boolean, dead_after interval, next_job_in interval, is_due boolean)
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_heartbeats @extschema@._private_heartbeats;
  v_now timestamptz;
begin
  if worker_id is null or worker_id = '' then
    raise exception 'Worker id is null or empty'
      using errcode = 'GWBWI', hint = 'Pass a text that no other worker uses.';
  end if;
  dead_after := coalesce(
    (select settings.dead_after from @extschema@._private_settings as settings),
    interval '30 seconds'
  );
  select * into v_heartbeats
  from @extschema@._private_heartbeats as heartbeats
  where heartbeats.worker_id = heartbeat.worker_id
  for update;
  is_known := found;
  if not is_known then
    delete from @extschema@._private_ended_workers as ended
    where ended.worker_id = heartbeat.worker_id;
  end if;
  v_now := pg_catalog.clock_timestamp();
  insert into @extschema@._private_heartbeats as heartbeats (
    worker_id, started_at, heartbeat_at, alive_since, refreshed_at, task_identifiers, details,
    is_busy
  )
  values (
    heartbeat.worker_id, v_now, v_now, v_now, v_now, heartbeat.task_identifiers, heartbeat.details,
    coalesce(heartbeat.is_busy, false)
  )
  on conflict on constraint heartbeats_pkey do update set
    heartbeat_at = excluded.heartbeat_at,
    alive_since = case
      when excluded.heartbeat_at - heartbeats.heartbeat_at > heartbeat.dead_after / 2
        then excluded.heartbeat_at
      else heartbeats.alive_since
    end,
    refreshed_at = case
      when excluded.heartbeat_at - heartbeats.refreshed_at > interval '1 hour'
        then excluded.heartbeat_at
      else heartbeats.refreshed_at
    end,
    task_identifiers = excluded.task_identifiers,
    details = excluded.details,
    is_busy = excluded.is_busy;

  if v_now - v_heartbeats.refreshed_at > interval '1 hour' then
    with old as materialized (
      select jobs.id
      from @extschema@._private_jobs as jobs
      where jobs.locked_by = heartbeat.worker_id and jobs.locked_at < v_now - interval '1 hour'
      order by jobs.key, jobs.id
      for update skip locked
    )
    update @extschema@._private_jobs as jobs
    set
      locked_at = v_now,
      updated_at = case
        when jobs.key is null
          and jobs.attempts >= jobs.max_attempts
          and jobs.updated_at > jobs.locked_at
          then v_now + interval '1 microsecond'
        else jobs.updated_at
      end
    from old
    where jobs.id = old.id;

    with old as materialized (
      select queues.id
      from @extschema@._private_job_queues as queues
      where queues.locked_by = heartbeat.worker_id
      and queues.locked_at < v_now - interval '1 hour'
      order by queues.id
      for update skip locked
    )
    update @extschema@._private_job_queues as queues
    set locked_at = v_now
    from old
    where queues.id = old.id;
  end if;

  select jobs.is_due, jobs.next_job_in into is_due, next_job_in
  from @extschema@._next_due() as jobs;
  return next;
end;
$$;

-- Gives back the jobs that the worker holds, with their attempt, other than those to keep, and
-- unlocks their queues. Others are woken.
create function @extschema@._return_held_jobs(
  worker_id text,
  kept_ids bigint[]
)
returns bigint
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_lock_timeout text;
  v_lock_set text;
  v_lock_started timestamptz;
  v_returned bigint;
  v_queues bigint;
begin
  v_lock_timeout := pg_catalog.current_setting('lock_timeout');
  v_lock_started := pg_catalog.clock_timestamp();
  loop
    begin
      -- Assigned, since that is evaluated without a query.
      v_lock_set := pg_catalog.set_config('lock_timeout', '100ms', true);
      with theirs as materialized (
        select jobs.id
        from @extschema@._private_jobs as jobs
        where jobs.locked_by = worker_id
        and (kept_ids is null or jobs.id <> all (kept_ids))
        order by jobs.key, jobs.id
        for update
      ),
      returned as (
        update @extschema@._private_jobs as jobs
        set
          attempts = case
            when jobs.key is null
              and jobs.attempts >= jobs.max_attempts
              and jobs.updated_at > jobs.locked_at
              then jobs.attempts
            else greatest(jobs.attempts - 1, 0)
          end,
          locked_at = null,
          locked_by = null,
          updated_at = pg_catalog.now()
        from theirs
        where jobs.id = theirs.id
        returning jobs.id
      )
      select pg_catalog.count(*) into v_returned from returned;
      v_queues := pg_catalog.cardinality(@extschema@._unlock_queues_of(array[worker_id], true));
      v_lock_set := pg_catalog.set_config('lock_timeout', v_lock_timeout, true);
      exit;
    exception when lock_not_available then
      perform @extschema@._before_lock_retry(v_lock_timeout, v_lock_started, interval '1 second');
    end;
  end loop;

  if v_returned + v_queues > 0 and coalesce(pg_catalog.current_setting('graphile_worker.notify', true), 'on')
    not in ('off', 'false', 'no', '0') then
    perform pg_catalog.pg_notify(
      'jobs:insert',
      '{"r":' || pg_catalog.random() || ',"count":' || greatest(v_returned, v_queues) || '}'
    )
    where pg_catalog.current_setting('application_name') not like 'citus_internal%';
  end if;
  return v_returned;
end;
$$;

-- Makes these ids those of workers that have ended: get_jobs gives them no job any more. What
-- transactions that are open now still lock in their names is freed by recover_dead_workers.
create function @extschema@._end_workers(
  worker_ids text[]
)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  delete from @extschema@._private_heartbeats as heartbeats
  where heartbeats.worker_id = any (worker_ids);
  insert into @extschema@._private_ended_workers as ended (worker_id, ended_at)
  select given.worker_id, pg_catalog.clock_timestamp()
  from pg_catalog.unnest(worker_ids) as given (worker_id)
  order by given.worker_id
  on conflict on constraint ended_workers_pkey do update set
    ended_at = excluded.ended_at,
    open_transactions = excluded.open_transactions;
end;
$$;

-- Ends a worker: the jobs that it still holds are given back without using up the attempt, its
-- queues are unlocked, and it is no longer among the workers. Returns how many jobs there were.
-- Its id gets no job any more, unless it calls heartbeat again.
create function @extschema@.end_worker(
  worker_id text
)
returns bigint
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if worker_id is null or worker_id = '' then
    raise exception 'Worker id is null or empty'
      using errcode = 'GWBWI', hint = 'Pass a text that no other worker uses.';
  end if;
  perform @extschema@._end_workers(array[worker_id]);
  return @extschema@._return_held_jobs(worker_id, null);
end;
$$;

-- Gives back the jobs that the worker holds but does not know of, since the result of get_jobs was
-- lost on its way, without using up the attempt. Returns how many there were. Not to be called
-- while a get_jobs of the worker is under way.
create function @extschema@.return_unknown_jobs(
  worker_id text,
  known_ids bigint[]
)
returns bigint
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return @extschema@._return_held_jobs(
    worker_id, coalesce(pg_catalog.array_remove(known_ids, null), '{}')
  );
end;
$$;

create trigger unreported_claim
  before update of locked_by on @extschema@._private_jobs
  for each statement
  when (pg_catalog.current_setting('search_path') <> 'pg_catalog, pg_temp')
  execute function @extschema@._note_unreported_claim();
comment on trigger unreported_claim on @extschema@._private_jobs
  is 'Notes that workers without a heartbeat look for jobs: they are notified of all jobs.';

-- Presumes workers dead that have not been heard of for dead_after, ends their ids, and frees what
-- they hold. Only those that were ever heard of: a Node worker is not touched.
--
-- No heartbeat could arrive while the server was down, nor while the caller was cut off itself: its
-- own heartbeats tell since when they come without a gap. Without a worker_id (an administrator
-- calls) only the server's start counts.
--
-- A call of get_jobs that was under way when its worker ended may still lock jobs in its name. Once
-- the end of a worker is committed, get_jobs refuses its id; so the transactions that have locked
-- the table of jobs by then are listed, and when all of them have ended, what they left is freed.
--
-- Never waits, since whoever waits here is not heard of either: several callers do not disturb each
-- other, and what somebody else holds at the moment is left for the next call.
--
-- A job gets its attempt back, since its worker may have died of anything, but not for ever: after
-- max_crashes of them the attempt counts, and the job waits as after a failure.
create function @extschema@.recover_dead_workers(
  worker_id text = null
)
returns table (dead_worker_id text, released_jobs bigint, released_queues bigint)
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_dead_after interval := coalesce(
    (select settings.dead_after from @extschema@._private_settings as settings),
    interval '30 seconds'
  );
  v_now timestamptz := pg_catalog.clock_timestamp();
  v_listening_since timestamptz := pg_catalog.pg_postmaster_start_time();
  v_silent text[];
  v_ended text[];
  v_job_owners text[];
  v_queue_owners text[];
begin
  if worker_id is not null then
    select greatest(v_listening_since, heartbeats.alive_since) into v_listening_since
    from @extschema@._private_heartbeats as heartbeats
    where heartbeats.worker_id = recover_dead_workers.worker_id
    and v_now - heartbeats.heartbeat_at <= v_dead_after / 2;
  end if;
  if v_listening_since < v_now - v_dead_after then
    -- The lock looks once more at a row that changed: whoever was heard of just now is left alone.
    select pg_catalog.array_agg(silent.worker_id) into v_silent
    from (
      select heartbeats.worker_id
      from @extschema@._private_heartbeats as heartbeats
      where heartbeats.heartbeat_at < v_now - v_dead_after
      order by heartbeats.worker_id
      for update skip locked
    ) as silent;
  end if;
  with old as materialized (
    select claims.ctid as place
    from @extschema@._private_unreported_claims as claims
    where claims.claimed_at < v_now - interval '10 minutes'
    for update skip locked
  )
  delete from @extschema@._private_unreported_claims as claims
  where claims.ctid = any (array(select old.place from old));
  v_ended := @extschema@._settled_ended_workers();
  if v_silent is null and v_ended is null then
    return;
  end if;

  if v_silent is not null then
    perform @extschema@._end_workers(v_silent);
  end if;
  select released.job_owners, released.queue_owners into v_job_owners, v_queue_owners
  from @extschema@._recover_locks(
    coalesce(v_silent, '{}') || coalesce(v_ended, '{}')
  ) as released;

  -- What somebody else holds at the moment was skipped, and is looked for again.
  update @extschema@._private_ended_workers as ended
  set open_transactions = null
  where ended.worker_id = any (v_ended)
  and not exists (
    select from @extschema@._private_jobs as jobs where jobs.locked_by = ended.worker_id
  )
  and not exists (
    select from @extschema@._private_job_queues as queues
    where queues.locked_by = ended.worker_id
  );
  return query
  select
    freed.id,
    pg_catalog.cardinality(pg_catalog.array_positions(v_job_owners, freed.id))::bigint,
    pg_catalog.cardinality(pg_catalog.array_positions(v_queue_owners, freed.id))::bigint
  from (
    select pg_catalog.unnest(v_silent)
    union
    select pg_catalog.unnest(v_job_owners || v_queue_owners)
  ) as freed (id)
  order by freed.id;
end;
$$;

-- The ended workers that no open transaction can lock jobs for any more, and whose jobs have not
-- been freed since; their rows are locked. Forgets those that ended a day ago.
create function @extschema@._settled_ended_workers()
returns text[]
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_ids text[];
begin
  with old as materialized (
    select ended.worker_id
    from @extschema@._private_ended_workers as ended
    where ended.open_transactions is null
    and ended.ended_at < pg_catalog.clock_timestamp() - interval '1 day'
    for update skip locked
  )
  delete from @extschema@._private_ended_workers as ended
  using old
  where ended.worker_id = old.worker_id;

  select pg_catalog.array_agg(pending.worker_id) into v_ids
  from (
    select ended.worker_id
    from @extschema@._private_ended_workers as ended
    where ended.open_transactions is not null
    order by ended.worker_id
    for update skip locked
  ) as pending;
  if v_ids is null then
    return null;
  end if;
  update @extschema@._private_ended_workers as ended
  set open_transactions = @extschema@.writing_transactions(nullif(ended.open_transactions, '{}'))
  where ended.worker_id = any (v_ids);
  return (
    select pg_catalog.array_agg(ended.worker_id)
    from @extschema@._private_ended_workers as ended
    where ended.worker_id = any (v_ids) and ended.open_transactions = '{}'
  );
end;
$$;

-- Frees the jobs and queues that are locked by these workers, and returns by whom each one was.
-- What somebody else holds at the moment is skipped.
create function @extschema@._recover_locks(
  worker_ids text[],
  out job_owners text[],
  out queue_owners text[]
)
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_max_crashes integer := coalesce(
    (select settings.max_crashes from @extschema@._private_settings as settings), 3
  );
  v_ready bigint;
begin
  if exists (select from @extschema@._private_histories as histories where histories.is_kept) then
    perform @extschema@._note_crashes(worker_ids);
  end if;
  with theirs as materialized (
    select jobs.id, jobs.locked_by
    from @extschema@._private_jobs as jobs
    where jobs.locked_by = any (worker_ids)
    order by jobs.key, jobs.id
    for update skip locked
  ),
  counted as (
    insert into @extschema@._private_crashes as crashes (job_id, crashes, crashed_at)
    select theirs.id, 1, pg_catalog.clock_timestamp()
    from theirs
    on conflict on constraint crashes_pkey do update set
      crashes = least(crashes.crashes, 2147483646) + 1,
      crashed_at = excluded.crashed_at
    returning crashes.job_id, crashes.crashes, crashes.crashes > v_max_crashes as counts
  ),
  released as (
    update @extschema@._private_jobs as jobs
    set
      attempts = case
        when counted.counts or (jobs.key is null
          and jobs.attempts >= jobs.max_attempts
          and jobs.updated_at > jobs.locked_at)
          then jobs.attempts
        else greatest(jobs.attempts - 1, 0)
      end,
      last_error = case
        when counted.counts then pg_catalog.format(
          'Its worker died while it ran the job, the last time worker %s (%s times)',
          theirs.locked_by, counted.crashes
        )
        else jobs.last_error
      end,
      run_at = case
        when counted.counts then case
          when jobs.run_at > timestamptz '200000-01-01 00:00:00+00' then jobs.run_at
          else greatest(pg_catalog.now(), jobs.run_at)
            + pg_catalog.exp(greatest(least(jobs.attempts, 10), 0)) * interval '1 second'
        end
        else jobs.run_at
      end,
      locked_at = null,
      locked_by = null,
      updated_at = pg_catalog.now()
    from theirs
    join counted on counted.job_id = theirs.id
    where jobs.id = theirs.id
    returning theirs.locked_by, jobs.is_available and jobs.run_at <= pg_catalog.now() as is_ready
  )
  select
    coalesce(pg_catalog.array_agg(released.locked_by), '{}'),
    pg_catalog.count(*) filter (where released.is_ready)
  into job_owners, v_ready
  from released;

  queue_owners := @extschema@._unlock_queues_of(worker_ids, false);

  with gone as materialized (
    select crashes.job_id
    from @extschema@._private_crashes as crashes
    where not exists (
      select from @extschema@._private_jobs as jobs where jobs.id = crashes.job_id
    )
    for update skip locked
  )
  delete from @extschema@._private_crashes as crashes
  using gone
  where crashes.job_id = gone.job_id;

  v_ready := greatest(v_ready, pg_catalog.cardinality(queue_owners));
  if v_ready > 0 and coalesce(pg_catalog.current_setting('graphile_worker.notify', true), 'on')
    not in ('off', 'false', 'no', '0') then
    perform pg_catalog.pg_notify(
      'jobs:insert',
      '{"r":' || pg_catalog.random() || ',"count":' || v_ready || '}'
    )
    where pg_catalog.current_setting('application_name') not like 'citus_internal%';
  end if;
end;
$$;

-- Unlocks the queues that these workers hold and run no job of, and returns by whom each one was
-- held. Without may_wait, what somebody else holds at the moment is skipped.
--
-- A worker that is not dead after all may have claimed a job since the caller freed its jobs: the
-- queue of that one stays locked. Nobody claims a job of a queue while its row is held here, and a
-- statement that begins after that sees all that were claimed before.
create function @extschema@._unlock_queues_of(
  worker_ids text[],
  may_wait boolean
)
returns text[]
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_held integer[];
  v_running integer[];
  v_owners text[];
begin
  if may_wait then
    select pg_catalog.array_agg(held.id) into v_held
    from (
      select queues.id
      from @extschema@._private_job_queues as queues
      where queues.locked_by = any (worker_ids)
      order by queues.id
      for update
    ) as held;
  else
    select pg_catalog.array_agg(held.id) into v_held
    from (
      select queues.id
      from @extschema@._private_job_queues as queues
      where queues.locked_by = any (worker_ids)
      order by queues.id
      for update skip locked
    ) as held;
  end if;
  if v_held is null then
    return '{}';
  end if;
  select pg_catalog.array_agg(jobs.job_queue_id) into v_running
  from @extschema@._private_jobs as jobs
  where jobs.locked_by = any (worker_ids) and jobs.job_queue_id is not null;
  with unlocked as (
    update @extschema@._private_job_queues as queues
    set locked_at = null, locked_by = null
    from @extschema@._private_job_queues as before
    where queues.id = any (v_held)
    and queues.id <> all (coalesce(v_running, '{}'))
    and before.id = queues.id
    returning before.locked_by
  )
  select coalesce(pg_catalog.array_agg(unlocked.locked_by), '{}') into v_owners
  from unlocked;
  return v_owners;
end;
$$;

-- Sets after which silence a worker is presumed dead (30 seconds unless set), and how often a job
-- that loses its worker gets its attempt back (3 times). Null leaves alone. Returns what holds now.
-- At most 3 hours, since older locks are stale to Node's workers.
create function @extschema@.set_recovery(
  inout dead_after interval = null,
  inout max_crashes integer = null
)
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_settings @extschema@._private_settings;
begin
  if dead_after not between interval '1 second' and interval '3 hours' then
    raise exception 'Dead after is out of range: %', dead_after
      using errcode = 'GWBRE', hint = 'Use 1 second to 3 hours, or null to leave it alone.';
  end if;
  if max_crashes not between 0 and 1000 then
    raise exception 'Max crashes is out of range: %', max_crashes
      using errcode = 'GWBRE', hint = 'Use 0 to 1000, or null to leave it alone.';
  end if;
  insert into @extschema@._private_settings as settings (dead_after, max_crashes)
  values (
    coalesce(set_recovery.dead_after, interval '30 seconds'), coalesce(set_recovery.max_crashes, 3)
  )
  on conflict on constraint settings_pkey do update set
    dead_after = coalesce(set_recovery.dead_after, settings.dead_after),
    max_crashes = coalesce(set_recovery.max_crashes, settings.max_crashes)
  returning * into v_settings;
  dead_after := v_settings.dead_after;
  max_crashes := v_settings.max_crashes;
end;
$$;

-- Unlocks queues, those with the names given only, that are locked although none of their jobs is:
-- the rows were changed by hand. Returns their names. Rows in use are skipped.
create function @extschema@.unlock_queues(
  queue_names text[] = null
)
returns setof text
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_locked integer[];
  v_names text[];
begin
  -- While we hold the queue no worker claims a job of it, so what is seen from here on stays true.
  select pg_catalog.array_agg(locked.id) into v_locked
  from (
    select queues.id
    from @extschema@._private_job_queues as queues
    where queues.locked_at is not null
    and (queue_names is null or queues.queue_name = any (queue_names))
    order by queues.id
    for update skip locked
  ) as locked;
  with freed as (
    update @extschema@._private_job_queues as queues
    set locked_at = null, locked_by = null
    where queues.id = any (v_locked)
    and not exists (
      select from @extschema@._private_jobs as jobs
      where jobs.job_queue_id = queues.id and jobs.locked_at is not null
    )
    returning queues.queue_name
  )
  select pg_catalog.array_agg(freed.queue_name order by freed.queue_name) into v_names
  from freed;
  if v_names is not null and coalesce(pg_catalog.current_setting('graphile_worker.notify', true), 'on')
    not in ('off', 'false', 'no', '0') then
    perform pg_catalog.pg_notify(
      'jobs:insert',
      '{"r":' || pg_catalog.random() || ',"count":' || pg_catalog.cardinality(v_names) || '}'
    )
    where pg_catalog.current_setting('application_name') not like 'citus_internal%';
  end if;
  return query select pg_catalog.unnest(v_names);
end;
$$;

-- Recurring jobs. Whoever keeps the time calls these; the table of crontabs, which Node's workers
-- use in the same way, is what makes each time come once.

-- Makes the recurring jobs known, from now on where they were not, and returns what is known of
-- each, in the order given.
create function @extschema@.register_crontabs(
  identifiers text[]
)
returns table (identifier text, known_since timestamptz, last_execution timestamptz)
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if exists (
    select from pg_catalog.unnest(identifiers) as given (name) where (given.name = '') is not false
  ) then
    raise exception 'Identifier of a crontab is null or empty: %', identifiers
      using errcode = 'GWBCR', hint = 'Give each recurring job a name of its own.';
  end if;
  insert into @extschema@._private_known_crontabs (identifier, known_since)
  select distinct given.name, pg_catalog.now()
  from pg_catalog.unnest(identifiers) as given (name)
  where not exists (
    select from @extschema@._private_known_crontabs as crontabs
    where crontabs.identifier = given.name
  )
  order by given.name
  on conflict do nothing;
  return query
  select crontabs.identifier, crontabs.known_since, crontabs.last_execution
  from pg_catalog.unnest(identifiers) with ordinality as given (name, place)
  join @extschema@._private_known_crontabs as crontabs on crontabs.identifier = given.name
  order by given.place;
end;
$$;

-- Adds the recurring jobs for one time, unless they were added for it or for a later one already,
-- and returns the identifiers of those that were added. One json object a recurring job:
--   {"identifier": "daily", "task": "report", "payload": {...}, "queue_name": "q", "priority": 1,
--    "max_attempts": 3, "flags": ["f"], "job_key": "k", "job_key_mode": "preserve_run_at"}
-- Only identifier and task are required. All or nothing: a job that cannot be added raises the
-- error of add_job. Who asks for the same one at the same moment waits, and then finds that it was
-- added. Rows are locked in the order given, as Node's workers do with theirs.
create function @extschema@.add_cron_jobs(
  at timestamptz,
  jobs json
)
returns setof text
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_lock_timeout text;
  v_lock_set text;
  v_lock_started timestamptz;
  v_item record;
  v_identifier text;
  v_fired bigint[] := '{}';
begin
  if at is null or not pg_catalog.isfinite(at) then
    raise exception 'Time of the recurring jobs is null or infinite: %', at
      using errcode = 'GWBCR', hint = 'Pass the minute for which they are due.';
  end if;
  if jobs is null or pg_catalog.json_typeof(jobs) <> 'array' then
    raise exception 'Jobs are not a json array but: %', pg_catalog.json_typeof(jobs)
      using errcode = 'GWBCR', hint = 'Pass an array of objects with identifier and task.';
  end if;
  v_lock_timeout := pg_catalog.current_setting('lock_timeout');
  v_lock_started := pg_catalog.clock_timestamp();
  loop
    begin
      -- Assigned, since that is evaluated without a query.
      v_lock_set := pg_catalog.set_config('lock_timeout', '100ms', true);
      v_fired := '{}';
      for v_item in
        select items.job, items.place
        from pg_catalog.json_array_elements(jobs) with ordinality as items (job, place)
        order by items.place
      loop
        if pg_catalog.json_typeof(v_item.job) = 'object' then
          v_identifier := v_item.job ->> 'identifier';
        end if;
        if coalesce(v_identifier, '') = '' then
          raise exception 'A recurring job has no identifier: %', pg_catalog.left(v_item.job::text, 100)
            using errcode = 'GWBCR', hint = 'Pass an array of objects with identifier and task.';
        end if;
        insert into @extschema@._private_known_crontabs as crontabs (
          identifier, known_since, last_execution
        )
        values (v_identifier, at, at)
        on conflict on constraint known_crontabs_pkey do update set
          last_execution = excluded.last_execution
        where crontabs.last_execution is null or crontabs.last_execution < excluded.last_execution;
        if found then
          v_fired := v_fired || v_item.place;
        end if;
        v_identifier := null;
      end loop;

      -- Jobs with keys in the order that every adder of jobs keeps.
      for v_item in
        select items.job
        from pg_catalog.json_array_elements(jobs) with ordinality as items (job, place)
        where items.place = any (v_fired)
        order by items.job ->> 'job_key', items.place
      loop
        perform @extschema@.add_job(
          identifier => v_item.job ->> 'task',
          payload => case when v_item.job ->> 'payload' is not null then v_item.job -> 'payload' end,
          queue_name => v_item.job ->> 'queue_name',
          run_at => at,
          max_attempts => (v_item.job ->> 'max_attempts')::integer,
          job_key => v_item.job ->> 'job_key',
          priority => (v_item.job ->> 'priority')::integer,
          flags => case
            when v_item.job ->> 'flags' is not null
              then array(select pg_catalog.json_array_elements_text(v_item.job -> 'flags'))
          end,
          job_key_mode => coalesce(v_item.job ->> 'job_key_mode', 'replace')
        );
      end loop;
      v_lock_set := pg_catalog.set_config('lock_timeout', v_lock_timeout, true);
      exit;
    exception when lock_not_available then
      perform @extschema@._before_lock_retry(v_lock_timeout, v_lock_started, interval '1 second');
    end;
  end loop;
  return query
  select items.job ->> 'identifier'
  from pg_catalog.json_array_elements(jobs) with ordinality as items (job, place)
  where items.place = any (v_fired)
  order by items.place;
end;
$$;

-- The numbers that one field of a cron expression stands for: numbers, names, ranges and steps,
-- such as 1,15 or MON-FRI or */5 or 10-40/10.
create function @extschema@._cron_numbers(
  field text,
  what text,
  lowest integer,
  highest integer,
  names text[]
)
returns integer[]
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  c_name constant text := '([0-9]{1,4}|[A-Z]{3})';
  v_part text;
  v_groups text[];
  v_first integer;
  v_last integer;
  v_numbers integer[] := '{}';
begin
  foreach v_part in array pg_catalog.string_to_array(pg_catalog.upper(field), ',') loop
    -- The groups: all, first, and perhaps last and step.
    v_groups := pg_catalog.regexp_match(
      v_part, '^(\*|' || c_name || '(?:-' || c_name || ')?)(?:/([0-9]{1,4}))?$'
    );
    v_first := case
      when v_groups[1] = '*' then lowest
      when v_groups[2] ~ '^[0-9]' then v_groups[2]::integer
      else pg_catalog.array_position(names, v_groups[2]) + lowest - 1
    end;
    v_last := case
      when v_groups[1] = '*' then highest
      when v_groups[3] is null then v_first
      when v_groups[3] ~ '^[0-9]' then v_groups[3]::integer
      -- A week may end with Sunday.
      when v_groups[3] = 'SUN' and v_first > 0 then highest
      else pg_catalog.array_position(names, v_groups[3]) + lowest - 1
    end;
    if (v_first between lowest and v_last and v_last <= highest) is not true
      or v_groups[4]::integer = 0
      or (v_groups[4] is not null and v_groups[1] <> '*' and v_groups[3] is null)
    then
      raise exception 'The % of a schedule is invalid: "%"', what, field
        using errcode = 'GWBCR', hint = pg_catalog.format(
          'Use numbers from %s to %s%s, ranges with the lower end first, and steps of * or a range,'
            ' such as */5 or %s-%s/5.',
          lowest, highest, ' or names such as ' || names[1], lowest, highest
        );
    end if;
    v_numbers := v_numbers || array(
      select pg_catalog.generate_series(v_first, v_last, coalesce(v_groups[4]::integer, 1))
    );
  end loop;
  return v_numbers;
end;
$$;

-- The times, in no order, at which a zone's clocks show these hours and minutes on a day. For every
-- hour, a time that they show twice counts twice. Otherwise each counts once: the first time, or
-- when it is skipped, the moment when the clocks are put forward.
create function @extschema@._runs_of_day(
  day date,
  hours integer[],
  minutes integer[],
  every_hour boolean,
  tz text
)
returns setof timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  -- No zone is farther from UTC.
  v_from timestamp := day - interval '15 hours';
  v_to timestamp := day + interval '39 hours';
  v_before interval := (v_from at time zone 'UTC' at time zone tz) - v_from;
  v_after interval := (v_to at time zone 'UTC' at time zone tz) - v_to;
  v_change timestamptz;
  v_middle timestamptz;
  v_distance integer := 54 * 60;
begin
  if v_before <> v_after then
    v_change := v_to at time zone 'UTC';
    while v_distance > 1 loop
      v_middle := v_change - v_distance / 2 * interval '1 minute';
      if (v_middle at time zone tz) - (v_middle at time zone 'UTC') = v_after then
        v_change := v_middle;
        v_distance := v_distance - v_distance / 2;
      else
        v_distance := v_distance / 2;
      end if;
    end loop;
  end if;
  return query
  select distinct runs.moment
  from pg_catalog.unnest(hours) as hour
  cross join pg_catalog.unnest(minutes) as minute
  cross join lateral (
    select (day + pg_catalog.make_interval(hours => hour, mins => minute)) at time zone 'UTC'
  ) as shown (in_utc)
  cross join lateral (
    select
      case
        when v_change is null or shown.in_utc - v_before < v_change then shown.in_utc - v_before
      end,
      case when shown.in_utc - v_after >= v_change then shown.in_utc - v_after end
  ) as clock (early, late)
  cross join lateral (
    select case
      when every_hour then clock.early
      else coalesce(clock.early, clock.late, v_change)
    end
    union all
    select clock.late where every_hour
  ) as runs (moment)
  where runs.moment is not null;
end;
$$;

-- The next times at which a cron expression is due, later than a moment: minute, hour, day of the
-- month, month and day of the week, or @hourly, @daily, @weekly, @monthly or @yearly. Where both
-- kinds of days are restricted, either is enough.
--
-- Hours and days are those of the zone. An expression for every hour is due whenever the zone's
-- clocks show its minutes. Any other is due once for each local time: when clocks show it twice,
-- the first time; when they skip it, at the moment when they are put forward.
create function @extschema@.next_runs(
  cron text,
  tz text default 'UTC',
  n integer default 3,
  after timestamptz default pg_catalog.now()
)
returns setof timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  -- No zone is farther from UTC.
  c_farthest constant interval := '15 hours';
  -- February 29 may be away for eight years.
  c_longest_pause constant integer := 9 * 366;
  v_fields text[] := pg_catalog.regexp_split_to_array(
    case pg_catalog.lower(pg_catalog.btrim(cron))
      when '@hourly' then '0 * * * *'
      when '@daily' then '0 0 * * *'
      when '@midnight' then '0 0 * * *'
      when '@weekly' then '0 0 * * 0'
      when '@monthly' then '0 0 1 * *'
      when '@yearly' then '0 0 1 1 *'
      when '@annually' then '0 0 1 1 *'
      else pg_catalog.btrim(cron, E' \t')
    end,
    '\s+'
  );
  v_minutes integer[];
  v_hours integer[];
  v_days integer[];
  v_months integer[];
  v_weekdays integer[];
  v_every_hour boolean;
  v_either_day boolean;
  v_of_month boolean;
  v_of_week boolean;
  v_day date;
  v_last_day date;
  v_runs timestamptz[] := '{}';
  v_run timestamptz;
  v_found integer := 0;
begin
  if pg_catalog.cardinality(v_fields) is distinct from 5 then
    raise exception 'Schedule does not have five fields: "%"', cron
      using errcode = 'GWBCR',
        hint = 'Write minute, hour, day of the month, month and day of the week, such as 0 4 * * 1,'
          ' or @hourly, @daily, @weekly, @monthly or @yearly.';
  end if;
  if n is null or n not between 1 and 1000 then
    raise exception 'Number of runs is out of range: %', n
      using errcode = 'GWBCR', hint = 'Ask for 1 to 1000 runs.';
  end if;
  if after is null or not pg_catalog.isfinite(after) then
    raise exception 'The moment after which to look is no time: %', after
      using errcode = 'GWBCR', hint = 'Pass a time, or leave it out for now.';
  end if;
  begin
    v_day := (after at time zone tz)::date - 1;
  exception when invalid_parameter_value then
    null;
  end;
  if v_day is null or tz ~ '[0-9]' and tz !~ '/' then
    raise exception 'Time zone is unknown: "%"', tz
      using errcode = 'GWBCR', hint = 'Use a name of pg_timezone_names, such as Europe/London.';
  end if;
  v_minutes := @extschema@._cron_numbers(v_fields[1], 'minute', 0, 59, null);
  v_hours := @extschema@._cron_numbers(v_fields[2], 'hour', 0, 23, null);
  v_days := @extschema@._cron_numbers(v_fields[3], 'day of the month', 1, 31, null);
  v_months := @extschema@._cron_numbers(
    v_fields[4], 'month', 1, 12, '{JAN,FEB,MAR,APR,MAY,JUN,JUL,AUG,SEP,OCT,NOV,DEC}'
  );
  v_weekdays := @extschema@._cron_numbers(
    v_fields[5], 'day of the week', 0, 7, '{SUN,MON,TUE,WED,THU,FRI,SAT}'
  );
  if 7 = any (v_weekdays) then
    v_weekdays := v_weekdays || 0;
  end if;
  v_every_hour := v_hours @> array(select pg_catalog.generate_series(0, 23));
  v_either_day := not v_days @> array(select pg_catalog.generate_series(1, 31))
    and not v_weekdays @> array(select pg_catalog.generate_series(0, 6));
  v_last_day := v_day + c_longest_pause;

  while v_day <= v_last_day loop
    v_of_month := extract(day from v_day)::integer = any (v_days);
    v_of_week := extract(dow from v_day)::integer = any (v_weekdays);
    if extract(month from v_day)::integer <> all (v_months) then
      v_day := pg_catalog.date_trunc('month', v_day::timestamp) + interval '1 month';
      continue when v_runs = '{}';
      v_day := v_day - 1;
    elsif (v_of_month and v_of_week) or (v_either_day and (v_of_month or v_of_week)) then
      v_runs := v_runs || array(
        select runs.moment
        from @extschema@._runs_of_day(v_day, v_hours, v_minutes, v_every_hour, tz) as runs (moment)
        where runs.moment > next_runs.after
      );
      v_last_day := v_day + c_longest_pause;
    end if;
    v_day := v_day + 1;
    -- Around a change of the clock, a time of one day may come before one of the day before.
    for v_run in
      select distinct runs.moment
      from pg_catalog.unnest(v_runs) as runs (moment)
      where runs.moment < (v_day - c_farthest) at time zone 'UTC'
      order by runs.moment
      limit n - v_found
    loop
      return next v_run;
      v_found := v_found + 1;
    end loop;
    exit when v_found = n;
    v_runs := array(
      select runs.moment
      from pg_catalog.unnest(v_runs) as runs (moment)
      where runs.moment >= (v_day - c_farthest) at time zone 'UTC'
    );
  end loop;
end;
$$;

-- Schedules that the database keeps: recurring jobs that any client can set, and that every Python
-- worker adds when they are due. The row of a schedule is what makes each of its runs come once:
-- next_runs moves on in the transaction that adds the job.
-- Sets the schedule with this name and returns when it is due next. Setting it again replaces it;
-- with the same cron and tz its runs go on, and none comes twice or is lost, also where it was
-- unscheduled in the last five minutes.
--
-- catch_up: runs that no worker was there for are added later if they are not older. overlap: what
-- happens to a run whose predecessor has not ended: allow adds it, skip leaves it out, replace
-- cancels the predecessor.
create function @extschema@.schedule(
  name text,
  task text,
  cron text,
  tz text = 'UTC',
  payload json = '{}',
  queue_name text = null,
  priority integer = null,
  max_attempts integer = null,
  job_key text = null,
  flags text[] = null,
  catch_up interval = '0 seconds',
  overlap text = 'allow'
)
returns timestamptz
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz := pg_catalog.clock_timestamp();
  v_old @extschema@._private_schedules;
  v_runs timestamptz[];
  v_last timestamptz;
begin
  perform @extschema@._reject_schedule(name, payload, catch_up, overlap);
  perform @extschema@._reject_job(task, queue_name, max_attempts, job_key, priority, flags);
  insert into @extschema@._private_schedules as schedules (name, task, cron, tz)
  values (schedule.name, '', '', '')
  on conflict on constraint schedules_pkey do nothing;
  select * into v_old
  from @extschema@._private_schedules as schedules
  where schedules.name = schedule.name
  for update;
  if v_old.cron = cron and v_old.tz = tz
    and coalesce(v_old.unscheduled_at > v_now - interval '5 minutes', true)
  then
    v_runs := v_old.next_runs;
  else
    v_last := greatest(v_now, v_old.last_run_at);
    v_runs := array(select * from @extschema@.next_runs(cron, tz, 3, v_last));
  end if;
  update @extschema@._private_schedules as schedules
  set
    task = schedule.task,
    cron = schedule.cron,
    tz = schedule.tz,
    payload = coalesce(schedule.payload, '{}'),
    queue_name = schedule.queue_name,
    priority = schedule.priority,
    max_attempts = schedule.max_attempts,
    job_key = schedule.job_key,
    flags = schedule.flags,
    catch_up = schedule.catch_up,
    overlap = schedule.overlap,
    next_runs = v_runs,
    last_error = null,
    unscheduled_at = null
  where schedules.name = schedule.name;
  perform @extschema@._notify_workers();
  return v_runs[1];
end;
$$;

-- Raises the error for what a schedule cannot have.
create function @extschema@._reject_schedule(
  name text,
  payload json,
  catch_up interval,
  overlap text
)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if name is null or pg_catalog.length(name) not between 1 and 128 then
    raise exception 'Name of a schedule is null, empty or too long: "%"', pg_catalog.left(name, 40)
      using errcode = 'GWBCR', hint = 'Use 1 to 128 characters.';
  elsif overlap is null or overlap not in ('allow', 'skip', 'replace') then
    raise exception 'Overlap of a schedule is unknown: "%"', overlap
      using errcode = 'GWBCR', hint = 'Use allow, skip or replace.';
  elsif catch_up is null
    or extract(epoch from catch_up) not between 0 and 366 * 86400
  then
    raise exception 'Catch up of a schedule is out of range: %', catch_up
      using errcode = 'GWBCR', hint = 'Use 0 to 366 days.';
  end if;
  if pg_catalog.json_typeof(payload) is distinct from 'object' and payload is not null then
    raise exception 'Payload of a schedule is not an object but: %', pg_catalog.json_typeof(payload)
      using errcode = 'GWBCR', hint = 'Pass an object: _cron is added to it.';
  end if;
  begin
    perform payload::jsonb;
  exception when data_exception then
    raise exception 'Payload of a schedule holds what jsonb cannot: %', sqlerrm
      using errcode = 'GWBCR', hint = 'Leave out NUL and halves of surrogate pairs.';
  end;
end;
$$;

-- Raises the error for a schedule that does not exist.
create function @extschema@._reject_unknown_schedule(
  name text
)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception 'There is no schedule "%"', name
    using errcode = 'GWBCR', hint = 'The view schedules lists those there are.';
end;
$$;

-- Ends a schedule; its jobs stay. Returns whether there was one.
create function @extschema@.unschedule(
  name text
)
returns boolean
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  update @extschema@._private_schedules as schedules
  set unscheduled_at = pg_catalog.clock_timestamp()
  where schedules.name = unschedule.name and schedules.unscheduled_at is null;
  return found;
end;
$$;

-- Pauses a schedule: its runs are left out until it is resumed.
create function @extschema@.pause_schedule(
  name text
)
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  update @extschema@._private_schedules as schedules
  set is_paused = true
  where schedules.name = pause_schedule.name and schedules.unscheduled_at is null;
  if not found then
    perform @extschema@._reject_unknown_schedule(name);
  end if;
end;
$$;

-- Resumes a schedule, and returns when it is due next. Runs that it missed meanwhile are added as
-- far back as its catch_up.
create function @extschema@.resume_schedule(
  name text
)
returns timestamptz
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_schedule @extschema@._private_schedules;
  v_runs timestamptz[];
begin
  select * into v_schedule
  from @extschema@._private_schedules as schedules
  where schedules.name = resume_schedule.name and schedules.unscheduled_at is null
  for update;
  if not found then
    perform @extschema@._reject_unknown_schedule(name);
  end if;
  v_runs := v_schedule.next_runs;
  if v_schedule.is_paused then
    v_runs := array(
      select * from @extschema@.next_runs(
        v_schedule.cron, v_schedule.tz, 3,
        greatest(
          v_schedule.next_runs[1] - interval '1 microsecond',
          pg_catalog.clock_timestamp() - v_schedule.catch_up
        )
      )
    );
    update @extschema@._private_schedules as schedules
    set is_paused = false, next_runs = v_runs
    where schedules.name = resume_schedule.name;
    perform @extschema@._notify_workers();
  end if;
  return v_runs[1];
end;
$$;

-- Adds the job of a schedule for a time, unless the overlap with the last one forbids it. Returns
-- its id, or null.
create function @extschema@._run_schedule(
  schedule @extschema@._private_schedules,
  last_job_id bigint,
  at timestamptz,
  is_late boolean
)
returns bigint
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if schedule.overlap <> 'allow' and exists (
    select from @extschema@._private_jobs as jobs
    where jobs.id = _run_schedule.last_job_id
    and (jobs.locked_at is not null or jobs.attempts < jobs.max_attempts)
  ) then
    if schedule.overlap = 'skip' then
      return null;
    end if;
    perform from @extschema@.cancel_jobs(
      array[last_job_id], pg_catalog.format('schedule "%s" has run again', schedule.name)
    );
  end if;
  return (
    select added.id
    from @extschema@.add_job(
      schedule.task,
      payload => (
        schedule.payload::jsonb || pg_catalog.jsonb_build_object(
          '_cron',
          pg_catalog.jsonb_build_object(
            'ts',
            pg_catalog.to_char(at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
            'backfilled', is_late
          )
        )
      )::json,
      queue_name => schedule.queue_name,
      run_at => at,
      max_attempts => schedule.max_attempts,
      job_key => schedule.job_key,
      priority => schedule.priority,
      flags => schedule.flags
    ) as added
  );
end;
$$;

-- Adds the job of a schedule now, beside its runs, and returns its id. Null where its overlap is
-- skip and the last one has not ended.
create function @extschema@.run_schedule_now(
  name text
)
returns bigint
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_schedule @extschema@._private_schedules;
  v_job_id bigint;
begin
  select * into v_schedule
  from @extschema@._private_schedules as schedules
  where schedules.name = run_schedule_now.name and schedules.unscheduled_at is null
  for update;
  if not found then
    perform @extschema@._reject_unknown_schedule(name);
  end if;
  v_job_id := @extschema@._run_schedule(
    v_schedule, v_schedule.last_job_id, pg_catalog.clock_timestamp(), false
  );
  update @extschema@._private_schedules as schedules
  set last_job_id = coalesce(v_job_id, schedules.last_job_id)
  where schedules.name = run_schedule_now.name;
  return v_job_id;
end;
$$;

-- Adds the jobs of the schedules that are due, each run once however many callers there are.
-- Returns the runs, as json objects with name, at, job_id (null where the overlap left it out) and
-- backfilled; and how long it is until the next one is due, null where there is none. A schedule
-- whose job is refused keeps the error, and goes on with its next run.
create function @extschema@.run_schedules(
  out runs json,
  out next_run_in interval
)
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_lock_timeout text;
  v_lock_set text;
  v_lock_started timestamptz;
  v_now timestamptz;
  v_schedule @extschema@._private_schedules;
  v_at timestamptz;
  v_is_late boolean;
  v_job_id bigint;
  v_last_run_at timestamptz;
  v_last_job_id bigint;
  v_error text;
  v_before integer;
  v_runs json[];
begin
  v_lock_timeout := pg_catalog.current_setting('lock_timeout');
  v_lock_started := pg_catalog.clock_timestamp();
  loop
    begin
      -- Assigned, since that is evaluated without a query.
      v_lock_set := pg_catalog.set_config('lock_timeout', '100ms', true);
      v_runs := '{}';
      v_now := pg_catalog.clock_timestamp();
      for v_schedule in
        select schedules.*
        from @extschema@._private_schedules as schedules
        where schedules.next_runs[1] <= v_now
        and not schedules.is_paused
        and schedules.unscheduled_at is null
        order by schedules.name
        for update skip locked
      loop
        v_last_run_at := v_schedule.last_run_at;
        v_last_job_id := v_schedule.last_job_id;
        v_error := null;
        v_before := pg_catalog.cardinality(v_runs);
        begin
          for v_at in
            select due.at
            from @extschema@.next_runs(
              v_schedule.cron, v_schedule.tz, 1000,
              greatest(
                v_schedule.next_runs[1] - interval '1 microsecond',
                v_now - greatest(v_schedule.catch_up, interval '5 minutes')
              )
            ) as due (at)
            where due.at <= v_now
          loop
            v_last_run_at := v_at;
            v_is_late := v_at < pg_catalog.date_trunc('minute', v_now);
            v_job_id := @extschema@._run_schedule(v_schedule, v_last_job_id, v_at, v_is_late);
            v_last_job_id := coalesce(v_job_id, v_last_job_id);
            v_runs := v_runs || pg_catalog.json_build_object(
              'name', v_schedule.name, 'at', v_at, 'job_id', v_job_id, 'backfilled', v_is_late
            );
          end loop;
        exception when others then
          if sqlstate not like 'GWB%' then
            raise;
          end if;
          v_error := sqlerrm;
          v_last_job_id := v_schedule.last_job_id;
          v_runs := v_runs[1:v_before];
        end;
        update @extschema@._private_schedules as schedules
        set
          last_run_at = v_last_run_at,
          last_job_id = v_last_job_id,
          last_error = v_error,
          next_runs = array(
            select * from @extschema@.next_runs(
              v_schedule.cron, v_schedule.tz, 3, greatest(v_now, v_last_run_at)
            )
          )
        where schedules.name = v_schedule.name;
      end loop;
      v_lock_set := pg_catalog.set_config('lock_timeout', v_lock_timeout, true);
      exit;
    exception when lock_not_available then
      perform @extschema@._before_lock_retry(v_lock_timeout, v_lock_started, interval '1 second');
    end;
  end loop;
  runs := pg_catalog.array_to_json(v_runs);
  next_run_in := (
    select greatest(schedules.next_runs[1] - pg_catalog.clock_timestamp(), interval '0')
    from @extschema@._private_schedules as schedules
    where not schedules.is_paused
    and schedules.unscheduled_at is null
    and schedules.next_runs <> '{}'
    order by schedules.next_runs[1]
    limit 1
  );
end;
$$;

-- The version of the installed objects, whichever road they came by.
create function @extschema@.version()
returns text
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select '1.1.0'::text;
$$;

-- The revision of Node's schema that is here, and the highest one that workers of an earlier
-- revision do not run on: what a notification on worker:migrate says is only a hint to look.
create function @extschema@.schema_revision(
  out revision integer,
  out breaking_revision integer
)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  select
    pg_catalog.max(migrations.id),
    pg_catalog.max(migrations.id) filter (where migrations.breaking)
  into revision, breaking_revision
  from @extschema@.migrations;
end;
$$;

-- Gives a role the rights of a level, and takes none away. The owner has every right as it is.
create function @extschema@._add_access(
  grantee name,
  access_level text
)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_schema text;
  v_is_owner boolean;
  v_propagates text := pg_catalog.current_setting('citus.enable_ddl_propagation', true);
begin
  select
    pg_catalog.quote_ident(schemas.nspname),
    types.typowner = pg_catalog.quote_ident(grantee)::pg_catalog.regrole
  into strict v_schema, v_is_owner
  from pg_catalog.pg_type as types
  join pg_catalog.pg_namespace as schemas on schemas.oid = types.typnamespace
  where types.oid = pg_catalog.pg_typeof(null::@extschema@.job_spec);
  if v_is_owner then
    return;
  end if;
  perform pg_catalog.set_config('citus.enable_ddl_propagation', 'off', true)
  where v_propagates = 'on';
  execute pg_catalog.format('grant usage on schema %s to %I', v_schema, grantee);
  perform pg_catalog.set_config('citus.enable_ddl_propagation', v_propagates, true)
  where v_propagates = 'on';
  if access_level in ('enqueue', 'work', 'admin') then
    execute pg_catalog.format(
      'grant execute on function
        %1$s.add_job(text, json, text, timestamptz, integer, text, integer, text[], text), %1$s.add_jobs(%1$s.job_spec[], boolean),
        %1$s.add_jobs_with_modes(%1$s.job_spec[], text[]), %1$s.add_job_to_route(text, text, json, text, timestamptz, integer, text, integer, text[], text),
        %1$s.add_jobs_to_route(text, json), %1$s.version(),
        %1$s.job_names(integer, integer), %1$s.next_runs(text, text, integer, timestamptz),
        %1$s.get_results(bigint[]), %1$s.watch_results(text, integer)
      to %2$I',
      v_schema, grantee
    );
    execute pg_catalog.format(
      'grant usage on type %s.job_spec to %I',
      v_schema, grantee
    );
  end if;
  if access_level in ('work', 'admin') then
    execute pg_catalog.format(
      'grant execute on function
        %1$s.get_jobs(text, integer, text[], text[]), %1$s.get_payload(text, bigint),
        %1$s.schema_revision(), %1$s.finish_jobs(text, bigint[]),
        %1$s.finish_jobs_with_results(text, bigint[], json[], double precision[], text[]), %1$s.fail_jobs(text, json),
        %1$s.return_jobs(text, bigint[], timestamptz), %1$s.release_stale_locks(),
        %1$s.heartbeat(text, text[], json, boolean), %1$s.count_idle_workers(text[]),
        %1$s.writing_transactions(text[]), %1$s.end_worker(text),
        %1$s.return_unknown_jobs(text, bigint[]), %1$s.recover_dead_workers(text),
        %1$s.register_crontabs(text[]), %1$s.add_cron_jobs(timestamptz, json),
        %1$s.run_schedules(), %1$s.review_jobs(text, bigint[]),
        %1$s.return_and_pause(text, bigint, text, timestamptz, text), %1$s.report_progress(text, bigint, real, text),
        %1$s.maintain_history()
      to %2$I',
      v_schema, grantee
    );
    execute pg_catalog.format(
      'grant usage on type %s.claimed_job to %I',
      v_schema, grantee
    );
  end if;
  if access_level in ('admin') then
    execute pg_catalog.format(
      'grant execute on function
        %1$s.remove_job(text), %1$s.complete_jobs(bigint[]),
        %1$s.permanently_fail_jobs(bigint[], text), %1$s.reschedule_jobs(bigint[], timestamptz, integer, integer, integer),
        %1$s.force_unlock_workers(text[]), %1$s.list_jobs(bigint[], text[], text[], text[], text[], bigint, integer),
        %1$s.delete_failed_jobs(timestamptz, integer), %1$s.delete_unused_queues(),
        %1$s.delete_unused_tasks(text[]), %1$s.set_recovery(interval, integer),
        %1$s.unlock_queues(text[]), %1$s.cancel_jobs(bigint[], text),
        %1$s.schedule(text, text, text, text, json, text, integer, integer, text, text[], interval, text), %1$s.unschedule(text),
        %1$s.pause_schedule(text), %1$s.resume_schedule(text),
        %1$s.run_schedule_now(text), %1$s.pause_queue(text, timestamptz, text),
        %1$s.resume_queue(text), %1$s.pause_task(text, timestamptz, text),
        %1$s.resume_task(text), %1$s.pause_all(timestamptz, text),
        %1$s.resume_all(), %1$s.set_limit(text, text, integer, integer, interval, integer),
        %1$s.remove_limit(text, text), %1$s.keep_history(text, interval, boolean, boolean, integer),
        %1$s.stop_history(text), %1$s.keep_failed_jobs(interval),
        %1$s.on_dead_letter(text, text), %1$s.discard_jobs(bigint[], text),
        %1$s.get_job(bigint), %1$s.set_payload_schema(text, json, text),
        %1$s.find_unfit_jobs(text, json, bigint, integer)
      to %2$I',
      v_schema, grantee
    );
  end if;
  if access_level in ('admin', 'observe') then
    execute pg_catalog.format(
      'grant select on %1$s.jobs, %1$s.workers, %1$s.ended_workers, %1$s.queues, %1$s.crontabs, %1$s.pauses, %1$s.limits, %1$s.limit_states, %1$s.schedules, %1$s.histories, %1$s.job_history, %1$s.failed_jobs, %1$s.job_progress, %1$s.dead_letters, %1$s.payload_schemas, %1$s.job_sample, %1$s.next_jobs to %2$I',
      v_schema, grantee
    );
  end if;
end;
$$;

-- Gives a role one level of access, and no right on any table:
--   enqueue  add jobs
--   work     also take, finish, fail and return them, and be a worker
--   admin    also remove, complete, fail, reschedule and unlock them, and read the views
--   observe  only read the views
-- Whatever the role had here before is taken away first. Only the owner of the objects can call it.
create function @extschema@.grant_access(
  grantee name,
  access_level text
)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if access_level is null or access_level not in ('enqueue', 'work', 'admin', 'observe') then
    raise exception 'Access level is unknown: "%"', access_level
      using errcode = 'GWBAL', hint = 'Use enqueue, work, admin or observe.';
  end if;
  perform @extschema@.revoke_access(grantee);
  perform @extschema@._add_access(grantee, access_level);
end;
$$;

-- Takes away the rights that a role has on internal functions, which no level gives.
create function @extschema@._revoke_internal(
  in_schema text,
  grantee name
)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  execute pg_catalog.format(
    'revoke all on function
      %1$s._reject_job(text, text, integer, text, integer, text[]),
      %1$s._reject_mode(text),
      %1$s._merge_payloads(json, json),
      %1$s._ensure_names(text[], text[]),
      %1$s._check_route(text),
      %1$s._reject_old_snapshot(),
      %1$s._block_enqueues(),
      %1$s._upsert_job(bigint, text, json, text, timestamptz, integer, text, integer, jsonb, text),
      %1$s._prepare_specs(%1$s.job_spec[]),
      %1$s._upsert_jobs(%1$s.job_spec[], bigint[], text[], bigint[], %1$s._private_jobs[]),
      %1$s._visible_rows(%1$s._private_jobs[], %1$s.job_spec[], text[]),
      %1$s._keys_are_new(%1$s.job_spec[]),
      %1$s._add_keyed_jobs(%1$s.job_spec[], text[]),
      %1$s._before_lock_retry(text, timestamptz, interval),
      %1$s._without_content(%1$s._private_jobs, json, text),
      %1$s._reject_fetch(text, integer),
      %1$s._refuse_ended_worker(text),
      %1$s._claim_first_jobs(text, integer, integer[], text[]),
      %1$s._reject_control(text, text),
      %1$s._notify_workers(),
      %1$s._pause(text, text, timestamptz, text),
      %1$s._resume(text, text),
      %1$s._is_paused(text, text),
      %1$s._forget_controls(),
      %1$s._note_running_jobs(text, text),
      %1$s._find_controls(integer[]),
      %1$s._wait_for_controls(),
      %1$s._wake_limited(bigint[]),
      %1$s._pick_from_window(smallint, timestamptz, bigint, integer, integer, integer[], text[], boolean, boolean, integer[]),
      %1$s._find_partitions(integer[], integer[], boolean, integer, boolean, boolean),
      %1$s._pick_from_partitions(integer, integer[], text[], bigint[], integer[], boolean, boolean),
      %1$s._noted_jobs(bigint[], bigint[], boolean, integer),
      %1$s._next_start(timestamptz, bigint, integer, integer),
      %1$s._lock_limits(integer[], integer[], boolean, boolean),
      %1$s._count_within_limits(text[], integer[], integer[], bigint[], tid[], integer[], integer[]),
      %1$s._claim_within_limits(text, bigint[], tid[], integer[], integer[], boolean, integer[], text[]),
      %1$s._claim_jobs(text, tid[], integer[], integer[], text[]),
      %1$s._skip_ahead_cursors(text),
      %1$s._skip_to_picked(smallint[], timestamptz[], bigint[], bigint[], timestamptz),
      %1$s._remember_cursors(text, boolean, boolean, timestamptz, smallint[], timestamptz[], bigint[]),
      %1$s._claim_in_order(text, integer, integer[], text[], text, boolean, boolean, boolean),
      %1$s._return_held_jobs(text, bigint[]),
      %1$s._end_workers(text[]),
      %1$s._settled_ended_workers(),
      %1$s._recover_locks(text[]),
      %1$s._unlock_queues_of(text[], boolean),
      %1$s._next_due(),
      %1$s._cron_numbers(text, text, integer, integer, text[]),
      %1$s._reject_schedule(text, json, interval, text),
      %1$s._reject_unknown_schedule(text),
      %1$s._run_schedule(%1$s._private_schedules, bigint, timestamptz, boolean),
      %1$s._runs_of_day(date, integer[], integer[], boolean, text),
      %1$s._any_worker_idle(),
      %1$s._note_unreported_claim(),
      %1$s._schema_problem(jsonb, jsonb, jsonb, text, integer),
      %1$s._is_of_type(jsonb, jsonb),
      %1$s._number_problem(jsonb, numeric),
      %1$s._string_problem(jsonb, text),
      %1$s._has_format(text, text),
      %1$s._object_problem(jsonb, jsonb, jsonb, text, integer),
      %1$s._pointer_part(text),
      %1$s._array_problem(jsonb, jsonb, jsonb, text, integer),
      %1$s._combined_problem(jsonb, jsonb, jsonb, text, integer),
      %1$s._schema_target(jsonb, text),
      %1$s._check_schema(jsonb, jsonb, text),
      %1$s._check_keyword(jsonb, text, jsonb, text),
      %1$s._check_limit(text, jsonb, text),
      %1$s._quick_check(jsonb, jsonb, integer),
      %1$s._quick_scalars(jsonb),
      %1$s._of_kind(jsonb, text, text),
      %1$s._quick_length(integer),
      %1$s._quick_object(jsonb, jsonb, integer),
      %1$s._payload_problem(jsonb, json),
      %1$s._without_added(jsonb),
      %1$s._check_payload(text, json),
      %1$s._history_time(),
      %1$s._add_history_partitions(timestamptz),
      %1$s._drop_history_partitions(),
      %1$s._delete_old_history(),
      %1$s._note_crashes(text[]),
      %1$s._notify_waiters(bigint[]),
      %1$s._finish_and_record(text, bigint[], json[], double precision[], text[], timestamptz),
      %1$s._jobs_with_history(text, bigint[]),
      %1$s._record_removed(%1$s._private_jobs[], text, text),
      %1$s._note_failures(text, json),
      %1$s._note_failed_job(),
      %1$s._record_failed(%1$s._private_jobs, text, %1$s._private_attempts, text, boolean, integer),
      %1$s._add_dead_letter(%1$s._private_jobs),
      %1$s._revoke_internal(text, name),
      %1$s._add_access(name, text),
      %1$s.grant_access(name, text),
      %1$s.revoke_access(name)
    from %2$I',
    in_schema, grantee
  );
end;
$$;

-- Takes away every right that a role has here. Only the owner of the objects can call it. Named one
-- by one, since the schema may hold other objects as well.
create function @extschema@.revoke_access(
  grantee name
)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_schema text;
  v_is_owner boolean;
  v_propagates text := pg_catalog.current_setting('citus.enable_ddl_propagation', true);
begin
  if not exists (select from pg_catalog.pg_roles as roles where roles.rolname = grantee) then
    raise exception 'Role does not exist: "%"', grantee
      using errcode = 'GWBRO', hint = 'Create it first, or mend the spelling.';
  end if;
  select
    pg_catalog.quote_ident(schemas.nspname),
    types.typowner = pg_catalog.quote_ident(grantee)::pg_catalog.regrole
  into strict v_schema, v_is_owner
  from pg_catalog.pg_type as types
  join pg_catalog.pg_namespace as schemas on schemas.oid = types.typnamespace
  where types.oid = pg_catalog.pg_typeof(null::@extschema@.job_spec);
  if v_is_owner then
    return;
  end if;
  execute pg_catalog.format(
    'revoke all on function
      %1$s.add_job(text, json, text, timestamptz, integer, text, integer, text[], text),
      %1$s.add_jobs(%1$s.job_spec[], boolean),
      %1$s.add_jobs_with_modes(%1$s.job_spec[], text[]),
      %1$s.add_job_to_route(text, text, json, text, timestamptz, integer, text, integer, text[], text),
      %1$s.add_jobs_to_route(text, json),
      %1$s.version(),
      %1$s.job_names(integer, integer),
      %1$s.next_runs(text, text, integer, timestamptz),
      %1$s.get_results(bigint[]),
      %1$s.watch_results(text, integer),
      %1$s.get_jobs(text, integer, text[], text[]),
      %1$s.get_payload(text, bigint),
      %1$s.schema_revision(),
      %1$s.finish_jobs(text, bigint[]),
      %1$s.finish_jobs_with_results(text, bigint[], json[], double precision[], text[]),
      %1$s.fail_jobs(text, json),
      %1$s.return_jobs(text, bigint[], timestamptz),
      %1$s.release_stale_locks(),
      %1$s.heartbeat(text, text[], json, boolean),
      %1$s.count_idle_workers(text[]),
      %1$s.writing_transactions(text[]),
      %1$s.end_worker(text),
      %1$s.return_unknown_jobs(text, bigint[]),
      %1$s.recover_dead_workers(text),
      %1$s.register_crontabs(text[]),
      %1$s.add_cron_jobs(timestamptz, json),
      %1$s.run_schedules(),
      %1$s.review_jobs(text, bigint[]),
      %1$s.return_and_pause(text, bigint, text, timestamptz, text),
      %1$s.report_progress(text, bigint, real, text),
      %1$s.maintain_history(),
      %1$s.remove_job(text),
      %1$s.complete_jobs(bigint[]),
      %1$s.permanently_fail_jobs(bigint[], text),
      %1$s.reschedule_jobs(bigint[], timestamptz, integer, integer, integer),
      %1$s.force_unlock_workers(text[]),
      %1$s.list_jobs(bigint[], text[], text[], text[], text[], bigint, integer),
      %1$s.delete_failed_jobs(timestamptz, integer),
      %1$s.delete_unused_queues(),
      %1$s.delete_unused_tasks(text[]),
      %1$s.set_recovery(interval, integer),
      %1$s.unlock_queues(text[]),
      %1$s.cancel_jobs(bigint[], text),
      %1$s.schedule(text, text, text, text, json, text, integer, integer, text, text[], interval, text),
      %1$s.unschedule(text),
      %1$s.pause_schedule(text),
      %1$s.resume_schedule(text),
      %1$s.run_schedule_now(text),
      %1$s.pause_queue(text, timestamptz, text),
      %1$s.resume_queue(text),
      %1$s.pause_task(text, timestamptz, text),
      %1$s.resume_task(text),
      %1$s.pause_all(timestamptz, text),
      %1$s.resume_all(),
      %1$s.set_limit(text, text, integer, integer, interval, integer),
      %1$s.remove_limit(text, text),
      %1$s.keep_history(text, interval, boolean, boolean, integer),
      %1$s.stop_history(text),
      %1$s.keep_failed_jobs(interval),
      %1$s.on_dead_letter(text, text),
      %1$s.discard_jobs(bigint[], text),
      %1$s.get_job(bigint),
      %1$s.set_payload_schema(text, json, text),
      %1$s.find_unfit_jobs(text, json, bigint, integer)
    from %2$I',
    v_schema, grantee
  );
  perform @extschema@._revoke_internal(v_schema, grantee);
  execute pg_catalog.format(
    'revoke all on table %1$s._private_tasks, %1$s._private_job_queues, %1$s._private_jobs, %1$s._private_known_crontabs, %1$s._private_heartbeats, %1$s._private_ended_workers, %1$s._private_crashes, %1$s._private_settings, %1$s._private_pauses, %1$s._private_limits, %1$s._private_limit_states, %1$s._private_cancellations, %1$s._private_schedules, %1$s._private_histories, %1$s._private_history, %1$s._private_history_partitions, %1$s._private_attempts, %1$s._private_progress, %1$s._private_result_waits, %1$s._private_dead_letters, %1$s._private_payload_schemas, %1$s._private_unreported_claims, %1$s.migrations, %1$s.jobs, %1$s.workers, %1$s.ended_workers, %1$s.queues, %1$s.crontabs, %1$s.pauses, %1$s.limits, %1$s.limit_states, %1$s.schedules, %1$s.histories, %1$s.job_history, %1$s.failed_jobs, %1$s.job_progress, %1$s.dead_letters, %1$s.payload_schemas, %1$s.job_sample, %1$s.next_jobs, %1$s._private_control_states from %2$I',
    v_schema, grantee
  );
  execute pg_catalog.format(
    'revoke all on sequence %1$s.tasks_id_seq, %1$s.job_queues_id_seq, %1$s.jobs_id_seq1, %1$s.names_deleted_seq from %2$I',
    v_schema, grantee
  );
  execute pg_catalog.format(
    'revoke all on type %1$s.job_spec, %1$s.claimed_job from %2$I',
    v_schema, grantee
  );
  if v_schema <> 'public' then
    perform pg_catalog.set_config('citus.enable_ddl_propagation', 'off', true)
    where v_propagates = 'on';
    execute pg_catalog.format('revoke all on schema %s from %I', v_schema, grantee);
    perform pg_catalog.set_config('citus.enable_ddl_propagation', v_propagates, true)
    where v_propagates = 'on';
  end if;
end;
$$;

-- Nothing is for everybody.
revoke all on function @extschema@.add_job(text, json, text, timestamptz, integer, text, integer, text[], text) from public;
revoke all on function @extschema@.add_jobs(@extschema@.job_spec[], boolean) from public;
revoke all on function @extschema@.add_jobs_with_modes(@extschema@.job_spec[], text[]) from public;
revoke all on function @extschema@.add_job_to_route(text, text, json, text, timestamptz, integer, text, integer, text[], text) from public;
revoke all on function @extschema@.add_jobs_to_route(text, json) from public;
revoke all on function @extschema@.version() from public;
revoke all on function @extschema@.job_names(integer, integer) from public;
revoke all on function @extschema@.next_runs(text, text, integer, timestamptz) from public;
revoke all on function @extschema@.get_results(bigint[]) from public;
revoke all on function @extschema@.watch_results(text, integer) from public;
revoke all on function @extschema@.get_jobs(text, integer, text[], text[]) from public;
revoke all on function @extschema@.get_payload(text, bigint) from public;
revoke all on function @extschema@.schema_revision() from public;
revoke all on function @extschema@.finish_jobs(text, bigint[]) from public;
revoke all on function @extschema@.finish_jobs_with_results(text, bigint[], json[], double precision[], text[]) from public;
revoke all on function @extschema@.fail_jobs(text, json) from public;
revoke all on function @extschema@.return_jobs(text, bigint[], timestamptz) from public;
revoke all on function @extschema@.release_stale_locks() from public;
revoke all on function @extschema@.heartbeat(text, text[], json, boolean) from public;
revoke all on function @extschema@.count_idle_workers(text[]) from public;
revoke all on function @extschema@.writing_transactions(text[]) from public;
revoke all on function @extschema@.end_worker(text) from public;
revoke all on function @extschema@.return_unknown_jobs(text, bigint[]) from public;
revoke all on function @extschema@.recover_dead_workers(text) from public;
revoke all on function @extschema@.register_crontabs(text[]) from public;
revoke all on function @extschema@.add_cron_jobs(timestamptz, json) from public;
revoke all on function @extschema@.run_schedules() from public;
revoke all on function @extschema@.review_jobs(text, bigint[]) from public;
revoke all on function @extschema@.return_and_pause(text, bigint, text, timestamptz, text) from public;
revoke all on function @extschema@.report_progress(text, bigint, real, text) from public;
revoke all on function @extschema@.maintain_history() from public;
revoke all on function @extschema@.remove_job(text) from public;
revoke all on function @extschema@.complete_jobs(bigint[]) from public;
revoke all on function @extschema@.permanently_fail_jobs(bigint[], text) from public;
revoke all on function @extschema@.reschedule_jobs(bigint[], timestamptz, integer, integer, integer) from public;
revoke all on function @extschema@.force_unlock_workers(text[]) from public;
revoke all on function @extschema@.list_jobs(bigint[], text[], text[], text[], text[], bigint, integer) from public;
revoke all on function @extschema@.delete_failed_jobs(timestamptz, integer) from public;
revoke all on function @extschema@.delete_unused_queues() from public;
revoke all on function @extschema@.delete_unused_tasks(text[]) from public;
revoke all on function @extschema@.set_recovery(interval, integer) from public;
revoke all on function @extschema@.unlock_queues(text[]) from public;
revoke all on function @extschema@.cancel_jobs(bigint[], text) from public;
revoke all on function @extschema@.schedule(text, text, text, text, json, text, integer, integer, text, text[], interval, text) from public;
revoke all on function @extschema@.unschedule(text) from public;
revoke all on function @extschema@.pause_schedule(text) from public;
revoke all on function @extschema@.resume_schedule(text) from public;
revoke all on function @extschema@.run_schedule_now(text) from public;
revoke all on function @extschema@.pause_queue(text, timestamptz, text) from public;
revoke all on function @extschema@.resume_queue(text) from public;
revoke all on function @extschema@.pause_task(text, timestamptz, text) from public;
revoke all on function @extschema@.resume_task(text) from public;
revoke all on function @extschema@.pause_all(timestamptz, text) from public;
revoke all on function @extschema@.resume_all() from public;
revoke all on function @extschema@.set_limit(text, text, integer, integer, interval, integer) from public;
revoke all on function @extschema@.remove_limit(text, text) from public;
revoke all on function @extschema@.keep_history(text, interval, boolean, boolean, integer) from public;
revoke all on function @extschema@.stop_history(text) from public;
revoke all on function @extschema@.keep_failed_jobs(interval) from public;
revoke all on function @extschema@.on_dead_letter(text, text) from public;
revoke all on function @extschema@.discard_jobs(bigint[], text) from public;
revoke all on function @extschema@.get_job(bigint) from public;
revoke all on function @extschema@.set_payload_schema(text, json, text) from public;
revoke all on function @extschema@.find_unfit_jobs(text, json, bigint, integer) from public;
revoke all on function @extschema@._reject_job(text, text, integer, text, integer, text[]) from public;
revoke all on function @extschema@._reject_mode(text) from public;
revoke all on function @extschema@._merge_payloads(json, json) from public;
revoke all on function @extschema@._ensure_names(text[], text[]) from public;
revoke all on function @extschema@._check_route(text) from public;
revoke all on function @extschema@._reject_old_snapshot() from public;
revoke all on function @extschema@._block_enqueues() from public;
revoke all on function @extschema@._upsert_job(bigint, text, json, text, timestamptz, integer, text, integer, jsonb, text) from public;
revoke all on function @extschema@._prepare_specs(@extschema@.job_spec[]) from public;
revoke all on function @extschema@._upsert_jobs(@extschema@.job_spec[], bigint[], text[], bigint[], @extschema@._private_jobs[]) from public;
revoke all on function @extschema@._visible_rows(@extschema@._private_jobs[], @extschema@.job_spec[], text[]) from public;
revoke all on function @extschema@._keys_are_new(@extschema@.job_spec[]) from public;
revoke all on function @extschema@._add_keyed_jobs(@extschema@.job_spec[], text[]) from public;
revoke all on function @extschema@._before_lock_retry(text, timestamptz, interval) from public;
revoke all on function @extschema@._without_content(@extschema@._private_jobs, json, text) from public;
revoke all on function @extschema@._reject_fetch(text, integer) from public;
revoke all on function @extschema@._refuse_ended_worker(text) from public;
revoke all on function @extschema@._claim_first_jobs(text, integer, integer[], text[]) from public;
revoke all on function @extschema@._reject_control(text, text) from public;
revoke all on function @extschema@._notify_workers() from public;
revoke all on function @extschema@._pause(text, text, timestamptz, text) from public;
revoke all on function @extschema@._resume(text, text) from public;
revoke all on function @extschema@._is_paused(text, text) from public;
revoke all on function @extschema@._forget_controls() from public;
revoke all on function @extschema@._note_running_jobs(text, text) from public;
revoke all on function @extschema@._find_controls(integer[]) from public;
revoke all on function @extschema@._wait_for_controls() from public;
revoke all on function @extschema@._wake_limited(bigint[]) from public;
revoke all on function @extschema@._pick_from_window(smallint, timestamptz, bigint, integer, integer, integer[], text[], boolean, boolean, integer[]) from public;
revoke all on function @extschema@._find_partitions(integer[], integer[], boolean, integer, boolean, boolean) from public;
revoke all on function @extschema@._pick_from_partitions(integer, integer[], text[], bigint[], integer[], boolean, boolean) from public;
revoke all on function @extschema@._noted_jobs(bigint[], bigint[], boolean, integer) from public;
revoke all on function @extschema@._next_start(timestamptz, bigint, integer, integer) from public;
revoke all on function @extschema@._lock_limits(integer[], integer[], boolean, boolean) from public;
revoke all on function @extschema@._count_within_limits(text[], integer[], integer[], bigint[], tid[], integer[], integer[]) from public;
revoke all on function @extschema@._claim_within_limits(text, bigint[], tid[], integer[], integer[], boolean, integer[], text[]) from public;
revoke all on function @extschema@._claim_jobs(text, tid[], integer[], integer[], text[]) from public;
revoke all on function @extschema@._skip_ahead_cursors(text) from public;
revoke all on function @extschema@._skip_to_picked(smallint[], timestamptz[], bigint[], bigint[], timestamptz) from public;
revoke all on function @extschema@._remember_cursors(text, boolean, boolean, timestamptz, smallint[], timestamptz[], bigint[]) from public;
revoke all on function @extschema@._claim_in_order(text, integer, integer[], text[], text, boolean, boolean, boolean) from public;
revoke all on function @extschema@._return_held_jobs(text, bigint[]) from public;
revoke all on function @extschema@._end_workers(text[]) from public;
revoke all on function @extschema@._settled_ended_workers() from public;
revoke all on function @extschema@._recover_locks(text[]) from public;
revoke all on function @extschema@._unlock_queues_of(text[], boolean) from public;
revoke all on function @extschema@._next_due() from public;
revoke all on function @extschema@._cron_numbers(text, text, integer, integer, text[]) from public;
revoke all on function @extschema@._reject_schedule(text, json, interval, text) from public;
revoke all on function @extschema@._reject_unknown_schedule(text) from public;
revoke all on function @extschema@._run_schedule(@extschema@._private_schedules, bigint, timestamptz, boolean) from public;
revoke all on function @extschema@._runs_of_day(date, integer[], integer[], boolean, text) from public;
revoke all on function @extschema@._any_worker_idle() from public;
revoke all on function @extschema@._note_unreported_claim() from public;
revoke all on function @extschema@._schema_problem(jsonb, jsonb, jsonb, text, integer) from public;
revoke all on function @extschema@._is_of_type(jsonb, jsonb) from public;
revoke all on function @extschema@._number_problem(jsonb, numeric) from public;
revoke all on function @extschema@._string_problem(jsonb, text) from public;
revoke all on function @extschema@._has_format(text, text) from public;
revoke all on function @extschema@._object_problem(jsonb, jsonb, jsonb, text, integer) from public;
revoke all on function @extschema@._pointer_part(text) from public;
revoke all on function @extschema@._array_problem(jsonb, jsonb, jsonb, text, integer) from public;
revoke all on function @extschema@._combined_problem(jsonb, jsonb, jsonb, text, integer) from public;
revoke all on function @extschema@._schema_target(jsonb, text) from public;
revoke all on function @extschema@._check_schema(jsonb, jsonb, text) from public;
revoke all on function @extschema@._check_keyword(jsonb, text, jsonb, text) from public;
revoke all on function @extschema@._check_limit(text, jsonb, text) from public;
revoke all on function @extschema@._quick_check(jsonb, jsonb, integer) from public;
revoke all on function @extschema@._quick_scalars(jsonb) from public;
revoke all on function @extschema@._of_kind(jsonb, text, text) from public;
revoke all on function @extschema@._quick_length(integer) from public;
revoke all on function @extschema@._quick_object(jsonb, jsonb, integer) from public;
revoke all on function @extschema@._payload_problem(jsonb, json) from public;
revoke all on function @extschema@._without_added(jsonb) from public;
revoke all on function @extschema@._check_payload(text, json) from public;
revoke all on function @extschema@._history_time() from public;
revoke all on function @extschema@._add_history_partitions(timestamptz) from public;
revoke all on function @extschema@._drop_history_partitions() from public;
revoke all on function @extschema@._delete_old_history() from public;
revoke all on function @extschema@._note_crashes(text[]) from public;
revoke all on function @extschema@._notify_waiters(bigint[]) from public;
revoke all on function @extschema@._finish_and_record(text, bigint[], json[], double precision[], text[], timestamptz) from public;
revoke all on function @extschema@._jobs_with_history(text, bigint[]) from public;
revoke all on function @extschema@._record_removed(@extschema@._private_jobs[], text, text) from public;
revoke all on function @extschema@._note_failures(text, json) from public;
revoke all on function @extschema@._note_failed_job() from public;
revoke all on function @extschema@._record_failed(@extschema@._private_jobs, text, @extschema@._private_attempts, text, boolean, integer) from public;
revoke all on function @extschema@._add_dead_letter(@extschema@._private_jobs) from public;
revoke all on function @extschema@._revoke_internal(text, name) from public;
revoke all on function @extschema@._add_access(name, text) from public;
revoke all on function @extschema@.grant_access(name, text) from public;
revoke all on function @extschema@.revoke_access(name) from public;
revoke all on type @extschema@.job_spec from public;
revoke all on type @extschema@.claimed_job from public;

-- Default privileges of the database may have given rights on these new objects to other roles:
-- they are taken away, since a level of access is all that a role can have here.
do $$
declare
  r record;
begin
  for r in
    select distinct objects.kind, objects.address,
      coalesce(pg_catalog.quote_ident(roles.rolname), 'public') as grantee
    from (
      select 'function', functions.oid::pg_catalog.regprocedure::text, functions.proacl
      from pg_catalog.pg_proc as functions
      where functions.pronamespace = '@extschema@'::pg_catalog.regnamespace
      and functions.proname in (
        'add_job',
        'add_jobs',
        'add_jobs_with_modes',
        'add_job_to_route',
        'add_jobs_to_route',
        'version',
        'job_names',
        'next_runs',
        'get_results',
        'watch_results',
        'get_jobs',
        'get_payload',
        'schema_revision',
        'finish_jobs',
        'finish_jobs_with_results',
        'fail_jobs',
        'return_jobs',
        'release_stale_locks',
        'heartbeat',
        'count_idle_workers',
        'writing_transactions',
        'end_worker',
        'return_unknown_jobs',
        'recover_dead_workers',
        'register_crontabs',
        'add_cron_jobs',
        'run_schedules',
        'review_jobs',
        'return_and_pause',
        'report_progress',
        'maintain_history',
        'remove_job',
        'complete_jobs',
        'permanently_fail_jobs',
        'reschedule_jobs',
        'force_unlock_workers',
        'list_jobs',
        'delete_failed_jobs',
        'delete_unused_queues',
        'delete_unused_tasks',
        'set_recovery',
        'unlock_queues',
        'cancel_jobs',
        'schedule',
        'unschedule',
        'pause_schedule',
        'resume_schedule',
        'run_schedule_now',
        'pause_queue',
        'resume_queue',
        'pause_task',
        'resume_task',
        'pause_all',
        'resume_all',
        'set_limit',
        'remove_limit',
        'keep_history',
        'stop_history',
        'keep_failed_jobs',
        'on_dead_letter',
        'discard_jobs',
        'get_job',
        'set_payload_schema',
        'find_unfit_jobs',
        '_reject_job',
        '_reject_mode',
        '_merge_payloads',
        '_ensure_names',
        '_check_route',
        '_reject_old_snapshot',
        '_block_enqueues',
        '_upsert_job',
        '_prepare_specs',
        '_upsert_jobs',
        '_visible_rows',
        '_keys_are_new',
        '_add_keyed_jobs',
        '_before_lock_retry',
        '_without_content',
        '_reject_fetch',
        '_refuse_ended_worker',
        '_claim_first_jobs',
        '_reject_control',
        '_notify_workers',
        '_pause',
        '_resume',
        '_is_paused',
        '_forget_controls',
        '_note_running_jobs',
        '_find_controls',
        '_wait_for_controls',
        '_wake_limited',
        '_pick_from_window',
        '_find_partitions',
        '_pick_from_partitions',
        '_noted_jobs',
        '_next_start',
        '_lock_limits',
        '_count_within_limits',
        '_claim_within_limits',
        '_claim_jobs',
        '_skip_ahead_cursors',
        '_skip_to_picked',
        '_remember_cursors',
        '_claim_in_order',
        '_return_held_jobs',
        '_end_workers',
        '_settled_ended_workers',
        '_recover_locks',
        '_unlock_queues_of',
        '_next_due',
        '_cron_numbers',
        '_reject_schedule',
        '_reject_unknown_schedule',
        '_run_schedule',
        '_runs_of_day',
        '_any_worker_idle',
        '_note_unreported_claim',
        '_schema_problem',
        '_is_of_type',
        '_number_problem',
        '_string_problem',
        '_has_format',
        '_object_problem',
        '_pointer_part',
        '_array_problem',
        '_combined_problem',
        '_schema_target',
        '_check_schema',
        '_check_keyword',
        '_check_limit',
        '_quick_check',
        '_quick_scalars',
        '_of_kind',
        '_quick_length',
        '_quick_object',
        '_payload_problem',
        '_without_added',
        '_check_payload',
        '_history_time',
        '_add_history_partitions',
        '_drop_history_partitions',
        '_delete_old_history',
        '_note_crashes',
        '_notify_waiters',
        '_finish_and_record',
        '_jobs_with_history',
        '_record_removed',
        '_note_failures',
        '_note_failed_job',
        '_record_failed',
        '_add_dead_letter',
        '_revoke_internal',
        '_add_access',
        'grant_access',
        'revoke_access'
      )
      union all
      select
        case relations.relkind when 'S' then 'sequence' else 'table' end,
        relations.oid::pg_catalog.regclass::text, relations.relacl
      from pg_catalog.pg_class as relations
      where relations.relnamespace = '@extschema@'::pg_catalog.regnamespace
      and relations.relname in (
        '_private_tasks',
        '_private_job_queues',
        '_private_jobs',
        '_private_known_crontabs',
        '_private_heartbeats',
        '_private_ended_workers',
        '_private_crashes',
        '_private_settings',
        '_private_pauses',
        '_private_limits',
        '_private_limit_states',
        '_private_cancellations',
        '_private_schedules',
        '_private_histories',
        '_private_history',
        '_private_history_partitions',
        '_private_attempts',
        '_private_progress',
        '_private_result_waits',
        '_private_dead_letters',
        '_private_payload_schemas',
        '_private_unreported_claims',
        'migrations',
        'jobs',
        'workers',
        'ended_workers',
        'queues',
        'crontabs',
        'pauses',
        'limits',
        'limit_states',
        'schedules',
        'histories',
        'job_history',
        'failed_jobs',
        'job_progress',
        'dead_letters',
        'payload_schemas',
        'job_sample',
        'next_jobs',
        '_private_control_states',
        'tasks_id_seq',
        'job_queues_id_seq',
        'jobs_id_seq1',
        'names_deleted_seq'
      )
      union all
      select 'type', types.oid::pg_catalog.regtype::text, types.typacl
      from pg_catalog.pg_type as types
      where types.typnamespace = '@extschema@'::pg_catalog.regnamespace
      and types.typname in (
        'job_spec',
        'claimed_job'
      )
    ) as objects (kind, address, acl)
    cross join lateral pg_catalog.aclexplode(objects.acl) as rights
    left join pg_catalog.pg_roles as roles on roles.oid = rights.grantee
    where rights.grantee <> current_user::pg_catalog.regrole
  loop
    execute pg_catalog.format(
      'revoke all on %s %s from %s cascade', r.kind, r.address, r.grantee
    );
  end loop;
end;
$$;

-- What \d+ and \df+ say.
comment on table @extschema@._private_tasks is 'Internal: the name of each task, once.';
comment on column @extschema@._private_tasks.id is 'What jobs point to.';
comment on column @extschema@._private_tasks.identifier is 'Name of the task, at most 128 characters.';
comment on table @extschema@._private_job_queues is 'Internal: the named queues. A row is locked while a job of its queue is in flight.';
comment on column @extschema@._private_job_queues.id is 'What jobs point to.';
comment on column @extschema@._private_job_queues.queue_name is 'Name of the queue, at most 128 characters.';
comment on column @extschema@._private_job_queues.locked_at is 'When the job in flight was claimed, or its lease last renewed; null if there is none.';
comment on column @extschema@._private_job_queues.locked_by is 'Worker that claimed the job in flight.';
comment on column @extschema@._private_job_queues.is_available is 'Whether a job of the queue may be claimed.';
comment on table @extschema@._private_jobs is 'Internal: one row per job that is waiting, running or permanently failed. Read the view jobs.';
comment on column @extschema@._private_jobs.id is 'Identity of the job.';
comment on column @extschema@._private_jobs.job_queue_id is 'Queue, whose jobs run one at a time; null if none.';
comment on column @extschema@._private_jobs.task_id is 'Task to run.';
comment on column @extschema@._private_jobs.payload is 'Argument of the task; an array makes a batch job.';
comment on column @extschema@._private_jobs.priority is 'Lower numbers run first.';
comment on column @extschema@._private_jobs.run_at is 'The job does not run before this time.';
comment on column @extschema@._private_jobs.attempts is 'How many times the job has been claimed.';
comment on column @extschema@._private_jobs.max_attempts is 'The job permanently fails after this many attempts.';
comment on column @extschema@._private_jobs.last_error is 'Message of the last failure.';
comment on column @extschema@._private_jobs.created_at is 'When the job was added.';
comment on column @extschema@._private_jobs.updated_at is 'When the job was last changed, other than by being claimed.';
comment on column @extschema@._private_jobs.key is 'Job key: at most one job has a given key.';
comment on column @extschema@._private_jobs.locked_at is 'When a worker claimed the job, or last renewed its lease; null if the job is not running.';
comment on column @extschema@._private_jobs.locked_by is 'Worker (in Node: pool of workers) that claimed the job.';
comment on column @extschema@._private_jobs.revision is 'How many times add_job was applied to the job again.';
comment on column @extschema@._private_jobs.flags is 'Object with a true member per flag; workers can skip jobs with a flag.';
comment on column @extschema@._private_jobs.is_available is 'Whether the job may be claimed once it is due.';
comment on table @extschema@._private_known_crontabs is 'Internal: the recurring jobs and when each was last added.';
comment on column @extschema@._private_known_crontabs.identifier is 'Name of the recurring job.';
comment on column @extschema@._private_known_crontabs.known_since is 'When the recurring job was registered; earlier ticks are not added.';
comment on column @extschema@._private_known_crontabs.last_execution is 'The last time the job was added for.';
comment on table @extschema@._private_heartbeats is 'Internal: the workers that send heartbeats. Read the view workers.';
comment on column @extschema@._private_heartbeats.worker_id is 'The id under which the worker claims jobs.';
comment on column @extschema@._private_heartbeats.started_at is 'When the worker sent its first heartbeat.';
comment on column @extschema@._private_heartbeats.heartbeat_at is 'When the worker sent its last heartbeat.';
comment on column @extschema@._private_heartbeats.alive_since is 'Since when the worker has sent heartbeats without a gap.';
comment on column @extschema@._private_heartbeats.refreshed_at is 'When the locks of the worker were last renewed.';
comment on column @extschema@._private_heartbeats.task_identifiers is 'Tasks that the worker runs; null if all, or if unknown.';
comment on column @extschema@._private_heartbeats.details is 'Other information from the worker.';
comment on column @extschema@._private_heartbeats.is_busy is 'Whether it polls all the time and need not be notified.';
comment on table @extschema@._private_ended_workers is 'Internal: ids of workers that ended or were presumed dead within the last day. Read the view ended_workers.';
comment on column @extschema@._private_ended_workers.worker_id is 'An id that gets no more jobs.';
comment on column @extschema@._private_ended_workers.ended_at is 'When the worker ended or was presumed dead.';
comment on column @extschema@._private_ended_workers.open_transactions is 'Transactions that may still lock jobs under this id; empty if not listed yet, null if there are none.';
comment on table @extschema@._private_crashes is 'Internal: jobs whose worker died while it ran them.';
comment on column @extschema@._private_crashes.job_id is 'The job.';
comment on column @extschema@._private_crashes.crashes is 'How many times.';
comment on column @extschema@._private_crashes.crashed_at is 'When it last happened.';
comment on table @extschema@._private_settings is 'Internal: the values of set_recovery and keep_failed_jobs; no row means the defaults.';
comment on column @extschema@._private_settings.id is 'Always true, so that there is at most one row.';
comment on column @extschema@._private_settings.dead_after is 'A worker that is silent for longer is presumed dead.';
comment on column @extschema@._private_settings.max_crashes is 'How many times a job gets its attempt back when its worker dies.';
comment on column @extschema@._private_settings.keep_failed is 'How long permanently failed jobs are kept; null: for good.';
comment on column @extschema@._private_settings.failed_deleted_at is 'When such jobs were last deleted.';
comment on column @extschema@._private_settings.swept_to is 'The last job whose attempts were looked at, to delete those of jobs that are gone.';
comment on table @extschema@._private_pauses is 'Internal: what is paused. Read the view pauses.';
comment on column @extschema@._private_pauses.scope is 'all, task or queue.';
comment on column @extschema@._private_pauses.name is 'Name of the task or queue; one that ends in an asterisk stands for all that begin so.';
comment on column @extschema@._private_pauses.until is 'When the pause is over; infinity if it has to be resumed.';
comment on column @extschema@._private_pauses.reason is 'Why, for people.';
comment on column @extschema@._private_pauses.paused_at is 'When it was paused.';
comment on column @extschema@._private_pauses.paused_by is 'The role that paused it.';
comment on table @extschema@._private_limits is 'Internal: the limits of tasks and queues. Read the view limits.';
comment on column @extschema@._private_limits.scope is 'task or queue.';
comment on column @extschema@._private_limits.name is 'Name of the task or queue; one that ends in an asterisk stands for all that begin so.';
comment on column @extschema@._private_limits.max_running is 'How many jobs may run at once; null if the limit does not say.';
comment on column @extschema@._private_limits.rate is 'How many jobs may start in the period; null if the limit does not say.';
comment on column @extschema@._private_limits.per is 'The period of the rate.';
comment on column @extschema@._private_limits.burst is 'How many jobs may start together after a pause.';
comment on column @extschema@._private_limits.spacing is 'Microseconds between two starts.';
comment on table @extschema@._private_limit_states is 'Internal: the tasks and queues that jobs were claimed of under a limit. Read the view limit_states.';
comment on column @extschema@._private_limit_states.scope is 'task or queue; pause or limit, without a name, while there is any.';
comment on column @extschema@._private_limit_states.name is 'Name of the task or queue.';
comment on column @extschema@._private_limit_states.job_ids is 'Jobs that were claimed; those that are still claimed count.';
comment on column @extschema@._private_limit_states.started_at is 'When a job was last claimed.';
comment on column @extschema@._private_limit_states.next_start_at is 'When the next start would be due, if the starts were spread evenly.';
comment on column @extschema@._private_limit_states.wait_until is 'When the rate allows the next start, as of the last claim.';
comment on column @extschema@._private_limit_states.is_full is 'Whether the last claim took the last slot.';
comment on column @extschema@._private_limit_states.is_wanted is 'Whether a worker had to leave a job waiting, and is to be woken.';
comment on table @extschema@.migrations is 'The schema revisions that Node''s graphile-worker expects.';
comment on column @extschema@.migrations.id is 'Number of the revision.';
comment on column @extschema@.migrations.ts is 'When it was applied here.';
comment on column @extschema@.migrations.breaking is 'Whether workers of an earlier revision must stop.';
comment on view @extschema@.jobs is 'Every job, without its payload.';
comment on column @extschema@.jobs.id is 'Identity of the job.';
comment on column @extschema@.jobs.queue_name is 'Queue, whose jobs run one at a time; null if none.';
comment on column @extschema@.jobs.task_identifier is 'Name of the task.';
comment on column @extschema@.jobs.priority is 'Lower numbers run first.';
comment on column @extschema@.jobs.run_at is 'The job does not run before this time.';
comment on column @extschema@.jobs.attempts is 'How many times the job has been claimed.';
comment on column @extschema@.jobs.max_attempts is 'The job permanently fails after this many attempts.';
comment on column @extschema@.jobs.last_error is 'Message of the last failure.';
comment on column @extschema@.jobs.created_at is 'When the job was added.';
comment on column @extschema@.jobs.updated_at is 'When the job was last changed, other than by being claimed.';
comment on column @extschema@.jobs.key is 'Job key.';
comment on column @extschema@.jobs.locked_at is 'When a worker claimed the job, or last renewed its lease; null if the job is not running.';
comment on column @extschema@.jobs.locked_by is 'Worker that claimed the job.';
comment on column @extschema@.jobs.revision is 'How many times add_job was applied to the job again.';
comment on column @extschema@.jobs.flags is 'Object with a true member per flag.';
comment on view @extschema@.workers is 'The workers that send heartbeats; Node''s workers do not.';
comment on column @extschema@.workers.worker_id is 'The id under which the worker claims jobs.';
comment on column @extschema@.workers.started_at is 'When the worker sent its first heartbeat.';
comment on column @extschema@.workers.heartbeat_at is 'When the worker sent its last heartbeat.';
comment on column @extschema@.workers.is_alive is 'Whether its last heartbeat is recent; if not, its jobs will be unlocked.';
comment on column @extschema@.workers.task_identifiers is 'Tasks that the worker runs; null if all, or if unknown.';
comment on column @extschema@.workers.details is 'Other information from the worker.';
comment on column @extschema@.workers.is_busy is 'Whether it polls all the time and need not be notified.';
comment on view @extschema@.ended_workers is 'Ids of workers that ended or were presumed dead within the last day.';
comment on column @extschema@.ended_workers.worker_id is 'An id that gets no more jobs.';
comment on column @extschema@.ended_workers.ended_at is 'When the worker ended or was presumed dead.';
comment on view @extschema@.queues is 'The named queues.';
comment on column @extschema@.queues.id is 'Identity of the queue.';
comment on column @extschema@.queues.queue_name is 'Name of the queue.';
comment on column @extschema@.queues.locked_at is 'When the job in flight was claimed, or its lease last renewed; null if there is none.';
comment on column @extschema@.queues.locked_by is 'Worker that claimed the job in flight.';
comment on view @extschema@.crontabs is 'The recurring jobs.';
comment on column @extschema@.crontabs.identifier is 'Name of the recurring job.';
comment on column @extschema@.crontabs.known_since is 'When the recurring job was registered.';
comment on column @extschema@.crontabs.last_execution is 'The last time the job was added for.';
comment on table @extschema@._private_cancellations is 'Internal: running jobs that were cancelled.';
comment on column @extschema@._private_cancellations.job_id is 'The job.';
comment on column @extschema@._private_cancellations.reason is 'Why, for people.';
comment on column @extschema@._private_cancellations.cancelled_by is 'The role that cancelled it.';
comment on column @extschema@._private_cancellations.cancelled_at is 'When it was cancelled.';
comment on table @extschema@._private_schedules is 'Internal: the schedules that clients have set. Read the view schedules.';
comment on column @extschema@._private_schedules.name is 'Name of the schedule.';
comment on column @extschema@._private_schedules.task is 'Task of its jobs.';
comment on column @extschema@._private_schedules.cron is 'When it is due: minute, hour, day of the month, month, day of the week; or @daily and the like.';
comment on column @extschema@._private_schedules.tz is 'The time zone of the hours and days.';
comment on column @extschema@._private_schedules.payload is 'Payload of its jobs, to which _cron is added.';
comment on column @extschema@._private_schedules.queue_name is 'Queue of its jobs; null if none.';
comment on column @extschema@._private_schedules.priority is 'Priority of its jobs; null means 0.';
comment on column @extschema@._private_schedules.max_attempts is 'Number of attempts of its jobs; null means 25.';
comment on column @extschema@._private_schedules.job_key is 'Job key of its jobs; null if none.';
comment on column @extschema@._private_schedules.flags is 'Flags of its jobs.';
comment on column @extschema@._private_schedules.catch_up is 'How old a missed run may be to be added later.';
comment on column @extschema@._private_schedules.overlap is 'What happens to a run whose predecessor has not ended: allow, skip or replace.';
comment on column @extschema@._private_schedules.is_paused is 'Whether its runs are left out.';
comment on column @extschema@._private_schedules.next_runs is 'The next runs, three at most.';
comment on column @extschema@._private_schedules.last_run_at is 'The last run that was due.';
comment on column @extschema@._private_schedules.last_job_id is 'The job of the last run that added one.';
comment on column @extschema@._private_schedules.last_error is 'Why the job of the last run was refused; null if it was not.';
comment on column @extschema@._private_schedules.unscheduled_at is 'When it was unscheduled; null if it holds.';
comment on view @extschema@.schedules is 'The schedules that clients have set.';
comment on column @extschema@.schedules.name is 'Name of the schedule.';
comment on column @extschema@.schedules.task is 'Task of its jobs.';
comment on column @extschema@.schedules.cron is 'When it is due: minute, hour, day of the month, month, day of the week; or @daily and the like.';
comment on column @extschema@.schedules.tz is 'The time zone of the hours and days.';
comment on column @extschema@.schedules.payload is 'Payload of its jobs, to which _cron is added.';
comment on column @extschema@.schedules.queue_name is 'Queue of its jobs; null if none.';
comment on column @extschema@.schedules.priority is 'Priority of its jobs; null means 0.';
comment on column @extschema@.schedules.max_attempts is 'Number of attempts of its jobs; null means 25.';
comment on column @extschema@.schedules.job_key is 'Job key of its jobs; null if none.';
comment on column @extschema@.schedules.flags is 'Flags of its jobs.';
comment on column @extschema@.schedules.catch_up is 'How old a missed run may be to be added later.';
comment on column @extschema@.schedules.overlap is 'What happens to a run whose predecessor has not ended: allow, skip or replace.';
comment on column @extschema@.schedules.is_paused is 'Whether its runs are left out.';
comment on column @extschema@.schedules.next_runs is 'The next runs, three at most.';
comment on column @extschema@.schedules.last_run_at is 'The last run that was due.';
comment on column @extschema@.schedules.last_job_id is 'The job of the last run that added one.';
comment on column @extschema@.schedules.last_error is 'Why the job of the last run was refused; null if it was not.';
comment on table @extschema@._private_histories is 'Internal: of which tasks history is kept. Read the view histories.';
comment on column @extschema@._private_histories.task is 'Name of the task; * for all that have no row of their own.';
comment on column @extschema@._private_histories.keep is 'For how long.';
comment on column @extschema@._private_histories.results is 'Whether results are recorded.';
comment on column @extschema@._private_histories.payloads is 'Whether payloads are recorded.';
comment on column @extschema@._private_histories.max_bytes is 'The largest result, and the longest error.';
comment on column @extschema@._private_histories.is_kept is 'Whether jobs that end are recorded; what is recorded is kept all the same.';
comment on table @extschema@._private_history is 'Internal: the jobs that ended, by time. Read the view job_history.';
comment on column @extschema@._private_history.job_id is 'Identity of the job.';
comment on column @extschema@._private_history.state is 'completed, failed, cancelled or discarded.';
comment on column @extschema@._private_history.task_identifier is 'Name of the task.';
comment on column @extschema@._private_history.queue_name is 'Queue; null if none.';
comment on column @extschema@._private_history.key is 'Job key.';
comment on column @extschema@._private_history.priority is 'Lower numbers ran first.';
comment on column @extschema@._private_history.flags is 'Object with a true member per flag.';
comment on column @extschema@._private_history.attempts is 'How many times the job had been claimed.';
comment on column @extschema@._private_history.max_attempts is 'The job permanently failed after this many attempts.';
comment on column @extschema@._private_history.run_at is 'The job did not run before this time.';
comment on column @extschema@._private_history.created_at is 'When the job was added.';
comment on column @extschema@._private_history.started_at is 'When its last attempt started; null if it was not running.';
comment on column @extschema@._private_history.finished_at is 'When the job ended.';
comment on column @extschema@._private_history.duration is 'How long its last attempt ran.';
comment on column @extschema@._private_history.worker_id is 'Worker that ran the last attempt.';
comment on column @extschema@._private_history.error is 'Message of the failure, or why it was cancelled or discarded.';
comment on column @extschema@._private_history.earlier_attempts is 'The attempts before the last one.';
comment on column @extschema@._private_history.result is 'What the task returned.';
comment on column @extschema@._private_history.result_problem is 'Why there is no result.';
comment on column @extschema@._private_history.payload is 'Argument of the task.';
comment on table @extschema@._private_history_partitions is 'Internal: the partitions of the history.';
comment on column @extschema@._private_history_partitions.name is 'Name of the table.';
comment on column @extschema@._private_history_partitions.starts_at is 'The earliest end of a job in it.';
comment on column @extschema@._private_history_partitions.ends_at is 'The end of its time.';
comment on table @extschema@._private_attempts is 'Internal: the attempts of jobs that have not ended or failed permanently.';
comment on column @extschema@._private_attempts.job_id is 'The job.';
comment on column @extschema@._private_attempts.ended_at is 'When the attempt ended.';
comment on column @extschema@._private_attempts.attempt is 'Its number.';
comment on column @extschema@._private_attempts.started_at is 'When it started.';
comment on column @extschema@._private_attempts.worker_id is 'Worker that ran it.';
comment on column @extschema@._private_attempts.outcome is 'failed, discarded or crashed.';
comment on column @extschema@._private_attempts.error is 'Message of the failure.';
comment on table @extschema@._private_progress is 'Internal: how far running jobs are. Read the view job_progress.';
comment on column @extschema@._private_progress.job_id is 'The job.';
comment on column @extschema@._private_progress.progress is '0 to 1; null if unknown.';
comment on column @extschema@._private_progress.message is 'A text for people.';
comment on column @extschema@._private_progress.reported_at is 'When it was reported.';
comment on table @extschema@._private_result_waits is 'Internal: who waits for results and is notified.';
comment on column @extschema@._private_result_waits.waiter is 'Name of a process.';
comment on column @extschema@._private_result_waits.until is 'When it is over.';
comment on table @extschema@._private_dead_letters is 'Internal: which jobs are added when others fail permanently. Read the view dead_letters.';
comment on column @extschema@._private_dead_letters.failed_task is 'Task of the jobs that fail; * for any.';
comment on column @extschema@._private_dead_letters.task is 'Task of the jobs that are added.';
comment on table @extschema@._private_unreported_claims is 'Internal: that workers without a heartbeat look for jobs.';
comment on column @extschema@._private_unreported_claims.claimed_at is 'When one did; there is a row in five minutes.';
comment on table @extschema@._private_payload_schemas is 'Internal: what payloads have to fit. Read the view payload_schemas.';
comment on column @extschema@._private_payload_schemas.task is 'Name of the task.';
comment on column @extschema@._private_payload_schemas.schema is 'JSON Schema 2020-12 that payloads have to fit.';
comment on column @extschema@._private_payload_schemas.on_invalid is 'reject or warn.';
comment on column @extschema@._private_payload_schemas.quick is 'A condition that holds for most payloads that fit, and for no others.';
comment on column @extschema@._private_payload_schemas.known is 'The members that an object may have; null if it may have others.';
comment on column @extschema@._private_payload_schemas.set_at is 'When it was set.';
comment on column @extschema@._private_payload_schemas.set_by is 'The role that set it.';
comment on view @extschema@._private_control_states is 'Internal: what pauses and limits mean for each task and queue.';
comment on column @extschema@._private_control_states.scope is 'task or queue.';
comment on column @extschema@._private_control_states.id is 'What jobs point to.';
comment on column @extschema@._private_control_states.name is 'Name of the task or queue.';
comment on column @extschema@._private_control_states.limit_name is 'The limit that decides; null if there is none.';
comment on column @extschema@._private_control_states.max_running is 'How many jobs may run at once; null if the limit does not say.';
comment on column @extschema@._private_control_states.spacing is 'Microseconds between two starts.';
comment on column @extschema@._private_control_states.burst is 'How many jobs may start together after a pause.';
comment on column @extschema@._private_control_states.started_at is 'When a job was last claimed.';
comment on column @extschema@._private_control_states.running is 'How many of the jobs noted for it are claimed.';
comment on column @extschema@._private_control_states.slots is 'How many more may be claimed now.';
comment on column @extschema@._private_control_states.wait is 'Microseconds until the rate allows the next start.';
comment on view @extschema@.pauses is 'What is paused now.';
comment on column @extschema@.pauses.scope is 'all, task or queue.';
comment on column @extschema@.pauses.name is 'Name of the task or queue; one that ends in an asterisk stands for all that begin so.';
comment on column @extschema@.pauses.until is 'When the pause is over; null if it has to be resumed.';
comment on column @extschema@.pauses.reason is 'Why, for people.';
comment on column @extschema@.pauses.paused_at is 'When it was paused.';
comment on column @extschema@.pauses.paused_by is 'The role that paused it.';
comment on view @extschema@.limits is 'The limits of tasks and queues.';
comment on column @extschema@.limits.scope is 'task or queue.';
comment on column @extschema@.limits.name is 'Name of the task or queue; one that ends in an asterisk stands for all that begin so, each on its own.';
comment on column @extschema@.limits.max_running is 'How many jobs may run at once; null if the limit does not say.';
comment on column @extschema@.limits.rate is 'How many jobs may start in the period; null if the limit does not say.';
comment on column @extschema@.limits.per is 'The period of the rate.';
comment on column @extschema@.limits.burst is 'How many jobs may start together after a pause.';
comment on column @extschema@.limits.running is 'How many jobs run that the limit counts.';
comment on view @extschema@.limit_states is 'The tasks and queues that jobs were claimed of lately under a limit.';
comment on column @extschema@.limit_states.scope is 'task or queue.';
comment on column @extschema@.limit_states.name is 'Name of the task or queue.';
comment on column @extschema@.limit_states.limit_name is 'The limit that decides; null if it was removed.';
comment on column @extschema@.limit_states.max_running is 'How many jobs may run at once; null if the limit does not say.';
comment on column @extschema@.limit_states.running is 'How many jobs run.';
comment on column @extschema@.limit_states.slots is 'How many more may start now.';
comment on column @extschema@.limit_states.started_at is 'When a job was last claimed.';
comment on column @extschema@.limit_states.next_start_at is 'When the rate allows the next start.';
comment on view @extschema@.histories is 'Of which tasks history is kept.';
comment on column @extschema@.histories.task is 'Name of the task; * for all that have no row of their own.';
comment on column @extschema@.histories.keep is 'For how long.';
comment on column @extschema@.histories.results is 'Whether results are recorded.';
comment on column @extschema@.histories.payloads is 'Whether payloads are recorded.';
comment on column @extschema@.histories.max_bytes is 'The largest result, and the longest error.';
comment on column @extschema@.histories.is_kept is 'Whether jobs that end are recorded; what is recorded is kept all the same.';
comment on view @extschema@.job_history is 'The jobs that ended, where their history is kept.';
comment on column @extschema@.job_history.job_id is 'Identity of the job.';
comment on column @extschema@.job_history.state is 'completed, failed, cancelled or discarded.';
comment on column @extschema@.job_history.task_identifier is 'Name of the task.';
comment on column @extschema@.job_history.queue_name is 'Queue; null if none.';
comment on column @extschema@.job_history.key is 'Job key.';
comment on column @extschema@.job_history.priority is 'Lower numbers ran first.';
comment on column @extschema@.job_history.flags is 'Object with a true member per flag.';
comment on column @extschema@.job_history.attempts is 'How many times the job had been claimed.';
comment on column @extschema@.job_history.max_attempts is 'The job permanently failed after this many attempts.';
comment on column @extschema@.job_history.run_at is 'The job did not run before this time.';
comment on column @extschema@.job_history.created_at is 'When the job was added.';
comment on column @extschema@.job_history.started_at is 'When its last attempt started; null if it was not running.';
comment on column @extschema@.job_history.finished_at is 'When the job ended.';
comment on column @extschema@.job_history.duration is 'How long its last attempt ran.';
comment on column @extschema@.job_history.worker_id is 'Worker that ran the last attempt.';
comment on column @extschema@.job_history.error is 'Message of the failure, or why it was cancelled or discarded.';
comment on column @extschema@.job_history.result is 'What the task returned.';
comment on column @extschema@.job_history.result_problem is 'Why there is no result.';
comment on column @extschema@.job_history.attempt_log is 'All attempts: number, start, end, worker, outcome and error of each.';
comment on view @extschema@.failed_jobs is 'The jobs that failed permanently.';
comment on column @extschema@.failed_jobs.id is 'Identity of the job.';
comment on column @extschema@.failed_jobs.queue_name is 'Queue; null if none.';
comment on column @extschema@.failed_jobs.task_identifier is 'Name of the task.';
comment on column @extschema@.failed_jobs.priority is 'Lower numbers run first.';
comment on column @extschema@.failed_jobs.run_at is 'The job was not to run before this time.';
comment on column @extschema@.failed_jobs.attempts is 'How many times the job has been claimed.';
comment on column @extschema@.failed_jobs.max_attempts is 'The job permanently fails after this many attempts.';
comment on column @extschema@.failed_jobs.last_error is 'Message of the last failure.';
comment on column @extschema@.failed_jobs.created_at is 'When the job was added.';
comment on column @extschema@.failed_jobs.failed_at is 'When the job was last changed.';
comment on column @extschema@.failed_jobs.key is 'Job key.';
comment on column @extschema@.failed_jobs.flags is 'Object with a true member per flag.';
comment on column @extschema@.failed_jobs.attempt_log is 'All attempts, where history is kept: number, start, end, worker, outcome and error of each.';
comment on view @extschema@.job_progress is 'How far running jobs say that they are.';
comment on column @extschema@.job_progress.job_id is 'The job.';
comment on column @extschema@.job_progress.progress is '0 to 1; null if unknown.';
comment on column @extschema@.job_progress.message is 'A text for people.';
comment on column @extschema@.job_progress.reported_at is 'When it was reported.';
comment on view @extschema@.job_sample is 'Some of the jobs, picked by chance, to estimate counts: all jobs of a small table.';
comment on column @extschema@.job_sample.id is 'Identity of the job.';
comment on column @extschema@.job_sample.queue_name is 'Queue; null if none.';
comment on column @extschema@.job_sample.task_identifier is 'Name of the task.';
comment on column @extschema@.job_sample.state is 'ready, scheduled, running or failed.';
comment on column @extschema@.job_sample.weight is 'How many jobs it stands for; 1 if all jobs are there.';
comment on view @extschema@.next_jobs is 'The next job of each priority.';
comment on column @extschema@.next_jobs.priority is 'Lower numbers run first.';
comment on column @extschema@.next_jobs.run_at is 'When the job is due.';
comment on column @extschema@.next_jobs.id is 'Identity of the job.';
comment on view @extschema@.dead_letters is 'Which jobs are added when others fail permanently.';
comment on column @extschema@.dead_letters.failed_task is 'Task of the jobs that fail; * for any.';
comment on column @extschema@.dead_letters.task is 'Task of the jobs that are added.';
comment on view @extschema@.payload_schemas is 'What payloads have to fit, by task.';
comment on column @extschema@.payload_schemas.task is 'Name of the task.';
comment on column @extschema@.payload_schemas.schema is 'JSON Schema 2020-12 that payloads have to fit.';
comment on column @extschema@.payload_schemas.on_invalid is 'reject or warn.';
comment on column @extschema@.payload_schemas.set_at is 'When it was set.';
comment on column @extschema@.payload_schemas.set_by is 'The role that set it.';
comment on type @extschema@.job_spec is 'A job for add_jobs; null attributes mean the defaults of add_job.';
comment on column @extschema@.job_spec.identifier is 'Name of the task.';
comment on column @extschema@.job_spec.payload is 'Argument of the task; null means {}.';
comment on column @extschema@.job_spec.queue_name is 'Queue, whose jobs run one at a time; null if none.';
comment on column @extschema@.job_spec.run_at is 'The job does not run before this time; null means now.';
comment on column @extschema@.job_spec.max_attempts is 'Number of attempts; null means 25.';
comment on column @extschema@.job_spec.job_key is 'Job key; null if none.';
comment on column @extschema@.job_spec.priority is 'Lower numbers run first; null means 0.';
comment on column @extschema@.job_spec.flags is 'Flags of the job.';
comment on type @extschema@.claimed_job is 'A job that get_jobs claimed for a worker.';
comment on column @extschema@.claimed_job.id is 'Identity of the job, for finish_jobs, fail_jobs and return_jobs.';
comment on column @extschema@.claimed_job.task_identifier is 'Name of the task to run.';
comment on column @extschema@.claimed_job.payload is 'Argument of the task.';
comment on column @extschema@.claimed_job.queue_name is 'Queue that is locked with the job; null if none.';
comment on column @extschema@.claimed_job.priority is 'Priority of the job.';
comment on column @extschema@.claimed_job.run_at is 'When the job became due.';
comment on column @extschema@.claimed_job.attempts is 'Which attempt this is, from 1.';
comment on column @extschema@.claimed_job.max_attempts is 'The job permanently fails after this many attempts.';
comment on column @extschema@.claimed_job.last_error is 'Message of the previous failure; null on the first attempt.';
comment on column @extschema@.claimed_job.created_at is 'When the job was added.';
comment on column @extschema@.claimed_job.updated_at is 'When the job was last changed.';
comment on column @extschema@.claimed_job.key is 'Job key.';
comment on column @extschema@.claimed_job.locked_at is 'When the job was claimed.';
comment on column @extschema@.claimed_job.locked_by is 'Worker that claimed it.';
comment on column @extschema@.claimed_job.revision is 'How many times add_job was applied to the job again.';
comment on column @extschema@.claimed_job.flags is 'Object with a true member per flag.';
comment on index @extschema@.tasks_pkey is 'Finds the name of a task.';
comment on index @extschema@.tasks_identifier_key is 'Finds a task by its name.';
comment on index @extschema@.job_queues_pkey1 is 'Finds the queue of a job.';
comment on index @extschema@.job_queues_queue_name_key is 'Finds a queue by its name.';
comment on index @extschema@.jobs_pkey1 is 'Finds a job.';
comment on index @extschema@.jobs_key_key1 is 'Makes job keys unique; jobs without a key are not in it.';
comment on index @extschema@.jobs_order_idx is 'The order in which jobs are claimed.';
comment on index @extschema@.jobs_task_queue_idx is 'The jobs of one task in one queue: lets get_jobs skip those that cannot run.';
comment on index @extschema@.known_crontabs_pkey is 'Finds a recurring job.';
comment on index @extschema@.heartbeats_pkey is 'Finds a worker.';
comment on index @extschema@.ended_workers_pkey is 'Finds a worker that has ended.';
comment on index @extschema@.crashes_pkey is 'Finds the crashes of a job.';
comment on index @extschema@.settings_pkey is 'Holds one row at most.';
comment on index @extschema@.migrations_pkey is 'Finds a schema revision.';
comment on index @extschema@.pauses_pkey is 'Finds a pause.';
comment on index @extschema@.pauses_pattern_idx is 'Finds the pauses whose names end in an asterisk.';
comment on index @extschema@.limits_pkey is 'Finds a limit.';
comment on index @extschema@.limits_pattern_idx is 'Finds the limits whose names end in an asterisk.';
comment on index @extschema@.schedules_pkey is 'Finds a schedule.';
comment on index @extschema@.cancellations_pkey is 'Finds the cancellation of a job.';
comment on index @extschema@.limit_states_pkey is 'Finds the state of a task or queue.';
comment on index @extschema@.histories_pkey is 'Finds the setting of a task.';
comment on index @extschema@.history_partitions_pkey is 'Finds the partition of a time.';
comment on index @extschema@.attempts_pkey is 'Finds the attempts of a job.';
comment on index @extschema@.progress_pkey is 'Finds the progress of a job.';
comment on index @extschema@.result_waits_pkey is 'Finds a process.';
comment on index @extschema@.payload_schemas_pkey is 'Finds the schema of a task.';
comment on index @extschema@.dead_letters_pkey is 'Finds the setting of a task.';
comment on constraint tasks_identifier_check on @extschema@._private_tasks is 'At most 128 characters.';
comment on constraint job_queues_queue_name_check on @extschema@._private_job_queues is 'At most 128 characters.';
comment on constraint jobs_key_check on @extschema@._private_jobs is '1 to 512 characters.';
comment on constraint jobs_max_attempts_check on @extschema@._private_jobs is 'At least one attempt.';
comment on constraint settings_id_check on @extschema@._private_settings is 'One row at most.';
comment on constraint pauses_scope_check on @extschema@._private_pauses is 'The scopes there are.';
comment on constraint schedules_overlap_check on @extschema@._private_schedules is 'The overlaps there are.';
comment on constraint payload_schemas_on_invalid_check on @extschema@._private_payload_schemas is 'What can be done.';
comment on constraint limits_scope_check on @extschema@._private_limits is 'The scopes there are.';
comment on sequence @extschema@.jobs_id_seq1 is 'Ids of jobs.';
comment on sequence @extschema@.tasks_id_seq is 'Ids of tasks.';
comment on sequence @extschema@.job_queues_id_seq is 'Ids of queues.';
comment on sequence @extschema@.names_deleted_seq is 'The transaction in which delete_unused_queues or delete_unused_tasks last deleted names.';
comment on function @extschema@.add_job(text, json, text, timestamptz, integer, text, integer, text[], text) is 'Adds a job and returns its row. Null arguments mean the defaults; job_key_mode is replace, preserve_run_at or unsafe_dedupe.';
comment on function @extschema@.add_jobs(@extschema@.job_spec[], boolean) is 'Adds many jobs in one call, with one notification; returns a row per spec, in order.';
comment on function @extschema@.add_jobs_with_modes(@extschema@.job_spec[], text[]) is 'Like add_jobs, with a job key mode for each spec, or one mode for all.';
comment on function @extschema@.add_job_to_route(text, text, json, text, timestamptz, integer, text, integer, text[], text) is 'Adds a job on the node of a Citus cluster that holds the route; returns its id.';
comment on function @extschema@.add_jobs_to_route(text, json) is 'Adds jobs on the node of a Citus cluster that holds the route; returns their ids.';
comment on function @extschema@.version() is 'Returns the version of the installed objects.';
comment on function @extschema@.job_names(integer, integer) is 'Returns the names of the task and queue of a job''s row.';
comment on function @extschema@.next_runs(text, text, integer, timestamptz) is 'Returns the next times at which a cron expression is due in a time zone.';
comment on function @extschema@.get_results(bigint[]) is 'Returns the states of jobs, and the results of those that have ended.';
comment on function @extschema@.watch_results(text, integer) is 'Says that a process waits for results, and so is notified.';
comment on function @extschema@.get_jobs(text, integer, text[], text[]) is 'Claims due jobs for a worker: at most one in flight per named queue.';
comment on function @extschema@.get_payload(text, bigint) is 'Returns the payload of a job that the worker holds, else null.';
comment on function @extschema@.schema_revision() is 'Returns the revision of Node''s schema, and the highest one that older workers cannot use.';
comment on function @extschema@.finish_jobs(text, bigint[]) is 'Completes jobs; done is false if the worker no longer holds a job.';
comment on function @extschema@.finish_jobs_with_results(text, bigint[], json[], double precision[], text[]) is 'Completes jobs with their results and durations; without an array of results, done is null for those whose results are wanted.';
comment on function @extschema@.fail_jobs(text, json) is 'Fails jobs, which are retried later; failures is a json array of objects with id, error, payload, run_at, final.';
comment on function @extschema@.return_jobs(text, bigint[], timestamptz) is 'Returns jobs that the worker claimed but will not run, without using an attempt.';
comment on function @extschema@.release_stale_locks() is 'Unlocks jobs and queues that have been locked for more than 4 hours.';
comment on function @extschema@.heartbeat(text, text[], json, boolean) is 'Reports that the worker is alive. is_known is false the first time and after it was presumed dead; next_job_in is the time until the next scheduled job, is_due whether a job is due now, of any task.';
comment on function @extschema@.count_idle_workers(text[]) is 'Returns how many live, idle workers have reported that they run exactly these tasks.';
comment on function @extschema@.writing_transactions(text[]) is 'Returns the open transactions that may have written jobs, by virtual id; given some, those that are still open.';
comment on function @extschema@.end_worker(text) is 'Ends a worker, unlocks what it still holds, and returns the number of jobs.';
comment on function @extschema@.return_unknown_jobs(text, bigint[]) is 'Returns jobs that the worker holds without knowing them, and their number.';
comment on function @extschema@.recover_dead_workers(text) is 'Unlocks what silent workers hold.';
comment on function @extschema@.register_crontabs(text[]) is 'Registers recurring jobs and returns what is known of each, in order.';
comment on function @extschema@.add_cron_jobs(timestamptz, json) is 'Adds the recurring jobs that are due at a time, each once however many callers there are; returns those it added.';
comment on function @extschema@.run_schedules() is 'Adds the jobs of the schedules that are due, each run once; returns the runs, and the time until the next one.';
comment on function @extschema@.review_jobs(text, bigint[]) is 'Returns the jobs of a worker that were cancelled, and those of its prefetched ones that are paused.';
comment on function @extschema@.return_and_pause(text, bigint, text, timestamptz, text) is 'Returns a job that the worker holds, without using an attempt, and pauses its queue or task until a time.';
comment on function @extschema@.report_progress(text, bigint, real, text) is 'Reports how far a running job is; returns whether the worker holds it.';
comment on function @extschema@.maintain_history() is 'Adds and drops partitions of the history, and deletes what is to be kept no longer.';
comment on function @extschema@.remove_job(text) is 'Removes the job with the key; a running job loses its key and is not retried.';
comment on function @extschema@.complete_jobs(bigint[]) is 'Completes jobs; running jobs are left out.';
comment on function @extschema@.permanently_fail_jobs(bigint[], text) is 'Fails jobs permanently; running jobs are left out.';
comment on function @extschema@.reschedule_jobs(bigint[], timestamptz, integer, integer, integer) is 'Changes when and how many times jobs run; null keeps a value, running jobs are left out.';
comment on function @extschema@.force_unlock_workers(text[]) is 'Unlocks everything that these workers hold; only for dead workers.';
comment on function @extschema@.list_jobs(bigint[], text[], text[], text[], text[], bigint, integer) is 'Returns jobs with their payload, ordered by id, at most max_jobs; a null filter matches everything.';
comment on function @extschema@.delete_failed_jobs(timestamptz, integer) is 'Deletes permanently failed jobs and returns their number.';
comment on function @extschema@.delete_unused_queues() is 'Deletes the names of queues without jobs and returns their number.';
comment on function @extschema@.delete_unused_tasks(text[]) is 'Deletes the names of tasks without jobs and returns their number; running Node workers must be restarted.';
comment on function @extschema@.set_recovery(interval, integer) is 'Sets after how much silence a worker is presumed dead, and how many crashes a job survives; null keeps a value.';
comment on function @extschema@.unlock_queues(text[]) is 'Unlocks queues that are locked although none of their jobs is; returns their names.';
comment on function @extschema@.cancel_jobs(bigint[], text) is 'Cancels jobs: waiting ones are deleted, the workers of running ones are told to stop them. Returns what became of each.';
comment on function @extschema@.schedule(text, text, text, text, json, text, integer, integer, text, text[], interval, text) is 'Sets a schedule, whose jobs the workers add, and returns when it is due next.';
comment on function @extschema@.unschedule(text) is 'Ends a schedule; returns whether there was one.';
comment on function @extschema@.pause_schedule(text) is 'Pauses a schedule.';
comment on function @extschema@.resume_schedule(text) is 'Resumes a schedule, and returns when it is due next.';
comment on function @extschema@.run_schedule_now(text) is 'Adds the job of a schedule now, and returns its id.';
comment on function @extschema@.pause_queue(text, timestamptz, text) is 'Pauses a queue until a time or until it is resumed; a name that ends in an asterisk stands for all that begin so.';
comment on function @extschema@.resume_queue(text) is 'Resumes a queue; returns whether it was paused by this name.';
comment on function @extschema@.pause_task(text, timestamptz, text) is 'Pauses a task until a time or until it is resumed; a name that ends in an asterisk stands for all that begin so.';
comment on function @extschema@.resume_task(text) is 'Resumes a task; returns whether it was paused by this name.';
comment on function @extschema@.pause_all(timestamptz, text) is 'Pauses everything until a time or until it is resumed.';
comment on function @extschema@.resume_all() is 'Resumes everything that pause_all paused; returns whether it was paused.';
comment on function @extschema@.set_limit(text, text, integer, integer, interval, integer) is 'Limits how many jobs of a task or queue run at once, and how many start in a period.';
comment on function @extschema@.remove_limit(text, text) is 'Removes a limit; returns whether there was one.';
comment on function @extschema@.keep_history(text, interval, boolean, boolean, integer) is 'Keeps the history of the jobs of a task, or of all tasks.';
comment on function @extschema@.stop_history(text) is 'Records no more jobs of a task, or none at all; returns whether any were.';
comment on function @extschema@.keep_failed_jobs(interval) is 'Sets how long permanently failed jobs are kept; null: for good. Returns what was set.';
comment on function @extschema@.on_dead_letter(text, text) is 'Sets the task of which a job is added when a job fails permanently; returns what was set.';
comment on function @extschema@.discard_jobs(bigint[], text) is 'Deletes permanently failed jobs, and records them as discarded.';
comment on function @extschema@.get_job(bigint) is 'Returns what is known of a job, waiting, running, failed or ended.';
comment on function @extschema@.set_payload_schema(text, json, text) is 'Sets the JSON Schema that payloads of a task have to fit when they are added; null ends it. Returns what was set.';
comment on function @extschema@.find_unfit_jobs(text, json, bigint, integer) is 'Returns waiting jobs whose payloads do not fit a schema, and why.';
comment on function @extschema@._reject_job(text, text, integer, text, integer, text[]) is 'Internal: raises the error for a job that cannot be added.';
comment on function @extschema@._reject_mode(text) is 'Internal: raises the error for an unknown job key mode.';
comment on function @extschema@._merge_payloads(json, json) is 'Internal: merges the payloads of a keyed job that is added again.';
comment on function @extschema@._ensure_names(text[], text[]) is 'Internal: adds new task and queue names.';
comment on function @extschema@._check_route(text) is 'Internal: raises the error for a route that another node holds.';
comment on function @extschema@._reject_old_snapshot() is 'Internal: refuses a transaction that may see deleted names.';
comment on function @extschema@._block_enqueues() is 'Internal: blocks adding jobs until the transaction ends.';
comment on function @extschema@._upsert_job(bigint, text, json, text, timestamptz, integer, text, integer, jsonb, text) is 'Internal: inserts a job, or updates the job with its key.';
comment on function @extschema@._prepare_specs(@extschema@.job_spec[]) is 'Internal: checks the specs of add_jobs and adds their names.';
comment on function @extschema@._upsert_jobs(@extschema@.job_spec[], bigint[], text[], bigint[], @extschema@._private_jobs[]) is 'Internal: adds jobs one by one, and returns their rows among others.';
comment on function @extschema@._visible_rows(@extschema@._private_jobs[], @extschema@.job_spec[], text[]) is 'Internal: what the caller of add_jobs may see of its rows.';
comment on function @extschema@._keys_are_new(@extschema@.job_spec[]) is 'Internal: whether the keys of specs are all new.';
comment on function @extschema@._add_keyed_jobs(@extschema@.job_spec[], text[]) is 'Internal: adds many jobs with keys, each with a job key mode.';
comment on function @extschema@._before_lock_retry(text, timestamptz, interval) is 'Internal: pauses before locks are requested again.';
comment on function @extschema@._without_content(@extschema@._private_jobs, json, text) is 'Internal: hides what others wrote from a caller who may not read it.';
comment on function @extschema@._reject_fetch(text, integer) is 'Internal: raises the error for a wrong argument of get_jobs.';
comment on function @extschema@._refuse_ended_worker(text) is 'Internal: raises the error for a worker that has ended.';
comment on function @extschema@._claim_first_jobs(text, integer, integer[], text[]) is 'Internal: claims the first few jobs, if they decide the call.';
comment on function @extschema@._reject_control(text, text) is 'Internal: raises the error for a scope or name that cannot be paused or limited.';
comment on function @extschema@._notify_workers() is 'Internal: tells the workers that something about their jobs has changed.';
comment on function @extschema@._pause(text, text, timestamptz, text) is 'Internal: writes a pause.';
comment on function @extschema@._resume(text, text) is 'Internal: deletes a pause.';
comment on function @extschema@._is_paused(text, text) is 'Internal: whether a task or queue is paused.';
comment on function @extschema@._forget_controls() is 'Internal: deletes pauses that are over and states that are not needed.';
comment on function @extschema@._note_running_jobs(text, text) is 'Internal: notes the jobs that run already for a new limit.';
comment on function @extschema@._find_controls(integer[]) is 'Internal: what get_jobs has to heed, and the tasks that it may claim jobs of.';
comment on function @extschema@._wait_for_controls() is 'Internal: tells a worker when more jobs may start.';
comment on function @extschema@._wake_limited(bigint[]) is 'Internal: wakes the workers where jobs ended that a limit had others wait for.';
comment on function @extschema@._pick_from_window(smallint, timestamptz, bigint, integer, integer, integer[], text[], boolean, boolean, integer[]) is 'Internal: picks jobs to claim from a window of one priority.';
comment on function @extschema@._find_partitions(integer[], integer[], boolean, integer, boolean, boolean) is 'Internal: finds tasks and queues that have a job to run.';
comment on function @extschema@._pick_from_partitions(integer, integer[], text[], bigint[], integer[], boolean, boolean) is 'Internal: picks jobs to claim, from partition to partition.';
comment on function @extschema@._noted_jobs(bigint[], bigint[], boolean, integer) is 'Internal: the jobs noted for a limit after some were claimed.';
comment on function @extschema@._next_start(timestamptz, bigint, integer, integer) is 'Internal: the state of a rate after so many more starts.';
comment on function @extschema@._lock_limits(integer[], integer[], boolean, boolean) is 'Internal: locks the states of the limits of tasks and queues; how many more jobs each allows.';
comment on function @extschema@._count_within_limits(text[], integer[], integer[], bigint[], tid[], integer[], integer[]) is 'Internal: which picked jobs may be claimed within the limits.';
comment on function @extschema@._claim_within_limits(text, bigint[], tid[], integer[], integer[], boolean, integer[], text[]) is 'Internal: claims picked jobs within the limits.';
comment on function @extschema@._claim_jobs(text, tid[], integer[], integer[], text[]) is 'Internal: locks picked jobs, checks them again and claims them.';
comment on function @extschema@._skip_ahead_cursors(text) is 'Internal: where to begin in each priority.';
comment on function @extschema@._skip_to_picked(smallint[], timestamptz[], bigint[], bigint[], timestamptz) is 'Internal: where to begin after jobs of what is paused.';
comment on function @extschema@._remember_cursors(text, boolean, boolean, timestamptz, smallint[], timestamptz[], bigint[]) is 'Internal: remembers where to begin in each priority.';
comment on function @extschema@._claim_in_order(text, integer, integer[], text[], text, boolean, boolean, boolean) is 'Internal: claims due jobs in order.';
comment on function @extschema@._return_held_jobs(text, bigint[]) is 'Internal: returns what a worker holds, except the jobs to keep.';
comment on function @extschema@._end_workers(text[]) is 'Internal: marks ids as ended.';
comment on function @extschema@._settled_ended_workers() is 'Internal: ended workers under whose ids nothing can be locked any more.';
comment on function @extschema@._recover_locks(text[]) is 'Internal: unlocks what workers hold, and returns what was unlocked.';
comment on function @extschema@._unlock_queues_of(text[], boolean) is 'Internal: unlocks the queues of which workers hold no job, and returns whose they were.';
comment on function @extschema@._next_due() is 'Internal: whether a job is due, and the time until the next scheduled one is.';
comment on function @extschema@._cron_numbers(text, text, integer, integer, text[]) is 'Internal: the numbers that a field of a cron expression stands for.';
comment on function @extschema@._reject_schedule(text, json, interval, text) is 'Internal: raises the error for what a schedule cannot have.';
comment on function @extschema@._reject_unknown_schedule(text) is 'Internal: raises the error for a schedule that does not exist.';
comment on function @extschema@._run_schedule(@extschema@._private_schedules, bigint, timestamptz, boolean) is 'Internal: adds the job of a schedule for a time.';
comment on function @extschema@._runs_of_day(date, integer[], integer[], boolean, text) is 'Internal: the times at which clocks of a zone show these hours and minutes on a day.';
comment on function @extschema@._any_worker_idle() is 'Internal: whether a worker may be idle, so that new jobs need a notification.';
comment on function @extschema@._note_unreported_claim() is 'Internal: the trigger for claims of workers without a heartbeat.';
comment on function @extschema@._schema_problem(jsonb, jsonb, jsonb, text, integer) is 'Internal: what is wrong with a value by a schema.';
comment on function @extschema@._is_of_type(jsonb, jsonb) is 'Internal: whether a value is of a type of JSON Schema.';
comment on function @extschema@._number_problem(jsonb, numeric) is 'Internal: what is wrong with a number.';
comment on function @extschema@._string_problem(jsonb, text) is 'Internal: what is wrong with a text.';
comment on function @extschema@._has_format(text, text) is 'Internal: whether a text has a format.';
comment on function @extschema@._object_problem(jsonb, jsonb, jsonb, text, integer) is 'Internal: what is wrong with an object.';
comment on function @extschema@._pointer_part(text) is 'Internal: a key as a part of a JSON pointer.';
comment on function @extschema@._array_problem(jsonb, jsonb, jsonb, text, integer) is 'Internal: what is wrong with an array.';
comment on function @extschema@._combined_problem(jsonb, jsonb, jsonb, text, integer) is 'Internal: what is wrong by allOf, anyOf, oneOf and not.';
comment on function @extschema@._schema_target(jsonb, text) is 'Internal: what a reference in a schema names.';
comment on function @extschema@._check_schema(jsonb, jsonb, text) is 'Internal: what is wrong with a schema.';
comment on function @extschema@._check_keyword(jsonb, text, jsonb, text) is 'Internal: what is wrong with a keyword of a schema.';
comment on function @extschema@._check_limit(text, jsonb, text) is 'Internal: what is wrong with a simple keyword of a schema.';
comment on function @extschema@._quick_check(jsonb, jsonb, integer) is 'Internal: a schema as a condition of jsonpath.';
comment on function @extschema@._quick_scalars(jsonb) is 'Internal: the conditions for numbers, texts and sizes.';
comment on function @extschema@._of_kind(jsonb, text, text) is 'Internal: a condition for values of one kind.';
comment on function @extschema@._quick_length(integer) is 'Internal: the condition for the length of a text.';
comment on function @extschema@._quick_object(jsonb, jsonb, integer) is 'Internal: the condition for the members of an object.';
comment on function @extschema@._payload_problem(jsonb, json) is 'Internal: what is wrong with a payload.';
comment on function @extschema@._without_added(jsonb) is 'Internal: a payload without what is added on the way.';
comment on function @extschema@._check_payload(text, json) is 'Internal: refuses a payload that does not fit.';
comment on function @extschema@._history_time() is 'Internal: the time to record the end of a job at.';
comment on function @extschema@._add_history_partitions(timestamptz) is 'Internal: adds partitions of the history until there is one for a time.';
comment on function @extschema@._drop_history_partitions() is 'Internal: drops partitions whose time is over.';
comment on function @extschema@._delete_old_history() is 'Internal: deletes records that are to be kept no longer.';
comment on function @extschema@._note_crashes(text[]) is 'Internal: notes the attempts of jobs whose workers died.';
comment on function @extschema@._notify_waiters(bigint[]) is 'Internal: notifies those who wait for results.';
comment on function @extschema@._finish_and_record(text, bigint[], json[], double precision[], text[], timestamptz) is 'Internal: completes jobs, and records them.';
comment on function @extschema@._jobs_with_history(text, bigint[]) is 'Internal: those of the jobs whose history is kept.';
comment on function @extschema@._record_removed(@extschema@._private_jobs[], text, text) is 'Internal: records jobs that were deleted without being run.';
comment on function @extschema@._note_failures(text, json) is 'Internal: notes the attempts that failed.';
comment on function @extschema@._note_failed_job() is 'Internal: the trigger for a job that failed permanently.';
comment on function @extschema@._record_failed(@extschema@._private_jobs, text, @extschema@._private_attempts, text, boolean, integer) is 'Internal: records that a job failed permanently.';
comment on function @extschema@._add_dead_letter(@extschema@._private_jobs) is 'Internal: adds the job for one that failed permanently.';
comment on function @extschema@._revoke_internal(text, name) is 'Internal: revokes the rights on internal functions from a role.';
comment on function @extschema@._add_access(name, text) is 'Internal: grants a role the rights of a level.';
comment on function @extschema@.grant_access(name, text) is 'Gives a role one level of access: enqueue, work, admin or observe.';
comment on function @extschema@.revoke_access(name) is 'Revokes every right on the queue from a role.';

-- Only for an extension, from here on.

-- pg_dump saves the rows and counters of an extension only where it is told to. Of the migrations,
-- it saves those that this script does not make: a later revision of Node's.
select pg_catalog.pg_extension_config_dump('@extschema@._private_tasks', '');
select pg_catalog.pg_extension_config_dump('@extschema@._private_job_queues', '');
select pg_catalog.pg_extension_config_dump('@extschema@._private_jobs', '');
select pg_catalog.pg_extension_config_dump('@extschema@._private_known_crontabs', '');
select pg_catalog.pg_extension_config_dump('@extschema@._private_heartbeats', '');
select pg_catalog.pg_extension_config_dump('@extschema@._private_ended_workers', '');
select pg_catalog.pg_extension_config_dump('@extschema@._private_crashes', '');
select pg_catalog.pg_extension_config_dump('@extschema@._private_settings', '');
select pg_catalog.pg_extension_config_dump('@extschema@._private_pauses', '');
select pg_catalog.pg_extension_config_dump('@extschema@._private_limits', '');
select pg_catalog.pg_extension_config_dump('@extschema@._private_limit_states', '');
select pg_catalog.pg_extension_config_dump('@extschema@._private_cancellations', '');
select pg_catalog.pg_extension_config_dump('@extschema@._private_schedules', '');
select pg_catalog.pg_extension_config_dump('@extschema@._private_histories', '');
select pg_catalog.pg_extension_config_dump('@extschema@._private_history', '');
select pg_catalog.pg_extension_config_dump('@extschema@._private_history_partitions', '');
select pg_catalog.pg_extension_config_dump('@extschema@._private_attempts', '');
select pg_catalog.pg_extension_config_dump('@extschema@._private_progress', '');
select pg_catalog.pg_extension_config_dump('@extschema@._private_result_waits', '');
select pg_catalog.pg_extension_config_dump('@extschema@._private_dead_letters', '');
select pg_catalog.pg_extension_config_dump('@extschema@._private_payload_schemas', '');
select pg_catalog.pg_extension_config_dump('@extschema@._private_unreported_claims', '');
select pg_catalog.pg_extension_config_dump('@extschema@.tasks_id_seq', '');
select pg_catalog.pg_extension_config_dump('@extschema@.job_queues_id_seq', '');
select pg_catalog.pg_extension_config_dump('@extschema@.jobs_id_seq1', '');
select pg_catalog.pg_extension_config_dump(
  '@extschema@.migrations', 'where id > 20'
);

-- Ownership is given away in two cases only. An upgrade or a switch gives what it made to the owner
-- of the jobs, whoever runs it. And a dump is often restored by a superuser, but gives the schema
-- back to its owner before it creates the extension: the objects follow, or that role's workers
-- would be locked out. A restore is known by a setting that only dumps set.
do $$
declare
  v_owner name;
  r record;
begin
  select roles.rolname into v_owner
  from pg_catalog.pg_namespace as schemas
  join pg_catalog.pg_class as jobs
    on jobs.relnamespace = schemas.oid and jobs.relname = '_private_jobs'
  join pg_catalog.pg_roles as roles on roles.oid = case
    when jobs.relowner = current_user::pg_catalog.regrole and exists (
        select from pg_catalog.pg_settings as settings
        where settings.name = 'xmloption' and settings.source = 'session'
      )
      then schemas.nspowner
    else jobs.relowner
  end
  where schemas.nspname = 'graphile_worker';
  if v_owner = current_user or not pg_catalog.pg_has_role(current_user, v_owner, 'MEMBER') then
    return;
  end if;
  for r in select object.type, object.identity
    from pg_catalog.pg_extension as extensions
    join pg_catalog.pg_depend as members
      on members.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
      and members.refobjid = extensions.oid
      and members.deptype = 'e'
    left join pg_catalog.pg_type as types
      on types.oid = members.objid and members.classid = 'pg_catalog.pg_type'::pg_catalog.regclass
    left join pg_catalog.pg_class as rows_of on rows_of.oid = types.typrelid
    cross join lateral pg_catalog.pg_identify_object(members.classid, members.objid, 0) as object
    where extensions.extname = 'graphile_worker'
    and (object.type in ('table', 'sequence', 'view', 'function') or rows_of.relkind = 'c')
    and object.type <> 'sequence'
  loop
    execute pg_catalog.format('alter %s %s owner to %I', r.type, r.identity, v_owner);
  end loop;
end;
$$;
