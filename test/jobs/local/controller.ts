/**
 * For kill.test.ts: what a server does with the local engine, as a process that can be killed. `node controller.ts HOME JOBS`: JOBS is a list
 * of attempts (JSON); starts each and looks at all of them until they have ended. One JSON object a line: what is seen anew of a job.
 */
import type { Attempt } from '../../../src/jobs/attempt.ts'
import { createLocalBackend } from '../../../src/jobs/backends/local/backend.ts'

const [home, text] = process.argv.slice(2) as [string, string]
const attempts: Attempt[] = JSON.parse(text)
const backend = createLocalBackend({ home, inventory: async () => [] })
const seen = new Map<number, string>()
await Promise.all(attempts.map(attempt => backend.start(attempt, {})))
const open = new Set(attempts.map(({ job }) => job))
while (open.size > 0) {
  for (const job of open) {
    const observed = await backend.observe(job, 1)
    const { status } = observed
    const line = JSON.stringify({ job, ...observed })
    if (seen.get(job) !== line) console.log(line)
    seen.set(job, line)
    if (status === 'ended' || status === 'lost') open.delete(job)
  }
  await new Promise(done => setTimeout(done, 20))
}
