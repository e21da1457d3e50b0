/**
 * Likely mislabels beside cleanlab: labels flipped on purpose, the same features, the same folds.
 *
 *     python -m venv peer && peer/bin/pip install -r bench/peers-mislabels.lock.txt
 *     PLINTH_CLEANLAB=peer/bin/python node bench/data-mislabels.ts [seeds = 5] [emoji|clothes|speed] [shares = 0.02,0.05,0.1]        (about five minutes on 2 cores)
 *
 * Flips are by chance to any other class, or to a class that looks like it: drawn from what out-of-fold heads believe of the pictures of the class, after the idea of
 * J. Jakubik et al., “Improving label error detection and elimination with uncertainty quantification” (arXiv 2405.09602). Precision at n: the share of
 * flipped labels among the n most suspicious, n = flipped labels. Wrong labels that the sets had before count as mistakes of both.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { classNames, debianFolder, greyPng, readFashion } from '../scripts/fashion-files.ts'
import { preparePictures } from '../src/data/features.ts'
import { importPictures, manifestDigest } from '../src/data/import.ts'
import { extractSample } from '../src/data/samples.ts'
import { permutation, randomFrom } from '../src/engine/random.ts'
import { findMislabels } from '../src/evaluate/mislabels.ts'
import { outOfFold, scaled } from '../src/evaluate/out-of-fold.ts'
import { suspicions } from '../src/evaluate/suspicion.ts'
import { backbone } from '../src/models/catalogue.ts'
import { openBlobs } from '../src/storage/blobs.ts'
import { fashionMnist } from '../test/peers.ts'

const seeds = Number(process.argv[2] ?? 5)
const only = process.argv[3]
const shares = (process.argv[4] ?? '0.02,0.05,0.1').split(',').map(Number)
const wanted = (name: string) => !only || only === name
const threads = 2
const scratch = mkdtempSync(join(tmpdir(), 'plinth-mislabels-'))
const peer = process.env['PLINTH_CLEANLAB']
if (!peer || !existsSync(peer))
  console.log('cleanlab is left out: set PLINTH_CLEANLAB to a Python that has it (see the head of this file).')

interface Set_ {
  name: string
  features: Float32Array
  width: number
  labels: Int32Array
  classes: string[]
  paths: string[]
  groups: number[][]
}

try {
  if (!fashionMnist()) console.log('The clothes are left out: apt install dataset-fashion-mnist.')
  const sets = [...(wanted('emoji') ? [await emoji()] : []), ...(fashionMnist() && wanted('clothes') ? [await fashion(3000)] : [])]
  console.log(
    '| pictures | flips | share | Plinth | cleanlab: self-confidence | normalised margin | gain | said (95 %) | flipped | cleanlab says |',
  )
  console.log('|---|---|---|---|---|---|---|---|---|---|')
  for (const set of sets) for (const kind of ['by chance', 'alike'] as const) await compare(set, kind)
  if (fashionMnist() && wanted('speed')) await speed(10_000)
} finally {
  rmSync(scratch, { recursive: true, force: true })
}

// ── one row of the table ────────────────────────────────────────────────────────────────────────────────────────────────────

async function compare(set: Set_, kind: 'by chance' | 'alike'): Promise<void> {
  const { features, width, groups, classes } = set
  const towards = await lookalikes(set)
  for (const share of shares) {
    const cells = Array.from({ length: seeds }, (_, seed) => ({ seed, ...spoil(set, kind, towards, share, seed) }))
    const theirs = await cleanlab(
      set,
      cells.map(({ labels }) => labels),
    )
    const precision = { ours: [] as number[], self: [] as number[], margin: [] as number[] }
    const said: { count: number; low: number; high: number }[] = []
    for (const [at, { seed, labels, rows }] of cells.entries()) {
      const { score } = await suspicions({ features, width, labels, classes: classes.length, groups, threads, seed })
      const ranking = [...score.keys()].sort((a, b) => score[b]! - score[a]!)
      precision.ours.push(precisionAt(ranking, rows))
      const answer = theirs?.[at]
      if (answer) {
        precision.self.push(precisionAt(answer.selfConfidence, rows))
        precision.margin.push(precisionAt(answer.normalisedMargin, rows))
      }
      if (at === 0) said.push((await findMislabels({ ...set, labels, threads, seed })).estimate)
    }
    const [ours, self, margin] = [mean(precision.ours), mean(precision.self), mean(precision.margin)]
    const { count, low, high } = said[0]!
    const cell = (value: number) => (Number.isNaN(value) ? '' : value.toFixed(3))
    console.log(
      `| ${set.name} | ${kind} | ${Math.round(100 * share)} % | ${cell(ours)} | ${cell(self)} | ${cell(margin)} | ${cell(ours - Math.max(self, margin))} | ${Math.round(count)} (${low} to ${high}) | ${cells[0]!.rows.length} | ${theirs ? theirs[0]!.found : ''} |`,
    )
  }
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length
}

function precisionAt(ranking: readonly number[], rows: readonly number[]): number {
  const wrong = new Set(rows)
  return ranking.slice(0, rows.length).filter(row => wrong.has(row)).length / rows.length
}

/** [classes, classes]: how much of each other class heads see in the pictures of a class. */
async function lookalikes({ features, width, labels, classes, groups }: Set_): Promise<Float64Array> {
  const k = classes.length
  const task = {
    features: scaled(features, width, labels.length),
    width,
    labels,
    classes: k,
    groups,
    folds: 5,
    repeats: 1,
    c: 0.01,
    seed: 0,
    threads,
  }
  const [heard] = await outOfFold(task)
  const { probabilities } = heard!
  const towards = new Float64Array(k * k)
  for (let i = 0; i < labels.length; i++)
    for (let other = 0; other < k; other++) if (other !== labels[i]) towards[labels[i]! * k + other]! += probabilities[i * k + other]!
  return towards
}

