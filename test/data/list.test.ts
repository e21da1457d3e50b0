import assert from 'node:assert/strict'
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import fc from 'fast-check'
import { writeZip } from '../../scripts/write-zip.ts'
import { describeImport, type ImportOptions, importPictures, manifestDigest } from '../../src/data/import.ts'
import { linesOf, readList } from '../../src/data/list.ts'
import { Failure } from '../../src/failure.ts'
import { blobsIn, type Files, picture, pictures, temporary, write } from './folders.ts'

const read = (text: string | Uint8Array, name = 'photos.csv') => readList(typeof text === 'string' ? Buffer.from(text) : text, name)
const short = (text: string | Uint8Array, name?: string) =>
  read(text, name).rows.map(({ line, path, label, group, side }) => [line, path, label, ...(group || side ? [group, side] : [])])

// ── the text ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

test('commas, semicolons, tabs and bars are told apart, with a byte order mark, Windows line ends and empty lines', () => {
  const rows = [
    [2, 'cat/1.png', 'cat'],
    [4, 'dog/1.png', 'dog'],
  ]
  for (const mark of ['', '\ufeff'])
    for (const between of [',', ';', '\t', '|'])
      for (const end of ['\n', '\r\n', '\r']) {
        const text = ['path,label', 'cat/1.png,cat', '', 'dog/1.png,dog', ',', ''].join(end).replaceAll(',', between)
        assert.deepEqual(short(mark + text), rows, JSON.stringify(mark + text))
      }
  assert.deepEqual(short('sep=;\npath;label\ncat/1,5.png;cat\n'), [[3, 'cat/1,5.png', 'cat']], 'as Excel announces it')
})

test('what spreadsheets save as "Unicode text" is read', () => {
  const text = 'path\tlabel\ncafé/1.png\tcafé\n'
  const little = Buffer.from(`\ufeff${text}`, 'utf16le')
  assert.deepEqual(short(little, 'photos.tsv'), [[2, 'café/1.png', 'café']])
  assert.deepEqual(short(Buffer.from(little).swap16(), 'photos.tsv'), [[2, 'café/1.png', 'café']])
})

test('quoted fields hold separators, quotes and line breaks, and lines are counted all the same', () => {
  const text = 'path,label\r\n"a, b.png","the ""big"" cat"\r\n"two\r\nlines.png",cat\r\n3.png,dog\r\n'
  assert.deepEqual(short(text), [
    [2, 'a, b.png', 'the "big" cat'],
    [3, 'two\r\nlines.png', 'cat'],
    [5, '3.png', 'dog'],
  ])
})

test('columns are known by many names, in any case and order, and others are passed over', () => {
  const list = read('ID;Subset;Category;File_Name;Group_ID\n1;TRAIN;cat;1.png;tom\n2;dev;dog;2.png;\n3;;dog;3.png;rex\n')
  assert.deepEqual(
    list.rows.map(({ path, label, group, side }) => [path, label, group, side]),
    [
      ['1.png', 'cat', 'tom', 'train'],
      ['2.png', 'dog', null, 'validation'],
      ['3.png', 'dog', 'rex', 'train'], // where others name a side, no word means: to learn from
    ],
  )
  assert.equal(list.understood, 'columns path from "File_Name", label from "Category", group from "Group_ID", split from "Subset"')
  assert.equal(read('filename,breed\n1.png,beagle\n').rows[0]!.label, 'beagle', 'the one other column is the label')
})

test('without a line of names the columns are path, label, group and split', () => {
  const list = read('a/1.jpg,cat\na/2.jpg,dog\n')
  assert.deepEqual(
    list.rows.map(row => [row.line, row.path, row.label]),
    [
      [1, 'a/1.jpg', 'cat'],
      [2, 'a/2.jpg', 'dog'],
    ],
  )
  assert.match(list.understood, /no line of column names/)
  assert.deepEqual(short('1.jpg;cat;tom;test\n'), [[1, '1.jpg', 'cat', 'tom', 'test']])
})

test('JSON lines give the same rows; numbers are labels too, and keys called like JavaScript’s own words are keys', () => {
  const text =
    '{"file_name":"1.png","label":7,"split":"val"}\n\n{"label":["cat"],"path":"2.png","group":"tom","__proto__":{"label":"dog"}}\n'
  assert.deepEqual(short(text, 'photos.jsonl'), [
    [1, '1.png', '7', null, 'validation'],
    [3, '2.png', 'cat', 'tom', 'train'],
  ])
})

