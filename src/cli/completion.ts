/** Shell completion, written from the descriptions of the commands into one script that needs no further call of plinth. */
import { type OptionSpecs, optionFlags } from './arguments.ts'
import { type Command, defineCommand } from './command.ts'

export default defineCommand({
  name: 'completion',
  where: 'anywhere',
  summary: 'print a script that completes commands and options in your shell',
  details: `Put one of these into your shell's start-up file:
  bash   source <(plinth completion bash)
  zsh    source <(plinth completion zsh)
  fish   plinth completion fish | source`,
  arguments: { shell: { choices: ['bash', 'zsh', 'fish'], summary: 'bash, zsh or fish' } },
  examples: ['plinth completion bash > ~/.local/share/bash-completion/completions/plinth'],
  async run({ shell }, { out, result, commands }) {
    const script = writers[shell](await commands())
    out(script)
    result({ shell, script })
  },
})

const words = (names: readonly string[]): string => names.join(' ')
const firstWords = (commands: readonly Command[]): string[] => [...new Set(commands.map(({ name }) => name.split(' ')[0]!))]
const verbsOf = (commands: readonly Command[], noun: string): string[] =>
  commands.filter(({ name }) => name.startsWith(`${noun} `)).map(({ name }) => name.slice(noun.length + 1))
const flagsOf = (options: OptionSpecs): string[] => optionFlags(options).filter(flag => flag !== '--version')
const nounsWithVerbs = (commands: readonly Command[]): string[] => firstWords(commands).filter(noun => verbsOf(commands, noun).length)

function bash(commands: readonly Command[]): string {
  return `_plinth() {
  local current="\${COMP_WORDS[COMP_CWORD]}" command="\${COMP_WORDS[1]} \${COMP_WORDS[2]}"
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "${words([...firstWords(commands), '--help', '--version'])}" -- "$current"))
    return
  fi
  if [ "$COMP_CWORD" -eq 2 ] && [[ "$current" != -* ]]; then
    case "\${COMP_WORDS[1]}" in
${nounsWithVerbs(commands)
  .map(noun => `      ${noun}) COMPREPLY=($(compgen -W "${words(verbsOf(commands, noun))}" -- "$current")); return ;;`)
  .join('\n')}
    esac
  fi
  if [[ "$current" == -* ]]; then
    case "$command" in
${byLength(commands)
  .map(({ name, options }) => `      "${name}"*) COMPREPLY=($(compgen -W "${words(flagsOf(options))}" -- "$current")) ;;`)
  .join('\n')}
    esac
    return
  fi
  COMPREPLY=($(compgen -f -- "$current"))
}
complete -o filenames -F _plinth plinth`
}

/** zsh runs bash's kind of completion through its own bridge. */
const zsh = (commands: readonly Command[]): string => `autoload -Uz compinit bashcompinit && compinit && bashcompinit\n${bash(commands)}`

function fish(commands: readonly Command[]): string {
  const quote = (text: string) => `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`
  const verbs = nounsWithVerbs(commands)
  const summaryOf = (noun: string) => commands.find(({ name }) => name === noun)?.summary ?? words(verbsOf(commands, noun))
  return [
    ...firstWords(commands).map(noun => `complete -c plinth -f -n __fish_use_subcommand -a ${noun} -d ${quote(summaryOf(noun))}`),
    ...verbs.map(noun => `complete -c plinth -f -n '__fish_seen_subcommand_from ${noun}' -a ${quote(words(verbsOf(commands, noun)))}`),
    ...commands.flatMap(({ name, options }) => {
      const seen = name
        .split(' ')
        .map(word => `__fish_seen_subcommand_from ${word}`)
        .join('; and ')
      return flagsOf(options).map(flag => {
        const summary = options[flag.slice(2)]?.summary
        return `complete -c plinth -n ${quote(seen)} -l ${flag.slice(2)}${summary ? ` -d ${quote(summary)}` : ''}`
      })
    }),
  ].join('\n')
}

/** In a shell's \`case\` the first fitting pattern wins: the longer name must come first. */
const byLength = (commands: readonly Command[]): Command[] => commands.toSorted((a, b) => b.name.length - a.name.length)

const writers = { bash, zsh, fish }
