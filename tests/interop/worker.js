// A Node worker whose tasks write down that they ran, in the table public.ran.
const { run } = require(process.env.GW_MODULE);
const options = JSON.parse(process.env.GW_OPTIONS);

async function note(payload, helpers, name) {
  const job = helpers.job;
  await helpers.withPgClient(async (client) => {
    const queue =
      "select queue_name from graphile_worker._private_job_queues where id = $1";
    await client.query(
      `insert into public.ran (job_id, task, payload, queue_name, by)
       values ($1, $2, $3, (${queue.replace("$1", "$4")}), 'node')`,
      [job.id, name, JSON.stringify(payload), job.job_queue_id],
    );
    if (options.pause) await client.query("select pg_sleep($1)", [options.pause]);
    await client.query(
      "update public.ran set ended = clock_timestamp() where job_id = $1 and ended is null",
      [job.id],
    );
  });
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

const { pause, ...rest } = options;
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
