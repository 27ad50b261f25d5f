// Node's worker: node node.js MODULE URL SETTINGS. Its task does what job.py says.
const [, , module_, connectionString, settings] = process.argv;
const { run, Logger } = require(module_);
const seen = new Set();

async function bench({ n, wait }) {
  if (n > 0 || !seen.has(n)) {
    const ns = BigInt(Math.round((performance.timeOrigin + performance.now()) * 1000)) * 1000n;
    process.stdout.write(`${n} ${ns}\n`);
    seen.add(n);
  }
  if (wait) await new Promise((done) => setTimeout(done, wait * 1000));
}

run({
  preset: { worker: { connectionString, ...JSON.parse(settings) } },
  taskList: { bench },
  logger: new Logger(() => () => {}),
}).then((runner) => runner.promise);
