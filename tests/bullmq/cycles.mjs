// Jobs a second through BullMQ's prioritised queue: added beforehand, then taken and completed by workers that
// do nothing. Prints the number.
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
console.log((jobs / ((performance.now() - started) / 1000)).toFixed(0));
await worker.close();
await queue.close();
