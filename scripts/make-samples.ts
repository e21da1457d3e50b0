/**
 * Makes the two samples that are committed under src/data/samples/. Run once; the zips are the truth.
 *
 *   mkdir /tmp/artwork && cd /tmp/artwork
 *   npm install @iconify-json/noto@1.2.9 @iconify-json/twemoji@1.2.5 @iconify-json/fluent-emoji-flat@1.2.6 emojibase-data@17.0.0
 *   node scripts/make-samples.ts /tmp/artwork [FOLDER OF FASHION-MNIST'S .gz FILES]
 *
 * fashion: 200 pictures a class from the *training* part of Fashion-MNIST; the official test part stays unseen.
 * emoji: the same things drawn by three vendors; the class is Unicode's subgroup.
 */
import { createHash } from 'node:crypto'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import sharp from 'sharp'
import { classNames, debianFolder, greyPng, readFashion } from './fashion-files.ts'
import { writeZip, type ZipEntry } from './write-zip.ts'

const perClass = 200
const emojiSide = 96

const [artwork, fashionFolder = debianFolder] = process.argv.slice(2)
if (!artwork) throw new Error('Usage: node scripts/make-samples.ts ARTWORK [FASHION]')
const output = new URL('../src/data/samples/', import.meta.url)
mkdirSync(output, { recursive: true })

const text = (name: string, from: string): ZipEntry => ({ name, data: readFileSync(new URL(from, output)), deflate: true })
function write(name: string, entries: ZipEntry[]) {
  entries.sort((a, b) => (a.name < b.name ? -1 : 1))
  const zip = writeZip(entries)
  writeFileSync(new URL(`${name}.zip`, output), zip)
  console.log(`${name}: ${entries.length - 1} pictures, ${zip.length} bytes, sha256 ${createHash('sha256').update(zip).digest('hex')}`)
}

// ── fashion ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

async function fashion(): Promise<ZipEntry[]> {
  const source = readFashion(fashionFolder, 'train')
  const byChance = Array.from({ length: source.count }, (_, index) => ({
    index,
    order: createHash('sha256').update(`plinth ${index}`).digest('hex'),
  }))
  byChance.sort((a, b) => (a.order < b.order ? -1 : 1))
  const chosen = classNames.flatMap(name => byChance.filter(({ index }) => source.label(index) === name).slice(0, perClass))
  return await Promise.all(
    chosen.map(async ({ index }) => ({
      name: `${source.label(index)}/${String(index).padStart(5, '0')}.png`, // its place in the original
      data: await greyPng(source.pixels(index)),
    })),
  )
}

// ── emoji ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

const vendors = { noto: 'noto', twemoji: 'twemoji', fluent: 'fluent-emoji-flat' } as const
const subgroups: Record<string, RegExp> = {
  animal: /^animal-/,
  plant: /^plant-/,
  food: /^(food-|drink$)/,
  vehicle: /^transport-(ground|water|air)$/,
  building: /^place-(building|religious)$/,
  face: /^(face-(?!costume)|cat-face|monkey-face)/, // costumes: robot, ghost, alien
  clothing: /^clothing$/,
  tool: /^tool$/,
}

async function emoji(): Promise<ZipEntry[]> {
  const read = (path: string) => JSON.parse(readFileSync(join(artwork!, 'node_modules', path), 'utf8'))
  const names: { subgroups: Record<string, string> } = read('emojibase-data/meta/groups.json')
  const things: { label: string; hexcode: string; subgroup?: number }[] = read('emojibase-data/en/data.json')
  const entries: ZipEntry[] = []
  for (const [vendor, set] of Object.entries(vendors)) {
    const characters: Record<string, string> = read(`@iconify-json/${set}/chars.json`)
    const drawings: IconSet = read(`@iconify-json/${set}/icons.json`)
    for (const { label, hexcode, subgroup } of things) {
      const name = Object.keys(subgroups).find(name => subgroup !== undefined && subgroups[name]!.test(names.subgroups[subgroup]!))
      const code = hexcode.toLowerCase()
      const drawing = characters[code] ?? characters[code.replaceAll('-fe0f', '')]
      if (name && drawing) entries.push({ name: `${name}/${plain(label)}__${vendor}.png`, data: await draw(drawings, drawing) })
    }
  }
  return entries
}

type IconSet = {
  width?: number
  height?: number
  icons: Record<string, { body: string; width?: number; height?: number }>
  aliases?: Record<string, { parent: string }>
}

async function draw(set: IconSet, name: string): Promise<Buffer> {
  const icon = set.icons[name] ?? set.icons[set.aliases![name]!.parent]!
  const [width, height] = [icon.width ?? set.width ?? 16, icon.height ?? set.height ?? 16]
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="${emojiSide}" height="${emojiSide}" viewBox="0 0 ${width} ${height}">${icon.body}</svg>`
  return await sharp(Buffer.from(svg)).png({ palette: true, colours: 128, compressionLevel: 9, effort: 10 }).toBuffer()
}

const plain = (label: string) =>
  label
    .normalize('NFD')
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-|-$/g, '')

/** A contact sheet for docs/samples.md: a row a class, its pictures at equal distances. */
async function sheet(name: string, entries: readonly ZipEntry[], side: number, columns: number) {
  const rows = [...Map.groupBy(entries, entry => String(entry.name).split('/')[0]!).values()]
  const tiles = await Promise.all(
    rows.flatMap((row, down) =>
      Array.from({ length: columns }, async (_, across) => {
        const picture = sharp(row[Math.floor((across * row.length) / columns)]!.data).flatten({ background: 'white' })
        return { input: await picture.resize(side, side, { kernel: 'nearest' }).png().toBuffer(), left: across * side, top: down * side }
      }),
    ),
  )
  const paper = sharp({ create: { width: columns * side, height: rows.length * side, channels: 3, background: 'white' } })
  const path = new URL(`../docs/pictures/sample-${name}.png`, import.meta.url)
  writeFileSync(path, await paper.composite(tiles).png({ palette: true, colours: 64, effort: 10 }).toBuffer())
}

const [clothes, drawings] = [await fashion(), await emoji()]
drawings.sort((a, b) => (a.name < b.name ? -1 : 1))
await sheet('fashion', clothes, 42, 22)
await sheet('emoji', drawings, 48, 19)
write('fashion', [...clothes, text('LICENSE.txt', 'fashion-LICENSE.txt')])
write('emoji', [...drawings, text('NOTICE.txt', 'emoji-NOTICE.txt')])
