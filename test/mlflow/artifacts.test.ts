/** Files through MLflow's API: what hostile paths reach (nothing), how bodies stream, and that nothing uploaded runs in our origin. */
import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { chromium as browserOf } from 'playwright-core'
import { openDatabase } from '../../src/db/open.ts'
import { diskObjects } from '../../src/storage/disk-objects.ts'
import { chromium } from '../peers.ts'
import { type MlflowApi, mlflowApi } from './server.ts'

const home = mkdtempSync(join(tmpdir(), 'artifacts-'))
const root = join(home, 'artifacts')
let api: MlflowApi
let port: number
let run: string
let experiment: string
/** Where files of the run are, in addresses. */
let folder: string
const art = '/api/2.0/mlflow-artifacts/artifacts'

before(async () => {
  mkdirSync(root)
  api = await mlflowApi(await openDatabase(':memory:'), diskObjects(root))
  port = await api.listen()
  ;({ run, experiment } = await api.run())
  folder = `${art}/${experiment}/${run}/artifacts`
})
after(async () => {
  await api.close()
  rmSync(home, { recursive: true, force: true })
})

const put = (name: string, content: string | Buffer) =>
  api.ask('PUT', `${folder}/${name}`, { text: Buffer.from(content), headers: { 'content-type': 'text/plain' } })
const fetched = (name: string, headers?: Record<string, string>) => api.ask('GET', `${folder}/${name}`, { ...(headers && { headers }) })
/** Every path below a folder, with the digest of files. */
function tree(of: string, at = ''): string[] {
  return readdirSync(join(of, at), { withFileTypes: true }).flatMap(entry => {
    const path = at === '' ? entry.name : `${at}/${entry.name}`
    if (entry.isDirectory()) return [`${path}/`, ...tree(of, path)]
    return [
      `${path} ${createHash('sha256')
        .update(readFileSync(join(of, path)))
        .digest('hex')}`,
    ]
  })
}

// ── hostile paths ───────────────────────────────────────────────────────────────────────────────────────────────────────────

const secret = 'canary-of-the-home'
/** Published against MLflow and its like, and their relatives: steps, roots, drives, fragments, parameters, NUL, look-alikes, overlong forms. */
const steps = [
  '..',
  '../',
  '../..',
  '../../secret.txt',
  '../secret.txt',
  '../../../../../../../../etc/passwd',
  'a/../../../secret.txt',
  './../../secret.txt',
  '..\\..\\secret.txt',
  '..\\secret.txt',
  '....//....//secret.txt',
  '..././..././secret.txt',
  '..;/..;/secret.txt',
  '..//..//secret.txt',
  '.../secret.txt',
  '/',
  '//',
  '///',
  '.',
  './',
  './.',
  '/.',
  '/..',
  '//..//',
  '~',
  '~/secret.txt',
  '$HOME/secret.txt',
  '/etc/passwd',
  '//etc/passwd',
  '///etc/passwd',
  './/etc/passwd',
  'file:///etc/passwd',
  'file:/etc/passwd',
  'file://localhost/etc/passwd',
  'FILE:///etc/passwd',
  'C:\\windows\\win.ini',
  'C:/windows/win.ini',
  'c:secret.txt',
  '\\\\server\\share',
  '\\\\?\\C:\\x',
  '/dev/stdin',
  '/proc/self/environ',
  '#/../../../secret.txt',
  'a#/../../secret.txt',
  '?/../../secret.txt',
  ';/../../secret.txt',
  'a;b=/../../secret.txt',
  'http:///#/../../../../etc/passwd',
  'secret.txt\0.png',
  '..\0/secret.txt',
  '\0',
  'a\nb',
  'a\rb',
  '..\u2215..\u2215secret.txt',
  '\uff0e\uff0e/secret.txt',
  '\u2025/secret.txt',
  '..\u00a0/secret.txt',
  'a/',
  'a//b',
  'a/./b',
  'a/b/..',
  'a/b/../..',
  '..a/../..',
  '.. /secret.txt',
  '../ secret.txt',
  ' ../secret.txt',
  '...',
  '.%00./',
  `${'../'.repeat(50)}etc/passwd`,
]
/** Forms that mean something only where a reader decodes badly. */
const raws = [
  '%c0%ae%c0%ae/secret.txt',
  '%c0%ae%c0%ae%c0%afsecret.txt',
  '%u002e%u002e/secret.txt',
  '..%c0%afsecret.txt',
  '%%32%65%%32%65/secret.txt',
  '%2e%2e%5csecret.txt',
  '..%255csecret.txt',
  '%ff',
  '%',
  '%zz',
  '..%00/',
  '%0a..%0a/',
]
const once = (text: string) => [...Buffer.from(text)].map(byte => `%${byte.toString(16).padStart(2, '0')}`).join('')
const forms = (text: string): string[] => [
  ...new Set([
    text,
    encodeURIComponent(text),
    once(text),
    once(text).replaceAll('%', '%25'),
    once(once(text)),
    text.replaceAll('.', '%2e'),
    text.replaceAll('/', '%2f'),
    text.replaceAll('/', '%252f'),
  ]),
]

