/** From the words typed to the command that runs, and from what it throws to an exit code: 0 fine, 1 failure, 2 usage, 130 interrupted. */
import { serverUrl, version } from '../config.ts'
import { Failure } from '../failure.ts'
import { parseArguments, suggestion, takeCommonFlags } from './arguments.ts'
import type { Command } from './command.ts'
import { type Group, groups } from './commands.ts'
import { helpForAll, helpForCommand, helpForNoun } from './help.ts'
import { createOutput, type Terminal } from './output.ts'

/** Runs one command line and answers its exit code. */
export async function dispatch(words: readonly string[], terminal: Terminal = process, known: readonly Group[] = groups): Promise<number> {
  const { flags, rest } = takeCommonFlags(words)
  const interruption = new AbortController()
  const output = createOutput(terminal, flags, interruption.signal, () => readCommands(known))
  const stopListening = listenForSignals(interruption, output.note)
  stopWhenNobodyReads(terminal, interruption)
  // what breaks in a callback, or in a promise nobody waits for, is told like any other error
  const crashed = Promise.withResolvers<never>()
  process.on('uncaughtException', crashed.reject)
  let failed = 1
  try {
    const code = await Promise.race([
      runWords(rest, flags, output.context, known, command => {
        failed = command.failure
      }),
      crashed.promise,
    ])
    output.finish()
    await written(terminal.stdout)
    return code
  } catch (error) {
    const failure = asFailure(error)
    if (failure.code === 'internal' && process.env['PLINTH_DEBUG'] === '1')
      output.note(error instanceof Error ? (error.stack ?? error.message) : String(error))
    output.fail(failure)
    return exitCode(failure, failed)
  } finally {
    stopListening()
    process.off('uncaughtException', crashed.reject)
  }
}

async function runWords(
  words: readonly string[],
  flags: ReturnType<typeof takeCommonFlags>['flags'],
  context: ReturnType<typeof createOutput>['context'],
  known: readonly Group[],
  onCommand: (command: Command) => void,
): Promise<number> {
  const bold = (text: string) => context.style('bold', text)
  const help = flags.help || words[0] === 'help'
  const asked = words[0] === 'help' ? words.slice(1) : words
  if (flags.version) {
    context.out(version)
    context.result({ version })
    return 0
  }
  if (asked.length === 0) {
    context.out(await helpForAll(known, bold))
    return 0
  }
  const found = await findCommand(asked, known)
  if ('verbs' in found) {
    if (!help)
      throw new Failure('usage', {
        problem: `${found.noun} needs a verb: ${found.verbs.map(verb => verb.name.slice(found.noun.length + 1)).join(', ')}.`,
        command: found.noun,
      })
    context.out(helpForNoun(found.noun, found.verbs, bold))
    return 0
  }
  if (help) {
    context.out(helpForCommand(found.command, bold))
    return 0
  }
  const { command, rest } = found
  onCommand(command)
  if (command.where === 'home' && serverUrl() !== undefined)
    context.say(`plinth ${command.name} works on the home of this machine only; PLINTH_URL does not count for it.`)
  return (await command.run(parseArguments(command.name, command.arguments, command.options, rest), context)) ?? 0
}

async function readCommands(known: readonly Group[]): Promise<Command[]> {
  const loaded = await Promise.all(known.flatMap(group => Object.values(group.commands).map(load => load())))
  return loaded.map(each => each.default)
}

type Found = { command: Command; rest: string[] } | { noun: string; verbs: Command[] }

/** The longest name that the words begin with: `runs list`, then `runs`. */
async function findCommand(words: readonly string[], known: readonly Group[]): Promise<Found> {
  const loads = Object.assign({}, ...known.map(group => group.commands)) as Group['commands']
  for (const length of [2, 1]) {
    const name = words.slice(0, length).join(' ')
    if (Object.hasOwn(loads, name)) return { command: (await loads[name]!()).default, rest: words.slice(length) }
  }
  const names = Object.keys(loads)
  const noun = words[0]!
  if (noun.startsWith('-')) throw new Failure('unknown_command', { command: noun, hint: ' Options stand behind the command.' })
  const verbs = names.filter(name => name.startsWith(`${noun} `))
  if (verbs.length && (words[1] === undefined || words[1].startsWith('-')))
    return { noun, verbs: await Promise.all(verbs.map(async name => (await loads[name]!()).default)) }
  const typed = verbs.length ? words.slice(0, 2).join(' ') : noun
  throw new Failure('unknown_command', {
    command: typed,
    hint: suggestion(typed, verbs.length ? verbs : names) || suggestion(words.slice(0, 2).join(' '), names),
  })
}

function exitCode(failure: Failure, other: number): number {
  if (failure.code === 'usage' || failure.code === 'unknown_command') return 2
  return failure.code === 'interrupted' ? 130 : other
}

function asFailure(error: unknown): Failure {
  if (error instanceof Failure) return error
  // what Node's own functions throw when they were given our signal
  if (error instanceof Error && error.name === 'AbortError') return error.cause instanceof Failure ? error.cause : interrupted()
  return new Failure('internal', { problem: error instanceof Error ? error.message : String(error) }, { cause: error })
}

const interrupted = () => new Failure('interrupted', { next: 'Run the same command again.' })

/** The first Ctrl-C or SIGTERM asks the command to stop at a good place; the second does not ask. */
function listenForSignals(interruption: AbortController, note: (text: string) => void): () => void {
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const
  const onSignal = () => {
    if (interruption.signal.aborted) process.exit(130)
    note('Stopping … (once more to stop at once)')
    interruption.abort(interrupted())
  }
  for (const signal of signals) process.on(signal, onSignal)
  return () => {
    for (const signal of signals) process.off(signal, onSignal)
  }
}

/** Everything said so far has left the process, or could not. */
function written(stream: NodeJS.WriteStream): Promise<void> {
  return new Promise((resolve, reject) => {
    stream.write('', error => (error && (error as NodeJS.ErrnoException).code !== 'EPIPE' ? reject(error) : resolve()))
  })
}

/** `plinth runs list | head -1` closes our stdout: what follows is written to nobody, so the command is asked to stop, without a complaint. */
function stopWhenNobodyReads({ stdout, stderr }: Terminal, interruption: AbortController): void {
  stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error
    if (!interruption.signal.aborted) interruption.abort(interrupted())
  })
  stderr.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error
  })
}
