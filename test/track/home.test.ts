import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { openHome } from '../../src/track/home.ts'
import { createRun, listRuns } from '../../src/track/runs.ts'
import { child, childHead, newRun, temporaryFolder, temporaryHome } from './homes.ts'

test('a home is made on first use, for its user alone, and opened again with all that is in it', async t => {
  const path = join(temporaryFolder(t), 'deep', 'home')
  const first = await openHome(path)
  const { run } = await createRun(first, newRun())
  await first.close()
  assert.deepEqual(
    ['blobs', 'datasets', 'features', 'format', 'models', 'plinth.db', 'runs'].filter(name => !existsSync(join(path, name))),
    [],
  )
  assert.equal(readFileSync(join(path, 'format'), 'utf8'), '1\n')
  if (process.platform !== 'win32') assert.equal(statSync(path).mode & 0o077, 0)
  const second = await openHome(path)
  assert.deepEqual(
    (await listRuns(second)).map(({ run: id }) => id),
    [run.run],
  )
  await second.close()
})

test('a home of a newer Plinth is left alone', async t => {
  const path = temporaryFolder(t)
  writeFileSync(join(path, 'format'), '2\n')
  await assert.rejects(openHome(path), { code: 'home_too_new' })
  assert.deepEqual(readdirSync(path), ['format'], 'nothing was made')
  for (const nonsense of ['', 'x', '-1', '0', '1.5', '{}']) {
    writeFileSync(join(path, 'format'), nonsense)
    await assert.rejects(openHome(path), { code: 'home_damaged' }, JSON.stringify(nonsense))
  }
})

test('a file where the home should be is in the way', async t => {
  const path = join(temporaryFolder(t), 'home')
  writeFileSync(path, 'mine')
  await assert.rejects(openHome(path), { code: 'path_in_the_way' })
  assert.equal(readFileSync(path, 'utf8'), 'mine')
})

test('four processes that open a new home together all get it', async t => {
  const path = join(temporaryFolder(t), 'home')
  const program = `${childHead({ 'createRun, listRuns': 'track/runs.ts' })}
    const { run } = await createRun(home, { name: 'n', recipe: 'r', params: {}, environment: {}, dataset: null, device: null })
    say(run.run)
    await home.close()`
  const children = Array.from({ length: 4 }, () => child(program, [path]))
  const ids: unknown[] = []
  for (const { lines, ended } of children) {
    for await (const id of lines) ids.push(id)
    assert.equal(await ended, 0)
  }
  const home = await openHome(path)
  t.after(() => home.close())
  assert.deepEqual((await listRuns(home)).map(run => run.run).sort(), ids.sort())
})

// ── disks that refuse, in a mount namespace of the child's own ──────────────────────────────────────────────────────────────

/** In front of a child: a private mount namespace in which `script` runs first. */
const mounted = (script: string) => ['unshare', '-rm', 'sh', '-c', `${script} && exec "$@"`, 'sh']

function cannotMount(folder: string): string | false {
  const tried = spawnSync('unshare', ['-rm', 'mount', '-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', folder])
  return tried.status !== 0 && 'this system does not let its users mount a tmpfs of their own (unshare -rm)'
}

async function onlyLine(t: TestContext, program: string, args: string[], through: string[]): Promise<Record<string, unknown>> {
  const { lines, ended, process: started } = child(program, args, through)
  t.after(() => started.kill('SIGKILL'))
  const { value } = await lines.next()
  assert.equal(await ended, 0)
  return value as Record<string, unknown>
}

test('a full disk: each writer says disk_full, what was there stays, and once there is room all goes on', async t => {
  const folder = temporaryFolder(t)
  const reason = cannotMount(folder)
  if (reason) return t.skip(reason)
  const program = `${childHead({
    'createRun, getRun, listRuns, readMetrics': 'track/runs.ts',
    'registerModel, listModels': 'models/registry.ts',
    writeFileAtomic: 'storage/disk.ts',
  })}
    import { appendFileSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
    import { join } from 'node:path'
    const model = name => ({ name, file: process.argv[2], labels: ['a', 'b'], run: null, dataset: null, accuracy: null })
    const writer = await createRun(home, { name: 'n', recipe: 'r', params: {}, environment: {}, dataset: null, device: null })
    await writer.start()
    await writer.logMetrics(1, { loss: 1 })
    const note = join(writer.directory, 'note')
    await writeFileAtomic(note, 'old')
    // fill the disk to its last byte
    const filler = join(home.path, 'filler')
    const chunks = [65536, 4096, 512, 1]
    while (chunks.length) try { appendFileSync(filler, Buffer.alloc(chunks[0])) } catch (error) { if (error.code !== 'ENOSPC') throw error; chunks.shift() }
    const codes = {}
    const attempt = async (name, work) => { try { await work(); codes[name] = 'written' } catch (error) { codes[name] = error.code } }
    await attempt('file', () => writeFileAtomic(note, 'x'.repeat(10_000)))
    await attempt('blob', () => home.blobs.put(Buffer.alloc(10_000)))
    await attempt('model', () => registerModel(home, model('birds')))
    await attempt('checkpoint', () => writer.recordCheckpoint(1))
    let line = 2
    await attempt('metrics', async () => { for (; line < 1000; line++) await writer.logMetrics(line, { loss: line }) })
    await attempt('database', async () => { for (let i = 0; i < 200; i++) await home.db.insertInto('dataset_versions')
      .values({ name: 'n' + i, version: 1, digest: 'd'.repeat(2000), images: 1, classes: 1, created: '' }).execute() })
    const kept = readFileSync(note, 'utf8')
    const models = (await listModels(home)).length
    rmSync(filler)
    await writer.logMetrics(5000, { loss: 0 })
    const version = (await registerModel(home, model('birds'))).version
    await writer.finish('succeeded')
    const steps = (await readMetrics(home, writer.run.run)).map(p => p.step)
    const parts = readdirSync(home.path, { recursive: true }).filter(name => name.includes('.plinth-part-'))
    say({ codes, kept, models, version, status: (await getRun(home, writer.run.run)).status, steps, line, parts })
    await home.close()`
  const file = join(temporaryFolder(t), 'model.onnx')
  writeFileSync(file, Buffer.alloc(100_000, 7))
  const answer = await onlyLine(t, program, [join(folder, 'home'), file], mounted(`mount -t tmpfs -o size=4m tmpfs '${folder}'`))
  const { codes, line, ...rest } = answer as { codes: Record<string, string>; line: number }
  for (const [what, code] of Object.entries(codes)) assert.equal(code, 'disk_full', what)
  const steps = [...Array.from({ length: line - 1 }, (_, i) => i + 1), 5000]
  assert.deepEqual(rest, { kept: 'old', models: 0, version: 1, status: 'succeeded', steps, parts: [] })
})

