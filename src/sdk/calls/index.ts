/** Every call of the contract. */
import { calls as accounts } from './accounts.ts'
import { calls as experiments } from './experiments.ts'
import { calls as jobs } from './jobs.ts'
import { calls as models } from './models.ts'
import { calls as runs } from './runs.ts'
import { calls as server } from './server.ts'

export const calls = { ...server, ...accounts, ...experiments, ...jobs, ...models, ...runs }
