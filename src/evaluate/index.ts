/** Honest numbers: what other folders call. */
export { type Calibration, calibrate, fitTemperature, negativeLogLikelihood, softmax } from './calibration.ts'
export { type PairedDifference, pairedDifference, wilson } from './intervals.ts'
export type { Rows } from './metrics.ts'
export { type ScoreInput, score } from './score.ts'
export { verdicts } from './verdicts.ts'
