/** How each number is computed, in words: one table, which pages link to and docs/evaluation.md explains at length. */
import { calibrationBins } from './metrics.ts'

export type Method = keyof typeof methods

/** Key (the anchor `how-…`) → heading and text. */
export const methods = {
  accuracy: ['Accuracy', 'Right answers divided by test pictures.'],
  test: ['Never seen before', 'The test side is drawn before training and used once; no choice was made on it.'],
  interval: [
    'Interval',
    '95 % Wilson score interval: in 95 of 100 such tests it holds the accuracy that endless pictures of this kind would give. It says nothing about pictures of another kind: another camera, another place.',
  ],
  groups: [
    'Groups',
    'Copies of a picture, frames of one burst, pictures of one patient say little more than one of them. They count as one group: Wilson’s interval is made for as many pictures as the groups are worth, n / (1 + (Σm²/n − 1)·ρ), with m the sizes of the groups and ρ how alike the answers within a group are (intraclass correlation, drawn towards 1 where few groups tell). With fewer than about twenty groups it holds the truth in as few as 90 of 100 tests instead of 95. Intervals of single classes do not know of groups.',
  ],
  majority: ['Always the same', 'Accuracy of answering every test picture with the class that is most frequent on the training side.'],
  probe: [
    'Linear probe',
    'Logistic regression on the features of the untouched backbone, fitted on the same training pictures, its regularisation chosen on the same validation pictures.',
  ],
  paired: [
    'Better or not',
    'Both models answer the same pictures, and only those where exactly one is right count: exact McNemar test, two-sided; interval of the difference by Newcombe’s method 10. Pictures of one group change sides together. “Not told apart” is said from p = 0.05 upwards.',
  ],
  validation: ['Validation', 'Pictures set aside to choose between models and settings; not those of the test.'],
  random: [
    'By a split by chance',
    'The linear probe is fitted and tested several times: on splits that keep copies and groups on one side, as here, and on splits by chance, as most tools make them. The means are shown. Where copies are torn apart, the probe is tested on what it has learned by heart.',
  ],
  folds: [
    'Cross-validation',
    'All pictures are cut into parts, groups kept whole. The head is fitted without one part and tested on it, for each part, and all of it again with other cuts. More pictures are tested than the test side holds, so the interval is narrower; but it judges the head on the untouched backbone, not the fine-tuned network.',
  ],
  classes: [
    'Precision, recall, F1',
    'By class. F1 = 2·TP / (2·TP + FP + FN). A dash where there is nothing to divide by: a class without test pictures, or one that was never answered.',
  ],
  confusion: ['What is taken for what', 'Counts of test pictures: of each true class, how many got which answer.'],
  slices: [
    'Parts',
    'Folders, cameras, months and file formats with at least ten pictures, each against the rest: exact test of equal mistakes within every class (so that a camera that saw the hard class is not blamed for it), pictures of one group counted once. Whoever looks at many parts finds a bad one by luck: Holm’s correction holds the chance that any of them is called by mistake under 5 %.',
  ],
  calibration: [
    'Calibration',
    `Expected calibration error: the answers in ${calibrationBins} bins of equal width by their probability; the mean distance between a bin’s mean probability and its share of right answers, weighted by its size. On a small test it is above zero even for a perfect model.`,
  ],
  probability: [
    'Probability',
    'What the model itself says of an answer, after the temperature. How far to believe it is what calibration says.',
  ],
  temperature: [
    'Temperature',
    'One number that divides the scores before they become probabilities, chosen on validation for the greatest likelihood. It never changes an answer, only how sure it is.',
  ],
  threshold: ['Too unsure', 'The probability that one in twenty right answers on validation stays under. Answers below it are marked.'],
  unknown: [
    'None of these',
    'How far a picture lies from all that was learned, in the network’s own measure (its features). The limit is chosen on pictures that were left out while the measure was made, so that it calls the stated share of right pictures unknown by mistake.',
  ],
  stranger: [
    'Told from strangers',
    'Each class is left out in turn and the measure is made without it. Then take one picture of that class and one of the others: the number says how often the stranger lies farther away (area under the ROC curve). 50 of 100 is a coin, 100 is perfect. Beside it the same with the probability of the answer instead of the distance.',
  ],
  strangers: [
    'Called unknown here',
    'Pictures of this set that lie beyond the limit of the model (see docs/unknown.md). The limit was set in training so that the stated share of pictures like those it learned from lies beyond it. Of another kind is said where the 95 % interval of the share lies above that.',
  ],
  mislabels: [
    'Labels that look wrong',
    'Every picture is judged by heads that were fitted without it and without its copies, several times over; the score joins how little they believe the label and how many of its nearest neighbours carry another one. How many are wrong is an estimate with a 95 % interval; of such lists about half proves wrong when people look.',
  ],
  maps: [
    'What speaks for an answer',
    'The network averages its last picture before it decides, so the score of an answer is exactly the sum over that picture’s places. Orange places spoke for the answer that was given rather than the others, blue ones against it. Exact for the score; what the network sees in those places it does not say.',
  ],
  choices: ['Choices', 'Made on training and validation pictures only; the test had no say.'],
  data: [
    'Counting pictures',
    'Two pictures are identical when their decoded, turned pixels are. A file that cannot be read is left out and named.',
  ],
  time: ['Time', 'From the start of the command to the finished model, on the clock; the forecast was made before the work.'],
  seen: [
    'Pictures it knows',
    'By their decoded pixels, looked up among those that the model, and those it went on from, learned from or were chosen on.',
  ],
  looks: [
    'Looks at a test set',
    'Choosing the best of k models by one test set picks the luckiest too. Of k equally good models with independent mistakes the luckiest is expected Φ⁻¹((k − 3/8) / (k + 1/4)) standard errors above the truth (Blom 1958); models that make the same mistakes flatter less.',
  ],
} as const satisfies Record<string, readonly [heading: string, text: string]>
