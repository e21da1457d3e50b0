/** A graph of ours as a standard ONNX graph that runs anywhere: no vendor operations, weights inside, any batch size. */
import { Failure } from '../failure.ts'
import { is, type Node, topologicalOrder } from './graph.ts'
import type { Weights } from './lowering.ts'
import { graphBuilder, type OnnxGraph } from './onnx.ts'
import { lowerPortable } from './portable.ts'

export interface ExportOptions {
  /** Makes the first axis of every input, and of all that follows from one, the symbolic dimension "batch". The graph is then built for one. */
  dynamicBatch: boolean
  /** In front of made-up tensor names, so that two exports can be joined. */
  prefix?: string
}

/** Outputs appear under their own names; parameters are initialisers under theirs. @throws weights_missing, weights_mismatch */
export function toOnnx(outputs: Readonly<Record<string, Node>>, weights: Weights, { dynamicBatch, prefix = '' }: ExportOptions): OnnxGraph {
  const batched = dynamicBatch ? batchedNodes(Object.values(outputs)) : new Set<Node>()
  const lowered = lowerPortable(outputs, { weights, prefix, batchAxis: node => (batched.has(node) ? 0 : null) })
  const b = graphBuilder(lowered.graph, `${prefix}out_`)
  for (const [name, node] of Object.entries(outputs)) {
    b.node('Identity', [lowered.tensor(name)], {}, { output: name })
    b.output(name, batched.has(node) ? ['batch', ...node.shape.slice(1)] : node.shape, node.type)
  }
  return lowered.graph
}

/** Nodes whose first axis is the batch: those that depend on an input. */
function batchedNodes(outputs: readonly Node[]): Set<Node> {
  const batched = new Set<Node>()
  for (const node of topologicalOrder(outputs)) {
    if (!is(node, 'Input') && !node.inputs.some(input => batched.has(input))) continue
    if (node.shape[0] !== 1) throw new Failure('dynamic_batch_unsupported', { operation: node.operation })
    batched.add(node)
  }
  return batched
}
