/** What a training has decided so far, kept in its folder: one that goes on after a kill does not ask again, and decides nothing else. */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { writeFileAtomic } from '../storage/disk.ts'

export interface Decisions {
  /** The answer of an earlier time, or `decide`'s, which is then kept. Answers are plain JSON. */
  once<T>(what: string, decide: () => Promise<T>): Promise<T>
}

export async function openDecisions(directory: string): Promise<Decisions> {
  const file = join(directory, 'choices.json')
  const made: Record<string, unknown> = JSON.parse(await readFile(file, 'utf8').catch(() => '{}'))
  return {
    async once<T>(what: string, decide: () => Promise<T>) {
      if (!(what in made)) {
        made[what] = await decide()
        await writeFileAtomic(file, JSON.stringify(made))
      }
      return made[what] as T
    },
  }
}
