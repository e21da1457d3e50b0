/**
 * Looking at pictures and importing them against plain libvips on the same files, in one run.
 *
 *     npm run bench:data -- import [PICTURES=1000]      (about a minute; 10,000 take ten times as long)
 *
 * "plain libvips" decodes each file to RGB and drops the pixels, in as many threads as libuv has. "looked at" adds the digest of file and pixels, the
 * fingerprint, how the picture looks, EXIF, and keeps all of it in the cache: that is what `plinth data check` does first. "imported" copies the files
 * into a home as well, flushed. "again" is the same folder a second time. Rounds alternate and the best counts: other work on the machine only slows.
 * CPU milliseconds hardly depend on other work; on a machine of its own, cores ÷ CPU time is the rate that could be had.
 */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { availableParallelism, cpus, tmpdir } from 'node:os'
import { join } from 'node:path'
import sharp from 'sharp'
import { openFacts } from '../src/data/facts.ts'
import { importPictures } from '../src/data/import.ts'
import { appearance } from '../src/images/appearance.ts'
import { decodePicture, pixelDigest } from '../src/images/decode.ts'
import { fingerprint } from '../src/images/fingerprint.ts'
import { openBlobs } from '../src/storage/blobs.ts'

const pictures = Number(process.argv[2] ?? 1000)
const rounds = 3
const folder = mkdtempSync(join(tmpdir(), 'plinth-bench-'))
const photos = join(folder, 'photos')

/** Photo-like: smooth shapes with a little noise, so that JPEG has its usual work. */
function photo(seed: number): Buffer {
  const data = Buffer.alloc(640 * 480 * 3)
  for (let at = 0, pixel = 0; pixel < 640 * 480; pixel++) {
    const [x, y] = [pixel % 640, Math.floor(pixel / 640)]
    const noise = ((Math.imul(pixel + seed, 2654435761) >>> 24) - 128) / 12
    for (let channel = 0; channel < 3; channel++)
      data[at++] = 128 + 55 * Math.sin((x + seed) / (31 + channel)) + 50 * Math.cos((y - seed) / 47) + noise
  }
  return data
}

/** The same pixels in another file: a comment behind the first marker. */
function withComment(jpeg: Buffer, comment: string): Buffer {
  const segment = Buffer.from(`\xff\xfe\0\0${comment}`, 'latin1')
  segment.writeUInt16BE(comment.length + 2, 2)
  return Buffer.concat([jpeg.subarray(0, 2), segment, jpeg.subarray(2)])
}

async function plain(paths: readonly string[]): Promise<void> {
  let next = 0
  const worker = async () => {
    while (next < paths.length)
      await sharp(await readFile(paths[next++]!))
        .raw()
        .toBuffer()
  }
  await Promise.all(Array.from({ length: 3 * availableParallelism() }, worker))
}

async function imported(facts: string, blobs: string | null): Promise<void> {
  const known = await openFacts(join(folder, facts))
  const manifest = await importPictures(photos, { blobs: blobs === null ? null : openBlobs(join(folder, blobs)), facts: known })
  known.close()
  if (manifest.rows.length !== pictures) throw new Error(`${manifest.rows.length} of ${pictures} pictures`)
}

/** Pictures a second, and CPU milliseconds of one. */
async function measure(work: () => Promise<void>): Promise<{ rate: number; cpu: number }> {
  const [started, before] = [performance.now(), process.cpuUsage()]
  await work()
  const { user, system } = process.cpuUsage(before)
  return { rate: (1000 * pictures) / (performance.now() - started), cpu: (user + system) / 1000 / pictures }
}

/** The least of three rounds. */
async function cpuOf(stage: (index: number) => unknown): Promise<number> {
  const each: number[] = []
  for (let round = 0; round < 4; round++) {
    const before = process.cpuUsage()
    for (let index = 0; index < 100; index++) await stage(index)
    const { user, system } = process.cpuUsage(before)
    each.push((user + system) / 1000 / 100)
  }
  return Math.min(...each.slice(1)) // the first is still being compiled
}

try {
  const different = Math.min(pictures, 200)
  const paths: string[] = []
  let bytes = 0
  for (let seed = 0; seed < different; seed++) {
    const jpeg = await sharp(photo(seed), { raw: { width: 640, height: 480, channels: 3 } })
      .jpeg({ quality: 85 })
      .toBuffer()
    for (let number = seed; number < pictures; number += different) {
      const path = join(photos, `class ${number % 10}`, `${number}.jpg`)
      if (number < 10) mkdirSync(join(path, '..'), { recursive: true })
      writeFileSync(path, withComment(jpeg, String(number)))
      bytes += jpeg.length
      paths.push(path)
    }
  }
  console.log(
    `${pictures} JPEGs of 640×480, ${Math.round(bytes / pictures / 1024)} KiB each; ${cpus().length} × ${cpus()[0]?.model.trim()}`,
  )
  for (const path of paths) readFileSync(path) // all of it in memory

  const best = new Map<string, { rate: number; cpu: number }>()
  const keep = (name: string, { rate, cpu }: { rate: number; cpu: number }) => {
    const so = best.get(name) ?? { rate: 0, cpu: Infinity }
    best.set(name, { rate: Math.max(rate, so.rate), cpu: Math.min(cpu, so.cpu) })
  }
  for (let round = 0; round < rounds; round++) {
    keep('plain libvips', await measure(() => plain(paths)))
    keep('looked at', await measure(() => imported(`facts ${round}`, null)))
    keep('looked at again', await measure(() => imported(`facts ${round}`, null)))
    keep('imported', await measure(() => imported(`more facts ${round}`, `blobs ${round}`)))
    keep('imported after a look', await measure(() => imported(`facts ${round}`, `more blobs ${round}`)))
    for (const name of readdirSync(folder)) if (name !== 'photos') rmSync(join(folder, name), { recursive: true })
  }
  const base = best.get('plain libvips')!
  console.log('\n| | pictures/s | of plain libvips | CPU ms | plain ÷ CPU |\n|---|---|---|---|---|')
  for (const [name, { rate, cpu }] of best) {
    console.log(`| ${name} | ${Math.round(rate)} | ${(rate / base.rate).toFixed(2)} | ${cpu.toFixed(2)} | ${(base.cpu / cpu).toFixed(2)} |`)
  }
  console.log('\nin one thread, CPU ms a picture:')
  const some = await Promise.all(paths.slice(0, 50).map(path => readFile(path)))
  const decoded = await Promise.all(some.slice(0, 20).map(bytes => decodePicture(bytes, { formats: 'local' })))
  const stages: Record<string, (index: number) => unknown> = {
    'decoded here': index => decodePicture(some[index % 50]!, { formats: 'local' }),
    'digest of the pixels': index => pixelDigest(decoded[index % 20]!),
    fingerprint: index => fingerprint(decoded[index % 20]!),
    'how it looks': index => appearance(decoded[index % 20]!),
  }
  for (const [name, stage] of Object.entries(stages)) console.log(`| ${name} | ${(await cpuOf(stage)).toFixed(2)} |`)
  console.log(`\nmost memory: ${Math.round(process.resourceUsage().maxRSS / 1024)} MB`)
} finally {
  rmSync(folder, { recursive: true })
}
