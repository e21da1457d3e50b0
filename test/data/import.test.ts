import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import { writeZip } from '../../scripts/write-zip.ts'
import { describeImport, type ImportOptions, importPictures, manifestDigest } from '../../src/data/import.ts'
import { byCodePoint, composedNames, sha256 } from '../../src/data/source.ts'
import type { Failure } from '../../src/failure.ts'
import { Manifest } from '../../src/sdk/shapes.ts'
import { bitmap, fromRgb, scene } from '../images/make.ts'
import { blobsIn, type Files, picture, pictures, temporary, write } from './folders.ts'

const animals: Files = { ...pictures('cat', 4), ...pictures('dog', 4, 100) }

test('a folder per class becomes a manifest, and every file is kept by its content', async t => {
  const folder = temporary(t)
  const blobs = blobsIn(folder)
  const manifest = Manifest.parse(await importPictures(await write(join(folder, 'photos'), animals), { blobs }))
  assert.deepEqual(manifest.classes, ['cat', 'dog'])
  assert.deepEqual(
    manifest.rows.map(row => row.path),
    Object.keys(animals),
  )
  const file = readFileSync(join(folder, 'photos/cat/0.png'))
  const { pixels, ...row } = manifest.rows[0]!
  assert.deepEqual(row, {
    path: 'cat/0.png',
    content: sha256(file),
    labels: ['cat'],
    group: null,
    side: null,
    width: 4,
    height: 4,
    flags: [],
    format: 'png',
    bytes: file.length,
  })
  assert.match(pixels, /^[0-9a-f]{64}$/)
  assert.deepEqual(Buffer.from(await blobs.get(row.content)), file)
  assert.deepEqual([manifest.unreadable, manifest.ignored, manifest.exactDuplicates, manifest.conflicts], [[], [], [], []])
  assert.deepEqual(describeImport(manifest), ['8 pictures in 2 classes, one folder per class'])
})

test('the same pictures are the same dataset wherever they lie, in whatever order they were written, as a folder or as a zip', async t => {
  const folder = temporary(t)
  const blobs = blobsIn(folder)
  const digest = async (path: string) => manifestDigest(await importPictures(path, { blobs }))
  const first = await digest(await write(join(folder, 'first'), animals))
  assert.match(first, /^[0-9a-f]{32}$/)
  assert.equal(await digest(await write(join(folder, 'second'), Object.fromEntries(Object.entries(animals).reverse()))), first)
  const entries = await Promise.all(
    Object.entries(animals).map(async ([name, number]) => ({ name, data: await picture(number as number) })),
  )
  writeFileSync(join(folder, 'a.zip'), writeZip(entries))
  assert.equal(await digest(join(folder, 'a.zip')), first)
  const wrapped = entries.map(entry => ({ ...entry, name: `my photos/${entry.name}` })).reverse()
  writeFileSync(join(folder, 'b.zip'), writeZip([...wrapped, { name: 'README.md', data: Buffer.from('hi') }]))
  assert.equal(await digest(join(folder, 'b.zip')), first)
  renameSync(join(folder, 'second/cat/0.png'), join(folder, 'second/cat/zero.png'))
  assert.notEqual(await digest(join(folder, 'second')), first)
})

test('the digest is pinned: another version of Plinth has to give the same one', async t => {
  const folder = temporary(t)
  const manifest = await importPictures(await write(join(folder, 'photos'), animals), { blobs: blobsIn(folder) })
  const rows = manifest.rows.map(row => ({ ...row, content: 'c', pixels: 'p', bytes: 138 }))
  assert.equal(
    manifestDigest({ ...manifest, rows }),
    sha256(
      JSON.stringify({
        classes: ['cat', 'dog'],
        rows: rows.map(({ path, labels }) => ({
          bytes: 138,
          content: 'c',
          flags: [],
          format: 'png',
          group: null,
          height: 4,
          labels,
          path,
          pixels: 'p',
          side: null,
          width: 4,
        })),
      }),
    ).slice(0, 32),
  )
})

