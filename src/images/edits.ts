/**
 * Edits as people and programs make them, done on purpose to pictures that are at hand: what of them is found again says how well copies are
 * found on these very pictures. Each answers with decoded pixels, what was lost on the way included.
 */
import sharp, { type Sharp } from 'sharp'
import type { Picture } from './decode.ts'

type Pixels = Pick<Picture, 'width' | 'height' | 'data'>

/** In the order in which they are reported. */
export const knownEdits = {
  'saved as JPEG, quality 40': picture => recompressed(picture, 40),
  'half the size': picture => pixels(open(picture).resize(half(picture.width), half(picture.height), { fit: 'fill' })),
  'cropped by 10 %': picture => cropped(picture, 0.05),
  '20 % lighter': picture => pixels(open(picture).linear(1.2, 0)),
  '20 % darker': picture => pixels(open(picture).linear(0.8, 0)),
  mirrored: picture => pixels(open(picture).flop()),
  'turned by 5°': picture => turned(picture, 5),
  'with a border': picture => bordered(picture, 0.05),
  'with a caption': async picture => captioned(picture),
  'without colour': picture => pixels(open(picture).greyscale()),
} as const satisfies Record<string, (picture: Pixels) => Promise<Pixels>>
export type KnownEdit = keyof typeof knownEdits

/** At most 512 pixels a side: more is not looked at anyway, and edits of large photos take long. */
export async function shrunk(picture: Pixels): Promise<Pixels> {
  if (Math.max(picture.width, picture.height) <= 512) return picture
  return await pixels(open(picture).resize(512, 512, { fit: 'inside' }))
}

const open = ({ width, height, data }: Pixels) => sharp(data, { raw: { width, height, channels: 3 }, limitInputPixels: false })
const half = (length: number) => Math.max(1, Math.round(length / 2))

async function pixels(image: Sharp): Promise<Pixels> {
  const { data, info } = await image.removeAlpha().toColourspace('srgb').raw({ depth: 'uchar' }).toBuffer({ resolveWithObject: true })
  return {
    width: info.width,
    height: info.height,
    data: info.channels === 3 ? data : Uint8Array.from({ length: 3 * data.length }, (_, at) => data[Math.floor(at / 3)]!),
  }
}

async function recompressed(picture: Pixels, quality: number): Promise<Pixels> {
  return await pixels(sharp(await open(picture).jpeg({ quality }).toBuffer()))
}

function cropped(picture: Pixels, share: number): Promise<Pixels> {
  const [left, top] = [Math.round(picture.width * share), Math.round(picture.height * share)]
  return pixels(open(picture).extract({ left, top, width: picture.width - 2 * left, height: picture.height - 2 * top }))
}

/** The size stays, the corners become black. */
async function turned(picture: Pixels, degrees: number): Promise<Pixels> {
  const { width, height } = picture
  const room = Math.max(width, height)
  const background = '#000000'
  const wide = await pixels(open(picture).extend({ left: room, right: room, top: room, bottom: room, background }))
  const wider = await pixels(open(wide).rotate(degrees, { background }))
  const [left, top] = [Math.round((wider.width - width) / 2), Math.round((wider.height - height) / 2)]
  return await pixels(open(wider).extract({ left, top, width, height }))
}

function bordered(picture: Pixels, share: number): Promise<Pixels> {
  const [x, y] = [Math.max(1, Math.round(picture.width * share)), Math.max(1, Math.round(picture.height * share))]
  return pixels(open(picture).extend({ left: x, right: x, top: y, bottom: y, background: '#202020' }))
}

/** “2026” in the lower left corner, an eighth of the height, white on black: a date as cameras burn it in. Drawn here, so that no font is needed. */
function captioned({ width, height, data }: Pixels): Pixels {
  const result = Uint8Array.from(data)
  const dot = Math.max(1, Math.round(height / 72)) // nine of them high with its rim
  const columns = 4 * 6 + 1
  for (let row = 0; row < 9; row++) {
    for (let column = 0; column < columns; column++) {
      const digit = '2026'[Math.floor((column - 1) / 6)]
      const lit = column > 0 && row > 0 && digits[digit as keyof typeof digits]?.[row - 1]?.[(column - 1) % 6] === '#'
      for (let y = 0; y < dot; y++) {
        for (let x = 0; x < dot; x++) {
          const [left, top] = [2 * dot + column * dot + x, height - 11 * dot + row * dot + y]
          if (left < width && top >= 0 && top < height) result.fill(lit ? 255 : 0, 3 * (top * width + left), 3 * (top * width + left) + 3)
        }
      }
    }
  }
  return { width, height, data: result }
}
const digits = {
  '0': ['.###..', '#...#.', '#...#.', '#...#.', '#...#.', '#...#.', '.###..'],
  '2': ['.###..', '#...#.', '....#.', '..##..', '.#....', '#.....', '#####.'],
  '6': ['.###..', '#.....', '#.....', '####..', '#...#.', '#...#.', '.###..'],
}