test('a line that is there twice counts once', () => {
  assert.deepEqual(short('path,label\n1.png,cat\n./1.png,cat\n'), [[2, '1.png', 'cat']])
})

/** Each refuses the whole list: what → [list, code, what the message says]. */
const faults: Record<string, [string | Uint8Array, string, RegExp, name?: string]> = {
  'nothing at all': ['', 'list_unreadable', /empty/],
  'only a header': ['path,label\n', 'list_unreadable', /names no picture/],
  'a picture': [Buffer.from('\x89PNG\r\n\x1a\n\0\0\0\rIHDR', 'latin1'), 'list_unreadable', /not UTF-8/],
  'the old Windows encoding': [Buffer.from('path,label\ncaf\xe9.png,x\n', 'latin1'), 'list_unreadable', /not UTF-8/],
  'zero bytes': ['path,label\na\0b,cat\n', 'list_unreadable', /zero bytes/],
  'a quote that is never closed': ['path,label\n1.png,cat\n2.png,"dog\n3.png,cat\n', 'list_unreadable', /opens in line 3 .*never closed/],
  'a quote in the middle': ['path,label\n1.png,cat\n5" pizza.png,food\n', 'list_unreadable', /line 3 .*quote/],
  'no column for labels': ['path,size,colour\n1.png,7,red\n', 'list_columns', /no column for label.*path, size, colour/],
  'no known column': ['a,b\nx,y\n', 'list_columns', /path and label/],
  'two columns of one name': ['path,label,Label\n1.png,cat,dog\n', 'list_unreadable', /two of its columns are called label/],
  'a comma too many': ['path,label\n1.png,cat\nsalt, pepper.png,food\n4.png,cat,\n', 'list_ragged', /lines 3 /],
  'a field too few': ['path,label,group\n1.png\n2.png,cat\n3.png\n', 'list_ragged', /lines 2 and 4 /],
  'a path that is missing': ['path,label\n,cat\n2.png,dog\n,cat\n', 'list_unreadable', /path is missing in line 2 and 4/],
  'an unknown split': ['path,label,split\n1.png,cat,train\n2.png,cat,holdout\n', 'list_split_unknown', /"holdout" \(line 3\)/],
  'two labels for one picture': ['path,label\n1.png,cat\n2.png,dog\n./1.png,dog\n', 'list_contradiction', /1\.png, in lines 2 and 4/],
  'two sides for one picture': ['path,label,split\n1.png,cat,train\n1.png,cat,test\n', 'list_contradiction', /lines 2 and 3/],
  'a line that is no JSON': ['{"path":"1.png","label":"cat"}\n{"path":\n', 'list_unreadable', /line 2 is no JSON/, 'a.jsonl'],
  'a JSON list': ['["1.png","cat"]\n', 'list_unreadable', /line 1 is no JSON object/, 'a.jsonl'],
  'an object without a path': ['{"label":"cat"}\n', 'list_unreadable', /line 1 names no picture/, 'a.jsonl'],
  'two labels in a JSON list': ['{"path":"1.png","label":["cat","dog"]}\n', 'list_unreadable', /line 1 holds more than one/, 'a.jsonl'],
}
for (const [what, [text, code, message, name]] of Object.entries(faults)) {
  test(`a list with ${what} is refused, and told where`, () => {
    assert.throws(
      () => read(text, name),
      (error: Failure) => {
        assert.equal(error.code, code, error.message)
        assert.match(error.message, message)
        assert.doesNotMatch(error.message + error.next, /[{}]/)
        return true
      },
    )
  })
}

test('many lines are named by the first and a count', () => {
  assert.equal(linesOf([3]), '3')
  assert.equal(linesOf([3, 4]), '3 and 4')
  assert.equal(linesOf([3, 4, 5, 6, 7, 8, 9]), '3, 4, 5, 6, 7 and 2 more')
})

const runs = process.env['PLINTH_TEST'] === 'long' ? 20_000 : 400

