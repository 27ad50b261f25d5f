// Jobs and a schedule in pg-boss, as an application would have left them.
import { PgBoss } from 'pg-boss';

const boss = new PgBoss({ connectionString: process.argv[2], supervise: false, schedule: false });
boss.on('error', (error) => { throw error; });
await boss.start();
await boss.createQueue('email', { retryLimit: 3 });
await boss.createQueue('report', { policy: 'singleton' });
await boss.createQueue('sync', { policy: 'short' });
await boss.send('email', { to: 'ann' }, { priority: 5 });
await boss.send('email', { to: 'bob', n: 2 }, { startAfter: '2100-01-01T00:00:00Z' });
await boss.send('report', { n: 1 }, { singletonKey: 'a' });
await boss.send('report', { n: 2 }, { singletonKey: 'a' });
await boss.send('sync', null, { singletonKey: 'tenant 1' });
await boss.send('email', { to: 'at work' }, { priority: 9 });
const [running] = await boss.fetch('email');
if (running.data.to !== 'at work') throw new Error('another job was fetched');
await boss.schedule('report', '0 3 * * *', { kind: 'nightly' }, { tz: 'Europe/London' });
for (let n = 0; n < Number(process.argv[3]); n++) await boss.send('email', { n });
await boss.stop({ graceful: false });
process.exit(0);
