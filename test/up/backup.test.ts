import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { type TestContext, test } from 'node:test'
import fc from 'fast-check'
import { sql } from 'kysely'
import { connectTo } from '../../src/db/open.ts'
import { registerModel } from '../../src/models/registry.ts'
import { readTar, tarEnd, tarred } from '../../src/storage/tar.ts'
import { backUp } from '../../src/track/backup.ts'
import { openHome } from '../../src/track/home.ts'
import { restore, verify } from '../../src/track/restore.ts'
import { createRun, getRun, readMetrics } from '../../src/track/runs.ts'
import { databases, newDatabase, postgresMissing, startPostgres } from '../db/databases.ts'
import { newRun, temporaryFolder } from '../track/homes.ts'
import { plinth, startUp } from './up.ts'

/** A home with something of every kind in it. */
async function fullHome(t: TestContext, options: { database?: string } = {}) {
  const folder = temporaryFolder(t)
  const home = await openHome(join(folder, 'home'), options)
  t.after(() => home.close())
  const digest = await home.blobs.put(Buffer.from('a picture'))
  writeFileSync(join(folder, 'model.onnx'), 'a model')
  const model = await registerModel(home, {
    name: 'birds',
    file: join(folder, 'model.onnx'),
    labels: ['a', 'b'],
    run: null,
    dataset: null,
    accuracy: null,
  })
  const writer = await createRun(home, newRun())
  await writer.start()
  for (let step = 1; step <= 20; step++) writer.logMetrics(step, { loss: 1 / step })
  await writer.finish('succeeded')
  mkdirSync(join(home.path, 'artifacts', '0', 'x'), { recursive: true })
  writeFileSync(join(home.path, 'artifacts', '0', 'x', 'ä long name '.repeat(15)), 'artifact')
  mkdirSync(join(home.path, 'features', 'again'))
  writeFileSync(join(home.path, 'features', 'again', 'x'), 'computed again')
  writeFileSync(join(home.path, 'token'), 'secret')
  return { folder, home, digest, model, run: writer.run.run, loss: await readMetrics(home, writer.run.run) }
}

/** Every file below, with what is in it. */
const contents = (folder: string) =>
  Object.fromEntries(
    readdirSync(folder, { recursive: true, withFileTypes: true })
      .filter(entry => entry.isFile())
      .map(entry => join(entry.parentPath, entry.name))
      .map(path => [relative(folder, path), createHash('sha256').update(readFileSync(path)).digest('hex')]),
  )

for (const form of ['a folder', 'a .tar'])
  test(`${form}: a home comes back with all that was in it, and without what is only of this machine`, async t => {
    const { folder, home, digest, run, loss } = await fullHome(t)
    const to = form === 'a folder' ? join(folder, 'backups') : join(folder, 'backups', 'one.tar')
    const done = await backUp(home, to)
    assert.deepEqual([done.damaged, existsSync(done.path)], [[], true])
    assert.equal((await verify(to)).files, done.files)
    if (form === 'a .tar' && spawnSync('tar', ['--version']).status === 0)
      assert.equal(execFileSync('tar', ['-tf', to], { encoding: 'utf8' }).trim().split('\n').length, done.files + 1)
    const path = join(folder, 'restored')
    const restored = await restore(to, path)
    assert.deepEqual([restored.files, restored.bytes], [done.files, done.bytes])
    const wanted = (name: string) => /^(artifacts|blobs|datasets|models|runs)\//.test(name)
    const kept = (all: Record<string, string>) => Object.fromEntries(Object.entries(all).filter(([name]) => wanted(name)))
    assert.deepEqual(kept(contents(path)), kept(contents(home.path)))
    for (const name of ['token', 'reserve', 'features', 'server']) assert.equal(existsSync(join(path, name)), false, name)
    assert.deepEqual(
      readdirSync(path, { recursive: true, withFileTypes: true }).filter(
        entry => statSync(join(entry.parentPath, entry.name)).mode & 0o077,
      ),
      [],
    )
    const again = await openHome(path)
    t.after(() => again.close())
    assert.equal((await getRun(again, run)).status, 'succeeded')
    assert.deepEqual(await readMetrics(again, run), loss)
    assert.equal(await again.blobs.verify(digest), true)
    for (const table of ['runs', 'model_versions', 'tracked_runs', 'metrics', 'projects'] as const)
      assert.deepEqual(await again.db.selectFrom(table).selectAll().execute(), await home.db.selectFrom(table).selectAll().execute(), table)
    assert.deepEqual(
      readdirSync(folder).filter(name => name.includes('.plinth-part-')),
      [],
    )
  })