test('whatever a CSV writer writes is read back, line numbers included', () => {
  const text = fc.string({ unit: fc.constantFrom(...'abé🐈 ,;\t|"\'=\n\r.\\/') }).filter(each => each.trim() !== '' && each === each.trim())
  const quoted = (field: string) => `"${field.replaceAll('"', '""')}"`
  fc.assert(
    fc.property(
      fc.uniqueArray(fc.record({ path: text, label: text }), {
        minLength: 1,
        maxLength: 8,
        selector: ({ path }) => path.normalize('NFC').replace(/^(\.\/)+/, ''),
      }),
      fc.constantFrom(',', ';', '\t', '|'),
      fc.constantFrom('\n', '\r\n'),
      (records, between, end) => {
        let line = 2
        const expected = records.map(({ path, label }) => {
          const row = [line, path, label.normalize('NFC')]
          line += 1 + (path + between + label).split(/\r\n|\n|\r/).length - 1
          return row
        })
        const lines = [`path${between}label`, ...records.map(({ path, label }) => quoted(path) + between + quoted(label))]
        assert.deepEqual(
          read(lines.join(end)).rows.map(row => [row.line, row.path, row.label]),
          expected,
        )
      },
    ),
    { numRuns: runs },
  )
})

test('whatever the bytes, a list is read or refused with a code of its own', () => {
  const tokens = [
    'path',
    'label',
    'split',
    'group',
    ',',
    ';',
    '"',
    '""',
    '\n',
    '\r',
    '\r\n',
    '\t',
    'train',
    'x.png',
    '\ufeff',
    '{',
    '}',
    ':',
    '\0',
    '🐈',
  ]
  const wild = fc.oneof(
    fc.uint8Array({ maxLength: 200 }),
    fc.array(fc.constantFrom(...tokens), { maxLength: 60 }).map(parts => Buffer.from(parts.join(''))),
    fc.array(fc.constantFrom(...tokens), { maxLength: 40 }).map(parts => Buffer.from(`path,label\n1.png,cat\n${parts.join('')}`)),
    fc.json().map(text => Buffer.from(text)),
  )
  fc.assert(
    fc.property(wild, fc.constantFrom('a.csv', 'a.tsv', 'a.jsonl'), (bytes, name) => {
      try {
        for (const row of readList(bytes, name).rows) assert.ok(row.line >= 1 && row.path !== '')
      } catch (error) {
        assert.ok(error instanceof Failure && error.code.startsWith('list_'), String(error))
        assert.ok(error.message.length < 500 && !/[\p{Cc}]/u.test(error.message), error.message)
      }
    }),
    { numRuns: 5 * runs },
  )
})

// ── the pictures it names ───────────────────────────────────────────────────────────────────────────────────────────────────

const heap: Files = Object.fromEntries(Array.from({ length: 8 }, (_, index) => [`heap/${index}.png`, 300 + index]))
const labels = Array.from({ length: 8 }, (_, index) => `heap/${index}.png,${index < 4 ? 'cat' : 'dog'}`)
const csv = `path,label\n${labels.join('\n')}\n`

async function imported(t: TestContext, source: string, options: Partial<ImportOptions> = {}) {
  let understood = ''
  const manifest = await importPictures(source, {
    blobs: blobsIn(temporary(t)),
    onUnderstood: text => {
      understood = text
    },
    ...options,
  })
  return { manifest, understood, said: describeImport(manifest, understood) }
}
const placed = (rows: readonly { path: string; labels: string[]; side: string | null }[]) =>
  rows.map(row => `${row.path} ${row.labels.join()}${row.side ? ` ${row.side}` : ''}`)

test('a list by itself, a folder with a list at its top and a zip of it are the same dataset', async t => {
  const folder = await write(temporary(t), { ...heap, 'labels.csv': csv, 'photos.csv': csv })
  const byList = await imported(t, join(folder, 'photos.csv'))
  assert.deepEqual(placed(byList.manifest.rows).slice(3, 5), ['heap/3.png cat', 'heap/4.png dog'])
  assert.deepEqual(byList.said, ['8 pictures in 2 classes, as the list photos.csv says (columns path, label)'])
  const byFolder = await imported(t, folder)
  assert.equal(manifestDigest(byFolder.manifest), manifestDigest(byList.manifest))
  assert.deepEqual(byFolder.manifest.ignored, [{ path: 'photos.csv', reason: 'not a picture' }])
  assert.match(byFolder.said[0]!, /as the list labels\.csv says/)

  const entries = await Promise.all(Object.entries(heap).map(async ([name, number]) => ({ name, data: await picture(number as number) })))
  for (const around of ['', 'my photos/']) {
    const zip = join(folder, 'a.zip')
    const files = [
      {
        name: 'metadata.jsonl',
        data: Buffer.from(labels.map(line => JSON.stringify({ file_name: line.split(',')[0], label: line.split(',')[1] })).join('\n')),
      },
    ]
    writeFileSync(zip, writeZip([...entries, ...files].map(entry => ({ ...entry, name: around + entry.name }))))
    assert.equal(manifestDigest((await imported(t, zip)).manifest), manifestDigest(byList.manifest))
  }
})

