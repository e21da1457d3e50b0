/**
 * A training step as one ONNX graph: forward, backward and update. Weights and optimiser state go in and come out (two sets of
 * buffers change places), so a step either happened whole or not at all.
 */
import type { Tensor } from 'onnxruntime-node'
import { lowerBlocked, probeBlocked } from './blocked.ts'
import { gradient } from './gradient.ts'
import { elements, is, type Node, type Shape, type TensorData, topologicalOrder } from './graph.ts'
import type { Json, Lowered, LoweringOptions, ParameterLayout, Weights } from './lowering.ts'
import { graphBuilder } from './onnx.ts'
import { corrections, emitUpdate, type Optimizer, stateOf, stepScalars } from './optimiser.ts'
import { lowerPortable, weightOf } from './portable.ts'
import { feedOf, openSession, tensorOf } from './session.ts'

export interface TrainerOptions {
  /** A scalar. */
  loss: Node
  /** More to compute in each step, in the plain layout. */
  outputs?: Readonly<Record<string, Node>>
  /** Values of all parameters by name, plain layout. Copied. */
  weights: Weights
  optimizer: Optimizer
  /** Processor threads. Sums are split by thread: another number gives slightly other results. */
  threads: number
  /** `auto`: blocked where the runtime has it, else portable. */
  lowering?: 'auto' | 'blocked' | 'portable'
  /** `Trainer.choices` of an earlier trainer, so that the same numbers come out. */
  choices?: TrainerChoices
}
export interface TrainerChoices {
  lowering: 'blocked' | 'portable'
  /** What the lowering decided. */
  kernels: Json
}
export interface TrainerState {
  /** Optimiser steps done. */
  step: number
  /** Weights under their own names, optimiser state under `optimizer.<kind>.<name>`; plain layouts. */
  tensors: Map<string, { shape: Shape; data: Float32Array }>
}

export interface Trainer {
  /** One optimiser step. Feeds in the plain layout, by input name. @throws feed_missing, feed_mismatch */
  step(
    feeds: Readonly<Record<string, TensorData>>,
    options: { learningRate: number },
  ): Promise<{ loss: number; outputs: Record<string, TensorData> }>
  /** Steps done. */
  readonly steps: number
  readonly choices: TrainerChoices
  /** All parameters, frozen ones too. */
  weights(): Map<string, Float32Array>
  /** Everything the next step depends on; bit for bit what `restore` takes. */
  state(): TrainerState
  /** @throws weights_missing, weights_mismatch */
  restore(state: TrainerState): void
  close(): Promise<void>
}

