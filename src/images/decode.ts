/**
 * The one decoder: import, training, serving and thumbnails all see a picture through this file, so they see the same pixels.
 * A picture becomes 8-bit sRGB [height, width, 3]: turned as its EXIF says (once, here), colours brought to sRGB, transparency laid on
 * white, first frame of an animation. Bytes are hostile until proven otherwise: what they are is told by content, only the loaders named
 * here are switched on in libvips, and its error texts never leave this file (they may hold paths).
 */
import { createHash } from 'node:crypto'
import sharp, { type Metadata, type Sharp } from 'sharp'
import { Failure } from '../failure.ts'
import { decodeBitmap } from './bmp.ts'
import { formatOf, type ReadFormat, refused } from './format.ts'
import { hasEndMark, jpegHeader } from './jpeg.ts'
import { createRoom } from './room.ts'
import { looksLikeRaw } from './tiff.ts'

/** RGB, 8 bits, sRGB: `data` is [height, width, 3] without gaps. */
export type Picture = {
  width: number
  height: number
  data: Uint8Array
  format: ReadFormat
  flags: string[]
  /** The EXIF block of the file, as it is, where it has one. */
  exif?: Uint8Array
}

export type DecodeOptions = {
  /** `upload`: what strangers may send. `local`: also AVIF and BMP, for a folder of one's own. */
  formats: 'local' | 'upload'
  /** Pixels; more is refused before anything is decoded. */
  maxPixels?: number
}

export const defaultMaxPixels = 1e8
const room = createRoom(defaultMaxPixels)
const uploadFormats: readonly ReadFormat[] = ['jpeg', 'png', 'webp', 'gif', 'tiff']
const timeout = { upload: 5, local: 20 } as const // seconds
const white = '#ffffff'

sharp.block({ operation: ['VipsForeignLoad'] }) // SVG, PDF, … can be reached by no name and no content
sharp.unblock({
  operation: ['VipsForeignLoadJpeg', 'VipsForeignLoadPng', 'VipsForeignLoadWebp', 'VipsForeignLoadNsgif', 'VipsForeignLoadTiff'],
})
sharp.concurrency(1) // pictures are decoded side by side; threads within one only get in each other's way
sharp.cache(false)

/** Another decoder may round apart: what was found with one does not hold for the next. */
export const decoderVersion = `sharp ${sharp.versions.sharp}, libvips ${sharp.versions.vips}`

/**
 * Throws image_empty, image_unreadable, image_format, image_too_large, image_timeout.
 * Flags say what was noticed: exif-turned, cmyk, 16-bit, float, scaled, grey, alpha, palette, animated, pages, truncated, damaged.
 */
export async function decodePicture(bytes: Uint8Array, options: DecodeOptions): Promise<Picture> {
  const maxPixels = options.maxPixels ?? defaultMaxPixels
  const format = readableFormat(bytes, options.formats)
  if (format === 'bmp') return { ...decodeBitmap(bytes, maxPixels), format }
  if (format === 'avif') sharp.unblock({ operation: ['VipsForeignLoadHeif'] })

  const limits = { maxPixels, seconds: timeout[options.formats] }
  try {
    return await decodeWith(bytes, format, 'warning', limits)
  } catch (error) {
    if (error instanceof Failure) throw error
    const text = error instanceof Error ? error.message : ''
    if (format === 'jpeg') return await lenientJpeg(bytes, await complaintOf(bytes, text, limits), limits)
    throw translated(text, limits)
  }
}

/** The format by content; throws where it is none, or none that may be read here. */
function readableFormat(bytes: Uint8Array, formats: DecodeOptions['formats']): ReadFormat {
  if (bytes.length === 0) throw new Failure('image_empty')
  const format = formatOf(bytes)
  if (format === null) throw new Failure('image_unreadable', { reason: 'what is in it is not a picture' })
  if (format in refused) {
    const { name, convert } = refused[format as keyof typeof refused]
    throw new Failure('image_format', { format: name, convert })
  }
  const readable = format as ReadFormat
  if (formats === 'upload' && !uploadFormats.includes(readable)) {
    const name = readable === 'avif' ? 'an AVIF picture' : 'a Windows bitmap (BMP)'
    throw new Failure('image_format', { format: name, convert: ` (read are ${uploadFormats.map(name => name.toUpperCase()).join(', ')})` })
  }
  if (readable === 'tiff' && looksLikeRaw(bytes))
    throw new Failure('image_format', { format: refused.raw.name, convert: refused.raw.convert })
  return readable
}

