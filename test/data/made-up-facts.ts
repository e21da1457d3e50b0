/** Facts of a picture that does not exist, the same for the same name. */
import { createHash } from 'node:crypto'
import type { SeenPicture } from '../../src/data/facts.ts'

export function madeUp(name: string): SeenPicture {
  const digest = createHash('sha256').update(name).digest()
  const grey = new Uint8Array(4096)
  for (let at = 0; at < grey.length; at++) grey[at] = digest[at % 32]! ^ (at >> 5)
  return {
    content: digest.toString('hex'),
    pixels: digest.toString('hex').split('').reverse().join(''),
    width: 1 + digest[0]!,
    height: 1 + digest[1]!,
    format: 'jpeg',
    bytes: digest.readUInt32LE(4),
    flags: ['exif-turned'],
    camera: `${name} é🐈`,
    appearance: {
      brightness: digest[2]! / 255,
      contrast: 0.1,
      low: 0,
      high: 1,
      saturation: 0.5,
      dominant: 0.25,
      sharpness: 0.4,
      edges: 0.3,
      rim: 0.5,
      rimContrast: 0,
    },
    fingerprint: { hash: Uint8Array.from(digest), quality: 77, colour: '80'.repeat(32) },
    grey,
  }
}
