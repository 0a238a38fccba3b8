// Routes random vectors through the original Rust router, by its Node package, whenever it is told to.
// In: node peer.js FOLDER DIM, FOLDER being where the package was installed; then on standard input lines of
// "candidates repetitions". Out: for each line one of JSON, the microseconds of every call as its caller sees them
// ("waits") and as the Rust core reports them ("core").
'use strict';
const path = require('node:path');
const readline = require('node:readline');
const { createRequire } = require('node:module');

const [folder, dim] = [process.argv[2], Number(process.argv[3])];
const { Router } = createRequire(path.resolve(folder, 'package.json'))('@ruvector/tiny-dancer');
const router = new Router({ modelPath: 'none', confidenceThreshold: 0.85, maxUncertainty: 0.15, enableCircuitBreaker: true });

const drawn = () => Float32Array.from({ length: dim }, () => Math.random() * 2 - 1);
const sets = new Map();

function candidates(count) {
  if (!sets.has(count)) {
    const createdAt = Math.floor(Date.now() / 1000);
    sets.set(count, Array.from({ length: count }, (_, i) => (
      { id: `c${i}`, embedding: drawn(), metadata: '{}', createdAt, accessCount: i % 200, successRate: 0.9 })));
  }
  return sets.get(count);
}

async function measured(count, repetitions) {
  const kept = candidates(count);
  const waits = [];
  const core = [];
  for (let i = 0; i < repetitions; i += 1) {
    const queryEmbedding = drawn();
    const start = process.hrtime.bigint();
    const response = await router.route({ queryEmbedding, candidates: kept });
    waits.push(Number(process.hrtime.bigint() - start) / 1e3);
    core.push(response.inferenceTimeUs);
    if (response.decisions.length !== count) throw new Error(`${response.decisions.length} decisions of ${count}`);
  }
  return { waits, core };
}

(async () => {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const [count, repetitions] = line.split(' ').map(Number);
    console.log(JSON.stringify(await measured(count, repetitions)));
  }
})();