test('own folders for train, validation and test are read, and a file in the wrong format does not hide its class', async t => {
  const folder = temporary(t)
  const files = {
    ...pictures('Train/cat', 3),
    ...pictures('Train/dog', 3, 50),
    ...pictures('valid/cat', 2, 100),
    ...pictures('TEST/dog', 2, 150),
  }
  const manifest = await importPictures(await write(folder, files), { blobs: blobsIn(temporary(t)) })
  assert.deepEqual(manifest.classes, ['cat', 'dog'])
  assert.deepEqual(
    Object.entries(Object.groupBy(manifest.rows, row => `${row.side} ${row.labels[0]}`)).map(([key, rows]) => [key, rows!.length]),
    [
      ['test dog', 2],
      ['train cat', 3],
      ['train dog', 3],
      ['validation cat', 2],
    ],
  )
  assert.match(describeImport(manifest)[0]!, /in your own folders for (\w+, ){2}\w+$/)
})

// ── what is wrong with single files ─────────────────────────────────────────────────────────────────────────────────────────

test('files that cannot be read are named with the reason, and the rest is imported', async t => {
  const folder = await write(temporary(t), {
    ...animals,
    'cat/cut.png': (await picture(7)).subarray(0, 60),
    'cat/empty.png': '',
    'cat/text.jpg': 'text named .jpg',
    'dog/drawing.jpg': '<svg xmlns="http://www.w3.org/2000/svg" width="4" height="4"/>',
    'dog/phone.HEIC': Buffer.from('\0\0\0\x18ftypheic\0\0\0\0mif1heic', 'latin1'),
    'dog/bomb.bmp': bitmap({ width: 30_000, height: 30_000, bits: 24, rows: [[1, 2, 3]] }),
  })
  const blobs = blobsIn(temporary(t))
  const manifest = await importPictures(folder, { blobs })
  assert.equal(manifest.rows.length, 8)
  assert.deepEqual(
    manifest.unreadable.map(({ path, code }) => [path, code]),
    [
      ['cat/cut.png', 'image_unreadable'],
      ['cat/empty.png', 'image_empty'],
      ['cat/text.jpg', 'image_unreadable'],
      ['dog/bomb.bmp', 'image_too_large'],
      ['dog/drawing.jpg', 'image_format'],
      ['dog/phone.HEIC', 'image_format'],
    ],
  )
  assert.match(manifest.unreadable.at(-1)!.reason, /HEIC picture.*heif-convert/)
  const stored = readdirSync(blobs.folder).flatMap(part => readdirSync(join(blobs.folder, part)))
  assert.deepEqual(stored.sort(), manifest.rows.map(row => row.content).sort(), 'nothing unreadable is kept')
})

test('a picture is one by content, whatever it is called', async t => {
  const folder = await write(temporary(t), {
    ...animals,
    'cat/no ending': 20,
    'cat/photo.txt': 21,
    'cat/really a jpeg.png': await fromRgb(scene(8, 8), 8, 8).jpeg().toBuffer(),
    'cat/notes.txt': 'hello',
    'cat/sound.wav': Buffer.from('RIFF\x24\0\0\0WAVEfmt ', 'latin1'), // begins as WebP does
  })
  const manifest = await importPictures(folder, { blobs: blobsIn(temporary(t)) })
  assert.equal(manifest.rows.length, 11)
  assert.deepEqual(manifest.ignored, [
    { path: 'cat/notes.txt', reason: 'not a picture' },
    { path: 'cat/sound.wav', reason: 'not a picture' },
  ])
})

test('copies are found by their pixels, share a group, and contradicting labels are named', async t => {
  const pixels = await fromRgb(scene(8, 8), 8, 8)
  const folder = await write(temporary(t), {
    ...animals,
    'cat/a.png': await pixels.clone().png().toBuffer(),
    'cat/the same as TIFF.tif': await pixels.clone().tiff({ compression: 'lzw' }).toBuffer(),
    'dog/b.webp': await pixels.clone().webp({ lossless: true }).toBuffer(),
    'dog/0 again.png': 100,
  })
  const manifest = await importPictures(folder, { blobs: blobsIn(temporary(t)) })
  assert.deepEqual(manifest.exactDuplicates, [
    ['cat/a.png', 'cat/the same as TIFF.tif', 'dog/b.webp'],
    ['dog/0 again.png', 'dog/0.png'],
  ])
  assert.deepEqual(manifest.conflicts, [['cat/a.png', 'cat/the same as TIFF.tif', 'dog/b.webp']])
  const groups = new Set(manifest.rows.filter(row => manifest.exactDuplicates[0]!.includes(row.path)).map(row => row.group))
  assert.equal(groups.size, 1)
  assert.equal(manifest.rows.filter(row => row.group === null).length, 7)
})

