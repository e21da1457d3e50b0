/**
 * Pictures that look unlike what a camera should give: tiny, empty, blurred, dark, of an odd shape. What is true of the whole set is its nature
 * (drawings, night pictures, 28-pixel clothes) and is said once; listed are only pictures that fall out of their set.
 */
import type { ManifestRow } from '../../sdk/shapes.ts'
import type { PictureFacts } from '../facts.ts'

export interface Quality {
  tiny: string[]
  uniform: string[]
  blurred: string[]
  dark: string[]
  oddShaped: string[]
  /** What holds for the set as a whole, in sentences. */
  notes: string[]
}

/** Where a threshold is an opinion, it stands here with its reason; docs/check.md tells users the same. */
export const limits = {
  /** Pixels of the shorter side: networks see 96 to 224, and what was smaller than this is mostly made up by the enlargement. */
  tiny: 64,
  /** Standard deviation of the lightness, of 1: nothing but sensor noise varies so little. */
  uniform: 0.012,
  /** 27 photographs and scans in focus have 0.33 to 0.80, and 0.20 to 0.32 blurred over 1.6 % of their width (scripts/measure-sharpness.ts). */
  sharpness: 0.3,
  /** Without an edge that rises this much, sharpness means nothing. */
  edges: 0.08,
  /** 95 % of the picture are darker than this. */
  dark: 0.16,
  /** Longer side divided by the shorter: a square crop of the middle sees a third of it at most. */
  shape: 3,
  /** A shape that more than this share of the set has is no outlier. */
  usual: 0.05,
  /** What is dark or soft in more than this share of the set is so by nature: a class of night pictures, a soft camera. */
  nature: 0.25,
} as const

/** `facts[i]` belongs to `rows[i]`. */
export function judgeQuality(rows: readonly ManifestRow[], facts: readonly PictureFacts[]): Quality {
  const looks = facts.map(each => each.appearance)
  const sides = rows.map(row => Math.min(row.width, row.height))
  const typical = {
    side: median(sides),
    sharpness: median(looks.filter(sharpnessCounts).map(look => look.sharpness)),
    high: median(looks.map(look => look.high)),
  }
  const pathsWhere = (holds: (index: number) => boolean) => rows.flatMap((row, index) => (holds(index) ? [row.path] : []))
  const notes: string[] = []
  const n = rows.length
  const nature = (paths: readonly string[]) => paths.length > limits.nature * n

  const uniform = pathsWhere(i => looks[i]!.contrast < limits.uniform)
  const empty = new Set(uniform)
  const tiny = pathsWhere(i => sides[i]! < limits.tiny && sides[i]! < typical.side / 2)
  if (n > 0 && typical.side < limits.tiny)
    notes.push(
      `Half of the pictures or more are small: ${typical.side} pixels on their shorter side, or less. Fine details are not there to be learned; if larger originals exist, use them.`,
    )

  const soft = (i: number) => sides[i]! >= 48 && sharpnessCounts(looks[i]!) && looks[i]!.sharpness < limits.sharpness
  const allSoft = pathsWhere(soft)
  const blurred = nature(allSoft) ? [] : pathsWhere(i => soft(i) && looks[i]!.sharpness < 0.65 * typical.sharpness)
  if (nature(allSoft))
    notes.push(
      `${allSoft.length} of ${n} pictures have no sharp edge. If the camera can do better, refocus it; otherwise new pictures must be as soft as these.`,
    )

  const night = (i: number) => looks[i]!.high < limits.dark && !empty.has(rows[i]!.path)
  const allDark = pathsWhere(night)
  const dark = nature(allDark) ? [] : pathsWhere(i => night(i) && looks[i]!.high < typical.high / 2)
  if (nature(allDark)) notes.push(`${allDark.length} of ${n} pictures are very dark. If they were not taken at night, use more light.`)

  const long = (i: number) => Math.max(rows[i]!.width, rows[i]!.height) / sides[i]! >= limits.shape
  const allLong = pathsWhere(long)
  const oddShaped = allLong.length <= limits.usual * n || allLong.length <= 3 ? allLong : []
  if (oddShaped.length < allLong.length)
    notes.push(
      `${allLong.length} of ${n} pictures are at least ${limits.shape} times as long as wide. A square crop of the middle cuts most of them off; training compares cropping with squashing and letterboxing.`,
    )
  return { tiny, uniform, blurred, dark, oddShaped, notes }
}

const sharpnessCounts = (look: { edges: number }) => look.edges >= limits.edges

/** The middle one of the values, the lower where there are two; 0 of none. */
export function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor((values.length - 1) / 2)] ?? 0
}
