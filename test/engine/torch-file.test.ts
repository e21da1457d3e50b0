import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import { readTorchFile } from '../../src/engine/torch-file.ts'
import { Failure, type FailureCode } from '../../src/failure.ts'
import { python } from '../peers.ts'
import { bytes, dictionary, legacyFile, op, pickle, tensor, twoFloats, type ZipEntry, zip, zipFile } from './pickle-assembler.ts'

const golden = (name: string) => readFileSync(new URL(`../golden/models/${name}`, import.meta.url))
const refusal = (code: FailureCode, problem: RegExp) => (error: unknown) => {
  assert.ok(error instanceof Failure, String(error))
  assert.equal(error.code, code, error.message)
  assert.match(error.message, problem)
  return true
}
const isRefused = (file: Uint8Array, problem: RegExp) => assert.throws(() => readTorchFile(file), refusal('torch_file_refused', problem))
const isMalformed = (file: Uint8Array, problem: RegExp) =>
  assert.throws(() => readTorchFile(file), refusal('torch_file_malformed', problem))
const oneTensor = (spec: Parameters<typeof tensor>[0] = {}, tail: Parameters<typeof tensor>[1] = []) =>
  pickle(dictionary([['w', tensor(spec, tail)]]))

// ── files that are sound ────────────────────────────────────────────────────────────────────────────────────────────────────

const expected = JSON.parse(golden('torch-files.json').toString()) as Record<string, { shape: number[]; data: string[] }>
for (const file of ['zip.pth', 'legacy.pth', 'checkpoint.pth'])
  test(`${file}, as PyTorch wrote it: every number type, views, scalars, parameters`, () => {
    const tensors = readTorchFile(golden(file))
    assert.deepEqual([...tensors.keys()].sort(), Object.keys(expected).sort())
    for (const [name, { shape, data }] of Object.entries(expected)) {
      const read = tensors.get(name)!
      assert.deepEqual(read.shape, shape, name)
      assert.deepEqual(
        read.data,
        Float32Array.from(data, v => (v === 'inf' ? Infinity : Number(v))),
        name,
      )
    }
  })

test('the assembler of this test writes files that load, in both containers', () => {
  for (const file of [zipFile(oneTensor()), legacyFile(oneTensor({}, op.none))])
    assert.deepEqual(readTorchFile(file).get('w'), { shape: [2], data: Float32Array.of(1, 2) })
})

test('bytes that do not start on a multiple of four are read too', () => {
  const file = zipFile(oneTensor())
  const shifted = new Uint8Array(file.length + 1).subarray(1)
  shifted.set(file)
  assert.deepEqual(readTorchFile(shifted).get('w')!.data, Float32Array.of(1, 2))
})

test('Python 2 wrote short byte strings and dictionaries as lists of pairs', () => {
  const short = (value: string) => ['U', value.length, value]
  const pair = [op.emptyList, op.mark, short('w'), tensor({}, op.none), 'e']
  const file = legacyFile(pickle(op.global('collections', 'OrderedDict'), op.emptyList, op.mark, pair, 'e', op.tuple1, op.reduce))
  assert.deepEqual(readTorchFile(file).get('w')!.data, Float32Array.of(1, 2))
})

test('a name like __proto__ is a name like any other', () => {
  const tensors = readTorchFile(
    zipFile(
      pickle(
        dictionary([
          ['__proto__', tensor()],
          ['constructor', tensor()],
        ]),
      ),
    ),
  )
  assert.deepEqual([...tensors.keys()], ['__proto__', 'constructor'])
  assert.equal(({} as { shape?: unknown }).shape, undefined)
})

