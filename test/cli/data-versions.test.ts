/** `plinth data diff` and `plinth data export` as their users run them. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { readdirSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { pictures, temporary, write } from '../data/folders.ts'

const main = fileURLToPath(new URL('../../src/main.ts', import.meta.url))

test('a version is exported, changed, imported again, and the difference is told', async t => {
  const folder = temporary(t)
  const env = { ...process.env, PLINTH_HOME: join(folder, 'home'), PLINTH_CACHE: join(folder, 'cache'), NO_COLOR: '1' }
  const run = (...words: string[]) => {
    const { stdout, status } = spawnSync(process.execPath, [main, 'data', ...words], { encoding: 'utf8', env, cwd: folder })
    return { stdout, status, json: () => JSON.parse(stdout.trim().split('\n').at(-1)!) }
  }
  await write(join(folder, 'photos'), { ...pictures('cat', 5), ...pictures('dog', 5, 100) })
  const first = run('import', 'photos', '--name', 'pets', '--json').json().dataset
  const exported = run('export', 'pets@1', 'out', '--json')
  assert.deepEqual([exported.status, exported.json().files, exported.json().labels], [0, 10, 'labels.csv'])
  assert.equal(run('import', 'out', '--name', 'pets', '--json').json().dataset.digest, first.digest)
  assert.match(run('export', 'pets', 'out').stdout, /^10 pictures of pets@1 in out, with labels\.csv\nNext: plinth data check out\n$/)

  rmSync(join(folder, 'out', 'labels.csv'))
  renameSync(join(folder, 'out', 'cat', '0.png'), join(folder, 'out', 'dog', 'moved.png'))
  await write(join(folder, 'out'), { 'cat/new\u001b[2J.png': 50 })
  assert.equal(run('import', 'out', '--name', 'pets', '--json').json().dataset.version, 2)
  const { stdout } = run('diff', 'pets@1', 'pets@2')
  assert.match(stdout, /^added: 1\n {4}cat\/new\ufffd\[2J\.png\nrelabelled: 1\n {4}dog\/moved\.png {2}cat → dog\nthe same: 9\n$/)
  const diff = run('diff', 'pets@2', 'pets@1', '--json').json()
  assert.deepEqual([diff.before.version, diff.removed, diff.relabelled[0].to], [2, ['cat/new\u001b[2J.png'], ['cat']])

  const taken = run('export', 'pets@1', 'out', '--json')
  assert.deepEqual([taken.status, taken.json().error.code], [1, 'export_folder_taken'])
  assert.equal(readdirSync(join(folder, 'out', 'dog')).length, 6)
  assert.equal(run('diff', 'pets@1', 'pets@7', '--json').json().error.code, 'dataset_version_not_found')
  assert.equal(run('export', 'birds', 'elsewhere', '--json').json().error.code, 'dataset_not_found')
})
