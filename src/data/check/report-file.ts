/** Writes the page of a check where the user said, and nothing over what is not such a page. */
import { open } from 'node:fs/promises'
import { Failure } from '../../failure.ts'
import { thumbnail } from '../../images/encode.ts'
import type { ManifestRow } from '../../sdk/shapes.ts'
import { storageFailure, writeFileAtomic } from '../../storage/disk.ts'
import { type CheckReportInput, renderCheckReport } from './report.ts'

/** Pixels: two beside each other on a phone, sharp on most screens. */
const side = 200

/** throws report_in_the_way, and what the disk says */
export async function writeCheckReport(
  path: string,
  { bytes, ...input }: Omit<CheckReportInput, 'thumbnail' | 'made'> & { bytes(row: ManifestRow): Promise<Uint8Array> },
): Promise<void> {
  await refuseToReplace(path)
  const html = await renderCheckReport({
    ...input,
    made: new Date(),
    thumbnail: async row => {
      try {
        return await thumbnail(await bytes(row), side)
      } catch (error) {
        if (error instanceof Failure) return null // it went away since; the page is worth having without it
        throw error
      }
    },
  })
  await writeFileAtomic(path, html, { mode: 0o644 }) // to be shown around
}

async function refuseToReplace(path: string): Promise<void> {
  const file = await open(path, 'r').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return null
    throw storageFailure(error, path)
  })
  if (!file) return
  try {
    if (!(await file.stat()).isFile()) throw new Failure('path_in_the_way', { path })
    const { buffer, bytesRead } = await file.read(Buffer.alloc(64), 0, 64, 0)
    if (bytesRead > 0 && !/^<!doctype html>/i.test(buffer.toString('latin1'))) throw new Failure('report_in_the_way', { path })
  } finally {
    await file.close()
  }
}
