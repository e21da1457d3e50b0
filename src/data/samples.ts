/** Two real sample datasets that come with Plinth, so that everything can be tried without pictures of one's own. Licences lie in the archives. */
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Failure } from '../failure.ts'
import { storageFailure } from '../storage/disk.ts'
import { openArchive } from './archive.ts'

export const samples = {
  fashion: { pictures: 2000, classes: 10, what: 'product photos of clothes, 28×28 pixels, grey (Fashion-MNIST, MIT)' },
  emoji: { pictures: 1752, classes: 8, what: 'drawings of 586 things by three vendors, 96×96 pixels (Noto, Twemoji, Fluent)' },
} as const
export type SampleName = keyof typeof samples

/**
 * Writes class folders and the licence into `directory`. A folder that holds (part of) the same sample is completed, so that an interrupted
 * call can be repeated; one with anything else in it is left alone. Returns the number of pictures there at the end.
 * Throws sample_unknown, sample_folder_taken, and what the disk says.
 */
export async function extractSample(name: SampleName | (string & {}), directory: string): Promise<{ files: number }> {
  if (!Object.hasOwn(samples, name)) throw new Failure('sample_unknown', { name, names: Object.keys(samples).join(', ') })
  const archive = await openArchive(fileURLToPath(new URL(`./samples/${name}.zip`, import.meta.url)))
  try {
    const wanted = new Map(archive.files.map(file => [file.path, file]))
    const whole = new Set<string>()
    const cut: string[] = [] // where a kill or a full disk ended the last call
    for (const path of await filesBelow(directory)) {
      const should = await wanted.get(path)?.read()
      const is = await readFile(join(directory, path))
      if (!should?.subarray(0, is.length).equals(is)) throw new Failure('sample_folder_taken', { path: directory, file: path })
      if (is.length === should.length) whole.add(path)
      else cut.push(path)
    }
    for (const path of cut) await rm(join(directory, path))
    for (const folder of new Set(archive.files.map(file => dirname(file.path)))) await mkdir(join(directory, folder), { recursive: true })
    for (const file of archive.files) {
      if (!whole.has(file.path)) await writeFile(join(directory, file.path), await file.read(), { flag: 'wx' })
    }
    return { files: archive.files.filter(file => file.path.endsWith('.png')).length }
  } catch (error) {
    throw error instanceof Failure ? error : storageFailure(error, directory)
  } finally {
    await archive.close()
  }
}

async function filesBelow(directory: string): Promise<Set<string>> {
  try {
    const entries = await readdir(directory, { withFileTypes: true, recursive: true })
    const files = entries.filter(entry => !entry.isDirectory())
    return new Set(files.map(entry => join(entry.parentPath, entry.name).slice(join(directory, '/').length).replaceAll('\\', '/')))
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return new Set()
    if ((error as NodeJS.ErrnoException).code === 'ENOTDIR') throw new Failure('sample_folder_taken', { path: directory, file: directory })
    throw error
  }
}
