/** Names for runs that were given none, such as `calm-otter-417`: easier to say than 32 digits. */
import { randomInt } from 'node:crypto'

const adjectives =
  'amber brave bright calm clever cosy crisp curious daring deep eager early fair fine fleet fond free fresh gentle glad golden grand handy happy honest keen kind lively loyal lucky merry mild neat nimble noble patient plain proud quick quiet ready rustic sharp shy silver smart snug steady still stout sunny swift tidy true vivid warm wise young'.split(
    ' ',
  )
const animals =
  'ant badger bat bear beaver bee boar crane crow deer dove duck eagle elk falcon ferret finch fox frog goat goose hare hawk heron horse ibis jay kite koala lark lion lizard lynx mole moose moth mouse newt otter owl ox panda pike pony puffin quail raven robin salmon seal sheep skunk snail stork swan tiger toad trout turtle viper vole whale wolf wren yak zebra'.split(
    ' ',
  )

export const inventedName = (): string => `${one(adjectives)}-${one(animals)}-${randomInt(1000)}`
const one = (words: readonly string[]) => words[randomInt(words.length)]!
