/** Notebooks as jobs: cells in order, outputs kept, errors named, the exit code of a script. */
import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { checkNotebook } from '../../../src/jobs/environments/notebook.ts'
import { python as peer } from '../../peers.ts'
import { makePlace, noPython, python3 } from './attempts.ts'

const options = { skip: python3 === null && noPython }
const runner = fileURLToPath(new URL('../../../python/plinth-job/run_notebook.py', import.meta.url))
const folder = mkdtempSync(join(tmpdir(), 'notebooks-'))

/** An interpreter with nothing installed, whatever this machine's own has. */
const bare = join(folder, 'bare', 'bin', 'python')
if (python3) spawnSync(python3, ['-m', 'venv', '--without-pip', join(folder, 'bare')])
const hasIPython = python3 !== null && spawnSync(python3, ['-c', 'import IPython']).status === 0

type Cell = string | { source: string; tags?: string[]; type?: string }
const notebook = (...cells: Cell[]) => ({
  ...{ nbformat: 4, nbformat_minor: 5, metadata: { kernelspec: { name: 'python3', language: 'python', display_name: 'Python' } } },
  cells: cells.map((cell, i) => {
    const { source, tags = [], type = 'code' } = typeof cell === 'string' ? { source: cell } : cell
    const rest =
      type === 'code' ? { outputs: [{ output_type: 'stream', name: 'stdout', text: ['of an earlier run'] }], execution_count: 99 } : {}
    return { cell_type: type, id: `c${i}`, metadata: { tags }, source: source.split(/(?<=\n)/), ...rest }
  }),
})
interface Output {
  output_type: string
  name?: string
  text?: string[]
  data?: Record<string, string>
  ename?: string
  evalue?: string
}
let number = 0
function run(cells: Cell[], { python = bare, words = [] as string[] } = {}) {
  const [work, outputs] = [join(folder, `${++number}`), join(folder, `${number}-out`)]
  mkdirSync(work)
  writeFileSync(join(work, 'train.ipynb'), JSON.stringify(notebook(...cells)))
  writeFileSync(join(work, 'beside.txt'), 'beside\n')
  const done = spawnSync(python, [runner, join(work, 'train.ipynb'), ...words], {
    encoding: 'utf8',
    maxBuffer: 1 << 25,
    env: { PATH: '/usr/bin:/bin', HOME: folder, PLINTH_OUTPUT_DIR: outputs },
  })
  const copy = JSON.parse(readFileSync(join(outputs, 'train.ipynb'), 'utf8')) as {
    cells: { outputs?: Output[]; execution_count?: number | null }[]
  }
  return { ...done, cells: copy.cells, original: readFileSync(join(work, 'train.ipynb'), 'utf8') }
}

test('cells run in order in the folder of the notebook; what they print is in the log and in the copy', options, () => {
  const { status, stdout, stderr, cells, original } = run(
    [
      { source: '# Title', type: 'markdown' },
      'import sys\nx = 20\nprint("one")\nprint("two", file=sys.stderr)',
      '',
      'print(open("beside.txt").read(), end="")\nx + 1',
      'sys.argv[1:]',
    ],
    { words: ['--epochs', '3'] },
  )
  assert.equal(status, 0, stderr)
  assert.equal(stdout, "one\nbeside\n21\n['--epochs', '3']\n")
  assert.match(stderr, /^plinth: IPython is not in the environment: the cells run as plain Python\ntwo\n$/)
  assert.deepEqual(
    cells.map(cell => cell.execution_count),
    [undefined, 1, null, 2, 3],
  )
  assert.deepEqual(
    cells[1]!.outputs!.map(({ name, text }) => [name, text]),
    [
      ['stdout', ['one\n']],
      ['stderr', ['two\n']],
    ],
  )
  assert.deepEqual(
    cells[3]!.outputs!.map(({ output_type }) => output_type),
    ['stream', 'execute_result'],
  )
  assert.match(original, /of an earlier run/) // what the user wrote is not touched
})

test('a cell that fails ends the job with 1, is named, and what ran before is kept', options, () => {
  const { status, stderr, cells } = run(['a = 1\na', 'def f():\n    raise ValueError("no good")\nf()', 'print("never")'])
  assert.equal(status, 1)
  assert.match(stderr, /plinth: train\.ipynb failed in cell 2, In \[2\] \(def f\(\):\): ValueError: no good\n$/)
  assert.match(stderr, /File "<cell 2>", line 2, in f\n\s+raise ValueError/)
  assert.deepEqual(
    [cells[0]!.outputs![0]!.data!['text/plain'], cells[1]!.outputs![0]!.ename, cells[1]!.outputs![0]!.evalue],
    ['1', 'ValueError', 'no good'],
  )
  assert.deepEqual(cells[2]!.outputs, [])
})

test('a cell that is meant to fail does not end it; sys.exit does, with its code; magics without IPython are explained', options, () => {
  const { status, cells } = run([{ source: '1 / 0', tags: ['raises-exception'] }, 'import sys\nsys.exit(7)', 'print("never")'])
  assert.equal(status, 7)
  assert.equal(cells[0]!.outputs![0]!.ename, 'ZeroDivisionError')
  const magic = run(['%time 1'])
  assert.equal(magic.status, 1)
  assert.match(magic.stderr, /uses % or ! of IPython, which is not in the environment: add ipython/)
})

