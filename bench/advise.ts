/**
 * What `plinth advise` says against what PyTorch takes on this processor: `node bench/advise.ts [NAME …]` with a Python that has torch and torchvision
 * (PLINTH_PYTHON, or the peers'). A minute on an idle machine. Prints one line a training, and how many lie in their ranges.
 */
import { spawnSync } from 'node:child_process'
import { cpus, loadavg } from 'node:os'
import { fileURLToPath } from 'node:url'
import { processorTarget } from '../src/hardware/advisor/devices.ts'
import { memoryOf } from '../src/hardware/advisor/memory.ts'
import { networkCalled } from '../src/hardware/advisor/networks.ts'
import { timeOf } from '../src/hardware/advisor/time.ts'
import type { Optimiser, Shape, Workload } from '../src/hardware/advisor/workload.ts'
import { defaultThreads } from '../src/hardware/limits.ts'
import { advise } from '../src/machine.ts'
import { python } from '../test/peers.ts'

const picture = (name: string, size: number): Shape => ({ kind: 'picture', size, network: networkCalled(name)! })
const trainings: [name: string, batch: number, size: number, optimiser: Optimiser, shape: Shape][] = [
  ['resnet18', 16, 224, 'momentum', picture('resnet18', 224)],
  ['resnet50', 8, 224, 'momentum', picture('resnet50', 224)],
  ['resnet50', 16, 128, 'adam', picture('resnet50', 128)],
  ['mobilenet_v2', 16, 160, 'momentum', picture('mobilenet_v2', 160)],
  ['efficientnet_b0', 8, 224, 'adam', picture('efficientnet_b0', 224)],
  ['vit_b_16', 4, 224, 'adam', picture('vit_b_16', 224)],
  ['densenet121', 8, 160, 'momentum', picture('densenet121', 160)],
  ['transformer', 16, 128, 'adam', { kind: 'sequence', length: 128, layers: 6, hidden: 256, heads: 4, vocabulary: 8000 }],
  ['transformer', 4, 512, 'adam', { kind: 'sequence', length: 512, layers: 6, hidden: 256, heads: 4, vocabulary: 8000 }],
  ['dense', 256, 1024, 'adam', { kind: 'dense' }],
  ['dense', 64, 4096, 'momentum', { kind: 'dense' }],
]

const interpreter = python()
if (!interpreter) throw new Error('There is no Python with torch: npm run peers, or set PLINTH_PYTHON.')
const threads = defaultThreads()
const said = { what: null, devices: [], prices: null, anew: true, rates: () => Promise.reject(new Error('not asked')), params: '1M' }
const { measured } = await advise(said, new AbortController().signal)
const target = processorTarget(cpus()[0]!.model, 64e9, { ...measured, basis: 'measured' })
console.log(
  `${cpus()[0]!.model}, ${threads} threads, ${Math.round(measured.operations / 1e9)} GFLOP/s measured, load ${loadavg()[0]!.toFixed(1)}`,
)
console.log('training            batch  size    memory MB: low  likely    high  really        a step ms: low  likely    high  really')
const inside = { memory: 0, seconds: 0 }
const only = process.argv.slice(2)
const chosen = trainings.filter(([name]) => only.length === 0 || only.includes(name))
for (const [name, batch, size, optimiser, shape] of chosen) {
  const script = fileURLToPath(new URL('./advise.py', import.meta.url))
  const run = spawnSync(interpreter, [script, name, String(batch), String(size), optimiser, String(threads)], {
    encoding: 'utf8',
    env: { ...process.env, OMP_WAIT_POLICY: 'PASSIVE' },
  })
  if (run.status !== 0) throw new Error(run.stderr)
  const really = JSON.parse(run.stdout) as { parameters: number; seconds: number; memory: number }
  const workload: Workload = {
    training: true,
    parameters: really.parameters,
    trained: really.parameters,
    precision: 'float32',
    optimiser,
    batch,
    shape,
    recompute: false,
    sharding: 'none',
    samples: null,
    epochs: 1,
  }
  const memory = memoryOf(workload, target)
  const { step } = timeOf(workload, target)!
  const within = ({ low, high }: { low: number; high: number }, value: number) => value >= low && value <= high
  if (within(memory, really.memory)) inside.memory++
  if (within(step, really.seconds)) inside.seconds++
  const cells = (scale: number, ...values: number[]) => values.map(value => String(Math.round(value * scale)).padStart(8)).join('')
  const mark = (fits: boolean) => (fits ? ' ' : '!')
  console.log(
    `${name.padEnd(18)} ${String(batch).padStart(6)} ${String(size).padStart(5)}   ${cells(1e-6, memory.low, memory.likely, memory.high, really.memory)}${mark(within(memory, really.memory))}     ${cells(1e3, step.low, step.likely, step.high, really.seconds)}${mark(within(step, really.seconds))}`,
  )
}
console.log(`in their range: memory ${inside.memory} of ${chosen.length}, time ${inside.seconds} of ${chosen.length}`)
