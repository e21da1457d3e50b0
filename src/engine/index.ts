/** `plinth/engine`: graphs, gradients, training and inference on the ONNX runtime, without Python. */
export { readCheckpoint, writeCheckpoint } from './checkpoint.ts'
export { toOnnx } from './export.ts'
export { gradient } from './gradient.ts'
export * from './graph.ts'
export { type LoadedModel, loadModel, type RgbPicture } from './load-model.ts'
export type { Weights } from './lowering.ts'
export { encodeModel } from './onnx.ts'
export { adamW, type Optimizer, sgdMomentum } from './optimiser.ts'
export { readSafetensors, writeSafetensors } from './safetensors.ts'
export {
  type Activation,
  adam,
  crossEntropy,
  type DenseLayer,
  dense,
  type EpochLoss,
  type FitOptions,
  type Loss,
  mse,
  type OptimizerChoice,
  type Rows,
  type SequentialModel,
  sequential,
  sgd,
} from './sequential.ts'
export { compile, type Program } from './session.ts'
export { createTrainer, type Trainer, type TrainerState } from './trainer.ts'
