/** Trees of /proc and /sys in the forms that Linux gives them, without a machine of each kind. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { affinity, cpuQuota, defaultThreads, memoryLimit } from '../../src/hardware/limits.ts'

const tree = (files: Record<string, string>) => (path: string) => files[path] ?? null
const v2 = (path: string) => ({ '/proc/self/cgroup': `0::${path}\n` })
const bound = (list: string) => ({ '/proc/self/status': `Name:\tnode\nCpus_allowed:\tff\nCpus_allowed_list:\t${list}\nMems_allowed:\t1\n` })

test('without control groups there is no limit', () => {
  for (const nothing of [{}, { '/proc/self/cgroup': '' }, v2('/')]) {
    assert.equal(cpuQuota(tree(nothing)), null)
    assert.equal(memoryLimit(tree(nothing)), null)
    assert.ok(defaultThreads(tree(nothing)) >= 1)
  }
})

test('version 2: the tightest of all levels counts, "max" is none', () => {
  const files = {
    ...v2('/system.slice/job.scope'),
    '/sys/fs/cgroup/system.slice/job.scope/cpu.max': '300000 100000\n',
    '/sys/fs/cgroup/system.slice/cpu.max': '150000 100000\n',
    '/sys/fs/cgroup/system.slice/job.scope/memory.max': 'max\n',
    '/sys/fs/cgroup/system.slice/memory.max': '2147483648\n',
  }
  assert.equal(cpuQuota(tree(files)), 1.5)
  assert.equal(memoryLimit(tree(files)), 2 ** 31)
  assert.equal(cpuQuota(tree({ ...v2('/a'), '/sys/fs/cgroup/a/cpu.max': 'max 100000\n' })), null)
})

test('version 2 in a container: its own group is the root of what it sees', () => {
  const files = { ...v2('/'), '/sys/fs/cgroup/cpu.max': '50000 100000\n', '/sys/fs/cgroup/memory.max': '536870912\n' }
  assert.equal(cpuQuota(tree(files)), 0.5)
  assert.equal(memoryLimit(tree(files)), 2 ** 29)
  // the path of the machine, which leads nowhere from in here
  assert.equal(cpuQuota(tree({ ...files, ...v2('/docker/0123abcd') })), 0.5)
  assert.equal(cpuQuota(tree({ ...files, ...v2('/../../kubepods') })), 0.5)
})

test('version 1: −1 and the huge number mean none', () => {
  const cgroup = { '/proc/self/cgroup': '12:memory:/docker/ab\n5:cpu,cpuacct:/docker/ab\n1:name=systemd:/docker/ab\n' }
  const files = {
    ...cgroup,
    '/sys/fs/cgroup/cpu,cpuacct/docker/ab/cpu.cfs_quota_us': '200000\n',
    '/sys/fs/cgroup/cpu,cpuacct/docker/ab/cpu.cfs_period_us': '100000\n',
    '/sys/fs/cgroup/memory/docker/ab/memory.limit_in_bytes': '1073741824\n',
    '/sys/fs/cgroup/memory/memory.limit_in_bytes': '9223372036854771712\n',
  }
  assert.equal(cpuQuota(tree(files)), 2)
  assert.equal(memoryLimit(tree(files)), 2 ** 30)
  const free = {
    ...cgroup,
    '/sys/fs/cgroup/cpu/cpu.cfs_quota_us': '-1\n',
    '/sys/fs/cgroup/cpu/cpu.cfs_period_us': '100000\n',
    '/sys/fs/cgroup/memory/memory.limit_in_bytes': '9223372036854771712\n',
  }
  assert.equal(cpuQuota(tree(free)), null)
  assert.equal(memoryLimit(tree(free)), null)
})

test('threads are the cores this process is bound to, cut by the quota, and never none', () => {
  assert.deepEqual(affinity(tree(bound('0-3,8,10-11'))), [0, 1, 2, 3, 8, 10, 11])
  assert.deepEqual(affinity(tree(bound('5'))), [5])
  assert.equal(affinity(tree({})), null)
  assert.equal(defaultThreads(tree(bound('0-3,8'))), 5)
  assert.equal(defaultThreads(tree({ ...bound('0-7'), ...v2('/'), '/sys/fs/cgroup/cpu.max': '150000 100000' })), 2)
  assert.equal(defaultThreads(tree({ ...bound('0-7'), ...v2('/'), '/sys/fs/cgroup/cpu.max': '1000 100000' })), 1)
  assert.equal(defaultThreads(tree({ ...bound('0'), ...v2('/'), '/sys/fs/cgroup/cpu.max': '800000 100000' })), 1)
})
