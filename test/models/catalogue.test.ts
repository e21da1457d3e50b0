import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { gradient } from '../../src/engine/gradient.ts'
import { input, type Node, reduceMean, topologicalOrder } from '../../src/engine/graph.ts'
import { writeSafetensors } from '../../src/engine/safetensors.ts'
import { Failure, type FailureCode } from '../../src/failure.ts'
import { type Backbone, backbone, backbones } from '../../src/models/catalogue.ts'
import { dictionary, pickle, tensor, zipFile } from '../engine/pickle-assembler.ts'
import { formulaWeight } from './formula.ts'

const picture = (side: number, width = side) => input('picture', [2, 3, side, width])
const parametersOf = (base: Backbone, side = 64) =>
  topologicalOrder([base.build(picture(side)).features]).filter((node): node is Node<'Parameter'> => node.operation === 'Parameter')
const fails = (code: FailureCode, problem: RegExp) => (error: unknown) => {
  assert.ok(error instanceof Failure, String(error))
  assert.equal(error.code, code, error.message)
  assert.match(`${error.message} ${error.next}`, problem)
  return true
}

const published = {
  'efficientnet-lite0': [4_652_008, 1280],
  resnet18: [11_689_512, 512],
  resnet34: [21_797_672, 512],
  resnet50: [25_557_032, 2048],
} as const

test('the catalogue holds the four backbones, the bundled one first', () => {
  assert.deepEqual(
    backbones().map(({ id }) => id),
    Object.keys(published),
  )
})

for (const [id, [published_, features]] of Object.entries(published)) {
  test(`${id} has as many parameters as the paper's network without its classifier`, () => {
    const base = backbone(id)
    assert.equal(base.features, features)
    assert.equal(base.parameters, published_ - (features * 1000 + 1000))
  })

  test(`${id} takes every multiple of 32 and keeps its parameters whatever the size`, () => {
    const base = backbone(id)
    const described = (side: number) => parametersOf(base, side).map(({ name, shape }) => `${name} ${shape}`)
    for (const side of [32, 96, 128, 160, 224, 288]) {
      assert.deepEqual(base.build(picture(side)).features.shape, [2, features])
      assert.deepEqual(described(side), described(64))
    }
    for (const side of [16, 100, 225, 1056, 0])
      assert.throws(() => base.build(picture(side)), fails('image_size_unsupported', /multiple of 32/))
    assert.throws(() => base.build(picture(96, 90)), fails('image_size_unsupported', /90×96/))
    assert.throws(() => base.build(input('picture', [1, 1, 96, 96])), fails('shape_mismatch', /3, S, S/))
  })

  test(`${id}: depth grows from the stem to the last block`, () => {
    const base = backbone(id)
    const parameters = parametersOf(base)
    const depths = parameters.map(({ name }) => base.depthOf(name!))
    assert.equal(depths[0], 0)
    assert.equal(depths.at(-1), 1)
    assert.ok(depths.every((depth, i) => i === 0 || depth >= depths[i - 1]!))
    assert.ok(new Set(depths).size > 8, 'a depth for each block')
  })

  test(`${id}: statistics stay, everything else is trained and has a gradient`, () => {
    const base = backbone(id)
    const parameters = parametersOf(base)
    assert.equal(new Set(parameters.map(({ name }) => name)).size, parameters.length)
    for (const { name, attributes } of parameters) assert.equal(attributes.trainable, !/\.running_(mean|var)$/.test(name!), name)
    const trained = parameters.filter(({ attributes }) => attributes.trainable)
    const { features } = base.build(picture(64))
    const own = topologicalOrder([features]).filter(
      (node): node is Node<'Parameter'> => node.operation === 'Parameter' && (node as Node<'Parameter'>).attributes.trainable,
    )
    const all = gradient(reduceMean(features, [0, 1]), own)
    assert.equal(own.length, trained.length)
    for (const node of own) assert.deepEqual(all.get(node)!.shape, node.shape, node.name)
  })
}

test('every source says its licence, and hashes and revisions are whole', () => {
  for (const base of backbones()) {
    assert.ok(base.licence.length > 3)
    for (const source of base.weights) {
      assert.match(source.licence, /^(Apache-2\.0|BSD-3-Clause)$/)
      if (source.kind === 'hub') assert.match(source.revision, /^[0-9a-f]{40}$/)
      if (source.sha256 !== undefined) assert.match(source.sha256, /^([0-9a-f]{64}|[0-9a-f]{8})$/)
      if (source.kind === 'address')
        assert.ok(source.url.includes(`-${source.sha256!.slice(0, 8)}.pth`), 'torchvision names files by their hash')
    }
  }
})

