/** What every storage of objects does alike: the disk, memory, and later the object stores of clouds. */
import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { type TestContext, test } from 'node:test'
import fc from 'fast-check'
import { diskObjects } from '../../src/storage/disk-objects.ts'
import { memoryObjects } from '../../src/storage/memory-objects.ts'
import { checkObjectName, type Objects, walk } from '../../src/storage/objects.ts'
import { onSmallDisk } from './small-disk.ts'

const long = process.env['PLINTH_TEST'] === 'long'

function folderFor(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'objects-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}
const kinds: Record<string, (t: TestContext) => Objects> = {
  disk: t => diskObjects(join(folderFor(t), 'root')),
  memory: () => memoryObjects(),
}

const from = (...parts: (string | Uint8Array)[]) => Readable.from(parts.map(part => Buffer.from(part)))
const textOf = async (objects: Objects, name: string, range?: { from: number; to: number }) => {
  const found = await objects.get(name, range)
  return found && (await buffer(found.content)).toString()
}
const all = async (objects: Objects) => {
  const names: string[] = []
  for await (const { name } of walk(objects, '')) names.push(name)
  return names.sort()
}

for (const [kind, make] of Object.entries(kinds)) {
  test(`${kind}: what was put is there, whole, and replaced by what is put next`, async t => {
    const objects = make(t)
    assert.equal(await objects.get('a/b.txt'), null)
    assert.equal(await objects.head('a/b.txt'), null)
    const before = Date.now()
    const stored = await objects.put('a/b.txt', from('hel', '', 'lo'))
    assert.equal(stored.bytes, 5)
    assert.ok(Math.abs(stored.modified - before) < 60_000)
    assert.deepEqual(await objects.head('a/b.txt'), stored)
    const got = await objects.get('a/b.txt')
    assert.deepEqual(got!.object, stored)
    assert.equal((await buffer(got!.content)).toString(), 'hello')
    await objects.put('a/b.txt', from('bye'))
    assert.equal(await textOf(objects, 'a/b.txt'), 'bye')
    assert.equal((await objects.put('empty', from())).bytes, 0)
    assert.equal(await textOf(objects, 'empty'), '')
  })

  test(`${kind}: who reads the old one while a new one is put reads the old one to its end`, async t => {
    const objects = make(t)
    await objects.put('x', from('a'.repeat(300_000)))
    const { content } = (await objects.get('x'))!
    const first = await content[Symbol.asyncIterator]().next()
    await objects.put('x', from('b'))
    await objects.remove('x')
    assert.ok(String(first.value).startsWith('aaa'))
    let bytes = first.value.length
    for await (const chunk of content) {
      assert.ok(!chunk.includes('b'))
      bytes += chunk.length
    }
    assert.equal(bytes, 300_000)
  })

  test(`${kind}: ranges, also those that reach beyond the end or are empty`, async t => {
    const objects = make(t)
    await objects.put('digits', from('0123456789'))
    const cases: [number, number, string][] = [
      [0, 10, '0123456789'],
      [0, 1, '0'],
      [3, 7, '3456'],
      [9, 10, '9'],
      [5, 99, '56789'],
      [5, 5, ''],
      [7, 3, ''],
      [10, 20, ''],
      [99, 100, ''],
    ]
    for (const [start, end, expected] of cases) {
      const found = await objects.get('digits', { from: start, to: end })
      assert.equal(found!.object.bytes, 10)
      assert.equal((await buffer(found!.content)).toString(), expected, `${start}..${end}`)
    }
    assert.equal(await objects.get('missing', { from: 0, to: 1 }), null)
  })

  test(`${kind}: a folder lists what lies directly in it, in order, and is there as long as something is in it`, async t => {
    const objects = make(t)
    assert.deepEqual(await objects.list(''), [])
    for (const name of ['r/b', 'r/a/2', 'r/a/1/deep', 'r-not', 'r/ä', 'Z']) await objects.put(name, from(name))
    assert.deepEqual(await objects.list('r'), [
      { name: 'a', bytes: null },
      { name: 'b', bytes: 3 },
      { name: 'ä', bytes: 4 },
    ])
    assert.deepEqual(
      (await objects.list('')).map(({ name }) => name),
      ['Z', 'r', 'r-not'],
    )
    assert.deepEqual([await objects.list('r/b'), await objects.list('nowhere')], [[], []])
    assert.deepEqual(await all(objects), ['Z', 'r-not', 'r/a/1/deep', 'r/a/2', 'r/b', 'r/ä'])
    assert.equal(await objects.remove('r/a/1/deep'), true)
    assert.deepEqual(await objects.list('r/a'), [{ name: '2', bytes: 5 }])
    assert.equal(await objects.remove('r/a/2'), true)
    assert.equal(
      (await objects.list('r')).some(({ name }) => name === 'a'),
      false,
    )
    assert.equal(await objects.remove('r'), true)
    assert.deepEqual(await all(objects), ['Z', 'r-not'])
    assert.equal(await objects.remove('r'), false)
    assert.equal(await objects.remove('Z/below'), false)
  })

  test(`${kind}: a file is never a folder too`, async t => {
    const objects = make(t)
    await objects.put('a/b/c', from('1'))
    for (const name of ['a', 'a/b', 'a/b/c/d', 'a/b/c/d/e'])
      await assert.rejects(objects.put(name, from('2')), { code: 'object_in_the_way' }, name)
    assert.deepEqual(await all(objects), ['a/b/c'])
    assert.equal(await textOf(objects, 'a/b/c'), '1')
    for (const name of ['a', 'a/b', 'a/b/c/d']) {
      assert.equal(await objects.get(name), null, name)
      assert.equal(await objects.head(name), null, name)
    }
    await objects.remove('a')
    await objects.put('a', from('3'))
    assert.equal(await textOf(objects, 'a'), '3')
  })

  test(`${kind}: an upload that breaks off leaves nothing, and what was there before`, async t => {
    const objects = make(t)
    await objects.put('kept', from('old'))
    const broken = new Error('the client has gone')
    async function* half() {
      yield Buffer.from('half')
      throw broken
    }
    await assert.rejects(objects.put('new/deep/file', half()), broken)
    await assert.rejects(objects.put('kept', half()), broken)
    assert.deepEqual(await objects.list(''), [{ name: 'kept', bytes: 3 }])
    assert.equal(await textOf(objects, 'kept'), 'old')
    const gone = new Readable({ read() {} }).on('error', () => {})
    gone.push('half')
    const put = objects.put('new/other', gone)
    gone.destroy(broken)
    await assert.rejects(put, broken)
    assert.deepEqual(await objects.list(''), [{ name: 'kept', bytes: 3 }])
  })

  test(`${kind}: of many who put one name at once one wins whole, and folders come and go without harm`, async t => {
    const objects = make(t)
    const letters = [...'abcdefghij']
    await Promise.all(letters.map(letter => objects.put('same', from(...Array.from({ length: 50 }, () => letter.repeat(1000))))))
    const text = await textOf(objects, 'same')
    assert.match(text!, /^(.)\1{49999}$/)
    const rounds = Array.from({ length: 40 }, async (_, i) => {
      await objects.put(`folder/${i % 4}/${i}`, from(String(i)))
      await objects.remove(`folder/${i % 4}/${i}`)
    })
    await Promise.all(rounds)
    assert.deepEqual(await all(objects), ['same'])
    await Promise.all(Array.from({ length: 40 }, (_, i) => objects.put(`many/${i % 7}/${i}`, from(String(i)))))
    assert.equal((await all(objects)).length, 41)
  })

  test(`${kind}: names that could mean something else are refused, everywhere`, async t => {
    const objects = make(t)
    const hostile = [
      ...[
        '',
        '.',
        '..',
        '/',
        '/a',
        'a/',
        'a//b',
        './a',
        'a/.',
        'a/..',
        'a/../b',
        '../a',
        'a\\b',
        '..\\a',
        'C:\\a',
        'a\0b',
        'a\nb',
        'a\x7f',
      ],
      ...['x'.repeat(256), `${'ä'.repeat(128)}`, Array(300).fill('sevenxx').join('/'), '\ud800', 'a/\udc00b', 'x.plinth-part-0123456789ab'],
    ]
    for (const name of hostile) {
      await assert.rejects(async () => objects.put(name, from('x')), { code: 'object_name' }, JSON.stringify(name.slice(0, 40)))
      await assert.rejects(async () => objects.get(name), { code: 'object_name' })
      await assert.rejects(async () => objects.head(name), { code: 'object_name' })
      await assert.rejects(async () => objects.remove(name), { code: 'object_name' })
      if (name !== '') await assert.rejects(async () => objects.list(name), { code: 'object_name' })
    }
    assert.deepEqual(await all(objects), [])
  })

  test(`${kind}: any name that is taken gives back what was put under it, and only that`, async t => {
    const segment = fc.oneof(
      fc.string({ unit: 'grapheme', minLength: 1, maxLength: 60 }),
      fc.constantFrom('%2e%2e', '...', ' ', '~', '-rf', 'a:b', '*', 'CON', '.hidden', 'x'.repeat(255)),
    )
    const named = fc.array(segment, { minLength: 1, maxLength: 4 }).map(parts => parts.join('/'))
    await fc.assert(
      fc.asyncProperty(
        fc.uniqueArray(fc.tuple(named, fc.uint8Array({ maxLength: 50 })), { selector: ([name]) => name, maxLength: 8 }),
        async given => {
          const objects = make(t)
          const kept = new Map<string, Uint8Array>()
          for (const [name, bytes] of given)
            try {
              await objects.put(name, from(bytes))
              kept.set(name, bytes)
            } catch (error) {
              assert.ok(['object_name', 'object_in_the_way'].includes((error as { code: string }).code), String(error))
            }
          assert.deepEqual(await all(objects), [...kept.keys()].sort())
          for (const [name, bytes] of kept) assert.deepEqual(new Uint8Array(await buffer((await objects.get(name))!.content)), bytes)
          for (const name of kept.keys()) assert.equal(await objects.remove(name), true)
          assert.deepEqual(await objects.list(''), [])
        },
      ),
      { numRuns: long ? 1000 : 60 },
    )
  })
}

test('any text is a name inside the root, or refused', () => {
  fc.assert(
    fc.property(fc.oneof(fc.string({ unit: 'binary' }), fc.stringMatching(/^[./\\a%0-9e]{0,30}$/)), name => {
      try {
        checkObjectName(name)
      } catch (error) {
        return assert.equal((error as { code: string }).code, 'object_name')
      }
      const path = join('/root/of/all', name)
      assert.ok(path.startsWith('/root/of/all/'))
      assert.equal(relative('/root/of/all', path), name)
    }),
    { numRuns: long ? 100_000 : 2000 },
  )
})

// ── the disk alone ──────────────────────────────────────────────────────────────────────────────────────────────────────────

test('a big file passes in constant memory, both ways', { skip: process.platform !== 'linux' }, async t => {
  const program = `
    import { diskObjects } from ${JSON.stringify(new URL('../../src/storage/disk-objects.ts', import.meta.url).href)}
    const [folder, chunks] = process.argv.slice(1)
    const chunk = Buffer.alloc(65536, 7)
    async function* source() { for (let i = 0; i < Number(chunks); i++) yield chunk }
    const objects = diskObjects(folder)
    const base = process.resourceUsage().maxRSS
    const { bytes } = await objects.put('big', source())
    let read = 0
    for await (const part of (await objects.get('big')).content) read += part.length
    console.log(JSON.stringify({ bytes, read, grown: (process.resourceUsage().maxRSS - base) / 1024 }))`
  const chunks = long ? 32768 : 3200
  const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '--eval', program, folderFor(t), String(chunks)], {
    encoding: 'utf8',
  })
  assert.equal(stderr, '')
  const { bytes, read, grown } = JSON.parse(stdout)
  assert.deepEqual([bytes, read], [chunks * 65536, chunks * 65536])
  t.diagnostic(`${bytes / 2 ** 20} MB, ${grown.toFixed(0)} MB of memory`)
  assert.ok(grown < 100, `${grown} MB`)
})