test('with a disk that is full to the last byte a home can still be opened, looked at and cleaned, and a run can say why it failed', async t => {
  const folder = temporaryFolder(t)
  const reason = cannotMount(folder)
  if (reason) return t.skip(reason)
  const program = `${childHead({
    'createRun, getRun, listRuns': 'track/runs.ts',
    'findGarbage, collectGarbage': 'track/gc.ts',
  })}
    import { appendFileSync, existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
    import { join } from 'node:path'
    const fill = () => {
      const chunks = [65536, 4096, 512, 1]
      while (chunks.length) try { appendFileSync(home.path + '/../filler', Buffer.alloc(chunks[0])) } catch { chunks.shift() }
    }
    const code = work => work.then(() => 'fine', error => error.code)
    const reserve = join(home.path, 'reserve')
    const kept = existsSync(reserve)
    const run = { name: 'n', recipe: 'r', params: {}, environment: {}, dataset: null, device: null }
    const writer = await createRun(home, run)
    await writer.start()
    mkdirSync(join(home.path, 'features', 'x'))
    writeFileSync(join(home.path, 'features', 'x', 'a'), Buffer.alloc(500_000))

    fill()
    const finished = await code(writer.finish('failed', 'disk_full'))
    const { status, reason } = await getRun(home, writer.run.run)
    await home.close()
    rmSync(join(home.path, '..', 'filler'))
    await (await openHome(home.path)).close()
    const again = existsSync(reserve)

    fill()
    const full = await openHome(home.path)
    const runs = (await listRuns(full)).length
    fill()
    const created = await code(createRun(full, run))
    const freed = await collectGarbage(await findGarbage(full))
    const afterwards = await code(createRun(full, run))
    await full.close()
    rmSync(reserve, { force: true })
    fill()
    const without = await code(openHome(home.path))
    say({ kept, finished, status, reason, again, runs, created, freed, afterwards, without })`
  const answer = await onlyLine(t, program, [join(folder, 'home')], mounted(`mount -t tmpfs -o size=4m tmpfs '${folder}'`))
  assert.deepEqual(answer, {
    kept: true,
    finished: 'fine',
    status: 'failed',
    reason: 'disk_full',
    again: true,
    runs: 1,
    created: 'disk_full',
    freed: 500_000,
    afterwards: 'fine',
    without: 'disk_full',
  })
})

test('a home on a disk that is only for reading says so, new or old', async t => {
  const folder = temporaryFolder(t)
  const reason = cannotMount(folder)
  if (reason) return t.skip(reason)
  const program = `
    import { openHome } from ${JSON.stringify(new URL('../../src/track/home.ts', import.meta.url).href)}
    const open = path => openHome(path).then(home => home.close().then(() => 'opened'), error => error.code ?? String(error))
    const { execFileSync } = await import('node:child_process')
    const [folder] = process.argv.slice(1)
    const before = await open(folder + '/old')
    execFileSync('mount', ['-o', 'remount,ro', folder])
    process.stdout.write(JSON.stringify({ before, old: await open(folder + '/old'), new: await open(folder + '/new') }) + '\\n')`
  const answer = await onlyLine(t, program, [folder], mounted(`mount -t tmpfs -o size=4m tmpfs '${folder}'`))
  assert.deepEqual(answer, { before: 'opened', old: 'read_only', new: 'read_only' })
})

test('a home opened by several handles in one process is one home', async t => {
  const home = await temporaryHome(t)
  const again = await openHome(home.path)
  const { run } = await createRun(again, newRun())
  await again.close()
  assert.equal((await listRuns(home))[0]!.run, run.run)
})