test('pictures of one name group stay together with the copies of any of them', async t => {
  const folder = await write(temporary(t), {
    ...animals,
    'cat/tom__1.png': 30,
    'cat/tom__2.png': 31,
    'cat/kit__1.png': 31,
    'cat/kit__2.png': 32,
  })
  const { rows } = await importPictures(folder, { blobs: blobsIn(temporary(t)), groupBy: /([a-z]+)__/ })
  const groups = rows.filter(row => row.path.includes('__')).map(row => row.group)
  assert.equal(groups.length, 4)
  assert.equal(new Set(groups).size, 1)
  assert.ok(rows.filter(row => !row.path.includes('__')).every(row => row.group === null))
})

// ── odd folders ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

test('hidden, empty and tool folders are left out and named', async t => {
  const folder = await write(temporary(t), {
    ...animals,
    '.git/objects/a.png': 1,
    'cat/.ipynb_checkpoints/0.png': 2,
    '__MACOSX/cat/._0.png': 3,
    'cat/.DS_Store': 'x',
    'cat/Thumbs.db': 'x',
    'runs/classify/train/batch.jpg': 4,
    'bird/': '',
  })
  const manifest = await importPictures(folder, { blobs: blobsIn(temporary(t)) })
  assert.equal(manifest.rows.length, 8)
  assert.deepEqual(manifest.ignored, [
    { path: '.git', reason: 'hidden folder' },
    { path: '__MACOSX', reason: 'folder of a tool' },
    { path: 'bird', reason: 'empty folder' },
    { path: 'cat/.DS_Store', reason: 'hidden file' },
    { path: 'cat/.ipynb_checkpoints', reason: 'hidden folder' },
    { path: 'cat/Thumbs.db', reason: 'file of the system' },
    { path: 'runs', reason: 'outputs of a training tool' },
  ])
})

test('links lead nowhere outside, loops end, and pipes are not opened', {
  skip: process.platform === 'win32' && 'no links and pipes there',
}, async t => {
  const folder = temporary(t)
  const outside = await write(join(folder, 'outside'), { 'secret.png': 5, 'more/secret.png': 6 })
  const photos = await write(join(folder, 'photos'), animals)
  symlinkSync(join(outside, 'secret.png'), join(photos, 'cat/out.png'))
  symlinkSync('../../outside/more', join(photos, 'cat/more'))
  symlinkSync('..', join(photos, 'cat/loop'))
  symlinkSync('nowhere.png', join(photos, 'cat/broken.png'))
  symlinkSync('../dog/0.png', join(photos, 'cat/inside.png'))
  execFileSync('mkfifo', [join(photos, 'dog/pipe.png')])
  const manifest = await importPictures(photos, { blobs: blobsIn(folder) })
  assert.deepEqual(manifest.ignored, [
    { path: 'cat/broken.png', reason: 'a link to nothing' },
    { path: 'cat/loop', reason: 'a link to a folder' },
    { path: 'cat/more', reason: 'a link out of the folder' },
    { path: 'cat/out.png', reason: 'a link out of the folder' },
    { path: 'dog/pipe.png', reason: 'not a file (a pipe, socket or device)' },
  ])
  assert.deepEqual(manifest.exactDuplicates, [['cat/inside.png', 'dog/0.png']], 'a link within the folder is a picture')
  symlinkSync(photos, join(folder, 'link to photos'))
  assert.equal((await importPictures(join(folder, 'link to photos'), { blobs: blobsIn(folder) })).rows.length, 9)
})

