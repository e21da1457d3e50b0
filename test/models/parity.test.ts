/** The builders against the libraries whose weights they load: logits of PyTorch's own code in float64 (scripts/golden-models.py). */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { add, constant, input, matMul, mul, parameter, reshape, sub, topologicalOrder } from '../../src/engine/graph.ts'
import type { Weights } from '../../src/engine/lowering.ts'
import { floatToHalf } from '../../src/engine/safetensors.ts'
import { compile } from '../../src/engine/session.ts'
import { type Backbone, backbone } from '../../src/models/catalogue.ts'
import { readWeightsFile } from '../../src/models/weights.ts'
import { python } from '../peers.ts'
import { formulaWeight, picture } from './formula.ts'

const golden = (name: string) => JSON.parse(readFileSync(new URL(`../golden/models/${name}`, import.meta.url), 'utf8'))
const bundled = fileURLToPath(new URL('../../src/models/weights/efficientnet-lite0.safetensors', import.meta.url))

/** pictures on 0…255 → normalise → backbone → the source library's own classifier. */
function classifier(base: Backbone, batch: number, side: number, fc: string) {
  const pictures = input('picture', [batch, 3, side, side])
  const perChannel = (values: readonly number[]) => reshape(constant(Float32Array.from(values), [3]), [1, 3, 1, 1])
  const normal = mul(sub(pictures, perChannel(base.normalise.mean)), perChannel(base.normalise.scale.map(s => 1 / s)))
  const { features } = base.build(normal)
  return add(matMul(features, parameter(`${fc}.weight`, [1000, base.features]), { transposeB: true }), parameter(`${fc}.bias`, [1000]))
}
async function logitsOf(base: Backbone, weights: Weights, fc: string, pictures: Float32Array, batch: number, side: number) {
  const program = await compile({ logits: classifier(base, batch, side, fc) }, weights, { threads: 2 })
  try {
    return (await program.run({ picture: pictures }))['logits'] as Float32Array
  } finally {
    program.close()
  }
}
const largestDifference = (a: ArrayLike<number>, b: readonly number[]) => b.reduce((most, v, i) => Math.max(most, Math.abs(v - a[i]!)), 0)
const indexOfLargest = (a: ArrayLike<number>) => Array.from(a).reduce((best, v, i) => (v > a[best]! ? i : best), 0)

// ── EfficientNet-Lite0, the bundled weights ─────────────────────────────────────────────────────────────────────────────────

const lite = golden('efficientnet-lite0-logits.json') as {
  tensors: string
  logits: { side: number; original: number[]; stored: number[] }[]
}

test('the bundled weights are, bit for bit, what PyTorch makes of the original in float16', async () => {
  const tensors = await readWeightsFile(bundled)
  const digest = createHash('sha256')
  for (const name of [...tensors.keys()].sort()) digest.update(name).update(Uint16Array.from(tensors.get(name)!.data, floatToHalf))
  assert.equal(tensors.size, 296 - 49) // without the counters of training steps
  assert.equal(digest.digest('hex'), lite.tensors)
})

for (const { side, original, stored } of lite.logits)
  test(`EfficientNet-Lite0 at ${side} pixels: logits of PyTorch to 1e-4, and float16 moves them by less than 0.02`, async () => {
    const weights = new Map([...(await readWeightsFile(bundled))].map(([name, { data }]) => [name, data]))
    const logits = await logitsOf(backbone('efficientnet-lite0'), weights, '_fc', picture('efficientnet-lite0', 1, side), 1, side)
    const [exact, rounded] = [largestDifference(logits, stored), largestDifference(logits, original)]
    assert.ok(exact < 1e-4, `${exact} from PyTorch with the same float16 weights`)
    assert.ok(rounded < 0.02, `${rounded} from PyTorch with the original weights`)
    assert.equal(indexOfLargest(logits), indexOfLargest(original))
  })

// ── ResNets ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

