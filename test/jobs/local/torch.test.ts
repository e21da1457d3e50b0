/** PyTorch over gloo on two nodes of one machine: it trains, one node is killed, and the next attempt resumes. Needs the peers. */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { python as peer } from '../../peers.ts'
import { attemptOf, long, makeEngine, processesWith, until } from './engine.ts'

const python = peer()
const skip = !long && 'PLINTH_TEST=long'
const engine = makeEngine()
after(engine.close)

const script = `
import os, sys, torch, torch.distributed as dist
rank, world = int(os.environ[sys.argv[1]]), int(os.environ[sys.argv[2]])
if 'RANK' in os.environ: dist.init_process_group('gloo')
else: dist.init_process_group('gloo', init_method=f"tcp://{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}", rank=rank, world_size=world)
torch.manual_seed(0)
model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(10, 1))
optimiser = torch.optim.SGD(model.parameters(), lr=.1)
path = os.path.join(os.environ['PLINTH_CHECKPOINT_DIR'], 'last.pt')
first = 0
if os.path.exists(path):
    saved = torch.load(path)
    model.load_state_dict(saved['model']); first = saved['step'] + 1
print(f'rank {rank} of {world} begins at step {first} with {os.environ["OMP_NUM_THREADS"]} threads', flush=True)
torch.manual_seed(rank + 1)
for step in range(first, 20):
    optimiser.zero_grad(); model(torch.randn(32, 10)).pow(2).mean().backward(); optimiser.step()
    if rank == 0: torch.save({'model': model.state_dict(), 'step': step}, path + '.part'); os.rename(path + '.part', path)
    dist.barrier()
    if step == 9 and first == 0 and '--stay' in sys.argv:
        print(f'rank {rank} waits', flush=True)
        import time; time.sleep(600)
weight = model.module.weight.detach().clone(); dist.all_reduce(weight)
assert torch.allclose(weight / world, model.module.weight.detach(), atol=1e-6)
print(f'rank {rank} agrees', flush=True)
`

test('DDP trains on two nodes of one machine; one is killed, the other ends with it, and the next attempt resumes', { skip }, async t => {
  if (python === null) return t.skip('no PyTorch: npm run peers')
  const path = join(engine.home, 'ddp.py')
  writeFileSync(path, script)
  const spec = { nodes: 2, checkpoint: { dir: 'steps', keep: null } }
  const job = await engine.start([python, path, 'NODE_RANK', 'NNODES', '--stay'], spec)
  await until(async () => (await engine.log(job)).filter(line => line.endsWith('waits')).length === 2, 'step 9 on both', 120)
  const cookie = JSON.parse(readFileSync(join(engine.folder(job), 'attempt.json'), 'utf8')).cookie
  process.kill(Number(readFileSync(join(engine.folder(job), 'run.1.born'), 'utf8').split(' ')[0]), 'SIGKILL')
  const killed = await engine.ended(job)
  assert.deepEqual([killed.exitCode, killed.signal], [137, 'SIGKILL'])
  assert.match(killed.message!, /^Node 1: /)
  assert.ok((await engine.log(job)).some(line => /Node 1 ended with 137: the others are stopped/.test(line)))
  await until(() => processesWith(cookie).length === 0, 'the end of both nodes')

  await engine.backend.start(attemptOf(job, [python, path, 'NODE_RANK', 'NNODES', '--stay'], { ...spec, attempt: 2 }), {})
  await until(async () => (await engine.backend.observe(job, 2)).status === 'ended', 'the second attempt', 120)
  const seen = await engine.backend.observe(job, 2)
  assert.ok(seen.status === 'ended' && seen.exit.reason === null, JSON.stringify(seen))
  const log = readFileSync(join(engine.folder(job, 2), 'log'), 'utf8')
  for (const rank of [0, 1]) {
    assert.match(log, new RegExp(`\\[node ${rank}\\] rank ${rank} of 2 begins at step 10 with 1 threads`))
    assert.match(log, new RegExp(`\\[node ${rank}\\] rank ${rank} agrees`))
  }
})

test('torchrun finds its nodes and ranks in the variables alone', { skip }, async t => {
  if (python === null) return t.skip('no PyTorch: npm run peers')
  const path = join(engine.home, 'ddp.py')
  writeFileSync(path, script)
  const { reason, text, message } = await engine.run([python, path, 'RANK', 'WORLD_SIZE'], { nodes: 2, launcher: 'torchrun' })
  assert.equal(reason, null, `${message}\n${text}`)
  for (const rank of [0, 1]) assert.match(text, new RegExp(`rank ${rank} of 2 begins at step 0`))
  assert.match(text, /rank 1 agrees/)
})
