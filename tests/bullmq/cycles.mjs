// Jobs a second through BullMQ's prioritised queue: added in bulk, then taken and completed by workers that do
// nothing. Prints two numbers: whole cycles (added, taken, completed), and taken and completed alone.
//
//   node cycles.mjs PORT JOBS CONCURRENCY
import { Queue, Worker } from 'bullmq';

const [port, jobs, concurrency] = process.argv.slice(2).map(Number);
const connection = { host: '127.0.0.1', port, maxRetriesPerRequest: null };
const queue = new Queue('chunks', { connection });

const all = Array.from({ length: jobs }, (_, index) => ({
  name: 'chunk',
  data: { job: 1, frames: String(index) },
  opts: { priority: 1 + (index % 100), removeOnComplete: false },
}));
const begun = performance.now();
for (let at = 0; at < jobs; at += 1000) {
  await queue.addBulk(all.slice(at, at + 1000));
}

let done = 0;
let started;
const finished = new Promise((resolve) => {
  const worker = new Worker(
    'chunks',
    async () => {
      started ??= performance.now();
    },
    { connection, concurrency },
  );
  worker.on('completed', () => {
    done += 1;
    if (done === jobs) resolve(worker);
  });
});
const worker = await finished;
const ended = performance.now();
const rate = (from) => (jobs / ((ended - from) / 1000)).toFixed(0);
console.log(rate(begun), rate(started));
await worker.close();
await queue.close();
