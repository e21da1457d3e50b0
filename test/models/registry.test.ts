import assert from 'node:assert/strict'
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { deleteModel, exportModel, listModels, type NewModel, registerModel, renameModel, resolveModel } from '../../src/models/registry.ts'
import { sha256 } from '../../src/storage/blobs.ts'
import { child, childHead, temporaryFolder, temporaryHome } from '../track/homes.ts'
import { tinyArtefact } from './tiny-model.ts'

function model(t: TestContext, content: string | Uint8Array, change: Partial<NewModel> = {}): NewModel {
  const file = join(temporaryFolder(t), 'model.onnx')
  writeFileSync(file, content)
  return { name: 'birds', file, labels: ['owl', 'wren'], run: null, dataset: null, accuracy: null, ...change }
}
const names = (models: { name: string; version: number }[]) => models.map(({ name, version }) => `${name}@${version}`)

test('a version holds what it was given, and the file is copied whole', async t => {
  const home = await temporaryHome(t)
  const given = model(t, 'one', {
    run: 'a'.repeat(32),
    dataset: { name: 'photos', version: 2, digest: 'abc' },
    accuracy: { n: 10, accuracy: 0.9, low: 0.6, high: 0.98 },
  })
  const registered = await registerModel(home, given)
  const { name, labels, run, dataset, accuracy } = given
  assert.deepEqual(
    { ...registered, path: '', created: '' },
    { name, labels, run, dataset, accuracy, version: 1, bytes: 3, digest: sha256(Buffer.from('one')), path: '', created: '' },
  )
  writeFileSync(given.file, 'changed')
  assert.equal(readFileSync(registered.path, 'utf8'), 'one')
  assert.deepEqual(await resolveModel(home, 'birds'), registered)
  assert.deepEqual(await resolveModel(home, 'birds@1'), registered)
})

test('versions count up, are listed newest first within a name, and a number is never given twice', async t => {
  const home = await temporaryHome(t)
  for (const content of ['one', 'two', 'three']) await registerModel(home, model(t, content))
  await registerModel(home, model(t, 'one', { name: 'ants' }))
  assert.deepEqual(names(await listModels(home)), ['ants@1', 'birds@3', 'birds@2', 'birds@1'])
  await deleteModel(home, 'birds@3')
  assert.equal((await resolveModel(home, 'birds')).version, 2)
  await assert.rejects(resolveModel(home, 'birds@3'), { code: 'model_not_found' })
  assert.equal((await registerModel(home, model(t, 'four'))).version, 4)
  await deleteModel(home, 'birds')
  await assert.rejects(resolveModel(home, 'birds'), { code: 'model_not_found' })
  assert.equal((await registerModel(home, model(t, 'five'))).version, 5)
})

test('two processes that register at once get versions of their own', async t => {
  const home = await temporaryHome(t)
  const { file } = model(t, 'same content')
  const program = `${childHead({ registerModel: 'models/registry.ts' })}
    for (let i = 0; i < 15; i++)
      say((await registerModel(home, { name: 'birds', file: process.argv[2], labels: [process.argv[3], 'b'], run: null, dataset: null, accuracy: null })).version)
    await home.close()`
  const children = ['first', 'second'].map(who => child(program, [home.path, file, who]))
  const versions: number[] = []
  for (const { lines, ended } of children) {
    for await (const version of lines) versions.push(version as number)
    assert.equal(await ended, 0)
  }
  const all = Array.from({ length: 30 }, (_, i) => i + 1)
  assert.deepEqual(
    versions.toSorted((a, b) => a - b),
    all,
  )
  const listed = await listModels(home)
  assert.deepEqual(listed.map(each => each.version).reverse(), all)
  assert.equal(listed.filter(each => each.labels[0] === 'first').length, 15)
  assert.deepEqual(readdirSync(join(home.path, 'models')).length, 1, 'equal content is stored once, and no halves are left')
})

