import assert from 'node:assert/strict'
import { test } from 'node:test'
import { readLayout } from '../../src/data/layout.ts'

/** Reads a layout from names; what ends in an image ending is a picture. */
function read(names: string[], folders: string[] = []) {
  const files = names.map(path => ({ path, picture: /\.(png|jpg)$/.test(path) }))
  const layout = readLayout(files, folders)
  return {
    ...layout,
    placed: layout.placed.map(({ index, label, side }) => `${names[index]} → ${side === null ? '' : `${side}: `}${label}`),
    ignored: Object.fromEntries(layout.ignored.map(({ path, reason }) => [path, reason])),
  }
}

test('a folder per class; deeper folders belong to the class above them', () => {
  assert.deepEqual(read(['cat/1.png', 'cat/garden/monday/2.png', 'dog/1.png']).placed, [
    'cat/1.png → cat',
    'cat/garden/monday/2.png → cat',
    'dog/1.png → dog',
  ])
})

test('sides above classes are known by every usual name, in any case, and a class may be missing from one', () => {
  const names = ['Train/cat/1.png', 'Train/dog/1.png', 'VALID/cat/2.png', 'test/dog/3.png']
  assert.deepEqual(read(names).placed, [
    'Train/cat/1.png → train: cat',
    'Train/dog/1.png → train: dog',
    'VALID/cat/2.png → validation: cat',
    'test/dog/3.png → test: dog',
  ])
  for (const [name, side] of Object.entries({
    val: 'validation',
    Validation: 'validation',
    TRAINING: 'train',
    Testing: 'test',
    dev: 'validation',
  })) {
    assert.deepEqual(read(['train/cat/1.png', `${name}/cat/2.png`]).placed[1], `${name}/cat/2.png → ${side}: cat`)
  }
})

test('one folder around everything is looked through, a single class or side is not', () => {
  assert.equal(read(['photos/cat/1.png', 'photos/dog/1.png', 'README.txt']).wrapper, 'photos/')
  assert.equal(read(['a/b/c/cat/1.png', 'a/b/c/dog/1.png']).wrapper, 'a/b/c/')
  assert.deepEqual(read(['data/train/cat/1.png', 'data/test/cat/1.png']).placed, [
    'data/train/cat/1.png → train: cat',
    'data/test/cat/1.png → test: cat',
  ])
  assert.deepEqual(read(['cat/1.png', 'cat/2.png']).placed, ['cat/1.png → cat', 'cat/2.png → cat'])
  assert.deepEqual(read(['train/cat/1.png', 'train/dog/1.png']).placed, ['train/cat/1.png → train: cat', 'train/dog/1.png → train: dog'])
})

test('a class may be called train', () => {
  assert.deepEqual(read(['car/1.png', 'train/1.png', 'train/steam/2.png', 'tram/1.png']).placed, [
    'car/1.png → car',
    'train/1.png → train',
    'train/steam/2.png → train',
    'tram/1.png → tram',
  ])
})

test('nobody wants to tell train from test: pictures without classes in sides have no label', () => {
  const layout = read(['train/1.png', 'train/2.png', 'test/3.png'])
  assert.deepEqual([layout.placed, layout.unlabelled], [[], 3])
  const partly = read(['train/cat/1.png', 'train/dog/1.png', 'test/7.png', 'test/8.png'])
  assert.equal(partly.placed.length, 2)
  assert.deepEqual(partly.ignored, { 'test/*': 'no class folder around it, so it has no label (2 pictures)' })
})

test('pictures beside the class folders, other folders beside sides, and outputs of tools are left out and named', () => {
  assert.deepEqual(read(['cat/1.png', 'dog/1.png', 'logo.png']).ignored, { 'logo.png': 'beside the class folders, so it has no label' })
  assert.deepEqual(read(['train/cat/1.png', 'test/cat/2.png', 'more/cat/3.png']).ignored, {
    'more/cat/3.png': 'beside the folders train, validation and test',
  })
  const runs = read(['cat/1.png', 'dog/1.png', 'runs/classify/train/batch.png', 'runs/classify/args.yaml'])
  assert.deepEqual([runs.placed.length, runs.ignored], [2, { runs: 'outputs of a training tool' }])
  assert.equal(read(['walks/1.png', 'runs/1.png']).placed.length, 2, 'a class may be called runs')
})

test('files that are no pictures are named, many of a kind together, and empty folders are named once', () => {
  const labels = Array.from({ length: 25 }, (_, index) => `cat/${index}.txt`)
  const layout = read(['cat/1.png', 'dog/1.png', 'dog/notes.md', ...labels], ['cat', 'dog', 'fox', 'owl', 'owl/young'])
  assert.deepEqual(layout.ignored, {
    'cat/*.txt': 'not pictures (25 files)',
    'dog/notes.md': 'not a picture',
    fox: 'empty folder',
    owl: 'empty folder',
  })
})

test('a name in two Unicode forms is one class', () => {
  assert.deepEqual(
    new Set(
      readLayout(
        ['cafe\u0301/1.png', 'caf\u00e9/2.png'].map(path => ({ path, picture: true })),
        [],
      ).placed.map(placed => placed.label),
    ),
    new Set(['caf\u00e9']),
  )
})

test('names from Object’s own vocabulary are classes like any other', () => {
  assert.deepEqual(read(['constructor/1.png', '__proto__/1.png', 'toString/2.png']).placed.length, 3)
})
