/**
 * The seam between a graph of ours and an ONNX graph that computes it. There are two implementations: portable.ts, always
 * there, standard operations only; and blocked.ts, faster where the runtime's blocked convolutions exist.
 */
import type { Shape } from './graph.ts'
import type { OnnxGraph } from './onnx.ts'

/** Parameter values by name, in the plain layout. */
export type Weights = ReadonlyMap<string, Float32Array>

/** How a parameter lies in memory while it is trained. Both directions are exact: they move numbers, padding with zeros. */
export interface ParameterLayout {
  /** Shape of the tensor that the ONNX graph takes. */
  shape: Shape
  toPhysical(plain: Float32Array): Float32Array
  toPlain(physical: Float32Array): Float32Array
}

export interface LoweringOptions {
  /** Parameters become initialisers with these values; without them, inputs of the ONNX graph under their own names. */
  weights?: Weights
  /**
   * Output name → name of the parameter whose gradient it is. Such an output has that parameter's physical layout, so that an
   * optimiser can be emitted behind it element by element. Every other output has the plain layout.
   */
  gradientOf?: ReadonlyMap<string, string>
  threads?: number
  /** What an earlier lowering of the same graph decided (`Lowered.choices`): decide the same again. */
  choices?: Json
}

export interface Lowered {
  /** Nodes, inputs and initialisers. Outputs are declared by the caller, who may build on with `graphBuilder(graph)`. */
  graph: OnnxGraph
  /** Name of the tensor that holds an output. */
  tensor(output: string): string
  /** Every parameter that the outputs need. */
  parameters: ReadonlyMap<string, ParameterLayout>
  /** Whatever must be repeated for the same numbers to come out again. */
  choices?: Json
}

export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json }

export const plainLayout = (shape: Shape): ParameterLayout => ({ shape, toPhysical: plain => plain, toPlain: physical => physical })
