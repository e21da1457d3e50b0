/**
 * The pictures that a model is asked about, looked at beside those it learned from: which of them it knows, also as edited copies, and
 * which belong together. By the hash of what is known of each file; no features are computed.
 */
import { findCopies, groupsOf } from '../data/copies/index.ts'
import { type Facts, lookAt } from '../data/facts.ts'
import { joinGroups } from '../data/groups.ts'
import type { Manifest, ManifestRow, Side } from '../sdk/index.ts'
import type { Learned } from './evaluate-model.ts'
import type { Past } from './past.ts'

export interface Familiar {
  /** With the groups that were found. */
  manifest: Manifest
  /** For each past. */
  learned: Learned[]
}

/** More pictures to look at beside take minutes: then only equal pixels are known again. */
const mostBeside = 20_000

export async function familiarPictures(
  manifest: Manifest,
  pasts: readonly (Past | null)[],
  { facts, blob, signal }: { facts: Facts; blob(content: string): Promise<Uint8Array>; signal: AbortSignal },
): Promise<Familiar> {
  const exact = pasts.map(past => past?.sides ?? null)
  for (const { content } of manifest.rows) {
    signal.throwIfAborted()
    if (facts.get(content) === null) facts.put(await lookAt(await blob(content), content))
  }
  const beside = [...new Map(pasts.flatMap(past => learnedRows(past)).map(row => [row.pixels, row])).values()].filter(
    row => facts.get(row.content) !== null,
  )
  const rows = manifest.rows.length + beside.length > mostBeside ? manifest.rows : [...manifest.rows, ...beside]
  const copies = await findCopies({ manifest: { rows }, dataset: '', facts, signal })
  const asked = manifest.rows.length
  const own = groupsOf(copies).map(group => group.filter(row => row < asked))
  const names = new Map<number, string>(own.flatMap((group, name) => group.map(row => [row, `found:${name}`])))
  const groups = joinGroups(
    manifest.rows.map((row, i) => [
      `pixels:${row.pixels}`,
      ...(row.group === null ? [] : [`group:${row.group}`]),
      ...(names.has(i) ? [names.get(i)!] : []),
    ]),
  )
  return {
    manifest: { ...manifest, rows: manifest.rows.map((row, i) => ({ ...row, group: groups[i]! })) },
    learned: exact.map(sides => sides && withCopies(sides, rows, copies.samePicture, asked)),
  }
}

const learnedRows = (past: Past | null): ManifestRow[] =>
  past ? past.rows.filter(row => ['train', 'validation'].includes(past.sides.get(row.pixels) ?? 'test')) : []

/** The sides, and `copy` for what is the same picture, edited, as one that was learned from or chosen on. */
function withCopies(
  sides: ReadonlyMap<string, Side>,
  rows: readonly ManifestRow[],
  samePicture: readonly (readonly number[])[],
  asked: number,
): Map<string, Side | 'copy'> {
  const known = (row: number) => ['train', 'validation'].includes(sides.get(rows[row]!.pixels) ?? 'test')
  const all = new Map<string, Side | 'copy'>(sides)
  for (const group of samePicture)
    if (group.some(known)) for (const row of group) if (row < asked && !known(row)) all.set(rows[row]!.pixels, 'copy')
  return all
}
