/** A network for a table of numbers, from TypeScript: Dense 64 relu on 10 inputs, Dense 64 relu, Dense 1. Run it with: node examples/dense.ts */
import { rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { adam, dense, loadModel, mse, sequential } from 'plinth/engine'

let state = 7
const random = () => {
  state = (state * 1103515245 + 12345) % 2147483648
  return state / 2147483648 - 0.5
}
const rows = Array.from({ length: 1200 }, () => Array.from({ length: 10 }, random))
const targets = rows.map(row => [Math.sin(3 * row[0]!) + row[1]! * row[2]! * 4 - row[3]!])

const model = sequential([dense(64, { activation: 'relu', inputShape: [10] }), dense(64, { activation: 'relu' }), dense(1)])
const history = await model.fit(rows.slice(0, 1000), targets.slice(0, 1000), {
  loss: mse(),
  optimizer: adam(),
  epochs: 30,
  validationSplit: 0.1,
})
const { loss } = await model.evaluate(rows.slice(1000), targets.slice(1000))
console.log(`loss ${history[0]!.loss.toFixed(4)} → ${history.at(-1)!.loss.toFixed(4)}, on rows it has not seen ${loss.toFixed(4)}`)

const file = join(tmpdir(), `plinth-dense-${process.pid}.onnx`)
await model.save(file)
const loaded = await loadModel(file)
console.log('saved, loaded again, answers', (await loaded.predict(rows.slice(0, 2))).map(row => row[0]!.toFixed(3)).join(' and '))
await loaded.close()
rmSync(file)