type Limits = { maxPixels: number; seconds: number }
/** libvips' failOn: `warning` accepts nothing odd, `error` goes on as far as it can. */
type Strictness = 'error' | 'warning'

async function decodeWith(bytes: Uint8Array, format: ReadFormat, failOn: Strictness, limits: Limits): Promise<Picture> {
  const { maxPixels, seconds } = limits
  const options = { failOn, limitInputChannels: 5, pages: 1, sequentialRead: true }
  const open = () => sharp(bytes, { ...options, limitInputPixels: maxPixels })
  const metadata = (format === 'jpeg' && plainJpeg(bytes)) || (await sharp(bytes, { ...options, limitInputPixels: false }).metadata())
  // sharp calls AVIF heif; a second opinion that differs is an attack on one of the two readers
  if (metadata.format !== (format === 'avif' ? 'heif' : format))
    throw new Failure('image_unreadable', { reason: 'its content contradicts itself' })
  const { width, height } = metadata
  if (width * height > maxPixels) throw tooLarge(`${width}×${height} pixels`, limits)

  const picture = await room.within(width * height, () => render(open, metadata, format, seconds))
  return metadata.exif ? { ...picture, exif: metadata.exif } : picture
}

/** What is used here of what sharp says about a file, after it has read the header only. */
type Header = Pick<
  Metadata,
  'format' | 'width' | 'height' | 'space' | 'depth' | 'hasAlpha' | 'isPalette' | 'orientation' | 'pages' | 'exif'
>

/** The same from our own reading, for JPEGs as cameras write them; libvips gets to see all others first. */
function plainJpeg(bytes: Uint8Array): Header | null {
  const header = jpegHeader(bytes)
  if (header?.precision !== 8 || ![1, 3].includes(header.components) || header.width === 0 || header.height === 0) return null
  const { width, height, components, orientation, exif } = header
  const space = components === 1 ? 'b-w' : 'srgb'
  return {
    format: 'jpeg',
    width,
    height,
    space,
    depth: 'uchar',
    hasAlpha: false,
    isPalette: false,
    orientation,
    ...(exif && { exif: Buffer.from(exif) }),
  }
}

async function render(open: () => Sharp, metadata: Header, format: ReadFormat, seconds: number): Promise<Picture> {
  const flags = flagsOf(metadata)
  const image = open().timeout({ seconds }).autoOrient()
  if (metadata.depth !== 'uchar') {
    const stretched = await wideValues(open().timeout({ seconds }).autoOrient(), metadata)
    if (stretched) return { ...stretched.picture, format, flags: [...flags, ...stretched.flags] }
  }
  if (metadata.hasAlpha || format === 'gif' || format === 'webp') image.flatten({ background: white })
  const { data, info } = await image.removeAlpha().toColourspace('srgb').raw({ depth: 'uchar' }).toBuffer({ resolveWithObject: true })
  if (info.channels !== 3) throw new Failure('image_unreadable', { reason: 'its colours are of a kind that is not known' })
  return { width: info.width, height: info.height, data, format, flags }
}

function flagsOf(metadata: Header): string[] {
  const flags: string[] = []
  if ((metadata.orientation ?? 1) > 1) flags.push('exif-turned')
  if (metadata.space === 'cmyk') flags.push('cmyk')
  if (metadata.depth === 'ushort') flags.push('16-bit')
  if (metadata.space === 'b-w' || metadata.space === 'grey16') flags.push('grey')
  if (metadata.hasAlpha) flags.push('alpha')
  if (metadata.isPalette) flags.push('palette')
  if ((metadata.pages ?? 1) > 1) flags.push(metadata.format === 'tiff' ? 'pages' : 'animated')
  return flags
}

// ── more than eight bits ────────────────────────────────────────────────────────────────────────────────────────────────────

/**
 * libvips takes 65,535 for white in 16-bit files and 255 in all wider ones; measuring instruments write 12-bit values into 16 bits and
 * 0…1 into floats, and such pictures would come out black without a word. Looks at the values and returns a stretched picture,
 * or null where they are what libvips expects.
 */