test('kill -9 while putting leaves the old file or the new one, whole', async t => {
  const folder = folderFor(t)
  const program = `
    import { diskObjects } from ${JSON.stringify(new URL('../../src/storage/disk-objects.ts', import.meta.url).href)}
    const objects = diskObjects(process.argv[1])
    async function* source(letter) { for (let i = 0; i < 40; i++) yield Buffer.alloc(10_000, letter) }
    for (let i = 0; ; i++) { await objects.put('deep/file', source('ab'[i % 2])); process.stdout.write('.') }`
  for (let kill = 0; kill < (long ? 200 : 6); kill++) {
    const child = spawn(process.execPath, ['--input-type=module', '--eval', program, folder], { stdio: ['ignore', 'pipe', 'inherit'] })
    for (let puts = 0; puts < 1 + (kill % 4); ) puts += String((await once(child.stdout, 'data'))[0]).length
    child.kill('SIGKILL')
    await once(child, 'exit')
    assert.match(readFileSync(join(folder, 'deep/file'), 'utf8'), /^(a{400000}|b{400000})$/)
    assert.deepEqual(await diskObjects(folder).list('deep'), [{ name: 'file', bytes: 400_000 }])
  }
})

test('links, pipes and folders with a file’s name are not read, and do not hang', { skip: process.platform === 'win32' }, async t => {
  const folder = folderFor(t)
  const outside = join(folderFor(t), 'secret')
  writeFileSync(outside, 'secret')
  const objects = diskObjects(folder)
  symlinkSync(outside, join(folder, 'link'))
  spawnSync('mkfifo', [join(folder, 'pipe')])
  mkdirSync(join(folder, 'folder'))
  for (const name of ['link', 'pipe', 'folder']) {
    assert.ok(existsSync(join(folder, name)), name)
    assert.equal(await objects.get(name), null, name)
    assert.equal(await objects.head(name), null, name)
  }
  assert.deepEqual(await objects.list(''), [{ name: 'folder', bytes: null }])
  await objects.put('link', from('mine'))
  assert.deepEqual([readFileSync(outside, 'utf8'), await textOf(objects, 'link')], ['secret', 'mine'], 'the link is replaced, not followed')
})

test('a full disk refuses, keeps what was there, and takes files again once there is room', async t => {
  const answer = await onSmallDisk<object>(t, new URL('./objects-full-disk.ts', import.meta.url))
  if (answer)
    assert.deepEqual(answer, {
      full: 'disk_full',
      kept: 'old',
      listed: ['kept'],
      left: [],
      again: 'fine',
      readOnly: 'read_only',
      removed: 'read_only',
      read: 'new',
    })
})

test('a content that nobody reads keeps no file open once it is destroyed', { skip: process.platform !== 'linux' }, async t => {
  const objects = diskObjects(folderFor(t))
  await objects.put('x', from('a'.repeat(100_000)))
  const open = () => readdirSync('/proc/self/fd').length
  closeSync(openSync('/dev/null', 'r'))
  const before = open()
  for (let i = 0; i < 20; i++) {
    const { content } = (await objects.get('x'))!
    content.destroy()
    await once(content, 'close')
  }
  assert.equal(open(), before)
})
