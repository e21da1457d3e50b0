/**
 * Edited copies: how many are found, and how many of those called copies are none, beside imagededup and CleanVision on the same pictures; and how long
 * the search takes among 100,000.
 *
 *     apt-get install tuxpaint-stamps-default lomiri-wallpapers-16.04 lomiri-wallpapers-20.04 mate-backgrounds plasma-workspace-wallpapers
 *     python -m venv peer && peer/bin/pip install -r bench/peers-copies.lock.txt
 *     PLINTH_PEER=peer/bin/python node bench/data-copies.ts [art|alpha|photographs|clothes|speed]      (about six minutes on 2 cores)
 *
 * What is not installed is left out, with the reason. Precision: of all pairs in the groups of the first verdict, those that are one picture. Recall:
 * of the edits of a kind, those in one group with their original. `--plain`: without the features, as `plinth data check` without --deep.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, globSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import sharp from 'sharp'
import { nearestNeighbours } from '../src/data/copies/feature-search.ts'
import { components } from '../src/data/copies/grouping.ts'
import { findHashPairs } from '../src/data/copies/hash-search.ts'
import { findCopies } from '../src/data/copies/index.ts'
import { openFacts } from '../src/data/facts.ts'
import { preparePictures } from '../src/data/features.ts'
import { importPictures } from '../src/data/import.ts'
import { extractSample } from '../src/data/samples.ts'
import { randomFrom } from '../src/engine/random.ts'
import { decodePicture } from '../src/images/decode.ts'
import { backbone } from '../src/models/catalogue.ts'
import type { Copies, Manifest } from '../src/sdk/index.ts'
import { openBlobs } from '../src/storage/blobs.ts'
import { edits, harderEdits, type MadeSet, makeSet, sets } from './copies-sets.ts'

const words = process.argv.slice(2)
const plain = words.includes('--plain')
const only = words.find(word => !word.startsWith('--'))
const wanted = (name: string) => !only || only === name
const threads = 2
const side = 128 // of the pictures that features are taken from
const scratch = process.env['PLINTH_BENCH_SCRATCH'] ?? mkdtempSync(join(tmpdir(), 'plinth-copies-'))
const peer = process.env['PLINTH_PEER']
if (!peer || !existsSync(peer))
  console.log('The peers are left out: set PLINTH_PEER to a Python that has them (see the head of this file).')

try {
  for (const name of Object.keys(sets).filter(wanted)) {
    for (const [title, chosen] of [
      ['nine edits', edits],
      ['harder edits', harderEdits],
    ] as const)
      await compare(name, title, chosen)
  }
  if (wanted('clothes')) await clothes()
  if (wanted('speed')) await speed()
} finally {
  if (!process.env['PLINTH_BENCH_SCRATCH']) rmSync(scratch, { recursive: true })
}

// ── found and missed ────────────────────────────────────────────────────────────────────────────────────────────────────────

async function compare(name: string, title: string, chosen: typeof edits): Promise<void> {
  const made = await makeSet(name, chosen, scratch)
  if (typeof made === 'string') return console.log(`\n${name}, ${title}: left out (${made})`)
  const kinds = Object.keys(chosen)
  console.log(`\n${name}, ${title}: ${sets[name]!.what}; ${made.files.length} pictures`)
  console.log(`| | precision | ${kinds.join(' | ')} | CPU seconds |\n|---|---|${kinds.map(() => '---|').join('')}---|`)
  const { manifest, copies, seconds } = await search(made.folder)
  const groups = copies.samePicture.map(group => group.map(row => basename(manifest.rows[row]!.path)))
  print(`**Plinth**${plain ? ', fingerprints only' : ''}`, made, kinds, groups, seconds)
  for (const [tool, pairs] of Object.entries(peers(made.folder))) {
    const number = new Map(made.files.map(({ name }, index) => [name, index]))
    const joined = components(pairs.map(([a, b]) => [number.get(a)!, number.get(b)!] as const))
    print(
      tool,
      made,
      kinds,
      joined.map(group => group.map(index => made.files[index]!.name)),
      null,
    )
  }
  console.log(
    `threshold ${copies.threshold}; own edits found: ${copies.recall.map(({ edit, made, found }) => `${edit} ${found}/${made}`).join(', ')}`,
  )
  for (const note of copies.notes) console.log(`note: ${note}`)
}

function print(
  tool: string,
  { files }: MadeSet,
  kinds: readonly string[],
  groups: readonly (readonly string[])[],
  seconds: number | null,
): void {
  const about = new Map(files.map(file => [file.name, file]))
  let [right, all] = [0, 0]
  const together = new Map<string, number>()
  for (const [index, group] of groups.entries()) {
    for (const [at, a] of group.entries()) {
      together.set(a, index)
      for (const b of group.slice(at + 1)) {
        all++
        if (about.get(a)!.picture === about.get(b)!.picture) right++
      }
    }
  }
  const originals = new Map(files.filter(({ edit }) => edit === 'source').map(file => [file.source, file.name]))
  const recalls = kinds.map(kind => {
    const own = files.filter(({ edit }) => edit === kind)
    const found = own.filter(({ name, source }) => together.has(name) && together.get(name) === together.get(originals.get(source)!))
    return (found.length / own.length).toFixed(3)
  })
  console.log(`| ${tool} | ${(right / all).toFixed(4)} | ${recalls.join(' | ')} | ${seconds === null ? '' : seconds.toFixed(1)} |`)
}

async function search(folder: string): Promise<{ manifest: Manifest; copies: Copies; seconds: number }> {
  const blobs = openBlobs(join(scratch, 'blobs'))
  const facts = await openFacts(join(scratch, 'facts'))
  const manifest = await importPictures(join(folder, 'pictures'), { blobs, facts, accept: 'anything' })
  const features = plain ? null : await featuresOf(folder, manifest, blobs)
  const began = process.cpuUsage()
  const copies = await findCopies({
    manifest,
    dataset: 'bench',
    facts,
    ...(features && { features }),
    picture: async row => decodePicture(await blobs.get(row.content), { formats: 'local' }),
    seed: 1,
    threads,
  })
  facts.close()
  const { user, system } = process.cpuUsage(began) // other work on the machine does not count
  return { manifest, copies, seconds: (user + system) / 1e6 }
}

async function featuresOf(folder: string, manifest: Manifest, blobs: ReturnType<typeof openBlobs>) {
  const network = backbone('efficientnet-lite0')
  const prepared = await preparePictures({
    folder: join(scratch, 'features'),
    dataset: basename(folder),
    rows: manifest.rows,
    blob: content => blobs.get(content),
    backbone: network,
    weights: await network.loadWeights(),
    side,
    threads,
  })
  prepared.close()
  return { values: prepared.features, width: prepared.width }
}

function peers(folder: string): Record<string, [string, string][]> {
  if (!peer || !existsSync(peer)) return {}
  const answer = join(folder, 'peers.json')
  if (!existsSync(answer)) {
    const script = fileURLToPath(new URL('./copies-peers.py', import.meta.url))
    const { status, stderr } = spawnSync(peer, [script, join(folder, 'pictures', 'all'), answer], { encoding: 'utf8' })
    if (status !== 0) throw new Error(`the peers failed: ${stderr.slice(-2000)}`)
  }
  return JSON.parse(readFileSync(answer, 'utf8'))
}

/**
 * Two thousand different products at 28 pixels, and the same enlarged to 56, where their size alone does not say that nothing can be told: whatever is
 * called an edited copy here is none, but for a pair that looks like one to the eye.
 */