async function wideValues(image: Sharp, metadata: Header) {
  const wide = metadata.depth !== 'ushort'
  const { space } = metadata
  if (!['b-w', 'grey16', 'srgb', 'rgb16', 'scrgb'].includes(space)) {
    if (wide) throw new Failure('image_unreadable', { reason: 'its colours are of a kind that is not known' })
    return null
  }
  if (!wide && metadata.hasAlpha) return null // who writes transparency is no instrument
  const grey = space === 'b-w' || space === 'grey16'
  const { data, info } = await image
    .pipelineColourspace(space) // no conversion: the numbers as they are
    .toColourspace(space)
    .raw({ depth: wide ? 'float' : 'ushort' })
    .toBuffer({ resolveWithObject: true })
  const copy = new Uint8Array(data).buffer // aligned
  const values = wide ? new Float32Array(copy) : new Uint16Array(copy)
  const range = rangeOf(values, info.channels, grey ? 1 : 3)
  const scale = wide ? wideScale(range, metadata.depth === 'float' || metadata.depth === 'double') : instrumentScale(range.high)
  if (!scale) return null

  const pixels = info.width * info.height
  const rgb = new Uint8Array(3 * pixels)
  for (let pixel = 0; pixel < pixels; pixel++) {
    for (let channel = 0; channel < 3; channel++) {
      const value = values[pixel * info.channels + (grey ? 0 : channel)]!
      rgb[3 * pixel + channel] = Math.max(0, Math.min(255, Math.round((value - scale.black) * scale.factor))) // NaN becomes 0
    }
  }
  return { picture: { width: info.width, height: info.height, data: rgb }, flags: scale.flags }
}

function rangeOf(values: Float32Array | Uint16Array, channels: number, colours: number): { low: number; high: number } {
  let low = Infinity
  let high = -Infinity
  for (let index = 0; index < values.length; index++) {
    const value = values[index]!
    if (index % channels >= colours || !Number.isFinite(value)) continue
    if (value < low) low = value
    if (value > high) high = value
  }
  return { low, high }
}

/** 8, 10 or 12 bits kept in 16: the whole picture would lie within the darkest sixteenth. */
function instrumentScale(high: number) {
  if (high === 0 || high > 4095) return null
  const most = high > 1023 ? 4095 : high > 255 ? 1023 : 255
  return { black: 0, factor: 255 / most, flags: ['scaled'] }
}

/** 0…1 and 0…255 are taken at their word; any other range is stretched from its own darkest to its own lightest value. */
function wideScale({ low, high }: { low: number; high: number }, float: boolean) {
  const flags = float ? ['float'] : []
  if (!(high >= low)) return { black: 0, factor: 0, flags: [...flags, 'scaled'] } // not one finite value
  if (float && low >= 0 && high <= 1) return { black: 0, factor: 255, flags }
  if (low >= 0 && high > 127 && high <= 255) return { black: 0, factor: 1, flags }
  if (!float && low >= 0 && high > 32767 && high <= 65535) return { black: 0, factor: 255 / 65535, flags }
  return { black: low, factor: high > low ? 255 / (high - low) : 0, flags: [...flags, 'scaled'] }
}

// ── what decoders complain about ────────────────────────────────────────────────────────────────────────────────────────────

/** Oddities of cameras and programs that cost no pixel (texts of libjpeg's jerror.h). */
const harmless = /extraneous bytes before marker|Invalid SOS parameters|Unknown Adobe color transform|Inconsistent progression sequence/
/** libvips keeps its texts in one place for the whole program: where pictures are decoded side by side, another one may have taken ours away. */
const lost = /^$|treated as error due to failOn/
/** One of four or so is lost where sixteen pictures are decoded at once. */
const mostTries = 20
/** Share of the rows that may be missing at the lower end of a JPEG before it counts as cut. */
const mayLack = 1 / 32

/**
 * A JPEG that failed gets one second look. Viewers show it, but not all of them deserve to teach a model; whether one is cut is told by its bytes,
 * so that the same file is the same picture whatever else is decoded beside it:
 * - only the end mark is missing: every pixel is there; flag `truncated`;
 * - the last rows are missing (at most 1/32 of them, baseline only): they are grey; flag `truncated`;
 * - an oddity that costs no pixel: flag `damaged`;
 * - more is missing, or the data is wrong in the middle and what follows is smeared: refused.
 */