for (const { kind, missing, target } of databases())
  test(`${kind}: while runs log, all that was answered before the backup began is in it`, { skip: missing ?? false }, async t => {
    const folder = temporaryFolder(t)
    const home = join(folder, 'home')
    const words = kind === 'PostgreSQL' ? ['--database', await target()] : []
    const up = await startUp(t, home, { words })
    const { run } = await up.post('/api/runs', {})
    let answered = -1
    let going = true
    const load = (async () => {
      for (let step = 0; going; step++) {
        await up.post(`/api/runs/${run}/log`, { metrics: [{ key: 'loss', value: step, timestamp: step, step }] })
        const path = `/api/2.0/mlflow-artifacts/artifacts/0/${run}/artifacts/${step}.txt`
        if (step % 10 === 0) assert.equal((await up.ask(path, { method: 'PUT', body: `file ${step}` })).status, 200)
        answered = step
      }
    })()
    while (answered < 30) await new Promise(resolve => setTimeout(resolve, 5))
    const before = answered
    const to = join(folder, 'backups')
    const opened = await openHome(home) // as the command does, beside the server
    const done = await backUp(opened, to)
    await opened.close()
    const during = answered
    going = false
    await load
    up.process.kill('SIGTERM')
    await up.ended
    assert.ok(during > before, 'it was written to meanwhile')
    assert.equal(done.damaged.length, 0)
    const into = kind === 'PostgreSQL' ? { database: await target() } : {}
    const path = join(folder, 'restored')
    await restore(to, path, into)
    const again = await startUp(t, path)
    assert.notEqual(again.token, up.token)
    const { points, total } = (await (await again.ask(`/api/runs/${run}/metrics?key=loss&points=10000`)).json()) as {
      total: number
      points: { step: number; value: number }[]
    }
    assert.ok(total > before)
    assert.deepEqual(
      points.slice(0, before + 1).map(({ step, value }) => [step, value]),
      Array.from({ length: before + 1 }, (_, i) => [i, i]),
    )
    for (let step = 0; step <= before; step += 10)
      assert.equal(readFileSync(join(path, 'artifacts', '0', run, 'artifacts', `${step}.txt`), 'utf8'), `file ${step}`)
  })

test('a second backup shares what has not changed, and stands without the first', async t => {
  const { folder, home, run } = await fullHome(t)
  const to = join(folder, 'backups')
  const first = await backUp(home, to)
  await home.blobs.put(Buffer.from('another picture'))
  const second = await backUp(home, to)
  assert.equal(second.files, first.files + 1)
  const database = statSync(join(second.path, 'database.sqlite')).size
  assert.equal(second.copied, database, 'nothing but the database was copied')
  const log = join('home', 'runs', run, 'metrics.jsonl')
  assert.equal(statSync(join(first.path, log)).ino, statSync(join(second.path, log)).ino)
  assert.notEqual(
    statSync(join(home.path, 'runs', run, 'metrics.jsonl')).ino,
    statSync(join(first.path, log)).ino,
    'what is written to is copied',
  )
  rmSync(first.path, { recursive: true })
  assert.equal((await verify(to)).files, second.files)
})

test('the disk has lost a picture: the backup says so, and so does a later look', async t => {
  const { folder, home, digest } = await fullHome(t)
  writeFileSync(home.blobs.path(digest), 'a pikture')
  const done = await backUp(home, join(folder, 'backups'))
  assert.deepEqual(done.damaged, [`home/blobs/${digest.slice(0, 2)}/${digest}`])
})

