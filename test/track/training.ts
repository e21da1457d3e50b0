/**
 * A training as a program of its own: `node training.ts HOME POINTS HOW`. It says the number of each point on stdout once logging it has
 * returned; what it said must be found later, whatever happened to it. HOW: how it ends.
 */
import { writeSync } from 'node:fs'
import { startRun } from '../../src/track/tracker.ts'

const [home, points, how = 'end'] = process.argv.slice(2) as [string, string, string?]
const run = await startRun({ directory: home, experiment: 'training', name: how, params: { points }, tags: { how } })
// process.stdout would hand over what it says some time later
writeSync(1, `${run.id}\n`)
for (let step = 0; step < Number(points); step++) {
  run.metric('loss', 1 / (step + 1), { step, time: 1_000_000 + step })
  writeSync(1, `${step}\n`)
  // a training has something else to do now and then; one that waits for its end has time
  if (step % 50 === 49) await new Promise(resolve => (how === 'wait' ? setTimeout(resolve, 2) : setImmediate(resolve)))
}
if (how === 'end') await run.end()
if (how === 'throw') throw new RangeError('the loss is gone')
if (how === 'exit 3') process.exit(3)
if (how === 'wait') setInterval(() => {}, 1000)
if (how === 'dispose') {
  await using _ = run
}