test('groups of a list stay together, and its sides are kept', async t => {
  const rows = labels.map((line, index) => `${line},${index % 4 < 2 ? 'tom' : ''},${index % 4 === 3 ? 'test' : 'Train'}`)
  const folder = await write(temporary(t), { ...heap, 'photos.csv': `path,label,group,split\n${rows.join('\n')}` })
  const { manifest } = await imported(t, join(folder, 'photos.csv'))
  const groups = manifest.rows.map(row => row.group)
  assert.ok(groups[0] !== null && [1, 4, 5].every(index => groups[index] === groups[0]), groups.join())
  assert.deepEqual([groups[2], groups[3]], [null, null])
  assert.deepEqual(
    manifest.rows.map(row => row.side),
    ['train', 'train', 'train', 'test', 'train', 'train', 'train', 'test'],
  )
})

test('files that are missing, rows without a label, pictures that are not named: all of them are named with their lines', async t => {
  const folder = await write(temporary(t), {
    ...heap,
    'labels.csv': `${csv}heap/gone.png,cat\nheap/8.png,\nheap/.hidden.png,dog\nheap/broken.png,dog\n`,
    'heap/8.png': 8,
    'heap/9.png': 9,
    'heap/.hidden.png': 10,
    'heap/broken.png': 'x',
    'heap/notes.txt': 'hello',
  })
  for (const source of [folder, join(folder, 'labels.csv')]) {
    const { manifest } = await imported(t, source)
    assert.equal(manifest.rows.length, 8)
    assert.deepEqual(manifest.unreadable, [
      { path: 'heap/.hidden.png', code: 'file_unreadable', reason: 'labels.csv names it in line 12, but it is left out: hidden file.' },
      { path: 'heap/broken.png', code: 'image_unreadable', reason: 'The picture cannot be read: what is in it is not a picture.' },
      { path: 'heap/gone.png', code: 'file_unreadable', reason: 'labels.csv names it in line 10, but it is not there.' },
    ])
    const unlabelled = { path: 'heap/8.png', reason: 'labels.csv gives it no label (line 11)' }
    const left =
      source === folder
        ? [
            { path: 'heap/9.png', reason: 'labels.csv does not name it' },
            { path: 'heap/notes.txt', reason: 'not a picture' },
          ]
        : []
    const hidden = { path: 'heap/.hidden.png', reason: 'hidden file' }
    assert.deepEqual(manifest.ignored, [hidden, unlabelled, ...left])
  }
})

test('paths may begin in the one folder beside the list, be written by Windows or another Unicode, or be absolute within the folder', async t => {
  const folder = await write(temporary(t), { ...pictures('images/cat', 3), ...pictures('images/cafe\u0301', 3, 50), 'other/1.png': 80 })
  const ways: Record<string, (path: string) => string> = {
    'as they are': path => path,
    'from images/': path => path.slice('images/'.length),
    'with a dot': path => `./${path}`,
    'by Windows': path => path.replaceAll('/', '\\'),
    composed: path => path.normalize('NFC'),
    absolute: path => join(folder, path),
    'with a detour': path => `images/../${path}`,
  }
  const paths = [0, 1, 2].flatMap(index => [`images/cat/${index}.png`, `images/cafe\u0301/${index}.png`])
  const digests = new Set<string>()
  for (const [way, spell] of Object.entries(ways)) {
    writeFileSync(join(folder, 'photos.csv'), `path,label\n${paths.map(path => `${spell(path)},${path.split('/')[1]}`).join('\n')}\n`)
    const { manifest, understood } = await imported(t, join(folder, 'photos.csv'))
    assert.deepEqual(manifest.classes, ['caf\u00e9', 'cat'], way)
    digests.add(manifestDigest(manifest))
    assert.equal(understood.includes('in images/'), way === 'from images/')
  }
  assert.equal(digests.size, 1)
})

