/** The command as a user types it, in processes of its own. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync, readFileSync, statSync, watch, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { type TestContext, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { resolveDataset } from '../../../src/data/versions.ts'
import type { Copies, Split } from '../../../src/sdk/shapes.ts'
import { createRun } from '../../../src/track/runs.ts'
import { newRun, temporaryFolder } from '../../track/homes.ts'
import { pets, type Reviewed, suspected } from './reviews.ts'

const main = fileURLToPath(new URL('../../../src/main.ts', import.meta.url))

function started({ home }: Pick<Reviewed, 'home'>, change: Record<string, string>, ...words: string[]) {
  const environment = { ...process.env, ...change, PLINTH_HOME: home.path, PLINTH_CACHE: join(home.path, 'cache'), NO_COLOR: '1' }
  return spawn(process.execPath, [main, 'data', 'review', ...words], {
    env: environment,
    cwd: home.path,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
}
async function plinth(given: Pick<Reviewed, 'home'>, ...words: string[]) {
  const child = started(given, {}, ...words)
  let [out, err] = ['', '']
  child.stdout.on('data', part => (out += part))
  child.stderr.on('data', part => (err += part))
  const [code] = await once(child, 'close')
  return { code, out, err, json: () => JSON.parse(out.trim().split('\n').at(-1)!) }
}

/** A run on `pets@1` that has found what trainings find. */
async function trained(t: TestContext) {
  const given = await pets(t)
  const { home, reference, manifest } = given
  const run = await createRun(home, newRun({ name: 'pets', dataset: reference }))
  await run.start()
  const none = { schema: 1 as const, dataset: reference.digest }
  const copies: Copies = {
    ...none,
    tiers: ['pixels'],
    samePicture: [
      [manifest.rows.findIndex(({ path }) => path === 'cat/5.png'), manifest.rows.findIndex(({ path }) => path === 'cat/6.png')],
    ],
    sameScene: [],
    alike: [],
    notJudged: [],
    threshold: 0.9,
    recall: [],
    notes: [],
  }
  const row = (path: string) => manifest.rows.findIndex(each => each.path === path)
  const split: Split = {
    ...none,
    seed: 0,
    ratios: [0.7, 0.15, 0.15],
    train: [row('cat/1.png')],
    validation: [],
    test: [row('cat/3.png')],
    notes: [],
  }
  const mislabels = suspected({ path: 'cat/3.png', label: 'cat', suggestion: 'dog' })
  for (const [name, value] of Object.entries({ copies, split, mislabels }))
    writeFileSync(join(run.directory, `${name}.json`), JSON.stringify(value))
  await run.finish('succeeded')
  return { ...given, run: run.run.run }
}

test('a run is reviewed with what its training found; the first letters of its id are enough', async t => {
  const given = await trained(t)
  const { code, json } = await plinth(given, given.run.slice(0, 10), '--list', '--json')
  assert.equal(code, 0)
  const { review } = json()
  assert.deepEqual(review.dataset, given.reference)
  const items: { kind: string; pictures: { path: string; side: string }[]; exact: boolean }[] = review.items
  assert.deepEqual(
    items.map(({ kind, pictures }) => `${kind} ${pictures.map(({ path }) => path).join(' ')}`),
    [
      'conflict cat/2.png dog/cat 2.png',
      'conflict cat/dog 20.png dog/0.png',
      'mislabel cat/3.png',
      'copy cat/1.png cat/twin.png',
      'copy cat/5.png cat/6.png',
    ],
  )
  assert.deepEqual([items[2]!.pictures[0]!.side, items[4]!.exact], ['test', false])
  const byName = await plinth(given, 'pets', '--list')
  assert.match(byName.out, /pets@1: 5 questions \(2 with two labels, 1 likely mislabel, 2 groups of copies\)/)
})

test('a dataset that nobody looked at is searched once, and a folder is imported first', async t => {
  const given = await pets(t)
  const { json } = await plinth(given, 'pets', '--list', '--json')
  const { items, dataset } = json().review
  assert.ok(items.length >= 3 && items[0].kind === 'conflict', JSON.stringify(items.map((item: { kind: string }) => item.kind)))
  const [kept] = readdirSync(join(given.home.path, 'reviews/found'))
  assert.equal(kept, `${dataset.digest}.json`)
  const found = JSON.parse(readFileSync(join(given.home.path, 'reviews/found', kept!), 'utf8'))
  assert.ok(found.deep && found.copies.dataset === dataset.digest)
  const { mtimeMs } = statSync(join(given.home.path, 'reviews/found', kept!))
  const again = await plinth(given, 'pets', '--list', '--json')
  assert.deepEqual(again.json().review.items, items)
  assert.equal(statSync(join(given.home.path, 'reviews/found', kept!)).mtimeMs, mtimeMs, 'it was not searched again')
  const folder = await plinth(given, given.folder, '--list', '--only', 'conflict', '--json')
  assert.equal(folder.json().review.dataset.digest, dataset.digest)
})

