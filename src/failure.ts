/**
 * Every way Plinth can refuse, in one table: a stable code, the HTTP status it becomes, what happened, and what to do next.
 * Any folder may import this file and nothing else above it does; `{name}` is filled from the details given where it is thrown.
 * docs/errors.md lists the same codes (a test compares them).
 */
export const failures = {
  // ── command line ──
  usage: [400, '{problem}', 'Run plinth {command} --help.'],
  unknown_command: [400, 'There is no command called {command}.', 'Run plinth --help for the list.'],
  interrupted: [499, 'Stopped by Ctrl-C.', '{next}'],
  internal: [500, 'Something in Plinth broke: {problem}', 'This is a bug. Please report it with the command and the text above.'],

  // ── engine ──
  shape_mismatch: [400, 'Shapes do not fit in {operation}: {a} and {b}.', 'Check the shapes of what you pass in.'],
  onnx_malformed: [400, 'This is not a sound ONNX file: {problem}.', 'Export or download the model again; the file may be cut short.'],
  onnx_external_data: [
    400,
    'The tensor {name} keeps its data in another file, which Plinth does not open.',
    'Save the model as one file (onnx.save with save_as_external_data=False).',
  ],
  onnx_unsupported: [
    400,
    'This ONNX file uses something Plinth does not read: {problem}.',
    'Export the model with plain operations of opset 18.',
  ],
  onnx_duplicate_name: [400, 'Two things in one graph are called {name}.', 'Give inputs and parameters names of their own.'],
  gradient_missing: [
    400,
    'The operation {operation} has no gradient: {reason}.',
    'Take that part out of the loss, or ask for the gradient of nodes that do not lie behind it.',
  ],
  loss_not_scalar: [
    400,
    'A gradient needs a loss that is one number; this one has the shape {shape}.',
    'Reduce it with reduceSum or reduceMean over all axes.',
  ],
  weights_missing: [400, 'There is no value for the parameter {name}.', 'Pass weights for every parameter of the graph.'],
  weights_mismatch: [
    400,
    'The weight {name} has {found} numbers where {expected} are needed.',
    'Check that the weights belong to this model.',
  ],
  feed_missing: [400, 'The input {name} was not given.', 'Pass a tensor for each of: {inputs}.'],
  feed_mismatch: [400, 'The input {name} does not fit: {problem}.', 'Pass {expected}.'],
  input_not_finite: [400, 'The input {name} holds {value} at row {row}.', 'Remove or replace missing and infinite values first.'],
  loss_not_finite: [400, 'The loss became {loss} at step {step}.', 'Use a lower learning rate, or look for extreme values in the data.'],
  session_failed: [
    500,
    'The ONNX runtime refused the graph: {problem}',
    'If the model is one of yours, check it with onnx.checker; else report this.',
  ],
  dynamic_batch_unsupported: [
    400,
    '{operation} mixes the batch with another axis, so the batch size cannot be left open.',
    'Export with dynamicBatch: false, or keep the batch on an axis of its own.',
  ],
  safetensors_malformed: [400, 'This is not a sound safetensors file: {problem}.', 'Download it again; the file may be cut short.'],
  checkpoint_mismatch: [400, 'This checkpoint does not belong to this model: {problem}.', 'Resume with the checkpoint of the same run.'],
  layers_invalid: [400, 'The layers do not make a model: {problem}.', 'See docs/engine-api.md.'],
  rows_invalid: [400, 'The rows do not fit the model: {problem}.', 'Pass one array of {expected} numbers a row.'],
  loss_unknown: [400, 'This model has no loss yet.', 'Pass { loss } in the options, or call fit first.'],

  // ── evaluation ──
  evaluation_empty: [
    400,
    'There is not one labelled picture to evaluate.',
    'Name the class folders like the labels of the model, or check the data with plinth data check.',
  ],
  bad_scores: [
    500,
    'No honest number can be made of {what}: {problem}.',
    'The model or the training that made it is broken: train again with a lower learning rate, or report this.',
  ],
  one_class_left: [
    400,
    'The training side holds pictures of one class only: {label}.',
    'Give every class at least two pictures, or train with another --seed.',
  ],
} as const satisfies Record<string, readonly [status: number, message: string, next: string]>

export type FailureCode = keyof typeof failures
export type FailureDetails = Readonly<Record<string, string | number>>

export class Failure extends Error {
  readonly code: FailureCode
  readonly status: number
  /** What the reader can do now: a command, a setting, a change in the data. */
  readonly next: string
  readonly details: FailureDetails

  constructor(code: FailureCode, details: FailureDetails = {}, options?: ErrorOptions) {
    const [status, message, next] = failures[code]
    super(fill(message, details), options)
    this.name = 'Failure'
    this.code = code
    this.status = status
    this.next = fill(next, details)
    this.details = details
  }

  toJSON() {
    return { code: this.code, message: this.message, next: this.next }
  }
}

const fill = (text: string, details: FailureDetails) => text.replace(/\{(\w+)\}/g, (whole, key: string) => String(details[key] ?? whole))
