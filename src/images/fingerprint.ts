/**
 * What stays of a picture when it is re-encoded, resized, brightened or written on: a small grey copy to compare pixel by pixel, and a hash of
 * 256 bits to find it by. Like PDQ (Facebook, “The TMK+PDQF video-hashing algorithm and the PDQ image-hashing algorithm”, 2019): 64×64 grey,
 * the 16×16 lowest frequencies of its cosine transform without the average, one bit each. Unlike PDQ a bit is the *sign* of its coefficient,
 * not “above the median”: then the hash of a mirrored or turned picture is a rearrangement of the bits, and nothing but the hash is needed for it.
 */

/** Side of the grey copy. */
export const greySide = 64
const frequencies = 16
export const hashBytes = (frequencies * frequencies) / 8

/** Quality from which a hash or a grey copy says anything about the picture: below it copies and strangers were not told apart (docs/inside/copies.md). */
export const leastQuality = 20

/** Side of the grid of colours. */
export const colourSide = 8

export interface Fingerprint {
  /** 32 bytes; bit 16·v + u (lowest bit of a byte first) is the sign of frequency (u + 1, v + 1), u to the right, v down. */
  hash: Uint8Array
  /** 0 … 100: how much there is to recognise it by. Below `leastQuality` the picture is too flat or too small to judge. */
  quality: number
  /** [64, 64] uint8: the picture's luminance, squeezed to a square. */
  grey: Uint8Array
  /** [8, 8, 2] uint8 as 256 hex digits: the colour of each part of the picture (Cb and Cr of JPEG, 128 is none). */
  colour: string
}

type Pixels = { width: number; height: number; data: Uint8Array }

/** `picture.data`: [height, width, 3] uint8, RGB. Under a millisecond at 640×480. */
export function fingerprint(picture: Pixels): Fingerprint {
  const grey = rounded(shrink(picture))
  return { hash: hashOf(transform(grey)), quality: qualityOf(grey, picture), grey, colour: coloursOf(picture) }
}

/** Bits in which two hashes differ: 0 … 256, about 128 for pictures that have nothing to do with each other. */
export function hashDistance(a: Uint8Array, b: Uint8Array): number {
  let distance = 0
  for (let byte = 0; byte < hashBytes; byte++) distance += bitsSet[a[byte]! ^ b[byte]!]!
  return distance
}
const bitsSet = Uint8Array.from({ length: 256 }, (_, byte) => byte.toString(2).replaceAll('0', '').length)

// ── the grey copy ───────────────────────────────────────────────────────────────────────────────────────────────────────────

/**
 * Luminance (BT.601, as JPEG has it), the mean over each cell of a 64×64 grid; cells cut pixels where they must. Of large pictures a regular choice
 * of pixels is looked at, eight to sixteen in each direction of a cell, so that a photo of 12 megapixels costs no more than one of one.
 */
function shrink({ width, height, data }: Pixels): Float32Array {
  const across = stepOf(width)
  const down = stepOf(height)
  const columnsSeen = Math.floor(width / across)
  const rowsSeen = Math.floor(height / down)
  const grid = new Float32Array(greySide * greySide)
  const row = new Float64Array(columnsSeen + 1) // sums from the left
  const cells = new Float32Array(greySide)
  const [columns, shares] = borders(columnsSeen)
  const heightOfCell = rowsSeen / greySide
  for (let y = 0; y < rowsSeen; y++) {
    let at = 3 * ((y * down + (down >> 1)) * width + (across >> 1))
    for (let x = 0, sum = 0; x < columnsSeen; x++, at += 3 * across) {
      sum += 0.299 * data[at]! + 0.587 * data[at + 1]! + 0.114 * data[at + 2]!
      row[x + 1] = sum
    }
    for (let cell = 0, before = 0; cell < greySide; cell++) {
      const column = columns[cell + 1]!
      const share = shares[cell + 1]!
      const until = share > 0 ? row[column]! + share * (row[column + 1]! - row[column]!) : row[column]!
      cells[cell] = until - before
      before = until
    }
    // the rows of cells that this row of pixels reaches into
    for (let cell = Math.floor(y / heightOfCell); cell < greySide && cell * heightOfCell < y + 1; cell++) {
      const part = Math.min(y + 1, (cell + 1) * heightOfCell) - Math.max(y, cell * heightOfCell)
      if (part <= 0) continue
      for (let x = 0; x < greySide; x++) grid[cell * greySide + x]! += part * cells[x]!
    }
  }
  const scale = (greySide * greySide) / (columnsSeen * rowsSeen)
  for (let index = 0; index < grid.length; index++) grid[index]! *= scale
  return grid
}

/** From one pixel that is looked at to the next: 1 below 1,024 pixels a side. */
const stepOf = (length: number) => Math.max(1, Math.floor(length / (8 * greySide)))