async function lenientJpeg(bytes: Uint8Array, complaint: string, limits: Limits): Promise<Picture> {
  try {
    if (!hasEndMark(bytes)) {
      const ended = Buffer.concat([bytes, Buffer.from([0xff, 0xd9])])
      const whole = await decodeWith(ended, 'jpeg', 'warning', limits).catch(() => null)
      if (whole) return { ...whole, flags: [...whole.flags, 'truncated'] }
      if ((await missingShare(ended, limits)) <= mayLack) {
        const most = await decodeWith(ended, 'jpeg', 'error', limits)
        return { ...most, flags: [...most.flags, 'truncated'] }
      }
    } else if (harmless.test(complaint)) {
      const picture = await decodeWith(bytes, 'jpeg', 'error', limits)
      return { ...picture, flags: [...picture.flags, 'damaged'] }
    }
  } catch (error) {
    if (error instanceof Failure) throw error
    throw translated(error instanceof Error ? error.message : '', limits)
  }
  // “premature end of data segment” is a broken byte in the middle, not a file that was cut
  throw translated(hasEndMark(bytes) ? complaint.replaceAll(/premature end/gi, '') : complaint, limits)
}

/** What libjpeg has against a JPEG that fails, asked again where the text was lost. */
async function complaintOf(bytes: Uint8Array, text: string, limits: Limits): Promise<string> {
  let complaint = text
  for (let attempt = 0; lost.test(complaint) && attempt < mostTries; attempt++)
    complaint = await decodeWith(bytes, 'jpeg', 'warning', limits).then(
      () => '',
      error => {
        if (error instanceof Failure) throw error
        return error instanceof Error ? error.message : ''
      },
    )
  return complaint
}

/**
 * libjpeg fills what never came with mid grey, in the order of writing: the lower right corner is the first to be missing.
 * Counts grey rows there from below. A progressive file is blurred instead of grey when it is cut, so all of it counts as missing.
 */
async function missingShare(bytes: Uint8Array, { maxPixels, seconds }: Limits): Promise<number> {
  const open = () => sharp(bytes, { failOn: 'error', limitInputPixels: maxPixels, limitInputChannels: 5 })
  const { isProgressive, width } = await open().metadata()
  if (isProgressive) return 1
  const strip = Math.min(8, width)
  const { data, info } = await open()
    .timeout({ seconds })
    .extract({ left: width - strip, top: 0, width: strip, height: (await open().metadata()).height })
    .toColourspace('srgb')
    .raw({ depth: 'uchar' })
    .toBuffer({ resolveWithObject: true })
  const rowBytes = info.width * info.channels
  let rows = 0
  while (rows < info.height && data.subarray(data.length - (rows + 1) * rowBytes, data.length - rows * rowBytes).every(isMidGrey)) rows++
  return rows / info.height
}
const isMidGrey = (value: number) => value >= 127 && value <= 129

const tooLarge = (size: string, { maxPixels }: Limits) =>
  new Failure('image_too_large', { size, limit: `${maxPixels.toLocaleString('en-US')} pixels` })

/** The decoder's words become ours; the original is dropped on purpose. */
function translated(text: string, limits: Limits): Failure {
  if (/pixel limit|image dimensions|too large|exceeds/i.test(text)) return tooLarge('more pixels than that', limits)
  if (/timeout/i.test(text)) return new Failure('image_timeout', { seconds: limits.seconds })
  if (/channel/i.test(text)) return new Failure('image_unreadable', { reason: 'it has more than five channels' })
  const reason = /premature|truncat|unexpected end|end of (file|data|image)|not enough|read error|eof|short/i.test(text)
    ? 'it is cut short'
    : /header/i.test(text)
      ? 'its header is damaged'
      : 'its data is damaged or of a kind that is not known'
  return new Failure('image_unreadable', { reason })
}

// ── the same picture ────────────────────────────────────────────────────────────────────────────────────────────────────────

/** sha256 (hex) over size and pixels: equal means that nobody can tell the two pictures apart. */
export function pixelDigest({ width, height, data }: Pick<Picture, 'width' | 'height' | 'data'>): string {
  return createHash('sha256').update(`${width}x${height}\n`).update(data).digest('hex')
}