test('a notebook that is stopped keeps what the running cell had printed', options, async () => {
  const work = join(folder, 'stopped')
  mkdirSync(work)
  writeFileSync(
    join(work, 'long.ipynb'),
    JSON.stringify(notebook('print("before")', 'print("begun")\nimport time\nwhile True: time.sleep(0.05)')),
  )
  const child = spawn(python3!, [runner, join(work, 'long.ipynb')], {
    env: { PATH: '/usr/bin:/bin', PLINTH_OUTPUT_DIR: work, HOME: folder },
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  await new Promise<void>(done => {
    let out = ''
    child.stdout.on('data', text => {
      out += text
      if (out.includes('begun')) done()
    })
  })
  child.kill('SIGTERM')
  const signal = await new Promise(done => child.on('exit', (_, by) => done(by)))
  assert.equal(signal, 'SIGTERM')
  const { cells } = JSON.parse(readFileSync(join(work, 'long.ipynb'), 'utf8')) as { cells: { outputs: Output[] }[] }
  assert.deepEqual(
    cells.map(({ outputs }) => outputs.flatMap(({ text }) => text)),
    [['before\n'], ['begun\n']],
  )
})

test('ten million characters of a cell are kept, the log has all', options, () => {
  const { status, stdout, cells } = run(['print("x" * 10_500_000)\nprint("end")'])
  assert.equal(status, 0)
  assert.equal(stdout.length, 10_500_000 + 5)
  const kept = cells[0]!.outputs![0]!.text!.join('')
  assert.ok(kept.length < 10_000_200 && /… the rest is in the log of the job\n$/.test(kept))
})

test('with IPython cells have magics, rich output and errors as in Jupyter', t => {
  const python = peer()
  if (python === null || spawnSync(python, ['-c', 'import IPython']).status !== 0)
    return t.skip('a Python with IPython is not installed (npm run peers)')
  const { status, stdout, stderr, cells } = run(
    [
      '%env NAME=x',
      '!echo from a shell',
      'from IPython.display import HTML, display\ndisplay(HTML("<b>bold</b>"))',
      'await __import__("asyncio").sleep(0)\n5',
      '1/0',
    ],
    { python },
  )
  assert.equal(status, 1)
  assert.match(stdout, /from a shell/)
  assert.match(stderr, /failed in cell 5, In \[5\] \(1\/0\): ZeroDivisionError: division by zero\n$/)
  assert.equal(cells[1]!.outputs![0]!.text!.join('').trim(), 'from a shell')
  assert.equal(cells[2]!.outputs![0]!.data!['text/html'], '<b>bold</b>')
  assert.equal(cells[3]!.outputs![0]!.data!['text/plain'], '5')
  assert.equal(cells[4]!.outputs![0]!.ename, 'ZeroDivisionError')
})

test('a file that is no notebook is refused before anything is installed', async () => {
  const cases: [string, RegExp][] = [
    ['', /it is empty/],
    ['{"cells": [', /it is no JSON/],
    ['[]', /the file: invalid input/],
    ['{"nbformat": 3, "worksheets": []}', /it is of format 3, and format 4 is read/],
    ['{"nbformat": 4}', /cells: invalid input/],
    ['{"nbformat": 4, "cells": [{"cell_type": "code"}]}', /cells\.0\.source: invalid input/],
    [
      JSON.stringify({ ...notebook('1'), metadata: { kernelspec: { language: 'R', name: 'ir' } } }),
      /it is written in R, and Python is what runs/,
    ],
  ]
  for (const [text, problem] of cases) {
    writeFileSync(join(folder, 'wrong.ipynb'), text)
    await assert.rejects(
      checkNotebook(folder, 'wrong.ipynb'),
      (error: Error) => problem.test(error.message) || assert.fail(`${text}: ${error.message}`),
    )
  }
  await assert.rejects(checkNotebook(folder, 'none.ipynb'), /There is no file none\.ipynb/)
})

test('a job that names a notebook has the program that runs it', options, async () => {
  const place = makePlace()
  place.write('sub/train.ipynb', JSON.stringify(notebook('print(open("x.txt").read())')))
  place.write('sub/x.txt', 'found')
  const prepared = await place.prepare({ spec: { notebook: 'sub/train.ipynb' } })
  assert.equal(prepared.code, 0, prepared.err)
  // the folder of packages has no IPython
  if (!hasIPython) assert.match(prepared.out, /IPython could not be installed, so the cells run as plain Python/)
  assert.equal(prepared.run(['plinth-notebook', 'sub/train.ipynb'], { PLINTH_OUTPUT_DIR: join(place.folder, 'out') }), 'found')
  place.write('broken.ipynb', '{')
  const broken = await place.prepare({ spec: { notebook: 'broken.ipynb' } })
  assert.equal(broken.code, 126)
  assert.match(broken.err, /^broken\.ipynb is no notebook that can be run: it is no JSON/)
})
