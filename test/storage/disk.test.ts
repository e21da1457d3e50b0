import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { Failure } from '../../src/failure.ts'
import {
  copyFileAtomic,
  isTemporary,
  makeFolder,
  removeFolder,
  storageFailure,
  temporaryPath,
  writeFileAtomic,
} from '../../src/storage/disk.ts'
import { onSmallDisk } from './small-disk.ts'

const kills = process.env['PLINTH_TEST'] === 'long' ? 500 : 20

function folder(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'plinth-disk-'))
  t.after(() => rmSync(path, { recursive: true, force: true }))
  return path
}

test('a reader sees whole files only, and a killed writer leaves the last whole one', async t => {
  const path = join(folder(t), 'file')
  const size = 300_000
  let reads = 0
  for (let kill = 0; kill < kills; kill++) {
    const child = spawn(process.execPath, [new URL('./writer.ts', import.meta.url).pathname, path, String(size)])
    const gone = once(child, 'exit')
    await once(child.stdout, 'data')
    child.stdout.resume()
    const until = performance.now() + ((kill * 7919) % 40)
    while (performance.now() < until) {
      assertWhole(path, size)
      reads++
    }
    child.kill('SIGKILL')
    await gone
    assertWhole(path, size)
  }
  assert.ok(reads > kills, `${reads} reads while writing`)
  const others = readdirSync(join(path, '..')).filter(name => name !== 'file')
  assert.deepEqual(
    others.filter(name => !isTemporary(name)),
    [],
    'gc knows every leftover by its name',
  )
})

function assertWhole(path: string, size: number): void {
  const text = readFileSync(path, 'latin1')
  assert.equal(text.length, size)
  assert.ok(text === text[0]!.repeat(size), 'one letter all through')
}

test('files and folders are for this user alone, a copy that leaves the home is like any file', async t => {
  const path = folder(t)
  await makeFolder(path, 'a', 'b')
  await writeFileAtomic(join(path, 'a', 'file'), 'x')
  await copyFileAtomic(join(path, 'a', 'file'), join(path, 'copy'), 'stream')
  const rights = (...parts: string[]) => statSync(join(path, ...parts)).mode & 0o777
  assert.equal(rights('a', 'b'), 0o700)
  assert.equal(rights('a', 'file'), 0o600)
  assert.equal(rights('copy'), 0o666 & ~process.umask())
})

test('a copy of a file that may only be read can be made, and is whole', async t => {
  const path = folder(t)
  writeFileSync(join(path, 'from'), 'content', { mode: 0o400 })
  await copyFileAtomic(join(path, 'from'), join(path, 'to'))
  assert.equal(readFileSync(join(path, 'to'), 'utf8'), 'content')
})

test('what the disk refuses has a code, and leaves nothing behind', async t => {
  const path = folder(t)
  mkdirSync(join(path, 'taken', 'inside'), { recursive: true })
  writeFileSync(join(path, 'file'), '')
  await assert.rejects(writeFileAtomic(join(path, 'taken'), 'x'), { code: 'path_in_the_way' })
  await assert.rejects(writeFileAtomic(join(path, 'nowhere', 'x'), 'x'), { code: 'storage' })
  await assert.rejects(makeFolder(path, 'file', 'below'), { code: 'path_in_the_way' })
  assert.deepEqual(readdirSync(path).sort(), ['file', 'taken'])
  for (const [errno, code] of Object.entries({
    ENOSPC: 'disk_full',
    EDQUOT: 'disk_full',
    EROFS: 'read_only',
    EACCES: 'not_permitted',
    EPERM: 'not_permitted',
    EIO: 'storage',
  }))
    assert.equal(storageFailure(Object.assign(new Error(errno), { code: errno }), '/x').code, code)
  const failure = new Failure('run_not_found', { run: 'x' })
  assert.equal(storageFailure(failure, '/x'), failure)
})

test('a folder goes at once, and one that is gone is fine', async t => {
  const path = folder(t)
  await makeFolder(path, 'a', 'b')
  assert.equal(await removeFolder(join(path, 'a')), true)
  assert.equal(await removeFolder(join(path, 'a')), false)
  assert.deepEqual(readdirSync(path), [])
})

test('only names of ours count as leftovers', () => {
  assert.ok(isTemporary(temporaryPath('x')))
  for (const name of ['x.plinth-part-', 'x.plinth-part-notes', 'plinth-part-0123456789ab', `${temporaryPath('x')}.json`])
    assert.ok(!isTemporary(name), name)
})

test('a full disk and a read-only one are told apart, and harm nothing that is there', async t => {
  const outside = folder(t)
  const seen = await onSmallDisk(t, new URL('./full-disk.ts', import.meta.url), [outside])
  if (!seen) return
  const refused = 'disk_full'
  assert.deepEqual(seen, {
    full: { write: refused, copy: refused, put: refused, putFile: refused, content: 'before', left: ['ballast', 'file'] },
    again: 'fine',
    readOnly: { write: 'read_only', folder: 'read_only', put: 'read_only', content: 'after' },
  })
})
