/**
 * How fast pictures are decoded and imported, beside plain libvips on the same files in the same minute. Prints the table of docs/data.md.
 *
 *   node scripts/measure-decoding.ts [PICTURES=600]
 */
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import sharp from 'sharp'
import { importPictures } from '../src/data/import.ts'
import { decodePicture, pixelDigest } from '../src/images/decode.ts'
import { openBlobs } from '../src/storage/blobs.ts'

const count = Number(process.argv[2] ?? 600)
const folder = await mkdtemp(join(tmpdir(), 'plinth-decoding-'))

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

async function sideBySide(paths: readonly string[], work: (path: string) => Promise<unknown>): Promise<number> {
  let next = 0
  const started = performance.now()
  const worker = async () => {
    while (next < paths.length) await work(paths[next++]!)
  }
  await Promise.all(Array.from({ length: Math.min(8, availableParallelism() + 2) }, worker))
  return (1000 * paths.length) / (performance.now() - started)
}

try {
  const paths: string[] = []
  for (let index = 0; index < count; index++) {
    const path = join(folder, 'photos', index % 2 ? 'a' : 'b', `${index}.jpg`)
    if (index < 2) await mkdir(join(path, '..'), { recursive: true })
    await writeFile(
      path,
      await sharp(photo(index), { raw: { width: 640, height: 480, channels: 3 } })
        .jpeg({ quality: 85 })
        .toBuffer(),
    )
    paths.push(path)
  }
  const bytes = (await Promise.all(paths.slice(0, 50).map(async path => (await readFile(path)).length))).reduce((a, b) => a + b) / 50
  console.log(
    `${count} JPEGs of 640×480, ${Math.round(bytes / 1024)} KiB each, ${availableParallelism()} cores; pictures a second, best of 3`,
  )
  const rounds = {
    'plain libvips (sharp, to RGB)': () =>
      sideBySide(paths, async path =>
        sharp(await readFile(path))
          .raw()
          .toBuffer(),
      ),
    decodePicture: () => sideBySide(paths, async path => decodePicture(await readFile(path), { formats: 'local' })),
    'decodePicture and pixelDigest': () =>
      sideBySide(paths, async path => pixelDigest(await decodePicture(await readFile(path), { formats: 'local' }))),
    'importPictures into an empty home': async () => {
      const blobs = openBlobs(join(folder, `blobs ${performance.now()}`))
      const started = performance.now()
      await importPictures(join(folder, 'photos'), { blobs })
      return (1000 * count) / (performance.now() - started)
    },
  }
  const best = new Map<string, number>()
  for (let round = 0; round < 3; round++) {
    for (const [name, work] of Object.entries(rounds)) best.set(name, Math.max(best.get(name) ?? 0, await work()))
  }
  const plain = best.values().next().value!
  for (const [name, speed] of best) console.log(`| ${name} | ${Math.round(speed)} | ${(speed / plain).toFixed(2)} |`)
  if ((await readdir(folder)).length < 4) throw new Error('the imports did not run')
} finally {
  await rm(folder, { recursive: true, force: true })
}
