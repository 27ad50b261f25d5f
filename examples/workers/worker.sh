#!/bin/sh
# A worker of psql alone that keeps every rule of docs/protocol.md: each call is a psql, each job a
# subshell, and it polls. Its tasks are those of `gw conformance`: put your own in run_task.
# psql connects with PGHOST, PGUSER, PGDATABASE and so on.

CONCURRENCY=${CONFORMANCE_CONCURRENCY:-4} GRACE=${CONFORMANCE_GRACE_SECONDS:-5}
TASKS="{run,batch,write}"
folder=$(mktemp -d)    # a folder for each id, and in it one for each of its runs
trap 'stopping=1' TERM INT
stopping='' current='' server='' stop_at='' last_heartbeat=0 last_review=0 last_fetch=0

# Run SQL of standard input, with variables: they are inserted as quoted values.
sql() { psql -X -q -A -t -v ON_ERROR_STOP=1 -v VERBOSITY=sqlstate "$@"; }

# Call until there is an answer, also where a row was locked: to end something twice does no harm.
call() {
    statement=$(cat)
    until answer=$(printf '%s' "$statement" | sql "$@" 2> "$folder/error"); do
        sleep 0.1
    done
    printf '%s' "$answer"
}

report() { printf '{"event": "%s", "job": %s}\n' "$1" "$2" >> "$CONFORMANCE_REPORT"; }

# What an expression of SQL makes of the payload.
json() { printf 'select %s' "$1" | call -v payload="$(cat payload)"; }

# Run a task, in the folder of the run: that is gone once the run is to be stopped. What is written
# to `failure`, a JSON object, goes to fail_jobs.
run_task() {
    task=$1 worker=$2 job=$3
    [ "$task" = batch ] || gate=$(json "coalesce(:'payload'::json ->> 'gate', '')")
    export gate job
    case $task in
    run)
        json "case when :'payload'::json ->> 'error' is not null
            then json_build_object('error', :'payload'::json ->> 'error') end" > error
        report start "$job"
        while [ -n "$gate" ] && [ ! -e "$gate" ] && [ -e payload ]; do sleep 0.05; done
        [ -e payload ] || exit
        if [ -s error ]; then mv error failure; else report end "$job"; fi
        ;;
    batch)
        report start "$job"
        json "(select json_build_object('error', count(*) || ' elements failed', 'payload', json_agg(element))
            from json_array_elements(:'payload') element where element ->> 'fail' is not null
            having count(*) > 0)" > failure
        ;;
    write)    # the job is completed in the transaction of its own writes
        sql -v worker="$worker" -v job="$job" > settled <<'SQL'
begin;
insert into conformance.effects values (:job);
\! printf '{"event": "start", "job": %s}\n' "$job" >> "$CONFORMANCE_REPORT"
\! while [ -n "$gate" ] && [ ! -e "$gate" ] && [ -e payload ]; do sleep 0.05; done
select done from graphile_worker.finish_jobs(:'worker', array[:job::bigint]) \gset
\if :done
commit;
select 'done';
\else
rollback;
\endif
SQL
        if [ -s settled ]; then report end "$job"; else echo '{"error": "it was not written"}' > failure; fi
        ;;
    esac
}

heartbeat() {
    before=$server
    for path in "$folder"/psql-*/; do send_heartbeat "$(basename "$path")" old; done
    [ -z "$before" ] || [ "$before" = "$server" ] || renew
    echo "select from graphile_worker.recover_dead_workers(:'id')" | call -v id="$current"
}

