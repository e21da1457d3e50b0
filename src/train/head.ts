/** Stage A: logistic regression on the untouched network's features; also the baseline that fine-tuning has to beat. */
import type { PreparedPictures } from '../data/features.ts'
import { fitLogisticRegression, type LogisticRegression } from '../models/logistic-regression.ts'
import type { Split } from '../sdk/index.ts'
import { rowsOf } from './choices/evidence.ts'
import { shares } from './finetune.ts'

export interface Head extends Pick<LogisticRegression, 'weight' | 'bias' | 'probabilities' | 'validationAccuracy'> {
  /** What it is compared by: accuracy, or balanced accuracy where classes weigh alike. */
  validationScore: number
}

export async function fitHead(
  pictures: Pick<PreparedPictures, 'features' | 'width'>,
  split: Pick<Split, 'train' | 'validation'>,
  labelOf: (row: number) => number,
  classes: number,
  threads: number,
): Promise<Head> {
  const side = (rows: readonly number[]) => ({ features: rowsOf(pictures.features, pictures.width, rows), labels: rows.map(labelOf) })
  const [train, validation] = [side(split.train), side(split.validation)]
  const head = await fitLogisticRegression({ train, validation, width: pictures.width, classes, threads })
  return { ...head, validationScore: head.validationAccuracy }
}

/** The same head with every class as likely as the others: the logarithm of its share is taken out of each answer. */
export function withoutShares(
  head: Head,
  logShares: Float64Array,
  { features, labels }: { features: Float32Array; labels: readonly number[] },
): Head {
  const probabilities = (of: Float32Array) => {
    const out = head.probabilities(of)
    const classes = logShares.length
    for (let at = 0; at < out.length; at += classes) {
      let sum = 0
      for (let k = 0; k < classes; k++) sum += out[at + k]! *= Math.exp(-logShares[k]!)
      for (let k = 0; k < classes; k++) out[at + k]! /= sum
    }
    return out
  }
  const answers = probabilities(features)
  const share = shares(labels, true)
  let [correct, score] = [0, 0]
  for (const [i, label] of labels.entries()) {
    const row = answers.subarray(i * logShares.length, (i + 1) * logShares.length)
    const right = Number(row.indexOf(Math.max(...row)) === label)
    correct += right
    score += right * share(label)
  }
  return {
    weight: head.weight,
    bias: head.bias.map((bias, k) => bias - logShares[k]!),
    probabilities,
    validationAccuracy: correct / labels.length,
    validationScore: score,
  }
}