test('files written by the PyTorch that is installed', t => {
  const interpreter = python()
  if (!interpreter) return t.skip('no Python with PyTorch here (scripts/install-peers.ts)')
  const folder = mkdtempSync(join(tmpdir(), 'plinth-torch-'))
  try {
    const code = `
import torch, sys
torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.Linear(8, 4))
for name, new in [('new', True), ('old', False)]:
    torch.save(net.state_dict(), f'{sys.argv[1]}/{name}.pth', _use_new_zipfile_serialization=new)
torch.save(net, f'{sys.argv[1]}/module.pth')
torch.save(net.state_dict(), f'{sys.argv[1]}/protocol4.pth', pickle_protocol=4)
print(sum(float(v.double().sum()) for v in net.state_dict().values()))`
    try {
      execFileSync(interpreter, ['-c', 'import torch'], { stdio: 'ignore' })
    } catch {
      return t.skip('this Python has no PyTorch')
    }
    const sum = Number(execFileSync(interpreter, ['-c', code, folder], { encoding: 'utf8' }))
    for (const name of ['new', 'old']) {
      const tensors = readTorchFile(readFileSync(join(folder, `${name}.pth`)))
      assert.equal(tensors.size, 9)
      const total = [...tensors.values()].reduce((s, { data }) => s + data.reduce((a, b) => a + b, 0), 0)
      assert.ok(Math.abs(total - sum) < 1e-6, `${total} ${sum}`)
    }
    isRefused(readFileSync(join(folder, 'module.pth')), /torch\.nn\.modules/)
    isRefused(readFileSync(join(folder, 'protocol4.pth')), /protocol 4/)
  } finally {
    rmSync(folder, { recursive: true })
  }
})

// ── files that want to run something ────────────────────────────────────────────────────────────────────────────────────────

