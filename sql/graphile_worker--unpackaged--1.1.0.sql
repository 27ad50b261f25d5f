\echo Use "gw-install switch extension" to load this file. \quit

-- Takes the plain objects of version 1.1.0 into the extension, as they are.
do $$
begin
  if @extschema@.version() <> '1.1.0' then
    raise exception 'The plain graphile_worker here has version "%"', @extschema@.version()
      using errcode = 'GWBIN',
        hint = 'Run "gw-install upgrade" first: only 1.1.0 can be taken in.';
  end if;
end;
$$;

alter extension graphile_worker add table @extschema@._private_tasks;
alter extension graphile_worker add table @extschema@._private_job_queues;
alter extension graphile_worker add table @extschema@._private_jobs;
alter extension graphile_worker add table @extschema@._private_known_crontabs;
alter extension graphile_worker add table @extschema@._private_heartbeats;
alter extension graphile_worker add table @extschema@._private_ended_workers;
alter extension graphile_worker add table @extschema@._private_crashes;
alter extension graphile_worker add table @extschema@._private_settings;
alter extension graphile_worker add table @extschema@._private_pauses;
alter extension graphile_worker add table @extschema@._private_limits;
alter extension graphile_worker add table @extschema@._private_limit_states;
alter extension graphile_worker add table @extschema@._private_cancellations;
alter extension graphile_worker add table @extschema@._private_schedules;
alter extension graphile_worker add table @extschema@._private_histories;
alter extension graphile_worker add table @extschema@._private_history;
alter extension graphile_worker add table @extschema@._private_history_partitions;
alter extension graphile_worker add table @extschema@._private_attempts;
alter extension graphile_worker add table @extschema@._private_progress;
alter extension graphile_worker add table @extschema@._private_result_waits;
alter extension graphile_worker add table @extschema@._private_dead_letters;
alter extension graphile_worker add table @extschema@._private_payload_schemas;
alter extension graphile_worker add table @extschema@._private_unreported_claims;
alter extension graphile_worker add table @extschema@.migrations;
alter extension graphile_worker add sequence @extschema@.tasks_id_seq;
alter extension graphile_worker add sequence @extschema@.job_queues_id_seq;
alter extension graphile_worker add sequence @extschema@.jobs_id_seq1;
alter extension graphile_worker add sequence @extschema@.names_deleted_seq;
alter extension graphile_worker add view @extschema@.jobs;
alter extension graphile_worker add view @extschema@.workers;
alter extension graphile_worker add view @extschema@.ended_workers;
alter extension graphile_worker add view @extschema@.queues;
alter extension graphile_worker add view @extschema@.crontabs;
alter extension graphile_worker add view @extschema@.pauses;
alter extension graphile_worker add view @extschema@.limits;
alter extension graphile_worker add view @extschema@.limit_states;
alter extension graphile_worker add view @extschema@.schedules;
alter extension graphile_worker add view @extschema@.histories;
alter extension graphile_worker add view @extschema@.job_history;
alter extension graphile_worker add view @extschema@.failed_jobs;
alter extension graphile_worker add view @extschema@.job_progress;
alter extension graphile_worker add view @extschema@.dead_letters;
alter extension graphile_worker add view @extschema@.payload_schemas;
alter extension graphile_worker add view @extschema@.job_sample;
alter extension graphile_worker add view @extschema@.next_jobs;
alter extension graphile_worker add view @extschema@._private_control_states;
alter extension graphile_worker add type @extschema@.job_spec;
alter extension graphile_worker add type @extschema@.claimed_job;
alter extension graphile_worker add function @extschema@.add_job(text, json, text, timestamptz, integer, text, integer, text[], text);
alter extension graphile_worker add function @extschema@.add_jobs(@extschema@.job_spec[], boolean);
alter extension graphile_worker add function @extschema@.add_jobs_with_modes(@extschema@.job_spec[], text[]);
alter extension graphile_worker add function @extschema@.add_job_to_route(text, text, json, text, timestamptz, integer, text, integer, text[], text);
alter extension graphile_worker add function @extschema@.add_jobs_to_route(text, json);
alter extension graphile_worker add function @extschema@.version();
alter extension graphile_worker add function @extschema@.job_names(integer, integer);
alter extension graphile_worker add function @extschema@.next_runs(text, text, integer, timestamptz);
alter extension graphile_worker add function @extschema@.get_results(bigint[]);
alter extension graphile_worker add function @extschema@.watch_results(text, integer);
alter extension graphile_worker add function @extschema@.get_jobs(text, integer, text[], text[]);
alter extension graphile_worker add function @extschema@.get_payload(text, bigint);
alter extension graphile_worker add function @extschema@.schema_revision();
alter extension graphile_worker add function @extschema@.finish_jobs(text, bigint[]);
alter extension graphile_worker add function @extschema@.finish_jobs_with_results(text, bigint[], json[], double precision[], text[]);
alter extension graphile_worker add function @extschema@.fail_jobs(text, json);
alter extension graphile_worker add function @extschema@.return_jobs(text, bigint[], timestamptz);
alter extension graphile_worker add function @extschema@.release_stale_locks();
alter extension graphile_worker add function @extschema@.heartbeat(text, text[], json, boolean);
alter extension graphile_worker add function @extschema@.count_idle_workers(text[]);
alter extension graphile_worker add function @extschema@.writing_transactions(text[]);
alter extension graphile_worker add function @extschema@.end_worker(text);
alter extension graphile_worker add function @extschema@.return_unknown_jobs(text, bigint[]);
alter extension graphile_worker add function @extschema@.recover_dead_workers(text);
alter extension graphile_worker add function @extschema@.register_crontabs(text[]);
alter extension graphile_worker add function @extschema@.add_cron_jobs(timestamptz, json);
alter extension graphile_worker add function @extschema@.run_schedules();
alter extension graphile_worker add function @extschema@.review_jobs(text, bigint[]);
alter extension graphile_worker add function @extschema@.return_and_pause(text, bigint, text, timestamptz, text);
alter extension graphile_worker add function @extschema@.report_progress(text, bigint, real, text);
alter extension graphile_worker add function @extschema@.maintain_history();
alter extension graphile_worker add function @extschema@.remove_job(text);
alter extension graphile_worker add function @extschema@.complete_jobs(bigint[]);
alter extension graphile_worker add function @extschema@.permanently_fail_jobs(bigint[], text);
alter extension graphile_worker add function @extschema@.reschedule_jobs(bigint[], timestamptz, integer, integer, integer);
alter extension graphile_worker add function @extschema@.force_unlock_workers(text[]);
alter extension graphile_worker add function @extschema@.list_jobs(bigint[], text[], text[], text[], text[], bigint, integer);
alter extension graphile_worker add function @extschema@.delete_failed_jobs(timestamptz, integer);
alter extension graphile_worker add function @extschema@.delete_unused_queues();
alter extension graphile_worker add function @extschema@.delete_unused_tasks(text[]);
alter extension graphile_worker add function @extschema@.set_recovery(interval, integer);
alter extension graphile_worker add function @extschema@.unlock_queues(text[]);
alter extension graphile_worker add function @extschema@.cancel_jobs(bigint[], text);
alter extension graphile_worker add function @extschema@.schedule(text, text, text, text, json, text, integer, integer, text, text[], interval, text);
alter extension graphile_worker add function @extschema@.unschedule(text);
alter extension graphile_worker add function @extschema@.pause_schedule(text);
alter extension graphile_worker add function @extschema@.resume_schedule(text);
alter extension graphile_worker add function @extschema@.run_schedule_now(text);
alter extension graphile_worker add function @extschema@.pause_queue(text, timestamptz, text);
alter extension graphile_worker add function @extschema@.resume_queue(text);
alter extension graphile_worker add function @extschema@.pause_task(text, timestamptz, text);
alter extension graphile_worker add function @extschema@.resume_task(text);
alter extension graphile_worker add function @extschema@.pause_all(timestamptz, text);
alter extension graphile_worker add function @extschema@.resume_all();
alter extension graphile_worker add function @extschema@.set_limit(text, text, integer, integer, interval, integer);
alter extension graphile_worker add function @extschema@.remove_limit(text, text);
alter extension graphile_worker add function @extschema@.keep_history(text, interval, boolean, boolean, integer);
alter extension graphile_worker add function @extschema@.stop_history(text);
alter extension graphile_worker add function @extschema@.keep_failed_jobs(interval);
alter extension graphile_worker add function @extschema@.on_dead_letter(text, text);
alter extension graphile_worker add function @extschema@.discard_jobs(bigint[], text);
alter extension graphile_worker add function @extschema@.get_job(bigint);
alter extension graphile_worker add function @extschema@.set_payload_schema(text, json, text);
alter extension graphile_worker add function @extschema@.find_unfit_jobs(text, json, bigint, integer);
alter extension graphile_worker add function @extschema@._reject_job(text, text, integer, text, integer, text[]);
alter extension graphile_worker add function @extschema@._reject_mode(text);
alter extension graphile_worker add function @extschema@._merge_payloads(json, json);
alter extension graphile_worker add function @extschema@._ensure_names(text[], text[]);
alter extension graphile_worker add function @extschema@._check_route(text);
alter extension graphile_worker add function @extschema@._reject_old_snapshot();
alter extension graphile_worker add function @extschema@._block_enqueues();
alter extension graphile_worker add function @extschema@._upsert_job(bigint, text, json, text, timestamptz, integer, text, integer, jsonb, text);
alter extension graphile_worker add function @extschema@._prepare_specs(@extschema@.job_spec[]);
alter extension graphile_worker add function @extschema@._upsert_jobs(@extschema@.job_spec[], bigint[], text[], bigint[], @extschema@._private_jobs[]);
alter extension graphile_worker add function @extschema@._visible_rows(@extschema@._private_jobs[], @extschema@.job_spec[], text[]);
alter extension graphile_worker add function @extschema@._keys_are_new(@extschema@.job_spec[]);
alter extension graphile_worker add function @extschema@._add_keyed_jobs(@extschema@.job_spec[], text[]);
alter extension graphile_worker add function @extschema@._before_lock_retry(text, timestamptz, interval);
alter extension graphile_worker add function @extschema@._without_content(@extschema@._private_jobs, json, text);
alter extension graphile_worker add function @extschema@._reject_fetch(text, integer);
alter extension graphile_worker add function @extschema@._refuse_ended_worker(text);
alter extension graphile_worker add function @extschema@._claim_first_jobs(text, integer, integer[], text[]);
alter extension graphile_worker add function @extschema@._reject_control(text, text);
alter extension graphile_worker add function @extschema@._notify_workers();
alter extension graphile_worker add function @extschema@._pause(text, text, timestamptz, text);
alter extension graphile_worker add function @extschema@._resume(text, text);
alter extension graphile_worker add function @extschema@._is_paused(text, text);
alter extension graphile_worker add function @extschema@._forget_controls();
alter extension graphile_worker add function @extschema@._note_running_jobs(text, text);
alter extension graphile_worker add function @extschema@._find_controls(integer[]);
alter extension graphile_worker add function @extschema@._wait_for_controls();
alter extension graphile_worker add function @extschema@._wake_limited(bigint[]);
alter extension graphile_worker add function @extschema@._pick_from_window(smallint, timestamptz, bigint, integer, integer, integer[], text[], boolean, boolean, integer[]);
alter extension graphile_worker add function @extschema@._find_partitions(integer[], integer[], boolean, integer, boolean, boolean);
alter extension graphile_worker add function @extschema@._pick_from_partitions(integer, integer[], text[], bigint[], integer[], boolean, boolean);
alter extension graphile_worker add function @extschema@._noted_jobs(bigint[], bigint[], boolean, integer);
alter extension graphile_worker add function @extschema@._next_start(timestamptz, bigint, integer, integer);
alter extension graphile_worker add function @extschema@._lock_limits(integer[], integer[], boolean, boolean);
alter extension graphile_worker add function @extschema@._count_within_limits(text[], integer[], integer[], bigint[], tid[], integer[], integer[]);
alter extension graphile_worker add function @extschema@._claim_within_limits(text, bigint[], tid[], integer[], integer[], boolean, integer[], text[]);
alter extension graphile_worker add function @extschema@._claim_jobs(text, tid[], integer[], integer[], text[]);
alter extension graphile_worker add function @extschema@._skip_ahead_cursors(text);
alter extension graphile_worker add function @extschema@._skip_to_picked(smallint[], timestamptz[], bigint[], bigint[], timestamptz);
alter extension graphile_worker add function @extschema@._remember_cursors(text, boolean, boolean, timestamptz, smallint[], timestamptz[], bigint[]);
alter extension graphile_worker add function @extschema@._claim_in_order(text, integer, integer[], text[], text, boolean, boolean, boolean);
alter extension graphile_worker add function @extschema@._return_held_jobs(text, bigint[]);
alter extension graphile_worker add function @extschema@._end_workers(text[]);
alter extension graphile_worker add function @extschema@._settled_ended_workers();
alter extension graphile_worker add function @extschema@._recover_locks(text[]);
alter extension graphile_worker add function @extschema@._unlock_queues_of(text[], boolean);
alter extension graphile_worker add function @extschema@._next_due();
alter extension graphile_worker add function @extschema@._cron_numbers(text, text, integer, integer, text[]);
alter extension graphile_worker add function @extschema@._reject_schedule(text, json, interval, text);
alter extension graphile_worker add function @extschema@._reject_unknown_schedule(text);
alter extension graphile_worker add function @extschema@._run_schedule(@extschema@._private_schedules, bigint, timestamptz, boolean);
alter extension graphile_worker add function @extschema@._runs_of_day(date, integer[], integer[], boolean, text);
alter extension graphile_worker add function @extschema@._any_worker_idle();
alter extension graphile_worker add function @extschema@._note_unreported_claim();
alter extension graphile_worker add function @extschema@._schema_problem(jsonb, jsonb, jsonb, text, integer);
alter extension graphile_worker add function @extschema@._is_of_type(jsonb, jsonb);
alter extension graphile_worker add function @extschema@._number_problem(jsonb, numeric);
alter extension graphile_worker add function @extschema@._string_problem(jsonb, text);
alter extension graphile_worker add function @extschema@._has_format(text, text);
alter extension graphile_worker add function @extschema@._object_problem(jsonb, jsonb, jsonb, text, integer);
alter extension graphile_worker add function @extschema@._pointer_part(text);
alter extension graphile_worker add function @extschema@._array_problem(jsonb, jsonb, jsonb, text, integer);
alter extension graphile_worker add function @extschema@._combined_problem(jsonb, jsonb, jsonb, text, integer);
alter extension graphile_worker add function @extschema@._schema_target(jsonb, text);
alter extension graphile_worker add function @extschema@._check_schema(jsonb, jsonb, text);
alter extension graphile_worker add function @extschema@._check_keyword(jsonb, text, jsonb, text);
alter extension graphile_worker add function @extschema@._check_limit(text, jsonb, text);
alter extension graphile_worker add function @extschema@._quick_check(jsonb, jsonb, integer);
alter extension graphile_worker add function @extschema@._quick_scalars(jsonb);
alter extension graphile_worker add function @extschema@._of_kind(jsonb, text, text);
alter extension graphile_worker add function @extschema@._quick_length(integer);
alter extension graphile_worker add function @extschema@._quick_object(jsonb, jsonb, integer);
alter extension graphile_worker add function @extschema@._payload_problem(jsonb, json);
alter extension graphile_worker add function @extschema@._without_added(jsonb);
alter extension graphile_worker add function @extschema@._check_payload(text, json);
alter extension graphile_worker add function @extschema@._history_time();
alter extension graphile_worker add function @extschema@._add_history_partitions(timestamptz);
alter extension graphile_worker add function @extschema@._drop_history_partitions();
alter extension graphile_worker add function @extschema@._delete_old_history();
alter extension graphile_worker add function @extschema@._note_crashes(text[]);
alter extension graphile_worker add function @extschema@._notify_waiters(bigint[]);
alter extension graphile_worker add function @extschema@._finish_and_record(text, bigint[], json[], double precision[], text[], timestamptz);
alter extension graphile_worker add function @extschema@._jobs_with_history(text, bigint[]);
alter extension graphile_worker add function @extschema@._record_removed(@extschema@._private_jobs[], text, text);
alter extension graphile_worker add function @extschema@._note_failures(text, json);
alter extension graphile_worker add function @extschema@._note_failed_job();
alter extension graphile_worker add function @extschema@._record_failed(@extschema@._private_jobs, text, @extschema@._private_attempts, text, boolean, integer);
alter extension graphile_worker add function @extschema@._add_dead_letter(@extschema@._private_jobs);
alter extension graphile_worker add function @extschema@._revoke_internal(text, name);
alter extension graphile_worker add function @extschema@._add_access(name, text);
alter extension graphile_worker add function @extschema@.grant_access(name, text);
alter extension graphile_worker add function @extschema@.revoke_access(name);

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
