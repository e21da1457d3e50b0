/**
 * Runs the benches of the data end, each in a process of its own, or those that are named.
 *
 *     npm run bench:data                   all
 *     npm run bench:data -- import 10000   bench/data-import.ts with its own words
 */
import { spawnSync } from 'node:child_process'
import { globSync } from 'node:fs'
import { basename, join } from 'node:path'

const all = globSync(join(import.meta.dirname, 'data-*.ts')).sort()
const [name, ...words] = process.argv.slice(2)
const chosen = name === undefined ? all : all.filter(path => basename(path) === `data-${name}.ts`)
if (chosen.length === 0) {
  console.error(`There is no bench called ${name}. There are: ${all.map(path => basename(path, '.ts').slice('data-'.length)).join(', ')}.`)
  process.exitCode = 2
}
for (const path of chosen) {
  console.log(`\n── ${basename(path)} ──`)
  const { status } = spawnSync(process.execPath, [path, ...words], { stdio: 'inherit' })
  if (status !== 0) process.exitCode = status ?? 1
}
