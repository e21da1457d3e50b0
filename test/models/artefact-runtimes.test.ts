import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { chromium as browserOf } from 'playwright-core'
import { compile, input, type Weights } from '../../src/engine/index.ts'
import { encodeModel } from '../../src/engine/onnx.ts'
import { composeArtefact, createPreprocessor, openArtefact } from '../../src/models/artefact.ts'
import { normalise } from '../../src/models/artefact-format.ts'
import { type Backbone, backbone } from '../../src/models/catalogue.ts'
import { fitFeatureSpace, measure } from '../../src/models/feature-space.ts'
import { preprocessingGraph } from '../../src/models/preprocessing.ts'
import { scalesOf, type UnknownParts } from '../../src/models/unknown.ts'
import { Fit } from '../../src/sdk/index.ts'
import { chromium, python } from '../peers.ts'
import { noise, plain, randomNumbers } from './tiny-model.ts'

/** What is known are sixty pictures of noise: a plain one is far away. */
async function knownNoise(network: Backbone, weights: Weights): Promise<UnknownParts> {
  const side = 96
  const square = input('square', [1, 3, side, side], 'uint8')
  const program = await compile({ features: network.build(normalise(square, network)).features }, weights, { threads: 2 })
  const preprocessor = await createPreprocessor(side, { threads: 2 })
  const rows = Array.from({ length: 60 }, (_, i) => i)
  const width = network.features
  const features = new Float32Array(rows.length * width)
  for (const i of rows)
    features.set((await program.run({ square: await preprocessor.run(noise(30 + i, 40)) }))['features'] as Float32Array, i * width)
  await Promise.all([program.close(), preprocessor.close()])
  const space = (await fitFeatureSpace({ features, width, rows }, { labels: rows.map(i => i % 5), threads: 2, seed: 1 }))!
  const measures = { ...(await measure(space, { features, width, rows }, 2)), entropy: rows.map(i => i / 100) }
  const metadata = { threshold: 2, falseAlarmRate: 0.05, ladder: Array.from({ length: 101 }, (_, i) => i / 40) }
  // measured on the pictures it was fitted on, everything else is beyond all bounds: drawn in, so that the distances can be compared
  const { near, far } = scalesOf(measures)
  const drawn = <T extends Record<string, number>>(scale: T, by: number) =>
    Object.fromEntries(Object.entries(scale).map(([name, value]) => [name, value / by])) as T
  return { space, scales: { near: drawn(near, 30), far: drawn(far, 100) }, metadata }
}

/** The real thing: the bundled backbone with its weights, and a head with random ones. */
async function realArtefact(imageSize: number): Promise<Uint8Array> {
  const network = backbone('efficientnet-lite0')
  const labels = ['one', 'two', 'three', 'four', 'five']
  const next = randomNumbers(3)
  const weights = await network.loadWeights({ offline: true })
  return composeArtefact({
    backbone: network,
    weights,
    unknown: await knownNoise(network, weights),
    head: { weight: Float32Array.from({ length: 5 * network.features }, () => next() - 0.5), bias: new Float32Array(5) },
    metadata: {
      labels,
      temperature: 1.7,
      threshold: 0.5,
      backbone: network.id,
      imageSize,
      lineage: { run: null, dataset: null, parent: null, plinth: '0.0.0', commit: null, created: '2026-11-25T00:00:00.000Z' },
      licence: network.licence,
    },
  })
}

const pictures = [
  noise(28, 28),
  noise(96, 96),
  noise(640, 480),
  noise(301, 777),
  plain(1, 1, [9, 99, 200]),
  noise(3, 500),
  noise(5000, 1),
  noise(1600, 1200),
]
const bytes = await realArtefact(96)
const model = await openArtefact(bytes, { threads: 2 })
const answered = await model.answer(pictures)
await model.close()
const here = answered.map(({ probabilities }) => probabilities)
const distances = answered.map(({ distance }) => distance!)

/** The pictures at model size, by how they are fitted: to be the same to the last bit everywhere. */
const prepared = new Map<Fit, Uint8Array[]>()
for (const fit of Fit.options) {
  const preprocessor = await createPreprocessor(96, { threads: 2, fit })
  const planes: Uint8Array[] = []
  for (const picture of pictures) planes.push(await preprocessor.run(picture))
  prepared.set(fit, planes)
  await preprocessor.close()
}
const digest = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex')
const digests = Fit.options.map(fit => prepared.get(fit)!.map(digest))

const folder = mkdtempSync(join(tmpdir(), 'plinth-runtimes-'))
after(() => rmSync(folder, { recursive: true }))
writeFileSync(join(folder, 'model.onnx'), bytes)
for (const fit of Fit.options) writeFileSync(join(folder, `${fit}.onnx`), encodeModel(preprocessingGraph(96, fit)))
for (const [i, picture] of pictures.entries()) writeFileSync(join(folder, `${i}.rgb`), picture.data)
const sizes = pictures.map(({ width, height }) => [height, width])

function compare(rows: readonly (readonly number[])[], far: readonly number[]): void {
  assert.equal(rows.length, here.length)
  for (const [i, value] of far.entries())
    assert.ok(Math.abs(value - distances[i]!) <= 1e-3 * Math.max(1, distances[i]!), `picture ${i}: ${value} and ${distances[i]}`)
  for (const [i, row] of rows.entries())
    for (const [k, value] of row.entries()) assert.ok(Math.abs(value - here[i]![k]!) <= 1e-4, `picture ${i}: ${row} and ${here[i]}`)
}

test('the file stays small: weights once, and a few kilobytes around them', () => {
  assert.ok(bytes.length < 13.6e6 + 5 * 1280 * 4 + 1280 * 61 * 4 + 200_000, String(bytes.length))
})

