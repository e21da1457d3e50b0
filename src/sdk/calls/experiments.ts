/** Experiments: what runs are gathered under. */
import { z } from 'zod'
import { call, page, pageInput } from '../contract.ts'

export const Experiment = z.strictObject({
  /** An integer, as text. */
  experiment: z.string().regex(/^\d{1,18}$/),
  name: z.string(),
  /** Where files of its runs go: mlflow-artifacts:/1 */
  location: z.string(),
  /** Milliseconds since 1970. */
  created: z.int(),
  updated: z.int(),
  deleted: z.boolean(),
  tags: z.record(z.string(), z.string()),
})
export type Experiment = z.infer<typeof Experiment>

export const experimentName = z.string().min(1).max(500)

export const calls = {
  createExperiment: call({
    method: 'POST',
    path: '/api/experiments',
    summary: 'Make an experiment',
    right: 'tracker',
    input: z.strictObject({ name: experimentName, tags: z.record(z.string().max(250), z.string().max(5000)).default({}) }),
    output: Experiment,
  }),
  getOrCreateExperiment: call({
    method: 'PUT',
    path: '/api/experiments',
    summary: 'The experiment of this name, made where there is none; asking twice makes one',
    right: 'tracker',
    input: z.strictObject({ name: experimentName }),
    output: Experiment,
  }),
  getExperiment: call({
    method: 'GET',
    path: '/api/experiments/:experiment',
    summary: 'One experiment',
    right: 'viewer',
    input: z.strictObject({ experiment: Experiment.shape.experiment }),
    output: Experiment,
  }),
  listExperiments: call({
    method: 'GET',
    path: '/api/experiments',
    summary: 'Experiments, newest first',
    right: 'viewer',
    input: z.strictObject({ ...pageInput }),
    output: page(Experiment),
  }),
}
