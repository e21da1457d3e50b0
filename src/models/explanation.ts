/** From the numbers behind an answer to what a person can look at: how far the picture is in words, and which places of it speak for a label. */
import type { ArtefactMetadata, Explanation } from '../sdk/index.ts'
import type { ActivationMap, Explained } from './artefact.ts'

/** Larger maps are not handed out: no network of the catalogue makes one, and a page could not show it. */
const mostPlaces = 128 * 128

/** @param labels for how many of the most probable labels */
export function explanation(
  metadata: Pick<ArtefactMetadata, 'labels' | 'unknown' | 'fit'>,
  { probabilities, distance, activation }: Explained,
  labels = 3,
): Explanation {
  const ranked = [...metadata.labels.keys()].sort((a, b) => probabilities[b]! - probabilities[a]!).slice(0, labels)
  return {
    distance: metadata.unknown && distance !== null ? inWords(distance, metadata.unknown) : null,
    why:
      activation && activation.rows * activation.columns <= mostPlaces
        ? {
            fit: metadata.fit ?? 'crop',
            rows: activation.rows,
            columns: activation.columns,
            labels: ranked.map(k => {
              const places = placesFor(activation, k)
              return {
                label: metadata.labels[k]!,
                score: rounded(places.reduce((sum, value) => sum + value, 0)),
                places: Array.from(places, rounded),
              }
            }),
          }
        : null,
  }
}

/**
 * What each place says for class `k` *rather than the others*: its part of the class's score minus the mean of its parts of all scores. What
 * speaks for all classes alike decides nothing, because the softmax does not see it. The places add up to the score above the mean of all.
 */
export function placesFor({ rows, columns, values }: ActivationMap, k: number): Float64Array {
  return Float64Array.from({ length: rows * columns }, (_, at) => {
    let sum = 0
    for (const own of values) sum += own[at]!
    return values[k]![at]! - sum / values.length
  })
}

const rounded = (value: number) => Number(value.toPrecision(5))

function inWords(value: number, { threshold, falseAlarmRate, ladder }: NonNullable<ArtefactMetadata['unknown']>): Explanation['distance'] {
  const fartherThan = Math.max(
    0,
    ladder.findLastIndex(step => step < value),
  )
  return {
    value: rounded(value),
    threshold,
    falseAlarmRate,
    fartherThan: fartherThan / 100,
    sentence:
      value <= threshold
        ? `It looks like what the model has learned: ${100 - fartherThan} % of the pictures it knows lie farther away.`
        : `This does not look like anything the model has learned: it is farther away than ${fartherThan === 100 ? 'all' : `${fartherThan} %`} of the pictures it knows.`,
  }
}