test('names with spaces, quotes, emoji, newlines and both Unicode forms are kept apart and in order', async t => {
  const names = [
    'with space.png',
    '"quoted".png',
    'it’s 🐈.png',
    'new\nline.png',
    'caf\u00e9.png',
    'cafe\u0301.png',
    'a%20b&c=d.png',
    '-rf.png',
    '$(reboot).png',
    '__proto__.png',
  ]
  const folder = await write(temporary(t), {
    ...pictures('dog', 3, 90),
    ...Object.fromEntries(names.map((name, index) => [`cat/${name}`, index])),
    'd\u00f6gs/1.png': 70,
    'd\u00f6gs/2.png': 71,
    'do\u0308gs/3.png': 72,
  })
  const manifest = await importPictures(folder, { blobs: blobsIn(temporary(t)) })
  assert.equal(new Set(manifest.rows.map(row => row.path)).size, names.length + 6)
  assert.deepEqual(manifest.classes, ['cat', 'dog', 'd\u00f6gs'])
  assert.deepEqual(
    manifest.rows.map(row => row.path),
    manifest.rows.map(row => row.path).toSorted(byCodePoint),
  )
})

test('order is that of code points, and composed names never fall together', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme' }), fc.string({ unit: 'grapheme' }), (a, b) => {
      assert.equal(Math.sign(byCodePoint(a, b)), Math.sign(Buffer.compare(Buffer.from(a), Buffer.from(b))))
    }),
  )
  fc.assert(
    fc.property(
      fc.uniqueArray(fc.array(fc.constantFrom('e', '\u0301', '\u00e9', 'a'), { maxLength: 4 }).map(parts => parts.join(''))),
      names => {
        assert.equal(new Set(composedNames(names)).size, names.length)
      },
    ),
  )
})

test('class folders called like JavaScript’s own words are classes', async t => {
  const folder = await write(temporary(t), {
    ...pictures('constructor', 3),
    ...pictures('__proto__', 3, 50),
    ...pictures('toString', 3, 100),
  })
  assert.deepEqual((await importPictures(folder, { blobs: blobsIn(temporary(t)) })).classes, ['__proto__', 'constructor', 'toString'])
})

// ── what no classifier can be made of ───────────────────────────────────────────────────────────────────────────────────────

const refusals: Record<string, [Files, string, RegExp]> = {
  'an empty folder': [{ 'x/': '' }, 'no_pictures', /photos\/cat\/1\.jpg/],
  'a folder of texts': [{ 'a/1.txt': 'x', 'b/2.txt': 'y' }, 'no_pictures', /subfolder per class/],
  'pictures without class folders': [{ '1.png': 1, '2.png': 2 }, 'no_classes', /one subfolder per class/],
  'unlabelled pictures in train and test': [{ 'train/1.png': 1, 'test/2.png': 2 }, 'no_classes', /one subfolder per class/],
  'one class': [pictures('cat', 5), 'one_class', /second folder/],
  'one class within train and test': [{ ...pictures('train/cat', 5), ...pictures('test/cat', 5, 50) }, 'one_class', /second folder/],
  'a class with one picture': [{ ...animals, 'owl/1.png': 60 }, 'class_too_small', /take its folder away/],
  'a class with two pictures': [{ ...animals, 'owl/1.png': 60, 'owl/2.png': 61 }, 'class_too_small', /take its folder away/],
  'a class with three copies': [{ ...animals, 'owl/1.png': 60, 'owl/2.png': 60, 'owl/3.png': 60 }, 'class_too_small', /Add pictures/],
  'a class without a readable picture': [{ ...animals, 'owl/1.png': 'x', 'owl/2.png': 'y' }, 'class_too_small', /Add pictures/],
  'not one readable picture': [{ 'cat/1.png': 'x', 'dog/2.png': '' }, 'nothing_readable', /JPEG or PNG/],
}
for (const [what, [files, code, next]] of Object.entries(refusals)) {
  test(`${what}: refused with what to do`, async t => {
    const folder = await write(temporary(t), files)
    await assert.rejects(importPictures(folder, { blobs: blobsIn(temporary(t)) }), (error: Failure) => {
      assert.equal(error.code, code, error.message)
      assert.match(error.next, next)
      assert.doesNotMatch(error.message + error.next, /[{}]/)
      return true
    })
  })
}

