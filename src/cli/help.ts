/** Help for everything, for a group (`plinth runs --help`) and for one command, all from the descriptions. */
import { version } from '../config.ts'
import { type ArgumentSpec, commonFlags, type OptionSpec, optionFlag } from './arguments.ts'
import type { Command } from './command.ts'
import type { Group } from './commands.ts'

export type Bold = (text: string) => string

export async function helpForAll(groups: readonly Group[], bold: Bold): Promise<string> {
  const sections = await Promise.all(
    groups.map(async ({ title, commands }) => {
      const loaded = await Promise.all(Object.values(commands).map(load => load()))
      return { title, rows: loaded.map(({ default: command }) => [usageWords(command), command.summary] as const) }
    }),
  )
  const width = Math.max(...sections.flatMap(({ rows }) => rows.map(([words]) => words.length)))
  return [
    `${bold(`plinth ${version}`)} — labelled pictures in; an honest, deployed classifier out`,
    ...sections.flatMap(({ title, rows }) => ['', bold(title), ...rows.map(([words, summary]) => `  ${words.padEnd(width)}  ${summary}`)]),
    '',
    'Every command has --help, --json and --quiet. Try:  plinth quickstart',
  ].join('\n')
}

export function helpForNoun(noun: string, commands: readonly Command[], bold: Bold): string {
  const width = Math.max(...commands.map(command => usageWords(command).length))
  return [bold(`plinth ${noun}`), ...commands.map(command => `  ${usageWords(command).padEnd(width)}  ${command.summary}`)].join('\n')
}

export function helpForCommand(command: Command, bold: Bold): string {
  const section = (title: string, rows: readonly (readonly [string, string])[]) => {
    const width = Math.max(...rows.map(([left]) => left.length))
    return rows.length ? ['', bold(title), ...rows.map(([left, right]) => `  ${left.padEnd(width)}  ${right}`)] : []
  }
  const options = Object.entries(command.options).map(([name, spec]) => [optionFlag(name, spec), describeOption(spec)] as const)
  const shared = (['json', 'quiet', 'help'] as const).map(name => [`--${name}`, commonFlags[name]] as const)
  return [
    `${bold('plinth')} ${usageWords(command)}${options.length ? ' [options]' : ''}`,
    '',
    `${command.summary[0]?.toUpperCase()}${command.summary.slice(1)}.`,
    ...(command.details ? ['', command.details.trim()] : []),
    ...section(
      'Arguments',
      Object.entries(command.arguments).map(([name, spec]) => [argumentWord(name, spec), spec.summary] as const),
    ),
    ...section('Options', [...options, ...shared]),
    ...(command.examples.length ? ['', bold('Examples'), ...command.examples.map(example => `  ${example}`)] : []),
  ].join('\n')
}

const usageWords = (command: Command): string =>
  [command.name, ...Object.entries(command.arguments).map(([name, spec]) => argumentWord(name, spec))].join(' ')

function argumentWord(name: string, spec: ArgumentSpec): string {
  const word = `${name.toUpperCase()}${spec.many ? '…' : ''}`
  return spec.optional ? `[${word}]` : word
}

function describeOption(spec: OptionSpec): string {
  const remarks = [
    spec.type !== 'boolean' && spec.default !== undefined && spec.default !== ''
      ? `default ${spec.default}${spec.type === 'duration' ? 's' : ''}`
      : '',
    spec.env ? `or $${spec.env}` : '',
  ].filter(Boolean)
  return `${spec.summary}${remarks.length ? ` (${remarks.join('; ')})` : ''}`
}
