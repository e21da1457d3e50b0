/**
 * A command, described once: its help, its parsing and its shell completion come from this description.
 *
 *     export default defineCommand({
 *       name: 'runs show',
 *       summary: 'show one run',
 *       arguments: { run: { summary: 'the id of the run, or its first letters' } },
 *       options: { last: { type: 'integer', minimum: 1, default: 20, summary: 'how many steps to show' } },
 *       examples: ['plinth runs show 3f2a'],
 *       async run({ run, last }, { out, result }) { … },
 *     })
 */
import type { AnyValues, ArgumentSpecs, OptionSpecs, Values } from './arguments.ts'
import type { Context } from './output.ts'

interface Definition<A extends ArgumentSpecs, O extends OptionSpecs> {
  name: string
  /** One line, lower case, no full stop. */
  summary: string
  /** More to say, in paragraphs; shown by `--help`. */
  details?: string
  arguments?: A
  options?: O
  examples?: readonly string[]
  /** `server`: asks the one that PLINTH_URL names, where it names one. `home`: always works on this machine's. `anywhere`: has to do with neither. */
  where?: Command['where']
  /** Exit code of what it throws, other than usage and interruption. */
  failure?: number
  /** A number returned is the exit code; nothing returned is 0. What it throws becomes the error and exit 1, 2 or 130. */
  // biome-ignore lint/suspicious/noConfusingVoidType: most commands return nothing at all
  run(values: Values<A, O>, context: Context): Promise<void | number>
}

export interface Command {
  name: string
  summary: string
  details: string
  arguments: ArgumentSpecs
  options: OptionSpecs
  examples: readonly string[]
  where: 'home' | 'server' | 'anywhere'
  failure: number
  // biome-ignore lint/suspicious/noConfusingVoidType: as above
  run(values: AnyValues, context: Context): Promise<void | number>
}

// biome-ignore lint/complexity/noBannedTypes: {} is "no arguments", as a type
export function defineCommand<const A extends ArgumentSpecs = {}, const O extends OptionSpecs = {}>(definition: Definition<A, O>): Command {
  return {
    details: '',
    examples: [],
    where: 'home',
    failure: 1,
    ...definition,
    arguments: definition.arguments ?? {},
    options: definition.options ?? {},
    // the parser makes exactly what Values<A, O> promises: it reads the same description
    run: (values, context) => definition.run(values as Values<A, O>, context),
  }
}

/** Options that mean the same wherever they appear. */
export const common = {
  name: { type: 'string', summary: 'the name to give it' },
  port: { type: 'integer', minimum: 0, maximum: 65535, summary: 'the port to listen on; 0 takes a free one' },
  seed: { type: 'integer', minimum: 0, maximum: 2 ** 32 - 1, default: 0, summary: 'the same seed gives the same result' },
  threads: { type: 'integer', minimum: 1, maximum: 1024, summary: 'how many threads to compute with (otherwise one a core)' },
} as const satisfies OptionSpecs
