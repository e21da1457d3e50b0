/** For disk.test.ts, on a small disk: what a writer sees when it fills up, and when it turns read-only. */
import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Failure } from '../../src/failure.ts'
import { openBlobs } from '../../src/storage/blobs.ts'
import { copyFileAtomic, makeFolder, writeFileAtomic } from '../../src/storage/disk.ts'

const disk = process.argv[2]!
const file = join(disk, 'file')
const codeOf = (work: Promise<unknown>) =>
  work.then(
    () => 'fine',
    (error: Failure) => error.code,
  )

const blobs = openBlobs(join(disk, 'blobs'))
await makeFolder(blobs.folder)
const outside = join(process.argv[3]!, 'outside')
writeFileSync(outside, Buffer.alloc(3e6, 7))
await writeFileAtomic(file, 'before')
writeFileSync(join(disk, 'ballast'), Buffer.alloc(2e6))
const full = {
  write: await codeOf(writeFileAtomic(file, Buffer.alloc(3e6))),
  copy: await codeOf(copyFileAtomic(outside, file)),
  put: await codeOf(blobs.put(Buffer.alloc(3e6, 8))),
  putFile: await codeOf(blobs.putFile(outside)),
  content: readFileSync(file, 'utf8'),
  left: readdirSync(disk, { recursive: true, withFileTypes: true })
    .filter(entry => entry.isFile())
    .map(entry => entry.name)
    .sort(),
}
rmSync(join(disk, 'ballast'))
const again = await codeOf(writeFileAtomic(file, 'after'))
execFileSync('mount', ['-o', 'remount,ro', disk])
const readOnly = {
  write: await codeOf(writeFileAtomic(file, 'never')),
  folder: await codeOf(makeFolder(disk, 'new')),
  put: await codeOf(blobs.put(Buffer.from('x'))),
  content: readFileSync(file, 'utf8'),
}
console.log(JSON.stringify({ full, again, readOnly }))
