import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { lookAt } from '../../src/data/facts.ts'
import { importPictures } from '../../src/data/import.ts'
import { openLookers } from '../../src/data/lookers.ts'
import { sha256 } from '../../src/data/source.ts'
import type { Failure } from '../../src/failure.ts'
import { bitmap, fromRgb, scene } from '../images/make.ts'
import { pictures, temporary, write } from './folders.ts'

const program = fileURLToPath(new URL('../../src/main.ts', import.meta.url))

const many = 1000 // enough for threads to be worth it

test('lookers in threads see what one look sees, and say what is wrong in the same words', async () => {
  const good = await Promise.all(
    Array.from({ length: 30 }, (_, index) =>
      fromRgb(scene(40 + index, 30, index), 40 + index, 30)
        .jpeg()
        .toBuffer(),
    ),
  )
  const bad = [
    Buffer.from('no picture'),
    good[0]!.subarray(0, 200),
    Buffer.alloc(0),
    bitmap({ width: 30_000, height: 30_000, bits: 24, rows: [[1, 2, 3]] }),
  ]
  const lookers = openLookers(many, 3)
  try {
    const seen = await Promise.all(good.map(bytes => lookers.lookAt(bytes, sha256(bytes))))
    assert.deepEqual(seen, await Promise.all(good.map(bytes => lookAt(bytes))))
    assert.ok(
      good.every(bytes => bytes.length > 0),
      'the bytes stay with who has them',
    )
    for (const bytes of bad) {
      const expected = (await lookAt(bytes).catch(error => error)) as Failure
      await assert.rejects(lookers.lookAt(bytes, sha256(bytes)), (error: Failure) => {
        assert.deepEqual(error.toJSON(), expected.toJSON())
        return true
      })
    }
  } finally {
    await lookers.close()
  }
})

test('closing waits for what is under way, and closing what never began is nothing', async () => {
  const bytes = await fromRgb(scene(800, 600), 800, 600).png().toBuffer()
  const lookers = openLookers(many, 2)
  const looks = Array.from({ length: 6 }, () => lookers.lookAt(bytes, 'x'))
  await looks[0]
  await looks[1]
  const [closed, ...seen] = await Promise.all([lookers.close(), ...looks.slice(0, 4)])
  assert.equal(closed, undefined)
  assert.ok(seen.every(({ width }) => width === 800))
  await Promise.allSettled(looks)
  await assert.rejects(lookers.lookAt(bytes, 'x'), { code: 'internal' })
  await openLookers(many, 2).close()
})

test('a folder large enough for threads gives the same manifest in the same order, and stops on request', { timeout: 60_000 }, async t => {
  const tiny = (number: number) => bitmap({ width: 2, height: 1, bits: 24, rows: [[number & 255, number >> 8, 7, 1, 2, 3]] })
  const files = Object.fromEntries(Array.from({ length: 300 }, (_, number) => [`${number % 3}/${number}.bmp`, tiny(number)]))
  const folder = await write(temporary(t), { ...files, '0/broken.bmp': 'x' })
  const first = await importPictures(folder, { blobs: null })
  assert.deepEqual(await importPictures(folder, { blobs: null }), first)
  assert.deepEqual([first.rows.length, first.unreadable.length], [300, 1])

  const stop = new AbortController()
  const onProgress = ({ done }: { done: number }) => {
    if (done === 5) stop.abort()
  }
  await assert.rejects(importPictures(folder, { blobs: null, onProgress, signal: stop.signal }), { code: 'interrupted' })
})

test('a machine with nine cores decodes in nine threads, unless its owner says otherwise', {
  skip: process.platform !== 'linux' && 'threads are counted in /proc',
}, async t => {
  const folder = temporary(t)
  const photos = await write(join(folder, 'photos'), { ...pictures('cat', 3), ...pictures('dog', 3, 100) })
  const nine = join(folder, 'nine-cores.cjs') // this machine may have fewer
  const names = "fs.readdirSync('/proc/self/task').map(thread => fs.readFileSync('/proc/self/task/' + thread + '/comm', 'utf8').trim())"
  writeFileSync(
    nine,
    `const fs = require('node:fs')
     require('node:os').availableParallelism = () => 9
     process.on('exit', () => console.error('threads: ' + ${names}.filter(name => name === 'libuv-worker').length))`,
  )
  const threads = (env: Record<string, string>) => {
    const { stderr } = spawnSync(process.execPath, ['--require', nine, program, 'data', 'check', photos, '--json'], {
      env: {
        ...process.env,
        PLINTH_HOME: join(folder, 'home'),
        PLINTH_CACHE: join(folder, 'cache'),
        UV_THREADPOOL_SIZE: undefined,
        ...env,
      },
      encoding: 'utf8',
    })
    return /threads: (\d+)/.exec(stderr)?.[1]
  }
  assert.equal(threads({}), '9')
  assert.equal(threads({ UV_THREADPOOL_SIZE: '3' }), '3')
})
