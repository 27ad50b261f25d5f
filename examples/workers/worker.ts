// A worker in TypeScript that keeps every rule of docs/protocol.md. Its tasks are those of
// `gw conformance`: put your own in tasks. Needs the package pg; Node 22.18 or later runs it as it is.
import { randomBytes } from "node:crypto";
import { appendFileSync, existsSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";

const url = process.env.DATABASE_URL!;
const setting = (name: string) => Number(process.env[name]);
const concurrency = setting("CONFORMANCE_CONCURRENCY");
const [poll, grace] = [1000 * setting("CONFORMANCE_POLL_SECONDS"), 1000 * setting("CONFORMANCE_GRACE_SECONDS")];

type Failure = { error: string; payload?: unknown[]; final?: boolean };
type Run = { worker: string; id: number; payload: any; stopped: boolean; failure?: Failure; isSettled?: boolean };

// A task throws to fail its job. It may set run.failure, and run.isSettled if it has completed the job.
const tasks: Record<string, (run: Run) => Promise<void>> = {
  async run(run) {
    report("start", run);
    await gateOf(run);
    if (run.payload.error !== undefined) throw new Error(run.payload.error);
    report("end", run);
  },
  async batch(run) {
    report("start", run);
    const failed = run.payload.filter((element: any) => element.fail);
    if (failed.length) run.failure = { error: `${failed.length} elements failed`, payload: failed };
  },
  // The job is completed in the transaction of its own writes: they are committed once, or not at all.
  async write(run) {
    const db = new pg.Client(url);
    db.on("error", () => {});
    await db.connect();
    try {
      await db.query("begin");
      await db.query("insert into conformance.effects values ($1)", [run.id]);
      report("start", run);
      await gateOf(run);
      const ended = await db.query("select done from graphile_worker.finish_jobs($1, array[$2::bigint])", [run.worker, run.id]);
      if (!ended.rows[0].done) throw new Error("the job was lost");
      await db.query("commit");
      run.isSettled = true;
      report("end", run);
    } finally {
      await db.end();
    }
  },
};
const names = Object.keys(tasks);
const report = (event: string, run: Run) =>
  appendFileSync(process.env.CONFORMANCE_REPORT!, `${JSON.stringify({ event, job: run.id })}\n`);

async function gateOf(run: Run) {
  while (run.payload.gate && !existsSync(run.payload.gate) && !run.stopped) await sleep(20);
  if (run.stopped) throw new Error("stopped");
}

// Whether the connection is gone, or the server starts or shuts down.
const isLost = (error: any) => !/^[0-9A-Z]{5}$/.test(error.code ?? "") || error.code.startsWith("57P");

class Worker {
  db?: pg.Client;
  current = "";
  runs = new Map<string, Map<number, Run>>(); // of each id that it has
  running = () => [...this.runs.values()].reduce((count, runs) => count + runs.size, 0);
  every = 1000;
  server?: string;
  events: (Run | string)[] = [];
  wake = () => {};
  emit = (event: Run | string) => (this.events.push(event), this.wake());

  async once(sql: string, ...args: unknown[]): Promise<any[]> {
    if (!this.db) {
      const db = new pg.Client({ connectionString: url, connectionTimeoutMillis: 10000 });
      for (const end of ["error", "end"]) db.on(end, () => (this.db = this.db === db ? undefined : this.db));
      db.on("notification", (note) => this.emit(note.channel));
      await db.connect();
      await db.query('listen "jobs:insert"; listen "jobs:control"');
      this.db = db;
      this.emit("jobs:insert"); // what came before is not told of
    }
    return (await this.db.query(sql, args)).rows;
  }

  // Calls until there is an answer: to end something twice does no harm.
  async call(sql: string, ...args: unknown[]): Promise<any[]> {
    for (;;) {
      try {
        return await this.once(sql, ...args);
      } catch (error: any) {
        if (!isLost(error) && error.code !== "55P03") throw error;
        if (isLost(error)) this.db = undefined;
        await sleep(100);
      }
    }
  }

  async heartbeat() {
    const before = this.server;
    for (const id of [...this.runs.keys()]) await this.sendHeartbeat(id, false);
    if (before !== this.server) await this.renew();
    await this.call("select from graphile_worker.recover_dead_workers($1)", this.current);
  }

  async sendHeartbeat(id: string, isNew: boolean) {
    const [row] = await this.call(
      `select is_known, extract(epoch from dead_after)::float8 as seconds, pg_postmaster_start_time()::text as server
       from graphile_worker.heartbeat($1, $2)`, id, names);
    this.every = (1000 * row.seconds) / 3;
    this.server = row.server;
    if (!row.is_known && !isNew) { // it was presumed dead: its jobs run elsewhere
      for (const run of this.runs.get(id)!.values()) run.stopped = true;
      await this.forget(id);
      if (id === this.current) await this.renew();
    } else if (id !== this.current && this.runs.get(id)!.size === 0) {
      await this.forget(id);
    }
  }

  forget = async (id: string) => (await this.call("select graphile_worker.end_worker($1)", id), this.runs.delete(id));

  // Goes on under a new id, since the database may have jobs in the old one that are not known here.
  async renew() {
    const old = this.current;
    this.current = `node-${randomBytes(8).toString("hex")}`;
    this.runs.set(this.current, new Map());
    await this.sendHeartbeat(this.current, true);
    const held = [...(this.runs.get(old)?.keys() ?? [])];
    if (this.runs.has(old)) await this.call("select graphile_worker.return_unknown_jobs($1, $2)", old, held);
  }

  // Claims and starts jobs; returns after how many milliseconds there may be more.
  async fetch(): Promise<number> {
    for (let free; (free = concurrency - this.running()) > 0; ) {
      try {
        const [{ jobs, more }] = await this.once(
          `select coalesce(json_agg(jobs), '[]') as jobs, current_setting('graphile_worker.more', true) as more
           from graphile_worker.get_jobs($1, $2, $3) as jobs`, this.current, free, names);
        for (const job of jobs) this.start(job);
        if (Number(more)) return 1000 * Number(more);
        if (more !== "true" && jobs.length < free) return poll; // "limited": the end of a job fetches again
      } catch (error) {
        if (isLost(error)) this.db = undefined;
        await (isLost(error) ? this.renew() : this.heartbeat()); // it tells whether the worker was presumed dead
        return 200;
      }
    }
    return poll;
  }

  start(job: { id: number; task_identifier: string; payload: unknown }) {
    const run: Run = { worker: this.current, id: job.id, payload: job.payload, stopped: false };
    this.runs.get(this.current)!.set(job.id, run);
    tasks[job.task_identifier](run)
      .catch((error) => (run.failure = { error: error.message }))
      .finally(() => this.emit(run));
  }

  async settle(run: Run) {
    if (!this.runs.get(run.worker)?.delete(run.id)) return; // it was cancelled, or runs elsewhere
    const { worker, id, failure } = run;
    if (failure) await this.call("select from graphile_worker.fail_jobs($1, $2)", worker, JSON.stringify([{ id, ...failure }]));
    else if (!run.isSettled) await this.call("select from graphile_worker.finish_jobs($1, array[$2::bigint])", worker, id);
  }

  async review() {
    for (const [id, runs] of [...this.runs]) {
      for (const row of await this.call("select job_id from graphile_worker.review_jobs($1)", id)) {
        const run = runs.get(Number(row.job_id)); // only jobs that were not started can be paused
        if (!run) continue;
        run.stopped = true;
        await this.settle({ ...run, isSettled: false, failure: { error: "cancelled", final: true } });
      }
    }
  }

  async work() {
    let [heartbeatAt, reviewAt, fetchAt, stopAt] = [0, Date.now() + 10000, 0, Infinity];
    for (const signal of ["SIGTERM", "SIGINT"]) process.on(signal, () => this.emit("stop"));
    await this.renew();
    while (Date.now() < stopAt && !(stopAt < Infinity && this.running() === 0)) {
      const until = Math.min(heartbeatAt, reviewAt, stopAt, stopAt < Infinity ? Infinity : fetchAt);
      const event = this.events.shift();
      if (event === "stop") stopAt = Math.min(stopAt, Date.now() + grace);
      else if (event === "jobs:control") await this.review();
      else if (event === "jobs:insert") fetchAt = 0;
      else if (event) await this.settle(event as Run), (fetchAt = 0);
      else if (Date.now() >= heartbeatAt) await this.heartbeat(), (heartbeatAt = Date.now() + this.every);
      else if (Date.now() >= reviewAt) await this.review(), (reviewAt = Date.now() + 10000);
      else if (Date.now() >= fetchAt && stopAt === Infinity) fetchAt = Date.now() + (await this.fetch());
      else await Promise.race([new Promise<void>((wake) => (this.wake = wake)), sleep(Math.min(until - Date.now(), 200))]);
    }
    for (const id of this.runs.keys()) await this.call("select graphile_worker.end_worker($1)", id); // returns what did not end
    process.exit(0);
  }
}

await new Worker().work();
