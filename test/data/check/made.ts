/** Rows and facts of pictures that nobody drew: for tests of what is told from numbers alone. */
import type { PictureFacts } from '../../../src/data/facts.ts'
import type { Copies, ManifestRow } from '../../../src/sdk/shapes.ts'

export type Made = { row: ManifestRow; facts: PictureFacts }
export type Changes = Partial<Omit<ManifestRow, 'labels'>> & { label?: string; look?: Partial<PictureFacts['appearance']> }

export const usual: PictureFacts['appearance'] = {
  brightness: 0.5,
  contrast: 0.2,
  low: 0.1,
  high: 0.85,
  saturation: 0.3,
  dominant: 0.1,
  sharpness: 0.55,
  edges: 0.5,
  rim: 0.5,
  rimContrast: 0.2,
}

let made = 0
/** A JPEG of 640×480 in the class `a`, unlike any other; `changes` say what else it is. */
export function picture({ label = 'a', look = {}, ...changes }: Changes = {}): Made {
  const content = (++made).toString(16).padStart(64, '0')
  const row: ManifestRow = {
    path: `${label}/${made}.jpg`,
    content,
    pixels: content,
    labels: [label],
    group: null,
    side: null,
    width: 640,
    height: 480,
    flags: [],
    format: 'jpeg',
    bytes: 60_000,
    ...changes,
  }
  const { width, height, flags, bytes = 0, format = '', captured, camera } = row
  return {
    row,
    facts: {
      content,
      pixels: row.pixels,
      width,
      height,
      format,
      bytes,
      flags,
      ...(captured !== undefined && { captured }),
      ...(camera !== undefined && { camera }),
      appearance: { ...usual, ...look },
      fingerprint: { hash: new Uint8Array(32), quality: 100, colour: '80'.repeat(32) },
    },
  }
}

export const noCopies: Copies = {
  schema: 1,
  dataset: '',
  tiers: ['pixels'],
  samePicture: [],
  sameScene: [],
  alike: [],
  notJudged: [],
  threshold: 1,
  recall: [],
  notes: [],
}
