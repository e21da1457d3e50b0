/**
 * Accuracy beside PyTorch: the same pictures to train and to test on, the same backbone weights, epochs, schedule, peak rate and smoothing.
 *
 *     npm run peers && npm run bench:accuracy        (about ten minutes)
 *
 * PyTorch does what most would write: a new random head at ten times the rate, flips and shifts. Plinth starts from its fitted head, at three
 * times the rate, with zoom and light as well. Each is tested on the same test side of three splits (seeds 0 to 2).
 */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { cpus, tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { pairedDifference, wilson } from '../src/evaluate/index.ts'
import { FilePrediction, Manifest, Split, TrainResult } from '../src/sdk/index.ts'
import { startTorch } from './torch.ts'

const main = fileURLToPath(new URL('../src/main.ts', import.meta.url))
const weights = fileURLToPath(new URL('../src/models/weights/efficientnet-lite0.safetensors', import.meta.url))
const threads = Math.min(2, cpus().length)
const epochs = 4
const scratch = mkdtempSync(join(tmpdir(), 'plinth-accuracy-'))
const torch = startTorch(threads)
try {
  console.log('sample   seed  test  linear probe  Plinth  PyTorch')
  for (const [sample, size] of [
    ['fashion', 96],
    ['emoji', 128],
  ] as const) {
    const folder = join(scratch, sample)
    plinth('sample', sample, folder)
    const ours: boolean[] = []
    const theirs: boolean[] = []
    for (const seed of [0, 1, 2]) {
      const result = TrainResult.parse(
        plinth(
          'train',
          folder,
          '--name',
          sample,
          '--seed',
          String(seed),
          '--epochs',
          String(epochs),
          '--image-size',
          String(size),
          '--threads',
          String(threads),
        ),
      )
      const run = join(scratch, 'home', 'runs', result.run)
      const split = Split.parse(read(join(run, 'split.json')))
      const { rows, classes } = Manifest.parse(
        read(join(scratch, 'home', 'datasets', result.dataset.name, `${result.dataset.version}.json`)),
      )
      const side = (indices: readonly number[]) =>
        indices.map(i => [join(folder, rows[i]!.path), classes.indexOf(rows[i]!.labels[0]!)] as const)
      const { predictions } = plinth('predict', `${sample}@${result.model.version}`, ...side(split.test).map(([path]) => path))
      const answers = (predictions as unknown[]).map(row => FilePrediction.parse(row))
      const own = answers.map((row, i) => 'label' in row && row.label === rows[split.test[i]!]!.labels[0])
      const { correct } = await torch.ask({
        op: 'fineTune',
        weights,
        train: side(split.train),
        test: side(split.test),
        classes: classes.length,
        size,
        epochs,
        seed,
      })
      ours.push(...own)
      theirs.push(...correct!)
      const probe = percent(result.test.linearProbe!)
      console.log(
        `${sample.padEnd(8)} ${seed}     ${String(own.length).padEnd(4)}  ${probe.padEnd(12)}  ${percent(share(own))}  ${percent(share(correct!))}  (kept: ${result.chosen})`,
      )
    }
    const [low, high] = wilson(ours.filter(Boolean).length, ours.length)
    const { difference, low: least, high: most, p } = pairedDifference(ours, theirs)
    console.log(
      `${sample}: Plinth ${percent(share(ours))} (${percent(low)} to ${percent(high)}), PyTorch ${percent(share(theirs))}; difference ${points(difference)} (${points(least)} to ${points(most)}), p = ${p.toFixed(3)}`,
    )
  }
} finally {
  torch.end()
  rmSync(scratch, { recursive: true })
}

function plinth(...words: string[]): Record<string, unknown> {
  const { status, stdout, stderr } = spawnSync(process.execPath, [main, ...words, '--json'], {
    encoding: 'utf8',
    maxBuffer: 2 ** 28,
    env: { ...process.env, PLINTH_HOME: join(scratch, 'home') },
  })
  if (status !== 0) throw new Error(`plinth ${words[0]} ended with ${status}: ${stdout}${stderr}`)
  return JSON.parse(stdout.trim().split('\n').at(-1)!) as Record<string, unknown>
}

function read(path: string): unknown {
  return JSON.parse(readFileSync(path, 'utf8'))
}
function share(right: readonly boolean[]): number {
  return right.filter(Boolean).length / right.length
}
function percent(value: number): string {
  return `${(value * 100).toFixed(1)} %`
}
function points(value: number): string {
  return `${value >= 0 ? '+' : '−'}${Math.abs(value * 100).toFixed(1)}`
}