for (const { id, batch, side, logits: expected } of golden('resnet-logits.json') as {
  id: string
  batch: number
  side: number
  logits: number[]
}[])
  test(`${id}: logits of torchvision to 1e-4, weights from a formula`, async () => {
    const base = backbone(id)
    const leaves = topologicalOrder([classifier(base, batch, side, 'fc')]).filter(node => node.operation === 'Parameter')
    const weights = new Map(leaves.map(({ name, shape }) => [name!, formulaWeight(name!, shape)]))
    const logits = await logitsOf(base, weights, 'fc', picture(id, batch, side), batch, side)
    const firstHundred = Array.from({ length: batch }, (_, n) => Array.from(logits.subarray(n * 1000, n * 1000 + 100))).flat()
    const difference = largestDifference(firstHundred, expected)
    assert.ok(difference < 1e-4, `${difference}`)
  })

test('files that torchvision saves, .pth in both formats and .safetensors as timm writes it, give its logits to 1e-4', async t => {
  const interpreter = python()
  if (!interpreter) return t.skip('no Python with torchvision here (scripts/install-peers.ts)')
  try {
    execFileSync(interpreter, ['-c', 'import torchvision'], { stdio: 'ignore' })
  } catch {
    return t.skip('this Python has no torchvision')
  }
  const folder = mkdtempSync(join(tmpdir(), 'plinth-parity-'))
  try {
    const script = `
import json, struct, sys, torch, torchvision
torch.set_num_threads(2)
folder = sys.argv[1]
def safetensors(state, path):
    header, end, parts = {'__metadata__': {'format': 'pt'}}, 0, []
    for name, v in state.items():
        data = v.contiguous().numpy().tobytes()
        header[name] = {'dtype': {'float32': 'F32', 'int64': 'I64'}[str(v.dtype)[6:]], 'shape': list(v.shape), 'data_offsets': [end, end + len(data)]}
        end += len(data); parts.append(data)
    text = json.dumps(header).encode()
    open(path, 'wb').write(struct.pack('<Q', len(text)) + text + b''.join(parts))
result = {}
for name in ['resnet18', 'resnet34', 'resnet50']:
    torch.manual_seed(3)
    net = getattr(torchvision.models, name)(weights=None)
    with torch.no_grad():
        for m in net.modules():
            if isinstance(m, torch.nn.BatchNorm2d):
                m.weight.uniform_(0.2, 0.7); m.bias.normal_(0, 0.1); m.running_mean.normal_(0, 0.2); m.running_var.uniform_(0.5, 2)
        x = torch.randn(1, 3, 64, 64)
        net.eval()
        result[name] = {'x': x.flatten().tolist(), 'logits': net.double()(x.double()).flatten().tolist()}
    state = net.float().state_dict()
    torch.save(state, f'{folder}/{name}.pth')
    if name == 'resnet18':
        torch.save({'module.' + k: v for k, v in state.items()}, f'{folder}/{name}-old.pth', _use_new_zipfile_serialization=False)
    safetensors(state, f'{folder}/{name}.safetensors')
json.dump(result, open(f'{folder}/result.json', 'w'))`
    execFileSync(interpreter, ['-c', script, folder])
    const results = JSON.parse(readFileSync(join(folder, 'result.json'), 'utf8')) as Record<string, { x: number[]; logits: number[] }>
    for (const [id, { x, logits: expected }] of Object.entries(results)) {
      const base = backbone(id)
      // undo the normalisation, because `classifier` applies it
      const pictures = Float32Array.from(
        x,
        (v, i) => v * base.normalise.scale[Math.floor(i / 4096)]! + base.normalise.mean[Math.floor(i / 4096)]!,
      )
      const fromPth = await base.loadWeights({ file: join(folder, `${id}.pth`) })
      const fromSafetensors = await base.loadWeights({ file: join(folder, `${id}.safetensors`) })
      assert.deepEqual(fromPth, fromSafetensors)
      if (id === 'resnet18') assert.deepEqual(await base.loadWeights({ file: join(folder, `${id}-old.pth`) }), fromPth)
      const all = await readWeightsFile(join(folder, `${id}.pth`))
      const weights = new Map([...fromPth, ...['fc.weight', 'fc.bias'].map(name => [name, all.get(name)!.data] as const)])
      const difference = largestDifference(await logitsOf(base, weights, 'fc', pictures, 1, 64), expected)
      t.diagnostic(`${id}: largest difference ${difference.toExponential(1)}`)
      assert.ok(difference < 1e-4, `${id}: ${difference}`)
    }
  } finally {
    rmSync(folder, { recursive: true })
  }
})
