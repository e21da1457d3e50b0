import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { after, describe, test } from 'node:test'
import fc from 'fast-check'
import { ownerAtHome } from '../../src/accounts/owner.ts'
import { authenticate, createToken, listTokens, makeToken, revokeToken } from '../../src/accounts/tokens.ts'
import { addUser, createProject, inProject, listUsers, removeUser, setDisabled } from '../../src/accounts/users.ts'
import { asAnswer } from '../../src/api/app.ts'
import { allows } from '../../src/api/principal.ts'
import type { Db } from '../../src/db/open.ts'
import { databases } from '../db/databases.ts'

const owner = ownerAtHome

for (const { kind, missing, open } of databases())
  describe(kind, { skip: missing ?? false }, () => {
    let db: Db
    const opened = (async () => {
      if (missing) return
      db = await open()
      await db.insertInto('users').values({ name: 'owner', owner: 1, created: '', disabled: null }).execute()
      for (const project of ['one', 'two']) await createProject(db, owner, project)
      for (const user of ['ada', 'eve']) await addUser(db, { ...owner, project: 'one' }, user, user === 'ada' ? 'editor' : 'viewer')
    })()
    after(() => db?.destroy())
    const token = async (change: { expires?: string; scope?: 'all' | 'read' | 'track'; user?: string } = {}) => {
      await opened
      return await createToken(db, { user: 'ada', name: 't', project: 'one', scope: 'all', expires: null, ...change })
    }

    test('every token that is not good is refused with the same answer', async () => {
      const good = await token()
      const expired = await token({ expires: new Date(Date.now() - 1000).toISOString() })
      const revoked = await token()
      await revokeToken(db, { ...owner, project: 'one' }, revoked.id)
      const disabled = await token({ user: 'eve' })
      await setDisabled(db, owner, 'eve', true)
      const other = `plinth_${good.id}_${randomBytes(32).toString('base64url')}`
      const unknown = `plinth_${randomBytes(6).toString('hex')}_${good.token.slice(-43)}`
      const hash = createHash('sha256').update(good.token).digest('hex')
      const forged = [
        expired.token,
        revoked.token,
        disabled.token,
        other,
        unknown,
        hash,
        good.id,
        '',
        'x',
        `${good.token}x`,
        good.token.slice(0, -1),
        good.token.toUpperCase(),
        `plinth_${good.id}_`,
      ]
      const answers = new Set<string>()
      for (const text of forged)
        for (const header of [`Bearer ${text}`, `Basic ${Buffer.from(`plinth:${text}`).toString('base64')}`]) {
          const error = await authenticate(db, header).then(
            () => assert.fail(`${text} was taken`),
            error => error,
          )
          answers.add(JSON.stringify(asAnswer(error)))
        }
      for (const header of ['Bearer', 'Digest x', 'plinth', `Token ${good.token}`, good.token])
        answers.add(
          JSON.stringify(
            asAnswer(
              await authenticate(db, header).then(
                () => assert.fail(`${header} was taken`),
                error => error,
              ),
            ),
          ),
        )
      assert.equal(answers.size, 1, [...answers].join('\n'))
      assert.match([...answers][0]!, /"status":401.*token_wrong/)
      await setDisabled(db, owner, 'eve', false)
      assert.equal((await authenticate(db, `Bearer ${disabled.token}`))?.user, 'eve')
      assert.equal((await authenticate(db, `bearer ${good.token}`))?.user, 'ada')
      assert.equal((await authenticate(db, `Basic ${Buffer.from(`anybody:${good.token}`).toString('base64')}`))?.user, 'ada')
      assert.equal(await authenticate(db, undefined), null)
    })

    test('how long a refusal takes does not say what was wrong', async t => {
      const [good, revoked] = [await token(), await token()]
      await revokeToken(db, { ...owner, project: 'one' }, revoked.id)
      const kinds = {
        unknown: () => `plinth_${randomBytes(6).toString('hex')}_${randomBytes(32).toString('base64url')}`,
        'wrong secret': () => `plinth_${good.id}_${randomBytes(32).toString('base64url')}`,
        'nearly right': () => good.token.slice(0, -1) + (good.token.endsWith('A') ? 'B' : 'A'),
        revoked: () => revoked.token,
      }
      const times = new Map(Object.keys(kinds).map(name => [name, [] as number[]]))
      for (let i = 0; i < 400; i++)
        for (const [name, make] of Object.entries(kinds)) {
          const text = make()
          const started = process.hrtime.bigint()
          await authenticate(db, `Bearer ${text}`).catch(() => {})
          times.get(name)!.push(Number(process.hrtime.bigint() - started) / 1000)
        }
      const low = [...times].map(([name, all]) => ({ name, time: all.sort((a, b) => a - b)[Math.floor(all.length / 4)]! }))
      t.diagnostic(low.map(({ name, time }) => `${name} ${time.toFixed(0)} µs`).join(', '))
      const [least, most] = [Math.min(...low.map(({ time }) => time)), Math.max(...low.map(({ time }) => time))]
      assert.ok(most < 1.6 * least, `${least} to ${most} µs`)
    })

    test('whatever stands in the header, it is refused or told apart, and never breaks', async () => {
      await opened
      await fc.assert(
        fc.asyncProperty(
          fc.oneof(
            fc.string(),
            fc.string({ unit: 'binary' }),
            fc.constantFrom('Bearer ', 'Basic ').chain(kind => fc.string().map(rest => kind + rest)),
          ),
          async header => {
            const outcome = await authenticate(db, header).catch(error => error.code)
            assert.ok(outcome === 'token_wrong' || (outcome === null && header === ''), String(outcome))
          },
        ),
        { numRuns: kind === 'SQLite' ? 300 : 60 },
      )
    })

    test('a token never may more than who makes it, nor reaches where they do not', async () => {
      await opened
      const ada = { user: 'ada', owner: false, project: 'one', role: 'editor' as const, scope: 'all' as const, token: 'a' }
      const { token: own, about } = await makeToken(db, ada, { name: 'n', scope: 'track', days: 1 })
      const tracker = (await authenticate(db, `Bearer ${own}`))!
      assert.deepEqual([tracker.user, tracker.role, tracker.scope, tracker.project], ['ada', 'editor', 'track', 'one'])
      assert.deepEqual(
        ['viewer', 'tracker', 'editor', 'admin'].map(right => allows(tracker, right as 'viewer')),
        [true, true, false, false],
      )
      assert.ok(Math.abs(Date.parse(about.expires!) - Date.now() - 86_400_000) < 60_000)
      await assert.rejects(makeToken(db, tracker, { name: 'n', scope: 'all' }), { code: 'scope_too_wide' })
      await assert.rejects(makeToken(db, ada, { name: 'n', scope: 'all', user: 'eve' }), { code: 'forbidden' })
      const admin = { ...ada, user: 'root', role: 'admin' as const }
      await assert.rejects(makeToken(db, admin, { name: 'n', scope: 'all', user: 'owner' }), { code: 'owner_untouchable' })
      await assert.rejects(inProject(db, ada, 'two', 'viewer'), { code: 'project_not_found', status: 404 })
      await assert.rejects(inProject(db, ada, 'nowhere', 'viewer'), { code: 'project_not_found', status: 404 })
      await addUser(db, { ...owner, project: 'two' }, 'ada', 'viewer')
      assert.equal((await inProject(db, ada, 'two', 'viewer')).role, 'viewer')
      await assert.rejects(inProject(db, ada, 'two', 'admin'), { code: 'forbidden' })
      await assert.rejects(inProject(db, { ...ada, scope: 'read' }, 'two', 'viewer'), { code: 'project_not_found' })
      assert.equal((await inProject(db, owner, 'two', 'owner')).project, 'two')
      // others' tokens
      const { about: eves } = await makeToken(db, { ...owner, project: 'one' }, { name: 'n', scope: 'all', user: 'eve' })
      assert.ok((await listTokens(db, ada)).every(({ user }) => user === 'ada'))
      await assert.rejects(revokeToken(db, ada, eves.id), { code: 'token_not_found', status: 404 })
      await assert.rejects(revokeToken(db, { ...admin, project: 'two' }, eves.id), { code: 'token_not_found', status: 404 })
      assert.equal((await listUsers(db, 'two')).find(({ user }) => user === 'ada')?.roles['one'], undefined, 'roles elsewhere are not told')
      await removeUser(db, { ...owner, project: 'one' }, 'ada')
      assert.equal(allows((await authenticate(db, `Bearer ${own}`))!, 'viewer'), false)
      // and the list says so
      const listed = await listTokens(db, { ...owner, project: 'one' })
      const of = (user: string) => listed.find(each => each.user === user)!
      assert.deepEqual([of('ada').role, of('ada').disabled], [null, null])
      await setDisabled(db, owner, 'eve', true)
      const eve = (await listTokens(db, { ...owner, project: 'one' })).find(({ id }) => id === eves.id)!
      assert.deepEqual([eve.role, typeof eve.disabled], ['viewer', 'string'])
    })

    test('what is kept does not show any token', async () => {
      const { token: text } = await token()
      const kept = await Promise.all((['tokens', 'audit', 'users'] as const).map(table => db.selectFrom(table).selectAll().execute()))
      assert.ok(!JSON.stringify(kept).includes(text.slice(-43)))
    })
  })