test('a backup that is not whole, or not what it was, is not restored, and nothing is left of the attempt', async t => {
  const { folder, home, digest } = await fullHome(t)
  const { path } = await backUp(home, join(folder, 'backups'))
  const target = join(folder, 'restored')
  const refused = async (code: string, from = path) => {
    const before = readdirSync(folder)
    await assert.rejects(verify(from), { code })
    await assert.rejects(restore(from, target), { code })
    assert.deepEqual(readdirSync(folder), before)
  }
  const manifest = join(path, 'manifest.jsonl')
  const text = readFileSync(manifest, 'utf8')
  const blob = join(path, 'home', 'blobs', digest.slice(0, 2), digest)
  renameSync(blob, `${blob}-aside`)
  await refused('backup_damaged')
  writeFileSync(blob, 'another!!')
  await refused('backup_damaged')
  rmSync(blob)
  renameSync(`${blob}-aside`, blob)
  for (const cut of [0, 20, text.length >> 1, text.length - 3]) {
    writeFileSync(manifest, text.slice(0, cut))
    await refused('backup_damaged')
  }
  rmSync(manifest)
  await refused('backup_missing')
  await refused('backup_missing', join(folder, 'backups'))
  writeFileSync(manifest, text)
  mkdirSync(target)
  writeFileSync(join(target, 'mine'), 'x')
  await assert.rejects(restore(path, target), { code: 'restore_place' })
  assert.deepEqual(readdirSync(target), ['mine'])
  rmSync(join(target, 'mine'))
  await restore(path, target)
})

test('a backup is not put into the home, nor into a folder of something else', async t => {
  const { folder, home } = await fullHome(t)
  await assert.rejects(backUp(home, join(home.path, 'backups')), { code: 'backup_place' })
  await assert.rejects(backUp(home, join(home.path, 'x.tar')), { code: 'backup_place' })
  await assert.rejects(backUp(home, folder), { code: 'backup_place' })
  writeFileSync(join(folder, 'x.tar'), 'mine')
  await assert.rejects(backUp(home, join(folder, 'x.tar')), { code: 'backup_place' })
  assert.equal(readFileSync(join(folder, 'x.tar'), 'utf8'), 'mine')
})

// ── backups from strangers ──────────────────────────────────────────────────────────────────────────────────────────────────

type Given = { name: string; content?: string; type?: string; bytes?: number; link?: string }

/** An archive as a stranger would make it: nothing is checked. */
async function archive(files: readonly Given[]): Promise<Buffer> {
  const parts: Buffer[] = []
  for (const { name, content = '', type = '0', bytes, link = '' } of files) {
    async function* chunks() {
      yield Buffer.from(content)
    }
    const whole = await buffer(Readable.from(tarred({ name, bytes: Buffer.byteLength(content), modified: 0 }, chunks())))
    const at = Buffer.byteLength(name) > 100 || !/^[\x20-\x7e]+$/.test(name) ? 1024 : 0
    const head = whole.subarray(at, at + 512)
    head.write(type, 156)
    head.write(link, 157)
    if (bytes !== undefined) head.write(`${bytes.toString(8).padStart(11, '0')}\0`, 124)
    head.write('        ', 148)
    head.write(
      `${head
        .reduce((sum, byte) => sum + byte, 0)
        .toString(8)
        .padStart(6, '0')}\0 `,
      148,
    )
    parts.push(whole)
  }
  return Buffer.concat([...parts, tarEnd()])
}

