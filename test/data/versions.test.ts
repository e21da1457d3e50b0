import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { manifestDigest } from '../../src/data/import.ts'
import { listDatasets, resolveDataset, saveDataset } from '../../src/data/versions.ts'
import { openDatabase } from '../../src/db/open.ts'
import type { Manifest } from '../../src/sdk/shapes.ts'
import { temporary } from './folders.ts'

function manifest(...names: string[]): Manifest {
  const rows = names.map(name => ({
    path: `cat/${name}.png`,
    content: name,
    pixels: name,
    labels: ['cat'],
    group: null,
    side: null,
    width: 4,
    height: 4,
    flags: [],
  }))
  return { schema: 1, classes: ['cat'], rows, unreadable: [], ignored: [], exactDuplicates: [], conflicts: [] }
}
async function homeIn(t: Parameters<typeof temporary>[0], path = temporary(t)) {
  const db = await openDatabase(join(path, 'plinth.db'))
  t.after(() => db.destroy())
  return { path, db }
}

test('the same pictures are the same version, others the next, and each is found by name and number', async t => {
  const home = await homeIn(t)
  const first = await saveDataset(home, 'birds', manifest('a', 'b'))
  assert.deepEqual(first, { name: 'birds', version: 1, digest: manifestDigest(manifest('a', 'b')) })
  assert.deepEqual(await saveDataset(home, 'birds', { ...manifest('a', 'b'), ignored: [{ path: 'x', reason: 'hidden file' }] }), first)
  assert.equal((await saveDataset(home, 'birds', manifest('a', 'b', 'c'))).version, 2)
  assert.deepEqual(await saveDataset(home, 'birds', manifest('a', 'b')), first, 'the older pictures again are the older version')
  assert.equal((await saveDataset(home, 'fish', manifest('a', 'b'))).version, 1)
  assert.deepEqual((await resolveDataset(home, 'birds@1')).manifest, manifest('a', 'b'))
  assert.equal((await resolveDataset(home, 'birds')).reference.version, 2)
  assert.deepEqual(
    (await listDatasets(home)).map(({ name, version, images, classes }) => [name, version, images, classes]),
    [
      ['birds', 1, 2, 1],
      ['birds', 2, 3, 1],
      ['fish', 1, 2, 1],
    ],
  )
})

test('imports at once, in two processes’ worth of connections, take different numbers and lose nothing', async t => {
  const home = await homeIn(t)
  const other = await homeIn(t, home.path)
  const given = Array.from({ length: 20 }, (_, index) => manifest(String(index % 10)))
  const saved = await Promise.all(given.map((one, index) => saveDataset(index % 2 ? home : other, 'birds', one)))
  // a number may be left out where two saved the same pictures at the same moment; none is given to two different ones
  const numbers = new Set(saved.map(({ version }) => version))
  assert.equal(numbers.size, 10)
  const files = [...numbers].map(version => `${version}.json`)
  assert.deepEqual(readdirSync(join(home.path, 'datasets/birds')).sort(), files.sort(), 'who came second takes its file away')
  for (const [index, { version }] of saved.entries()) assert.equal(version, saved[(index + 10) % 20]!.version)
  for (const [index, { version }] of saved.entries()) {
    assert.deepEqual((await resolveDataset(home, `birds@${version}`)).manifest, given[index])
  }
})

test('killed at any moment, a home lists no version that cannot be read and loses none that was acknowledged', async t => {
  const home = await homeIn(t)
  const kills = process.env['PLINTH_TEST'] === 'long' ? 100 : 4
  for (let kill = 0; kill < kills; kill++) {
    const child = spawn(process.execPath, [fileURLToPath(new URL('./saver.ts', import.meta.url)), home.path, String(kill)], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const closed = once(child, 'close')
    let printed = ''
    const enough = 3 + (kill % 5) // lines; then at an arbitrary point of the next
    for await (const chunk of child.stdout) {
      printed += chunk
      if (printed.split('\n').length > enough) child.kill('SIGKILL')
    }
    await closed
    const acknowledged = printed
      .split('\n')
      .slice(0, -1)
      .map(line => line.split(' '))
    const listed = await listDatasets(home)
    for (const [version, digest] of acknowledged) assert.ok(listed.some(row => row.version === Number(version) && row.digest === digest))
    for (const { name, version } of listed) await resolveDataset(home, `${name}@${version}`)
  }
})

test('a record that was changed, cut or lost on disk is noticed, and saving the same pictures mends it', async t => {
  const home = await homeIn(t)
  await saveDataset(home, 'birds', manifest('a', 'b'))
  const file = join(home.path, 'datasets/birds/1.json')
  const whole = readFileSync(file, 'utf8')
  for (const damage of [
    () => writeFileSync(file, whole.replace('cat/a.png', 'cat/z.png')),
    () => writeFileSync(file, whole.slice(0, 50)),
    () => writeFileSync(file, '{}'),
    () => rmSync(file),
  ]) {
    damage()
    await assert.rejects(resolveDataset(home, 'birds'), { code: 'dataset_damaged' })
    assert.equal((await saveDataset(home, 'birds', manifest('a', 'b'))).version, 1)
    assert.deepEqual((await resolveDataset(home, 'birds')).manifest, manifest('a', 'b'))
  }
})

test('unknown names, versions and impossible names say what to do', async t => {
  const home = await homeIn(t)
  await saveDataset(home, 'birds', manifest('a'))
  await assert.rejects(resolveDataset(home, 'fish'), { code: 'dataset_not_found' })
  await assert.rejects(resolveDataset(home, 'birds@7'), { code: 'dataset_version_not_found', message: /no version 7; the newest is 1/ })
  await assert.rejects(resolveDataset(home, 'birds@x'), { code: 'version_invalid' })
  for (const name of ['../birds', 'a/b', '', '.hidden', '-rf', 'a\nb', 'x'.repeat(101)]) {
    await assert.rejects(saveDataset(home, name, manifest('a')), { code: 'name_invalid' }, name)
  }
})