const hostile: Record<string, [ReturnType<typeof pickle>, RegExp]> = {
  'os.system by GLOBAL and REDUCE': [pickle(op.global('os', 'system'), op.text('touch /tmp/x'), op.tuple1, op.reduce), /"os\.system"/],
  'posix.system under its other name': [pickle(op.global('posix', 'system'), op.text('id'), op.tuple1, op.reduce), /"posix\.system"/],
  'builtins.eval': [pickle(op.global('builtins', 'eval'), op.text('1'), op.tuple1, op.reduce), /"builtins\.eval"/],
  'builtins.getattr of an allowed name': [pickle(op.global('__builtin__', 'getattr'), op.stop), /getattr/],
  'an allowed module, another name': [pickle(op.global('torch._utils', '_import_dotted_name'), op.stop), /_import_dotted_name/],
  'torch.load inside': [pickle(op.global('torch', 'load'), op.text('/etc/passwd'), op.tuple1, op.reduce), /"torch\.load"/],
  'a dotted name': [pickle(op.global('torch', 'FloatStorage.__init__.__globals__'), op.stop), /__globals__/],
  'a name of the prototype': [pickle(op.global('torch', 'toString'), op.stop), /toString/],
  'a name of the prototype, __proto__': [pickle(op.global('torch', '__proto__'), op.stop), /__proto__/],
  'an allowed module with a NUL behind it': [pickle(op.global('torch\u0000', 'FloatStorage'), op.stop), /FloatStorage/],
  'os.system by STACK_GLOBAL': [pickle(op.text('os'), op.text('system'), 0x93, op.text('id'), op.tuple1, op.reduce), /STACK_GLOBAL/],
  'os.system by INST': [pickle(op.mark, op.text('id'), 'ios\nsystem\n'), /INST/],
  'os.system by OBJ': [pickle(op.mark, op.global('collections', 'OrderedDict'), op.text('id'), 'o'), /OBJ/],
  'NEWOBJ of an allowed name': [pickle(op.global('collections', 'OrderedDict'), op.emptyTuple, 0x81), /NEWOBJ/],
  NEWOBJ_EX: [pickle(op.global('collections', 'OrderedDict'), op.emptyTuple, op.emptyDict, 0x92), /NEWOBJ_EX/],
  'an extension code': [pickle(0x82, 1), /EXT1/],
  'a wide extension code': [pickle(0x84, 1, 0, 0, 0), /EXT4/],
  'the number of Python 0, which eval read once': [pickle('I1\n'), /0x49/],
  'a text persistent id': [pickle('Pstorage\n'), /PERSID/],
  'out-of-band buffers': [pickle(0x97), /NEXT_BUFFER/],
  'BUILD on a tensor': [pickle(tensor(), op.emptyDict, op.build), /changes the inside/],
  'BUILD on a function': [pickle(op.global('collections', 'OrderedDict'), op.emptyDict, op.build), /changes the inside/],
  'BUILD on a list': [pickle(op.emptyList, op.emptyDict, op.build), /changes the inside/],
  'BUILD with a tuple of state and slots': [pickle(op.emptyDict, op.none, op.emptyDict, op.tuple2, op.build), /changes the inside/],
  'a call of a storage class': [pickle(op.global('torch', 'FloatStorage'), op.emptyTuple, op.reduce), /not a function/],
  'a call of a tensor': [pickle(tensor(), op.emptyTuple, op.reduce), /not a function/],
  'a call of a text': [pickle(op.text('os.system'), op.emptyTuple, op.reduce), /not a function/],
  'items set on a list': [pickle(op.emptyList, op.text('a'), op.none, op.setItem), /not a dictionary/],
  'items set on a tensor': [pickle(tensor(), op.text('a'), op.none, op.setItem), /not a dictionary/],
  'something appended to a tuple': [pickle(op.emptyTuple, op.none, op.append), /not a list/],
  'a key that is a tuple': [pickle(op.emptyDict, op.emptyTuple, op.none, op.setItem), /neither a text nor a number/],
  'a key twice': [
    pickle(
      dictionary([
        ['w', tensor()],
        ['w', tensor({ key: '0' })],
      ]),
    ),
    /twice/,
  ],
  'another protocol': [bytes(0x80, 5, op.emptyDict, op.stop), /protocol 5/],
  'a persistent id that is a number': [pickle(op.int(1), op.persistent), /not a tuple/],
  'a persistent id that is a dictionary': [pickle(op.emptyDict, op.persistent), /not a tuple/],
  'a persistent id of another kind': [
    pickle(
      op.mark,
      op.text('module'),
      op.global('torch', 'FloatStorage'),
      op.text('0'),
      op.text('cpu'),
      op.int(2),
      op.tuple,
      op.persistent,
    ),
    /never does/,
  ],
  'a persistent id whose class is a text': [
    pickle(op.mark, op.text('storage'), op.text('FloatStorage'), op.text('0'), op.text('cpu'), op.int(2), op.tuple, op.persistent),
    /never does/,
  ],
  'a persistent id whose class is a function': [
    pickle(
      op.mark,
      op.text('storage'),
      op.global('collections', 'OrderedDict'),
      op.text('0'),
      op.text('cpu'),
      op.int(2),
      op.tuple,
      op.persistent,
    ),
    /never does/,
  ],
  'no tensors at all': [pickle(dictionary([['a', op.int(1)]])), /no dictionary of tensors/],
  'one bare tensor': [pickle(tensor()), /no dictionary of tensors/],
}
for (const [what, [data, problem]] of Object.entries(hostile))
  test(`refused: ${what}`, () => {
    isRefused(zipFile(data), problem)
    // in the older container the ids have one member more, so the ones about ids are refused for that
    assert.throws(
      () => readTorchFile(legacyFile(data)),
      (e: unknown) => e instanceof Failure && e.code.startsWith('torch_file_'),
    )
  })

test('the pickles before the data of the older format may not call or refer to anything', () => {
  const magic = pickle(op.long(0x1950a86a20f9469cfc6cn, 10))
  isRefused(bytes(pickle(op.global('os', 'system'), op.text('id'), op.tuple1, op.reduce)), /os\.system/)
  isRefused(bytes(magic, pickle(op.global('collections', 'OrderedDict'), op.emptyTuple, op.reduce)), /calls something before/)
  isRefused(bytes(magic, pickle(op.int(1001)), pickle(op.emptyTuple, op.persistent)), /refers to storages before/)
  isRefused(bytes(magic, pickle(op.int(1002))), /unknown version/)
  isRefused(bytes(magic, pickle(op.int(1001)), pickle(dictionary([['little_endian', 0x89]]))), /big-endian/)
})

// ── files that want to fill the memory, the stack or the day ────────────────────────────────────────────────────────────────