test('a file that several versions share goes with the last of them', async t => {
  const home = await temporaryHome(t)
  const first = await registerModel(home, model(t, 'shared'))
  await registerModel(home, model(t, 'shared', { name: 'ants' }))
  const preview = await deleteModel(home, 'birds', { preview: true })
  assert.deepEqual(names(preview.versions), ['birds@1'])
  assert.equal(preview.bytes, 0, 'the other version keeps the file')
  assert.equal((await listModels(home)).length, 2, 'a preview deletes nothing')
  assert.equal((await deleteModel(home, 'birds')).bytes, 0)
  assert.ok(existsSync(first.path))
  assert.equal((await deleteModel(home, 'ants@1', { preview: true })).bytes, 6)
  assert.ok(existsSync(first.path))
  assert.equal((await deleteModel(home, 'ants@1')).bytes, 6)
  assert.equal(existsSync(first.path), false)
  assert.deepEqual((await deleteModel(home, 'ants')).versions, [], 'the name itself')
  await assert.rejects(deleteModel(home, 'ants'), { code: 'model_not_found' })
})

test('a rename takes all versions along, and never onto a name that is or was another model’s', async t => {
  const home = await temporaryHome(t)
  for (const content of ['one', 'two']) await registerModel(home, model(t, content))
  await registerModel(home, model(t, 'three', { name: 'ants' }))
  await renameModel(home, 'birds', 'eagles')
  assert.deepEqual(names(await listModels(home)), ['ants@1', 'eagles@2', 'eagles@1'])
  assert.equal(readFileSync((await resolveModel(home, 'eagles@1')).path, 'utf8'), 'one')
  await assert.rejects(renameModel(home, 'eagles', 'ants'), { code: 'model_exists' })
  await assert.rejects(renameModel(home, 'eagles', 'eagles'), { code: 'model_exists' })
  await assert.rejects(renameModel(home, 'birds', 'crows'), { code: 'model_not_found' })
  await deleteModel(home, 'ants')
  await assert.rejects(renameModel(home, 'ants', 'crows'), { code: 'model_not_found' }, 'what is deleted is not there')
  await assert.rejects(renameModel(home, 'eagles', 'ants'), { code: 'model_name_spent' })
  await assert.rejects(renameModel(home, 'eagles', '../up'), { code: 'name_invalid' })
  assert.deepEqual(names(await listModels(home)), ['eagles@2', 'eagles@1'])
})

test('an export is a copy at a free place', async t => {
  const home = await temporaryHome(t)
  await registerModel(home, model(t, 'one'))
  const folder = temporaryFolder(t)
  const to = join(folder, 'out.onnx')
  assert.equal((await exportModel(home, 'birds', to)).version, 1)
  assert.equal(readFileSync(to, 'utf8'), 'one')
  if (process.platform !== 'win32') assert.equal(statSync(to).mode & 0o777, 0o666 & ~process.umask(), 'with the rights of any file')
  writeFileSync(to, 'mine')
  await assert.rejects(exportModel(home, 'birds', to), { code: 'path_in_the_way' })
  assert.equal(readFileSync(to, 'utf8'), 'mine')
  await assert.rejects(exportModel(home, 'birds', folder), { code: 'path_in_the_way' })
  await assert.rejects(exportModel(home, 'ants', join(folder, 'other')), { code: 'model_not_found' })
  assert.deepEqual(readdirSync(folder), ['out.onnx'])
})

test('names that are paths, options or nothing are refused, and no file is made', async t => {
  const home = await temporaryHome(t)
  const given = model(t, 'one')
  const wrong = [
    '',
    '.',
    '..',
    '../birds',
    'a/b',
    'a\\b',
    '/etc/passwd',
    '-rf',
    '.hidden',
    'a b',
    'ä',
    'a@1',
    'x'.repeat(101),
    'a.',
    'a\n',
    'a\0',
  ]
  for (const name of wrong) await assert.rejects(registerModel(home, { ...given, name }), { code: 'name_invalid' }, JSON.stringify(name))
  for (const name of ['..', 'a b', '', '-x'])
    for (const action of [resolveModel, deleteModel])
      await assert.rejects(action(home, name), { code: 'name_invalid' }, JSON.stringify(name))
  for (const reference of ['birds@', 'birds@0', 'birds@-1', 'birds@1.5', 'birds@1x', 'birds@01', 'birds@9999999999'])
    await assert.rejects(resolveModel(home, reference), { code: 'version_invalid' }, reference)
  assert.deepEqual(await listModels(home), [])
  assert.deepEqual(readdirSync(join(home.path, 'models')), [])
})

