/** Reads Fashion-MNIST as Debian's package dataset-fashion-mnist ships it (gzipped IDX files, big-endian: magic, sizes, bytes). */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import sharp from 'sharp'

export const debianFolder = '/usr/share/datasets/fashion-mnist'
export const side = 28
/** In the order of the data set's label numbers. */
export const classNames = ['t-shirt', 'trouser', 'pullover', 'dress', 'coat', 'sandal', 'shirt', 'sneaker', 'bag', 'ankle-boot'] as const

export function readFashion(folder: string, part: 'train' | 't10k') {
  const images = gunzipSync(readFileSync(join(folder, `${part}-images-idx3-ubyte.gz`)))
  const labels = gunzipSync(readFileSync(join(folder, `${part}-labels-idx1-ubyte.gz`)))
  if (images.readUInt32BE(0) !== 0x803 || labels.readUInt32BE(0) !== 0x801) throw new Error('These are not the IDX files of Fashion-MNIST.')
  const count = images.readUInt32BE(4)
  return {
    count,
    label: (index: number) => classNames[labels[8 + index]!]!,
    pixels: (index: number) => images.subarray(16 + side * side * index, 16 + side * side * (index + 1)),
  }
}

export async function greyPng(pixels: Uint8Array): Promise<Buffer> {
  const image = () => sharp(pixels, { raw: { width: side, height: side, channels: 1 } }).toColourspace('b-w')
  const tries = [false, true].map(adaptiveFiltering => image().png({ compressionLevel: 9, adaptiveFiltering }).toBuffer())
  return (await Promise.all(tries)).reduce((a, b) => (b.length < a.length ? b : a))
}