const within = (milliseconds: number, act: () => void) => {
  const start = performance.now()
  act()
  assert.ok(performance.now() - start < milliseconds, `took ${Math.round(performance.now() - start)} ms`)
}
const times = (n: number, ...parts: Parameters<typeof bytes>) => Buffer.concat(Array.from({ length: n }, () => bytes(...parts)))

test('nests of any depth are refused', () => {
  within(20_000, () => {
    isRefused(zipFile(pickle(times(1_000_000, op.mark))), /nested deeper/)
    isRefused(zipFile(pickle(op.none, times(1_000_000, op.tuple1))), /nested deeper/)
    isRefused(zipFile(pickle(times(100_000, op.emptyList), times(99_999, op.append))), /nested deeper/)
    isRefused(zipFile(pickle(times(1000, [op.emptyDict, op.text('a')]), op.none, times(1000, op.setItem))), /nested deeper/)
  })
})

test('a billion laughs: a short file that stands for 2^60 values costs what its bytes cost', () => {
  const laughs = pickle(
    op.emptyList,
    Array.from({ length: 60 }, (_, i) => [op.put(i), op.get(i), op.tuple2]),
  )
  within(20_000, () => isRefused(zipFile(laughs), /no dictionary of tensors/))
})

test('a list that holds itself does no harm', () => {
  within(20_000, () =>
    isRefused(zipFile(pickle(op.emptyList, op.put(0), times(1000, op.get(0), op.append))), /nested deeper|no dictionary/),
  )
})

test('stack and memo have an end', () => {
  within(20_000, () => {
    isRefused(zipFile(pickle(times(400_000, op.none))), /stacks up/)
    const puts = Buffer.concat(Array.from({ length: 1_100_000 }, (_, i) => bytes(op.longPut(i))))
    isRefused(zipFile(pickle(op.none, puts)), /remembers too many/)
  })
  isMalformed(zipFile(pickle(op.longPut(0xffffffff))), /takes more than it gave/)
  isMalformed(zipFile(pickle(op.get(7))), /recalls/)
})

test('lengths are believed only as far as the bytes go', () => {
  isRefused(zipFile(pickle('X', [255, 255, 255, 255])), /longer than 64 KiB/)
  isMalformed(zipFile(pickle('X', [255, 0, 0, 0])), /middle of a pickle/)
  isRefused(zipFile(pickle(0x8a, 200, Buffer.alloc(200))), /longer than 16 bytes/)
  isMalformed(zipFile(pickle('c', 'o'.repeat(5000))), /does not end/)
  isMalformed(zipFile(pickle('X', [2, 0, 0, 0], [0xc3, 0x28])), /UTF-8/)
})

test('a tensor may not reach beyond its storage, nor be larger than it', () => {
  for (const spec of [
    { shape: [3] },
    { offset: 1 },
    { offset: 2, shape: [1] },
    { shape: [2, 2], strides: [1, 1] },
    { shape: [1 << 20, 1 << 20], strides: [0, 0] }, // torch.load opens this: 2^40 numbers of two
    { shape: [3], strides: [0] },
    { shape: [2], strides: [2] },
    { shape: [], strides: [], offset: 2 },
    { shape: [2n ** 40n], strides: [0] },
  ])
    isRefused(zipFile(oneTensor(spec)), /beyond its storage/)
  for (const spec of [{ shape: [-1] }, { strides: [-1] }, { offset: -1 }, { shape: [2, 1] }, { shape: [2n ** 62n], strides: [1] }])
    isMalformed(zipFile(oneTensor(spec)), /impossible shape/)
})

test('a storage must be exactly as long as it says', () => {
  isMalformed(zipFile(oneTensor({ elements: 3, shape: [2] })), /wrong length/)
  isMalformed(zipFile(oneTensor({ elements: 1, shape: [1] })), /wrong length/)
  isMalformed(zipFile(oneTensor({ key: '1' })), /missing/)
  isMalformed(zipFile(oneTensor({ key: '../data.pkl' })), /missing/)
  isMalformed(zipFile(oneTensor({ storage: 'DoubleStorage' })), /wrong length/)
  isMalformed(
    zipFile(
      pickle(
        dictionary([
          ['a', tensor()],
          ['b', tensor({ storage: 'IntStorage' })],
        ]),
      ),
    ),
    /two descriptions/,
  )
  isMalformed(legacyFile(oneTensor({ elements: 3, shape: [2] }, op.none)), /wrong length/)
  isMalformed(legacyFile(oneTensor({ key: '7' }, op.none)), /does not fit/)
  isMalformed(legacyFile(oneTensor({}, op.none), {}), /storage is missing/)
  isMalformed(bytes(legacyFile(oneTensor({}, op.none)), 0), /follows its last storage/)
  isRefused(legacyFile(oneTensor({}, [op.text('v'), op.int(0), op.int(1), op.tuple3])), /view of another/)
})

