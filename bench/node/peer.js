'use strict';

// The measured process for the peers in Node, Bee-Queue and BullMQ. The words it
// exchanges with its parent, the tasks and what is measured are those of
// ../internal/peer: an order comes in, {"ready": true} goes out, "go" comes in, the
// report goes out, "end" comes in. Whatever goes wrong before that ends in
// {"error": "..."} and exit code 1.

const readline = require('node:readline');
const { setTimeout: sleep } = require('node:timers/promises');

const bulkSize = 1000; // jobs in one call of a bulk save
const patience = 5 * 60_000; // ms that the slowest task may take
const closeTimeout = 5_000; // ms

// A peer is opened for one queue name with the roles it is to play: `producer`,
// `worker`, and `results` where somebody waits for them. Each role has connections
// of its own, as it has in an application. What is opened has these:
//
//   save(payload)         stores one job
//   bulk(payload, n)      stores n jobs in the peer's own way of doing so
//   work(handle, done)    starts the worker: handle is called for each job, done
//                         when the outcome of one is stored
//   request(payload)      saves a job and waits for its result; tells whether
//                         there is such a thing
//   close()
//
// Libraries are loaded by their own peer only: memory is measured, too.
const peers = {
  'bee-queue': (order, name, roles) => openBeeQueue(order, name, roles, {}, {}),

  // All that its README offers to leave out, as in the minimal variant of its own
  // benchmark.
  'bee-queue minimal': (order, name, roles) => {
    const quiet = { getEvents: false, sendEvents: false, storeJobs: false };
    return openBeeQueue(order, name, roles, quiet, { ...quiet, removeOnSuccess: true });
  },

  bullmq: openBullMQ,
};

async function openBeeQueue({ url, concurrency }, name, roles, forProducer, forWorker) {
  const Queue = require('bee-queue');

  const open = (settings) => {
    const queue = new Queue(name, { redis: url, ...settings });
    queue.on('error', fail);
    return queue.ready();
  };
  const producer = roles.producer && (await open({ ...forProducer, isWorker: false }));
  const worker = roles.worker && (await open({ ...forWorker, isWorker: true }));

  return {
    save: (payload) => producer.createJob(payload).save(),

    async bulk(payload, n) {
      const jobs = Array.from({ length: n }, () => producer.createJob(payload));
      const errors = await producer.saveAll(jobs);
      for (const err of errors.values()) throw err;
    },

    work(handle, done) {
      worker.on('succeeded', () => done());
      worker.on('failed', (job, err) => fail(err));
      worker.process(concurrency, async () => handle());
    },

    async request(payload) {
      const job = producer.createJob(payload);
      if (!producer.settings.getEvents) {
        await job.save();
        return false;
      }
      // Listening starts before the save, so that no result comes too early.
      const result = new Promise((resolve) => job.on('succeeded', resolve));
      await job.save();
      await result;
      return true;
    },

    close: () => closeAll([worker, producer]),
  };
}

async function openBullMQ({ url, concurrency }, name, roles) {
  const { Queue, QueueEvents, Worker } = require('bullmq');
  const connection = { url };

  const open = async (part) => {
    part.on('error', fail);
    await part.waitUntilReady();
    return part;
  };
  const queue = roles.producer && (await open(new Queue(name, { connection })));
  const events = roles.results && (await open(new QueueEvents(name, { connection })));
  let handler;
  const worker =
    roles.worker &&
    (await open(
      new Worker(name, async () => handler(), { connection, concurrency, autorun: false })
    ));

  return {
    save: (payload) => queue.add('job', payload),

    bulk: (payload, n) =>
      queue.addBulk(Array.from({ length: n }, () => ({ name: 'job', data: payload }))),

    work(handle, done) {
      handler = handle;
      worker.on('completed', () => done());
      worker.on('failed', (job, err) => fail(err));
      worker.run().catch(fail);
    },

    async request(payload) {
      const job = await queue.add('job', payload);
      await job.waitUntilFinished(events);
      return true;
    },

    close: () => closeAll([worker, events, queue]),
  };
}

// closeAll closes what there is of the parts of a peer, or of several peers.
function closeAll(parts) {
  return Promise.all(parts.filter(Boolean).map((part) => part.close()));
}

// The tasks, with the roles they need. What they return is merged into the report.
const tasks = {
  save: { roles: { producer: true }, run: taskSave },
  bulk: { roles: { producer: true }, run: taskBulk },
  drain: { roles: { worker: true }, run: taskDrain },
  mixed: { roles: { producer: true, worker: true }, run: taskMixed },
  latency: { roles: { producer: true, worker: true, results: true }, run: taskLatency },
  work: { roles: { worker: true }, run: taskWork },
  idle: { roles: { worker: true }, run: taskWork },
};

// payloadOf is an object that makes n bytes of JSON.
function payloadOf(n) {
  const frame = JSON.stringify({ p: '' }).length;
  return { p: 'x'.repeat(Math.max(0, n - frame)) };
}