function rounded(values: Float32Array): Uint8Array {
  const bytes = new Uint8Array(values.length)
  for (let index = 0; index < values.length; index++) bytes[index] = Math.round(values[index]!)
  return bytes
}

/** Where the cells begin: whole pixels, and the share of the next one. */
function borders(width: number): [Int32Array, Float32Array] {
  const columns = new Int32Array(greySide + 1)
  const shares = new Float32Array(greySide + 1)
  for (let cell = 0; cell <= greySide; cell++) {
    const at = (cell * width) / greySide
    columns[cell] = Math.floor(at)
    shares[cell] = at - Math.floor(at)
  }
  return [columns, shares]
}

/**
 * What there is to compare: the deviation of the grey copy from its own surroundings of 7×7, 20 of 255 tones and more being full marks; and no more
 * than a picture of so few pixels can show.
 */
function qualityOf(grey: Uint8Array, { width, height }: Pixels): number {
  const reach = 3
  const size = 2 * reach + 1
  const columns = new Float64Array(greySide) // sums of seven rows
  let squares = 0
  for (let y = 0; y < greySide; y++) {
    for (let x = 0; x < greySide; x++) {
      columns[x]! += grey[y * greySide + x]!
      if (y >= size) columns[x]! -= grey[(y - size) * greySide + x]!
    }
    if (y < size - 1) continue
    for (let x = reach, sum = 0; x < greySide - reach; x++) {
      if (x === reach) for (let k = 0; k < size; k++) sum += columns[k]!
      else sum += columns[x + reach]! - columns[x - reach - 1]!
      squares += (grey[(y - reach) * greySide + x]! - sum / (size * size)) ** 2
    }
  }
  const inner = greySide - 2 * reach
  const bySize = (100 * Math.min(width, height)) / greySide
  return Math.floor(Math.min(100, 5 * Math.sqrt(squares / (inner * inner)), bySize))
}

/** The mean of up to 8×8 pixels of each part. */
function coloursOf({ width, height, data }: Pixels): string {
  const result = new Uint8Array(colourSide * colourSide * 2)
  const places = (length: number, cell: number) => {
    const [from, to] = [(cell * length) / colourSide, ((cell + 1) * length) / colourSide]
    const count = Math.max(1, Math.min(8, Math.floor(to - from)))
    return Array.from({ length: count }, (_, index) => Math.min(length - 1, Math.floor(from + ((index + 0.5) * (to - from)) / count)))
  }
  for (let row = 0; row < colourSide; row++) {
    const lines = places(height, row)
    for (let column = 0; column < colourSide; column++) {
      const across = places(width, column)
      let [red, green, blue] = [0, 0, 0]
      for (const y of lines) {
        for (const x of across) {
          const at = 3 * (y * width + x)
          red += data[at]!
          green += data[at + 1]!
          blue += data[at + 2]!
        }
      }
      const n = lines.length * across.length
      const at = 2 * (row * colourSide + column)
      result[at] = Math.min(255, Math.round(128 + (-0.168736 * red - 0.331264 * green + 0.5 * blue) / n))
      result[at + 1] = Math.min(255, Math.round(128 + (0.5 * red - 0.418688 * green - 0.081312 * blue) / n))
    }
  }
  return Buffer.from(result).toString('hex')
}

// ── the hash ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** cosines[k, x] of the frequencies 1 … 16 over 64 samples (DCT-II). */
const cosines = Float32Array.from({ length: frequencies * greySide }, (_, index) => {
  const [k, x] = [Math.floor(index / greySide) + 1, index % greySide]
  return Math.cos((Math.PI * k * (2 * x + 1)) / (2 * greySide))
})

/** The [16, 16] lowest frequencies of a grey copy, rows downwards. */
function transform(grey: Uint8Array): Float32Array {
  const half = new Float32Array(greySide * frequencies) // [y, u]
  for (let y = 0; y < greySide; y++) {
    for (let u = 0; u < frequencies; u++) {
      let sum = 0
      for (let x = 0; x < greySide; x++) sum += cosines[u * greySide + x]! * grey[y * greySide + x]!
      half[y * frequencies + u] = sum
    }
  }
  const result = new Float32Array(frequencies * frequencies)
  for (let v = 0; v < frequencies; v++) {
    for (let y = 0; y < greySide; y++) {
      const cosine = cosines[v * greySide + y]!
      for (let u = 0; u < frequencies; u++) result[v * frequencies + u]! += cosine * half[y * frequencies + u]!
    }
  }
  return result
}

function hashOf(coefficients: Float32Array): Uint8Array {
  const hash = new Uint8Array(hashBytes)
  for (const [bit, value] of coefficients.entries()) if (value > 0) hash[bit >> 3]! |= 1 << (bit & 7)
  return hash
}
