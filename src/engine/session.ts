/** The runtime's sessions, with the options that measurements chose, and programs: a graph of ours, ready to be run again and again. */
import { InferenceSession, Tensor } from 'onnxruntime-node'
import { Failure } from '../failure.ts'
import { type DataType, elements, is, type Node, type Shape, type TensorData, topologicalOrder } from './graph.ts'
import type { Weights } from './lowering.ts'
import { encodeModel, graphBuilder, type OnnxGraph } from './onnx.ts'
import { lowerPortable } from './portable.ts'

export interface SessionOptions {
  /** Processor threads. */
  threads: number
  /** `inference` lets the runtime rewrite the graph (constant weights go to its blocked layout), `training` keeps it as it is. */
  purpose: 'inference' | 'training'
}

export function openSession(graph: OnnxGraph, { threads, purpose }: SessionOptions): Promise<InferenceSession> {
  return InferenceSession.create(encodeModel(graph), {
    intraOpNumThreads: threads,
    interOpNumThreads: 1,
    // our training graphs are scheduled by hand; the optimiser would fuse what was split on purpose
    graphOptimizationLevel: purpose === 'inference' ? 'all' : 'basic',
    // a third less memory at the same speed (training graphs live on the arena)
    enableMemPattern: purpose === 'inference',
    logSeverityLevel: 3,
    extra: {
      session: {
        set_denormal_as_zero: '1',
        // waiting threads sleep, so that decoding, a server or a second training get the processor
        intra_op: { allow_spinning: '0' },
      },
    },
  })
}

export interface Program {
  /** Input name → values in the plain layout, row-major. @throws feed_missing, feed_mismatch */
  run(feeds: Readonly<Record<string, TensorData>>): Promise<Record<string, TensorData>>
  close(): Promise<void>
}

/** Makes named outputs computable. `weights` become constants. @throws weights_missing, weights_mismatch */
export async function compile(
  outputs: Readonly<Record<string, Node>>,
  weights: Weights,
  { threads }: { threads: number },
): Promise<Program> {
  const lowered = lowerPortable(outputs, { weights })
  const b = graphBuilder(lowered.graph)
  const names = new Map<string, string>()
  for (const [output, { shape, type }] of Object.entries(outputs)) {
    const tensor = b.node('Identity', [lowered.tensor(output)]) // an output may be an input, or the same as another one
    b.output(tensor, shape, type)
    names.set(output, tensor)
  }
  const session = await openSession(lowered.graph, { threads, purpose: 'inference' })
  const inputs = topologicalOrder(Object.values(outputs)).filter(node => is(node, 'Input'))
  return {
    async run(feeds) {
      const results = await session.run(Object.fromEntries(inputs.map(node => [node.name!, feedOf(node, feeds)])))
      return Object.fromEntries([...names].map(([output, tensor]) => [output, results[tensor]!.data as TensorData]))
    },
    close: () => session.release(),
  }
}

/** The runtime's tensor for an input of the graph. */
export function feedOf({ name, shape, type }: Node, feeds: Readonly<Record<string, TensorData>>): Tensor {
  const data = feeds[name!]
  if (!data) throw new Failure('feed_missing', { name: name!, inputs: Object.keys(feeds).join(', ') || 'none given' })
  if (data.length !== elements(shape))
    throw new Failure('feed_mismatch', {
      name: name!,
      problem: `it has ${data.length} numbers`,
      expected: `${elements(shape)} numbers, [${shape.join(', ')}]`,
    })
  return tensorOf(type, data, shape)
}

export const tensorOf = (type: DataType, data: TensorData, shape: Shape): Tensor => new Tensor(type, data as never, shape)
