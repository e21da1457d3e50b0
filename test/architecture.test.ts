/** The map of src/: who may import whom. A forbidden import fails with the names of both files. */
import assert from 'node:assert/strict'
import { existsSync, globSync, readFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))

/** From the bottom up. Everybody may import failure.ts and config.ts, which import nothing of ours; server.ts, the composition root, knows every part. */
const map: Record<string, readonly string[]> = {
  sdk: [],
  api: ['sdk'],
  accounts: ['api', 'db', 'sdk', 'storage'],
  storage: [],
  images: [],
  hardware: [],
  engine: ['storage'],
  db: ['storage'],
  track: ['api', 'db', 'models', 'sdk', 'storage'],
  models: ['db', 'engine', 'sdk', 'storage'],
  jobs: ['api', 'db', 'hardware', 'sdk', 'storage'],
  data: ['api', 'db', 'engine', 'images', 'models', 'sdk', 'storage'],
  evaluate: ['data', 'engine', 'images', 'models', 'sdk', 'storage'],
  monitoring: ['api', 'db'],
  train: ['data', 'engine', 'evaluate', 'images', 'models', 'sdk', 'storage'],
  serve: ['api', 'db', 'engine', 'images', 'models', 'sdk', 'storage', 'track'],
  cli: ['control-plane.ts', 'machine.ts', 'sdk', 'server.ts', 'train'],
  'server.ts': ['api', 'data', 'db', 'engine', 'evaluate', 'hardware', 'images', 'models', 'sdk', 'serve', 'storage', 'track', 'train'],
  'control-plane.ts': ['accounts', 'api', 'data', 'db', 'hardware', 'jobs', 'models', 'monitoring', 'sdk', 'storage', 'track'],
  'machine.ts': ['data', 'engine', 'hardware', 'models', 'train'],
  'main.ts': ['cli'],
  'config.ts': [],
  'failure.ts': [],
}

/** Where each package may be used: what lies behind one folder can be replaced there. zod may be used wherever bytes come in. */
const packages: Record<string, readonly string[]> = {
  zod: Object.keys(map),
  kysely: ['accounts', 'db', 'data', 'jobs', 'models', 'track'],
  sharp: ['images'],
  yauzl: ['data'],
  'csv-parse': ['data'],
  'onnxruntime-node': ['engine', 'models'],
  '@fastify/busboy': ['serve'],
  fastify: ['api'],
  pg: ['db'],
  yaml: ['hardware', 'jobs'],
}

/** A file over 600 lines has a reason here, or gets cut where it will grow. */
const longFiles: Record<string, string> = {
  'src/failure.ts': 'a table: one row for every way Plinth can refuse',
}

interface Import {
  from: string
  /** A file of ours (`src/…`), a package, or `node:…`. */
  to: string
  /** `import type` and `export type`: gone when the program runs. */
  typeOnly: boolean
}

const files = globSync('src/**/*.ts', { cwd: root }).map(slashes).toSorted()
const imports = files.flatMap(importsOf)
const own = imports.filter(({ to }) => to.startsWith('src/'))

test('the walk sees the tree and reads all kinds of imports', () => {
  assert.ok(files.length > 20 && own.length > 50, `${files.length} files, ${own.length} imports`)
  const text = `
    import { a } from './a.ts' // import { no } from './comment.ts'
    import type { b } from './b.ts'
    import './c.ts'
    export * from './d.ts'
    export type { e } from './e.ts'
    const f = await import('./f.ts'), note = "http://example.org/* not a comment"
    type G = import('./g.ts').G
    fork(new URL('./h.ts', import.meta.url))
    import {
      type i,
    } from '../i.ts'`
  const read = readImports(text).map(({ specifier, typeOnly }) => `${specifier}${typeOnly ? ' type' : ''}`)
  const expected = ['./a.ts', './b.ts type', './c.ts', './d.ts', './e.ts type', './f.ts', './g.ts', './h.ts', '../i.ts']
  assert.deepEqual(read.toSorted(), expected.toSorted())
})

test('every folder and file of src/ has its place in the map', () => {
  const places = new Set(files.map(placeOf))
  assert.deepEqual(
    [...places].filter(place => !Object.hasOwn(map, place)),
    [],
    'not in the map',
  )
  assert.deepEqual(
    Object.keys(map).filter(place => !places.has(place)),
    [],
    'in the map, not in src/',
  )
})

test('nobody imports what the map does not allow', () => {
  const forbidden = own.filter(({ from, to }) => {
    const [above, below] = [placeOf(from), placeOf(to)]
    return above !== below && below !== 'failure.ts' && below !== 'config.ts' && !map[above]?.includes(below)
  })
  assert.deepEqual(
    forbidden.map(
      ({ from, to }) => `${from} may not import ${to}: ${placeOf(from)} may import ${map[placeOf(from)]?.join(', ') || 'nothing'}`,
    ),
    [],
  )
})

test('what is imported exists', () => {
  assert.deepEqual(
    own.filter(({ to }) => !existsSync(join(root, to))).map(({ from, to }) => `${from} imports ${to}, which is not there`),
    [],
  )
})

test('the map has no cycle', () => {
  assert.deepEqual(
    cycles(Object.keys(map), place => map[place]!),
    [],
  )
})