/** As it stands, byte for byte: clients of node would tidy the path up, or refuse to send it. */
function raw(method: string, path: string, body = ''): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1')
    let answer = ''
    socket.setEncoding('latin1').on('data', (text: string) => {
      answer += text
    })
    socket.once('error', reject)
    socket.once('close', () => resolve({ status: Number(/^HTTP\/1\.1 (\d+)/.exec(answer)?.[1] ?? 0), text: answer }))
    socket.write(
      Buffer.from(
        `${method} ${path} HTTP/1.1\r\nhost: 127.0.0.1:${port}\r\nauthorization: Bearer default\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
      ),
    )
  })
}

test('no path, however it is written, reads, writes or deletes anything outside of its run', { timeout: 120_000 }, async () => {
  writeFileSync(join(home, 'secret.txt'), secret)
  writeFileSync(join(root, 'secret.txt'), secret)
  const other = await api.run()
  for (const one of [run, other.run]) {
    const where = join(root, one === run ? experiment : other.experiment, one)
    mkdirSync(join(where, 'artifacts', 'deep'), { recursive: true })
    writeFileSync(join(where, 'secret.txt'), secret)
    writeFileSync(join(where, 'artifacts', 'deep', 'mine.txt'), 'mine')
  }
  const { model } = await api.post('logged-models', { experiment_id: experiment, name: 'm' })
  const id = model.info.model_id
  await api.post('registered-models/create', { name: 'paths' })
  await api.post('model-versions/create', { name: 'paths', source: `models:/${id}`, model_id: id })
  mkdirSync(join(root, experiment, 'models', id, 'artifacts'), { recursive: true })

  const inside = `${experiment}/${run}/artifacts/`
  const outside = () =>
    tree(home).filter(
      path => !path.startsWith(`artifacts/${inside}`) && !path.startsWith(`artifacts/${experiment}/models/${id}/artifacts/`),
    )
  const untouched = outside()
  const wrong: string[] = []
  let sent = 0
  const see = async (method: string, path: string, body?: string) => {
    if (/[\r\n]/.test(path) || / /.test(path)) return // these cannot stand in a request line; their encoded forms do
    sent++
    const { status, text } = await raw(method, path, body)
    if (status < 200 || (status >= 500 && status !== 501) || text.includes(secret) || /root:.*:0:0:/.test(text))
      wrong.push(`${method} ${path}: ${status}`)
  }
  for (const form of [...steps.flatMap(forms), ...raws]) {
    const inQuery = form.replaceAll('&', '%26').replaceAll('#', '%23').replaceAll('+', '%2b')
    for (const base of [`${art}/`, `${folder}/`, `${folder}/deep/`, `${art}/${experiment}/`, '/ajax-api/2.0/mlflow-artifacts/artifacts/']) {
      await see('GET', base + form)
      await see('PUT', base + form, 'written')
      await see('DELETE', base + form)
    }
    for (const base of ['', inside]) await see('GET', `${art}?path=${base}${inQuery}`)
    await see('GET', `/api/2.0/mlflow/artifacts/list?run_id=${run}&path=${inQuery}`)
    await see('GET', `/get-artifact?run_id=${run}&path=${inQuery}`)
    await see('GET', `/model-versions/get-artifact?name=paths&version=1&path=${inQuery}`)
    await see('GET', `/api/2.0/mlflow/logged-models/${id}/artifacts/directories?artifact_directory_path=${inQuery}`)
    await see('GET', `/ajax-api/2.0/mlflow/logged-models/${id}/artifacts/files?artifact_file_path=${inQuery}`)
    await see('POST', `/ajax-api/2.0/mlflow/upload-artifact?run_uuid=${run}&path=${inQuery}`, 'written')
    await see('POST', `/api/2.0/mlflow-artifacts/mpu/create/${form}`, '{}')
    await see('GET', `/api/2.0/mlflow-artifacts/presigned/${form}`)
  }
  assert.deepEqual(wrong, [])
  assert.deepEqual(outside(), untouched)
  assert.ok(sent > 10_000, `${sent} requests`)
  for (const path of ['', '/', `/${experiment}`, `/${experiment}/`, '?path=', '?path=/', '?path=.']) {
    for (const method of ['PUT', 'DELETE']) assert.ok((await raw(method, art + path, 'x')).status >= 400, `${method} ${path}`)
  }
  assert.deepEqual(outside(), untouched, 'nor the roots themselves')
  rmSync(join(root, experiment), { recursive: true })
})

test('a link in the storage is not followed', async () => {
  const { symlinkSync } = await import('node:fs')
  mkdirSync(join(root, experiment, run, 'artifacts'), { recursive: true })
  writeFileSync(join(home, 'secret.txt'), secret)
  symlinkSync(join(home, 'secret.txt'), join(root, experiment, run, 'artifacts', 'link.txt'))
  assert.equal((await fetched('link.txt')).status, 404)
  const { files } = (await api.ask('GET', `${art}?path=${experiment}/${run}/artifacts`)).body
  assert.equal(files, undefined)
  rmSync(join(root, experiment), { recursive: true })
})

// ── what is sent comes back ─────────────────────────────────────────────────────────────────────────────────────────────────

test('names in all languages, empty files and folders in folders come back as they were', async () => {
  const names = [
    'größe 損失.txt',
    'a/b/c/d.bin',
    '100%.txt',
    'empty',
    "it's (1) & more; x=y.csv",
    '...dots',
    '~tilde',
    'x'.repeat(200),
    '🙂.png',
  ]
  for (const name of names) {
    const content = name === 'empty' ? '' : `content of ${name}`
    const encoded = name.split('/').map(encodeURIComponent).join('/')
    assert.deepEqual([(await put(encoded, content)).status, (await fetched(encoded)).bytes.toString()], [200, content], name)
  }
  const listed = async (path: string) =>
    (await api.get('artifacts/list', { run_id: run, path })).files.map((file: { path: string }) => file.path)
  assert.deepEqual((await listed('')).toSorted(), names.map(name => name.split('/')[0]!).toSorted())
  assert.deepEqual(await listed('a/b'), ['a/b/c'])
  const inFolder = await api.ask('GET', `${art}?path=${experiment}/${run}/artifacts/a/b/c`)
  assert.deepEqual(inFolder.body, { files: [{ path: 'd.bin', is_dir: false, file_size: 22 }] })
  assert.deepEqual((await api.ask('GET', `${art}?path=${experiment}/${run}/artifacts/empty`)).body, {
    files: [{ path: 'empty', is_dir: false, file_size: 0 }],
  })
  assert.deepEqual((await api.ask('GET', `${art}?path=${experiment}/${run}/artifacts/none/`)).body, {})
  assert.equal((await api.ask('DELETE', `${folder}/a`)).status, 200)
  assert.equal((await fetched('a/b/c/d.bin')).status, 404)
  assert.equal((await api.ask('DELETE', `${folder}/a`)).status, 200, 'what is gone already is gone')
  assert.deepEqual([(await put('empty/x', 'x')).status, (await put('empty', 'again')).status], [409, 200])
})

test('parts of a file are answered, and what lies behind its end is not', async () => {
  await put('digits', '0123456789')
  const part = async (range: string, more = {}) => {
    const { status, bytes, headers } = await fetched('digits', { range, ...more })
    return [status, bytes.toString(), headers['content-range']]
  }
  assert.deepEqual(await part('bytes=2-4'), [206, '234', 'bytes 2-4/10'])
  assert.deepEqual(await part('bytes=7-'), [206, '789', 'bytes 7-9/10'])
  assert.deepEqual(await part('bytes=-3'), [206, '789', 'bytes 7-9/10'])
  assert.deepEqual(await part('bytes=8-100'), [206, '89', 'bytes 8-9/10'])
  assert.deepEqual(await part('bytes=10-'), [416, '', 'bytes */10'])
  assert.deepEqual(await part('bytes=-0'), [416, '', 'bytes */10'])
  for (const whole of ['bytes=4-2', 'bytes=0-1,3-4', 'lines=1-2', 'bytes='])
    assert.deepEqual(await part(whole), [200, '0123456789', undefined], whole)
  assert.deepEqual(await part('bytes=2-4', { 'if-range': '"x"' }), [200, '0123456789', undefined])
  const head = await api.ask('HEAD', `${folder}/digits`)
  assert.deepEqual([head.status, head.bytes.length, head.headers['content-length']], [200, 0, '10'])
})

test('of uploads at the same time one wins, whole, and one that breaks off leaves nothing', async () => {
  const contents = Array.from({ length: 8 }, () => randomBytes(300_000))
  await Promise.all(contents.map(content => put('raced', content)))
  const won = (await fetched('raced')).bytes
  assert.ok(contents.some(content => content.equals(won)))
  const before = tree(root)
  await new Promise<void>(resolve => {
    const upload = request({
      port,
      method: 'PUT',
      path: `${folder}/broken`,
      headers: { authorization: 'Bearer default', 'content-length': 10_000_000 },
    })
    upload.on('error', () => resolve())
    upload.write(randomBytes(2_000_000), () => upload.destroy())
  })
  const gone = () => JSON.stringify(tree(root)) === JSON.stringify(before)
  for (let i = 0; i < 200 && !gone(); i++) await new Promise(resolve => setTimeout(resolve, 10)) // the server notices in its own time
  assert.deepEqual(tree(root), before)
  assert.equal((await fetched('broken')).status, 404)
})

test('a page of MLflow uploads and downloads by run, by model and by version', async () => {
  const upload = await api.ask('POST', `upload-artifact?run_uuid=${run}&path=notes/n.txt`, {
    text: Buffer.from('note'),
    headers: { 'content-type': 'text/plain' },
    prefix: 'ajax-api',
  })
  assert.equal(upload.status, 200)
  assert.equal((await api.ask('GET', `/get-artifact?run_uuid=${run}&path=notes/n.txt`)).bytes.toString(), 'note')
  const { model } = await api.post('logged-models', { experiment_id: experiment, name: 'm', source_run_id: run })
  const id = model.info.model_id
  await api.ask('PUT', `${art}/${experiment}/models/${id}/artifacts/sub/MLmodel`, { text: Buffer.from('flavors: {}') })
  assert.deepEqual(await api.get(`logged-models/${id}/artifacts/directories`, { artifact_directory_path: 'sub' }), {
    root_uri: model.info.artifact_uri,
    files: [{ path: 'sub/MLmodel', is_dir: false, file_size: 11 }],
  })
  assert.equal(
    (await api.ask('GET', `logged-models/${id}/artifacts/files?artifact_file_path=sub/MLmodel`, { prefix: 'ajax-api' })).bytes.toString(),
    'flavors: {}',
  )
  await api.post('registered-models/create', { name: 'served' })
  await api.post('model-versions/create', { name: 'served', source: `models:/${id}`, model_id: id })
  assert.equal(
    (await api.ask('GET', '/model-versions/get-artifact?name=served&version=1&path=sub/MLmodel')).bytes.toString(),
    'flavors: {}',
  )
})

// ── in the browser ──────────────────────────────────────────────────────────────────────────────────────────────────────────

const executablePath = chromium()
test('nothing that was uploaded runs in our origin', { skip: executablePath ? false : 'no Chromium', timeout: 60_000 }, async () => {
  const script = "fetch('/ran-' + location.pathname.split('/').pop()); document.title = 'ran'"
  const payloads: Record<string, string> = {
    'page.html': `<!doctype html><title>quiet</title><script>${script}</script>`,
    'picture.svg': `<svg xmlns="http://www.w3.org/2000/svg" onload="${script}"><script>${script}</script></svg>`,
    'text.txt': `<html><script>${script}</script>`,
    'page.xhtml': `<html xmlns="http://www.w3.org/1999/xhtml"><script>${script}</script></html>`,
    'feed.xml': `<?xml version="1.0"?><x:script xmlns:x="http://www.w3.org/1999/xhtml">${script}</x:script>`,
    'code.js': script,
    'page.pdf': '%PDF-1.4 <script>alert(1)</script>',
    'page.mht': 'MIME-Version: 1.0\ncontent-type: text/html\n\n<script>alert(1)</script>',
    'estimator"; filename=x.html': `<script>${script}</script>`,
    'page.htm': `\ufeff<img src=x onerror="${script}">`,
    'page.shtml': `<svg onload="${script}">`,
    noending: `<html><body onload="${script}">`,
    'style.css': `body{background:url("javascript:${script}")}`,
    'data.json': `<script>${script}</script>`,
    'sheet.xsl': `<?xml-stylesheet href="#x" type="text/xsl"?><x:script xmlns:x="http://www.w3.org/1999/xhtml">${script}</x:script>`,
    'notebook.ipynb': JSON.stringify({ cells: [{ cell_type: 'markdown', source: [`<script>${script}</script>`] }] }),
    'half\u202elmth.exe': `<script>${script}</script>`,
  }
  const { model } = await api.post('logged-models', { experiment_id: experiment, name: 'hostile', source_run_id: run })
  const id = model.info.model_id
  await api.post('registered-models/create', { name: 'hostile' })
  await api.post('model-versions/create', { name: 'hostile', source: `models:/${id}`, model_id: id })
  const routes: string[] = []
  for (const [name, content] of Object.entries(payloads)) {
    const encoded = encodeURIComponent(name)
    assert.equal((await put(encoded, content)).status, 200, name)
    const ofModel = `${art}/${experiment}/models/${id}/artifacts/${encoded}`
    assert.equal((await api.ask('PUT', ofModel, { text: Buffer.from(content) })).status, 200, name)
    routes.push(
      `${folder}/${encoded}`,
      `/get-artifact?run_id=${run}&path=${encoded}`,
      `/model-versions/get-artifact?name=hostile&version=1&path=${encoded}`,
      `/ajax-api/2.0/mlflow/logged-models/${id}/artifacts/files?artifact_file_path=${encoded}`,
    )
  }
  for (const route of routes) {
    const { headers } = await api.ask('GET', route)
    assert.equal(headers['x-content-type-options'], 'nosniff', route)
    assert.match(String(headers['content-disposition']), /^attachment; filename\*=UTF-8''[\w%.~-]+$/, route)
    assert.match(String(headers['content-security-policy']), /^sandbox; default-src 'none'$/, route)
    assert.equal(headers['content-type'], 'application/octet-stream', route)
  }
  const browser = await browserOf.launch({
    executablePath: executablePath!,
    args: ['--headless', '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking'],
  })
  try {
    const context = await browser.newContext({ extraHTTPHeaders: { authorization: 'Bearer default' }, acceptDownloads: true })
    const page = await context.newPage()
    const asked: string[] = []
    page.on('request', each => asked.push(new URL(each.url()).pathname))
    // by every payload and every route, each at least once
    for (const [i, route] of routes.entries()) {
      if (i >= 36 && i % 4 !== (i >> 2) % 4) continue
      const download = page.waitForEvent('download')
      await page.goto(`http://127.0.0.1:${port}${route}`).catch(() => {}) // a download ends a visit
      await (await download).path()
    }
    // as a frame and as an image of a page that somebody else's upload might be: none is opened there either
    await page.goto('about:blank')
    await page.setContent(
      routes
        .map(route => `http://127.0.0.1:${port}${route.replaceAll('"', '&quot;')}`)
        .map(url => `<iframe src="${url}"></iframe><img src="${url}"><script src="${url}"></script><link rel="stylesheet" href="${url}">`)
        .join(''),
    )
    await page.waitForTimeout(500)
    assert.deepEqual(
      asked.filter(path => path.startsWith('/ran-')),
      [],
    )
    assert.notEqual(await page.title(), 'ran')
  } finally {
    await browser.close()
  }
})