test('a path that leads out of the folder refuses the list, and a link out of it is not followed', {
  skip: process.platform === 'win32' && 'no links there',
}, async t => {
  const folder = temporary(t)
  await write(join(folder, 'secret'), { '1.png': 1 })
  const photos = await write(join(folder, 'photos'), heap)
  for (const path of [
    '../secret/1.png',
    'heap/../../secret/1.png',
    '..\\secret\\1.png',
    '/etc/passwd',
    'C:\\1.png',
    '..',
    join(folder, 'secret/1.png'),
  ]) {
    writeFileSync(join(photos, 'photos.csv'), `${csv}${path},cat\n`)
    await assert.rejects(imported(t, join(photos, 'photos.csv')), (error: Failure) => {
      assert.equal(error.code, 'list_outside', path)
      assert.match(error.message, /line 10/)
      return true
    })
  }
  symlinkSync(join(folder, 'secret'), join(photos, 'way out'))
  mkdirSync(join(photos, 'heap/folder.png'))
  symlinkSync('0.png', join(photos, 'heap/inside.png'))
  writeFileSync(join(photos, 'photos.csv'), `${csv}way out/1.png,cat\nheap/folder.png,cat\nheap/inside.png,cat\n`)
  const { manifest } = await imported(t, join(photos, 'photos.csv'))
  assert.deepEqual(
    manifest.unreadable.map(({ path, reason }) => [path, reason]),
    [
      ['heap/folder.png', 'photos.csv names it in line 11, but it is left out: a folder.'],
      ['way out/1.png', 'photos.csv names it in line 10, but it is left out: a link out of the folder.'],
    ],
  )
  assert.deepEqual(manifest.exactDuplicates, [['heap/0.png', 'heap/inside.png']])
})

test('a table that is no list of these pictures leaves the folders their say, and is named', async t => {
  const animals = { ...pictures('cat', 4), ...pictures('dog', 4, 100) }
  const tables: Record<string, RegExp> = {
    'when,who\n2026,me\n': /a table without columns for path and label/,
    'path,label\nelsewhere/1.png,x\n': /a list of other pictures/,
    'path,label\n"': /not a list of pictures/,
  }
  for (const [text, reason] of Object.entries(tables)) {
    const folder = await write(temporary(t), { ...animals, 'metadata.csv': text })
    const { manifest, said } = await imported(t, folder)
    assert.equal(said[0], '8 pictures in 2 classes, one folder per class')
    assert.equal(manifest.ignored[0]!.path, 'metadata.csv')
    assert.match(manifest.ignored[0]!.reason, reason)
  }
})

test('a list is taken at its word where folders would say something else, and a fault in it stops the import', async t => {
  const batches = { ...pictures('monday', 3), ...pictures('friday', 3, 100) }
  const rows = Object.keys(batches).map((path, index) => `${path},${index % 2 ? 'ripe' : 'green'}`)
  const folder = await write(temporary(t), { ...batches, 'labels.csv': ['path,label', ...rows].join('\n') })
  const { manifest, said } = await imported(t, folder)
  assert.deepEqual(manifest.classes, ['green', 'ripe'])
  assert.match(said[0]!, /as the list labels\.csv says/)
  writeFileSync(join(folder, 'labels.csv'), ['path,label', ...rows, 'monday/0.png,ripe'].join('\n'))
  await assert.rejects(imported(t, folder), { code: 'list_contradiction' })
})

test('where nothing else gives the labels, a list that fails says why', async t => {
  const failing = async (text: string, code: string) => {
    const folder = await write(temporary(t), { 'a.png': 1, 'b.png': 2, 'labels.csv': text })
    await assert.rejects(imported(t, folder), { code })
    await assert.rejects(imported(t, join(folder, 'labels.csv')), { code })
  }
  await failing('name,animal\na.png,cat\n', 'list_columns')
  await failing('path,label\nc.png,cat\n', 'list_matches_nothing')
  await failing('path,label\n"a.png,cat\n', 'list_unreadable')
})

test('a list with 100,000 lines is read within seconds', () => {
  const lines = Array.from({ length: 100_000 }, (_, index) => `class ${index % 1000}/IMG_${index}.jpg,class ${index % 1000}`)
  const started = performance.now()
  assert.equal(read(`path,label\n${lines.join('\n')}`).rows.length, 100_000)
  assert.ok(performance.now() - started < 8000)
})
