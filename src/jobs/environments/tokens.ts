/** Hides what looks like a secret though nobody said that it is one: in a diff, in a command. */

/** By the prefixes that their makers gave them; docs of GitHub, GitLab, Hugging Face, AWS, Google, OpenAI, Anthropic, Slack, Stripe, PyPI, npm, Weights & Biases. */
const known =
  /\b(?:gh[pousr]_[A-Za-z0-9]{20,255}|github_pat_[A-Za-z0-9_]{20,255}|glpat-[\w-]{16,100}|hf_[A-Za-z0-9]{20,100}|(?:AKIA|ASIA)[A-Z0-9]{16}|AIza[\w-]{30,60}|sk-[\w-]{20,200}|xox[abprs]-[\w-]{10,200}|[rs]k_(?:live|test)_[A-Za-z0-9]{16,100}|pypi-[\w-]{40,250}|npm_[A-Za-z0-9]{30,60}|plinth_[\w.-]{20,200}|eyJ[\w-]{10,1000}\.[\w-]{10,4000}\.[\w-]{10,1000})/g

/** password = "…", "api_key": "…", TOKEN=…; the value only. */
const assigned =
  /((?:pass(?:word|wd)?|secret|token|api_?key|access_?key|private_?key|credentials?)["']?\s{0,4}[:=]\s{0,4})(?:(["'])([^"'\n]{4,500})\2|([^\s"',;)}\]]{6,500}))/gi

const inAddress = /(:\/\/[^\s/:@"']{0,200}:)[^\s/@"']{1,500}(@)/g

/** What is an expression (os.environ, a call, a name that is read) stays: the line would say nothing without it. */
const isExpression = (value: string): boolean =>
  /[([{]|^(?:os|self|args|config|settings|process|env|None|null|true|false|str|string|undefined)\b/i.test(value)

export const maskTokens = (text: string): string =>
  withoutKeys(text)
    .replace(inAddress, '$1***$2')
    .replace(known, '***')
    .replace(assigned, (whole, head: string, quote = '', literal: string | undefined, bare = '') =>
      literal === undefined && (isExpression(bare) || bare === '***') ? whole : `${head}${quote}***${quote}`,
    )

/** Private keys in PEM, without an end to the end of the text. */
function withoutKeys(text: string): string {
  const pieces: string[] = []
  let at = 0
  for (const { index, 0: head } of text.matchAll(/-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----/g)) {
    if (index < at) continue
    const end = text.indexOf('-----END', index)
    pieces.push(text.slice(at, index), head, ' *** ')
    at = end < 0 ? text.length : end
  }
  return pieces.join('') + text.slice(at)
}
