/**
 * The verdicts of all reviews of one dataset: one JSON line an act, only appended to, flushed before it is acknowledged. A kill can at most tear
 * the last line, which nobody was told is kept. Several processes may write: each reads what the others added before it answers.
 */
import { randomBytes } from 'node:crypto'
import { type FileHandle, open } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { checkName } from '../../db/names.ts'
import { Failure } from '../../failure.ts'
import { ReviewVerdict } from '../../sdk/shapes.ts'
import { makeFolder, storageFailure, syncFolder } from '../../storage/disk.ts'

/** What was decided at once: the verdicts on all pictures of an item, or of a file. */
const Act = z.strictObject({ id: z.string(), item: z.string().nullable(), verdicts: z.array(ReviewVerdict).min(1) })
export type Act = z.infer<typeof Act>
const Line = z.union([Act, z.strictObject({ undo: z.string() })])

export interface VerdictLog {
  /** On disk when it answers. throws disk_full, not_permitted … */
  give(item: string | null, verdicts: readonly ReviewVerdict[]): Promise<Act>
  /** Takes the newest act back, whoever did it; null where there is none. */
  undo(): Promise<Act | null>
  /** Everything that holds, oldest first. */
  acts(): Promise<readonly Act[]>
  close(): Promise<void>
}

export const reviewsFolder = (home: { path: string }): string => join(home.path, 'reviews')

/** throws name_invalid, home_damaged, not_permitted … */
export async function openVerdictLog(home: { path: string }, dataset: string): Promise<VerdictLog> {
  checkName('dataset', dataset)
  const folder = await makeFolder(reviewsFolder(home))
  const path = join(folder, `${dataset}.jsonl`)
  const file = await open(path, 'a+', 0o600).catch(error => {
    throw storageFailure(error, path)
  })
  await syncFolder(folder) // a new file's name must outlive a power cut as well
  let acts: Act[] = []
  let read = 0

  /** Whole lines that were added since, by anybody. */
  async function refresh(): Promise<void> {
    const added = await wholeLines(file, read)
    read += Buffer.byteLength(added)
    for (const text of added.split('\n')) {
      const line = parseLine(text, path)
      if (!line) continue
      if ('undo' in line) acts = acts.filter(act => act.id !== line.undo)
      else acts.push(line)
    }
  }
  async function append(line: object): Promise<void> {
    try {
      // one write: with O_APPEND the lines of two processes do not mix. The line break in front ends what a kill left torn
      await file.appendFile(`${(await endsTorn(file)) ? '\n' : ''}${JSON.stringify(line)}\n`)
      await file.datasync()
    } catch (error) {
      throw storageFailure(error, path)
    }
  }

  let last: Promise<unknown> = Promise.resolve()
  /** One after the other, in the order of the calls. */
  const inTurn = <T>(work: () => Promise<T>): Promise<T> => {
    const turn = last.then(work)
    last = turn.catch(() => {}) // was told to whoever asked for it
    return turn
  }
  const opened: VerdictLog = {
    give: (item, verdicts) =>
      inTurn(async () => {
        const act: Act = { id: randomBytes(8).toString('hex'), item, verdicts: [...verdicts] }
        await append(act)
        await refresh()
        return act
      }),
    undo: () =>
      inTurn(async () => {
        await refresh()
        const newest = acts.at(-1)
        if (!newest) return null
        await append({ undo: newest.id })
        await refresh()
        return newest
      }),
    acts: () =>
      inTurn(async () => {
        await refresh()
        return acts
      }),
    close: () => inTurn(() => file.close()),
  }
  await opened.acts().catch(async error => {
    await file.close()
    throw error
  })
  return opened
}

/** From byte `from` to the last line break. */
async function wholeLines(file: FileHandle, from: number): Promise<string> {
  const { size } = await file.stat()
  const bytes = Buffer.alloc(Math.max(0, size - from))
  let length = 0
  while (length < bytes.length) {
    const { bytesRead } = await file.read(bytes, length, bytes.length - length, from + length)
    if (bytesRead === 0) break
    length += bytesRead
  }
  return bytes.toString('utf8', 0, bytes.subarray(0, length).lastIndexOf(10) + 1)
}

async function endsTorn(file: FileHandle): Promise<boolean> {
  const { size } = await file.stat()
  if (size === 0) return false
  const { buffer } = await file.read(Buffer.alloc(1), 0, 1, size - 1)
  return buffer[0] !== 10
}

/** null: torn by a kill, never acknowledged. What is whole and still no line of ours was not written by us. throws home_damaged */
function parseLine(text: string, path: string): z.infer<typeof Line> | null {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return null
  }
  const { data, error } = Line.safeParse(value)
  if (error) throw new Failure('home_damaged', { path }, { cause: error })
  return data
}
