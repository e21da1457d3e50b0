/** Datasets to review, in real homes: pictures that all differ, copies of some, labels that look wrong. */
import type { TestContext } from 'node:test'
import { importPictures } from '../../../src/data/import.ts'
import { saveDataset } from '../../../src/data/versions.ts'
import type { Home } from '../../../src/db/home.ts'
import type { DatasetReference, Manifest, ManifestRow, Mislabels } from '../../../src/sdk/shapes.ts'
import { temporaryHome } from '../../track/homes.ts'
import { type Files, pictures, temporary, write } from '../folders.ts'

/** `cat` 0–7, `dog` 20–27; `cat/twin.png` is cat 1 again, `dog/cat 2.png` is cat 2 under another label, `cat/dog 20.png` is dog 20. */
export const files: Files = {
  ...pictures('cat', 8),
  ...pictures('dog', 8, 20),
  'cat/twin.png': 1,
  'dog/cat 2.png': 2,
  'cat/dog 20.png': 20,
}

export interface Reviewed {
  home: Home
  folder: string
  reference: DatasetReference
  manifest: Manifest
}
/** The pictures as `pets@1`, and the folder they came from. */
export async function pets(t: TestContext, given: Files = files): Promise<Reviewed> {
  const home = await temporaryHome(t)
  const folder = await write(temporary(t), given)
  const manifest = await importPictures(folder, { blobs: home.blobs })
  return { home, folder, reference: await saveDataset(home, 'pets', manifest), manifest }
}

/** As a search would have listed them, the first the most suspicious. */
export function suspected(...listed: { path: string; label: string; suggestion?: string; pile?: 'another' | 'none' | 'two' }[]): Mislabels {
  return {
    n: 19,
    estimate: { count: listed.length, low: 0, high: listed.length },
    exchanged: [],
    listed: listed.map(({ path, label, suggestion = null, pile = 'another' }, index) => ({
      path,
      label,
      pile,
      suggestion,
      score: 1 - index / 100,
      probabilityOfLabel: 0.004,
      probabilityOfSuggestion: 0.934,
      neighbours: [
        { path: 'dog/3.png', label: 'dog', similarity: 0.9 },
        { path: 'cat/7.png', label: 'cat', similarity: 0.7 },
      ],
    })),
    notes: [],
  }
}

export const row = (path: string, pixels: string, label: string, change: Partial<ManifestRow> = {}): ManifestRow => ({
  path,
  content: pixels.padEnd(64, '0'),
  pixels: pixels.padEnd(64, '0'),
  labels: [label],
  group: null,
  side: null,
  width: 4,
  height: 4,
  flags: [],
  ...change,
})
