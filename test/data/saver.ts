/** For versions.test.ts: saves version after version until it is killed, and prints each that was acknowledged. */
import { join } from 'node:path'
import { saveDataset } from '../../src/data/versions.ts'
import { openDatabase } from '../../src/db/open.ts'

const [path, seed] = process.argv.slice(2) as [string, string]
const db = await openDatabase(join(path, 'plinth.db'))
const row = (name: string) => ({
  path: `cat/${name}.png`,
  content: name,
  pixels: name,
  labels: ['cat'],
  group: null,
  side: null,
  width: 4,
  height: 4,
  flags: [],
})
const empty = { schema: 1 as const, classes: ['cat'], unreadable: [], ignored: [], exactDuplicates: [], conflicts: [] }
for (let number = 0; ; number++) {
  const rows = Array.from({ length: 300 }, (_, index) => row(`${seed} ${number} ${index}`))
  const saved = await saveDataset({ path, db }, 'birds', { ...empty, rows })
  process.stdout.write(`${saved.version} ${saved.digest}\n`)
}
