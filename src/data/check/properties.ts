/** What is known of a picture without knowing what it shows: its file, and its light. One row for each property; shortcuts are looked for in all of them. */
import type { ManifestRow } from '../../sdk/shapes.ts'
import type { PictureFacts } from '../facts.ts'

interface Common {
  name: string
  /** 'file': how it was made and saved. 'look': how light, colourful or sharp it is, which may well be what the class is about. */
  kind: 'file' | 'look'
}
export interface Category extends Common {
  of(row: ManifestRow, facts: PictureFacts): string
  /** What stands in “All … pictures are …”, and where in that sentence. */
  say(value: string): string
  place: 'before' | 'noun' | 'behind'
}
export interface Quantity extends Common {
  /** null: not known of this picture. */
  of(row: ManifestRow, facts: PictureFacts): number | null
  /** “darker” and “lighter”: what a small and a large value means. */
  less: string
  more: string
  /** The value for people. */
  say(value: number): string
  /** What the user should ask. */
  question: string
}
export type Property = Category | Quantity

const percent = (value: number) => `${Math.round(100 * value)} %`
const look = (name: string, key: keyof PictureFacts['appearance'], less: string, more: string, question: string): Quantity => ({
  name,
  kind: 'look',
  of: (_, { appearance }) => appearance[key],
  less,
  more,
  say: percent,
  question,
})
const flag = (flag: string, yes: string, no: string): Category => ({
  name: flag,
  kind: 'file',
  of: ({ flags }) => (flags.includes(flag) ? 'yes' : 'no'),
  say: (value: string) => (value === 'yes' ? yes : no),
  place: 'behind',
})

export const properties: readonly Property[] = [
  { name: 'format', kind: 'file', of: (_, facts) => facts.format.toUpperCase(), say: (value: string) => value, place: 'noun' },
  { name: 'size', kind: 'file', of: row => `${row.width}×${row.height}`, say: (value: string) => value, place: 'before' },
  { name: 'aspect', kind: 'file', of: row => aspectOf(row.width, row.height), say: (value: string) => value, place: 'before' },
  {
    name: 'camera',
    kind: 'file',
    of: row => row.camera ?? '',
    say: (value: string) => (value === '' ? 'without a camera’s name' : `taken with ${value}`),
    place: 'behind',
  },
  {
    name: 'day',
    kind: 'file',
    of: row => row.captured?.slice(0, 10) ?? '',
    say: (value: string) => (value === '' ? 'without a date' : `taken on ${value}`),
    place: 'behind',
  },
  flag('exif-turned', 'taken with the camera turned', 'taken with the camera upright'),
  flag('alpha', 'with transparency', 'without transparency'),
  flag('palette', 'with a palette', 'without a palette'),
  flag('grey', 'saved as grey', 'saved in colour'),
  flag('cmyk', 'in printing colours (CMYK)', 'not in printing colours'),
  flag('16-bit', 'of 16 bits', 'of 8 bits'),
  {
    name: 'hour',
    kind: 'file',
    of: row => (row.captured ? Number(row.captured.slice(11, 13)) + Number(row.captured.slice(14, 16)) / 60 : null),
    less: 'taken earlier in the day',
    more: 'taken later in the day',
    say: (value: number) => `${Math.floor(value)}:${String(Math.floor((value % 1) * 60)).padStart(2, '0')} o’clock`,
    question: 'Is it the subject, or the light of that hour?',
  },
  {
    name: 'pixels',
    kind: 'file',
    of: row => row.width * row.height,
    less: 'smaller',
    more: 'larger',
    say: (value: number) =>
      value >= 1e6 ? `${(value / 1e6).toFixed(1)} megapixels` : `${Math.round(value).toLocaleString('en-US')} pixels`,
    question: 'Do they come from another source? Small pictures enlarged look soft, and that is what would be learned.',
  },
  {
    name: 'bytes per pixel',
    kind: 'look', // a busy picture needs more of them, however it is saved
    of: (row, facts) => facts.bytes / (row.width * row.height),
    less: 'packed more tightly',
    more: 'packed more loosely',
    say: (value: number) => `${value.toFixed(2)} bytes a pixel`,
    question: 'Were they saved by another program or with another quality? Traces of packing can be learned.',
  },
  look('brightness', 'brightness', 'darker', 'lighter', 'If the light is not what the class is about (day and night), it is a shortcut.'),
  look('contrast', 'contrast', 'flatter', 'richer in contrast', 'If contrast is not what the class is about, it is a shortcut.'),
  look('colour', 'saturation', 'greyer', 'more colourful', 'If colour is not what the class is about, it is a shortcut.'),
  look('sharpness', 'sharpness', 'softer', 'sharper', 'Were they taken with another camera or focus?'),
  look('background', 'rim', 'darker at the rim', 'lighter at the rim', 'Does the background give the class away?'),
  look('background detail', 'rimContrast', 'plainer at the rim', 'busier at the rim', 'Does the background give the class away?'),
]

export const isQuantity = (property: Property): property is Quantity => 'more' in property

const shapes: readonly [number, string][] = [
  [1, '1:1'],
  [5 / 4, '5:4'],
  [4 / 3, '4:3'],
  [3 / 2, '3:2'],
  [16 / 10, '16:10'],
  [16 / 9, '16:9'],
  [2, '2:1'],
  [21 / 9, '21:9'],
  [3, '3:1'],
]
/** '4:3', '3:4', or one decimal where it is none of the common ones. */
export function aspectOf(width: number, height: number): string {
  const ratio = Math.max(width, height) / Math.min(width, height)
  const [near, name] = shapes.reduce((best, shape) =>
    Math.abs(Math.log(shape[0] / ratio)) < Math.abs(Math.log(best[0] / ratio)) ? shape : best,
  )
  const common = Math.abs(Math.log(near / ratio)) < 0.02
  const [long, short] = common ? name.split(':') : [ratio.toFixed(1), '1']
  return width >= height ? `${long}:${short}` : `${short}:${long}`
}