send_heartbeat() {
    row=$(call -v id="$1" -v tasks="$TASKS" <<'SQL'
select is_known, greatest(1, floor(extract(epoch from dead_after) / 3))::int, extract(epoch from pg_postmaster_start_time())
from graphile_worker.heartbeat(:'id', :'tasks')
SQL
    )
    known=${row%%|*} row=${row#*|}
    every=${row%%|*} server=${row#*|}
    if [ "$known" = f ] && [ "$2" = old ]; then    # it was presumed dead: its jobs run elsewhere
        forget "$1"
        [ "$1" != "$current" ] || renew
    elif [ "$1" != "$current" ] && [ -z "$(ls "$folder/$1")" ]; then
        forget "$1"
    fi
}

forget() {
    echo "select graphile_worker.end_worker(:'id')" | call -v id="$1" > /dev/null
    rm -rf "${folder:?}/$1"
}

# Go on under a new id, since the database may have jobs in this one that are not known here.
renew() {
    old=$current
    current=psql-$(od -An -N8 -tx1 /dev/urandom | tr -d ' ')
    mkdir "$folder/$current"
    send_heartbeat "$current" new
    [ -z "$old" ] || [ ! -d "$folder/$old" ] || echo "select graphile_worker.return_unknown_jobs(:'id', :'jobs')" \
        | call -v id="$old" -v jobs="{$(ls "$folder/$old" | paste -sd,)}" > /dev/null
}

running() { find "$folder" -mindepth 2 -maxdepth 2 -type d | wc -l; }

fetch() {
    free=$((CONCURRENCY - $(running)))
    [ "$free" -gt 0 ] || return
    jobs=$(sql -v id="$current" -v free="$free" -v tasks="$TASKS" 2> "$folder/error" <<'SQL'
select id, task_identifier, payload from graphile_worker.get_jobs(:'id', :free, :'tasks')
SQL
    ) || { renew; return; }
    [ -z "$jobs" ] || while IFS='|' read -r job task payload; do
        mkdir "$folder/$current/$job"
        printf '%s' "$payload" > "$folder/$current/$job/payload"
        ( trap - TERM INT; cd "$folder/$current/$job" && run_task "$task" "$current" "$job" && touch ended ) &
    done <<JOBS
$jobs
JOBS
}

settle() {
    ended=''
    for path in "$folder"/psql-*/*/ended; do
        [ -e "$path" ] || continue
        ended=1 run=${path%/ended} worker=${path%/*/ended}
        if [ -s "$run/failure" ]; then
            fail_job "$run" "$(cat "$run/failure")"
        elif [ ! -s "$run/settled" ]; then
            echo "select from graphile_worker.finish_jobs(:'id', array[:job::bigint])" \
                | call -v id="${worker##*/}" -v job="${run##*/}"
        fi
        rm -rf "$run"
    done
}

fail_job() {
    worker=${1%/*}
    echo "select from graphile_worker.fail_jobs(:'id', json_build_array(:'failure'::jsonb || jsonb_build_object('id', :job)))" \
        | call -v id="${worker##*/}" -v job="${1##*/}" -v failure="$2"
}

review() {
    for path in "$folder"/psql-*/; do
        id=$(basename "$path")
        for job in $(echo "select job_id from graphile_worker.review_jobs(:'id')" | call -v id="$id"); do
            [ -d "$path$job" ] || continue
            fail_job "$path$job" '{"error": "cancelled", "final": true}'
            rm -rf "$path$job"
        done
    done
}

renew
while [ -z "$stopping" ] || { [ "$(running)" -gt 0 ] && [ "$(date +%s)" -lt "${stop_at:=$(($(date +%s) + GRACE))}" ]; }; do
    now=$(date +%s)
    [ $((now - last_heartbeat)) -lt "${every:-1}" ] || { last_heartbeat=$now; heartbeat; }
    [ $((now - last_review)) -lt 2 ] || { last_review=$now; review; }
    settle
    # Once a second, and when a job has ended.
    [ -n "$stopping" ] || [ "$now$ended" = "$last_fetch" ] || { last_fetch=$now; fetch; }
    sleep 0.2
done
settle
for path in "$folder"/psql-*/; do forget "$(basename "$path")"; done    # returns what did not end
rm -rf "$folder"
