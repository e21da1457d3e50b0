/** A whole training through the command line: what it says, what it keeps, and that a kill in the middle changes nothing about the result. */
import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { existsSync, globSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import sharp from 'sharp'
import type { Strangers } from '../../src/evaluate/strangers.ts'
import { type Run, TrainResult } from '../../src/sdk/index.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
const scratch = mkdtempSync(join(tmpdir(), 'plinth-training-'))
process.on('exit', () => rmSync(scratch, { recursive: true, force: true }))
const main = join(root, 'src/main.ts')
const environment = (home: string) => ({ ...process.env, PLINTH_HOME: join(scratch, home) })

function plinth(home: string, ...words: string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [main, ...words, '--json'], { encoding: 'utf8', env: environment(home) })
  return {
    status,
    stderr,
    answer: JSON.parse(stdout.trim().split('\n').at(-1)!) as Record<string, unknown> & { error?: { code: string; next: string } },
  }
}

/** Three classes of 20 noisy pictures each, told apart by colour. */
async function makePictures(): Promise<string> {
  const folder = join(scratch, 'pictures')
  let state = 1
  const noise = () => {
    state = (state * 16807) % 2147483647
    return state % 120
  }
  for (const [c, label] of ['red', 'green', 'blue'].entries()) {
    mkdirSync(join(folder, label), { recursive: true })
    for (let i = 0; i < 20; i++) {
      const data = Buffer.from(Array.from({ length: 32 * 32 * 3 }, (_, at) => noise() + (at % 3 === c ? 80 : 0)))
      await sharp(data, { raw: { width: 32, height: 32, channels: 3 } })
        .png()
        .toFile(join(folder, label, `${i}.png`))
    }
  }
  return folder
}

test('a training killed in the middle goes on and ends bit for bit where an undisturbed one ends', async t => {
  const folder = await makePictures()
  const words = ['train', folder, '--name', 'colours', '--epochs', '5', '--image-size', '64', '--threads', '1', '--seed', '4']
  const whole = plinth('whole', ...words)
  assert.equal(whole.status, 0, whole.stderr)
  const undisturbed = TrainResult.parse(whole.answer)
  assert.equal(undisturbed.dataset.images, 60)
  assert.ok(existsSync(undisturbed.report) && existsSync(undisturbed.model.path))

  const page = join(scratch, 'page.html')
  const { unknown, test } = plinth('whole', 'evaluate', 'colours', folder, '--report', page).answer as {
    unknown: Strangers
    test: TrainResult['test']
  }
  assert.deepEqual([unknown.auroc, unknown.falseAlarmRate], [undisturbed.unknown!.auroc, 0.05])
  assert.equal(unknown.rightAmongCalled + unknown.rightAmongOthers, Math.round(test.accuracy * 60))
  assert.equal(unknown.paths.length, unknown.called)
  assert.match(readFileSync(page, 'utf8'), test.accuracy < 1 ? /orange where the picture/ : /every test picture was answered right/)

  const child = spawn(process.execPath, [main, ...words, '--json'], { env: environment('killed'), stdio: 'ignore', detached: true })
  const exited = new Promise(resolve => child.once('exit', resolve))
  while (child.exitCode === null && globSync(join(scratch, 'killed', 'runs', '*', 'checkpoint.safetensors')).length === 0)
    await setTimeout(20)
  process.kill(-child.pid!, 'SIGKILL')
  await exited
  const [after] = (plinth('killed', 'runs', 'list').answer as { runs: Run[] }).runs
  if (after!.status === 'succeeded') return t.skip('the machine was too fast to be interrupted')
  assert.deepEqual([after!.status, after!.reason], ['failed', 'lost'])

  const resumed = plinth('killed', 'train', '--resume', after!.run)
  assert.equal(resumed.status, 0, resumed.stderr)
  const result = TrainResult.parse(resumed.answer)
  assert.equal(result.run, after!.run)
  assert.ok(result.resumedFrom && result.resumedFrom.step > 0)
  assert.deepEqual(result.test, undisturbed.test)
  assert.deepEqual(result.validation, undisturbed.validation)
  assert.deepEqual(result.choices, undisturbed.choices)
  assert.deepEqual(result.unknown, undisturbed.unknown)
  assert.deepEqual(result.mislabels, undisturbed.mislabels)
  const losses = (home: string, id: string) => {
    const lines = readFileSync(join(scratch, home, 'runs', id, 'metrics.jsonl'), 'utf8')
      .trim()
      .split('\n')
    const points = lines.flatMap(line => {
      const { step, values } = JSON.parse(line) as { step: number; values: Record<string, number> }
      return values['train/loss'] === undefined ? [] : [[step, values['train/loss']] as const]
    })
    return Object.fromEntries(points) // of a step that was done twice the later one counts
  }
  assert.deepEqual(losses('killed', result.run), losses('whole', undisturbed.run))

  const again = plinth('killed', 'train', '--resume', result.run)
  assert.equal(again.answer.error?.code, 'training_done')
  const picture = join(folder, 'red', readdirSync(join(folder, 'red'))[0]!)
  const { answer } = plinth('killed', 'predict', 'colours', picture)
  const [row] = answer['predictions'] as { label: string; probabilities: unknown[] }[]
  assert.equal(row!.probabilities.length, 3)
})

test('two trainings at once in one home both end, with models of their own', async () => {
  const folder = join(scratch, 'pictures')
  const start = (name: string) =>
    new Promise<TrainResult>((resolve, reject) => {
      const words = [main, 'train', folder, '--name', name, '--epochs', '0', '--image-size', '64', '--threads', '1', '--json']
      const child = spawn(process.execPath, words, { env: environment('two'), stdio: ['ignore', 'pipe', 'ignore'] })
      let out = ''
      child.stdout.on('data', chunk => {
        out += chunk
      })
      child.once('close', () => {
        const answer = TrainResult.safeParse(JSON.parse(out.trim().split('\n').at(-1) ?? '{}'))
        if (answer.success) resolve(answer.data)
        else reject(new Error(out))
      })
    })
  const [a, b] = await Promise.all([start('colours'), start('colours')])
  assert.notEqual(a!.run, b!.run)
  assert.deepEqual([a!.model.version, b!.model.version].toSorted(), [1, 2])
  assert.deepEqual(a!.test, b!.test)
  assert.deepEqual(a!.dataset, b!.dataset)
})

test('what cannot be trained on is refused with a code and the next step', async () => {
  mkdirSync(join(scratch, 'empty'), { recursive: true })
  for (const [source, code] of [
    [join(scratch, 'empty'), 'no_pictures'],
    [join(scratch, 'not-there'), 'source_not_found'],
    ['a-name', 'dataset_not_found'],
  ] as const) {
    const { status, answer } = plinth('refused', 'train', source)
    assert.equal(answer.error?.code, code)
    assert.equal(status, 1)
    assert.ok(answer.error!.next.length > 10)
  }
  assert.equal(plinth('refused', 'train').status, 2)
})
