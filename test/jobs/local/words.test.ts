/** What attempts are started with: words, variables, cores. Pure. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { ranksOf, runWords } from '../../../src/jobs/backends/local/command.ts'
import { chooseCores, parseList } from '../../../src/jobs/backends/local/cores.ts'
import { findPorts } from '../../../src/jobs/backends/local/ports.ts'
import { deviceVariables, inheritedVariables } from '../../../src/jobs/backends/local/variables.ts'
import { attemptOf } from './engine.ts'

test('torchrun starts what the job starts, through the same interpreter', () => {
  const torchrun = (...argv: string[]) => runWords({ launcher: 'torchrun', run: { argv } }, 'file').join(' ')
  assert.equal(torchrun('python', 'train.py', '--lr', '1'), 'python -m torch.distributed.run train.py --lr 1')
  assert.equal(
    torchrun('/venv/bin/python3.11', '-u', '-X', 'dev', 'train.py'),
    '/venv/bin/python3.11 -u -X dev -m torch.distributed.run train.py',
  )
  assert.equal(torchrun('python', '-m', 'pkg.train'), 'python -m torch.distributed.run -m pkg.train')
  assert.equal(torchrun('python', '-c', 'print()'), 'torchrun --no-python python -c print()')
  assert.equal(torchrun('python'), 'torchrun --no-python python')
  assert.equal(torchrun('./train.sh'), 'torchrun --no-python ./train.sh')
  assert.deepEqual(runWords({ launcher: 'torchrun', run: { shell: 'cd a; python b' } }, 'file'), [
    ...['torchrun', '--no-python', 'bash', '-c', 'cd a; python b'],
  ])
})

test('one process starts on each node, or for each of its accelerators', () => {
  const gpu = (id: string) => ({ id, vendor: 'nvidia', name: 'H100', share: 1 })
  const attempt = attemptOf(1, 'true', { nodes: 2, launcher: 'per-accelerator', share: { devices: [gpu('a'), gpu('b')] } })
  assert.deepEqual(
    ranksOf(attempt).map(({ index, node, local, perNode, count }) => [index, node, local, perNode, count]),
    [
      [0, 0, 0, 2, 4],
      [1, 0, 1, 2, 4],
      [2, 1, 0, 2, 4],
      [3, 1, 1, 2, 4],
    ],
  )
  assert.equal(ranksOf(attemptOf(1, 'true', { nodes: 3, share: { devices: [gpu('a'), gpu('b')] } })).length, 3)
  assert.equal(ranksOf(attemptOf(1, 'true', { launcher: 'per-accelerator' })).length, 1, 'without accelerators it is one')
})

test('each vendor is told what was leased, and NVIDIA and AMD that nothing was', () => {
  const device = (vendor: string, id: string) => ({ id, vendor, name: '', share: 1 })
  assert.deepEqual(deviceVariables([]), { CUDA_VISIBLE_DEVICES: '', CUDA_DEVICE_ORDER: 'PCI_BUS_ID', HIP_VISIBLE_DEVICES: '' })
  assert.equal(deviceVariables([device('nvidia', 'GPU-1'), device('nvidia', 'MIG-2')])['CUDA_VISIBLE_DEVICES'], 'GPU-1,MIG-2')
  const amd = deviceVariables([device('amd', 'amd:1'), device('amd', 'amd:3')])
  assert.deepEqual([amd['HIP_VISIBLE_DEVICES'], amd['CUDA_VISIBLE_DEVICES']], ['1,3', '1,3'])
  const both = deviceVariables([device('amd', 'amd:0'), device('nvidia', 'GPU-1')])
  assert.deepEqual([both['HIP_VISIBLE_DEVICES'], both['CUDA_VISIBLE_DEVICES']], ['0', 'GPU-1'])
  const tpu = deviceVariables([device('google', 'google:0')])
  assert.deepEqual([tpu['TPU_VISIBLE_CHIPS'], tpu['TPU_HOST_BOUNDS']], ['0', '1,1,1'])
})

test('a job takes over where programs are, and no secret, launcher or setting of Plinth', () => {
  const kept = {
    PATH: '/bin',
    HOME: '/root',
    LANG: 'C',
    HTTPS_PROXY: 'http://proxy',
    LD_LIBRARY_PATH: '/cuda',
    SSH_AUTH_SOCK: '/s',
    MONKEY: '1',
  }
  const left = {
    ...{ HF_TOKEN: 'x', AWS_SECRET_ACCESS_KEY: 'x', AWS_ACCESS_KEY_ID: 'x', PGPASSWORD: 'x', DB_PASSWORD: 'x', OPENAI_API_KEY: 'x' },
    ...{ PLINTH_DATABASE: 'x', MLFLOW_RUN_ID: 'x', SLURM_JOB_ID: 'x', RANK: '1', CUDA_VISIBLE_DEVICES: '0', NODE_OPTIONS: '-r x' },
  }
  assert.deepEqual(inheritedVariables({ ...kept, ...left }), kept)
})

test('cores are those that the fewest others have', () => {
  assert.deepEqual(parseList('0-2,5, 7-8'), [0, 1, 2, 5, 7, 8])
  assert.deepEqual([parseList(''), parseList('x-y')], [[], []])
  assert.equal(chooseCores([0, 1], [], 2), null)
  assert.deepEqual(chooseCores([0, 1, 2, 3], [0, 0, 1], 1.5), [2, 3])
  fc.assert(
    fc.property(
      fc.uniqueArray(fc.nat(64), { minLength: 1 }),
      fc.array(fc.nat(64)),
      fc.double({ min: 0.1, max: 70, noNaN: true }),
      (all, taken, cpus) => {
        const chosen = chooseCores(all, taken, cpus)
        if (chosen === null) return assert.ok(Math.ceil(cpus) >= all.length)
        assert.equal(new Set(chosen).size, Math.ceil(cpus))
        const users = (core: number) => taken.filter(each => each === core).length
        const most = Math.max(...chosen.map(users))
        for (const core of all) assert.ok(chosen.includes(core) || users(core) >= most)
      },
    ),
  )
})

test('ports are free, apart, and below those that the system hands out', async () => {
  const { createServer } = await import('node:net')
  const [{ torch }, other] = [await findPorts(77, 3), await findPorts(78, 3)]
  assert.notEqual(torch, other.torch)
  const taken = createServer().listen(torch, '127.0.0.1')
  await new Promise(done => taken.once('listening', done))
  const { torch: next, jax, tensorflow } = await findPorts(77, 3)
  taken.close()
  const all = [next, jax, ...tensorflow]
  assert.ok(new Set(all).size === 5 && !all.includes(torch) && all.every(port => port >= 20_000 && port < 32_768))
})