// saveAll saves the jobs one by one with so many calls in flight.
async function saveAll(queues, { jobs, payload: size }, inFlight) {
  const payload = payloadOf(size);
  let next = 0;
  const saver = async () => {
    while (next < jobs) {
      const queue = queues[next++ % queues.length];
      await queue.save(payload);
    }
  };
  await Promise.all(Array.from({ length: Math.min(inFlight, jobs) }, saver));
}

function taskSave(queues, order) {
  return saveAll(queues, order, order.concurrency);
}

async function taskBulk(queues, order) {
  const payload = payloadOf(order.payload);
  const share = Math.floor(order.jobs / queues.length);
  for (const queue of queues) {
    for (let left = share; left > 0; left -= bulkSize) {
      await queue.bulk(payload, Math.min(left, bulkSize));
    }
  }
}

// workUntil starts the workers, and gives a promise of so many jobs being done.
function workUntil(queues, jobs) {
  return new Promise((resolve) => {
    let left = jobs;
    const done = () => {
      if (--left === 0) resolve();
    };
    for (const queue of queues) queue.work(() => {}, done);
  });
}

// taskDrain works jobs that are waiting already.
function taskDrain(queues, order) {
  return workUntil(queues, order.jobs);
}

// taskMixed saves jobs, all at once, and works them meanwhile.
async function taskMixed(queues, order) {
  const worked = workUntil(queues, order.jobs);
  await saveAll(queues, order, order.jobs);
  await worked;
}

// taskWork starts workers that go on until the end.
async function taskWork(queues) {
  for (const queue of queues) queue.work(() => {}, () => {});
}

// taskLatency gives an idle worker one job at a time.
async function taskLatency([queue], order) {
  const payload = payloadOf(order.payload);
  const start = [];
  const result = [];
  let started;
  let done;
  queue.work(
    () => { started = performance.now(); },
    () => done()
  );
  const micros = (from, to) => (to - from) * 1000;
  for (let i = 0; i < order.jobs; i++) {
    // A pause, so that the worker is idle again; of changing length, so that it
    // does not fall in step with anybody's timer. Node's timers drop the half
    // milliseconds.
    await sleep(2 + (i % 7) * 0.5);
    const stored = new Promise((resolve) => { done = resolve; });
    const from = performance.now();
    const answered = await queue.request(payload);
    if (answered) result.push(micros(from, performance.now()));
    await stored;
    start.push(micros(from, started));
  }
  return { start, result: result.length > 0 ? result : undefined };
}

// measure runs a task over the queues.
async function measure(queues, order) {
  const cpu = process.cpuUsage();
  const start = performance.now();
  const found = await within(patience, tasks[order.task].run(queues, order), 'the task');
  const seconds = (performance.now() - start) / 1000;
  const { user, system } = process.cpuUsage(cpu);
  return { jobs: order.jobs, seconds, cpu: (user + system) / 1e6, ...found };
}

// within gives the promise's outcome if it comes in time.
async function within(ms, promise, what) {
  let timer;
  const late = new Promise((resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} was not done in ${ms / 1000} s`)), ms);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

// warmUp runs some jobs through a queue of their own: connections, scripts and
// the compiler have then had their first time. All that it opens is closed again.
async function warmUp(open, order) {
  const { task, jobs, warm } = order;
  if (!warm) return;
  if (task === 'latency') {
    // Which is slow, and does little a second.
    await rehearse(open, order, 'mixed', warm);
    await rehearse(open, order, 'latency', Math.min(20, Math.floor(jobs / 10)));
  } else if (task === 'work' || task === 'idle') {
    await rehearse(open, order, 'drain', warm);
  } else {
    await rehearse(open, order, task, warm);
  }
}

// rehearse runs a task from beginning to end.
async function rehearse(open, order, task, jobs) {
  const roles = { ...tasks[task].roles };
  if (task === 'drain') roles.producer = true;
  const queue = await open(order, 'warm-up', roles);
  if (task === 'drain') await queue.bulk(payloadOf(order.payload), jobs);
  await measure([queue], { ...order, task, jobs });
  await within(closeTimeout, queue.close(), 'closing');
}

async function serve() {
  const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();
  const read = async () => (await lines.next()).value;
  const expect = async (word) => {
    const got = await read();
    if (got?.trim() !== word) throw new Error(`want "${word}", got "${got ?? ''}"`);
  };

  const order = JSON.parse((await read()) ?? '{}');
  const open = peers[order.peer];
  if (!open) throw new Error(`no peer "${order.peer}" in Node`);
  if (!tasks[order.task]) throw new Error(`no task "${order.task}"`);
  await warmUp(open, order);

  const names = order.queues
    ? Array.from({ length: order.queues }, (_, i) => order.queue + i)
    : [order.queue];
  const queues = [];
  for (const name of names) queues.push(await open(order, name, tasks[order.task].roles));
  say({ ready: true });
  await expect('go');
  say(await measure(queues, order));
  await expect('end');
  await within(closeTimeout, closeAll(queues), 'closing');
  process.exit(0);
}

function say(message) {
  process.stdout.write(JSON.stringify(message) + '\n');
}

function fail(err) {
  console.error(err);
  say({ error: err?.message || err?.code || String(err) });
  process.exit(1);
}

process.on('uncaughtException', fail);
serve().catch(fail);