async function clothes(): Promise<void> {
  const folder = join(scratch, 'clothes')
  await extractSample('fashion', join(folder, 'pictures'))
  const enlarged = join(scratch, 'clothes-enlarged')
  for (const path of globSync('*/*.png', { cwd: join(folder, 'pictures') })) {
    mkdirSync(dirname(join(enlarged, 'pictures', path)), { recursive: true })
    await sharp(join(folder, 'pictures', path))
      .resize(56)
      .toFile(join(enlarged, 'pictures', path))
  }
  for (const [size, where] of [
    ['28 px', folder],
    ['enlarged to 56 px', enlarged],
  ] as const) {
    const { manifest, copies, seconds } = await search(where)
    const edited = copies.samePicture.filter(group => new Set(group.map(row => manifest.rows[row]!.pixels)).size > 1)
    const paths = edited.map(group => group.map(row => manifest.rows[row]!.path).join(' = '))
    console.log(
      `\nclothes, ${manifest.rows.length} pictures, ${size}: ${edited.length} groups called edited copies, ${seconds.toFixed(1)} CPU seconds, threshold ${copies.threshold}`,
    )
    for (const line of [...paths, ...copies.notes]) console.log(line)
  }
}

// ── speed ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** 10⁵ fingerprints and features with structure: a thousand kinds of pictures, each picture a variation, one in a hundred a copy of another. */
async function speed(): Promise<void> {
  const n = 100_000
  const random = randomFrom(7)
  const kinds = Array.from({ length: 1000 }, () => Uint8Array.from({ length: 32 }, () => Math.floor(256 * random())))
  const hashes: Uint8Array[] = []
  for (let index = 0; index < n; index++) {
    const copied = index > 0 && random() < 0.01
    const hash = (copied ? hashes[Math.floor(random() * index)]! : kinds[Math.floor(random() * kinds.length)]!).slice()
    for (let flips = copied ? 12 : 80; flips > 0; flips--) hash[Math.floor(32 * random())]! ^= 1 << Math.floor(8 * random())
    hashes.push(hash)
  }
  const before = process.memoryUsage.rss()
  let time = stopwatch()
  const { pairs, cut } = await findHashPairs(hashes)
  console.log(
    `\nspeed: ${n} fingerprints in eight orientations: ${time()}, ${pairs.length} pairs, ${cut} look-ups cut short, ${megabytes(before)} MB`,
  )

  const width = 1280
  const values = new Float32Array(n * width)
  for (let row = 0; row < n; row++) {
    const kind = Math.floor(random() * 1000)
    let state = (row * 2654435761) >>> 0
    let shared = (kind * 2246822519) >>> 0
    for (let column = 0; column < width; column++) {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0
      shared = (Math.imul(shared, 1664525) + 1013904223) >>> 0
      values[row * width + column] = (shared / 2 ** 32 + 0.7 * (state / 2 ** 32)) / (1 + column / 100)
    }
  }
  const filled = process.memoryUsage.rss()
  time = stopwatch()
  const { rows } = await nearestNeighbours(values, width, [...Array(n).keys()], threads)
  console.log(
    `speed: ten neighbours of each of ${rows.length / 10} by features of ${width}: ${time()}, ${megabytes(filled)} MB beside the features`,
  )
}

/** Seconds by the clock and of both processors: the second hardly depends on other work on the machine. */
function stopwatch(): () => string {
  const [began, before] = [performance.now(), process.cpuUsage()]
  return () => {
    const { user, system } = process.cpuUsage(before)
    return `${((performance.now() - began) / 1000).toFixed(1)} s (${((user + system) / 1e6).toFixed(1)} CPU)`
  }
}

/** More than there was before, at most. */
function megabytes(before: number): number {
  return Math.round((process.resourceUsage().maxRSS * 1024 - before) / 2 ** 20)
}
