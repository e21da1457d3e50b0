/** The table of commands, walked: what each says about itself must be true. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { test } from 'node:test'
import { parseArguments, takeCommonFlags } from '../../src/cli/arguments.ts'
import type { Command } from '../../src/cli/command.ts'
import { groups } from '../../src/cli/commands.ts'
import completion from '../../src/cli/completion.ts'
import type { Context } from '../../src/cli/output.ts'

const entries = groups.flatMap(group => Object.entries(group.commands))
const commands: Command[] = await Promise.all(entries.map(async ([, load]) => (await load()).default))

const everyday = new Set(Object.keys(groups[0]!.commands).filter(name => name !== 'doctor')) // doctor takes nothing

test('a command is called what the table calls it', () => {
  assert.deepEqual(
    commands.map(command => command.name),
    entries.map(([name]) => name),
  )
})

test('summaries read as one list', () => {
  for (const { name, summary, options, arguments: places } of commands) {
    const lines = [summary, ...Object.values(options).map(option => option.summary), ...Object.values(places).map(place => place.summary)]
    for (const line of lines) assert.match(line, /^[^A-Z\s].*[^.\s]$/, `${name}: "${line}" begins small and has no full stop`)
    assert.ok(summary.length <= 90, `${name}: the summary fits on a line`)
  }
})

test('every example is a command line that the command accepts', () => {
  for (const command of commands) {
    const lines = command.examples
      .flatMap(example => example.split(/ && | \| | > (?![\d.])/))
      .map(line => line.replace(/^npx /, ''))
      .filter(line => line.startsWith('plinth '))
    if (everyday.has(command.name)) assert.ok(lines.length, `${command.name} has an example`)
    for (const line of lines) {
      const { rest } = takeCommonFlags(words(line).slice(1))
      const called = commands.find(({ name }) => `${rest.join(' ')} `.startsWith(`${name} `))
      assert.ok(called, `${line} names a command`)
      parseArguments(called.name, called.arguments, called.options, rest.slice(called.name.split(' ').length), {})
    }
  }
})

test('arguments and options of one command do not share a name', () => {
  for (const { name, arguments: places, options } of commands) {
    assert.deepEqual(
      Object.keys(places).filter(place => Object.hasOwn(options, place)),
      [],
      name,
    )
    assert.ok(
      Object.values(places)
        .slice(0, -1)
        .every(place => !place.many),
      `${name}: only the last argument may take all that is left`,
    )
  }
})

for (const shell of ['bash', 'zsh', 'fish'] as const) {
  test(`the completion for ${shell} names every command and is sound`, async t => {
    let script = ''
    const context = { out: (text: string) => (script += text), result: () => {}, commands: async () => commands }
    await completion.run({ shell }, context as unknown as Context)
    for (const { name } of commands) for (const word of name.split(' ')) assert.match(script, new RegExp(`\\b${word}\\b`), name)
    // zsh's part is a bash script behind one line of zsh
    const check = spawnSync(shell === 'fish' ? 'fish' : 'bash', shell === 'fish' ? ['--no-execute'] : ['-n'], {
      input: script,
      encoding: 'utf8',
    })
    if (check.error) return t.skip(`${shell} is not installed`)
    assert.equal(check.stderr, '')
  })
}

test('bash completes commands, verbs and options', async () => {
  let script = ''
  await completion.run({ shell: 'bash' }, {
    out: (text: string) => (script += text),
    result: () => {},
    commands: async () => commands,
  } as unknown as Context)
  const complete = (...words: string[]) => {
    const call = `COMP_WORDS=(${words.map(word => `'${word}'`).join(' ')}); COMP_CWORD=${words.length - 1}; _plinth; echo "\${COMPREPLY[*]}"`
    return spawnSync('bash', ['-c', `${script}\n${call}`], { encoding: 'utf8' })
      .stdout.trim()
      .split(' ')
  }
  assert.deepEqual(complete('plinth', 'compl'), ['completion'])
  assert.ok(complete('plinth', 'runs', '').includes('list'))
  assert.ok(complete('plinth', 'completion', 'bash', '--').includes('--json'))
})

/** As a shell would split them, of the quotes that examples use. */
const words = (line: string): string[] => [...line.matchAll(/(?:'[^']*'|"[^"]*"|[^\s'"])+/g)].map(([word]) => word.replace(/['"]/g, ''))