test('no files import each other in a circle', () => {
  // types are left out: they are gone when the program runs, and a pair of files that only name each other's shapes can be read alone
  const running = Map.groupBy(
    own.filter(({ typeOnly }) => !typeOnly),
    ({ from }) => from,
  )
  assert.deepEqual(
    cycles(files, file => (running.get(file) ?? []).map(({ to }) => to)),
    [],
  )
})

test('packages stay behind the folder that is made for them, and are declared', () => {
  const foreign = imports.filter(({ to }) => !to.startsWith('src/') && !to.startsWith('node:'))
  const wrong = foreign.filter(({ from, to }) => !packages[to]?.includes(placeOf(from)))
  assert.deepEqual(
    wrong.map(({ from, to }) => `${from} may not import ${to}: only ${packages[to]?.join(', ') || 'nobody'} may`),
    [],
  )
  const { dependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { dependencies: Record<string, string> }
  assert.deepEqual(
    Object.keys(dependencies).toSorted(),
    [...new Set(foreign.map(({ to }) => to))].toSorted(),
    'dependencies, and what src/ imports',
  )
})

test('the SDK runs in a browser: nothing of Node, nothing of the server', () => {
  const closure = reach('src/sdk/index.ts')
  assert.deepEqual(
    closure.filter(each => !/^src\/(sdk\/.+|failure\.ts)$|^zod$/.test(each)),
    [],
  )
})

test('the engine pulls in no part of the server', () => {
  const closure = reach('src/engine/index.ts')
  assert.deepEqual(
    closure.filter(each => !/^src\/(engine\/.+|storage\/.+|failure\.ts|config\.ts)$|^node:|^(onnxruntime-node|zod)$/.test(each)),
    [],
  )
})

test('what trainings import to log pulls in no part of the server: no database, no web framework, no engine', () => {
  const closure = reach('src/track/tracker.ts')
  const own =
    /^src\/(sdk\/.+|storage\/(disk|process)\.ts|track\/(tracker|spool(-\w+)?|find-server|keeper|worker)\.ts|failure\.ts|config\.ts)$/
  assert.deepEqual(
    closure.filter(each => !own.test(each) && !/^node:|^zod$/.test(each)),
    [],
  )
})

test('a file over 600 lines has a reason', () => {
  const long = files.filter(file => readFileSync(join(root, file), 'utf8').split('\n').length > 600)
  assert.deepEqual(
    long.filter(file => !Object.hasOwn(longFiles, file)),
    [],
  )
})

/** `src/engine/graph.ts` lies in `engine`, `src/server.ts` is a place of its own. */
function placeOf(file: string): string {
  return file.split('/')[1]!
}

function slashes(path: string): string {
  return path.replaceAll('\\', '/')
}

function importsOf(from: string): Import[] {
  return readImports(readFileSync(join(root, from), 'utf8')).map(({ specifier, typeOnly }) => {
    if (!specifier.startsWith('.')) return { from, to: packageOf(specifier), typeOnly }
    return { from, to: slashes(relative(root, join(root, dirname(from), specifier))), typeOnly }
  })
}

function packageOf(specifier: string): string {
  if (specifier.startsWith('node:')) return specifier
  return specifier.split('/', specifier.startsWith('@') ? 2 : 1).join('/')
}

/** Static, dynamic and type imports, re-exports, and files named for a process of their own: `new URL('./host.ts', import.meta.url)`. */
function readImports(text: string): { specifier: string; typeOnly: boolean }[] {
  const code = withoutComments(text)
  const statements = code.matchAll(/^\s*(?:import|export)\s+(type\s+)?(?:[\w*{][^'"`;=()]*?\sfrom\s*)?['"]([^'"]+)['"]/gm)
  const calls = code.matchAll(/\bimport\(\s*['"]([^'"]+)['"]/g)
  const urls = code.matchAll(/new URL\(\s*['"`](\.[^'"`$]+\.ts)['"`],\s*import\.meta\.url/g)
  return [
    ...[...statements].map(([, type, specifier]) => ({ specifier: specifier!, typeOnly: type !== undefined })),
    ...[...calls, ...urls].map(([, specifier]) => ({ specifier: specifier!, typeOnly: false })),
  ]
}

/** Strings are kept whole, so that `//` inside one does not begin a comment. */
function withoutComments(text: string): string {
  return text.replace(/\/\*[\s\S]*?\*\/|\/\/.*|'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"/g, found => (found.startsWith('/') ? '' : found))
}

/** Everything that running a file loads. */
function reach(file: string): string[] {
  const seen = new Set([file])
  for (const each of seen) for (const { from, to, typeOnly } of imports) if (from === each && !typeOnly) seen.add(to)
  return [...seen]
}

/** The circles in a directed graph, each once, as `a → b → a`. */
function cycles(nodes: readonly string[], next: (node: string) => readonly string[]): string[] {
  const state = new Map<string, 'open' | 'done'>()
  const path: string[] = []
  const found: string[] = []
  const visit = (node: string) => {
    if (state.get(node) === 'done') return
    if (state.get(node) === 'open') {
      found.push([...path.slice(path.indexOf(node)), node].join(' → '))
      return
    }
    state.set(node, 'open')
    path.push(node)
    for (const each of next(node)) visit(each)
    path.pop()
    state.set(node, 'done')
  }
  nodes.forEach(visit)
  return found
}
