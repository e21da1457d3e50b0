/** What is installed, read from the names that installers leave beside each package: quicker than asking Python, which reads every file. */
import { readdir } from 'node:fs/promises'

/** `name==version` of the folders of packages, in order of name; what an earlier folder has hides the same of a later one. */
export async function packagesIn(sites: readonly string[]): Promise<string[]> {
  const found = new Map<string, string>()
  for (const site of sites)
    for (const entry of await readdir(site).catch(() => [])) {
      // recording installed projects (PyPA): name and version escaped to underscores; .egg-info adds the Python it is for
      const [, name, version] = /^([\w.]+?)-(\d[^-]*)(?:-py[\d.]+)?\.(?:dist|egg)-info$/.exec(entry) ?? []
      if (name !== undefined && !found.has(name.toLowerCase())) found.set(name.toLowerCase(), `${name.replaceAll('_', '-')}==${version}`)
    }
  return [...found.values()].toSorted((a, b) => (a.toLowerCase() < b.toLowerCase() ? -1 : 1))
}
