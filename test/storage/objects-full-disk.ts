/** For objects.test.ts, on a small disk that fills up and then turns read-only. */
import { execFileSync } from 'node:child_process'
import { readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import type { Failure } from '../../src/failure.ts'
import { diskObjects } from '../../src/storage/disk-objects.ts'

const disk = process.argv[2]!
const root = join(disk, 'objects')
const objects = diskObjects(root)
const codeOf = (work: Promise<unknown>) =>
  work.then(
    () => 'fine',
    (error: Failure) => error.code,
  )
async function* content(bytes: number | string) {
  if (typeof bytes === 'string') yield Buffer.from(bytes)
  else for (let left = bytes; left > 0; left -= 65536) yield Buffer.alloc(Math.min(left, 65536), 7)
}

await objects.put('kept', content('old'))
writeFileSync(join(disk, 'ballast'), Buffer.alloc(2e6))
const full = await codeOf(objects.put('new/deep/big', content(3e6)))
await codeOf(objects.put('kept', content(3e6)))
const kept = await text((await objects.get('kept'))!.content)
const listed = (await objects.list('')).map(({ name }) => name)
const left = readdirSync(root).filter(name => name !== 'kept')
rmSync(join(disk, 'ballast'))
const again = await codeOf(objects.put('kept', content('new')))
execFileSync('mount', ['-o', 'remount,ro', disk])
const readOnly = await codeOf(objects.put('a/b/c', content('x')))
const removed = await codeOf(objects.remove('kept'))
const read = await text((await objects.get('kept'))!.content)
console.log(JSON.stringify({ full, kept, listed, left, again, readOnly, removed, read }))
