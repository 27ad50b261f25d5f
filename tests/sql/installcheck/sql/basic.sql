\set SHOW_CONTEXT never
-- The main job from plain SQL: add, fetch, finish.
select extversion = graphile_worker.version() as is_current from pg_extension where extname = 'graphile_worker';
select (graphile_worker.add_job('send_email', '{"to": "a@b.c"}')).id;
select (graphile_worker.add_job('send_email', '{"to": "d@e.f"}', queue_name := 'mail')).id;
select id, task_identifier, queue_name, payload, attempts from graphile_worker.get_jobs('w', 10);
select * from graphile_worker.finish_jobs('w', array[1]);
select * from graphile_worker.fail_jobs('w', '[{"id": 2, "error": "no route"}]');
select id, attempts, last_error, locked_by from graphile_worker.jobs;
select graphile_worker.add_job('');
