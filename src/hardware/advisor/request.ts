/** From what somebody said about a computation to a workload, with what is missing filled in from the script and from what is usual. */
import { Failure } from '../../failure.ts'
import { type Network, networkCalled, networks } from './networks.ts'
import type { Framework, ScriptFacts } from './script.ts'
import type { Optimiser, Precision, Shape, Sharding, Workload } from './workload.ts'

export interface Said {
  /** 25M, 7B, 1.3e9. */
  params?: string | undefined
  trained?: string | undefined
  backbone?: string | undefined
  batch?: number | undefined
  precision?: Precision | undefined
  optimiser?: Optimiser | undefined
  imageSize?: number | undefined
  sequence?: number | undefined
  layers?: number | undefined
  hidden?: number | undefined
  heads?: number | undefined
  vocabulary?: number | undefined
  samples?: number | undefined
  epochs?: number | undefined
  sharding?: Sharding | undefined
  recompute?: boolean | undefined
  inference?: boolean | undefined
  rows?: number | undefined
  columns?: number | undefined
}

export interface Asked {
  workload: Workload
  framework: Framework
  /** What was read or assumed, for people. */
  notes: string[]
}

/** `25M` → 25,000,000. throws advice_incomplete */
export function readCount(text: string, flag: string): number {
  const [, number, unit = ''] = /^(\d+(?:\.\d+)?(?:e\d{1,2})?)\s*([kmbt]?)$/i.exec(text.trim()) ?? []
  const value = Number(number) * { '': 1, k: 1e3, m: 1e6, b: 1e9, t: 1e12 }[unit.toLowerCase()]!
  if (!(value >= 1 && value <= 1e15))
    throw new Failure('advice_incomplete', { problem: `${flag} is "${text}"`, remedy: `Write it like ${flag} 25M, 7B or 120000.` })
  return Math.round(value)
}

/** `samples`: pictures that were counted in a folder. throws advice_incomplete */
export function workloadOf(said: Said, script: ScriptFacts | null, samples: number | null = null): Asked {
  if (said.rows !== undefined || said.columns !== undefined) return tableAsked(said, script)
  const network = networkOf(said, script)
  const parameters = said.params !== undefined ? readCount(said.params, '--params') : network ? network.parameters * 1e6 : null
  if (parameters === null)
    throw new Failure('advice_incomplete', {
      problem: 'how many parameters the model has is not known',
      remedy:
        'Say it with --params 25M (in PyTorch: sum(p.numel() for p in model.parameters())), or name a network with --backbone resnet50.',
    })
  const trained = said.trained === undefined ? parameters : Math.min(parameters, readCount(said.trained, '--trained'))
  const notes = [...(script?.notes ?? [])]
  const assume = <T>(value: T | null | undefined, otherwise: T, note: string): T => {
    if (value !== undefined && value !== null) return value
    notes.push(note)
    return otherwise
  }
  const shape = shapeOf(said, script, network)
  const training = !said.inference
  const workload: Workload = {
    training,
    parameters,
    trained,
    precision: assume(
      said.precision ?? script?.precision,
      'float32',
      'Assumed: numbers of 32 bits (--precision mixed halves activations).',
    ),
    optimiser: training ? assume(said.optimiser ?? script?.optimiser, 'adam', 'Assumed: the optimiser is Adam (--optimizer).') : 'adam',
    batch: assume(said.batch ?? script?.batch, 32, 'Assumed: 32 samples a step (--batch).'),
    shape,
    recompute: said.recompute ?? false,
    sharding: said.sharding ?? 'none',
    samples: said.samples ?? samples,
    epochs: said.epochs ?? script?.epochs ?? 1,
  }
  if (shape.kind === 'dense')
    notes.push('Assumed: every parameter is used once a sample, as in dense layers. Give --image-size for pictures, --sequence for text.')
  if (shape.kind === 'sequence' && shape.vocabulary === null)
    notes.push('Not counted: the scores of every word at the end. Give --vocabulary; in small models they are most of the memory.')
  if (workload.samples === null) notes.push('How long the whole run takes is not known without --samples.')
  return { workload, framework: script?.framework ?? 'pytorch', notes }
}

/** throws advice_incomplete */
function tableAsked({ rows, columns }: Said, script: ScriptFacts | null): Asked {
  if (rows === undefined || columns === undefined)
    throw new Failure('advice_incomplete', { problem: 'a table has rows and columns', remedy: 'Give both: --rows 1000000 --columns 50.' })
  return {
    workload: {
      ...{ training: true, parameters: columns, trained: columns, precision: 'float32', optimiser: 'sgd', batch: rows },
      ...{ shape: { kind: 'table', rows, columns }, recompute: false, sharding: 'none', samples: rows, epochs: 1 },
    },
    framework: script?.framework ?? 'scikit-learn',
    notes: ['How long it takes depends on the method; it is not forecast. Try a tenth of the rows first.'],
  }
}

function networkOf(said: Said, script: ScriptFacts | null): Network | null {
  if (said.backbone === undefined) return said.params === undefined ? (script?.network ?? null) : null
  const found = networkCalled(said.backbone)
  if (!found)
    throw new Failure('advice_incomplete', {
      problem: `no network called ${said.backbone} is known`,
      remedy: `Known are ${networks.map(({ name }) => name).join(', ')}. For another one give --params and --image-size.`,
    })
  return found
}

function shapeOf(said: Said, script: ScriptFacts | null, network: Network | null): Shape {
  const sequence = said.sequence ?? (said.imageSize === undefined && !network ? script?.sequence : null)
  if (sequence)
    return {
      kind: 'sequence',
      length: sequence,
      layers: said.layers ?? null,
      hidden: said.hidden ?? null,
      heads: said.heads ?? null,
      vocabulary: said.vocabulary ?? null,
    }
  const size = said.imageSize ?? script?.imageSize ?? network?.size
  return size ? { kind: 'picture', size, network } : { kind: 'dense' }
}
