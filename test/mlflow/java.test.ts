/** MLflow's Java client: PLINTH_MLFLOW_JAVA is a class path with org.mlflow:mlflow-client (2.17.2 was tried) and what it needs. */
import assert from 'node:assert/strict'
import { execFile, execFileSync } from 'node:child_process'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { startServer } from './server.ts'

const classPath = process.env['PLINTH_MLFLOW_JAVA']
const skip = !classPath ? 'PLINTH_MLFLOW_JAVA is not set' : hasJava() ? false : 'no Java'

function hasJava(): boolean {
  try {
    execFileSync('java', ['-version'], { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
}

test('the Java client tracks, searches and registers', { skip, timeout: 120_000 }, async () => {
  const server = await startServer()
  try {
    const source = fileURLToPath(new URL('./Client.java', import.meta.url))
    const { stdout } = await promisify(execFile)('java', ['-cp', classPath!, source, server.url, server.token])
    assert.match(stdout, /tracking ok\njava client ok/)
  } finally {
    await server.close()
  }
})
