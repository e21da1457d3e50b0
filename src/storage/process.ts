/** Whether a process with this number lives. Numbers are used again: who must be sure of which one compares its birth as well (track/worker.ts). */
export function isProcessAlive(pid: number): boolean {
  try {
    process.kill(pid, 0) // signal 0 only asks
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}
