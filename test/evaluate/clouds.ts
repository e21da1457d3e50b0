/** Features whose truth is known: a cloud for each class, and ways to spoil them. */
import { permutation, randomFrom } from '../../src/engine/random.ts'

export interface Clouds {
  features: Float32Array
  width: number
  labels: Int32Array
  /** [classes, width]: the middle of each cloud. */
  centres: Float32Array
}

/** `apart`: distance of the middles in standard deviations along the line between them. The noise is largest in a few directions, as in real features. */
export function clouds(n: number, width: number, classes: number, apart: number, seed: number): Clouds {
  const random = randomFrom(seed, 11)
  const gauss = () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random())
  const place = randomFrom(classes, width, 5)
  const even = () => Math.sqrt(-2 * Math.log(1 - place())) * Math.cos(2 * Math.PI * place())
  const centres = Float32Array.from({ length: classes * width }, () => (apart / Math.sqrt(2 * width)) * even())
  const labels = Int32Array.from({ length: n }, (_, i) => i % classes)
  const features = Float32Array.from(
    { length: n * width },
    (_, at) => centres[labels[Math.floor(at / width)]! * width + (at % width)]! + gauss() * (at % width < width / 4 ? 1 : 0.5),
  )
  return { features, width, labels, centres }
}

/** Another class for `count` rows, chosen by chance. */
export function flipped(labels: Int32Array, classes: number, count: number, seed: number): { labels: Int32Array; rows: number[] } {
  const random = randomFrom(seed, 12)
  const spoilt = labels.slice()
  const rows = permutation(labels.length, random).slice(0, count)
  for (const row of rows) spoilt[row] = (labels[row]! + 1 + Math.floor(random() * (classes - 1))) % classes
  return { labels: spoilt, rows }
}
