/** Words that a phase of an attempt starts with: the shell, the launcher, and the wrapper that stays between the shim and the script. Pure. */
import type { Attempt } from '../../attempt.ts'
import type { JobSpec } from '../../spec.ts'
import type { Rank } from './variables.ts'

/** Linux takes 128 KiB in one word; a longer script is read from a file. */
export const longestWord = 100 * 1024

/** `file`: where a text that is too long for a word is written by whoever starts it. */
export const shellWords = (text: string, file: string): string[] =>
  Buffer.byteLength(text) <= longestWord ? [shell, '-c', text] : [shell, file]
/** Job files are written for bash. Found by PATH, so that an environment can bring its own. */
const shell = 'bash'

/** One process for each node, or for each accelerator of each node. */
export function ranksOf({ spec, allocation }: Pick<Attempt, 'spec' | 'allocation'>): Rank[] {
  const perNode = allocation.nodes.map(({ devices }) => (spec.launcher === 'per-accelerator' ? Math.max(1, devices.length) : 1))
  const count = perNode.reduce((sum, each) => sum + each, 0)
  return perNode
    .flatMap((here, node) => Array.from({ length: here }, (_, local) => ({ node, local, perNode: here })))
    .map((rank, index) => ({ ...rank, index, count }))
}

/** The words of `run`, with torchrun in front where the launcher says so. The number of processes and where they meet is in its PET_ variables. */
export function runWords({ run, launcher }: Pick<JobSpec, 'run' | 'launcher'>, file: string): string[] {
  const words = 'argv' in run ? run.argv : shellWords(run.shell, file)
  if (launcher !== 'torchrun') return words
  if (!/(^|\/)python[\d.]*$/.test(words[0]!)) return ['torchrun', '--no-python', ...words]
  // python -u train.py and python -m pkg.train go through the same interpreter; python -c has nothing that torchrun could start
  let at = 1
  while (at < words.length && words[at]!.startsWith('-') && words[at] !== '-m' && words[at] !== '-c')
    at += words[at] === '-X' || words[at] === '-W' ? 2 : 1
  if (at >= words.length || words[at] === '-c') return ['torchrun', '--no-python', ...words]
  return [...words.slice(0, at), '-m', 'torch.distributed.run', ...words.slice(at)]
}

/**
 * Runs between the shim and the script, so that the way it ended is on disk whatever happens to the shim:
 * - the process says who it is before it becomes the script, so no process of an attempt is unknown;
 * - that, and how it ended, is written into files that are there already, which a full disk does not refuse;
 * - it tells the shim through a pipe with a name, where it waits if there is none at the time, and stays until the shim has read what was
 *   printed: as long as somebody holds them, the pipes keep it.
 * Signals that scripts send to their group (`kill 0`) do not end it.
 *
 * $1 where its files lie, $2 what it is called, $3 the pipe of the shim, $4 entrances of control groups (lines), $5 cores; then the command.
 */
export const wrapper = `
trap : HUP INT QUIT PIPE TERM
files=$1 name=$2 control=$3 groups=$4 cores=$5
shift 5
birth() { rest=\${1##*) }; set -- $rest; printf %s "\${20}"; }
exec 3>&2 2>/dev/null # what this shell says of a killed command is not the command's
refuse() { printf '%s\\n' "$1" >"$files.failed"; exit 125; }
(
  read -r self </proc/self/stat
  read -r above </proc/$$/stat
  printf '%s %s %s %s\\n' "\${self%% *}" "$(birth "$self")" "$$" "$(birth "$above")" 1<>"$files.born" || exit 125
  IFS='
'
  for entrance in $groups; do
    echo 0 >"$entrance" || refuse "it could not enter its control group"
  done
  unset IFS
  read -r score </proc/self/oom_score_adj && [ "$score" -lt 500 ] && echo 500 >/proc/self/oom_score_adj
  case $1 in -*) printf '%s: not found\\n' "$1" >&2; exit 127 ;; esac # some shells would take it for an option of exec
  if [ "$cores" ]; then exec taskset -c "$cores" "$@"; else exec "$@"; fi
) 2>&3 3>&-
code=$?
printf '%3d\\n' "$code" 1<>"$files.exit"
printf '%s %s\\n' "$name" "$code" >"$control"
exec sleep 3600
`
