/** What people's folders hold besides good pictures: nothing is lost without a word, and every refusal has a code and a next step. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { constants, createDeflate } from 'node:zlib'
import sharp from 'sharp'
import { openFacts } from '../../src/data/facts.ts'
import { importPictures } from '../../src/data/import.ts'
import { splitDataset } from '../../src/data/split.ts'
import { score } from '../../src/evaluate/score.ts'
import { failures } from '../../src/failure.ts'
import type { Manifest } from '../../src/sdk/shapes.ts'
import { bitmap, fromRgb, scene } from '../images/make.ts'
import { pictures, temporary, write } from './folders.ts'

const look = (folder: string) => importPictures(folder, { blobs: null, accept: 'anything' })

// ── classes ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

test('a thousand classes are imported and split, each on all three sides', async t => {
  const tiny = (number: number) => bitmap({ width: 1, height: 1, bits: 24, rows: [[number & 255, number >> 8, 7]] })
  const files = Array.from({ length: 3000 }, (_, number) => [`class ${number % 1000}/${number}.bmp`, tiny(number)] as const)
  const folder = await write(temporary(t), Object.fromEntries(files))
  const manifest = await importPictures(folder, { blobs: null })
  assert.deepEqual([manifest.classes.length, manifest.rows.length], [1000, 3000])
  const split = splitDataset(manifest, { seed: 1, dataset: 'x' })
  for (const side of [split.train, split.validation, split.test]) {
    assert.equal(new Set(side.map(row => manifest.rows[row]!.labels[0])).size, 1000)
  }
})

test('a class that is missing from a side shifts nothing: the scores of the others stay what they were', async t => {
  const classes = ['a', 'b', 'c']
  const folder = temporary(t)
  for (const [index, label] of classes.entries()) {
    await write(folder, { ...pictures(`train/${label}`, 6, 100 * index), ...pictures(`val/${label}`, 6, 100 * index + 30) })
    await write(folder, pictures(`test/${label}`, 12, 100 * index + 60))
  }
  const whole = await importPictures(folder, { blobs: null })
  for (const side of ['val', 'test']) for (const name of readdirSync(join(folder, side, 'a'))) rmSync(join(folder, side, 'a', name))
  const emptied = await importPictures(folder, { blobs: null })
  assert.deepEqual(emptied.classes, classes)
  assert.deepEqual(
    emptied.rows,
    whole.rows.filter(row => row.side === 'train' || row.labels[0] !== 'a'),
  )
  assert.deepEqual(
    emptied.ignored.map(({ path }) => path),
    ['test/a', 'val/a'],
  )

  /** A model that knows `a` and confuses the others in a way that depends on the picture alone. */
  const answer = ({ pixels, labels }: Manifest['rows'][number]) => {
    const wrong = labels[0] !== 'a' && Number.parseInt(pixels[0]!, 16) < 5
    const said = wrong ? (labels[0] === 'b' ? 'c' : 'b') : labels[0]
    return classes.map(label => (label === said ? 0.8 : 0.1))
  }
  const scores = (manifest: Manifest) => {
    const split = splitDataset(manifest, { seed: 1, dataset: 'x' })
    const rows = split.test.map(row => manifest.rows[row]!)
    const number = (row: Manifest['rows'][number]) => manifest.classes.indexOf(row.labels[0]!)
    return score({
      labels: manifest.classes,
      truth: rows.map(number),
      probabilities: rows.map(answer),
      trainTruth: split.train.map(row => number(manifest.rows[row]!)),
      linearProbeProbabilities: null,
      paths: rows.map(row => row.path),
      calibration: { temperature: 1 },
    }).perClass
  }
  const [before, after] = [scores(whole), scores(emptied)]
  assert.deepEqual(after.slice(1), before.slice(1))
  assert.ok(before[1]!.recall! < 1, 'the model does make mistakes')
  assert.deepEqual([after[0]!.label, after[0]!.n], ['a', 0])
})

