/** What the documents promise: their links lead somewhere, their commands are accepted, their scripts exist. */
import assert from 'node:assert/strict'
import { existsSync, globSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { parseArguments, takeCommonFlags } from '../../src/cli/arguments.ts'
import type { Command } from '../../src/cli/command.ts'
import { groups } from '../../src/cli/commands.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
const pages = globSync(['*.md', 'docs/**/*.md', 'examples/**/*.md', 'bench/**/*.md'], { cwd: root }).map(path => ({
  path,
  text: readFileSync(join(root, path), 'utf8'),
}))

test('every link to a file of the repository leads to one', () => {
  const broken = pages.flatMap(({ path, text }) =>
    [...text.matchAll(/\]\(([^)\s]+)\)/g)]
      .map(([, target]) => target!.replace(/#.*$/, ''))
      .filter(target => target && !/^[a-z]+:/.test(target) && !existsSync(join(root, dirname(path), target)))
      .map(target => `${path} → ${target}`),
  )
  assert.deepEqual(broken, [])
})

test('every plinth command in a code block is one that plinth accepts', async () => {
  const commands: Command[] = await Promise.all(
    groups.flatMap(group => Object.values(group.commands).map(async load => (await load()).default)),
  )
  const refused: string[] = []
  for (const { path, text } of pages) {
    for (const line of commandLines(text)) {
      const { rest, flags } = takeCommonFlags(line)
      if (flags.version || flags.help || !rest.length) continue
      const called = commands.find(({ name }) => `${rest.join(' ')} `.startsWith(`${name} `))
      try {
        assert.ok(called, 'there is no such command')
        parseArguments(called.name, called.arguments, called.options, rest.slice(called.name.split(' ').length), {})
      } catch (error) {
        refused.push(`${path}: plinth ${line.join(' ')}: ${(error as Error).message}`)
      }
    }
  }
  assert.deepEqual(refused, [])
})

test('every npm script that a document names exists', () => {
  const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { scripts: Record<string, string> }
  const named = pages.flatMap(({ path, text }) =>
    [...text.matchAll(/npm run (?:-s |--silent )?([\w:-]+)/g)].map(([, name]) => ({ path, name: name! })),
  )
  assert.deepEqual(
    named.filter(({ name }) => !Object.hasOwn(scripts, name)),
    [],
  )
})

/** The words behind `plinth` in fenced blocks: comments, redirections and what follows `&&` or `|` set aside, quotes removed. */
function commandLines(text: string): string[][] {
  const blocks = [...text.matchAll(/^ *```(?:sh|bash|console|)\n([\s\S]*?)^ *```/gm)].map(([, block]) => block!.replaceAll('\\\n', ' '))
  return blocks
    .flatMap(block => block.split('\n'))
    .flatMap(line => line.replace(/\s#.*$/, '').split(/ && | \| | > | &$/))
    .map(line => line.trim().replace(/^\$ /, '').replace(/^npx /, ''))
    .filter(line => /^plinth(\s|$)/.test(line))
    .map(line => [...line.matchAll(/"([^"]*)"|'([^']*)'|(\S+)/g)].map(([, double, single, bare]) => double ?? single ?? bare!).slice(1))
}
