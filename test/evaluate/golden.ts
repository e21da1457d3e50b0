/** What scikit-learn, SciPy and statsmodels said (scripts/golden-evaluate.py). */
import { readFileSync } from 'node:fs'

export interface Golden {
  intervals: {
    wilson: [k: number, n: number, confidence: number, low: number, high: number][]
    mcnemar: [b: number, c: number, p: number][]
    normalQuantile: [p: number, z: number][]
  }
  metrics: {
    classes: number
    truth: number[]
    answer: number[]
    confusion: number[][]
    accuracy: number
    balancedAccuracy: number
    n: number[]
    precision: (number | null)[]
    recall: (number | null)[]
    f1: (number | null)[]
  }
  temperature: { classes: number; truth: number[]; logits: number[][]; temperature: number; loss: number }
  logisticRegression: {
    n: number
    features: number
    classes: number
    classWeights: 'balanced' | null
    x: number[]
    truth: number[]
    fits: { c: number; weight: number[][]; bias: number[]; probabilities: number[][] }[]
  }[]
}
export const golden = JSON.parse(readFileSync(new URL('../golden/evaluate.json', import.meta.url), 'utf8')) as Golden
