/** For disk.test.ts, on a small disk: what an import, a sample and a version say when it is full. Prints the codes, and what was left behind. */
import { readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { importPictures } from '../../src/data/import.ts'
import { extractSample } from '../../src/data/samples.ts'
import { saveDataset } from '../../src/data/versions.ts'
import { openDatabase } from '../../src/db/open.ts'
import type { Failure } from '../../src/failure.ts'
import { openBlobs } from '../../src/storage/blobs.ts'

const [disk, photos] = process.argv.slice(2) as [string, string]
const codeOf = (work: Promise<unknown>) =>
  work.then(
    () => 'fine',
    (error: Failure) => error.code ?? String(error),
  )
const db = await openDatabase(join(disk, 'plinth.db'))
const home = { path: disk, db }
const blobs = openBlobs(join(disk, 'blobs'))
const manifest = await importPictures(photos, { blobs })
const before = await codeOf(saveDataset(home, 'photos', manifest))

const ballast = join(disk, 'ballast')
for (let size = 1 << 20; size >= 4096; size >>= 1) {
  try {
    for (;;) writeFileSync(ballast, Buffer.alloc(size), { flag: 'a' })
  } catch {} // full, to the last page
}
const full = {
  import: await codeOf(importPictures(photos, { blobs: openBlobs(join(disk, 'more')) })),
  sample: await codeOf(extractSample('fashion', join(disk, 'clothes'))),
  version: await codeOf(saveDataset(home, 'photos', { ...manifest, rows: manifest.rows.slice(1) })),
}
rmSync(ballast)
const after = {
  import: await codeOf(importPictures(photos, { blobs })),
  sample: await codeOf(extractSample('fashion', join(disk, 'clothes'))), // over the file that was cut when the disk was full
  version: await codeOf(saveDataset(home, 'photos', { ...manifest, rows: manifest.rows.slice(1) })),
}
await db.destroy()
console.log(JSON.stringify({ before, full, after, versions: readdirSync(join(disk, 'datasets/photos')).sort() }))