test('a hostile archive changes nothing outside of the new home, and leaves no new home', async t => {
  const folder = temporaryFolder(t)
  const target = join(folder, 'deep', 'restored')
  const outside = join(folder, 'outside')
  mkdirSync(outside)
  writeFileSync(join(outside, 'mine'), 'untouched')
  const hostile: Given[][] = [
    ...[
      '../outside/mine',
      'home/../../outside/mine',
      '/etc/plinth-was-here',
      'home//etc/x',
      'home/./x',
      'home/..',
      'home/a\\..\\b',
      'home/\0x',
      'elsewhere/x',
    ].map(name => [{ name, content: 'x' }]),
    ...['home/token', 'home/server', 'home/database', 'home/plinth.db', 'home/features/x', 'home/x.plinth-part-0123456789ab'].map(name => [
      { name, content: 'x' },
    ]),
    [
      { name: 'home/link', type: '2', link: outside },
      { name: 'home/link/mine', content: 'x' },
    ],
    [{ name: 'home/hard', type: '1', link: join(outside, 'mine') }],
    ...['3', '4', '5', '6', '7', 'g', 'L', 'K', 'S', 'V'].map(type => [{ name: 'home/x', type }]),
    [
      { name: 'home/x', content: 'a' },
      { name: 'home/x', content: 'b' },
    ],
    [
      { name: 'home/x', content: 'a' },
      { name: 'home/x/y', content: 'b' },
    ],
    [{ name: 'home/x', bytes: 8 ** 11 - 1 }],
    [{ name: 'manifest.jsonl', content: '{"plinth_backup":1}' }],
    [{ name: 'manifest.jsonl', content: `{"__proto__":{"x":1}}\n${'['.repeat(100_000)}` }],
    [{ name: 'manifest.jsonl', content: 'x'.repeat(3_000_000) }],
    [],
  ]
  for (const [i, files] of hostile.entries()) {
    const from = join(folder, `${i}.tar`)
    writeFileSync(from, await archive(files))
    const before = contents(outside)
    await assert.rejects(
      restore(from, target),
      error =>
        /^(archive_unsafe|archive_damaged|backup_damaged|path_in_the_way)$/.test((error as { code: string }).code) ||
        assert.fail(`${JSON.stringify(files[0])}: ${error}`),
    )
    assert.deepEqual(contents(outside), before)
    assert.deepEqual(readdirSync(join(folder, 'deep')), [], JSON.stringify(files[0]))
    rmSync(from)
  }
  assert.equal(existsSync('/etc/plinth-was-here'), false)
})

test('whatever bytes an archive has, they are read as files or refused', async () => {
  const sound = await archive([
    { name: 'home/a', content: 'hello' },
    { name: 'home/ü', content: 'x'.repeat(700) },
  ])
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(fc.nat(sound.length - 1), fc.nat(255)), { maxLength: 6 }),
      fc.nat(sound.length),
      async (changes, cut) => {
        const bytes = Buffer.from(sound)
        for (const [at, value] of changes) bytes[at] = value
        try {
          let total = 0
          for await (const { content } of readTar(Readable.from([bytes.subarray(0, cut)])))
            for await (const chunk of content) total += chunk.length
          assert.ok(total <= cut)
        } catch (error) {
          assert.match(String((error as { code: string }).code), /^archive_(unsafe|damaged)$/, String(error))
        }
      },
    ),
    { numRuns: process.env['PLINTH_TEST'] === 'long' ? 100_000 : 500 },
  )
})

test('links and pipes in the folder of a backup are refused, and do not hang', { skip: process.platform === 'win32' }, async t => {
  const { folder, home, digest } = await fullHome(t)
  const { path } = await backUp(home, join(folder, 'backups'))
  const blob = join('home', 'blobs', digest.slice(0, 2), digest)
  const secret = join(folder, 'secret')
  writeFileSync(secret, 'a picture') // the very content: the digest alone would not tell
  const aside = join(folder, 'aside')
  renameSync(join(path, blob), aside)
  symlinkSync(secret, join(path, blob))
  await assert.rejects(restore(path, join(folder, 'restored')), { code: 'archive_unsafe' })
  rmSync(join(path, blob))
  spawnSync('mkfifo', [join(path, blob)])
  await assert.rejects(restore(path, join(folder, 'restored')), { code: 'archive_unsafe' })
  rmSync(join(path, blob))
  renameSync(aside, join(path, blob))
  const blobs = join(path, 'home', 'blobs')
  renameSync(blobs, join(folder, 'blobs'))
  symlinkSync(join(folder, 'blobs'), blobs)
  await assert.rejects(restore(path, join(folder, 'restored')), { code: 'archive_unsafe' })
  assert.equal(existsSync(join(folder, 'restored')), false)
})

