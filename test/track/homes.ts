/** Homes and processes for tests: real folders, real children that can be killed. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, realpathSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { TestContext } from 'node:test'
import type { Home } from '../../src/db/home.ts'
import { openHome } from '../../src/track/home.ts'
import type { NewRun } from '../../src/track/runs.ts'

export function temporaryFolder(t: TestContext): string {
  const folder = realpathSync(mkdtempSync(join(tmpdir(), 'plinth-home-')))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

export async function temporaryHome(t: TestContext): Promise<Home> {
  const home = await openHome(join(temporaryFolder(t), 'home'))
  t.after(() => home.close())
  return home
}

export const newRun = (change: Partial<NewRun> = {}): NewRun => ({
  name: 'birds',
  recipe: 'image-classification',
  params: { epochs: 3 },
  environment: {},
  dataset: null,
  device: null,
  ...change,
})

/** The head of a child's program: imports by path from src/, and `home` where the first argument says. */
export const childHead = (imports: Record<string, string>) =>
  Object.entries({ openHome: 'track/home.ts', ...imports })
    .map(([names, file]) => `import { ${names} } from ${JSON.stringify(new URL(`../../src/${file}`, import.meta.url).href)}\n`)
    .join('') + 'const home = await openHome(process.argv[1])\nconst say = value => process.stdout.write(JSON.stringify(value) + "\\n")\n'

export interface Child {
  process: ChildProcess
  lines: AsyncIterableIterator<unknown>
  /** Its exit code, or the signal that ended it. */
  ended: Promise<number | string | null>
}

/** Runs a program of ES modules; each line it says is JSON. `through`: a command in front of Node. */
export function child(program: string, args: readonly string[], through: readonly string[] = []): Child {
  const [command, ...rest] = [...through, process.execPath, '--input-type=module', '--eval', program, ...args]
  const started = spawn(command!, rest, { stdio: ['pipe', 'pipe', 'inherit'] })
  const ended = once(started, 'exit').then(([code, signal]) => code ?? signal)
  const lines = createInterface({ input: started.stdout })[Symbol.asyncIterator]()
  async function* parsed() {
    for await (const line of lines) yield JSON.parse(line) as unknown
  }
  return { process: started, lines: parsed(), ended }
}