test('who only wants to look can import what cannot be trained on', async t => {
  const folder = await write(temporary(t), { ...pictures('cat', 2), 'dog/1.png': 'x' })
  const manifest = await importPictures(folder, { blobs: blobsIn(temporary(t)), accept: 'anything' })
  assert.deepEqual([manifest.classes, manifest.rows.length, manifest.unreadable.length], [['cat'], 2, 1])
})

test('a path that is missing, a file that is no zip, and a device are refused', async t => {
  const folder = await write(temporary(t), { 'notes.txt': 'hello', 'photo.png': 1 })
  const blobs = blobsIn(temporary(t))
  await assert.rejects(importPictures(join(folder, 'nowhere'), { blobs }), { code: 'source_not_found' })
  await assert.rejects(importPictures(join(folder, 'notes.txt'), { blobs }), { code: 'source_not_a_folder' })
  await assert.rejects(importPictures(join(folder, 'photo.png'), { blobs }), { code: 'source_not_a_folder' })
  if (process.platform !== 'win32') await assert.rejects(importPictures('/dev/null', { blobs }), { code: 'source_not_a_folder' })
})

// ── while it runs ───────────────────────────────────────────────────────────────────────────────────────────────────────────

test('progress counts every file once, and Ctrl-C ends the import between two pictures', async t => {
  const folder = await write(temporary(t), { ...pictures('cat', 30), ...pictures('dog', 30, 100), 'dog/broken.png': 'x' })
  const blobs = blobsIn(temporary(t))
  const seen: number[] = []
  await importPictures(folder, {
    blobs,
    onProgress: ({ done, total }) => {
      assert.equal(total, 61)
      seen.push(done)
    },
  })
  assert.deepEqual(
    seen,
    Array.from({ length: 61 }, (_, index) => index + 1),
  )

  const stop = new AbortController()
  let done = 0
  const onProgress: ImportOptions['onProgress'] = progress => {
    done = progress.done
    if (done === 5) stop.abort()
  }
  await assert.rejects(importPictures(folder, { blobs, onProgress, signal: stop.signal }), { code: 'interrupted' })
  assert.ok(done < 20, `${done} pictures after the stop`)
  await assert.rejects(importPictures(folder, { blobs, signal: AbortSignal.abort() }), { code: 'interrupted' })
})

test('a folder that changes while it is read costs the pictures that changed, nothing else', async t => {
  const folder = await write(temporary(t), { ...pictures('cat', 40), ...pictures('dog', 40, 100) })
  let touched = false
  const manifest = await importPictures(folder, {
    blobs: blobsIn(temporary(t)),
    onProgress: () => {
      if (touched) return
      touched = true
      rmSync(join(folder, 'dog/9.png'))
      rmSync(join(folder, 'dog/8.png'))
      mkdirSync(join(folder, 'dog/8.png'))
      writeFileSync(join(folder, 'dog/7.png'), '')
    },
  })
  assert.deepEqual(
    manifest.unreadable.map(({ path, code }) => [path, code]),
    [
      ['dog/7.png', 'image_empty'],
      ['dog/8.png', 'file_unreadable'],
      ['dog/9.png', 'file_unreadable'],
    ],
  )
  assert.equal(manifest.rows.length, 77)
})

test('a disk that refuses ends the import with its own failure, not with 8 unreadable pictures', async t => {
  const folder = temporary(t)
  const photos = await write(join(folder, 'photos'), animals)
  writeFileSync(join(folder, 'blobs'), 'a file where the folder should be')
  await assert.rejects(importPictures(photos, { blobs: blobsIn(folder) }), { code: 'path_in_the_way' })
})

