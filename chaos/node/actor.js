'use strict';

// A producer or a worker of the chaos harness that uses Node's bee-queue, as
// ../internal/actor is one for Go: its only argument is an order, it writes what it does
// to a ledger, and it ends by SIGTERM (an open producer once it has saved its jobs, too),
// or when its standard input is closed.

const fs = require('node:fs');
const Queue = require('bee-queue');

const order = JSON.parse(process.argv[2]);
const ledger = fs.openSync(order.ledger, 'a');

// note writes an entry, with one write, so that none is lost by a kill.
function note(what, n = 0, id = '', text = '') {
  const now = BigInt(Date.now()) * 1_000_000n; // a number would lose digits
  const rest = JSON.stringify({ e: what, n, id, x: text });
  fs.writeSync(ledger, `{"t":${now},${rest.slice(1)}\n`);
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, Math.max(0, ms)));
let stopping = false; // break off
let told = false; // by SIGTERM

const queue = new Queue(`{${order.queue}}`, {
  redis: order.url,
  isWorker: order.role === 'worker',
  getEvents: Boolean(order.listen),
  storeJobs: false,
  stallInterval: order.stall || 5000,
  removeOnSuccess: order.remove,
  autoConnect: true,
});
queue.on('error', (err) => {
  if (order.log) console.error(err.message);
  else note('error', 0, '', err.message);
});

// payload is the data of job n.
function payload(n) {
  const special = (order.special || []).find((job) => job.n === n);
  const job = { ...order.job, ...special, n };
  return { n: job.n, ...job }; // the number comes first
}

const create = (n) => queue.createJob(payload(n)).retries(3);

// A refusal by Redis is certain. Of all else nobody knows.
const verdict = (err) => (err.name === 'ReplyError' ? 'refused' : 'unsure');

// within gives up on a promise.
function within(promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error('no answer in time')), order.within || 10_000);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

async function save(n) {
  const job = create(n);
  while (!stopping) {
    note('save', n);
    try {
      await within(job.save());
      return note('saved', n, job.id);
    } catch (err) {
      note(verdict(err), n, '', err.message);
    }
    if (!order.again) return;
    await sleep(50);
  }
}

async function produce() {
  const began = Date.now();
  const end = order.from + order.count;
  let next = order.from;
  if (order.batch > 0) {
    for (; next < end && !stopping; next += order.batch) {
      const jobs = [];
      for (let n = next; n < Math.min(end, next + order.batch); n++) {
        note('save', n);
        jobs.push(create(n));
      }
      const failed = await within(queue.saveAll(jobs));
      for (const job of jobs) {
        const err = failed.get(job);
        if (err) note(verdict(err), job.data.n, '', err.message);
        else note('saved', job.data.n, job.id);
      }
    }
    return;
  }
  const over = () => next >= end && (told || !order.open);
  const line = async () => {
    while (!over() && !stopping) {
      const n = next++;
      if (order.rate > 0) await sleep(began + ((n - order.from) * 1000) / order.rate - Date.now());
      await save(n);
    }
  };
  await Promise.all(Array.from({ length: order.lines || 1 }, line));
}

async function handle(job) {
  const { n, ms, does } = job.data;
  note('start', n, job.id);
  if (does === 'kills') {
    process.kill(process.pid, 'SIGKILL');
    await new Promise(() => {});
  }
  if (ms > 0) await sleep(ms);
  note('end', n, job.id);
}

async function main() {
  process.stdin.on('end', () => process.exit(3)).resume();
  process.on('SIGTERM', () => {
    told = true;
    stopping = !order.open;
    if (order.role === 'worker') leave();
  });
  await queue.ready();
  note('ready');
  if (order.role === 'producer') {
    await produce();
    return leave();
  }
  queue.on('succeeded', (job) => note('done', job.data.n, job.id));
  if (order.listen) queue.on('job succeeded', (id) => note('heard', 0, id));
  queue.process(order.concurrency, handle);
  const check = () => queue.checkStalledJobs(order.stall).catch(() => setTimeout(check, order.stall)); // goes on by itself
  check();
}

async function leave() {
  let text = '';
  try {
    await queue.close(order.grace || 5000);
  } catch (err) {
    text = err.message;
  }
  note('exit', 0, '', text);
  process.exit(0);
}

main().catch((err) => {
  console.error(err);
  process.exit(1);
});
