/** Which pictures must stay together, whatever is done with them: on one side of the split, in one fold, drawn together for an interval. */
import { readFile } from 'node:fs/promises'
import { findCopies, groupsOf } from '../data/copies/index.ts'
import { type Facts, lookAt } from '../data/facts.ts'
import { groupPattern, groupsBy, joinGroups } from '../data/groups.ts'
import { decodePicture } from '../images/decode.ts'
import { Copies, type Manifest } from '../sdk/index.ts'
import { writeFileAtomic } from '../storage/disk.ts'

export interface Belonging {
  copies: Copies
  /** Rows that belong together; those that stand alone are not listed. */
  groups: number[][]
  /** For each row the name of its group, null where it stands alone. */
  nameOf: (string | null)[]
  /** What was found, in a sentence for the user; null where nothing was. */
  sentence: string | null
}

export interface BelongingTask {
  manifest: Manifest
  /** Digest of the dataset version. */
  dataset: string
  /** Pattern of --group-by, which decides in place of capture times and names. */
  groupBy: string | null
  facts: Facts
  features: { values: Float32Array; width: number }
  blob(content: string): Promise<Uint8Array>
  /** Where the answer is kept: a training that goes on takes it from there. */
  file: string
  seed: number
  signal: AbortSignal
  onProgress(done: number, total: number, what: string): void
}

export async function findBelonging(task: BelongingTask): Promise<Belonging> {
  const { manifest, groupBy, file } = task
  const kept = await readFile(file, 'utf8').catch(() => null)
  const copies = kept ? Copies.parse(JSON.parse(kept)) : await search(task)
  if (!kept) await writeFileAtomic(file, JSON.stringify(copies))
  const counted = groupBy ? { ...copies, sameScene: copies.sameScene.filter(({ evidence }) => evidence === 'pixels') } : copies
  return { copies: counted, ...joined(manifest, [...groupsOf(counted), ...ownGroups(manifest, groupBy)]), sentence: sentenceOf(counted) }
}

async function search({ manifest, dataset, facts, features, blob, seed, signal, onProgress }: BelongingTask): Promise<Copies> {
  for (const [i, { content }] of manifest.rows.entries()) {
    signal.throwIfAborted()
    if (facts.get(content) !== null) continue
    facts.put(await lookAt(await blob(content), content)) // imported before facts were kept, or the cache was emptied
    onProgress(i + 1, manifest.rows.length, 'look-alikes')
  }
  return findCopies({
    manifest,
    dataset,
    facts,
    features,
    picture: async row => decodePicture(await blob(row.content), { formats: 'local' }),
    seed,
    signal,
    onProgress,
  })
}

/** Groups that the user's own pattern makes of the paths. throws group_pattern_invalid, group_pattern_slow */
export function ownGroups({ rows }: Pick<Manifest, 'rows'>, groupBy: string | null): number[][] {
  if (groupBy === null) return []
  const names = groupsBy(
    groupPattern(groupBy),
    rows.map(({ path }) => path),
  )
  return [...Map.groupBy(names.keys(), row => names[row] ?? `\u0000${row}`).values()].filter(group => group.length > 1)
}

function joined({ rows }: Manifest, groups: readonly (readonly number[])[]): Pick<Belonging, 'groups' | 'nameOf'> {
  const keys = rows.map(({ pixels, group }) => [`pixels:${pixels}`, ...(group === null ? [] : [`group:${group}`])])
  for (const [i, members] of groups.entries()) for (const row of members) keys[row]!.push(`found:${i}`)
  const nameOf = joinGroups(keys)
  const named = [...nameOf.keys()].filter(row => nameOf[row] !== null)
  return { groups: [...Map.groupBy(named, row => nameOf[row]!).values()], nameOf }
}

function sentenceOf({ samePicture, sameScene }: Copies): string | null {
  const counted = (groups: readonly (readonly number[])[], what: string) =>
    groups.length === 0
      ? null
      : `${groups.reduce((sum, group) => sum + group.length, 0)} pictures that are ${what} of each other, in ${groups.length} ${groups.length === 1 ? 'group' : 'groups'}`
  const parts = [
    counted(samePicture, 'copies'),
    counted(
      sameScene.map(({ rows }) => rows),
      'views of the same scene or source',
    ),
  ].filter(part => part !== null)
  return parts.length === 0 ? null : `Look-alikes: ${parts.join('; ')}. Each group stays on one side of the split.`
}