function spoil({ labels, classes }: Set_, kind: 'by chance' | 'alike', towards: Float64Array, share: number, seed: number) {
  const k = classes.length
  const random = randomFrom(seed, 4242)
  const spoilt = labels.slice()
  const rows = permutation(labels.length, random).slice(0, Math.round(share * labels.length))
  for (const row of rows) {
    const chances = Array.from({ length: k }, (_, other) =>
      other === labels[row] ? 0 : kind === 'alike' ? towards[labels[row]! * k + other]! : 1,
    )
    let left = random() * chances.reduce((sum, chance) => sum + chance, 0)
    spoilt[row] = chances.findIndex(chance => {
      left -= chance
      return chance > 0 && left <= 0
    })
  }
  return { labels: spoilt, rows }
}

/** What users give cleanlab: out-of-fold probabilities of a logistic regression with C = 0.01. The head is scikit-learn's to four digits (a test says so) and much faster. */
async function cleanlab({ features, width, groups, classes }: Set_, labels: readonly Int32Array[]) {
  if (!peer || !existsSync(peer)) return null
  const x = scaled(features, width, labels[0]!.length)
  const jobs = await Promise.all(
    labels.map(async (own, seed) => {
      const task = {
        features: x,
        width,
        labels: own,
        classes: classes.length,
        groups,
        folds: 5,
        repeats: 1,
        c: 0.01,
        iterations: 300,
        seed,
        threads,
      }
      const [heard] = await outOfFold(task)
      const file = join(scratch, `probabilities-${seed}.f32`)
      writeFileSync(file, Float32Array.from(heard!.probabilities))
      return { probabilities: file, classes: classes.length, labels: [...own] }
    }),
  )
  const job = join(scratch, 'job.json')
  writeFileSync(job, JSON.stringify(jobs))
  const script = fileURLToPath(new URL('./mislabels-peer.py', import.meta.url))
  const result = spawnSync(peer, [script, job], { encoding: 'utf8', maxBuffer: 1 << 28 })
  if (result.status !== 0) throw new Error(`cleanlab failed: ${result.stderr}`)
  return (JSON.parse(result.stdout) as { answers: { selfConfidence: number[]; normalisedMargin: number[]; found: number }[] }).answers
}

async function speed(n: number): Promise<void> {
  const set = await fashion(n)
  const began = performance.now()
  const { estimate, listed } = await findMislabels({ ...set, threads, seed: 1 })
  const seconds = ((performance.now() - began) / 1000).toFixed(1)
  console.log(
    `\n${set.labels.length} pictures of clothes as they are: ${seconds} s on cached features; about ${Math.round(estimate.count)} (${estimate.low} to ${estimate.high}) labels look wrong, ${listed.length} listed`,
  )
}

// ── pictures ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** Drawings of one thing by several vendors stay together. */
async function emoji(): Promise<Set_> {
  const folder = join(scratch, 'emoji')
  await extractSample('emoji', folder)
  const set = await prepared('emoji', folder)
  const things = Map.groupBy(set.paths.keys(), row => /([^/]*)__/.exec(set.paths[row]!)?.[1] ?? set.paths[row]!)
  return { ...set, groups: [...things.values()] }
}

/** The first n of the official training pictures. */
async function fashion(n: number): Promise<Set_> {
  const folder = join(scratch, `clothes-${n}`)
  const pictures = readFashion(debianFolder, 'train')
  for (const label of classNames) mkdirSync(join(folder, label), { recursive: true })
  for (let i = 0; i < n; i++)
    writeFileSync(join(folder, pictures.label(i), `${String(i).padStart(5, '0')}.png`), await greyPng(pictures.pixels(i)))
  return prepared('clothes', folder)
}

async function prepared(name: string, folder: string): Promise<Set_> {
  const blobs = openBlobs(join(scratch, 'blobs'))
  const manifest = await importPictures(folder, { blobs })
  const network = backbone('efficientnet-lite0')
  const pictures = await preparePictures({
    folder: join(scratch, 'features'),
    dataset: manifestDigest(manifest),
    rows: manifest.rows,
    blob: content => blobs.get(content),
    backbone: network,
    weights: await network.loadWeights(),
    side: 96,
    threads,
  })
  pictures.close()
  const { classes, rows } = manifest
  const labels = Int32Array.from(rows, row => classes.indexOf(row.labels[0]!))
  return { name, features: pictures.features, width: pictures.width, labels, classes, paths: rows.map(row => row.path), groups: [] }
}
