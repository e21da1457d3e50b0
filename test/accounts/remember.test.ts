/** Who asks is remembered for a second, and never beyond a change. */
import assert from 'node:assert/strict'
import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { rememberPrincipals } from '../../src/accounts/remember.ts'
import { authenticate, createToken, revokeToken } from '../../src/accounts/tokens.ts'
import { startControlPlane } from '../../src/control-plane.ts'
import { calls } from '../../src/sdk/calls/index.ts'
import { createClient } from '../../src/sdk/client.ts'
import { openHome } from '../../src/track/home.ts'
import { databases } from '../db/databases.ts'

test('what this process takes away is gone with the answer: a token, a user, a role', async () => {
  const home = await openHome(mkdtempSync(join(tmpdir(), 'home-')))
  const server = await startControlPlane(home, { host: '127.0.0.1', port: 0 })
  try {
    const owner = createClient(calls, server)
    await owner.addUser({ user: 'ada', role: 'editor' })
    const make = async () => {
      const { token, about } = await owner.createToken({ name: 'laptop', user: 'ada' })
      const ada = createClient(calls, { url: server.url, token })
      assert.equal((await ada.getServer({})).role, 'editor') // remembered from here on
      return { ada, id: about.id }
    }
    const [first, second] = [await make(), await make()]
    await owner.revokeToken({ id: first.id })
    await assert.rejects(first.ada.getServer({}), { code: 'token_wrong' })
    await owner.addUser({ user: 'ada', role: 'viewer' })
    assert.equal((await second.ada.getServer({})).role, 'viewer')
    await owner.disableUser({ user: 'ada' })
    await assert.rejects(second.ada.getServer({}), { code: 'token_wrong' })
    await owner.enableUser({ user: 'ada' })
    assert.equal((await second.ada.getServer({})).role, 'viewer')
  } finally {
    await server.close()
    await home.close()
  }
})

for (const { kind, missing, open } of databases())
  test(`${kind}: what another process takes away is noticed within a second`, { skip: missing ?? false }, async () => {
    const db = await open()
    let time = 5000
    let looks = 0
    const { authenticate: ask } = rememberPrincipals(
      async authorization => {
        looks++
        return await authenticate(db, authorization)
      },
      () => time,
    )
    await db.insertInto('users').values({ name: 'ada', owner: 1, created: '', disabled: null }).execute()
    const { id, token } = await createToken(db, { user: 'ada', name: 't', project: 'default', scope: 'all', expires: null })
    const principal = await ask(`Bearer ${token}`)
    assert.deepEqual([await ask(`Bearer ${token}`), looks], [principal, 1])
    await revokeToken(db, principal!, id)
    time += 999
    assert.deepEqual(await ask(`Bearer ${token}`), principal)
    time += 1
    await assert.rejects(ask(`Bearer ${token}`), { code: 'token_wrong' })
    await assert.rejects(ask(`Bearer ${token.slice(0, -1)}`), { code: 'token_wrong' })
    await db.destroy()
  })

test('what was looked up before a change is not believed after it', async () => {
  const answers = [Promise.withResolvers<string>(), Promise.withResolvers<string>()]
  let looks = 0
  const principals = rememberPrincipals(async () => {
    const user = await answers[looks++]!.promise
    return { user, owner: false, project: 'default', role: 'editor', scope: 'all', token: 't' }
  })
  const asked = principals.authenticate('Bearer x')
  principals.forget() // the change comes between the look and its answer
  answers[0]!.resolve('before')
  assert.equal((await asked)?.user, 'before')
  answers[1]!.resolve('after')
  assert.equal((await principals.authenticate('Bearer x'))?.user, 'after')
})
