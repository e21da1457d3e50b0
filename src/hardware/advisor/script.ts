/** What a training script says about itself, as far as it can be read without running it. Each finding is only a guess, and is told as one. */
import { type Network, networks } from './networks.ts'
import type { Optimiser, Precision } from './workload.ts'

export const frameworks = ['pytorch', 'tensorflow', 'jax', 'scikit-learn', 'plinth', 'other'] as const
export type Framework = (typeof frameworks)[number]

export interface ScriptFacts {
  framework: Framework
  network: Network | null
  optimiser: Optimiser | null
  precision: Precision | null
  batch: number | null
  epochs: number | null
  imageSize: number | null
  sequence: number | null
  /** What was found, for people. */
  notes: string[]
}

const imports: readonly [RegExp, Framework][] = [
  [/^\s*(?:import|from)\s+(?:torch|torchvision|lightning|pytorch_lightning|timm|transformers|accelerate|diffusers)\b/m, 'pytorch'],
  [/^\s*(?:import|from)\s+(?:tensorflow|keras)\b/m, 'tensorflow'],
  [/^\s*(?:import|from)\s+(?:jax|flax|optax)\b/m, 'jax'],
  [/^\s*(?:import|from)\s+(?:sklearn|xgboost|lightgbm|catboost)\b/m, 'scikit-learn'],
]

/** `text`: a script, at most its first megabyte. */
export function readScript(text: string): ScriptFacts {
  const code = text.slice(0, 1 << 20).replaceAll(/#.*$/gm, '')
  const framework = imports.find(([pattern]) => pattern.test(code))?.[1] ?? 'other'
  const network =
    networks
      .flatMap(each => [each.name, ...each.also].map(name => ({ each, name })))
      .toSorted((a, b) => b.name.length - a.name.length)
      .find(({ name }) => new RegExp(`\\b${name.replaceAll(/[-_]/g, '[-_]?')}\\b`, 'i').test(code))?.each ?? null
  const number = (pattern: RegExp) => {
    const found = pattern.exec(code)?.[1]
    return found === undefined ? null : Number(found)
  }
  const facts = {
    framework,
    network,
    optimiser: optimiserIn(code),
    precision: /autocast|GradScaler|mixed_float16|mixed_bfloat16|mixed_precision|16-mixed|bf16-mixed|\b(?:fp16|bf16)\s*=\s*True/.test(code)
      ? ('mixed' as const)
      : null,
    batch: number(/\bbatch_?size\s*[=:]\s*(\d{1,6})\b/i),
    epochs: number(/\b(?:n_|num_|max_)?epochs\s*[=:]\s*(\d{1,6})\b/i),
    imageSize:
      number(/\b(?:Resize|RandomResizedCrop|CenterCrop)\(\s*\(?\s*(\d{2,4})\b/) ??
      number(/\b(?:image_?size|img_?size|target_size)\s*[=:]\s*\(?\s*(\d{2,4})\b/i),
    sequence: number(/\b(?:max_length|max_seq_len(?:gth)?|seq_len(?:gth)?|block_size|context_length)\s*[=:]\s*(\d{1,7})\b/i),
  }
  const said = [
    network && `network ${network.name}`,
    facts.optimiser && `optimiser ${facts.optimiser}`,
    facts.precision && `precision ${facts.precision}`,
    facts.batch && `${facts.batch} samples a step`,
    facts.epochs && `${facts.epochs} epochs`,
    facts.imageSize && `pictures of ${facts.imageSize} pixels`,
    facts.sequence && `${facts.sequence} tokens a sample`,
  ].filter(each => typeof each === 'string')
  return { ...facts, notes: said.length > 0 ? [`Read in the script, without running it: ${said.join(', ')}.`] : [] }
}

function optimiserIn(code: string): Optimiser | null {
  if (/\b(?:AdamW?8bit|PagedAdamW8bit|adamw_8bit)\b/i.test(code)) return 'adam8bit'
  if (/\b(?:NAdam|RAdam|AdamW?|adamw?|RMSprop)\b/.test(code)) return 'adam'
  if (/\b(?:SGD|sgd)\b/.test(code)) return /\bmomentum\s*=\s*0?\.\d/.test(code) ? 'momentum' : 'sgd'
  return null
}