test('a database of a stranger brings rows and nothing that runs', async t => {
  const { folder, home } = await fullHome(t)
  const { path } = await backUp(home, join(folder, 'backups'))
  const file = join(path, 'database.sqlite')
  const manifest = join(path, 'manifest.jsonl')
  const [sound, listed] = [readFileSync(file), readFileSync(manifest, 'utf8')]
  const change = async (statement: string) => {
    writeFileSync(file, sound)
    const db = await connectTo(file)
    await sql.raw(statement).execute(db)
    await sql.raw('pragma journal_mode = delete').execute(db)
    await db.destroy()
    const bytes = readFileSync(file)
    const line = JSON.stringify({
      path: 'database.sqlite',
      bytes: bytes.length,
      sha256: createHash('sha256').update(bytes).digest('hex'),
      modified: 0,
    })
    const lines = listed.split('\n')
    const end = JSON.parse(lines.at(-2)!)
    writeFileSync(manifest, [lines[0], line, ...lines.slice(2, -2), JSON.stringify({ ...end }), ''].join('\n'))
  }
  for (const statement of [
    'create trigger leave after insert on audit begin delete from tokens; end',
    'create view everything as select * from tokens',
    'create virtual table t using fts5(x)',
  ]) {
    await change(statement)
    await assert.rejects(restore(path, join(folder, 'restored')), { code: 'dump_damaged' }, statement)
  }
  await change("insert into migrations (name, applied) values ('999-later', '')")
  await assert.rejects(restore(path, join(folder, 'restored')), { code: 'home_too_new' })
  assert.equal(existsSync(join(folder, 'restored')), false)
})

// ── from one kind of database to the other ──────────────────────────────────────────────────────────────────────────────────

test('a home moves from SQLite to PostgreSQL and back by its backups', { skip: postgresMissing ?? false }, async t => {
  const { folder, home, run, loss } = await fullHome(t)
  const server = await startPostgres()
  t.after(() => server.stop())
  const database = await newDatabase(server)
  await backUp(home, join(folder, 'one'))
  await restore(join(folder, 'one'), join(folder, 'postgres'), { database })
  const over = await openHome(join(folder, 'postgres'))
  assert.equal(over.target, database)
  const { run: started } = await createRun(over, newRun()) // numbers go on where they were
  const rows = async (db: typeof home.db) => {
    const all: Record<string, unknown> = {}
    for (const table of [
      'dataset_versions',
      'runs',
      'model_versions',
      'metrics',
      'latest_metrics',
      'experiments',
      'params',
      'tags',
    ] as const) {
      const found = await db.selectFrom(table).selectAll().execute()
      all[table] = found
        .map(row => JSON.stringify(Object.entries(row).sort()))
        .filter(row => !row.includes(started.run))
        .sort()
    }
    return all
  }
  const before = (await rows(home.db)) as Record<string, string[]>
  const moved = (await rows(over.db)) as Record<string, string[]>
  for (const [table, lines] of Object.entries(before))
    for (const line of lines) assert.ok(moved[table]!.includes(line), `${table}: ${line}`)
  await assert.rejects(restore(join(folder, 'one'), join(folder, 'twice'), { database }), { code: 'database_not_empty' })
  await backUp(over, join(folder, 'two'))
  await over.close()
  await restore(join(folder, 'two'), join(folder, 'sqlite'))
  const back = await openHome(join(folder, 'sqlite'))
  assert.ok(back.target.endsWith('plinth.db'))
  assert.deepEqual(await rows(back.db), moved)
  assert.deepEqual(await readMetrics(back, run), loss)
  await back.close()
})

test('the commands say what they did', async t => {
  const { folder, home } = await fullHome(t)
  const to = join(folder, 'backups')
  const made = plinth(home.path, ['backup', to])
  assert.equal(made.status, 0, made.stderr)
  assert.ok(made.answer.files > 3 && made.answer.path.startsWith(to))
  assert.equal(plinth(home.path, ['restore', to, '--verify']).answer.verified, true)
  assert.equal(plinth(home.path, ['restore', to]).answer.error.code, 'restore_place')
  const restored = plinth(join(folder, 'restored'), ['restore', to])
  assert.equal(restored.answer.home, join(folder, 'restored'))
  assert.equal(plinth(join(folder, 'restored'), ['models', 'show', 'birds']).status, 0)
})