test('a picture that becomes a pipe or a link out of the folder after it was listed is neither waited for nor followed', {
  skip: process.platform === 'win32' && 'no links and pipes there',
  timeout: 20_000,
}, async t => {
  const folder = temporary(t)
  const outside = await write(join(folder, 'outside'), { 'secret.png': 500 })
  const photos = await write(join(folder, 'photos'), { ...pictures('cat', 60), ...pictures('dog', 40, 100) })
  let touched = false
  const manifest = await importPictures(photos, {
    blobs: blobsIn(folder),
    onProgress: () => {
      if (touched) return
      touched = true
      rmSync(join(photos, 'dog/8.png'))
      execFileSync('mkfifo', [join(photos, 'dog/8.png')])
      rmSync(join(photos, 'dog/9.png'))
      symlinkSync(join(outside, 'secret.png'), join(photos, 'dog/9.png'))
    },
  })
  assert.deepEqual(manifest.unreadable, [
    { path: 'dog/8.png', code: 'file_unreadable', reason: 'The file cannot be read: it is no longer a file.' },
    {
      path: 'dog/9.png',
      code: 'file_unreadable',
      reason: 'The file cannot be read: it, or a folder around it, became a link while the folder was read.',
    },
  ])
  assert.equal(manifest.rows.length, 98)
})

test('two imports of one folder at once agree, and nothing is written beside the blobs', async t => {
  const folder = temporary(t)
  const photos = await write(join(folder, 'photos'), animals)
  cpSync(photos, join(folder, 'before'), { recursive: true })
  const blobs = blobsIn(folder)
  const [a, b] = await Promise.all([importPictures(photos, { blobs }), importPictures(photos, { blobs })])
  assert.deepEqual(a, b)
  assert.deepEqual(readdirSync(folder).sort(), ['before', 'blobs', 'photos'])
  assert.deepEqual(readdirSync(photos, { recursive: true }).sort(), readdirSync(join(folder, 'before'), { recursive: true }).sort())
  for (const part of readdirSync(blobs.folder)) {
    for (const name of readdirSync(join(blobs.folder, part))) assert.match(name, /^[0-9a-f]{64}$/)
  }
  assert.ok(existsSync(blobs.path(a.rows[0]!.content)))
})

test('what is left out is told with its reason, the unexpected first, and no name steers the terminal', async t => {
  const folder = await write(temporary(t), {
    ...animals,
    'cat/a\nb\u001b[2J\u202e.png': 'x',
    ...Object.fromEntries(Array.from({ length: 6 }, (_, index) => [`dog/bad ${index}.png`, 'x'])),
    'dog/again.png': 0,
    '.git/config': 'x',
    '.DS_Store': 'x',
    'cat/notes.txt': 'x',
    'stray.png': 9,
    'owl/': '',
  })
  const said = describeImport(await importPictures(folder, { blobs: null }))
  assert.deepEqual(said, [
    '9 pictures in 2 classes, one folder per class',
    '7 files could not be read and are left out:',
    '  cat/a\ufffdb\ufffd[2J\ufffd.png: The picture cannot be read: what is in it is not a picture.',
    ...[0, 1, 2, 3].map(index => `  dog/bad ${index}.png: The picture cannot be read: what is in it is not a picture.`),
    '  … and 2 more (--json lists all)',
    '1 exact copy of other pictures, kept on one side of the split:',
    '  cat/0.png = dog/again.png',
    '1 picture with different labels, of which at most one is right:',
    '  cat/0.png, dog/again.png',
    'left out on purpose: 5 files and folders:',
    '  owl: empty folder',
    '  stray.png: beside the class folders, so it has no label',
    '  .DS_Store: hidden file',
    '  .git: hidden folder',
    '  cat/notes.txt: not a picture',
  ])
})

test('a row says when and with what its picture was taken, and what its file is', async t => {
  const photo = await fromRgb(scene(8, 8), 8, 8)
    .jpeg()
    .withExif({ IFD0: { Make: 'Fuji', Model: 'X100' }, IFD2: { DateTimeOriginal: '2026:05:01 12:30:59', SubSecTimeOriginal: '5' } })
    .toBuffer()
  const folder = await write(temporary(t), { ...animals, 'cat/photo.png': photo })
  const { rows } = Manifest.parse(await importPictures(folder, { blobs: null }))
  const { format, bytes, captured, camera } = rows.find(row => row.path === 'cat/photo.png')!
  assert.deepEqual(
    { format, bytes, captured, camera },
    { format: 'jpeg', bytes: photo.length, captured: '2026-05-01T12:30:59.500', camera: 'Fuji X100' },
  )
  assert.deepEqual([rows[0]!.captured, rows[0]!.camera], [undefined, undefined])
})
