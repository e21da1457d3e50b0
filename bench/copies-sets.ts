/**
 * Pictures with edited copies among them, where the truth is known: 520 sources of a kind, 120 of them edited in every way, under names that say
 * nothing. Where the pictures come from is named in `sets`; a set whose pictures are not installed gives the reason instead.
 */
import { createHash } from 'node:crypto'
import { existsSync, globSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import sharp, { type Sharp } from 'sharp'
import { extractSample } from '../src/data/samples.ts'

export interface MadeSet {
  folder: string
  /** Which source each file is, which picture that is, and how it was edited ('source' where it was not). */
  files: { name: string; source: number; picture: string; edit: string }[]
}

type Pixels = { width: number; height: number; data: Buffer }
const open = ({ data, width, height }: Pixels) => sharp(data, { raw: { width, height, channels: 3 } })
const white = '#ffffff'

/** The nine of data.md, then the harder ones that imagededup's own benchmark publishes. All on RGB without transparency. */
export const edits: Record<string, (picture: Pixels) => Sharp | Promise<Sharp>> = {
  'same pixels': picture => open(picture).png(),
  'JPEG 30': picture => open(picture).jpeg({ quality: 30 }),
  'half size': picture => open(picture).resize(Math.round(picture.width / 2), Math.round(picture.height / 2), { fit: 'fill' }),
  'brightness ×1.2': picture => open(picture).linear(1.2, 0),
  'crop 5 %': picture => crop(picture, 0.05),
  'turn 3°': picture => turn(picture, 3),
  mirror: picture => open(picture).flop(),
  text: caption,
  grey: picture => open(picture).greyscale().toColourspace('srgb'),
}
export const harderEdits: typeof edits = {
  'crop 12 %': picture => crop(picture, 0.12),
  'flip left–right': picture => open(picture).flop(),
  'flip up–down': picture => open(picture).flip(),
  'turn 25°': picture => turn(picture, 25),
  squash: picture => open(picture).resize(Math.round(picture.width * 0.75), picture.height, { fit: 'fill' }),
}

function crop(picture: Pixels, share: number): Sharp {
  const [left, top] = [Math.round(picture.width * share), Math.round(picture.height * share)]
  return open(picture).extract({ left, top, width: picture.width - 2 * left, height: picture.height - 2 * top })
}

/** As most programs turn: the size stays, what leaves it is lost, and the corners become black or white, whatever the rim is nearer to. */
async function turn(picture: Pixels, degrees: number): Promise<Sharp> {
  const { width, height } = picture
  const background = rimIsDark(picture) ? '#000000' : white
  const room = Math.max(width, height) // so that the turned picture is nowhere smaller than this one
  const wider = await open(picture).extend({ left: room, right: room, top: room, bottom: room, background }).raw().toBuffer()
  const { data, info } = await open({ data: wider, width: width + 2 * room, height: height + 2 * room })
    .rotate(degrees, { background })
    .raw()
    .toBuffer({ resolveWithObject: true })
  return open({ data, width: info.width, height: info.height }).extract({
    left: Math.round((info.width - width) / 2),
    top: Math.round((info.height - height) / 2),
    width,
    height,
  })
}
function rimIsDark({ width, height, data }: Pixels): boolean {
  let sum = 0
  for (let x = 0; x < width; x++) sum += data[3 * x]! + data[3 * ((height - 1) * width + x)]!
  return sum / (2 * width) < 128
}

/** Small text at the lower left, red with a white rim of half transparency, as a watermark or a date would be. */
async function caption(picture: Pixels): Promise<Sharp> {
  const { width, height } = picture
  const size = Math.max(8, Math.round(height / 12))
  const text = await sharp({
    text: {
      text: '<span foreground="#d02020" background="#ffffff80">2026 sample</span>',
      font: 'sans',
      rgba: true,
      height: size,
      width: Math.round(width * 0.6),
    },
  })
    .png()
    .toBuffer()
  return open(picture).composite([{ input: text, left: Math.round(width * 0.05), top: Math.round(height * 0.95) - size - 2 }])
}

// ── where pictures come from ────────────────────────────────────────────────────────────────────────────────────────────────

/** `picture`: sources of the same name are the same picture already. */
type Source = { picture: string; read(): Promise<Pixels> }
const file = (path: string, picture = path): Source => ({
  picture,
  async read() {
    const { data, info } = await sharp(path)
      .flatten({ background: white })
      .toColourspace('srgb')
      .removeAlpha()
      .raw()
      .toBuffer({ resolveWithObject: true })
    return { data, width: info.width, height: info.height }
  },
})

export const sets: Record<string, { what: string; sources(scratch: string): Promise<Source[] | string> }> = {
  art: {
    what: 'emoji of three vendors, 96 px (`plinth sample emoji`)',
    async sources(scratch) {
      const folder = join(scratch, 'emoji')
      await extractSample('emoji', folder)
      return globSync('*/*.png', { cwd: folder })
        .sort()
        .map(path => file(join(folder, path)))
    },
  },
  alpha: {
    what: 'photographs and drawings with transparency (Debian: tuxpaint-stamps-default), without letters and signs',
    async sources() {
      const folder = '/usr/share/tuxpaint/stamps'
      if (!existsSync(folder)) return 'apt-get install tuxpaint-stamps-default'
      const paths = globSync('**/*.png', { cwd: folder }).filter(path => !path.startsWith('symbols/')) // an N turned is a Z
      return paths.sort().map(path => file(join(folder, path), path.replace('_mirror', '')))
    },
  },
  photographs: {
    what: 'parts of photographs, 480 × 360, those with something in them (Debian: lomiri-wallpapers-16.04 and -20.04, mate-backgrounds, plasma-workspace-wallpapers)',
    async sources() {
      const folders = [
        '/usr/share/backgrounds/*.jpg',
        '/usr/share/backgrounds/mate/nature/*.jpg',
        '/usr/share/wallpapers/*/contents/images/2560x1600.jpg',
      ]
      const paths = folders.flatMap(pattern => globSync(pattern).sort())
      if (paths.length < 30)
        return 'apt-get install lomiri-wallpapers-16.04 lomiri-wallpapers-20.04 mate-backgrounds plasma-workspace-wallpapers'
      const parts = (await Promise.all(paths.map(partsOf))).flat()
      const detailed = await Promise.all(parts.map(async part => ((await detail(await part.read())) > 4 ? [part] : [])))
      return detailed.flat()
    },
  },
}

/** Up to 4 × 3 parts of 480 × 360 that do not overlap, the whole spread over the picture at half its size: one scene gives several, which are *not* copies. */
async function partsOf(path: string): Promise<Source[]> {
  const { width, height } = await sharp(path).metadata()
  const scale = Math.min(1, 2000 / width)
  const [columns, rows] = [Math.floor((width * scale) / 480), Math.floor((height * scale) / 360)]
  return Array.from({ length: columns * rows }, (_, index) => ({
    picture: `${path} ${index}`,
    async read() {
      const [x, y] = [index % columns, Math.floor(index / columns)]
      const { data, info } = await sharp(path)
        .resize(Math.round(width * scale))
        .extract({ left: x * 480, top: y * 360, width: 480, height: 360 })
        .toColourspace('srgb')
        .removeAlpha()
        .raw()
        .toBuffer({ resolveWithObject: true })
      return { data, width: info.width, height: info.height }
    },
  }))
}

/** Mean step between neighbours at 64 × 64, in 1/255: sky and blur have hardly any. */
async function detail(picture: Pixels): Promise<number> {
  const { data } = await open(picture).greyscale().resize(64, 64, { fit: 'fill' }).raw().toBuffer({ resolveWithObject: true })
  let steps = 0
  for (let at = 0; at + 65 < 64 * 64; at++) steps += Math.abs(data[at + 1]! - data[at]!) + Math.abs(data[at + 64]! - data[at]!)
  return steps / (2 * 64 * 64)
}

// ── making ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** The same set for the same name, counts and edits. */
export async function makeSet(
  name: string,
  chosen: typeof edits,
  scratch: string,
  { all = 520, edited = 120 } = {},
): Promise<MadeSet | string> {
  const order = (text: string) => createHash('sha256').update(text).digest('hex')
  const folder = join(scratch, `${name}-${order(Object.keys(chosen).join()).slice(0, 6)}-${all}-${edited}`)
  const list = join(folder, 'truth.json')
  if (existsSync(list)) return { folder, files: JSON.parse(readFileSync(list, 'utf8')) }
  const sources = await sets[name]!.sources(scratch)
  if (typeof sources === 'string') return sources
  const shuffled = [...sources.entries()].sort(([a], [b]) => (order(`${name} ${a}`) < order(`${name} ${b}`) ? -1 : 1)).slice(0, all)

  mkdirSync(join(folder, 'pictures', 'all'), { recursive: true })
  const files: MadeSet['files'] = []
  const write = async (image: Sharp, source: number, edit: string) => {
    const { data, info } = await image.toBuffer({ resolveWithObject: true })
    const file = `${order(`${name} ${source} ${edit}`).slice(0, 12)}.${info.format === 'jpeg' ? 'jpg' : 'png'}`
    writeFileSync(join(folder, 'pictures', 'all', file), data)
    files.push({ name: file, source, picture: sources[source]!.picture, edit })
  }
  for (const [rank, [index, source]] of shuffled.entries()) {
    const picture = await source.read()
    await write(open(picture).png(), index, 'source')
    if (rank >= edited) continue
    for (const [edit, make] of Object.entries(chosen)) {
      const made = await make(picture)
      await write(edit === 'JPEG 30' ? made : made.png(), index, edit)
    }
  }
  files.sort((a, b) => (a.name < b.name ? -1 : 1))
  writeFileSync(list, JSON.stringify(files))
  return { folder, files }
}
