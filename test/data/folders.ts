/** Folders and archives of small pictures that all differ, for the tests of importing. */
import { mkdtempSync, rmSync } from 'node:fs'
import { mkdir, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import type { TestContext } from 'node:test'
import { fileURLToPath } from 'node:url'
import type { SampleName } from '../../src/data/samples.ts'
import { encodePng } from '../../src/images/encode.ts'
import { openBlobs } from '../../src/storage/blobs.ts'

/** A PNG of 4×4 pixels; another number, another picture. */
export async function picture(number: number): Promise<Buffer> {
  const data = Uint8Array.from({ length: 48 }, (_, index) => (number * 31 + index * (1 + (number >> 3))) & 255)
  data.set([number & 255, (number >> 8) & 255, (number >> 16) & 255])
  return Buffer.from(await encodePng({ width: 4, height: 4, data }))
}

export function temporary(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'plinth-data-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

export type Files = Record<string, Buffer | string | number>
/** Numbers stand for `picture(number)`; names ending in a slash for empty folders. */
export async function write(root: string, files: Files): Promise<string> {
  const paths = Object.keys(files)
  for (const folder of new Set(paths.map(path => (path.endsWith('/') ? path : dirname(path)))))
    await mkdir(join(root, folder), { recursive: true })
  const contents = Object.entries(files).filter(([path]) => !path.endsWith('/'))
  for (let from = 0; from < contents.length; from += 64) {
    const some = contents.slice(from, from + 64)
    await Promise.all(
      some.map(async ([path, content]) => writeFile(join(root, path), typeof content === 'number' ? await picture(content) : content)),
    )
  }
  return root
}

/** `cat/0.png`, `cat/1.png`, … with pictures that differ from those of other calls with other `from`. */
export function pictures(folder: string, count: number, from = 0): Files {
  return Object.fromEntries(Array.from({ length: count }, (_, index) => [`${folder}/${index}.png`, from + index]))
}

export const blobsIn = (folder: string) => openBlobs(join(folder, 'blobs'))

/** A sample as it is shipped: to look at its pictures nothing need be unpacked. */
export const sampleArchive = (name: SampleName): string => fileURLToPath(new URL(`../../src/data/samples/${name}.zip`, import.meta.url))
