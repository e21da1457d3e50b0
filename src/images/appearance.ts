/**
 * How a picture looks, in a few numbers that a person would name too: how light, how colourful, how sharp. Taken from a thumbnail of at most
 * 128 pixels, so that size and format do not matter, and at a cost that does not grow with the picture (about half a millisecond).
 */

/** All from 0 to 1 unless said otherwise. */
export interface Appearance {
  /** Mean lightness (luma of the sRGB values as they are: 0.5 is what looks mid grey). */
  brightness: number
  /** Standard deviation of the lightness. */
  contrast: number
  /** The lightness that 5 % and 95 % of the picture stay below: 'high' near 0 means that even its lightest parts are dark. */
  low: number
  high: number
  /** Mean of the largest minus the smallest channel: 0 for grey pictures. */
  saturation: number
  /** Share of the most frequent colour, in steps of 1/16 a channel: near 1 for an empty picture. */
  dominant: number
  /**
   * How much of the rise of a strong edge happens within one pixel of the thumbnail: about 1 for drawings, 0.4 and more for photos in focus,
   * under 0.25 where nothing is sharp. Says something only where `edges` is not small.
   */
  sharpness: number
  /** Mean rise of the strongest edges, in lightness. */
  edges: number
  /** Mean and standard deviation of the lightness along the outer rim: the background, mostly. */
  rim: number
  rimContrast: number
}

const longest = 128 // pixels of the thumbnail
const span = 3 // pixels to each side of an edge
const strongest = 0.02 // share of all places that count as strong edges
const faint = 4 // a rise of so few of 255 tones is no edge

/** `data`: RGB, [height, width, 3], 8 bits. */
export function appearance({ width, height, data }: { width: number; height: number; data: Uint8Array }): Appearance {
  const thumbnail = shrink(width, height, data)
  const { light } = thumbnail
  const n = light.length
  const tones = new Uint32Array(256)
  let sum = 0
  let squares = 0
  for (let i = 0; i < n; i++) {
    const value = light[i]!
    sum += value
    squares += value * value
    tones[Math.round(value)]!++
  }
  const mean = sum / n
  return {
    brightness: rounded(mean / 255),
    contrast: rounded(Math.sqrt(Math.max(0, squares / n - mean * mean)) / 255),
    low: rounded(percentile(tones, n, 0.05) / 255),
    high: rounded(percentile(tones, n, 0.95) / 255),
    saturation: rounded(thumbnail.saturation / 255),
    dominant: rounded(thumbnail.dominant),
    ...sharpnessOf(thumbnail),
    ...rimOf(thumbnail),
  }
}

const rounded = (value: number) => Math.round(value * 1e4) / 1e4

interface Thumbnail {
  width: number
  height: number
  /** Luma, 0 … 255. */
  light: Float32Array
  saturation: number
  dominant: number
}

/** Means over at most 2 × 2 pixels of each box: all of them up to 256 pixels a side, a regular choice of them above. */
function shrink(width: number, height: number, data: Uint8Array): Thumbnail {
  const scale = Math.min(1, longest / Math.max(width, height))
  const columns = Math.max(1, Math.round(width * scale))
  const rows = Math.max(1, Math.round(height * scale))
  const lefts = places(width, columns, 0.25, 3)
  const rights = places(width, columns, 0.75, 3)
  const uppers = places(height, rows, 0.25, 3 * width)
  const lowers = places(height, rows, 0.75, 3 * width)
  const light = new Float32Array(columns * rows)
  const colours = new Uint32Array(4096)
  let saturation = 0
  let at = 0
  for (let row = 0; row < rows; row++) {
    const upper = uppers[row]!
    const lower = lowers[row]!
    for (let column = 0; column < columns; column++) {
      const left = lefts[column]!
      const right = rights[column]!
      const a = upper + left
      const b = upper + right
      const c = lower + left
      const d = lower + right
      const red = data[a]! + data[b]! + data[c]! + data[d]! // four times too much, like the others
      const green = data[a + 1]! + data[b + 1]! + data[c + 1]! + data[d + 1]!
      const blue = data[a + 2]! + data[b + 2]! + data[c + 2]! + data[d + 2]!
      light[at++] = 0.07475 * red + 0.14675 * green + 0.0285 * blue
      saturation += Math.max(red, green, blue) - Math.min(red, green, blue)
      colours[((red >> 6) << 8) | ((green >> 6) << 4) | (blue >> 6)]!++
    }
  }
  let most = 0
  for (const count of colours) if (count > most) most = count
  return { width: columns, height: rows, light, saturation: saturation / 4 / at, dominant: most / at }
}

