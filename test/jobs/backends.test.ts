/** Both engines pass the suite for all of them. */
import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createFakeEngine, fakeNode } from '../../src/jobs/backends/fake.ts'
import { createLocalBackend } from '../../src/jobs/backends/local/backend.ts'
import { backendContract } from './backend-contract.ts'

backendContract('fake', async t => {
  const engine = createFakeEngine()
  const backend = engine.backend()
  t.after(() => backend.close())
  return {
    ...{ backend, again: () => engine.backend(), node: 'fake-1' },
    words: {
      say: text => `say ${text}`,
      sleep: seconds => `sleep ${seconds}`,
      exit: code => `exit ${code}`,
      output: (path, text) => `output ${path} ${text}`,
      secret: name => `secret ${name}`,
      ignoreTerm: 'ignore-term',
    },
  }
})

const home = mkdtempSync(join(tmpdir(), 'contract-'))
backendContract('local', async t => {
  const make = () => createLocalBackend({ home, inventory: async () => [fakeNode('here')] })
  const backend = make()
  t.after(async () => {
    for (const { job, attempt } of await backend.known()) await backend.stop(job, attempt, { grace: 0, reason: 'cancelled' })
    await backend.close()
  })
  return {
    ...{ backend, again: make, node: 'here' },
    words: {
      say: text => `echo ${text}`,
      sleep: seconds => `sleep ${seconds}`,
      exit: code => `exit ${code}`,
      output: (path, text) => `mkdir -p "$(dirname "$PLINTH_OUTPUT_DIR/${path}")" && echo ${text} > "$PLINTH_OUTPUT_DIR/${path}"`,
      secret: name => `echo "$${name}"`,
      ignoreTerm: "trap '' TERM",
    },
  }
})
