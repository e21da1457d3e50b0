/** The page behind the links that MLflow's clients print at the end of a run: what to type to see it. It shows nothing that is kept. */
import { send } from '../../api/http.ts'
import { pageOf } from '../../api/page.ts'
import type { ForeignRoute } from '../../api/route.ts'
import { asMlflowError } from './wire.ts'

const html = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Plinth</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 40rem; margin: 12vh auto; padding: 0 1.5rem; color-scheme: light dark }
code, pre { font: 15px/1.6 ui-monospace, monospace }
</style>
<h1>Plinth answers here</h1>
<p>Pages to look at runs and models are not there yet. On a machine that was given a token for this server:</p>
<pre id="commands"></pre>
<p>With a token, <code>/api</code> lists all calls.</p>
<script>
const login = location.hostname === 'localhost' || location.hostname.startsWith('127.') ? '' :
  'plinth login ' + location.origin + '\\nexport PLINTH_URL=' + location.origin + '\\n'
const [, run] = /[/]runs[/]([0-9a-f]{32})/.exec(location.hash) || []
const [, experiment] = /[/]experiments[/](\\d{1,15})/.exec(location.hash) || []
document.getElementById('commands').textContent =
  login + (run ? 'plinth runs show ' + run : experiment ? 'plinth runs list --experiment ' + experiment : 'plinth runs list\\nplinth models list')
</script>
</html>
`

const page = pageOf(html)

export const landingRoute: ForeignRoute = {
  ...{ method: 'GET', path: '/', right: 'public', body: 'none', failed: asMlflowError },
  answer: ({ response }) => {
    send(response, 200, 'text/html; charset=utf-8', page.html, page.headers)
    return null
  },
}
