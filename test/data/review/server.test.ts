import assert from 'node:assert/strict'
import { rmSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { connect } from 'node:net'
import { type TestContext, test } from 'node:test'
import sharp from 'sharp'
import { type ReviewServerOptions, type RunningReview, startReviewServer } from '../../../src/data/review/server.ts'
import { openReview } from '../../../src/data/review/session.ts'
import { pets, suspected } from './reviews.ts'

async function served(t: TestContext, change: Partial<ReviewServerOptions> = {}) {
  const given = await pets(t)
  const mislabels = suspected({ path: 'cat/3.png', label: 'cat', suggestion: 'dog' })
  const review = await openReview(given.home, { reference: given.reference, manifest: given.manifest, copies: null, mislabels })
  const server = await startReviewServer({ review, blobs: given.home.blobs, port: 0, ...change })
  t.after(async () => {
    await server.close()
    await review.close()
  })
  return { ...given, review, server }
}

interface Asked {
  method?: string
  headers?: Record<string, string>
  body?: string
  token?: string | null
}
/** fetch() does not let a caller set Host or Origin. */
function ask({ port, token }: RunningReview, path: string, { method, headers = {}, body, token: given = token }: Asked = {}) {
  return new Promise<{ status: number; headers: NodeJS.Dict<string | string[]>; bytes: Buffer; code: string; text: string }>(
    (resolve, reject) => {
      const authorization = given === null ? {} : { authorization: `Bearer ${given}` }
      const type = body === undefined ? {} : { 'content-type': 'application/json' }
      const sent = request(
        {
          port,
          host: '127.0.0.1',
          path,
          method: method ?? (body === undefined ? 'GET' : 'POST'),
          headers: { ...authorization, ...type, ...headers },
          agent: false,
        },
        response => {
          const parts: Buffer[] = []
          response.on('data', part => parts.push(part))
          response.on('end', () => {
            const bytes = Buffer.concat(parts)
            const text = bytes.toString('utf8')
            const code = text.startsWith('{"error"') ? JSON.parse(text).error.code : ''
            resolve({ status: response.statusCode!, headers: response.headers, bytes, code, text })
          })
        },
      )
      sent.on('error', reject)
      sent.end(body)
    },
  )
}
const brief = async (answer: ReturnType<typeof ask>) => {
  const { status, code } = await answer
  return { status, code }
}
const everyRoute = [
  ['/review', 'GET'],
  ['/items', 'GET'],
  ['/changes', 'GET'],
  ['/verdicts', 'POST'],
  ['/undo', 'POST'],
  ['/versions', 'POST'],
  [`/pictures/${'0'.repeat(64)}/160`, 'GET'],
] as const

test('without the token of this start nothing but the page is answered', async t => {
  const { server } = await served(t)
  const other = await served(t)
  assert.notEqual(server.token, other.server.token)
  for (const [path, method] of everyRoute)
    for (const token of [null, '', 'wrong', server.token.slice(0, -1), other.server.token])
      assert.deepEqual(
        await brief(ask(server, path, { method, token })),
        { status: 401, code: 'token_required' },
        `${method} ${path} ${token}`,
      )
  assert.equal((await ask(server, '/', { token: null })).status, 200)
  assert.equal((await ask(server, '/review')).status, 200)
  assert.deepEqual(
    await brief(ask(server, '/review?token=' + server.token, { token: null })),
    { status: 401, code: 'token_required' },
    'not in an address',
  )
})

test('a foreign Host or Origin is refused on every route, with the token too', async t => {
  const { server } = await served(t)
  for (const [path, method] of [...everyRoute, ['/', 'GET'] as const, ['/session', 'POST'] as const]) {
    for (const host of ['evil.example', `127.0.0.1.evil.example:${server.port}`, '10.0.0.7', '[fe80::1]'])
      assert.deepEqual(
        await brief(ask(server, path, { method, headers: { host } })),
        { status: 403, code: 'host_refused' },
        `${path} ${host}`,
      )
    for (const origin of ['null', 'http://evil.example', `http://localhost:${server.port + 1}`, 'file://'])
      assert.deepEqual(
        await brief(ask(server, path, { method, headers: { origin } })),
        { status: 403, code: 'origin_refused' },
        `${path} ${origin}`,
      )
    assert.equal(
      (await ask(server, path, { method, headers: { 'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'no-cors' } })).status,
      403,
    )
  }
  const own = { host: `localhost:${server.port}`, origin: `http://localhost:${server.port}`, 'sec-fetch-site': 'same-origin' }
  assert.equal((await ask(server, '/review', { headers: own })).status, 200)
})

test('it listens on this machine alone', async t => {
  const { server } = await served(t)
  assert.match(server.url, /^http:\/\/127\.0\.0\.1:\d+\/#token=[\w-]{43}$/)
  const refused = await new Promise(resolve => {
    const socket = connect({ host: '127.0.0.2', port: server.port })
    socket.on('connect', () => resolve('connected')).on('error', (error: NodeJS.ErrnoException) => resolve(error.code))
  })
  assert.equal(refused, 'ECONNREFUSED')
})

test('pictures come by content, made anew as WebP, and only those of the dataset', async t => {
  const { server, manifest, home } = await served(t)
  const { content } = manifest.rows[0]!
  const small = await ask(server, `/pictures/${content}/160`)
  assert.deepEqual([small.status, small.headers['content-type']], [200, 'image/webp'])
  const { format, width } = await sharp(small.bytes).metadata()
  assert.deepEqual([format, width], ['webp', 4])
  const stranger = await home.blobs.put(Buffer.from('a secret of another dataset'))
  const paths = [
    stranger,
    '0'.repeat(64),
    content.toUpperCase(),
    `${content.slice(0, 2)}/${content}`,
    '../plinth.db',
    '..%2f..%2ftoken',
    `${content}%00`,
    `${content}/../../plinth.db`,
    '....//....//etc/passwd',
    'C:\\windows',
  ]
  for (const path of paths)
    assert.deepEqual(await brief(ask(server, `/pictures/${path}/160`)), { status: 404, code: 'review_not_found' }, path)
  for (const side of ['161', '0', '-1', '1e9', '', '160/x'])
    assert.equal((await ask(server, `/pictures/${content}/${side}`)).status, 404, side)
  for (const path of ['/../../etc/passwd', '/page.html', '/__proto__', '/constructor', '//review'])
    assert.equal((await ask(server, path)).code, 'review_not_found', path)
})

test('a picture that cannot be read any more is told without a word on where it lay', async t => {
  const notices: string[] = []
  const { server, manifest, home } = await served(t, { onNotice: text => notices.push(text) })
  const [first, second, third] = manifest.rows.map(row => row.content)
  writeFileSync(home.blobs.path(first!), 'damaged')
  rmSync(home.blobs.path(second!))
  const broken = await ask(server, `/pictures/${first}/800`)
  assert.deepEqual([broken.status, broken.code], [500, 'blob_damaged'])
  const missing = await ask(server, `/pictures/${second}/800`)
  assert.equal(missing.code, 'blob_missing')
  for (const { text } of [broken, missing]) assert.ok(!text.includes(home.path), text)
  assert.equal((await ask(server, `/pictures/${third}/800`)).status, 200)
})

test('bodies are bounded and must be the JSON that is meant', async t => {
  const { server, review } = await served(t, { limits: { request: 2000 } })
  const body = (value: unknown) => ({ body: JSON.stringify(value) })
  const [item] = await review.list()
  const good = { item: item!.id, answers: item!.pictures.map(({ path }) => ({ path, verdict: 'keep' })) }
  const invalid = { status: 400, code: 'review_request_invalid' }
  for (const type of ['text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data', 'application/jsonx', ''])
    assert.deepEqual(await brief(ask(server, '/verdicts', { ...body(good), headers: { 'content-type': type } })), invalid, type)
  assert.equal((await ask(server, '/verdicts', { ...body(good), headers: { 'content-encoding': 'gzip' } })).code, 'body_encoded')
  assert.deepEqual(await brief(ask(server, '/verdicts', { body: '{"item":' })), invalid)
  assert.deepEqual(await brief(ask(server, '/verdicts', body({ ...good, more: 1 }))), invalid)
  assert.deepEqual(await brief(ask(server, '/verdicts', body({ ...good, answers: [] }))), invalid)
  assert.deepEqual(await brief(ask(server, '/verdicts', body({ ...good, answers: [{ path: 'cat/2.png', verdict: 'delete' }] }))), invalid)
  assert.deepEqual(await brief(ask(server, '/undo', { body: '{"__proto__":{"a":1},"b":1}' })), invalid)
  for (const path of ['/verdicts', '/undo', '/versions', '/session'])
    assert.deepEqual(
      await brief(ask(server, path, { body: JSON.stringify('x'.repeat(3000)) })),
      { status: 413, code: 'body_too_large' },
      path,
    )
  const chunked = await ask(server, '/verdicts', { body: JSON.stringify('x'.repeat(3000)), headers: { 'transfer-encoding': 'chunked' } })
  assert.equal(chunked.code, 'body_too_large')
  assert.equal((await review.tally()).answered, 0)
  assert.equal((await ask(server, '/verdicts', body(good))).status, 200)
  assert.equal((await review.tally()).answered, 1)
})

test('nothing is changed by reading, and lists come in parts', async t => {
  const { server, review } = await served(t)
  for (const path of ['/verdicts', '/undo', '/versions']) {
    const { status, code, headers } = await ask(server, path)
    assert.deepEqual([status, code, headers['allow']], [405, 'method_not_allowed', 'POST'])
  }
  for (const query of ['from=-1', 'from=x', 'count=0', 'count=101', 'from=1.5', 'count=Infinity'])
    assert.deepEqual(await brief(ask(server, `/items?${query}`)), { status: 400, code: 'review_request_invalid' }, query)
  const { items } = JSON.parse((await ask(server, '/items?from=1&count=2')).text)
  assert.deepEqual(
    items.map(({ id }: { id: string }) => id),
    (await review.list(1, 2)).map(({ id }) => id),
  )
  assert.deepEqual(JSON.parse((await ask(server, '/items?from=100&count=2')).text).items, [])
})

test('every answer carries the guards, and the page may run nothing but its own script', async t => {
  const { server } = await served(t)
  for (const path of ['/', '/review', '/nothing', `/pictures/${'0'.repeat(64)}/160`]) {
    const { headers } = await ask(server, path)
    assert.equal(headers['x-content-type-options'], 'nosniff', path)
    assert.equal(headers['referrer-policy'], 'no-referrer')
    assert.match(headers['content-security-policy'] as string, /^default-src 'none'/)
  }
  const { headers, text } = await ask(server, '/')
  assert.match(headers['content-security-policy'] as string, /script-src 'sha256-[\w+/]{43}='; style-src 'sha256-[\w+/]{43}='/)
  assert.doesNotMatch(text, /https?:\/\/(?!www\.w3\.org)/, 'it loads nothing')
})

test('a ticket is good once and for nothing but the token', async t => {
  const { server } = await served(t)
  const ticket = /#ticket=([\w-]{43})$/.exec(server.ticketUrl())![1]!
  assert.equal((await ask(server, '/review', { token: ticket })).status, 401)
  const redeem = (ticket: string) => ask(server, '/session', { body: JSON.stringify({ ticket }), token: null })
  assert.deepEqual(JSON.parse((await redeem(ticket)).text), { token: server.token })
  assert.deepEqual(await brief(redeem(ticket)), { status: 401, code: 'token_required' })
  assert.equal((await redeem('made-up')).status, 401)
})

test('a version is made once however often it is asked for, and the command hears of it', async t => {
  const heard: string[] = []
  const { server, review } = await served(t, { onVersion: ({ dataset }) => heard.push(`${dataset.name}@${dataset.version}`) })
  const [item] = await review.list()
  const answers = item!.pictures.map(({ path }) => ({ path, verdict: 'relabel', to: ['cat'] }))
  const { warnings, tally } = JSON.parse((await ask(server, '/verdicts', { body: JSON.stringify({ item: item!.id, answers }) })).text)
  assert.deepEqual([warnings, tally], [[], { items: 4, answered: 1, relabelled: 1, dropped: 0 }])
  const changes = JSON.parse((await ask(server, '/changes')).text)
  assert.deepEqual(changes.relabelled, { count: 1, first: [{ path: 'dog/cat 2.png', from: ['dog'], to: ['cat'] }] })
  const made = await Promise.all([1, 2, 3].map(() => ask(server, '/versions', { body: '{}' })))
  for (const { status, text } of made) assert.deepEqual([status, JSON.parse(text).dataset.version], [200, 2], text)
  assert.deepEqual(heard, ['pets@2', 'pets@2', 'pets@2'])
})
