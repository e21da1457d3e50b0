/**
 * Writes the package that `npm pack ./dist` makes: compiled JavaScript and declarations (Node strips no types below node_modules), the
 * assets beside them, and a package.json that points at the JavaScript. `npm run build`, or `node scripts/build.ts FOLDER`.
 * The layout is the repository's (`src/` below package.json), so a path from a file to its asset is the same in both.
 */
import { spawnSync } from 'node:child_process'
import { chmodSync, cpSync, existsSync, globSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))

interface Manifest {
  [field: string]: unknown
  bin: Record<string, string>
  exports: Record<string, string>
}

if (import.meta.main) console.log(`Built ${build(resolve(process.argv[2] ?? join(root, 'dist')))}`)

/** Fills the folder anew and answers its path. @throws when the sources do not compile, or would look for a .ts file once compiled. */
export function build(folder: string): string {
  rmSync(folder, { recursive: true, force: true })
  mkdirSync(folder, { recursive: true })
  const compiler = spawnSync(
    process.execPath,
    [join(root, 'node_modules/typescript/bin/tsc'), '-p', 'tsconfig.build.json', '--outDir', folder],
    {
      cwd: root,
      encoding: 'utf8',
    },
  )
  if (compiler.status !== 0) throw new Error(`The sources do not compile:\n${compiler.stdout}${compiler.stderr}`)
  for (const asset of assets()) {
    mkdirSync(dirname(join(folder, asset)), { recursive: true })
    cpSync(join(root, asset), join(folder, asset))
  }
  writeFileSync(join(folder, 'package.json'), `${JSON.stringify(manifest(), null, 2)}\n`)
  chmodSync(join(folder, 'src/main.js'), 0o755)
  refuseTypeScriptPaths(folder)
  return folder
}

function assets(): string[] {
  const beside = globSync('src/**/*', { cwd: root }).filter(path => !path.endsWith('.ts') && statSync(join(root, path)).isFile())
  // what goes into jobs in Python
  const python = globSync('python/plinth-job/*.py', { cwd: root })
  return [...beside, ...python, ...['LICENSE', 'NOTICE', 'README.md', 'CHANGELOG.md'].filter(name => existsSync(join(root, name)))]
}

/** The repository's package.json without what only the repository needs, and with JavaScript where it says TypeScript. */
function manifest(): object {
  const {
    scripts: _,
    devDependencies: __,
    allowScripts: ___,
    ...kept
  } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as Manifest
  const compiled = (path: string) => path.replace(/\.ts$/, '.js')
  const typed = (path: string) => (path.endsWith('.ts') ? { types: path.replace(/\.ts$/, '.d.ts'), default: compiled(path) } : path)
  return {
    ...kept,
    bin: Object.fromEntries(Object.entries(kept.bin).map(([name, path]) => [name, compiled(path)])),
    exports: Object.fromEntries(Object.entries(kept.exports).map(([name, path]) => [name, typed(path)])),
  }
}

/** The compiler rewrites imports, not other mentions of a file: `new URL('./host.ts', import.meta.url)` would fail only at the user's. */
function refuseTypeScriptPaths(folder: string): void {
  const wrong = globSync('src/**/*.js', { cwd: folder }).flatMap(file => {
    const lines = readFileSync(join(folder, file), 'utf8').split('\n')
    return lines.flatMap((line, i) => (/^[^*/]*['"`]\.{0,2}\/[^'"`\s]*\.ts['"`]/.test(line) ? [`${file}:${i + 1}: ${line.trim()}`] : []))
  })
  if (wrong.length) throw new Error(`These would look for a .ts file that the package does not have:\n${wrong.join('\n')}`)
}
