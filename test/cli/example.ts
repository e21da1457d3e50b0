#!/usr/bin/env node
/** A small program on the command-line frame, for the tests beside it: each command does one thing that a command can do. */
import { defineCommand } from '../../src/cli/command.ts'
import { dispatch } from '../../src/cli/dispatch.ts'
import { Failure } from '../../src/failure.ts'

const commands = [
  defineCommand({
    name: 'show',
    summary: 'show what was understood',
    arguments: { files: { summary: 'any number of files', many: true, optional: true } },
    options: {
      seed: { type: 'integer', minimum: 0, default: 7, env: 'EXAMPLE_SEED', summary: 'a seed' },
      rate: { type: 'number', minimum: 0, summary: 'a rate' },
      budget: { type: 'duration', summary: 'a time' },
      'image-size': { type: 'integer', maximum: 512, summary: 'a size' },
      kind: { type: 'string', choices: ['cat', 'dog'], default: 'cat', summary: 'a kind' },
      serve: { type: 'boolean', default: true, summary: 'do not serve' },
      force: { type: 'boolean', summary: 'force it' },
    },
    examples: ['example show a b --seed 3'],
    async run(values, { out, say, result }) {
      say('working')
      out(`seed ${values.seed}, ${values.files.length} files`)
      result({ ...values, odd: [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY] })
    },
  }),
  defineCommand({
    name: 'things list',
    summary: 'list the things',
    async run(_, { table }) {
      table(
        ['name', { title: 'size', align: 'right' }],
        [
          ['été', '1'],
          ['日本語', '1000'],
          ['evil\u001b[2Jname', '20'],
        ],
      )
    },
  }),
  defineCommand({ name: 'things add', summary: 'add a thing', arguments: { thing: { summary: 'what to add' } }, async run() {} }),
  defineCommand({
    name: 'wait',
    summary: 'wait until asked to stop',
    async run(_, { out, signal }) {
      out('waiting')
      await untilAborted(signal)
      signal.throwIfAborted()
    },
  }),
  defineCommand({
    name: 'serve',
    summary: 'wait until asked to stop, and call that a success',
    async run(_, { out, result, signal }) {
      result({ url: 'here' })
      out('serving')
      await untilAborted(signal)
      out('served')
    },
  }),
  defineCommand({
    name: 'deaf',
    summary: 'hear no signal',
    async run(_, { out }) {
      out('waiting')
      await new Promise(resolve => setTimeout(resolve, 60_000))
    },
  }),
  defineCommand({
    name: 'count',
    summary: 'print many lines',
    async run(_, { out, signal }) {
      for (let i = 0; !signal.aborted; i++) {
        out(`line ${i}`)
        await new Promise(resolve => setImmediate(resolve))
      }
    },
  }),
  defineCommand({
    name: 'refuse',
    summary: 'refuse',
    async run() {
      throw new Failure('weights_missing', { name: 'evil\u001b[31m' })
    },
  }),
  defineCommand({
    name: 'break',
    summary: 'break',
    options: { later: { type: 'boolean', summary: 'in a callback' } },
    async run({ later }) {
      if (!later) throw new TypeError('x is not a function')
      await new Promise(() => setTimeout(() => Promise.reject(new TypeError('y is not a function')), 1))
    },
  }),
  defineCommand({ name: 'code', summary: 'end with 5', run: async () => 5 }),
  defineCommand({
    name: 'progress',
    summary: 'make progress',
    async run(_, { progress, out, say, interactive }) {
      const bar = progress('reading', 4, { unit: 'pictures' })
      for (let i = 1; i <= 4; i++) {
        await new Promise(resolve => setTimeout(resolve, 120)) // longer than the pause between two drawings
        bar.update(i, 'fine')
        if (i === 2) out('half')
      }
      bar.end()
      say(interactive ? 'on a terminal' : 'in a pipe')
    },
  }),
]

function untilAborted(signal: AbortSignal): Promise<void> {
  const alive = setInterval(() => {}, 60_000)
  return new Promise(resolve => signal.addEventListener('abort', () => resolve(clearInterval(alive))))
}

const group = {
  title: 'Examples',
  commands: Object.fromEntries(commands.map(command => [command.name, async () => ({ default: command })])),
}
process.exit(await dispatch(process.argv.slice(2), process, [group]))
