import assert from 'node:assert/strict'
import { readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { ownerToken, resetOwnerToken } from '../../src/accounts/owner.ts'
import { authenticate, createToken } from '../../src/accounts/tokens.ts'
import { openHome } from '../../src/track/home.ts'
import { child, temporaryFolder, temporaryHome } from '../track/homes.ts'

const file = (home: { path: string }) => join(home.path, 'token')

test('a first start under 50 parallel tries from several processes makes one owner and one token', async t => {
  const path = join(temporaryFolder(t), 'home')
  const sources = { openHome: 'track/home.ts', ownerToken: 'accounts/owner.ts' }
  const imports = Object.entries(sources).map(
    ([name, from]) => `import { ${name} } from ${JSON.stringify(new URL(`../../src/${from}`, import.meta.url).href)}\n`,
  )
  const program = `${imports.join('')}
    const home = await openHome(process.argv[1])
    const tokens = await Promise.all(Array.from({ length: 10 }, () => ownerToken(home)))
    process.stdout.write(JSON.stringify(tokens) + '\\n')
    await home.close()`
  const children = Array.from({ length: 5 }, () => child(program, [path]))
  const told: string[] = []
  for (const { lines, ended } of children) {
    for await (const tokens of lines) told.push(...(tokens as string[]))
    assert.equal(await ended, 0)
  }
  assert.equal(told.length, 50)
  assert.equal(new Set(told).size, 1, 'all were told the same token')
  const home = await openHome(path)
  t.after(() => home.close())
  assert.equal(readFileSync(file(home), 'utf8').trim(), told[0])
  assert.equal(statSync(file(home)).mode & 0o077, 0)
  assert.deepEqual(
    readdirSync(path).filter(name => name.startsWith('token')),
    ['token'],
  )
  const users = await home.db.selectFrom('users').select(['name', 'owner']).execute()
  assert.deepEqual(
    users.map(({ name, owner }) => [name, owner]),
    [['owner', 1]],
  )
  assert.equal((await home.db.selectFrom('tokens').select('id').execute()).length, 1)
})

test('no two homes have the same token, and none is kept in the database as it is', async t => {
  const [one, other] = [await temporaryHome(t), await temporaryHome(t)]
  const token = await ownerToken(one)
  assert.match(token, /^plinth_[0-9a-f]{12}_[\w-]{43}$/)
  assert.notEqual(token, await ownerToken(other))
  const secret = token.slice(-43)
  assert.ok(!JSON.stringify(await one.db.selectFrom('tokens').selectAll().execute()).includes(secret))
  await assert.rejects(authenticate(other.db, `Bearer ${token}`), { code: 'token_wrong' })
})

test('a reset revokes what was in the file before; other tokens of the owner go on', async t => {
  const home = await temporaryHome(t)
  const before = await ownerToken(home)
  const { token: other } = await createToken(home.db, { user: 'owner', name: 'laptop', project: 'default', scope: 'all', expires: null })
  const after = await resetOwnerToken(home)
  await assert.rejects(authenticate(home.db, `Bearer ${before}`), { code: 'token_wrong' })
  assert.equal((await authenticate(home.db, `Bearer ${after}`))?.owner, true)
  assert.equal((await authenticate(home.db, `Bearer ${other}`))?.owner, true)
  assert.equal(await ownerToken(home), after)
})

test('a token file that is gone, or says what is worth nothing, is made again', async t => {
  const home = await temporaryHome(t)
  const first = await ownerToken(home)
  rmSync(file(home))
  const second = await ownerToken(home)
  await assert.rejects(authenticate(home.db, `Bearer ${first}`), { code: 'token_wrong' })
  writeFileSync(file(home), `${first}\n`) // what a kill between file and database would leave
  const third = await ownerToken(home)
  assert.ok(third !== first && third !== second)
  assert.equal((await authenticate(home.db, `Bearer ${third}`))?.user, 'owner')
})
