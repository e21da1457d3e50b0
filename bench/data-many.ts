/**
 * Whether 100,000 pictures of 1,000 classes fit into a gigabyte: looked at, looked at again, and split. The pictures are tiny, so that the time
 * is that of everything but decoding; what photos need beside it does not grow with their number.
 *
 *     npm run bench:data -- many [PICTURES=100000]      (two minutes, and 800 MB of disk)
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openFacts } from '../src/data/facts.ts'
import { importPictures, manifestDigest } from '../src/data/import.ts'
import { splitDataset } from '../src/data/split.ts'

const pictures = Number(process.argv[2] ?? 100_000)
const classes = 1000
const folder = mkdtempSync(join(tmpdir(), 'plinth-bench-'))
const seconds = async <T>(what: string, work: () => T | Promise<T>): Promise<T> => {
  const started = performance.now()
  const result = await work()
  const memory = Math.round(process.resourceUsage().maxRSS / 1024)
  console.log(`| ${what} | ${((performance.now() - started) / 1000).toFixed(1)} s | ${memory} MB |`)
  return result
}

/** A bitmap of 8×8 pixels, another for every number. */
function bitmap(number: number): Buffer {
  const bytes = Buffer.alloc(54 + 192)
  bytes.write('BM', 'latin1')
  for (const [at, value] of [
    [2, bytes.length],
    [10, 54],
    [14, 40],
    [18, 8],
    [22, 8],
  ] as const)
    bytes.writeUInt32LE(value, at)
  bytes.writeUInt16LE(1, 26)
  bytes.writeUInt16LE(24, 28)
  for (let at = 54; at < bytes.length; at++) bytes[at] = Math.imul(number + 1, 2654435761 + at) >>> 24
  bytes.writeUInt32LE(number, 54)
  return bytes
}

try {
  for (let number = 0; number < pictures; number++) {
    const path = join(folder, 'pictures', `class ${number % classes}`)
    if (number < classes) mkdirSync(path, { recursive: true })
    writeFileSync(join(path, `a picture with a longish name, number ${number}.bmp`), bitmap(number))
  }
  console.log(
    `${pictures.toLocaleString('en-US')} pictures in ${classes.toLocaleString('en-US')} classes\n\n| | | most memory so far |\n|---|---|---|`,
  )
  const look = async () => {
    const facts = await openFacts(join(folder, 'facts'))
    const manifest = await importPictures(join(folder, 'pictures'), { blobs: null, facts })
    facts.close()
    return manifest
  }
  await seconds('looked at', look)
  const manifest = await seconds('looked at again', look)
  const dataset = await seconds('digest of the version', () => manifestDigest(manifest))
  await seconds('split', () => splitDataset(manifest, { seed: 1, dataset }))
  if (manifest.rows.length !== pictures || manifest.classes.length !== classes) throw new Error('pictures are missing')
} finally {
  rmSync(folder, { recursive: true })
}
