// The tasks of `gw conformance`, run by Node's graphile-worker.
const { appendFileSync, existsSync } = require("node:fs");
const { setTimeout: sleep } = require("node:timers/promises");
const { run } = require(process.env.GW_MODULE);

const report = (event, { job }) =>
  appendFileSync(process.env.CONFORMANCE_REPORT, `${JSON.stringify({ event, job: Number(job.id) })}\n`);

async function gateOf(payload, { abortSignal }) {
  while (payload.gate && !existsSync(payload.gate)) {
    if (abortSignal?.aborted) throw new Error("stopped");
    await sleep(20);
  }
}

const taskList = {
  async run(payload, helpers) {
    report("start", helpers);
    await gateOf(payload, helpers);
    if (payload.error !== undefined) throw new Error(payload.error);
    report("end", helpers);
  },
  batch(payload, helpers) {
    report("start", helpers);
    return payload.map(async (element) => {
      if (element.fail) throw new Error("it failed");
    });
  },
  async write(payload, helpers) {
    await helpers.withPgClient(async (client) => {
      await client.query("insert into conformance.effects values ($1)", [helpers.job.id]);
      report("start", helpers);
      await gateOf(payload, helpers);
    });
    report("end", helpers);
  },
};

run({
  connectionString: process.env.DATABASE_URL,
  concurrency: Number(process.env.CONFORMANCE_CONCURRENCY),
  pollInterval: 1000 * Number(process.env.CONFORMANCE_POLL_SECONDS),
  taskList,
}).then((runner) => runner.promise).catch((error) => {
  console.error(error);
  process.exit(1);
});
