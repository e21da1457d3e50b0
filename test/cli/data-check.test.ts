/** `plinth data check` as its users run it: on folders with everything wrong that happens to folders. */
import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { cpSync, existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import sharp from 'sharp'
import { extractSample } from '../../src/data/samples.ts'
import { DataCheck } from '../../src/sdk/shapes.ts'
import { pictures, temporary, write } from '../data/folders.ts'
import { fromRgb, paint } from '../images/make.ts'

const main = fileURLToPath(new URL('../../src/main.ts', import.meta.url))

function places(t: TestContext) {
  const folder = temporary(t)
  return { folder, env: { ...process.env, PLINTH_HOME: join(folder, 'home'), PLINTH_CACHE: join(folder, 'cache'), NO_COLOR: '1' } }
}
type Places = ReturnType<typeof places>
const run = ({ folder, env }: Places, ...words: string[]) =>
  spawnSync(process.execPath, [main, 'data', ...words], { encoding: 'utf8', env, cwd: folder })
function check(at: Places, ...words: string[]): DataCheck {
  const { stdout, stderr, status } = run(at, 'check', ...words, '--json')
  assert.equal(status, 0, stdout + stderr)
  return DataCheck.parse(JSON.parse(stdout.trim().split('\n').at(-1)!).dataset)
}

const house = (seed: number) =>
  fromRgb(
    paint(120, 90, (x, y) => {
      const value = ((Math.floor(x / (7 + (seed % 5))) * 7919 + Math.floor(y / 11) * 104729 + seed * 31) % 211) + 20
      return [value, (value * (2 + (seed % 3))) % 256, 255 - value]
    }),
    120,
    90,
  )

/** Two classes of photos, cut, empty and foreign files, a copy, a conflict, a class that was saved as PNG. */
async function ugly(at: Places): Promise<string> {
  const files: Record<string, Buffer | string> = {}
  for (let i = 0; i < 12; i++) {
    files[`photos/good/${i}.jpg`] = await house(i).jpeg().toBuffer()
    files[`photos/defect/${i}.png`] = await house(100 + i)
      .png()
      .toBuffer()
  }
  files['photos/good/the same, again.jpg'] = files['photos/good/0.jpg']!
  files['photos/defect/conflict.jpg'] = files['photos/good/1.jpg']!
  files['photos/good/cut.jpg'] = (files['photos/good/2.jpg'] as Buffer).subarray(0, 900)
  files['photos/good/empty.jpg'] = ''
  files['photos/good/te\u001b[31mxt\n.jpg'] = 'text'
  files['photos/good/.DS_Store'] = 'x'
  files['photos/good/black.jpg'] = await sharp({ create: { width: 90, height: 90, channels: 3, background: '#000' } })
    .jpeg()
    .toBuffer()
  await write(at.folder, files)
  return join(at.folder, 'photos')
}

test('an ugly folder: what is wrong is found, said, and shown on a page; nothing is written but the report and the cache', async t => {
  const at = places(t)
  const photos = await ugly(at)
  const before = readdirSync(photos, { recursive: true }).toSorted()
  const found = check(at, photos, '--report', 'report.html')
  assert.deepEqual(
    found.unreadable.map(({ path, code }) => [path, code]),
    [
      ['good/cut.jpg', 'image_unreadable'],
      ['good/empty.jpg', 'image_empty'],
      ['good/te\u001b[31mxt\n.jpg', 'image_unreadable'],
    ],
  )
  assert.deepEqual(found.ignored, [{ path: 'good/.DS_Store', reason: 'hidden file' }])
  assert.ok(found.exactDuplicates.some(group => group.includes('good/the same, again.jpg')))
  assert.ok(found.conflicts.some(({ paths, labels }) => paths.includes('defect/conflict.jpg') && labels.includes('good')))
  assert.match(found.shortcuts[0]!.sentence, /“(defect|good)” pictures are (PNG|JPEG)/)
  assert.deepEqual(found.uniform, ['good/black.jpg'])
  assert.equal(found.images, 27)
  assert.equal(found.report, 'report.html')

  const text = run(at, 'check', photos)
  assert.equal(text.status, 0)
  assert.match(text.stdout, /^27 pictures in 2 classes, one folder per class\n\n2 things to put right/)
  assert.match(text.stdout, /te␛\[31mxt␊\.jpg/)
  assert.ok(!text.stdout.includes('\u001b'), 'no name steers the terminal')
  assert.match(text.stdout.trim().split('\n').at(-1)!, /^Next: plinth data check .*photos --report report\.html$/)

  assert.match(readFileSync(join(at.folder, 'report.html'), 'utf8'), /^<!doctype html>/)
  assert.deepEqual(readdirSync(photos, { recursive: true }).toSorted(), before)
  assert.deepEqual(readdirSync(at.folder).toSorted(), ['cache', 'photos', 'report.html'], 'no home')
})

test('a second check knows what the first has seen; a changed folder costs what changed', async t => {
  const at = places(t)
  const photos = await ugly(at)
  const first = check(at, photos)
  const facts = () =>
    readdirSync(join(at.env.PLINTH_CACHE, 'facts')).map(name => readFileSync(join(at.env.PLINTH_CACHE, 'facts', name)).length)
  const [size] = facts()
  assert.deepEqual(check(at, photos), first)
  assert.deepEqual(facts(), [size], 'nothing was looked at again')
  writeFileSync(join(photos, 'good', 'new.jpg'), await house(50).jpeg().toBuffer())
  rmSync(join(photos, 'good', '5.jpg'))
  const changed = check(at, photos)
  assert.equal(changed.images, first.images)
  assert.notEqual(changed.version, first.version)
  assert.ok(facts()[0]! - size! < 6000, 'one picture was')
})

test("a stranger's own split: copies across it are found, and --deep says what they are worth", async t => {
  const at = places(t)
  await extractSample('emoji', join(at.folder, 'emoji'))
  for (const label of ['animal', 'food'])
    for (const [index, name] of readdirSync(join(at.folder, 'emoji', label))
      .slice(0, 40)
      .entries()) {
      const from = join(at.folder, 'emoji', label, name)
      cpSync(from, join(at.folder, 'set', index % 4 === 0 ? 'test' : 'train', label, name))
      if (index % 8 === 1) cpSync(from, join(at.folder, 'set', 'test', label, `again ${name}`))
    }
  const plain = check(at, 'set')
  assert.equal(plain.acrossSplit?.testPictures, 30)
  assert.ok(plain.acrossSplit.leaked >= 10, String(plain.acrossSplit.leaked))
  assert.deepEqual([plain.acrossSplit.accuracyAsGiven, plain.mislabels], [null, null])
  assert.match(run(at, 'check', 'set').stdout, /\nNext: plinth data check set --deep --report report\.html\n$/)

  const { acrossSplit, mislabels } = check(at, 'set', '--deep')
  assert.ok(acrossSplit!.leaked >= 10)
  const [given, without] = [acrossSplit!.accuracyAsGiven!, acrossSplit!.accuracyWithout!]
  assert.ok(given >= without && given > 0.6 && given <= 1, `${given} and ${without}`)
  assert.equal(mislabels?.n, 80 + 10)
})

test('a dataset by name is checked as it was imported, and says so', async t => {
  const at = places(t)
  await write(join(at.folder, 'set'), { ...pictures('a', 4), ...pictures('b', 4, 100), 'b/copy.png': 100 })
  assert.equal(run(at, 'import', 'set', '--name', 'birds').status, 0)
  rmSync(join(at.folder, 'set'), { recursive: true })
  rmSync(at.env.PLINTH_CACHE, { recursive: true, force: true })
  const found = check(at, 'birds', '--report', 'birds.html')
  assert.deepEqual([found.version, found.images], ['birds@1', 9])
  assert.match(readFileSync(join(at.folder, 'birds.html'), 'utf8'), /data:image\/webp/)
})

test('where nothing may be written, the check goes on without a memory', async t => {
  const at = places(t)
  await write(join(at.folder, 'set'), { ...pictures('a', 4), ...pictures('b', 4, 100), cache: 'a file, not a folder' })
  const found = check({ folder: at.folder, env: { ...at.env, PLINTH_CACHE: join(at.folder, 'set', 'cache') } }, 'set')
  assert.equal(found.images, 8)
})

test('what cannot be trained is described all the same: nothing readable, one class, two pictures, with --deep', async t => {
  const at = places(t)
  await write(at.folder, {
    'none/a/1.jpg': 'text',
    'none/b/2.png': '',
    'one/a/1.png': 1,
    'one/a/2.png': 2,
    'two/a/1.png': 1,
    'two/b/2.png': 2,
  })
  for (const [folder, images, says] of [
    ['none', 0, /✗ Not one picture can be read/],
    ['one', 2, /✗ All pictures belong to one class, “a”/],
    ['two', 2, /✗ 2 classes have fewer than 10 different pictures/],
  ] as const) {
    const { stdout, status } = run(at, 'check', folder, '--deep', '--report', `${folder}.html`)
    assert.equal(status, 0, stdout)
    assert.match(stdout, says)
    assert.match(stdout, new RegExp(`\nNext: plinth data check ${folder}\n$`))
    assert.equal(check(at, folder).images, images)
  }
})

test('mistakes of the caller are named: no folder, no pictures, a report over a photo', async t => {
  const at = places(t)
  await write(join(at.folder, 'set'), { ...pictures('a', 3), ...pictures('b', 3, 100), 'only/notes.txt': 'x' })
  const error = (...words: string[]) => {
    const { stdout, status } = run(at, 'check', ...words, '--json')
    return [JSON.parse(stdout.trim().split('\n').at(-1)!).error.code, status]
  }
  assert.deepEqual(error('./nowhere'), ['source_not_found', 1])
  assert.deepEqual(error('./set/only'), ['no_pictures', 1])
  assert.deepEqual(error('set', '--report', 'set/a/0.png'), ['report_in_the_way', 1])
  assert.deepEqual(error('set', '--group-by', '('), ['group_pattern_invalid', 1])
  assert.ok(!existsSync(at.env.PLINTH_HOME))
})

test('Ctrl-C stops the check within moments, says how to go on, and what was seen is not seen again', async t => {
  const at = places(t)
  // equal to each other but for bytes behind the end: each is decoded, and there are seconds of work
  const noise = { type: 'gaussian', mean: 128, sigma: 30 } as const
  const large = await sharp({ create: { width: 1600, height: 1200, channels: 3, background: '#888', noise } })
    .jpeg()
    .toBuffer()
  const set = Array.from(
    { length: 120 },
    (_, index) => [`set/${'ab'[index % 2]}/${index}.jpg`, Buffer.concat([large, Buffer.from(`tail ${index}`)])] as const,
  )
  await write(at.folder, Object.fromEntries(set))
  const child = spawn(process.execPath, [main, 'data', 'check', 'set', '--json'], { env: at.env, cwd: at.folder })
  let stdout = ''
  child.stdout.on('data', chunk => (stdout += chunk))
  const facts = join(at.env.PLINTH_CACHE, 'facts')
  const size = () => (existsSync(facts) ? readdirSync(facts).reduce((sum, name) => sum + readFileSync(join(facts, name)).length, 0) : 0)
  while (size() === 0) await new Promise(resolve => setTimeout(resolve, 10))
  child.kill('SIGINT')
  const code = await new Promise(resolve => child.on('exit', resolve))
  assert.equal(code, 130, stdout)
  const { error } = JSON.parse(stdout.trim().split('\n').at(-1)!)
  assert.equal(error.code, 'interrupted')
  assert.match(error.next, /the same command goes on from there/)
  const seen = size()
  assert.ok(seen > 0)
  assert.equal(check(at, 'set').images, 120)
  assert.ok(size() > seen)
})
