/** Writes docs/errors.md from the table in src/failure.ts: `npm run docs`. A test compares the two. */
import { readFileSync, writeFileSync } from 'node:fs'
import { type FailureCode, failures } from '../src/failure.ts'

const page = new URL('../docs/errors.md', import.meta.url)
if (import.meta.main) writeFileSync(page, errorsPage())

export function errorsPage(): string {
  return `# Errors

<!-- Written by \`npm run docs\` from src/failure.ts: change it there. -->

Every way Plinth can refuse has a code that stays the same from version to version, a sentence that says what happened, and one that says
what to do next. On the command line both go to stderr, and the exit code is 1 (2 for a command that was mistyped, 130 for one that was
interrupted). With \`--json\` the last line of stdout is \`{"error":{"code","message","next"}}\`. Over HTTP the same object comes with the status
below. Words in braces are filled in.

${sections()
  .map(({ title, codes }) => `## ${title[0]!.toUpperCase()}${title.slice(1)}\n\n${table(codes)}`)
  .join('\n\n')}
`
}

function table(codes: readonly FailureCode[]): string {
  const rows = codes.map(code => {
    const [status, message, next] = failures[code]
    return `| \`${code}\` | ${status} | ${cell(message)} | ${cell(next)} |`
  })
  return ['| code | HTTP | what happened | what to do |', '|---|---|---|---|', ...rows].join('\n')
}

function cell(text: string): string {
  return text.replaceAll('|', '\\|').replaceAll('<', '&lt;')
}

/** The headings of the table are comments, `// ── engine ──`; they are read from its source. */
function sections(): { title: string; codes: FailureCode[] }[] {
  const source = readFileSync(new URL('../src/failure.ts', import.meta.url), 'utf8')
  const found: { title: string; codes: FailureCode[] }[] = []
  for (const [, title, code] of source.matchAll(/^ {2}(?:\/\/ ── (.+?) ──|(\w+): \[)/gm)) {
    if (title) found.push({ title, codes: [] })
    else if (Object.hasOwn(failures, code!)) found.at(-1)!.codes.push(code as FailureCode)
  }
  return found
}
