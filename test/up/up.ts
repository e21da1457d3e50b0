/** `plinth up` as a process of its own, in a home of the test's own. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import type { TestContext } from 'node:test'
import { fileURLToPath } from 'node:url'

export const main = fileURLToPath(new URL('../../src/main.ts', import.meta.url))

export interface Up {
  url: string
  token: string
  process: ChildProcess
  /** Milliseconds from its start to its line. */
  milliseconds: number
  /** What it said on stderr so far. */
  said(): string
  /** Its exit code, or the signal that ended it. */
  ended: Promise<number | string>
  ask(path: string, init?: RequestInit): Promise<Response>
  /** POST of JSON; the answer, which has to be fine. */
  // biome-ignore lint/suspicious/noExplicitAny: whatever the server answers
  post(path: string, body: object): Promise<any>
}

export async function startUp(
  t: TestContext,
  home: string,
  {
    words = [],
    port = '0',
    environment = {},
    node = [],
  }: { words?: readonly string[]; port?: string; environment?: Record<string, string>; node?: readonly string[] } = {},
): Promise<Up> {
  const started = performance.now()
  const child = spawn(process.execPath, [...node, main, 'up', '--port', port, '--json', ...words], {
    env: { ...process.env, PLINTH_HOME: home, ...environment },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  t.after(() => child.kill('SIGKILL'))
  let said = ''
  child.stderr.setEncoding('utf8').on('data', text => {
    said += text
  })
  const ended = once(child, 'exit').then(([code, signal]) => (code ?? signal) as number | string)
  const lines = createInterface({ input: child.stdout })
  const line = await Promise.race([
    once(lines, 'line').then(([text]) => text as string),
    ended.then(code => {
      throw new Error(`plinth up ended with ${code}: ${said}`)
    }),
  ])
  const answer = JSON.parse(line) as { url: string; token: string; error?: object }
  if (answer.error) throw Object.assign(new Error(line), answer.error)
  const milliseconds = performance.now() - started
  const ask: Up['ask'] = (path, init = {}) =>
    fetch(new URL(path, answer.url), { ...init, headers: { authorization: `Bearer ${answer.token}`, ...init.headers } })
  return {
    ...answer,
    process: child,
    milliseconds,
    said: () => said,
    ended,
    ask,
    async post(path, body) {
      const response = await ask(path, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) })
      if (!response.ok) throw new Error(`${response.status} ${await response.text()}`)
      return await response.json()
    },
  }
}

/** One command of ours to its end; the last line of stdout as JSON. */
export function plinth(home: string, words: readonly string[], environment: Record<string, string> = {}) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [main, ...words, '--json'], {
    env: { ...process.env, PLINTH_HOME: home, ...environment },
    encoding: 'utf8',
  })
  // biome-ignore lint/suspicious/noExplicitAny: whatever the command answers
  return { status, answer: JSON.parse(stdout.trim().split('\n').at(-1)!) as any, stderr }
}
