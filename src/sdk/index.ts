/** `plinth/sdk`: the contract and its typed client. It imports nothing of the server and runs in a browser. */
export { Failure, type FailureCode, failures } from '../failure.ts'
export { calls } from './calls/index.ts'
export { type Client, type ClientOptions, createClient } from './client.ts'
export { formatForecast, formatSeconds } from './duration.ts'
export { nearest } from './nearest.ts'
export type { RecipeEvent, RunReporter } from './reporter.ts'
export * from './shapes.ts'
