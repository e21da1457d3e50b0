import assert from 'node:assert/strict'
import { test } from 'node:test'
import { encodePng } from '../../src/images/encode.ts'
import { ExplainAnswer, PredictAnswer } from '../../src/sdk/index.ts'
import { plain } from '../models/tiny-model.ts'
import { bluePng, file, form, halfRed, knowing, model, post, serve } from './serving.ts'

const server = await serve({
  model: knowing,
  examples: [{ path: file('half.png', await encodePng(halfRed)), title: 'half', label: 'green', predicted: 'red', probability: 0.9 }],
})
const yellow = await encodePng(plain(30, 30, [250, 250, 10]))

test('/predict calls what is unlike anything known unknown, however probable its label, and answers with the fields it always had', async () => {
  const { body } = await post(server, yellow)
  assert.deepEqual(Object.keys(body).sort(), Object.keys(PredictAnswer.shape).sort())
  assert.equal(body.unknown, true)
  assert.ok(['red', 'green', 'blue'].includes(body.label), 'the nearest label is named all the same')
  assert.equal((await post(server, bluePng)).body.unknown, false)
})

test('/explain gives the same answer with the distance, in numbers and in words', async () => {
  const strange = ExplainAnswer.parse((await post(server, yellow, {}, '/explain')).body)
  const { milliseconds: _, ...plainly } = (await post(server, yellow)).body
  assert.deepEqual({ ...strange, ...plainly }, strange)
  assert.ok(strange.distance!.value > strange.distance!.threshold && strange.distance!.fartherThan >= 0.95)
  assert.match(
    strange.distance!.sentence,
    /^This does not look like anything the model has learned: it is farther away than (all|\d+ %) of the pictures/,
  )
  const known = ExplainAnswer.parse((await post(server, bluePng, {}, '/explain')).body)
  assert.ok(known.distance!.value <= known.distance!.threshold)
  assert.match(known.distance!.sentence, /^It looks like what the model has learned: \d+ % of the pictures it knows lie farther away\.$/)
})

test('/explain says which places speak for the label, and they add up to its score', async () => {
  const { why, label, probabilities } = ExplainAnswer.parse((await post(server, form(await encodePng(halfRed)), {}, '/explain')).body)
  assert.deepEqual([label, why!.rows, why!.columns, why!.fit], ['red', 32, 32, 'crop'])
  assert.deepEqual(
    why!.labels.map(one => one.label),
    probabilities.map(one => one.label),
  )
  for (const { places, score } of why!.labels)
    assert.ok(Math.abs(places.reduce((sum, p) => sum + p, 0) - score) < 1e-3 * Math.max(1, Math.abs(score)))
  // differences of scores are the logarithms of the ratios of probabilities
  const [first, second] = why!.labels
  assert.ok(Math.abs(first!.score - second!.score - Math.log(probabilities[0]!.probability / probabilities[1]!.probability)) < 1e-3)
  const side = (from: number, to: number) => first!.places.filter((_, at) => at % 32 >= from && at % 32 < to).reduce((sum, p) => sum + p, 0)
  assert.ok(side(0, 15) > 0.5 && Math.abs(side(18, 32)) < 1e-3, `${side(0, 15)} left, ${side(18, 32)} right`)
})

test('explanations and predictions that come together are answered like those that come alone', async () => {
  const alone = (await post(server, bluePng)).body.probabilities
  const together = await Promise.all(
    Array.from({ length: 40 }, (_, i) =>
      post(server, i % 7 === 5 ? Buffer.from('no picture') : bluePng, {}, i % 3 ? '/predict' : '/explain'),
    ),
  )
  for (const [i, { status, body }] of together.entries()) {
    assert.equal(status, i % 7 === 5 ? 400 : 200)
    if (status !== 200) continue
    assert.deepEqual(body.label, 'blue')
    assert.ok(Math.abs(body.probabilities[0].probability - alone[0].probability) < 1e-6)
    assert.equal('why' in body, i % 3 === 0)
  }
})

test('an example is explained as it is predicted', async () => {
  const response = await fetch(`${server.url}/examples/0/explain`, { method: 'POST' })
  const body = ExplainAnswer.parse(await response.json())
  assert.deepEqual([body.label, body.why!.labels.length], ['red', 3])
  assert.equal((await fetch(`${server.url}/examples/0/explain`)).status, 405)
  assert.equal((await fetch(`${server.url}/examples/7/explain`, { method: 'POST' })).status, 404)
})

test('a token is wanted for an explanation as for a prediction, and bad pictures get the same refusals', async () => {
  const closed = await serve({ model: knowing, token: 'a-secret-of-some-length' })
  assert.equal((await post(closed, bluePng, {}, '/explain')).status, 401)
  assert.equal((await post(closed, bluePng, { authorization: 'Bearer a-secret-of-some-length' }, '/explain')).status, 200)
  assert.equal((await post(server, '', {}, '/explain')).body.error.code, 'body_missing')
  assert.equal((await post(server, 'text', {}, '/explain')).body.error.code, 'image_unreadable')
})

test('a model without a distance explains what it can', async () => {
  const old = await serve({
    model: { ...model, path: new URL('../golden/models/artefact-before-distance.onnx', import.meta.url).pathname },
  })
  const { status, body } = await post(old, bluePng, {}, '/explain')
  assert.deepEqual([status, body.label, body.distance, body.why], [200, 'blue', null, null])
  assert.equal((await (await fetch(`${old.url}/model`)).json()).unknown, null)
  assert.deepEqual((await (await fetch(`${server.url}/model`)).json()).unknown, { threshold: 4, falseAlarmRate: 0.05 })
})
