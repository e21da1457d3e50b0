/** Honest numbers: what other folders call. */
export { type Calibration, calibrate, fitTemperature, negativeLogLikelihood } from './calibration.ts'
export type { EpochRecord } from './charts.ts'
export { type PairedDifference, pairedDifference, wilson } from './intervals.ts'
export type { Rows } from './metrics.ts'
export { type ReportInput, renderReport, reportJson } from './report.ts'
export { type ScoreInput, score } from './score.ts'
export { renderText, type TextOptions } from './text.ts'
export { percent, verdicts } from './verdicts.ts'
