import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { existsSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import fc from 'fast-check'
import { writeZip, type ZipEntry } from '../../scripts/write-zip.ts'
import { archiveLimits, openArchive } from '../../src/data/archive.ts'
import { importPictures } from '../../src/data/import.ts'
import { Failure, type FailureCode } from '../../src/failure.ts'
import { blobsIn, picture, temporary } from './folders.ts'

const names = await Promise.all(
  [1, 2, 3, 4, 5, 6].map(async number => [`${number < 4 ? 'cat' : 'dog'}/${number}.png`, await picture(number)] as const),
)
const controls: ZipEntry[] = names.map(([name, data]) => ({ name, data }))
const note = Buffer.from('hello')

function archive(t: TestContext, bytes: Buffer): string {
  const path = join(temporary(t), 'pictures.zip')
  writeFileSync(path, bytes)
  return path
}

test('the controls: stored and deflated pictures, folders, odd but honest names', async t => {
  const honest: ZipEntry[] = [
    ...controls,
    { name: 'dog/', data: Buffer.alloc(0) },
    { name: 'dog/deflated.png', data: await picture(7), deflate: true },
    { name: 'dog/größer “als” 🐶.png', data: await picture(8) },
    { name: Buffer.from('dog/caf\x82.png', 'latin1'), data: await picture(9), lie: { flags: 0 } }, // code page 437: é
    { name: 'dog/UTF-8, not said: ü.png', data: await picture(10), lie: { flags: 0 } },
    { name: '__MACOSX/dog/._1.png', data: note },
    { name: 'dog/.DS_Store', data: note },
  ]
  const folder = temporary(t)
  const manifest = await importPictures(archive(t, writeZip(honest)), { blobs: blobsIn(folder) })
  assert.deepEqual(
    manifest.rows.map(row => row.path),
    [
      'cat/1.png',
      'cat/2.png',
      'cat/3.png',
      'dog/4.png',
      'dog/5.png',
      'dog/6.png',
      'dog/UTF-8, not said: ü.png',
      'dog/café.png',
      'dog/deflated.png',
      'dog/größer “als” 🐶.png',
    ],
  )
  assert.deepEqual(manifest.ignored, [
    { path: '__MACOSX', reason: 'folder of a tool' },
    { path: 'dog/.DS_Store', reason: 'hidden file' },
  ])
  assert.deepEqual(manifest.unreadable, [])
})

const hostile: Record<string, ZipEntry[]> = {
  'a name that leads out': [{ name: '../evil.png', data: note }],
  'a name that leads out from within': [{ name: 'cat/../../evil.png', data: note }],
  'an absolute name': [{ name: '/etc/evil.png', data: note }],
  'a drive': [{ name: 'C:/evil.png', data: note }],
  backslashes: [{ name: 'cat\\..\\..\\evil.png', data: note }],
  'a NUL in a name': [{ name: 'cat/a\0.png', data: note }],
  'a newline in a name': [{ name: 'cat/a\n.png', data: note }],
  'an escape sequence in a name': [{ name: 'cat/\u001b]0;owned\u0007.png', data: note }],
  'an empty part': [{ name: 'cat//a.png', data: note }],
  'a dot': [{ name: './a.png', data: note }],
  'no name': [{ name: '', data: note }],
  'bytes that are not the UTF-8 they say': [{ name: Buffer.from([0x63, 0xff, 0xfe]), data: note }],
  'a name of 4,000 bytes': [{ name: 'a'.repeat(4000), data: note }],
  'a part of 300 bytes': [{ name: `cat/${'a'.repeat(300)}`, data: note }],
  'a hundred folders': [{ name: `${'a/'.repeat(100)}b.png`, data: note }],
  'a symbolic link': [{ name: 'cat/link.png', data: Buffer.from('/etc/passwd'), mode: 0o120777 }],
  'a pipe': [{ name: 'cat/pipe.png', data: Buffer.alloc(0), mode: 0o010644 }],
  'a device': [{ name: 'cat/device.png', data: Buffer.alloc(0), mode: 0o020644 }],
  'the same name twice': [
    { name: 'cat/a.png', data: note },
    { name: 'cat/a.png', data: Buffer.from('other') },
  ],
  'the same name in two Unicode forms': [
    { name: 'cat/\u00e9.png', data: note },
    { name: 'cat/e\u0301.png', data: note },
  ],
  'another name in the local header': [{ name: 'cat/a.png', data: note, lieInLocal: { name: '../a.png0'.slice(0, 9) } }],
  'another size in the local header': [{ name: 'cat/a.png', data: note, lieInLocal: { size: 1 } }],
  'another checksum in the local header': [{ name: 'cat/a.png', data: note, lieInLocal: { crc: 7 } }],
  'another packing in the local header': [{ name: 'cat/a.png', data: note, lieInLocal: { method: 8 } }],
  'two entries on the same bytes': [
    { name: 'cat/a.png', data: note },
    { name: 'cat/a.png'.replace('a', 'b'), data: note, sharesHeaderOf: 0 },
  ],
  'a folder with bytes': [{ name: 'cat/a/', data: note }],
}

for (const [what, entries] of Object.entries(hostile)) {
  test(`an archive with ${what} is refused whole, before anything is stored`, async t => {
    const folder = temporary(t)
    const path = archive(t, writeZip([...entries, ...controls]))
    await assert.rejects(importPictures(path, { blobs: blobsIn(folder) }), (error: Failure) => {
      assert.ok((['archive_unsafe', 'archive_damaged'] as FailureCode[]).includes(error.code), `${error.code}: ${error.message}`)
      assert.doesNotMatch(error.message, /[\u0000-\u001f]/)
      return true
    })
    assert.equal(existsSync(join(folder, 'blobs')) ? readdirSync(join(folder, 'blobs')).length : 0, 0)
    assert.deepEqual(
      readdirSync(join(folder, '..')).filter(name => name.includes('evil')),
      [],
    )
  })
}

test('overlapping entries of Fifield’s kind, where one lies within the data of another, are refused', async t => {
  const inner = writeZip([{ name: 'cat/b.png', data: note }])
  const outer = writeZip([
    { name: 'cat/a.png', data: inner },
    { name: 'cat/b.png', data: note },
  ])
  const first = 30 + 'cat/a.png'.length // where the inner archive begins
  const directory = outer.lastIndexOf(Buffer.from('PK\x01\x02'))
  outer.writeUInt32LE(first, directory + 42)
  await assert.rejects(openArchive(archive(t, outer)), { code: 'archive_unsafe', message: /share their bytes/ })
})

test('bombs by number, by size and by ratio are refused from the directory alone', async t => {
  const zeros = Buffer.alloc(2_000_000)
  const open = (entries: ZipEntry[], limits: Partial<typeof archiveLimits>) =>
    openArchive(archive(t, writeZip(entries)), undefined, { ...archiveLimits, ...limits } as typeof archiveLimits)
  await assert.rejects(open(controls, { entries: 5 } as never), { code: 'archive_unsafe', message: /6 entries/ })
  await assert.rejects(open(controls, { total: 300 } as never), { code: 'archive_unsafe', message: /more than 300 bytes/ })
  await assert.rejects(open([{ name: 'cat/a.png', data: zeros, deflate: true }], { ratioFrom: 1_000_000 } as never), {
    code: 'archive_unsafe',
    message: /100 times/,
  })
  const lying = writeZip([{ name: 'cat/a.png', data: note, deflate: true, lie: { size: 0xfffffff0 } }, ...controls])
  await assert.rejects(openArchive(archive(t, lying)), { code: 'archive_unsafe' })
})

test('an entry that unpacks to more or less than it says, has another checksum, is encrypted or strangely packed is named and left out', async t => {
  const big = Buffer.alloc(100_000, 7)
  const entries: ZipEntry[] = [
    ...controls,
    { name: 'cat/more.png', data: big, deflate: true, lie: { size: 10 } },
    { name: 'cat/less.png', data: note, deflate: true, lie: { size: 99 } },
    { name: 'cat/crc.png', data: names[0]![1], lie: { crc: 1 } },
    { name: 'cat/packed.png', data: names[0]![1], lie: { method: 9 } },
    { name: 'cat/rubbish.png', data: note, lie: { method: 8 } },
    { name: 'cat/stuffed.png', data: randomBytes(200_000), deflate: true, lie: { size: 10 } }, // much to read for little
    { name: 'dog/secret.png', data: note, deflate: true, lie: { flags: 0x801 } },
  ]
  const manifest = await importPictures(archive(t, writeZip(entries)), { blobs: blobsIn(temporary(t)) })
  assert.equal(manifest.rows.length, 6)
  assert.deepEqual(Object.fromEntries(manifest.unreadable.map(({ path, reason }) => [path, reason])), {
    'cat/crc.png': 'The file cannot be read: its checksum is wrong: the archive was damaged.',
    'cat/less.png': 'The file cannot be read: it does not have the size the archive says.',
    'cat/more.png': 'The file cannot be read: it unpacks to more than the archive says.',
    'cat/packed.png': 'The file cannot be read: it is packed in a way that is not read (9).',
    'cat/rubbish.png': 'The file cannot be read: its packed data is damaged.',
    'cat/stuffed.png': 'The file cannot be read: it takes more room packed than unpacked.',
    'dog/secret.png': 'The file cannot be read: it is encrypted with a password.',
  })
})

test('archives of other programs are read: sizes behind the data, zip64, comments', async t => {
  const streamed = writeZip(controls.map(entry => ({ ...entry, lie: { flags: 0x808 }, lieInLocal: { crc: 0, packed: 0, size: 0 } })))
  assert.deepEqual(await contents(t, streamed), truth)
  assert.deepEqual(await contents(t, zip64(controls)), truth)
  const commented = writeZip(controls)
  commented.writeUInt16LE(4, commented.length - 2)
  assert.deepEqual(await contents(t, Buffer.concat([commented, Buffer.from('note')])), truth)
})

const truth = controls.map(({ name, data }) => [name, Buffer.from(data)])
async function contents(t: TestContext, bytes: Buffer) {
  const source = await openArchive(archive(t, bytes))
  t.after(() => source.close())
  return await Promise.all(source.files.map(async file => [file.path, await file.read()]))
}

/** The same archive as programs write it that do not know the sizes beforehand: in fields of 8 bytes behind the names (APPNOTE 4.5.3). */
function zip64(entries: readonly ZipEntry[]): Buffer {
  const unset = 0xffffffff
  const parts: Buffer[] = []
  const directory: Buffer[] = []
  let at = 0
  for (const entry of entries) {
    const plain = writeZip([entry])
    const central = plain.lastIndexOf(Buffer.from('PK\x01\x02', 'latin1'))
    const name = Buffer.from(entry.name as string)
    const extra = Buffer.alloc(20)
    extra.writeUInt16LE(1, 0)
    extra.writeUInt16LE(16, 2)
    extra.writeBigUInt64LE(BigInt(entry.data.length), 4)
    extra.writeBigUInt64LE(BigInt(entry.data.length), 12)
    const here = Buffer.from(plain.subarray(0, 30))
    here.writeUInt32LE(unset, 18)
    here.writeUInt32LE(unset, 22)
    here.writeUInt16LE(extra.length, 28)
    const there = Buffer.from(plain.subarray(central, central + 46))
    there.writeUInt32LE(unset, 20)
    there.writeUInt32LE(unset, 24)
    there.writeUInt16LE(extra.length, 30)
    there.writeUInt32LE(at, 42)
    parts.push(here, name, extra, Buffer.from(entry.data))
    directory.push(there, name, extra)
    at += 30 + name.length + extra.length + entry.data.length
  }
  const end = writeZip([])
  end.writeUInt16LE(entries.length, 8)
  end.writeUInt16LE(entries.length, 10)
  end.writeUInt32LE(Buffer.concat(directory).length, 12)
  end.writeUInt32LE(at, 16)
  return Buffer.concat([...parts, ...directory, end])
}

test('what is no zip, or only half of one, says so', async t => {
  await assert.rejects(openArchive(archive(t, Buffer.from('no zip at all'))), { code: 'source_not_a_folder' })
  await assert.rejects(openArchive(archive(t, Buffer.alloc(0))), { code: 'source_not_a_folder' })
  const whole = writeZip(controls)
  for (const share of [0.2, 0.5, 0.9, 0.99]) {
    await assert.rejects(openArchive(archive(t, whole.subarray(0, Math.round(whole.length * share)))), { code: 'archive_damaged' })
  }
  const beyond: ZipEntry = { name: 'dog/7.png', data: note, lie: { packed: 1_000_000, size: 1_000_000 } }
  await assert.rejects(openArchive(archive(t, writeZip([...controls, beyond]))), { code: 'archive_damaged', message: /ends before/ })
  await assert.rejects(importPictures(archive(t, writeZip([])), { blobs: blobsIn(temporary(t)) }), { code: 'no_pictures' })
})

test('20,000 entries are listed quickly', async t => {
  const path = archive(t, writeZip(Array.from({ length: 20_000 }, (_, index) => ({ name: `cat/${index}.png`, data: note }))))
  const started = performance.now()
  const source = await openArchive(path)
  assert.equal(source.files.length, 20_000)
  assert.ok(performance.now() - started < 3000)
  await source.close()
})

test('no change to an archive makes the reader do anything but answer or refuse', async t => {
  const folder = temporary(t)
  const seed = writeZip([...controls, { name: 'dog/deflated.txt', data: Buffer.from('text '.repeat(50)), deflate: true }])
  const path = join(folder, 'mutated.zip')
  await fc.assert(
    fc.asyncProperty(fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 6 }), fc.boolean(), async (changes, late) => {
      const bytes = Buffer.from(seed)
      for (const [at, value] of changes) bytes[late ? bytes.length - 1 - (at % 600) : at % bytes.length] = value // late: the directory
      writeFileSync(path, bytes)
      try {
        const source = await openArchive(path)
        for (const file of source.files) await file.read().catch(error => assert.ok(error instanceof Failure, String(error)))
        for (const file of source.files) await file.head().catch(error => assert.ok(error instanceof Failure, String(error)))
        await source.close()
      } catch (error) {
        assert.ok(error instanceof Failure, String((error as Error).stack))
      }
    }),
    { numRuns: process.env['PLINTH_TEST'] === 'long' ? 50_000 : 800 },
  )
})