test('probabilities differ between pictures, so that comparing them means something', () => {
  assert.ok(new Set(here.map(row => row.join())).size === here.length)
  assert.ok(here.some(row => Math.max(...row) > 0.5))
})

test('distances differ between pictures and none is at the bound, so that comparing them means something', () => {
  assert.ok(new Set(distances.map(d => d.toFixed(3))).size === distances.length && Math.max(...distances) < 50, String(distances))
})

test('the ways to fit a picture differ where it is not square, and only there', () => {
  for (const [i, { width, height }] of pictures.entries())
    assert.equal(new Set(digests.map(row => row[i])).size, width === height ? 1 : Fit.options.length, `${width} × ${height}`)
})

test('ONNX Runtime for Python fits every picture to the last bit as it is fitted here', t => {
  const venv = python()
  if (!venv) return t.skip('no Python peer')
  const program = `
import sys, json, hashlib, numpy, onnxruntime
folder, sizes, fits = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
def rows(fit):
    session = onnxruntime.InferenceSession(f'{folder}/{fit}.onnx')
    for i, (h, w) in enumerate(sizes):
        yield hashlib.sha256(session.run(None, {'image': numpy.fromfile(f'{folder}/{i}.rgb', numpy.uint8).reshape(h, w, 3)})[0].tobytes()).hexdigest()
print(json.dumps([list(rows(fit)) for fit in fits]))`
  const there = execFileSync(venv, ['-c', program, folder, JSON.stringify(sizes), JSON.stringify(Fit.options)], { encoding: 'utf8' })
  assert.deepEqual(JSON.parse(there), digests)
})

test('ONNX Runtime for Python gives the same probabilities and distances', t => {
  const venv = python()
  if (!venv) return t.skip('no Python peer')
  const program = `
import sys, json, numpy, onnxruntime
folder, sizes = sys.argv[1], json.loads(sys.argv[2])
session = onnxruntime.InferenceSession(folder + '/model.onnx')
assert [i.name for i in session.get_inputs()] == ['image'] and [o.name for o in session.get_outputs()] == ['probabilities', 'distance', 'activation']
labels = json.loads(session.get_modelmeta().custom_metadata_map['plinth.labels'])
assert labels == ['one', 'two', 'three', 'four', 'five'], labels
answers = [session.run(None, {'image': numpy.fromfile(f'{folder}/{i}.rgb', numpy.uint8).reshape(h, w, 3)}) for i, (h, w) in enumerate(sizes)]
print(json.dumps([[p[0].tolist() for p, _, _ in answers], [float(d[0, 0]) for _, d, _ in answers]]))`
  compare(
    ...(JSON.parse(execFileSync(venv, ['-c', program, folder, JSON.stringify(sizes)], { encoding: 'utf8' })) as [number[][], number[]]),
  )
})

test('ONNX Runtime for the web, in Chromium, fits pictures to the last bit and gives the same probabilities and distances', {
  timeout: 60_000,
}, async t => {
  const executablePath = chromium()
  if (!executablePath) return t.skip('no Chromium')
  const runtime = fileURLToPath(new URL('.', import.meta.resolve('onnxruntime-web')))
  const types: Record<string, string> = { mjs: 'text/javascript', wasm: 'application/wasm', html: 'text/html' }
  const server = createServer(({ url = '/' }, response) => {
    const name = url.slice(1)
    if (name === '') return void response.setHeader('content-type', 'text/html').end('<!doctype html><title>artefact</title>')
    const path = join(name.startsWith('ort') ? runtime : folder, name)
    if (!/^[\w.-]+$/.test(name) || !existsSync(path)) return void response.writeHead(404).end()
    response.setHeader('content-type', types[name.split('.').at(-1)!] ?? 'application/octet-stream').end(readFileSync(path))
  }).listen(0, '127.0.0.1')
  await new Promise(resolve => server.once('listening', resolve))
  const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const quiet = ['--headless', '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync', '--disable-quic'] // biome-ignore format: flags
  const browser = await browserOf.launch({ executablePath, args: quiet })
  try {
    const page = await browser.newPage()
    await page.goto(origin)
    const { rows, far, fitted } = await page.evaluate(
      async ({ sizes, fits }) => {
        const bytesOf = async (name: string) => new Uint8Array(await (await fetch(name)).arrayBuffer())
        // a name that TypeScript does not look up: the module is served by the test
        const address = '/ort.wasm.min.mjs'
        const ort = (await import(address)) as typeof import('onnxruntime-web')
        ort.env.wasm.numThreads = 1
        const run = async (model: string, output: string) => {
          const session = await ort.InferenceSession.create(await bytesOf(model), { executionProviders: ['wasm'] })
          const rows: (Float32Array | Uint8Array)[] = []
          for (const [i, [height, width]] of sizes.entries()) {
            const image = new ort.Tensor('uint8', await bytesOf(`/${i}.rgb`), [height!, width!, 3])
            rows.push((await session.run({ image }))[output]!.data as Float32Array | Uint8Array)
          }
          return rows.map(row => Array.from(row))
        }
        const fitted: number[][][] = []
        for (const fit of fits) fitted.push(await run(`/${fit}.onnx`, 'model_size'))
        const far = (await run('/model.onnx', 'distance')).map(([distance]) => distance!)
        return { rows: await run('/model.onnx', 'probabilities'), far, fitted }
      },
      { sizes, fits: Fit.options },
    )
    compare(rows, far)
    assert.deepEqual(
      fitted.map(row => row.map(planes => digest(Uint8Array.from(planes)))),
      digests,
    )
  } finally {
    await browser.close()
    server.close()
  }
})
