/** Augmentation of model-size pictures: one bilinear pass for flip, shift and zoom, one table for brightness and contrast. */
import type { Random } from '../engine/random.ts'

export interface Augmentation {
  /** Mirror left and right with probability one half. Off where direction carries meaning (arrows, text). */
  flip: boolean
  /** Largest shift, as a share of the side. */
  shift: number
  /** Zoom drawn between 1 − zoom and 1 + zoom. */
  zoom: number
  /** Largest relative change of brightness and of contrast. */
  light: number
}

/** What is done to one picture. */
export interface Alteration {
  flip: boolean
  /** Shares of the side. */
  dx: number
  dy: number
  zoom: number
  /** Share of half the range, −1 to 1. */
  brightness: number
  contrast: number
}

/**
 * Writes an altered copy of `picture` to `target` at `offset`, as `alter` does, drawn within the limits of `how`.
 * Draws six numbers from `random`, whatever the settings, so that settings do not move the draws of later pictures.
 */
export function augment(picture: Uint8Array, side: number, target: Uint8Array, offset: number, random: Random, how: Augmentation): void {
  const between = (limit: number) => (random() * 2 - 1) * limit
  const flip = random() < 0.5 && how.flip
  const [dx, dy] = [between(how.shift), between(how.shift)]
  const zoom = 1 + between(how.zoom)
  const brightness = between(how.light)
  const contrast = 1 + between(how.light)
  alter(picture, side, target, offset, { flip, dx, dy, zoom, brightness, contrast })
}

/** `picture`: uint8, planar [3, side, side]. Outside pixels repeat the edge. */
export function alter(picture: Uint8Array, side: number, target: Uint8Array, offset: number, how: Alteration): void {
  const columns = sampling(side, how.zoom, how.dx * side, how.flip)
  const rows = sampling(side, how.zoom, how.dy * side, false)
  const light = new Uint8ClampedArray(256)
  for (let v = 0; v < 256; v++) light[v] = (v - 128) * how.contrast + 128 + how.brightness * 128

  const { low: left, high: right, share: across } = columns
  for (let channel = 0; channel < 3; channel++) {
    const plane = channel * side * side
    for (let y = 0; y < side; y++) {
      const top = plane + rows.low[y]! * side
      const bottom = plane + rows.high[y]! * side
      const down = rows.share[y]!
      const out = offset + plane + y * side
      for (let x = 0; x < side; x++) {
        const l = left[x]!
        const r = right[x]!
        const t = across[x]!
        const upper = picture[top + l]! + (picture[top + r]! - picture[top + l]!) * t
        const lower = picture[bottom + l]! + (picture[bottom + r]! - picture[bottom + l]!) * t
        target[out + x] = light[(upper + (lower - upper) * down + 0.5) | 0]!
      }
    }
  }
}

/** For each output position the two source positions and the share of the second. */
function sampling(side: number, zoom: number, shift: number, flip: boolean) {
  const low = new Int32Array(side)
  const high = new Int32Array(side)
  const share = new Float32Array(side)
  const centre = (side - 1) / 2
  for (let i = 0; i < side; i++) {
    const at = Math.min(Math.max((i - centre) / zoom + centre + shift, 0), side - 1)
    const to = flip ? side - 1 - i : i
    low[to] = Math.floor(at)
    high[to] = Math.min(low[to]! + 1, side - 1)
    share[to] = at - low[to]!
  }
  return { low, high, share }
}
