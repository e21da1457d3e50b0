/** What a model has learned from, as far as it is known here: its run wrote down which picture was on which side. */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Home } from '../data/test-sets.ts'
import { resolveDataset } from '../data/versions.ts'
import { readArtefact } from '../models/artefact.ts'
import { resolveModel } from '../models/registry.ts'
import { type ManifestRow, type ModelVersion, type Side, Split, type TrainResult, type Unknown } from '../sdk/index.ts'

export interface Past {
  /** On which side each picture was, by pixel digest, when the model, and those it went on from, were made. */
  sides: ReadonlyMap<string, Side>
  /** Those pictures. */
  rows: ManifestRow[]
}

/** null where the model, or one that it went on from, was not made here. */
export async function pastOf(home: Home, reference: string): Promise<Past | null> {
  const sides = new Map<string, Side>()
  const rows: ManifestRow[] = []
  for (let at: string | null = reference; at; ) {
    const model: ModelVersion | null = await resolveModel(home, at).catch(() => null) // deleted, or never here
    const record = model?.run && model.dataset && (await readSplit(home, model.run))
    if (!record) return null
    const { manifest } = await resolveDataset(home, `${model.dataset!.name}@${model.dataset!.version}`)
    // learning weighs most: a picture that any of them was trained on counts as trained on
    for (const side of ['test', 'validation', 'train'] as const)
      for (const number of record[side]) {
        const row = manifest.rows[number]!
        rows.push(row)
        if (side !== 'test' || !sides.has(row.pixels)) sides.set(row.pixels, sides.get(row.pixels) === 'train' ? 'train' : side)
      }
    at = readArtefact(await readFile(model.path)).metadata.lineage.parent
  }
  return { sides, rows }
}

export const earlierSides = async (home: Home, reference: string): Promise<ReadonlyMap<string, Side> | null> =>
  (await pastOf(home, reference))?.sides ?? null

/** Labels of the side that the model learnt from; null where that is not known here. */
export async function trainLabels(home: Home, model: ModelVersion): Promise<string[] | null> {
  if (!model.run || !model.dataset) return null
  const split = await readSplit(home, model.run)
  if (!split) return null
  const { manifest } = await resolveDataset(home, `${model.dataset.name}@${model.dataset.version}`)
  return split.train.map(row => manifest.rows[row]!.labels[0]!)
}

/** How well the model's training found it to tell strangers apart (`unknown.auroc`); null where that is not known here. */
export async function strangersFound(home: Home, model: ModelVersion): Promise<Unknown['auroc']> {
  if (!model.run) return null
  const text = await readFile(join(home.path, 'runs', model.run, 'result.json'), 'utf8').catch(() => null)
  return text === null ? null : ((JSON.parse(text) as TrainResult).unknown?.auroc ?? null)
}

async function readSplit(home: Home, run: string): Promise<Split | null> {
  const text = await readFile(join(home.path, 'runs', run, 'split.json'), 'utf8').catch(() => null)
  return text === null ? null : Split.parse(JSON.parse(text))
}
