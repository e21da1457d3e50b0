/** Real sockets on loopback: what one address sends another. */
import assert from 'node:assert/strict'
import { connect } from 'node:net'
import { test } from 'node:test'
import { listenForBandwidth, measureBandwidth } from '../../src/hardware/bandwidth.ts'
import { measureLoopback } from '../../src/hardware/loopback.ts'

test('two addresses of this machine are measured, and both sides say the same', async () => {
  const listener = await listenForBandwidth('127.0.0.2')
  const sent = await measureBandwidth(listener, { from: '127.0.0.3', milliseconds: 100 })
  const received = await listener.measured
  assert.deepEqual([sent.bytes, sent.seconds], [received.bytes, received.seconds])
  assert.ok(sent.bytes > 1e6 && sent.rate > 1e7, `${sent.rate} bit/s`)
  assert.ok(Math.abs(sent.rate - (8 * sent.bytes) / sent.seconds) < 1)
  assert.deepEqual([sent.from, sent.to, received.from], ['127.0.0.3', '127.0.0.2', '127.0.0.3'])
})

test('loopback is measured against a thread of its own', async () => {
  const { rate, seconds } = await measureLoopback({ milliseconds: 100 })
  assert.ok(rate > 1e7 && seconds > 0.02)
})

test('whoever does not know the word is dropped, and the next caller is measured all the same', async t => {
  const listener = await listenForBandwidth('127.0.0.1')
  t.after(listener.close)
  const stranger = connect(listener.port, '127.0.0.1')
  stranger.write('x'.repeat(1000))
  stranger.on('error', () => {})
  await new Promise(resolve => stranger.on('close', resolve))
  await assert.rejects(measureBandwidth({ ...listener, word: '0'.repeat(32) }, { milliseconds: 20 }), { code: 'bandwidth_refused' })
  const { bytes } = await measureBandwidth(listener, { milliseconds: 20 })
  assert.equal((await listener.measured).bytes, bytes)
})

test('nobody listening, an address of another machine, and nobody calling are refused in words', async () => {
  const listener = await listenForBandwidth('127.0.0.1')
  listener.close()
  await assert.rejects(listener.measured, { code: 'bandwidth_refused' })
  await assert.rejects(measureBandwidth(listener, { milliseconds: 20 }), { code: 'bandwidth_refused' })
  await assert.rejects(listenForBandwidth('192.0.2.1'), { code: 'bandwidth_refused' })
  const late = await listenForBandwidth('127.0.0.1', { patience: 30 })
  await assert.rejects(late.measured, /nobody called in time/)
})