// ── pictures ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** A true bomb: 40,000×40,000 grey pixels of one bit, 200 MB, in about 200 KB. */
async function bomb(): Promise<Buffer> {
  const plain = await sharp({ create: { width: 1, height: 1, channels: 3, background: '#000' } })
    .png()
    .toBuffer()
  const deflate = createDeflate({ level: constants.Z_BEST_SPEED })
  const packed: Buffer[] = []
  deflate.on('data', part => packed.push(part))
  const rows = Buffer.alloc(5001 * 100)
  for (let row = 0; row < 40_000; row += 100) if (!deflate.write(rows)) await once(deflate, 'drain')
  deflate.end()
  await once(deflate, 'end')
  const { crc32 } = await import('node:zlib')
  const chunk = (type: string, data: Buffer) => {
    const body = Buffer.concat([Buffer.from(type, 'latin1'), data])
    const out = Buffer.alloc(body.length + 8)
    out.writeUInt32BE(data.length, 0)
    body.copy(out, 4)
    out.writeUInt32BE(crc32(body), body.length + 4)
    return out
  }
  const header = Buffer.alloc(13)
  header.writeUInt32BE(40_000, 0)
  header.writeUInt32BE(40_000, 4)
  header[8] = 1
  return Buffer.concat([plain.subarray(0, 8), chunk('IHDR', header), chunk('IDAT', Buffer.concat(packed)), chunk('IEND', Buffer.alloc(0))])
}

test('pictures of 1×1 and 20,000×10 pixels are pictures, one of 40,000×40,000 is named with the limit', async t => {
  const folder = await write(temporary(t), {
    'cat/dot.png': await sharp({ create: { width: 1, height: 1, channels: 3, background: '#123456' } })
      .png()
      .toBuffer(),
    'cat/strip.png': await fromRgb(Buffer.alloc(20_000 * 10 * 3, 99), 20_000, 10)
      .png()
      .toBuffer(),
    'cat/bomb.png': await bomb(),
    ...pictures('dog', 3),
  })
  const before = process.memoryUsage().rss
  const manifest = await look(folder)
  assert.ok(process.memoryUsage().rss - before < 300e6)
  assert.deepEqual(
    manifest.rows.slice(0, 2).map(({ path, width, height }) => [path, width, height]),
    [
      ['cat/dot.png', 1, 1],
      ['cat/strip.png', 20_000, 10],
    ],
  )
  assert.deepEqual(
    manifest.unreadable.map(({ path, code }) => [path, code]),
    [['cat/bomb.png', 'image_too_large']],
  )
  assert.match(manifest.unreadable[0]!.reason, /40000×40000 pixels; at most 100,000,000 pixels/)
})

test('every file with flipped bits is a picture or is named with a code, and none is lost', async t => {
  const honest: Record<string, Buffer> = {
    jpg: await fromRgb(scene(64, 48), 64, 48)
      .jpeg()
      .withExif({ IFD0: { Make: 'X' }, IFD2: { DateTimeOriginal: '2026:01:01 00:00:00' } })
      .toBuffer(),
    png: await fromRgb(scene(64, 48), 64, 48).png().toBuffer(),
    webp: await fromRgb(scene(64, 48), 64, 48).webp().toBuffer(),
    gif: await fromRgb(scene(64, 48), 64, 48).gif().toBuffer(),
    tif: await fromRgb(scene(64, 48), 64, 48).tiff({ compression: 'lzw' }).toBuffer(),
  }
  const each = process.env['PLINTH_TEST'] === 'long' ? 2000 : 60
  const folder = temporary(t)
  mkdirSync(join(folder, 'flipped'))
  let random = 1
  const below = (most: number) => {
    random = (Math.imul(random, 1664525) + 1013904223) >>> 0
    return random % most
  }
  for (const [ending, bytes] of Object.entries(honest))
    for (let number = 0; number < each; number++) {
      const copy = Buffer.from(bytes)
      for (let flips = 1 + below(4); flips > 0; flips--) copy[below(copy.length)]! ^= 1 << below(8)
      writeFileSync(join(folder, 'flipped', `${number}.${ending}`), copy)
    }
  const manifest = await look(folder)
  const named = [...manifest.rows, ...manifest.unreadable, ...manifest.ignored].map(({ path }) => path)
  assert.equal(new Set(named).size, 5 * each)
  assert.ok(manifest.rows.length > 0 && manifest.unreadable.length > each, 'some are read and many are not')
  for (const { code, reason } of manifest.unreadable) {
    assert.ok(Object.hasOwn(failures, code), code)
    assert.doesNotMatch(reason, /vips|plinth-data|[{}]/i)
  }
})

