import { type AdviceRequest, advise, type Choice, type Estimate, optimisers, precisions, shardings } from '../machine.ts'
import { formatForecast } from '../sdk/index.ts'
import { trainingRates } from '../server.ts'
import { defineCommand } from './command.ts'
import type { Context } from './output.ts'

export default defineCommand({
  name: 'advise',
  summary: 'say what memory and time a training needs, and which device suits it',
  details:
    'Nothing is run: a script is read for what it says about itself, a folder of pictures is listed. This machine is measured for two seconds the ' +
    'first time. Every number says whether it was measured or estimated, and estimates have a range that nine of ten should lie in. After ' +
    'plinth run the forecast is compared with what the run took, and the next one is corrected by it.',
  arguments: { what: { summary: 'a training script, or a folder or zip of pictures', optional: true } },
  options: {
    params: { type: 'string', value: 'N', summary: 'how many parameters the model has: 25M, 7B' },
    backbone: { type: 'string', value: 'NAME', summary: 'a network for pictures that is known: resnet50, vit_b_16' },
    batch: { type: 'integer', minimum: 1, maximum: 1_000_000, summary: 'samples a step, on all devices together' },
    'image-size': { type: 'integer', minimum: 8, maximum: 16384, summary: 'pixels a side, for pictures' },
    sequence: { type: 'integer', minimum: 1, maximum: 10_000_000, summary: 'tokens a sample, for text' },
    layers: { type: 'integer', minimum: 1, maximum: 10_000, summary: 'layers of the transformer' },
    hidden: { type: 'integer', minimum: 1, maximum: 1_000_000, summary: 'its width' },
    heads: { type: 'integer', minimum: 1, maximum: 10_000, summary: 'its attention heads' },
    vocabulary: { type: 'integer', minimum: 1, maximum: 10_000_000, summary: 'how many tokens it knows' },
    trained: { type: 'string', value: 'N', summary: 'parameters that are trained, where not all are (LoRA, a head)' },
    precision: { type: 'string', choices: precisions, summary: 'the numbers it computes with' },
    optimizer: { type: 'string', choices: optimisers, summary: 'the optimiser' },
    recompute: { type: 'boolean', summary: 'activations are computed again on the way back (gradient checkpointing)' },
    sharding: { type: 'string', choices: shardings, summary: 'what several devices share (ZeRO, FSDP is zero3)' },
    inference: { type: 'boolean', summary: 'only predictions, no training' },
    samples: { type: 'integer', minimum: 1, maximum: 1e12, summary: 'how many samples a round has' },
    epochs: { type: 'integer', minimum: 1, maximum: 1_000_000, summary: 'how many rounds' },
    rows: { type: 'integer', minimum: 1, maximum: 1e12, summary: 'rows of a table, for scikit-learn and the like' },
    columns: { type: 'integer', minimum: 1, maximum: 1e9, summary: 'its columns' },
    devices: { type: 'string', value: 'NAMES', summary: 'accelerators that are not here to compare with: H100,A100:8,L4' },
    prices: { type: 'string', value: 'FILE', summary: 'a table of machines and what they cost an hour' },
    measure: { type: 'boolean', summary: 'measure this machine again' },
    terms: { type: 'boolean', summary: 'show what each number is the sum of, for every device' },
  },
  examples: [
    'plinth advise train.py --params 25M --batch 32',
    'plinth advise ./photos --backbone resnet50',
    'plinth advise --params 7B --sequence 2048 --precision mixed --devices H100:8,A100:8',
  ],
  async run({ what, optimizer, devices, prices, measure, terms, ...said }, context) {
    const request: AdviceRequest = {
      ...said,
      what: what ?? null,
      optimiser: optimizer,
      devices: devices?.split(',').filter(name => name.trim() !== '') ?? [],
      prices: prices ?? null,
      anew: measure,
      rates: trainingRates,
    }
    const advice = await advise(request, context.signal)
    const { out, result, table, style } = context
    for (const note of advice.notes) out(style('dim', note))
    out()
    table(
      ['Device', { title: 'Memory', align: 'right' }, 'Of', 'Fits', { title: 'Time', align: 'right' }, 'Price'],
      advice.choices.map(choice => [
        choice.target.name,
        bytes(choice.memory),
        gigabytes(choice.target.memory),
        { yes: 'yes', tight: 'perhaps', no: 'no' }[choice.fits],
        timeOf(choice),
        priceOf(choice),
      ]),
    )
    out()
    const shown = terms ? advice.choices : advice.choices.slice(0, 1)
    for (const choice of shown) explain(choice, context)
    const { operations, bandwidth, processor, threads, load } = advice.measured
    out(
      style(
        'dim',
        `This machine: ${Math.round(operations / 1e9)} GFLOP/s (measured, float32 matrix product, ${threads} threads), memory copied at ${(bandwidth / 1e9).toFixed(1)} GB/s (measured), ${processor}.${load > threads ? ' It was busy then: the figures may be low; --measure measures again.' : ''}`,
      ),
    )
    const [last] = advice.earlier
    if (last)
      out(
        `It ran here before (measured): ${[last.seconds && formatForecast(last.seconds), last.memory && gigabytes(last.memory)].filter(Boolean).join(', ')} on ${last.device}.`,
      )
    if (!advice.choices.some(({ fits }) => fits !== 'no'))
      out('None of these holds it: try a smaller --batch, --precision mixed, --recompute, or --sharding zero3 on several devices.')
    result(advice)
  },
})

function explain({ target, memory, time }: Choice, { out, style }: Context): void {
  out(style('bold', target.name))
  const lines = (title: string, whole: Estimate, write: (seconds: number) => string) => {
    if (whole.terms.length === 0) return
    out(`  ${title.padEnd(16)} ${write(whole.likely)} (${write(whole.low)} to ${write(whole.high)}), ${whole.basis}`)
    for (const { name, likely, low, high, basis, how } of whole.terms)
      out(style('dim', `    ${name.padEnd(16)} ${write(likely)} (${write(low)} to ${write(high)}), ${basis}: ${how}`))
  }
  lines('memory', memory, gigabytes)
  if (time) lines('a step', time.step, duration)
  if (time?.run) lines('the run', time.run, duration)
  out()
}

const bytes = ({ likely, low, high, basis }: Estimate) => `${gigabytes(likely)} (${gigabytes(low)} to ${gigabytes(high)}) ${basis}`

function timeOf({ time }: Choice): string {
  if (!time) return 'not known'
  const whole = time.run ?? time.step
  return `${duration(whole.likely)} (${duration(whole.low)} to ${duration(whole.high)})${time.run ? '' : ' a step'} ${whole.basis}`
}

function priceOf({ price }: Choice): string {
  if (!price) return ''
  const { low, likely, high } = price.amount
  return price.per === 'hour'
    ? `${likely} ${price.currency} an hour`
    : `${likely.toFixed(2)} (${low.toFixed(2)} to ${high.toFixed(2)}) ${price.currency}`
}

const gigabytes = (bytes: number) => (bytes < 1e9 ? `${Math.round(bytes / 1e6)} MB` : `${(bytes / 1e9).toFixed(1)} GB`)

function duration(seconds: number): string {
  if (seconds < 1) return `${Number((seconds * 1000).toPrecision(2))} ms`
  if (seconds < 100) return `${Number(seconds.toPrecision(2))} s`
  if (seconds < 6000) return `${Math.round(seconds / 60)} min`
  return seconds < 360_000 ? `${(seconds / 3600).toFixed(1)} h` : `${Math.round(seconds / 86400)} days`
}