export async function createTrainer(options: TrainerOptions): Promise<Trainer> {
  const { loss, optimizer, weights, threads } = options
  const order = topologicalOrder([loss, ...Object.values(options.outputs ?? {})])
  const parameters = order.filter(node => is(node, 'Parameter'))
  const trained = parameters.filter(node => node.attributes.trainable && (optimizer.scaleOf?.(node.name!) ?? 1) !== 0)
  const gradients = gradient(loss, trained)

  const outputs: Record<string, Node> = { loss, ...prefixed('out.', options.outputs ?? {}) }
  const gradientOf = new Map<string, string>()
  for (const node of trained) {
    outputs[`gradient.${node.name}`] = gradients.get(node)!
    gradientOf.set(`gradient.${node.name}`, node.name!)
  }
  const { lowered, lowering } = await lower(outputs, { gradientOf, threads }, options)

  const b = graphBuilder(lowered.graph)
  const scalars = stepScalars(b, optimizer)
  const kept = stateOf(optimizer)
  /** Input of the graph → output that takes its place in the next step. */
  const next = new Map<string, string>()
  const declare = (tensor: string, shape: Shape) => {
    const output = b.node('Identity', [tensor])
    b.output(output, shape)
    return output
  }
  for (const node of trained) {
    const name = node.name!
    const { shape } = lowered.parameters.get(name)!
    // flat: the runtime is 25 to 40 times slower at tensor × number when the tensor's last axes are 1, as those of 1×1 convolutions are
    const flat = (tensor: string) => b.node('Reshape', [tensor, b.ints([-1])])
    const state = kept.map(prefix => b.input(`${prefix}${name}`, [elements(shape)]))
    const update = emitUpdate(b, optimizer, scalars, {
      name,
      weight: flat(name),
      gradient: flat(lowered.tensor(`gradient.${name}`)),
      state,
    })
    const weight = b.node('Reshape', [update.weight, b.ints(shape)])
    b.output(weight, shape)
    next.set(name, weight)
    for (const [i, input] of state.entries()) {
      b.output(update.state[i]!, [elements(shape)])
      next.set(input, update.state[i]!)
    }
  }
  const results = Object.entries(outputs)
    .filter(([name]) => !gradientOf.has(name))
    .map(([name, node]) => [name, declare(lowered.tensor(name), node.shape)] as const)
  const session = await openSession(lowered.graph, { threads, purpose: 'training' })

  const layoutOf = (input: string): ParameterLayout => lowered.parameters.get(parameterName(input))!
  const shapeOf = new Map<string, Shape>(parameters.map(node => [node.name!, node.shape]))
  const inputs = order.filter(node => is(node, 'Input'))
  const changing = [...next.keys()]
  let steps = 0
  let current = new Map<string, Tensor>()
  let spare = new Map<string, Tensor>()
  const tensorFor = (input: string, data: Float32Array) =>
    tensorOf('float32', data, next.has(input) && !shapeOf.has(input) ? [data.length] : layoutOf(input).shape)
  const physical = (input: string, plain: Float32Array) => tensorFor(input, Float32Array.from(layoutOf(input).toPhysical(plain)))
  const plain = (input: string) => Float32Array.from(layoutOf(input).toPlain(current.get(input)!.data as Float32Array))

  function restore(state: TrainerState): void {
    const values: Weights = new Map([...state.tensors].map(([name, tensor]) => [name, tensor.data]))
    const names = [...new Set([...lowered.parameters.keys(), ...changing])]
    current = new Map(names.map(name => [name, physical(name, weightOf(values, name, shapeOf.get(parameterName(name))!))]))
    spare = new Map(changing.map(name => [name, tensorFor(name, new Float32Array(elements(layoutOf(name).shape)))]))
    steps = state.step
  }
  const start = new Map<string, { shape: Shape; data: Float32Array }>()
  for (const node of parameters) start.set(node.name!, { shape: node.shape, data: weightOf(weights, node.name!, node.shape) })
  for (const node of trained)
    for (const prefix of kept) start.set(`${prefix}${node.name}`, { shape: node.shape, data: new Float32Array(elements(node.shape)) })
  restore({ step: 0, tensors: start })

  return {
    get steps() {
      return steps
    },
    choices: { lowering, kernels: lowered.choices ?? null },
    async step(feeds, { learningRate }) {
      const given: Record<string, Tensor> = Object.fromEntries(inputs.map(node => [node.name!, feedOf(node, feeds)]))
      for (const [name, tensor] of current) given[name] = tensor
      given['step.learning_rate'] = tensorOf('float32', Float32Array.of(learningRate), [])
      if (optimizer.kind === 'adamw') given['step.corrections'] = tensorOf('float32', corrections(optimizer, steps + 1), [2])
      const fetches: Record<string, Tensor | null> = Object.fromEntries(results.map(([, tensor]) => [tensor, null]))
      for (const [input, output] of next) fetches[output] = spare.get(input)!
      const answer = await session.run(given, fetches as never)
      for (const input of next.keys()) {
        const old = current.get(input)!
        current.set(input, spare.get(input)!)
        spare.set(input, old)
      }
      steps++
      const [lossOutput, ...rest] = results
      return {
        loss: (answer[lossOutput![1]]!.data as Float32Array)[0]!,
        outputs: Object.fromEntries(rest.map(([name, tensor]) => [name.slice('out.'.length), answer[tensor]!.data as TensorData])),
      }
    },
    weights: () => new Map([...shapeOf.keys()].filter(name => current.has(name)).map(name => [name, plain(name)])),
    state: () => ({
      step: steps,
      tensors: new Map([...current.keys()].map(name => [name, { shape: shapeOf.get(parameterName(name))!, data: plain(name) }])),
    }),
    restore,
    close: () => session.release(),
  }
}

async function lower(outputs: Record<string, Node>, base: LoweringOptions, { lowering = 'auto', choices }: TrainerOptions) {
  const wanted = choices?.lowering ?? lowering
  const options: LoweringOptions = { ...base, ...(choices && { choices: choices.kernels }) }
  const support = wanted === 'portable' ? null : await probeBlocked()
  if (support) return { lowered: lowerBlocked(outputs, { ...options, support }) as Lowered, lowering: 'blocked' as const }
  // a checkpoint of a machine with blocked convolutions goes on here too, with other roundings
  return { lowered: lowerPortable(outputs, options), lowering: 'portable' as const }
}

const parameterName = (input: string): string => input.replace(/^optimizer\.[a-z]+\./, '')
const prefixed = (prefix: string, nodes: Readonly<Record<string, Node>>) =>
  Object.fromEntries(Object.entries(nodes).map(([name, node]) => [`${prefix}${name}`, node]))
