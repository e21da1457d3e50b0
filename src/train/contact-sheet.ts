/** What the network sees: a few training pictures as they are, as the square that it is given, and as they are altered while it learns. */
import type { PreparedPictures } from '../data/features.ts'
import { randomFrom } from '../engine/random.ts'
import { encodePng, thumbnail } from '../images/encode.ts'
import { type Augmentation, augment } from './augment.ts'

/** Pictures as data URLs. */
export interface SeenPicture {
  path: string
  label: string
  original: string
  seen: string
  altered: string[]
}

const mostPictures = 6
const alterations = 4

/** Of the first classes one picture each. */
export async function contactSheet({
  train,
  pathOf,
  labelOf,
  bytesOf,
  pictures,
  augmentation,
  seed,
}: {
  train: readonly number[]
  pathOf(row: number): string
  labelOf(row: number): string
  bytesOf(row: number): Promise<Uint8Array>
  pictures: Pick<PreparedPictures, 'read' | 'side'>
  /** null: nothing is altered, because the network was not trained. */
  augmentation: Augmentation | null
  seed: number
}): Promise<SeenPicture[]> {
  const rows = [...Map.groupBy(train, labelOf).values()].slice(0, mostPictures).map(own => own[0]!)
  const { side } = pictures
  const original = new Uint8Array(3 * side * side)
  const altered = new Uint8Array(3 * side * side)
  const sheet: SeenPicture[] = []
  for (const row of rows) {
    pictures.read(row, original)
    const variants: string[] = []
    for (let epoch = 0; augmentation && epoch < alterations; epoch++) {
      augment(original, side, altered, 0, randomFrom(seed, 2, epoch, row), augmentation) // what the first epochs show
      variants.push(await dataUrl(altered, side))
    }
    const webp = Buffer.from(await thumbnail(await bytesOf(row), 240)).toString('base64')
    sheet.push({
      path: pathOf(row),
      label: labelOf(row),
      original: `data:image/webp;base64,${webp}`,
      seen: await dataUrl(original, side),
      altered: variants,
    })
  }
  return sheet
}

/** `planes`: uint8 [3, side, side] */
async function dataUrl(planes: Uint8Array, side: number): Promise<string> {
  const area = side * side
  const data = new Uint8Array(3 * area)
  for (let i = 0; i < area; i++) for (let channel = 0; channel < 3; channel++) data[3 * i + channel] = planes[channel * area + i]!
  return `data:image/png;base64,${Buffer.from(await encodePng({ width: side, height: side, data })).toString('base64')}`
}
