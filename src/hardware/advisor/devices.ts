/** What a device can do, as far as the advisor needs it: memory, arithmetic, bandwidth. Measured for this machine's processor, published for others. */
import { type Accelerator, knownAccelerator } from '../accelerators.ts'
import { type Basis, exactly, type Range, times } from './estimate.ts'
import type { Precision } from './workload.ts'

export interface Target {
  /** As shown: "8 × H100", "this processor". */
  name: string
  /** Of one device. */
  device: string
  kind: 'processor' | 'accelerator'
  count: number
  /** Bytes of one device. */
  memory: number
  /** Operations a second of one device, by precision; null: not known. */
  operations: (precision: Precision) => Range | null
  /** Bytes a second of one device. */
  bandwidth: Range
  basis: Basis
  source: string
  /** Bytes a second between devices. */
  exchange: Range | null
  /** It is here, and a job can have it. */
  here: boolean
  price: { amount: number; currency: string } | null
}

/** Share of the published peak that trainings reach: large matrix products the upper part (Megatron, PaLM), small networks far less. */
const reached: Range = { low: 0.3, likely: 0.48, high: 0.75 }
/** Without tensor units the peak is easier to reach; frameworks may use them all the same (TF32). */
const reachedPlain: Range = { low: 0.4, likely: 0.75, high: 2.5 }

/** From the table of accelerators; null where its peaks are not published or not known. `memory`: bytes, where another size than the usual is meant. */
export function acceleratorTarget(
  model: string,
  {
    count = 1,
    memory = null,
    here = false,
    price = null,
  }: { count?: number; memory?: number | null; here?: boolean; price?: Target['price'] },
): Target | null {
  const known = knownAccelerator(model)
  if (!known || known.bandwidth === null || (known.half === null && known.float32 === null)) return null
  return {
    name: count > 1 ? `${count} × ${known.name}` : known.name,
    device: known.name,
    kind: 'accelerator',
    count,
    memory: memory ?? known.memory[0]! * 1e9,
    operations: precision => peakOf(known, precision),
    bandwidth: times(exactly(known.bandwidth * 1e9), { low: 0.6, likely: 0.8, high: 0.95 }),
    basis: 'estimated',
    source: known.source,
    exchange: count > 1 ? linkBetween(known) : null,
    here,
    price,
  }
}

function peakOf({ float32, half }: Accelerator, precision: Precision): Range | null {
  if (precision === 'float32')
    return float32 === null
      ? half === null
        ? null
        : times(exactly(half * 1e12), { low: 0.05, likely: 0.2, high: 0.5 })
      : times(exactly(float32 * 1e12), reachedPlain)
  // without tensor units nothing is won by shorter numbers
  return times(exactly((half ?? float32!) * 1e12), half === null ? reachedPlain : reached)
}

/** Cards for data centres come with links of their own or in pairs on the bus; the rest has the bus alone. */
const linkBetween = ({ name }: Accelerator): Range =>
  /^(GB|B|GH|H|A100|A800|V100|MI|Gaudi|TPU|Trainium)/.test(name)
    ? { low: 20e9, likely: 150e9, high: 450e9 }
    : { low: 5e9, likely: 12e9, high: 25e9 }

export interface ProcessorSpeed {
  /** Operations a second of a float32 matrix product on all threads, and bytes a second copied. */
  operations: number
  bandwidth: number
  basis: Basis
}

/** `memory`: bytes that a job here may have. */
export function processorTarget(name: string, memory: number, speed: ProcessorSpeed): Target {
  return {
    name: 'this processor',
    device: name,
    kind: 'processor',
    count: 1,
    memory,
    // convolutions and small layers reach a part of a large matrix product; 16-bit numbers are emulated, or faster (AMX, BF16)
    operations: precision =>
      times(exactly(speed.operations), precision === 'float32' ? { low: 0.2, likely: 0.5, high: 1 } : { low: 0.05, likely: 0.4, high: 2 }),
    bandwidth: times(exactly(speed.bandwidth), { low: 0.7, likely: 1.2, high: 2 }),
    basis: speed.basis,
    source: speed.basis === 'measured' ? 'measured here' : 'typical processors',
    exchange: null,
    here: true,
    price: null,
  }
}