// ── folders that change ─────────────────────────────────────────────────────────────────────────────────────────────────────

test('a folder that is swapped for a link after it was listed leads nowhere', {
  skip: process.platform === 'win32' && 'no links there',
}, async t => {
  const folder = temporary(t)
  await write(join(folder, 'elsewhere'), pictures('dog', 40, 700))
  const photos = await write(join(folder, 'photos'), { ...pictures('cat', 60), ...pictures('dog', 40, 100) })
  let swapped = false
  const manifest = await importPictures(photos, {
    blobs: null,
    accept: 'anything',
    onProgress: () => {
      if (swapped) return
      swapped = true
      renameSync(join(photos, 'dog'), join(folder, 'the true dog'))
      symlinkSync(join(folder, 'elsewhere/dog'), join(photos, 'dog'))
    },
  })
  const stolen = new Set((await look(join(folder, 'elsewhere'))).rows.map(row => row.content))
  assert.ok(manifest.rows.every(row => !stolen.has(row.content)))
  assert.equal(manifest.rows.length + manifest.unreadable.length, 100)
  assert.ok(manifest.unreadable.length > 10)
  for (const { reason } of manifest.unreadable) assert.match(reason, /became a link|went away/)
})

test('a folder that comes and goes all the time is imported as far as it was there, and every picture is told of', {
  timeout: 30_000,
}, async t => {
  const folder = temporary(t)
  const photos = await write(join(folder, 'photos'), { ...pictures('cat', 40), ...pictures('dog', 40, 100) })
  const restless = setInterval(() => {
    const [from, to] = [join(photos, 'dog'), join(folder, 'aside')]
    if (existsSync(from)) renameSync(from, to)
    else renameSync(to, from)
  }, 3)
  t.after(() => clearInterval(restless))
  for (let round = 0; round < 10; round++) {
    const manifest = await look(photos).catch((error: { code: string }) => error)
    if ('code' in manifest) assert.fail(`the whole import failed with ${manifest.code}`)
    assert.equal(manifest.rows.filter(row => row.labels[0] === 'cat').length, 40)
    const dogs = [...manifest.rows, ...manifest.unreadable, ...manifest.ignored].filter(({ path }) => path.startsWith('dog/'))
    assert.ok(dogs.length === 40 || dogs.length === 0, `${dogs.length}`)
  }
})

// ── several at once, and one that is stopped ────────────────────────────────────────────────────────────────────────────────

