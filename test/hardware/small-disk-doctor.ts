/** For doctor.test.ts, on a small disk: how it is judged. */
import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { disk } from '../../src/hardware/doctor.ts'

const point = process.argv[2]!
const judge = async () => (await disk('home', point, 'Set X.')).status
const small = await judge()
execFileSync('mount', ['-o', 'remount,nr_inodes=20', point])
let crowded = small
try {
  for (let i = 0; i < 100; i++) writeFileSync(join(point, String(i)), '')
} catch {
  crowded = await judge()
}
execFileSync('mount', ['-o', 'remount,ro', point])
console.log(JSON.stringify({ small, crowded, readOnly: await judge() }))