test('many tensors on one storage do not multiply a small file', () => {
  const storage = Buffer.alloc(4000)
  const many = pickle(dictionary(Array.from({ length: 1000 }, (_, i) => [`w${i}`, tensor({ elements: 1000, shape: [1000] })])))
  isRefused(zipFile(many, { 0: storage }), /fill the memory/)
})

// ── containers that tell two stories ────────────────────────────────────────────────────────────────────────────────────────

const sound = oneTensor()
const evil = pickle(op.global('os', 'system'), op.text('id'), op.tuple1, op.reduce)
const archive = (...more: ZipEntry[]) => zipFile(sound, undefined, more)

test('two data.pkl, whatever they hold', () => {
  isRefused(archive({ name: 'archive/data.pkl', data: evil }), /twice/)
  isMalformed(archive({ name: 'other/data.pkl', data: evil }), /more than one data\.pkl/)
  isMalformed(archive({ name: 'data.pkl', data: evil }), /more than one data\.pkl/)
  isMalformed(zip([{ name: 'a/b/data.pkl', data: sound }]), /not where/)
  isMalformed(zip([{ name: 'readme.txt', data: sound }]), /without data\.pkl/)
})

test('names that lead elsewhere', () => {
  for (const name of [
    'archive/../x',
    '../x',
    '/etc/passwd',
    'archive//x',
    'archive\\x',
    'archive/./x',
    'archive/\u0000x',
    'archive/x\n',
    'archive/é',
    'a'.repeat(2000),
  ])
    isRefused(archive({ name, data: twoFloats }), /entry of it/)
})

test('compressed, encrypted and overlapping entries, and headers that disagree', () => {
  isRefused(archive({ name: 'archive/x', data: twoFloats, method: 8 }), /compressed/)
  isRefused(archive({ name: 'archive/x', data: twoFloats, flags: 1 }), /encrypted/)
  isRefused(archive({ name: 'archive/x', centralName: 'archive/y', data: twoFloats }), /two descriptions/)
  isMalformed(archive({ name: 'archive/x', data: twoFloats, crc: 1 }), /checksum/)
  isMalformed(archive({ name: 'archive/x', data: twoFloats, centralSize: 1 << 30 }), /reaches beyond/)
  isMalformed(archive({ name: 'archive/x', data: twoFloats, header: 5 }), /not where it says/)
  const twice = { name: 'archive/x', data: twoFloats }
  const from = zip([{ name: 'archive/data.pkl', data: sound }]).indexOf('PK\u0001\u0002')
  assert.throws(
    () => readTorchFile(zip([{ name: 'archive/data.pkl', data: sound }, twice, { ...twice, header: from }])),
    refusal('torch_file_refused', /twice|share bytes/),
  )
})

test('a TorchScript program and a big-endian file', () => {
  isRefused(archive({ name: 'archive/code/__torch__.py', data: Buffer.from('def f(): pass') }), /TorchScript/)
  isRefused(archive({ name: 'archive/constants.pkl', data: evil }), /TorchScript/)
  isRefused(
    zip([
      { name: 'a/data.pkl', data: sound },
      { name: 'a/byteorder', data: Buffer.from('big') },
    ]),
    /big-endian/,
  )
})

test('something behind the end, and files that are neither', () => {
  isMalformed(bytes(zipFile(sound), 0), /cut short/)
  isMalformed(zipFile(bytes(sound, evil)), /follows the pickle/)
  for (const file of [Buffer.alloc(0), Buffer.from('PK'), Buffer.from('hello'), Buffer.alloc(100), Buffer.from([0x80, 2, 0x2e])])
    assert.throws(
      () => readTorchFile(file),
      (e: unknown) => e instanceof Failure && e.code === 'torch_file_malformed',
    )
})

