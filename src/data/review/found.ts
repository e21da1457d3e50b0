/** What was found out about a dataset version, as a training left it in its run's folder or an earlier review in the home. */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { Copies, Mislabels, type Side, Split } from '../../sdk/shapes.ts'
import { makeFolder, writeFileAtomic } from '../../storage/disk.ts'
import { reviewsFolder } from './log.ts'
import type { ReviewInput } from './queue.ts'

export interface Findings {
  copies: Copies | null
  mislabels: Mislabels | null
}

/** Of a run's folder. What is missing, of an older Plinth or about another dataset is null: it can be found out anew. */
async function readRunFindings(folder: string, digest: string): Promise<Findings> {
  const copies = await readAs(join(folder, 'copies.json'), Copies)
  if (copies && copies.dataset !== digest) return nothing
  return { copies, mislabels: await readAs(join(folder, 'mislabels.json'), Mislabels) }
}

/** The side of each picture in a run, by path; undefined where its split is not there. */
export async function readSides(folder: string, { rows }: ReviewInput['manifest']): Promise<ReadonlyMap<string, Side> | undefined> {
  const split = await readAs(join(folder, 'split.json'), Split)
  if (!split) return undefined
  const sides = (['train', 'validation', 'test'] as const).flatMap(side => split[side].map(row => [rows[row]?.path ?? '', side] as const))
  return new Map(sides)
}

export interface Search {
  /** A run on this very dataset, if any. */
  folder: string | null
  /** The version of Plinth: another one looks again. */
  made: string
  /** Whether mislabels are wanted, too. */
  deep: boolean
  /** Looks now; what it finds is kept. */
  look(): Promise<Findings>
}
/** What a training found, else what an earlier review kept, else what is found now. */
export async function findings(home: { path: string }, digest: string, { folder, made, deep, look }: Search): Promise<Findings> {
  const ofRun = folder ? await readRunFindings(folder, digest) : nothing
  const kept = await readKept(home, digest, made)
  const copies = ofRun.copies ?? kept.copies
  const mislabels = ofRun.mislabels ?? kept.mislabels
  if (copies && (mislabels || !deep || kept.deep)) return { copies, mislabels }
  const now = await look()
  const found = { copies: copies ?? now.copies, mislabels: mislabels ?? now.mislabels }
  await makeFolder(reviewsFolder(home), 'found')
  await writeFileAtomic(keptFile(home, digest), JSON.stringify({ made, deep, ...found } satisfies z.infer<typeof Kept>))
  return found
}
export const nothing: Findings = { copies: null, mislabels: null }

/** `deep`: mislabels were looked for; where they are null there were too few pictures to tell. */
const Kept = z.strictObject({ made: z.string(), deep: z.boolean(), copies: Copies.nullable(), mislabels: Mislabels.nullable() })
const keptFile = (home: { path: string }, digest: string) => join(reviewsFolder(home), 'found', `${digest}.json`)

async function readKept(home: { path: string }, digest: string, made: string): Promise<Findings & { deep: boolean }> {
  const kept = await readAs(keptFile(home, digest), Kept)
  return kept?.made === made ? kept : { ...nothing, deep: false }
}

async function readAs<T>(path: string, shape: z.ZodType<T>): Promise<T | null> {
  const text = await readFile(path, 'utf8').catch(() => null)
  if (text === null) return null
  try {
    return shape.parse(JSON.parse(text))
  } catch {
    return null // not needed to be right: it is found out again
  }
}
