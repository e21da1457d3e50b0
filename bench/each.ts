/**
 * Runs the benches of one part, each in a process of its own, or the one that is named.
 *
 *     npm run bench:data                   bench/data-*.ts
 *     npm run bench:data -- import 10000   bench/data-import.ts with its own words
 *     npm run bench:jobs                   bench/jobs-*.ts
 */
import { spawnSync } from 'node:child_process'
import { globSync } from 'node:fs'
import { basename, join } from 'node:path'

const [part, name, ...words] = process.argv.slice(2)
const all = globSync(join(import.meta.dirname, `${part}-*.ts`)).sort()
const chosen = name === undefined ? all : all.filter(path => basename(path) === `${part}-${name}.ts`)
if (chosen.length === 0) {
  console.error(
    `There is no bench called ${name}. There are: ${all.map(path => basename(path, '.ts').slice(`${part}-`.length)).join(', ')}.`,
  )
  process.exitCode = 2
}
for (const path of chosen) {
  console.log(`\n── ${basename(path)} ──`)
  const { status } = spawnSync(process.execPath, [path, ...words], { stdio: 'inherit' })
  if (status !== 0) process.exitCode = status ?? 1
}
