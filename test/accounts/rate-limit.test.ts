import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { createToken } from '../../src/accounts/tokens.ts'
import { createDoor, createLimiter } from '../../src/api/rate-limit.ts'
import { startControlPlane } from '../../src/control-plane.ts'
import { Failure } from '../../src/failure.ts'
import { temporaryHome } from '../track/homes.ts'

test('a bucket gives what it holds and what comes back, and no more, whenever it is asked', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 50 }),
      fc.integer({ min: 1, max: 20 }),
      fc.array(fc.integer({ min: 0, max: 3000 }), { maxLength: 200 }),
      (size, rate, pauses) => {
        let time = 0
        let taken = 0
        const limiter = createLimiter({ rate, size, now: () => time })
        for (const pause of pauses) {
          time += pause
          const seconds = limiter.wait('a')
          if (seconds === 0) {
            limiter.take('a')
            taken++
          } else {
            const before = time
            time += seconds * 1000
            assert.equal(limiter.wait('a'), 0, 'after the time that was told there is one')
            time = before
          }
        }
        assert.ok(taken <= size + (rate * time) / 1000 + 1e-6)
      },
    ),
  )
})

test('one address and one token do not use up what others have', async () => {
  const time = 0
  const principal = (token: string) => ({ user: token, owner: false, project: 'p', role: 'viewer' as const, scope: 'all' as const, token })
  const door = createDoor(
    { requests: 2, failures: 1 },
    async word => (word ? principal(word) : null),
    () => time,
  )
  for (let i = 0; i < 4; i++) await door.enter('one', 'a')
  await assert.rejects(door.enter('one', 'a'), { code: 'too_many_requests', status: 429 })
  await door.enter('one', 'b')
  for (let i = 0; i < 8; i++) door.knock('one')
  assert.throws(() => door.knock('one'), { code: 'too_many_requests' })
  door.knock('other')
})

test('who tries tokens is told to wait; those at the same address who were in before still get in', async () => {
  let time = 0
  let lookedUp = 0
  const door = createDoor(
    { requests: 1000, failures: 3 },
    async word => {
      lookedUp++
      if (word === 'right') return { user: 'ada', owner: false, project: 'p', role: 'viewer', scope: 'all', token: 't' }
      throw new Failure('token_wrong')
    },
    () => time,
  )
  await door.enter('here', 'right')
  for (let i = 0; i < 3; i++) await assert.rejects(door.enter('here', `wrong ${i}`), { code: 'token_wrong' })
  const before = lookedUp
  for (let i = 0; i < 10; i++) await assert.rejects(door.enter('here', `wrong ${i}`), { code: 'too_many_attempts' })
  assert.equal(lookedUp, before, 'the database is not asked any more')
  await door.enter('here', 'right')
  await door.enter('elsewhere', 'right')
  time += 20_000
  await assert.rejects(door.enter('here', 'wrong'), { code: 'token_wrong' })
  await assert.rejects(door.enter('here', 'wrong'), { code: 'too_many_attempts' })
})

test('over HTTP it is 429 with Retry-After, in the words of whichever protocol was spoken', async t => {
  const home = await temporaryHome(t)
  const server = await startControlPlane(home, { host: '127.0.0.1', port: 0, limits: { requests: 1, failures: 2 } })
  t.after(() => server.close())
  const { token } = await createToken(home.db, { user: 'owner', name: 'x', project: 'default', scope: 'all', expires: null })
  const ask = (path: string, word: string) => fetch(new URL(path, server.url), { headers: { authorization: `Bearer ${word}` } })
  for (let i = 0; i < 2; i++) assert.equal((await ask('/api/server', token)).status, 200)
  const limited = await ask('/api/server', token)
  assert.equal(limited.status, 429)
  assert.equal(limited.headers.get('retry-after'), '1')
  assert.equal(((await limited.json()) as { error: { code: string } }).error.code, 'too_many_requests')
  const spoken = await ask('/api/2.0/mlflow/experiments/get?experiment_id=0', token)
  assert.equal(spoken.status, 429)
  assert.ok(Number(spoken.headers.get('retry-after')) >= 1)
  assert.equal(((await spoken.json()) as { error_code: string }).error_code, 'REQUEST_LIMIT_EXCEEDED')
})
