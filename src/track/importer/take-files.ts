/** Files of runs and logged models. */
import { Failure } from '../../failure.ts'
import { safe } from '../mlflow/artifact-paths.ts'
import { type Into, isServed } from './into.ts'
import type { Owner, Source } from './source.ts'

/** A file of the same size is the same file: artifacts are written once. */
export async function takeFiles(
  { objects, places, far, count, note }: Into,
  files: Awaited<ReturnType<Source['files']>>,
  { kind, id, location }: Owner,
  folder: string,
  place: string,
): Promise<void> {
  if (files || isServed(location)) places.set(location.replace(/\/+$/, ''), place)
  if (!files) {
    const store = location.replace(/\/(models\/)?[^/]+\/artifacts\/*$/, '')
    const { owners = 0, first = id } = far.get(store) ?? {}
    if (location !== '') far.set(store, { owners: owners + 1, first })
    return
  }
  try {
    for await (const { path, bytes, open } of files) {
      let [here, added] = [0, 0]
      try {
        const name = `${folder}/${safe(path)}`
        const there = await objects.head(name)
        if (there?.bytes === bytes) here = 1
        else if (there) note(`${kind} ${id}: the file ${path} is another one here (${there.bytes} bytes, there ${bytes}), and stays`)
        else {
          const put = await objects.put(name, await open())
          if (put.bytes === bytes) [here, added] = [1, 1]
          else note(`${kind} ${id}: of the file ${path} came ${put.bytes} of ${bytes} bytes`)
        }
      } catch (error) {
        if (isFatal(error)) throw error
        note(`${kind} ${id}: the file ${path} was not copied: ${told(error)}`)
      }
      count('files', { here, added })
      count('bytes of files', { source: bytes, here: here * bytes, added: added * bytes })
    }
  } catch (error) {
    if (isFatal(error)) throw error
    note(`${kind} ${id}: its files at ${location} could not be listed: ${told(error)}`)
  }
}

/** What would go wrong with every other file too. */
const isFatal = (error: unknown) =>
  error instanceof Failure &&
  !['artifact_path', 'object_name', 'object_in_the_way', 'import_unreachable', 'import_refused'].includes(error.code)
const told = (error: unknown) =>
  error instanceof Failure ? error.message : ((error as NodeJS.ErrnoException).code ?? (error as Error).message)
