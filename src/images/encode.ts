/** Pictures out again: exact as PNG, small as WebP. Both go through the one decoder, so a thumbnail is turned like its picture. */
import sharp from 'sharp'
import { type DecodeOptions, decodePicture, type Picture } from './decode.ts'

type Pixels = Pick<Picture, 'width' | 'height' | 'data'>
const raw = ({ width, height, data }: Pixels) => sharp(data, { raw: { width, height, channels: 3 }, limitInputPixels: false })

/** The same pixels as PNG. */
export async function encodePng(picture: Pixels): Promise<Uint8Array> {
  return await raw(picture).png({ compressionLevel: 9 }).toBuffer()
}

/** WebP within a square of `side` pixels; smaller pictures keep their size. Takes a file's bytes or a decoded picture; throws as decodePicture does. */
export async function thumbnail(
  source: Uint8Array | Pixels,
  side: number,
  options: DecodeOptions = { formats: 'local' },
): Promise<Uint8Array> {
  const picture = source instanceof Uint8Array ? await decodePicture(source, options) : source
  return await raw(picture).resize(side, side, { fit: 'inside', withoutEnlargement: true }).webp({ quality: 80 }).toBuffer()
}
