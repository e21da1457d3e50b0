/**
 * Serving against the raw runtime, in one run: the same model, the same picture, the same machine.
 *
 *     npm run bench:serve          (about 22 s; needs nothing but Node)
 *
 * "network" is the runtime alone on a prepared picture, "picture" adds decoding and preprocessing, both in this process without HTTP.
 * "served" is POST /predict over keep-alive connections; the client shares this process and the machine with the server.
 * Rounds alternate, and the best round counts: other work on the machine only ever makes a round slower.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { Agent, request } from 'node:http'
import { cpus, tmpdir } from 'node:os'
import { join } from 'node:path'
import sharp from 'sharp'
import { decodePicture } from '../src/images/decode.ts'
import { encodePng } from '../src/images/encode.ts'
import { composeArtefact, openArtefact, recordGolden } from '../src/models/artefact.ts'
import { backbone } from '../src/models/catalogue.ts'
import { startServer } from '../src/serve/gateway.ts'

const ROUNDS = 2
const SECONDS = 1
const threads = Math.min(2, cpus().length)
const labels = Array.from({ length: 10 }, (_, i) => `class ${i}`)
const decode = (bytes: Uint8Array) => decodePicture(bytes, { formats: 'upload' })

const small = picture(28, 28)
const large = picture(640, 480)
const workloads = [
  { name: 'PNG of 28 × 28, network at 96', imageSize: 96, bytes: await encodePng(small) },
  { name: 'JPEG of 640 × 480, network at 224', imageSize: 224, bytes: await jpeg(large) },
]

const folder = mkdtempSync(join(tmpdir(), 'plinth-bench-'))
try {
  console.log(`EfficientNet-Lite0, ${threads} threads, ${cpus()[0]?.model.trim()}\n`)
  for (const workload of workloads) await measure(workload)
} finally {
  rmSync(folder, { recursive: true })
}

async function measure({ name, imageSize, bytes }: (typeof workloads)[number]): Promise<void> {
  const path = join(folder, `${imageSize}.onnx`)
  writeFileSync(path, await artefact(imageSize))
  const model = await openArtefact(path, { threads })
  const server = await startServer({ model: { name: 'bench', path }, port: 0, threads })
  const prepared = await model.prepare(await decode(bytes))
  const eight = Array.from({ length: 8 }, () => prepared)
  const phases: Record<string, () => Promise<Measured>> = {
    'network, one by one': () => timed(1, () => model.answerPrepared([prepared])),
    'network, eight at once': () => timed(8, () => model.answerPrepared(eight)),
    'picture, one by one': () => timed(1, async () => model.classify([await decode(bytes)])),
    'served, 1 connection': () => load(server.port, bytes, 1),
    'served, 8 connections': () => load(server.port, bytes, 8),
  }
  const best = new Map<string, Measured>()
  for (let round = 0; round < ROUNDS; round++)
    for (const [phase, run] of Object.entries(phases)) {
      const measured = await run()
      if (!(measured.rate <= (best.get(phase)?.rate ?? 0))) best.set(phase, measured)
    }
  await server.close()
  await model.close()

  const network = best.get('network, one by one')!.rate
  const whole = best.get('picture, one by one')!.rate
  console.log(name)
  console.log('                         pictures/s   p50 ms   p95 ms   of network   of picture')
  for (const [phase, { rate, p50, p95 }] of best) {
    const columns = [rate.toFixed(0).padStart(10), p50.toFixed(2).padStart(8), p95.toFixed(2).padStart(8)]
    const ratios = [(rate / network).toFixed(2).padStart(12), (rate / whole).toFixed(2).padStart(12)]
    console.log(`${phase.padEnd(25)}${columns.join(' ')}${ratios.join(' ')}`)
  }
  console.log()
}

interface Measured {
  /** Pictures a second. */
  rate: number
  /** Milliseconds of one call or request. */
  p50: number
  p95: number
}

async function timed(pictures: number, run: () => Promise<unknown>): Promise<Measured> {
  const times: number[] = []
  const started = performance.now()
  while (performance.now() - started < SECONDS * 1000) {
    const before = performance.now()
    await run()
    times.push(performance.now() - before)
  }
  return summary(times, pictures, performance.now() - started)
}

async function load(port: number, body: Uint8Array, connections: number): Promise<Measured> {
  const agent = new Agent({ keepAlive: true, maxSockets: connections })
  const times: number[] = []
  const started = performance.now()
  const ask = async () => {
    while (performance.now() - started < SECONDS * 1000) {
      const before = performance.now()
      const status = await new Promise<number>((resolve, reject) => {
        const sent = request({ port, host: '127.0.0.1', method: 'POST', path: '/predict', agent }, response => {
          response.resume().on('end', () => resolve(response.statusCode!))
        })
        sent.on('error', reject)
        sent.end(body)
      })
      if (status !== 200) throw new Error(`answered ${status}`)
      times.push(performance.now() - before)
    }
  }
  await Promise.all(Array.from({ length: connections }, ask))
  agent.destroy()
  return summary(times, 1, performance.now() - started)
}

function summary(times: number[], pictures: number, milliseconds: number): Measured {
  times.sort((a, b) => a - b)
  const percentile = (p: number) => times[Math.min(times.length - 1, Math.floor(p * times.length))]!
  return { rate: (times.length * pictures * 1000) / milliseconds, p50: percentile(0.5), p95: percentile(0.95) }
}

/** The bundled weights with a head of zeros: what it answers does not matter here. */
async function artefact(imageSize: number): Promise<Uint8Array> {
  const network = backbone('efficientnet-lite0')
  const bytes = composeArtefact({
    backbone: network,
    weights: await network.loadWeights({ offline: true }),
    head: { weight: new Float32Array(labels.length * network.features), bias: new Float32Array(labels.length) },
    metadata: {
      labels,
      temperature: 1,
      threshold: 0,
      backbone: network.id,
      imageSize,
      lineage: { run: null, dataset: null, parent: null, plinth: '0', commit: null, created: new Date(0).toISOString() },
      licence: network.licence,
    },
  })
  return recordGolden(bytes, [await encodePng(small)], decode)
}

function picture(width: number, height: number) {
  const data = Uint8Array.from({ length: width * height * 3 }, (_, i) => {
    const x = Math.floor(i / 3) % width
    const y = Math.floor(i / 3 / width)
    return 128 + 60 * Math.sin(x / 17 + (i % 3)) + 60 * Math.sin(y / 13) + ((x * 7919 + y * 104729) % 13)
  })
  return { width, height, data }
}
async function jpeg({ width, height, data }: ReturnType<typeof picture>): Promise<Uint8Array> {
  return await sharp(data, { raw: { width, height, channels: 3 } })
    .jpeg({ quality: 90 })
    .toBuffer()
}
