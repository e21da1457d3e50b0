/**
 * What of a job's folder is left out: .plinthignore, in the language of .gitignore (git's documentation of gitignore, "PATTERN FORMAT").
 * The patterns are matched by hand: a regular expression made of foreign text can be made to take for ever.
 */

/** Left out whatever the file says: histories, environments and what can be computed again. */
const usual = [
  '.git/',
  '.hg/',
  '.svn/',
  'node_modules/',
  '__pycache__/',
  '*.pyc',
  '.venv/',
  'venv/',
  '.ipynb_checkpoints/',
  '.DS_Store',
  '.plinth/',
  'mlruns/',
]

interface Rule {
  negated: boolean
  folderOnly: boolean
  /** Of the path, from the root; `**` stands for any number of folders. */
  parts: string[]
}

export interface Ignore {
  /** `path`: relative, with slashes. Whoever walks a folder asks for each folder on the way: what lies in one that is left out is not asked for. */
  leavesOut(path: string, isFolder: boolean): boolean
}

const most = { characters: 1_000_000, lines: 10_000 }

export function readIgnore(text: string): Ignore {
  const rules = [...usual, ...text.slice(0, most.characters).split(/\r?\n/).slice(0, most.lines)].flatMap(ruleOf)
  return {
    leavesOut(path, isFolder) {
      const parts = path.split('/')
      // the last one that matches decides
      return rules.findLast(rule => (isFolder || !rule.folderOnly) && matchesPath(rule.parts, parts))?.negated === false
    },
  }
}

function ruleOf(line: string): Rule[] {
  let pattern = withoutTrailingSpaces(line)
  if (pattern === '' || pattern.startsWith('#')) return []
  const negated = pattern.startsWith('!')
  if (negated) pattern = pattern.slice(1)
  const folderOnly = pattern.endsWith('/')
  if (folderOnly) pattern = pattern.slice(0, -1)
  if (pattern === '') return []
  const anchored = pattern.includes('/')
  const parts = partsOf(pattern.replace(/^\//, ''))
  return [{ negated, folderOnly, parts: anchored ? parts : ['**', ...parts] }]
}

/** At slashes, also those behind a backslash; not at one within brackets. */
function partsOf(pattern: string): string[] {
  const characters = [...pattern]
  const parts = ['']
  for (let i = 0; i < characters.length; i++) {
    const end = characters[i] === '[' ? setOf(characters, i + 1)?.end : undefined
    if (end !== undefined) {
      parts.push(parts.pop()! + characters.slice(i, end + 1).join(''))
      i = end
    } else if (characters[i] === '/' || (characters[i] === '\\' && characters[i + 1] === '/')) {
      if (characters[i] === '\\') i++
      parts.push('')
    } else if (characters[i] === '\\') {
      parts.push(parts.pop()! + characters.slice(i, i + 2).join(''))
      i++
    } else parts.push(parts.pop()! + characters[i])
  }
  return parts
}

/** A space at the end counts only behind a backslash. */
function withoutTrailingSpaces(line: string): string {
  let end = line.length
  while (end > 0 && line[end - 1] === ' ' && !isEscaped(line, end - 1)) end--
  return line.slice(0, end)
}
function isEscaped(text: string, at: number): boolean {
  let backslashes = 0
  while (text[at - 1 - backslashes] === '\\') backslashes++
  return backslashes % 2 === 1
}

/** Every pair of places is looked at once. */
function matchesPath(pattern: readonly string[], path: readonly string[]): boolean {
  const known = new Map<number, boolean>()
  const matches = (i: number, j: number): boolean => {
    const place = i * (path.length + 1) + j
    const before = known.get(place)
    if (before !== undefined) return before
    const answer = decide(i, j)
    known.set(place, answer)
    return answer
  }
  const decide = (i: number, j: number): boolean => {
    if (i === pattern.length) return j === path.length
    // at the end it stands for what is inside, and so for one part at least
    if (pattern[i] === '**') return i === pattern.length - 1 ? j < path.length : matches(i + 1, j) || (j < path.length && matches(i, j + 1))
    return j < path.length && matchesName(pattern[i]!, path[j]!) && matches(i + 1, j + 1)
  }
  return matches(0, 0)
}

type Token = { kind: 'star' } | { kind: 'any' } | { kind: 'one'; of(character: string): boolean }

/** `*`, `?` and `[a-z]` within a name; the last star is the only one that is ever gone back to. */
function matchesName(pattern: string, name: string): boolean {
  const tokens = tokensOf(pattern)
  if (tokens === null) return false
  const characters = [...name]
  let i = 0
  let star: { token: number; character: number } | null = null
  for (let j = 0; j < characters.length || i < tokens.length; ) {
    const token = tokens[i]
    if (token?.kind === 'star') {
      star = { token: i++, character: j }
      continue
    }
    if (token && j < characters.length && (token.kind === 'any' || token.of(characters[j]!))) {
      i++
      j++
      continue
    }
    if (star === null || star.character >= characters.length) return false
    i = star.token + 1
    j = ++star.character
  }
  return true
}

/** Null: it can match nothing (a bracket without its end). */
function tokensOf(pattern: string): Token[] | null {
  const characters = [...pattern]
  const tokens: Token[] = []
  for (let i = 0; i < characters.length; i++) {
    const character = characters[i]!
    if (character === '*') tokens.push({ kind: 'star' })
    else if (character === '?') tokens.push({ kind: 'any' })
    else if (character === '[') {
      const set = setOf(characters, i + 1)
      if (set === null) return null
      tokens.push({ kind: 'one', of: set.has })
      i = set.end
    } else {
      if (character === '\\' && i + 1 === characters.length) return null
      const literal = character === '\\' ? characters[++i]! : character
      tokens.push({ kind: 'one', of: each => each === literal })
    }
  }
  return tokens
}

function setOf(characters: readonly string[], from: number): { has(character: string): boolean; end: number } | null {
  const negated = characters[from] === '!' || characters[from] === '^'
  const ranges: [string, string][] = []
  let i = from + (negated ? 1 : 0)
  for (let first = true; ; first = false) {
    const character = characters[i]
    if (character === undefined) return null
    if (character === ']' && !first) break
    const [low, afterLow] = literalAt(characters, i)
    if (low === undefined) return null
    const isRange = characters[afterLow] === '-' && characters[afterLow + 1] !== undefined && characters[afterLow + 1] !== ']'
    const [high, afterHigh] = isRange ? literalAt(characters, afterLow + 1) : [low, afterLow]
    if (high === undefined) return null
    ranges.push([low, high])
    i = afterHigh
  }
  return { end: i, has: character => ranges.some(([low, high]) => low <= character && character <= high) !== negated }
}

function literalAt(characters: readonly string[], i: number): [string | undefined, number] {
  return characters[i] === '\\' ? [characters[i + 1], i + 2] : [characters[i], i + 1]
}
