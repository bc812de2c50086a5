'use strict';

// A Bee-Queue process for the Go tests to work with. It reads commands from
// stdin, one JSON object a line:
//
//   {"seq": 1, "do": "save", "queue": "q1", ...}
//
// and answers each with {"seq": 1, "value": ...} or {"seq": 1, "error": "..."}.
// In between it writes what happens, unasked:
//
//   {"queue": "q1", "from": "handler" | "queue" | "job", "event": "...", "id": "7", "data": ...}
//
// `from` says who told: a handler that was started, an event of the queue
// (Bee-Queue's local and PubSub events, by their names), or one of a job that
// was saved or fetched with {"watch": true}. It exits when stdin ends.

const readline = require('readline');
const Queue = require('bee-queue');

const queues = new Map();
const held = new Map(); // queue -> {open, waiting: [resolve]}

function write(message) {
  process.stdout.write(JSON.stringify(message) + '\n');
}

function plain(value) {
  return value instanceof Error ? value.message : value;
}

// failure is what a handler throws. A stack of the test's choice makes records
// that are the same on every machine.
function failure({ message = 'failed', stack }) {
  const error = new Error(message);
  if (stack) error.stack = stack;
  return error;
}

// The kinds of handlers, made from the settings that came with `process`.
const handlers = {
  // Succeeds with the job's data.
  echo: () => async (job) => job.data,
  // Does what the job's data say: fails, or succeeds with a result or with none.
  obey: () => async ({ data: { fail, result } }) => {
    if (fail) throw new Error(fail);
    return result;
  },
  fail: (how) => async () => {
    throw failure(how);
  },
  // Fails the first n runs of a job, by the record's own count.
  failTimes: (how) => async (job) => {
    const run = job.options.stacktraces.length + 1;
    if (run <= how.times) {
      throw failure({ ...how, message: `${how.message || 'failed'} ${run}` });
    }
    return job.data;
  },
  // Throws something that is no Error.
  throwValue: ({ value }) => async () => {
    throw value;
  },
  slow: ({ ms }) => (job) =>
    new Promise((resolve) => setTimeout(resolve, ms, job.data)),
  // Reports each of the values, then succeeds with the job's data, or fails.
  progress: (how) => async (job) => {
    for (const value of how.values) await job.reportProgress(value);
    if (how.fail) throw failure(how);
    return job.data;
  },
  // Waits for the command `release`.
  hold: (how, queue) => (job) => {
    const gate = held.get(queue);
    return gate.open
      ? Promise.resolve(job.data)
      : new Promise((resolve) => gate.waiting.push(() => resolve(job.data)));
  },
  // Never returns.
  hang: () => () => new Promise(() => {}),
};

function describe(job) {
  const { id, data, options, status, progress } = job;
  return { id, data, options, status, progress };
}

function watch(handle, job) {
  for (const event of ['succeeded', 'retrying', 'failed', 'progress']) {
    job.on(event, (data) =>
      write({ queue: handle, from: 'job', event, id: job.id, data: plain(data) })
    );
  }
}

function listen(handle, queue) {
  const tell = (event, id, data) =>
    write({ queue: handle, from: 'queue', event, id, data: plain(data) });
  queue.on('error', (err) => tell('error', undefined, err.stack));
  queue.on('stalled', (id) => tell('stalled', id));
  queue.on('raised jobs', (n) => tell('raised jobs', undefined, n));
  for (const event of ['succeeded', 'retrying', 'failed', 'failed:fatal']) {
    queue.on(event, (job, data) => tell(event, job.id, data));
  }
  for (const event of ['succeeded', 'retrying', 'failed', 'progress']) {
    queue.on(`job ${event}`, (id, data) => tell(`job ${event}`, id, data));
  }
}

function makeJob(queue, spec) {
  const job = queue.createJob(spec.data);
  if (spec.options) Object.assign(job.options, spec.options);
  if (spec.id !== undefined) job.setId(spec.id);
  if (spec.retries !== undefined) job.retries(spec.retries);
  if (spec.timeout !== undefined) job.timeout(spec.timeout);
  if (spec.backoff) job.backoff(spec.backoff.strategy, spec.backoff.delay);
  if (spec.delayUntil !== undefined) job.delayUntil(spec.delayUntil);
  return job;
}

const commands = {
  ping() {},

  async queue({ queue: handle, name, settings, strategies = {} }) {
    const queue = new Queue(name, settings);
    // Strategies of the user's own: the delay grows by a step each time.
    for (const [strategy, step] of Object.entries(strategies)) {
      queue.backoffStrategies.set(strategy, ({ options: { backoff } }) => {
        const { delay } = backoff;
        backoff.delay += step;
        return delay;
      });
    }
    queues.set(handle, queue);
    held.set(handle, { open: false, waiting: [] });
    listen(handle, queue);
    await queue.ready();
    return { keyPrefix: queue.settings.keyPrefix };
  },

  async save({ queue: handle, job: spec, watch: watched }) {
    const job = makeJob(queues.get(handle), spec);
    if (watched) watch(handle, job);
    await job.save();
    return job.id;
  },

  async saveAll({ queue: handle, jobs: specs }) {
    const queue = queues.get(handle);
    const jobs = specs.map((spec) => makeJob(queue, spec));
    const errors = await queue.saveAll(jobs);
    for (const err of errors.values()) throw err;
    return jobs.map((job) => job.id);
  },

  process({ queue: handle, concurrency, handler: { kind, ...how } }) {
    const handler = handlers[kind](how, handle);
    queues.get(handle).process(concurrency, (job) => {
      write({ queue: handle, from: 'handler', event: 'start', id: job.id, data: describe(job) });
      return handler(job);
    });
  },

  release({ queue: handle }) {
    const gate = held.get(handle);
    gate.open = true;
    for (const resolve of gate.waiting.splice(0)) resolve();
  },

  async job({ queue: handle, id, watch: watched }) {
    const job = await queues.get(handle).getJob(id);
    if (job && watched) watch(handle, job);
    return job && describe(job);
  },

  async jobs({ queue: handle, type, page }) {
    const jobs = await queues.get(handle).getJobs(type, page);
    return jobs.map((job) => job.id);
  },

  async retry({ queue: handle, id }) {
    const job = await queues.get(handle).getJob(id);
    await job.retry();
  },

  async isInSet({ queue: handle, id, set }) {
    const job = await queues.get(handle).getJob(id);
    return job.isInSet(set);
  },

  async remove({ queue: handle, id }) {
    await queues.get(handle).removeJob(id);
  },

  counts({ queue: handle }) {
    return queues.get(handle).checkHealth();
  },

  // Without an interval, one check; with one, a check every so often.
  checkStalledJobs({ queue: handle, interval }) {
    return queues.get(handle).checkStalledJobs(interval);
  },

  async destroy({ queue: handle }) {
    await queues.get(handle).destroy();
  },

  // Handlers that hang keep a queue from closing: not an error here.
  async close({ queue: handle, timeout }) {
    const queue = queues.get(handle);
    queues.delete(handle);
    await queue.close(timeout).catch((err) => {
      if (!/timed out/.test(err.message)) throw err;
    });
  },

  exit() {
    process.exit(0);
  },
};

async function answer({ seq, do: name, ...args }) {
  try {
    write({ seq, value: await commands[name](args) });
  } catch (err) {
    write({ seq, error: String(err.stack || err) });
  }
}

const lines = readline.createInterface({ input: process.stdin });
lines.on('line', (line) => void answer(JSON.parse(line)));
lines.on('close', () => process.exit(0));