test('--open hands a browser an address that is good once, never through a shell, and its absence is told', async t => {
  const given = await trained(t)
  const bin = temporaryFolder(t)
  const opened = async (path: string) => {
    const child = started(given, { PATH: path }, given.run, '--open', '--json')
    let said = ''
    child.stderr.on('data', part => (said += part))
    const { review } = JSON.parse((await once(child.stdout.setEncoding('utf8'), 'data'))[0])
    return { child, review, said: () => said, ended: once(child, 'close') }
  }
  const without = await opened(bin)
  while (!without.said().includes('no program here that opens a browser')) await once(without.child.stderr, 'data')
  without.child.kill('SIGINT')
  await without.ended

  const told = join(bin, 'told')
  writeFileSync(join(bin, 'xdg-open'), `#!/bin/sh\nprintf '%s\\n' "$#" "$1" > '${told}.part' && /bin/mv '${told}.part' '${told}'\n`, {
    mode: 0o755,
  })
  const changes = watch(bin)
  const within = await opened(bin)
  while (!existsSync(told)) await once(changes, 'change')
  changes.close()
  const [count, url] = readFileSync(told, 'utf8').split('\n')
  assert.equal(count, '1')
  assert.match(url!, /^http:\/\/127\.0\.0\.1:\d+\/#ticket=[\w-]{43}$/)
  assert.ok(!url!.includes(within.review.url.split('#token=')[1]))
  within.child.kill('SIGINT')
  assert.deepEqual(await within.ended, [0, null])
})

test('verdicts from a file make the next version, and the same file again makes none', async t => {
  const given = await trained(t)
  const file = join(temporaryFolder(t), 'verdicts.jsonl')
  writeFileSync(file, '{"path":"cat/3.png","verdict":"relabel","to":"dog"}\n{"path":"cat/twin.png","verdict":"drop","reason":"copy"}\n')
  const { code, out } = await plinth(given, given.run, '--verdicts', file)
  assert.equal(code, 0, out)
  assert.match(out, /pets@2: 18 pictures \(1 relabelled, 1 dropped\), made from pets@1/)
  assert.match(out, /1 change is about test pictures of the run: its accuracy was measured with the old labels/)
  const { manifest } = await resolveDataset(given.home, 'pets@2')
  assert.deepEqual(manifest.rows.find(({ path }) => path === 'cat/3.png')!.labels, ['dog'])
  assert.ok(!manifest.rows.some(({ path }) => path === 'cat/twin.png'))
  const again = await plinth(given, 'pets@1', '--verdicts', file, '--json')
  const { dataset, parent, made, relabelled, dropped } = again.json()
  assert.deepEqual([dataset.version, parent.version, made, relabelled, dropped], [2, 1, true, 1, 1])
  const applied = await plinth(given, 'pets', '--apply', '--json')
  assert.deepEqual([applied.code, applied.json().made, applied.json().dataset.version], [0, false, 2])
})

test('what cannot be is refused with a code, a next step and the right exit code', async t => {
  const given = await trained(t)
  const file = join(temporaryFolder(t), 'verdicts.jsonl')
  writeFileSync(file, '{"path":"cat/3.png","verdict":"keep"}\n{"path":"cat/99.png","verdict":"drop"}\n')
  const { run } = await createRun(given.home, newRun())
  const refused: [exit: number, code: string, ...words: string[]][] = [
    [1, 'verdicts_invalid', 'pets', '--verdicts', file],
    [1, 'verdicts_unreadable', 'pets', '--verdicts', `${file}.not`],
    [1, 'dataset_not_found', 'fish', '--list'],
    [1, 'run_not_found', 'ffff0000', '--list'],
    [1, 'review_run_without_dataset', run.run, '--list'],
    [2, 'usage', 'pets', '--list', '--apply'],
  ]
  await Promise.all(
    refused.map(async ([exit, expected, ...words]) => {
      const { code, json } = await plinth(given, ...words, '--json')
      const { error } = json()
      assert.deepEqual([code, error.code], [exit, expected], words.join(' '))
      assert.ok(error.next.length > 10)
    }),
  )
})

test('a review stopped with Ctrl-C, or killed, says and keeps how far it was', async t => {
  const given = await trained(t)
  const begin = async (...words: string[]) => {
    const child = started(given, {}, given.run, '--json', ...words)
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
    const { review } = JSON.parse((await lines.next()).value!)
    const [url, token] = review.url.split('#token=')
    const ask = (path: string, body?: object) =>
      fetch(new URL(path, url), {
        ...(body && { method: 'POST', body: JSON.stringify(body) }),
        headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
      })
    const answer = async (place: number, verdict: string) => {
      const { items } = (await (await ask('/items')).json()) as { items: { id: string; pictures: { path: string }[] }[] }
      const { id, pictures } = items[place]!
      return (await ask('/verdicts', { item: id, answers: pictures.map(({ path }) => ({ path, verdict })) })).status
    }
    return { child, review, ask, answer, ended: once(child, 'close') }
  }
  const first = await begin()
  assert.equal(first.review.items, 5)
  assert.equal(await first.answer(2, 'drop'), 200)
  first.child.kill('SIGKILL')
  await first.ended

  const second = await begin()
  assert.deepEqual([second.review.items, second.review.earlier, second.review.dropped], [4, 1, 1])
  assert.equal(await second.answer(0, 'keep'), 200)
  let said = ''
  second.child.stderr.on('data', part => (said += part))
  second.child.kill('SIGINT')
  assert.deepEqual(await second.ended, [0, null])
  assert.match(
    said,
    /Stopped after 1 of 4 questions; 0 relabelled and 1 dropped so far\. All of it is kept\.\nGo on: plinth data review pets@1\nMake the new version: plinth data review pets@1 --apply/,
  )
  const applied = await plinth(given, 'pets@1', '--apply')
  assert.match(applied.out, /pets@2: 18 pictures \(0 relabelled, 1 dropped\)/)

  const third = await begin()
  assert.equal((await third.ask('/versions', {})).status, 200)
  let told = ''
  third.child.stderr.on('data', part => (told += part))
  third.child.kill('SIGINT')
  await third.ended
  assert.match(told, /All of it is in pets@2\. Train on it: plinth train pets@2/)
})