// ── size ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

test('a file of any size goes up and down in constant memory', { timeout: 300_000 }, async () => {
  const { spawn } = await import('node:child_process')
  const size = process.env['PLINTH_TEST'] === 'long' ? 2 * 2 ** 30 : 256 * 2 ** 20
  const place = mkdtempSync(join(tmpdir(), 'size-'))
  const main = new URL('../../src/main.ts', import.meta.url).pathname
  const child = spawn(process.execPath, [main, 'up', '--port', '0', '--json'], {
    env: { ...process.env, PLINTH_HOME: place },
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  try {
    const { url, token } = await new Promise<{ url: string; token: string }>((resolve, reject) => {
      child.once('exit', code => reject(new Error(`plinth up ended with ${code}`)))
      child.stdout.setEncoding('utf8').on('data', (text: string) => text.includes('"token"') && resolve(JSON.parse(text)))
    })
    const authorization = { authorization: `Bearer ${token}` }
    const json = { ...authorization, 'content-type': 'application/json' }
    const made = await fetch(`${url}/api/2.0/mlflow/runs/create`, { method: 'POST', headers: json, body: '{}' })
    const { run } = (await made.json()) as { run: { info: { run_id: string } } }
    const file = `${url}${art}/0/${run.info.run_id}/artifacts/big.bin`
    const memory = () => Number(/VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'))![1]) / 1024
    const before = existsSync('/proc/self/status') ? memory() : 0
    const block = randomBytes(2 ** 20)
    const [up, down] = [createHash('sha256'), createHash('sha256')]
    await new Promise<void>((resolve, reject) => {
      const upload = request(file, { method: 'PUT', headers: { ...authorization, 'content-length': size } }, answer => {
        answer.resume().once('end', () => (answer.statusCode === 200 ? resolve() : reject(new Error(String(answer.statusCode)))))
      })
      upload.once('error', reject)
      let left = size
      const more = () => {
        while (left > 0) {
          left -= block.length
          block.writeUInt32LE(left / 2 ** 20)
          up.update(block)
          if (!upload.write(Buffer.from(block))) return void upload.once('drain', more)
        }
        upload.end()
      }
      more()
    })
    const answer = await fetch(file, { headers: authorization })
    for await (const chunk of answer.body!) down.update(chunk)
    assert.equal(down.digest('hex'), up.digest('hex'))
    const grown = existsSync('/proc/self/status') ? memory() - before : 0
    assert.ok(grown < 96, `the server grew by ${grown.toFixed(0)} MB for ${size / 2 ** 20} MB`)
    console.log(`# ${size / 2 ** 20} MB up and down: the server grew by ${grown.toFixed(0)} MB from ${before.toFixed(0)} MB`)
  } finally {
    child.kill('SIGTERM')
    await new Promise(resolve => child.once('exit', resolve))
    rmSync(place, { recursive: true, force: true })
  }
})
