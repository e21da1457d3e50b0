/**
 * Is the runtime's blocked domain there, how large is a block, and does it compute what we think it computes? The domain is internal
 * to ONNX Runtime, so nothing is taken for granted: one tiny graph is run and compared with sums made here.
 */
import * as ort from 'onnxruntime-node'
import { blockedConvolution, forwardFilter } from './blocked-convolution.ts'
import { blockedBuilder, convert, type Four } from './blocked-layout.ts'
import { elements } from './graph.ts'
import { encodeModel, type GraphBuilder, graphBuilder } from './onnx.ts'

export interface BlockedSupport {
  /** Channels in a block: 16 with AVX-512, 8 elsewhere. */
  block: number
}

let found: Promise<BlockedSupport | null> | undefined

/** Null where the blocked convolutions are missing or answer wrongly. Asked once a process; takes a few milliseconds. */
export function probeBlocked(): Promise<BlockedSupport | null> {
  found ??= probe()
  return found
}

async function probe(): Promise<BlockedSupport | null> {
  try {
    const four = await run(
      (b, x) => b.node('ReorderInput', [x], {}, { domain: 'com.microsoft.nchwc' }),
      [1, 4, 1, 1],
      Float32Array.of(1, 2, 3, 4),
    )
    const block = four.shape[1]!
    if (![4, 8, 16, 32].includes(block) || four.data.length !== block || four.data.some((v, i) => v !== (i < 4 ? i + 1 : 0))) return null
    return (await convolves(block)) ? { block } : null
  } catch {
    return null // an unknown domain or operation: the runtime refuses the graph
  }
}

/** A 3×3 convolution from more than one block to more than one block, with a residual sum and Relu, against the sum of its definition. */
async function convolves(block: number): Promise<boolean> {
  const [c, k, size] = [block + 4, block + 4, 4]
  const picture: Four = [1, c, size, size]
  const x = Float32Array.from({ length: elements(picture) }, (_, i) => ((i * 7) % 11) - 5)
  const weight = Float32Array.from({ length: k * 9 * c }, (_, i) => ((i * 5) % 7) - 3) // [K, 3, 3, C]
  const y = await run(
    (b, input) => {
      const e = blockedBuilder(b, block)
      const blocked = convert(e, input, picture, 'plain', 'blocked')
      const filter = forwardFilter(e, b.constant(weight, [k, 3, 3, c], 'weight'), k, c, [3, 3])
      const at = { kernel: [3, 3], pads: [1, 1, 1, 1] } as const
      return convert(
        e,
        blockedConvolution(e, blocked, filter, at, { sum: blocked, activation: { activation: 'Relu' } }),
        picture,
        'blocked',
        'plain',
      )
    },
    picture,
    x,
  )
  return y.data.every((value, i) => {
    const [out, row, column] = [Math.floor(i / size ** 2), Math.floor(i / size) % size, i % size]
    let sum = x[i]!
    for (let tap = 0; tap < 9; tap++) {
      const [r, q] = [row + Math.floor(tap / 3) - 1, column + (tap % 3) - 1]
      if (r >= 0 && q >= 0 && r < size && q < size)
        for (let channel = 0; channel < c; channel++) sum += weight[(out * 9 + tap) * c + channel]! * x[(channel * size + r) * size + q]!
    }
    return value === Math.max(0, sum) // whole numbers: exact in any order
  })
}

async function run(build: (b: GraphBuilder, input: string) => string, shape: readonly number[], data: Float32Array) {
  const b = graphBuilder()
  const output = build(b, b.input('x', shape))
  b.graph.outputs.push({ name: output, type: 'float32' })
  const session = await ort.InferenceSession.create(encodeModel(b.graph), {
    intraOpNumThreads: 1,
    logSeverityLevel: 4,
    graphOptimizationLevel: 'disabled',
  })
  try {
    const made = (await session.run({ x: new ort.Tensor('float32', data, shape) }))[output]!
    return { shape: made.dims, data: made.data as Float32Array }
  } finally {
    await session.release()
  }
}