test('an unknown backbone is answered with the list', () => {
  assert.throws(() => backbone('vgg16'), fails('backbone_unknown', /vgg16.*efficientnet-lite0, resnet18, resnet34, resnet50/))
  assert.throws(() => backbone('__proto__'), fails('backbone_unknown', /__proto__/))
})

// ── weights from files ──────────────────────────────────────────────────────────────────────────────────────────────────────

const folder = mkdtempSync(join(tmpdir(), 'plinth-weights-'))
after(() => rmSync(folder, { recursive: true }))
const write = (name: string, bytes: Uint8Array | string) => {
  const path = join(folder, name)
  writeFileSync(path, bytes)
  return path
}

test('the bundled weights need no network and no cache', async () => {
  const weights = await backbone('efficientnet-lite0').loadWeights({ offline: true })
  assert.equal(weights.size, 245)
  assert.equal(weights.get('_conv_stem.weight')!.length, 32 * 3 * 9)
  assert.ok(!weights.has('_fc.weight'))
})

const resnet = backbone('resnet18')
const sound = () => new Map(parametersOf(resnet).map(({ name, shape }) => [name!, { shape, data: formulaWeight(name!, shape) }]))
const load = (file: string) => resnet.loadWeights({ file })

test('weights of a user’s file: more tensors than needed are left out, the prefix of DataParallel is taken off', async () => {
  const tensors = sound().set('fc.weight', { shape: [2, 512], data: new Float32Array(1024) })
  const file = write('sound.safetensors', writeSafetensors(tensors, {}, 'F16'))
  const weights = await load(file)
  assert.equal(weights.size, sound().size)
  const prefixed = new Map([...sound()].map(([name, value]) => [`module.${name}`, value]))
  assert.deepEqual(await load(write('parallel.pth', writeSafetensors(prefixed, {}, 'F16'))), weights) // told by content, not by name
})

test('a pipe in place of a file is not waited for', async t => {
  const path = join(folder, 'pipe.pth')
  if (spawnSync('mkfifo', [path]).status !== 0) return t.skip('no mkfifo here')
  await assert.rejects(load(path), fails('weights_file_unreadable', /it is not a file/))
})

test('files that are not weights of this network say what is wrong', async () => {
  const broken = (change: (tensors: ReturnType<typeof sound>) => unknown) => {
    const tensors = sound()
    change(tensors)
    return write('broken.safetensors', writeSafetensors(tensors))
  }
  const cases: [string, FailureCode, RegExp][] = [
    [join(folder, 'missing.pth'), 'weights_file_unreadable', /there is no such file/],
    [folder, 'weights_file_unreadable', /it is not a file/],
    [write('text.pth', 'hello, these are not weights'), 'safetensors_malformed', /./],
    [write('empty.pth', ''), 'safetensors_malformed', /./],
    [
      write('other.pth', zipFile(pickle(dictionary([['w', tensor()]])))),
      'weights_unsuitable',
      /there is no conv1\.weight among its 1 tensors/,
    ],
    [write('cut.pth', zipFile(pickle(dictionary([['w', tensor()]]))).subarray(0, 200)), 'torch_file_malformed', /cut short/],
  ]
  for (const [file, code, problem] of cases) await assert.rejects(load(file), fails(code, problem))
  await assert.rejects(load(broken(t => t.delete('layer2.0.bn1.bias'))), fails('weights_unsuitable', /there is no layer2\.0\.bn1\.bias/))
  await assert.rejects(
    load(broken(t => t.set('conv1.weight', { shape: [64, 1, 7, 7], data: new Float32Array(64 * 49) }))),
    fails('weights_unsuitable', /conv1\.weight is \[64, 1, 7, 7\] where \[64, 3, 7, 7\] is needed/),
  )
  await assert.rejects(
    load(broken(t => (t.get('bn1.bias')!.data[3] = Number.NaN))),
    fails('weights_unsuitable', /bn1\.bias holds numbers that are not finite/),
  )
  await assert.rejects(load(broken(t => (t.get('bn1.running_var')!.data[0] = -1))), fails('weights_unsuitable', /negative variance/))
})
