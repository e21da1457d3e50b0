/** What the network sees: a few training pictures as they are, as the square that it is given, and as they are altered while it learns. */
import type { PreparedPictures } from '../data/features.ts'
import { randomFrom } from '../engine/random.ts'
import { encodePng, thumbnail } from '../images/encode.ts'
import type { Fit, ManifestRow } from '../sdk/index.ts'
import { type Augmentation, augment } from './augment.ts'

/** One picture in several states, as data URLs. */
export interface ContactSheet {
  title: string
  text: string
  pictures: string[]
}

const mostPictures = 4
const alterations = 4

/** Of the first classes one picture each, rather a long one than a square one: as it is, as the network sees it, and altered. */
export async function contactSheet({
  train,
  rowOf,
  bytesOf,
  pictures,
  fit,
  augmentation,
  seed,
}: {
  train: readonly number[]
  rowOf(row: number): ManifestRow
  bytesOf(row: number): Promise<Uint8Array>
  pictures: Pick<PreparedPictures, 'read' | 'side'>
  fit: Fit
  /** null: nothing is altered, because the network was not trained. */
  augmentation: Augmentation | null
  seed: number
}): Promise<ContactSheet[]> {
  const length = (row: number) => Math.max(rowOf(row).width / rowOf(row).height, rowOf(row).height / rowOf(row).width)
  const rows = [...Map.groupBy(train, row => rowOf(row).labels[0]!).values()]
    .slice(0, mostPictures)
    .map(own => own.slice(0, 20).reduce((longest, row) => (length(row) > length(longest) ? row : longest)))
  const { side } = pictures
  const original = new Uint8Array(3 * side * side)
  const altered = new Uint8Array(3 * side * side)
  const sheets: ContactSheet[] = []
  for (const row of rows) {
    pictures.read(row, original)
    const altereds: string[] = []
    for (let epoch = 0; augmentation && epoch < alterations; epoch++) {
      augment(original, side, altered, 0, randomFrom(seed, 2, epoch, row), augmentation) // what the first epochs show
      altereds.push(await dataUrl(altered, side))
    }
    const webp = Buffer.from(await thumbnail(await bytesOf(row), 240)).toString('base64')
    sheets.push({
      title: rowOf(row).path,
      text:
        sheets.length > 0
          ? ''
          : `The picture, then what the network is given of it (${fitted[fit]}, ${side} × ${side} pixels)${augmentation ? `, then how it was altered in the first ${alterations} rounds of training` : ''}.`,
      pictures: [`data:image/webp;base64,${webp}`, await dataUrl(original, side), ...altereds],
    })
  }
  return sheets
}

const fitted: Record<Fit, string> = {
  crop: 'the square in the middle',
  squash: 'squashed into a square',
  letterbox: 'whole, with grey borders',
}

/** `planes`: uint8 [3, side, side] */
async function dataUrl(planes: Uint8Array, side: number): Promise<string> {
  const area = side * side
  const data = new Uint8Array(3 * area)
  for (let i = 0; i < area; i++) for (let channel = 0; channel < 3; channel++) data[3 * i + channel] = planes[channel * area + i]!
  return `data:image/png;base64,${Buffer.from(await encodePng({ width: side, height: side, data })).toString('base64')}`
}
