/**
 * What is known of a picture by looking at it once: size, pixels, how it looks, its fingerprint, when and with what it was taken. And a cache of it
 * by the sha256 of the file, so that a second look at the same pictures reads them and decodes none.
 */
import { createHash } from 'node:crypto'
import { type Appearance, appearance } from '../images/appearance.ts'
import { decodePicture, decoderVersion, pixelDigest } from '../images/decode.ts'
import { readExif } from '../images/exif.ts'
import { type Fingerprint, fingerprint } from '../images/fingerprint.ts'
import { openFactsFile } from './facts-file.ts'
import { sha256 } from './source.ts'

export interface PictureFacts {
  /** sha256 of the file, hex. */
  content: string
  /** sha256 of the decoded pixels with their size, hex. */
  pixels: string
  width: number
  height: number
  /** What the content is, whatever the name says: 'jpeg', 'png' … */
  format: string
  /** Of the file. */
  bytes: number
  flags: string[]
  /** When it was taken, by the camera's own clock: 2026-05-01T12:00:00.250. */
  captured?: string
  /** Make, model and, where given, serial number. */
  camera?: string
  appearance: Appearance
  fingerprint: Omit<Fingerprint, 'grey'>
}
/** With the grey copy of 64 × 64 that pictures are compared by. */
export type SeenPicture = PictureFacts & { grey: Uint8Array }

/** Decodes once and takes everything from it; no pixel outlives the call. Throws as decodePicture does. */
export async function lookAt(bytes: Uint8Array, content: string = sha256(bytes)): Promise<SeenPicture> {
  const picture = await decodePicture(bytes, { formats: 'local' })
  const { grey, ...print } = fingerprint(picture)
  return {
    content,
    pixels: pixelDigest(picture),
    width: picture.width,
    height: picture.height,
    format: picture.format,
    bytes: bytes.length,
    flags: picture.flags,
    ...readExif(picture.exif ?? (picture.format === 'tiff' ? bytes : new Uint8Array())),
    appearance: appearance(picture),
    fingerprint: print,
    grey,
  }
}

/** A cache: what is not there is looked at again. Shared by processes, and none that is killed leaves anything that another stumbles over. */
export interface Facts {
  get(content: string): PictureFacts | null
  /** [64, 64] uint8 of a picture that `get` knows. Stays on disk, so that 10⁵ pictures fit into memory. throws internal for any other */
  grey(content: string): Uint8Array
  /** On its way to the disk when it returns; stays in memory where there is no writing. */
  put(facts: SeenPicture): void
  close(): void
}

/** `folder`: of nothing else, made where it is missing. */
export async function openFacts(folder: string): Promise<Facts> {
  return await openFactsFile(folder, cacheVersion())
}

/** To be raised when what is read beside the pixels changes: EXIF, flags, or a decoder of our own. */
const readingVersion = 2

/**
 * Facts are only as good as the code that found them. The name of the cache is a digest of what today's code says about one fixed picture:
 * whoever changes a fingerprint, an appearance or the decoder starts an empty cache without having to think of it.
 */
function cacheVersion(): string {
  const width = 231
  const height = 173
  const data = new Uint8Array(width * height * 3)
  for (let y = 0, at = 0; y < height; y++)
    for (let x = 0; x < width; x++)
      for (let channel = 0; channel < 3; channel++)
        data[at++] = 128 + 60 * Math.sin(x / (9 + 4 * channel)) + 50 * Math.cos((y * y) / (900 + channel)) + ((x * 7 + y * 13) % 17)
  const { hash, quality, grey, colour } = fingerprint({ width, height, data })
  const said = [
    readingVersion,
    decoderVersion,
    quality,
    JSON.stringify(appearance({ width, height, data })),
    pixelDigest({ width, height, data }),
  ].join('\n')
  return createHash('sha256').update(said).update(colour).update(hash).update(grey).digest('hex').slice(0, 16)
}
