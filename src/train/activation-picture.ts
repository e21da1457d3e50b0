/** Where in a picture an answer comes from, as a picture: bright where it spoke for the answer, dark where it did not. */
import { encodePng } from '../images/encode.ts'
import type { Classifier, PictureLike } from '../models/artefact.ts'

/** Added where the map is bright, so that a black picture shows it too. */
const warm = [150, 90, 20]

/**
 * A PNG as a data URL, of the square that the network saw; null for a file without maps. What a place adds to the answer is taken beside what it
 * adds to all classes on average: only such differences move a probability.
 */
export async function activationPicture(classifier: Classifier, picture: PictureLike): Promise<string | null> {
  const planes = await classifier.prepare(picture)
  const { probabilities, activation } = await classifier.explainPrepared(planes)
  if (!activation) return null
  const { rows, columns, values } = activation
  const answer = probabilities.indexOf(Math.max(...probabilities))
  const spoke = values[answer]!.map((own, at) => Math.max(0, own - values.reduce((sum, each) => sum + each[at]!, 0) / values.length))
  const most = Math.max(...spoke, 1e-9)
  const side = classifier.metadata.imageSize
  const data = new Uint8Array(3 * side * side)
  for (let y = 0, at = 0; y < side; y++)
    for (let x = 0; x < side; x++) {
      const share = between(spoke, rows, columns, ((y + 0.5) / side) * rows - 0.5, ((x + 0.5) / side) * columns - 0.5) / most
      for (const [channel, glow] of warm.entries()) {
        const own = planes[channel * side * side + y * side + x]!
        data[at++] = own * (0.3 + 0.7 * share) + glow * share * (1 - own / 255)
      }
    }
  return `data:image/png;base64,${Buffer.from(await encodePng({ width: side, height: side, data })).toString('base64')}`
}

/** Value of a map between its places, bilinear; beyond the outermost it stays the same. */
function between(map: Float32Array, rows: number, columns: number, row: number, column: number): number {
  const [r, c] = [Math.min(Math.max(row, 0), rows - 1), Math.min(Math.max(column, 0), columns - 1)]
  const [top, left] = [Math.floor(r), Math.floor(c)]
  const [bottom, right] = [Math.min(top + 1, rows - 1), Math.min(left + 1, columns - 1)]
  const [down, across] = [r - top, c - left]
  const upper = map[top * columns + left]! * (1 - across) + map[top * columns + right]! * across
  const lower = map[bottom * columns + left]! * (1 - across) + map[bottom * columns + right]! * across
  return upper * (1 - down) + lower * down
}