const program = fileURLToPath(new URL('../../src/main.ts', import.meta.url))
function plinth(folder: string, ...words: string[]) {
  const child = spawn(process.execPath, [program, ...words], {
    env: { ...process.env, PLINTH_HOME: join(folder, 'home'), PLINTH_CACHE: join(folder, 'cache') },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let [out, err] = ['', '']
  child.stdout.on('data', chunk => {
    out += chunk
  })
  child.stderr.on('data', chunk => {
    err += chunk
  })
  const ended = once(child, 'close').then(([code]) => ({ code: code as number | null, out, err }))
  return { child, ended }
}
const lastLine = (out: string) => JSON.parse(out.trim().split('\n').at(-1)!)

test('two imports of one folder at once, by two processes into one home, both succeed with the same version', {
  timeout: 60_000,
}, async t => {
  const folder = temporary(t)
  const photos = await write(join(folder, 'photos'), { ...pictures('cat', 30), ...pictures('dog', 30, 100) })
  cpSync(photos, join(folder, 'before'), { recursive: true })
  const runs = await Promise.all([1, 2].map(() => plinth(folder, 'data', 'import', photos, '--json').ended))
  for (const { code, err } of runs) assert.equal(code, 0, err)
  const [a, b] = runs.map(({ out }) => lastLine(out))
  assert.deepEqual(a, b)
  assert.equal(a.dataset.images, 60)
  assert.deepEqual(readdirSync(join(folder, 'home/datasets/photos')), [`${a.dataset.version}.json`])
  const names = (at: string) => readdirSync(at, { recursive: true }).sort()
  assert.deepEqual(names(photos), names(join(folder, 'before')))
  for (const name of names(photos)) {
    const at = join(photos, String(name))
    if (at.endsWith('.png')) assert.deepEqual(readFileSync(at), readFileSync(join(folder, 'before', String(name))))
  }
})

test('an import that is killed goes on where it was, and gives what it would have given', { timeout: 60_000 }, async t => {
  const folder = temporary(t)
  const large = async (seed: number) =>
    fromRgb(scene(160, 120, seed), 160, 120)
      .png()
      .toBuffer()
  const files = Object.fromEntries(
    await Promise.all(
      Array.from({ length: 160 }, async (_, index) => [`${index % 2 ? 'cat' : 'dog'}/${index}.png`, await large(index)] as const),
    ),
  )
  const photos = await write(join(folder, 'photos'), files)
  const first = plinth(folder, 'data', 'import', photos)
  const facts = join(folder, 'cache/facts')
  const written = () => (existsSync(facts) ? readdirSync(facts).reduce((sum, name) => sum + readFileSync(join(facts, name)).length, 0) : 0)
  const watch = setInterval(() => {
    if (written() > 20 * 5000) first.child.kill('SIGKILL')
  }, 1)
  await first.ended
  clearInterval(watch)
  const remembered = await openFacts(facts)
  const fresh = await importPictures(photos, { blobs: null })
  const known = fresh.rows.filter(row => remembered.get(row.content) !== null).length
  remembered.close()
  assert.ok(known >= 20 && known < 160, `${known} of 160 were remembered`)

  const { code, out, err } = await plinth(folder, 'data', 'import', photos, '--json').ended
  assert.equal(code, 0, err)
  assert.equal(lastLine(out).dataset.images, 160)
  const saved = JSON.parse(readFileSync(join(folder, 'home/datasets/photos/1.json'), 'utf8')) as Manifest
  assert.deepEqual(saved.rows, fresh.rows)
})

test('Ctrl-C says that the same command goes on, and exits with 130', {
  skip: process.platform === 'win32' && 'no signals there',
  timeout: 60_000,
}, async t => {
  const folder = temporary(t)
  const big = await fromRgb(scene(400, 300), 400, 300).png().toBuffer()
  const files = Object.fromEntries(
    Array.from({ length: 150 }, (_, index) => {
      const bytes = Buffer.concat([big, Buffer.from(String(index))]) // each another file
      return [`${index % 2 ? 'cat' : 'dog'}/${index}.png`, bytes]
    }),
  )
  const photos = await write(join(folder, 'photos'), files)
  const run = plinth(folder, 'data', 'import', photos, '--json')
  const watch = setInterval(() => {
    if (!existsSync(join(folder, 'home/blobs')) || readdirSync(join(folder, 'home/blobs')).length < 3) return
    clearInterval(watch) // a second signal would not be asked to be patient
    run.child.kill('SIGINT')
  }, 1)
  const { code, out } = await run.ended
  assert.equal(code, 130, out)
  assert.equal(lastLine(out).error.code, 'interrupted')
  assert.match(lastLine(out).error.next, /same command goes on/)
  assert.equal(existsSync(join(folder, 'home/datasets/photos')), false)
})
