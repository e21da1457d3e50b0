/**
 * Starts the processes of a phase, each behind its wrapper (command.ts).
 *
 * Only node: modules are imported: the shim uses it.
 */
import { spawn } from 'node:child_process'
import { closeSync, existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Attempt, Phase, PreparedEnvironment } from '../../attempt.ts'
import type { Groups } from './cgroups.ts'
import { longestWord, runWords, shellWords, wrapper } from './command.ts'
import { files, isFolder, type Placement, pipePath, readJson, reserveReport } from './folder.ts'
import { openForPrinting } from './pump.ts'
import { inheritedVariables, type Ports, type Rank, variablesOf } from './variables.ts'

/** One process of a phase. */
export interface Work {
  /** `<phase>.<number>` */
  name: string
  phase: Phase
  /** What its wrapper's files begin with. */
  files: string
  rank: Rank | null
  /** undefined: it runs, or is about to; null: it ended and nobody knows how, or it never began. */
  code: number | null | undefined
  /** Why it could not be tried. */
  refused: string | null
  /** A shim before this one started it, or its wrapper is gone: nobody tells how it ends, so it is looked at. */
  watched: boolean
  /** It has been asked to end. */
  terminated: boolean
  launches: number
}

export const workOf = (folder: string, phase: Phase, rank: Rank | null): Work => {
  const name = `${phase}.${rank?.index ?? 0}`
  return {
    name,
    phase,
    files: join(folder, name),
    rank,
    ...{ code: undefined, refused: null, watched: false, terminated: false, launches: 0 },
  }
}

export interface Launcher {
  attempt: Attempt
  placement: Placement
  folder: string
  secrets: Readonly<Record<string, string>>
  groups: Groups
  /** Program of the phase `environment`; null: there is none. */
  environmentPhase: string | null
  /** It could not be tried. */
  failed(work: Work, why: string): void
  /** Its wrapper has ended, by itself or killed. */
  wrapperEnded(work: Work, code: number | null, by: NodeJS.Signals | null): void
}

export function launch(work: Work, ports: Ports | null, launcher: Launcher): void {
  const { attempt, placement, folder, secrets, groups, failed } = launcher
  const { name, phase, rank } = work
  const paths = files(folder)
  const cwd = attempt.spec.workdir ?? paths.work
  if (!isFolder(cwd)) {
    failed(work, `Its folder ${cwd} is not there.`)
    return
  }
  work.launches++
  const prepared = readJson<PreparedEnvironment>(paths.environment)
  const inherited = inheritedVariables(process.env)
  const env = variablesOf({ attempt, folder, inherited, prepared, secrets: { ...secrets }, rank, ports, process: name })
  if (phase === 'environment') for (const key of ['PLINTH_HOME', 'PLINTH_CACHE']) env[key] = process.env[key] ?? ''
  // building an environment takes what it takes; only what the job itself does is limited
  const node = phase === 'environment' ? null : (rank?.node ?? 0)
  const index = rank?.index ?? 0
  const out = openForPrinting(pipePath(folder, index, 'out'))
  const err = openForPrinting(pipePath(folder, index, 'err'))
  try {
    reserveReport(work.files)
    const own = [work.files, name, paths.control, groups.entrances(node).join('\n'), placement.cores[node ?? 0] ?? '']
    const child = spawn('/bin/sh', ['-c', wrapper, 'plinth', ...own, ...wordsOf(work, launcher)], {
      ...{ cwd, env, detached: true, stdio: ['ignore', out, err] },
    })
    // by what is wrong, spawn says so or throws
    child.on('error', error => failed(work, `It could not be started: ${error.message}`))
    child.on('exit', (code, by) => launcher.wrapperEnded(work, code, by))
  } catch (error) {
    failed(work, `It could not be started: ${(error as Error).message}`)
  } finally {
    closeSync(out)
    closeSync(err)
  }
}

function wordsOf({ phase }: Work, { attempt: { spec }, folder, environmentPhase }: Launcher): string[] {
  if (phase === 'environment') return [process.execPath, environmentPhase!, folder]
  if (phase === 'setup') return shellWords(spec.setup!, scriptFile(folder, 'setup', spec.setup!))
  return runWords(spec, scriptFile(folder, 'run', 'argv' in spec.run ? '' : spec.run.shell))
}

/** A text that is too long for a word of the command line stands in a file. */
function scriptFile(folder: string, name: string, text: string): string {
  const path = join(folder, `${name}.sh`)
  if (Buffer.byteLength(text) > longestWord && !existsSync(path)) writeFileSync(path, text, { mode: 0o600 })
  return path
}
