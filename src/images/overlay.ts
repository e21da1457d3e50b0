/** A picture with what each place of it says for a label laid over it: warm places speak for the label, cold ones against it. */
import sharp from 'sharp'
import type { Picture } from './decode.ts'

export interface PlacesOfPicture {
  rows: number
  columns: number
  /** rows × columns numbers, row by row, of the square that the network sees. */
  places: ArrayLike<number>
  /** How the picture reached that square. */
  fit: 'crop' | 'squash' | 'letterbox'
}

/** The colours of the test page's map (serve/page.html). */
const warm = [226, 88, 24] as const
const cold = [38, 96, 190] as const
const strongest = 0.72

/**
 * The picture in grey with the map in colour, as WebP with its long side at most `side` pixels.
 * `scale`: the number that gets the full colour; by default the largest of this map. Give maps that are compared the same one.
 */
export async function activationOverlay(
  picture: Pick<Picture, 'width' | 'height' | 'data'>,
  { rows, columns, places, fit }: PlacesOfPicture,
  { side = 480, scale }: { side?: number; scale?: number } = {},
): Promise<Uint8Array> {
  const shrink = side / Math.max(picture.width, picture.height)
  const width = Math.max(1, Math.round(picture.width * shrink))
  const height = Math.max(1, Math.round(picture.height * shrink))
  const { data } = await sharp(picture.data, { raw: { width: picture.width, height: picture.height, channels: 3 } })
    .resize(width, height, { fit: 'fill', kernel: shrink > 2 ? 'nearest' : 'lanczos3' })
    .removeAlpha()
    .toColourspace('srgb')
    .raw()
    .toBuffer({ resolveWithObject: true })

  const most = scale ?? Array.from({ length: rows * columns }, (_, i) => Math.abs(places[i]!)).reduce((a, b) => Math.max(a, b), 1e-9)
  const square = { crop: Math.min(width, height), squash: 0, letterbox: Math.max(width, height) }[fit]
  const [across, down] = fit === 'squash' ? [width, height] : [square, square]
  const [left, top] = [(width - across) / 2, (height - down) / 2]
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      const at = (y * width + x) * 3
      const grey = 0.299 * data[at]! + 0.587 * data[at + 1]! + 0.114 * data[at + 2]!
      const [u, v] = [(x + 0.5 - left) / across, (y + 0.5 - top) / down]
      const inside = u >= 0 && u < 1 && v >= 0 && v < 1
      const value = inside ? between(places, rows, columns, u * columns - 0.5, v * rows - 0.5) / most : 0
      const share = strongest * Math.min(1, Math.abs(value))
      const colour = value > 0 ? warm : cold
      for (let c = 0; c < 3; c++) data[at + c] = Math.round(grey * (1 - share) + colour[c]! * share)
    }
  return sharp(data, { raw: { width, height, channels: 3 } })
    .webp({ quality: 80 })
    .toBuffer()
}

/** Bilinear, with the places at the edge carried outwards. */
function between(places: ArrayLike<number>, rows: number, columns: number, x: number, y: number): number {
  const [x0, y0] = [Math.floor(x), Math.floor(y)]
  const at = (column: number, row: number) =>
    places[Math.min(rows - 1, Math.max(0, row)) * columns + Math.min(columns - 1, Math.max(0, column))]!
  const upper = at(x0, y0) * (1 - (x - x0)) + at(x0 + 1, y0) * (x - x0)
  const lower = at(x0, y0 + 1) * (1 - (x - x0)) + at(x0 + 1, y0 + 1) * (x - x0)
  return upper * (1 - (y - y0)) + lower * (y - y0)
}
