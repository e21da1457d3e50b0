/** Where in a picture an answer comes from, as a picture: warm where it spoke for the answer, cold where it spoke against. */
import { encodePng } from '../images/encode.ts'
import type { Classifier, PictureLike } from '../models/artefact.ts'
import { placesFor } from '../models/explanation.ts'

/** The colours of the endpoint's page (serve/page.html). */
const warm = [226, 88, 24]
const cold = [38, 96, 190]
/** The strongest place keeps this much of the picture, so that one sees what it is. */
const through = 0.3

/**
 * A PNG as a data URL, of the square that the network saw, in grey under the colours; null for a file without maps. What a place adds to the
 * answer is taken beside what it adds to all classes on average: only such differences move a probability.
 */
export async function activationPicture(classifier: Classifier, picture: PictureLike): Promise<string | null> {
  const planes = await classifier.prepare(picture)
  const { probabilities, activation } = await classifier.explainPrepared(planes)
  if (!activation) return null
  const { rows, columns } = activation
  const places = placesFor(activation, probabilities.indexOf(Math.max(...probabilities)))
  const most = places.reduce((largest, value) => Math.max(largest, Math.abs(value)), 1e-9)
  const side = classifier.metadata.imageSize
  const size = side * side
  const data = new Uint8Array(3 * size)
  for (let y = 0, at = 0; y < side; y++)
    for (let x = 0; x < side; x++, at++) {
      const share = between(places, rows, columns, ((y + 0.5) / side) * rows - 0.5, ((x + 0.5) / side) * columns - 0.5) / most
      const grey = 0.299 * planes[at]! + 0.587 * planes[size + at]! + 0.114 * planes[2 * size + at]! // Rec. 601
      const weight = (1 - through) * Math.abs(share)
      for (const [channel, colour] of (share > 0 ? warm : cold).entries())
        data[3 * at + channel] = Math.round(grey * (1 - weight) + colour * weight)
    }
  return `data:image/png;base64,${Buffer.from(await encodePng({ width: side, height: side, data })).toString('base64')}`
}

/** Value of a map between its places, bilinear; beyond the outermost it stays the same. */
function between(map: Float64Array, rows: number, columns: number, row: number, column: number): number {
  const [r, c] = [Math.min(Math.max(row, 0), rows - 1), Math.min(Math.max(column, 0), columns - 1)]
  const [top, left] = [Math.floor(r), Math.floor(c)]
  const [bottom, right] = [Math.min(top + 1, rows - 1), Math.min(left + 1, columns - 1)]
  const [down, across] = [r - top, c - left]
  const upper = map[top * columns + left]! * (1 - across) + map[top * columns + right]! * across
  const lower = map[bottom * columns + left]! * (1 - across) + map[bottom * columns + right]! * across
  return upper * (1 - down) + lower * down
}
