// A Node worker whose tasks write down that they ran, in the table public.ran.
const { run } = require(process.env.GW_MODULE);
const options = JSON.parse(process.env.GW_OPTIONS);

async function note(payload, helpers, name) {
  const job = helpers.job;
  const failing = job.attempts === 1 && Boolean(payload?.fails_once);
  await helpers.withPgClient(async (client) => {
    await client.query(
      `insert into public.ran (job_id, attempt, task, payload, queue_name, by, worker, failed)
       values ($1, $2, $3, $4,
         (select queue_name from graphile_worker._private_job_queues where id = $5), $6, $7, $8)`,
      [
        job.id,
        job.attempts,
        name,
        JSON.stringify(payload),
        job.job_queue_id,
        options.by ?? "node",
        job.locked_by,
        failing,
      ],
    );
    if (options.pause) await client.query("select pg_sleep($1)", [options.pause]);
    await client.query(
      "update public.ran set ended = clock_timestamp() where job_id = $1 and ended is null",
      [job.id],
    );
  });
  if (failing) throw new Error("the first attempt fails");
}

const taskList = {
  note: (payload, helpers) => note(payload, helpers, "note"),
  tick: (payload, helpers) => note(payload, helpers, "tick"),
  fail: async () => {
    throw new Error("node says no");
  },
  batch: async (payload, helpers) => {
    await note(payload, helpers, "batch");
    return payload.map(async (element) => {
      if (element.bad) throw new Error(`bad ${element.bad}`);
    });
  },
};

const { pause, by, ...rest } = options;
run({
  connectionString: process.env.GW_URL,
  concurrency: 4,
  pollInterval: 200,
  taskList,
  crontab: "",
  ...rest,
}).then(
  (runner) => runner.promise,
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