test('a file of ours is found by its path: registered or not, from anywhere', async t => {
  const home = await temporaryHome(t)
  const given = model(t, tinyArtefact({ labels: ['red', 'green', 'blue'] }))
  const stranger = await resolveModel(home, given.file)
  assert.deepEqual([stranger.name, stranger.version, stranger.labels], ['model', 1, ['red', 'green', 'blue']])
  assert.equal(stranger.path, given.file)
  const registered = await registerModel(home, { ...given, labels: ['red', 'green', 'blue'] })
  const known = await resolveModel(home, given.file)
  assert.deepEqual(known, { ...registered, path: given.file })

  await assert.rejects(resolveModel(home, `${given.file}.not`), { code: 'artefact_missing' })
  const text = join(temporaryFolder(t), 'text.onnx')
  writeFileSync(text, 'hello')
  await assert.rejects(resolveModel(home, text), (error: { code?: string }) => error.code!.startsWith('artefact_'))
})

test('a model file that is not there cannot be registered', async t => {
  const home = await temporaryHome(t)
  const given = model(t, 'x')
  mkdirSync(`${given.file}.folder`)
  for (const file of [`${given.file}.not`, `${given.file}.folder`])
    await assert.rejects(registerModel(home, { ...given, file }), (error: { code?: string }) =>
      /^(storage|path_in_the_way)$/.test(error.code!),
    )
  assert.deepEqual(await listModels(home), [])
})

test('a killed registration leaves no half version, whenever it was killed', async t => {
  const home = await temporaryHome(t)
  const file = join(temporaryFolder(t), 'model.onnx')
  const program = `${childHead({ registerModel: 'models/registry.ts' })}
    import { writeFileSync } from 'node:fs'
    for (let i = 0; ; i++) {
      writeFileSync(process.argv[2], Buffer.alloc(200_000, process.argv[3] + i))
      say((await registerModel(home, { name: 'birds', file: process.argv[2], labels: ['a', 'b'], run: null, dataset: null, accuracy: null })).version)
    }`
  const told: number[] = []
  for (let kill = 0; kill < 8; kill++) {
    const { process: registering, lines, ended } = child(program, [home.path, file, `${kill}.`])
    let count = 0
    for await (const version of lines) {
      told.push(version as number)
      if (++count > kill % 4) registering.kill('SIGKILL')
    }
    assert.equal(await ended, 'SIGKILL')
  }
  const listed = await listModels(home)
  const versions = listed.map(each => each.version).reverse()
  assert.deepEqual(
    versions,
    versions.map((_, i) => i + 1),
  )
  for (const version of told) assert.ok(versions.includes(version), `version ${version} was acknowledged`)
  for (const { path, digest, bytes } of listed) assert.deepEqual([sha256(readFileSync(path)), bytes], [digest, 200_000])
})

test('a folder that has the name of a model is not in its way, a file is the file', async t => {
  const home = await temporaryHome(t)
  await registerModel(home, model(t, 'one', { name: 'photos' }))
  const before = process.cwd()
  const folder = temporaryFolder(t)
  process.chdir(folder)
  t.after(() => process.chdir(before))
  mkdirSync('photos')
  assert.equal((await resolveModel(home, 'photos')).version, 1)
  writeFileSync('colours', tinyArtefact())
  assert.equal((await resolveModel(home, 'colours')).path, join(folder, 'colours'))
  await assert.rejects(resolveModel(home, './photos'), { code: 'artefact_missing', message: /it is a folder/ })
})