test('every cut of a sound file is refused', () => {
  for (const file of [zipFile(sound), legacyFile(oneTensor({}, op.none))])
    for (let length = 0; length < file.length; length++)
      assert.throws(
        () => readTorchFile(file.subarray(0, length)),
        (e: unknown) => e instanceof Failure,
      )
})

// ── files nobody thought of ─────────────────────────────────────────────────────────────────────────────────────────────────

const runs = process.env['PLINTH_TEST'] === 'long' ? 100_000 : 4000
/** Whatever comes: numbers within the file's means, or a coded refusal. */
function readsOrRefuses(file: Uint8Array) {
  try {
    let elements = 0
    for (const { shape, data } of readTorchFile(file).values()) {
      assert.equal(
        data.length,
        shape.reduce((a, b) => a * b, 1),
      )
      elements += data.length
    }
    assert.ok(elements <= 2 * file.length)
  } catch (error) {
    if (!(error instanceof Failure) || !error.code.startsWith('torch_file_')) throw error
  }
}

test(`mutated files either load or are refused, ${runs} times`, () => {
  const seeds = ['zip.pth', 'legacy.pth', 'checkpoint.pth'].map(golden)
  const mutation = fc.record({
    at: fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
    value: fc.nat(255),
    kind: fc.constantFrom('set', 'delete', 'insert', 'swap'),
  })
  fc.assert(
    fc.property(fc.constantFrom(...seeds), fc.array(mutation, { minLength: 1, maxLength: 6 }), (seed, mutations) => {
      let file = Buffer.from(seed)
      for (const { at, value, kind } of mutations) {
        const i = Math.floor(at * file.length)
        if (kind === 'set') file[i] = value
        else if (kind === 'delete') file = Buffer.concat([file.subarray(0, i), file.subarray(i + 1 + (value % 9))])
        else if (kind === 'insert') file = Buffer.concat([file.subarray(0, i), Buffer.of(value), file.subarray(i)])
        else file = Buffer.concat([file.subarray(i), file.subarray(0, i)])
      }
      readsOrRefuses(file)
    }),
    { numRuns: runs },
  )
})

test(`mutated pickles inside a sound zip (the checksum does not save them), ${runs} times`, () => {
  const seed = pickle(
    dictionary([
      ['a', tensor()],
      ['b', tensor({ shape: [1, 2], strides: [2, 1] })],
      ['n', op.int(3)],
    ]),
  )
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(seed.length - 1), fc.nat(255)), { minLength: 1, maxLength: 5 }), changes => {
      const data = Buffer.from(seed)
      for (const [at, value] of changes) data[at] = value
      readsOrRefuses(zipFile(data))
    }),
    { numRuns: runs },
  )
})

test(`random programs of the opcodes that are known, ${runs} times`, () => {
  const step = fc.oneof(
    fc.constantFrom(
      op.mark,
      op.none,
      op.true,
      op.emptyTuple,
      op.emptyList,
      op.emptyDict,
      op.tuple,
      op.tuple1,
      op.tuple2,
      op.tuple3,
      op.append,
      'e',
      op.setItem,
      op.setItems,
      op.reduce,
      op.build,
      op.persistent,
    ),
    fc.nat(3).map(op.put),
    fc.nat(3).map(op.get),
    fc.constantFrom('storage', '0', 'cpu', 'w').map(op.text),
    fc.integer({ min: -3, max: 1000 }).map(op.int),
    fc
      .constantFrom(
        ['torch', 'FloatStorage'],
        ['torch._utils', '_rebuild_tensor_v2'],
        ['torch._utils', '_rebuild_parameter'],
        ['collections', 'OrderedDict'],
      )
      .map(([m, n]) => op.global(m!, n!)),
    fc.constant(tensor()),
  )
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), steps => readsOrRefuses(zipFile(pickle(...steps)))),
    { numRuns: runs },
  )
})
