/** Where the user's own folders are a split: which test pictures are copies of pictures that are learned from, and what they are worth. */
import { fitLogisticRegression } from '../../models/logistic-regression.ts'
import type { Copies, DataCheck, Manifest, ManifestRow } from '../../sdk/shapes.ts'
import { groupsOf } from '../copies/index.ts'

export type AcrossSplit = NonNullable<DataCheck['acrossSplit']>

/** The side that numbers are measured on: test, or validation where there is no test; null where the folders are no split. */
export function measuredSide(rows: readonly Pick<ManifestRow, 'side'>[]): 'test' | 'validation' | null {
  const sides = new Set(rows.map(({ side }) => side))
  if (!sides.has('train')) return sides.has('test') && sides.has('validation') ? 'test' : null
  return sides.has('test') ? 'test' : sides.has('validation') ? 'validation' : null
}

/** Groups that touch the measured side and another one, and its pictures in them; null where there are no two sides. */
export function copiesAcross(
  { rows }: Pick<Manifest, 'rows'>,
  copies: Copies,
): { groups: number[][]; leaked: number[]; test: number[] } | null {
  const measured = measuredSide(rows)
  if (measured === null) return null
  const test = [...rows.keys()].filter(row => rows[row]!.side === measured)
  // names alone are a guess: good enough to keep pictures together, not to say that a published number is wrong
  const sameScene = copies.sameScene.filter(scene => scene.evidence !== 'names')
  const groups = groupsOf({ samePicture: copies.samePicture, sameScene }).filter(group => {
    const sides = new Set(group.map(row => rows[row]!.side))
    return sides.has(measured) && [...sides].some(side => side !== null && side !== measured)
  })
  const leaked = groups.flatMap(group => group.filter(row => rows[row]!.side === measured)).sort((a, b) => a - b)
  return { groups, leaked, test }
}

/**
 * A linear probe (logistic regression on features [rows, width] of the untouched backbone) trained on the user's train side: its accuracy on the
 * test side as it is, and on the same side without the pictures that are copies. null for a part without pictures, or with nothing to learn.
 */
export async function scoreAcross(
  { rows, classes }: Pick<Manifest, 'rows' | 'classes'>,
  { leaked, test }: { leaked: readonly number[]; test: readonly number[] },
  features: { values: Float32Array; width: number },
  threads: number,
): Promise<{ accuracyAsGiven: number | null; accuracyWithout: number | null }> {
  const train = [...rows.keys()].filter(row => rows[row]!.side === 'train')
  const labelOf = (row: number) => classes.indexOf(rows[row]!.labels[0]!)
  if (new Set(train.map(labelOf)).size < 2) return { accuracyAsGiven: null, accuracyWithout: null }
  const { width } = features
  const part = (which: readonly number[]) => {
    const values = new Float32Array(which.length * width)
    for (const [at, row] of which.entries()) values.set(features.values.subarray(row * width, (row + 1) * width), at * width)
    return { features: values, labels: which.map(labelOf) }
  }
  // no side of ours chooses its strength: with a copy in it, validation would choose the strength that remembers best
  const validation = { features: new Float32Array(0), labels: [] }
  const probe = await fitLogisticRegression({ train: part(train), validation, width, classes: classes.length, threads })
  const right = new Set(
    test.filter(row => {
      let [best, most] = [-1, Number.NEGATIVE_INFINITY]
      for (let k = 0; k < classes.length; k++) {
        let score = probe.bias[k]!
        for (let f = 0; f < width; f++) score += probe.weight[k * width + f]! * features.values[row * width + f]!
        if (score > most) [best, most] = [k, score]
      }
      return best === labelOf(row)
    }),
  )
  const copies = new Set(leaked)
  const share = (which: readonly number[]) => (which.length === 0 ? null : which.filter(row => right.has(row)).length / which.length)
  return { accuracyAsGiven: share(test), accuracyWithout: share(test.filter(row => !copies.has(row))) }
}
