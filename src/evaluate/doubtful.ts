/** Labels of a test set that look wrong: judged by the set's own pictures, as the untouched network sees them, never by the model under test. */
import { join } from 'node:path'
import { preparePictures } from '../data/features.ts'
import { manifestDigest } from '../data/import.ts'
import { backbone } from '../models/catalogue.ts'
import type { Manifest, Mislabels } from '../sdk/index.ts'
import { findMislabels } from './mislabels.ts'
import { type Finding, quoted } from './verdicts.ts'

/** Fewer pictures cannot judge one another. */
const fewest = 30
/** More take longer than the test itself; `plinth data check --deep` has no such limit. */
const most = 20_000

export interface Doubts {
  manifest: Manifest
  blob(content: string): Promise<Uint8Array>
  /** Where features are kept, so that the same set costs nothing the next time. */
  cache: string
  /** Of the square that the network sees, in pixels. */
  side: number
  threads: number
  signal: AbortSignal
  onProgress(label: string, done: number, total: number): void
}

/** null where the set is too small, too large or of one class. */
export async function doubtfulLabels({ manifest, blob, cache, side, threads, signal, onProgress }: Doubts): Promise<Mislabels | null> {
  const { rows } = manifest
  const present = manifest.classes.filter(label => rows.some(row => row.labels[0] === label))
  if (rows.length < fewest || rows.length > most || present.length < 2) return null
  const network = backbone('efficientnet-lite0') // its weights come with Plinth
  const prepared = await preparePictures({
    folder: join(cache, 'features'),
    dataset: manifestDigest(manifest),
    rows,
    blob,
    backbone: network,
    weights: await network.loadWeights(),
    side,
    threads,
    onProgress: (done, total) => onProgress('looking at the labels', done, total),
    stopRequested: () => signal.aborted,
  })
  prepared.close()
  signal.throwIfAborted()
  const groups = Map.groupBy(
    [...rows.keys()].filter(row => rows[row]!.group !== null),
    row => rows[row]!.group,
  )
  return findMislabels({
    features: prepared.features,
    width: prepared.width,
    labels: Int32Array.from(rows, row => present.indexOf(row.labels[0]!)),
    classes: present,
    paths: rows.map(row => row.path),
    groups: [...groups.values()],
    threads,
    seed: 0,
    signal,
  })
}

/** `right`: of each picture of the set, in its order. */
export function doubtfulFinding(mislabels: Mislabels | null, { rows }: Manifest, right: readonly boolean[]): Finding[] {
  if (!mislabels || mislabels.listed.length === 0) return []
  const { n, estimate, exchanged, listed } = mislabels
  const doubted = new Set(listed.map(({ path }) => path))
  const wrong = rows.filter((_, row) => !right[row])
  const both = wrong.filter(({ path }) => doubted.has(path)).length
  const [pair] = exchanged
  const mostly = pair ? `, mostly ${quoted(pair.label)} ↔ ${quoted(pair.suggestion)}` : ''
  const ofWrong =
    wrong.length === 0
      ? ''
      : ` ${both} of the ${wrong.length} wrong answers ${both === 1 ? 'is' : 'are'} among the ${listed.length} most suspicious: look at those before you blame the model.`
  return [
    {
      sentence: `About ${estimate.count.toFixed(0)} (${estimate.low.toFixed(0)} to ${estimate.high.toFixed(0)}) of the ${n} labels of these pictures look wrong${mostly}.${ofWrong}`,
      how: 'mislabels',
    },
  ]
}