/** Of each of `parts` equal parts of a line the pixel at `share` of its length, as an offset into the data. */
function places(length: number, parts: number, share: number, stride: number): Int32Array {
  return Int32Array.from({ length: parts }, (_, i) => stride * Math.floor(((i + share) * length) / parts))
}

function percentile(tones: Uint32Array, n: number, share: number): number {
  let below = 0
  for (let tone = 0; tone < 256; tone++) {
    below += tones[tone]!
    if (below >= share * n) return tone
  }
  return 255
}

/**
 * Blur is told by the width of edges, not by the amount of detail: a wall in focus has little of it, and a drawing of two colours has nothing
 * but edges. At the places where the lightness changes most over seven pixels, how much of the change comes in its largest single step?
 */
function sharpnessOf({ width, height, light }: Thumbnail): { sharpness: number; edges: number } {
  const across = risesAlong(light, 1, span, width - span, 0, height, width)
  const down = risesAlong(light, width, 0, width, span, height - span, width)
  const rises = new Uint32Array(256)
  for (let at = 0; at < light.length; at++) {
    rises[across[at]!]!++
    rises[down[at]!]!++
  }
  let floor = 255
  for (let count = rises[255]!; floor > faint && count < strongest * 2 * light.length; ) count += rises[--floor]!

  let [count, shares, total] = [0, 0, 0]
  for (const [found, step] of [
    [across, 1],
    [down, width],
  ] as const) {
    for (let at = 0; at < light.length; at++) {
      const rise = found[at]!
      if (rise < floor) continue
      let largest = 0
      for (let k = -span; k < span; k++) {
        const difference = Math.abs(light[at + (k + 1) * step]! - light[at + k * step]!)
        if (difference > largest) largest = difference
      }
      count++
      shares += Math.min(1, largest / rise)
      total += rise
    }
  }
  if (count === 0) return { sharpness: 0, edges: 0 }
  return { sharpness: rounded(shares / count), edges: rounded(total / count / 255) }
}

/** For every place within the bounds how far the lightness moves from `span` pixels before it to `span` behind it, in whole tones; 0 elsewhere. */
function risesAlong(
  light: Float32Array,
  step: number,
  left: number,
  right: number,
  top: number,
  bottom: number,
  width: number,
): Uint8Array {
  const rises = new Uint8Array(light.length)
  const reach = span * step
  for (let y = top; y < bottom; y++)
    for (let at = y * width + left, end = y * width + right; at < end; at++)
      rises[at] = Math.abs(light[at + reach]! - light[at - reach]!) + 0.5 // cut to whole numbers
  return rises
}

function rimOf({ width, height, light }: Thumbnail): { rim: number; rimContrast: number } {
  const depth = Math.max(1, Math.round(Math.min(width, height) / 20))
  let [count, sum, squares] = [0, 0, 0]
  for (let y = 0; y < height; y++) {
    const inner = y >= depth && y < height - depth
    for (let x = 0; x < width; x++) {
      if (inner && x === depth && width > 2 * depth) x = width - depth
      const value = light[y * width + x]!
      count++
      sum += value
      squares += value * value
    }
  }
  const mean = sum / count
  return { rim: rounded(mean / 255), rimContrast: rounded(Math.sqrt(Math.max(0, squares / count - mean * mean)) / 255) }
}
